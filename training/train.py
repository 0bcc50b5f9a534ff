r"""Trains a restoration network on TFRecords.

    python -m training.train --config=default --workdir=runs/mine \
        --config.data.dir=tfrecords --config.source='watermark:canvas=mark.png,opacity=0.8..1'

In: a finished folder of `preprocessing.coco_to_tfrecord`, with the splits that `config.data` names.

Out: WORKDIR/
    config.json      the recipe
    checkpoints/     the newest states; the same command resumes from them
    best/            the weights with the best validation result; `serving.export` uses these
    validation.npz   the validation images
    tensorboard/     tensorboard --logdir=WORKDIR
    metrics.csv      the same scalars

Any field of the recipe can be overridden on the command line: --config.batch_size=64. The batch size is global: the
batch is spread over all devices. SIGTERM or Ctrl-C saves the state and exits with code 0, or 75 with several workers;
the same command resumes the run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from absl import flags, logging

from common import command_line, recipe_flag
from common.command_line import UserError
from common.stopping import stop_asked
from training import loop
from training.distributed import devices, workers

_CONFIG = recipe_flag.define("config", "default", "The recipe.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
_JIT = flags.DEFINE_enum("jit", "auto", ["auto", "on", "off"], "Compile the step with XLA; auto: where there is a GPU.")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "auto",
    ["auto", "float32", "bfloat16", "float16"],
    "What the network computes in, weights being float32; auto: bfloat16 where the GPUs (Ampere or newer), or else the "
    "CPU, have it in hardware, and float32 where a layer computes wrongly in it. float16 scales the loss.",
)
_CORRUPT_ON = flags.DEFINE_enum(
    "corrupt_on", "device", ["device", "host"], "Overlay pictures in the compiled step, or in tf.data; the same pairs."
)
_VIRTUAL_DEVICES = flags.DEFINE_integer(
    "virtual_devices", 1, "Split the CPU into so many devices, to try distribution."
)


_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker"],
    "Over which devices the batch is spread; auto: all GPUs or virtual devices, where there are several. multi_worker: "
    "over the machines that TF_CONFIG names, see training/distributed/workers.py.",
)
_PROFILE = flags.DEFINE_string("profile", None, "STEP..STEP: write a trace of these steps for TensorBoard.")


def _profiled_steps(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition("..")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise UserError(f"--profile={text}: not a rising pair of steps; give two, as 20..30")
    return int(first), int(last)


def main(argv: Sequence[str]) -> int:
    """Trains according to the flags."""
    command_line.refuse_positional(argv)
    config = _CONFIG.value
    config.lock()
    devices.split_cpu(_VIRTUAL_DEVICES.value)
    precision = devices.choose_precision(_PRECISION.value)
    profile = _profiled_steps(_PROFILE.value)
    if config.data.deterministic:
        devices.be_deterministic(config.seed)
    several = _STRATEGY.value == "multi_worker"
    strategy = workers.multi_worker_strategy() if several else devices.strategy(_STRATEGY.value)
    jit_compile, stop = devices.use_jit(_JIT.value), stop_asked()
    try:
        loop.train_and_evaluate(
            config, _WORKDIR.value, strategy, jit_compile, _CORRUPT_ON.value, stop, profile, precision
        )
    except workers.LOST_PEER_ERRORS as error:
        if not several:
            raise
        reason = str(error.message).splitlines()[0]
        logging.warning("a worker was lost (%s); start this command again to go on at the newest checkpoint", reason)
        sys.stderr.flush()
        # A normal exit would hang: TensorFlow waits for peers that are gone.
        os._exit(workers.LOST_PEER)
    # When a peer was asked to stop, the run is not finished, and a supervisor must not think that it is.
    return workers.LOST_PEER if several and stop.is_set() else 0


def run() -> None:
    """Entry point of the console script."""
    command_line.run(main)


if __name__ == "__main__":
    run()
