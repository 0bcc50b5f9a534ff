r"""Measures training: speed against a plain Keras fit, the cost of the loop itself, and whether steps stay fast.

    --images=DIR     JPEGs; by default those in coco/val2017, else scikit-image's and scikit-learn's

Out: one line per figure.

    training_against_keras_fit   images/s of SRResNet (128 x 128, batch 8) through our loop, divided by those of a plain
                                 Keras `fit` fed by a Python generator, as in the older scripts
    training_bfloat16_loss       dB of validation PSNR lost by training in bfloat16 instead of float32: the default
                                 recipe for 600 steps with the same random draws
    training_loop_efficiency     steps/s of the loop, divided by those of the network alone or the input alone,
                                 whichever is slower
    training_step_drift          time of the last hundred of 2,000 steps of a small network, divided by that of the
                                 first hundred; training_step_drift_xla: the same, compiled
    training_memory_drift        the same ratio for resident memory; training_memory_drift_xla: the same, compiled

The two sides of training_against_keras_fit run alternately, and the fastest round of each counts. The parts of
training_loop_efficiency also run alternately, and medians count.

Command:

    python -m benchmarks.training [--quick]
"""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import ml_collections
import numpy as np
import psutil
import tensorflow as tf
from absl import flags
from PIL import Image

from benchmarks.data import older_scripts
from benchmarks.data.photographs import folder_of_photographs, jpegs
from benchmarks.data.recipe import prepare
from benchmarks.measuring.figure import median_of_alternating, report
from common import command_line
from training import loop, models
from training.data.input_pipeline import training_batches
from training.distributed import devices
from training.optimizers import Optimizer
from training.step import make_execution, make_train_step

_QUICK = flags.DEFINE_bool("quick", False, "Fewer steps and rounds.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of JPEGs.")

_STEPS_A_CALL = 4


class _Loop:
    """Runs our training steps the way `training.loop` does."""

    def __init__(self, config: ml_collections.ConfigDict, jit_compile: bool = False):
        strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
        with strategy.scope():
            model = models.build(config)
            optimizer = Optimizer(config, model.network.trainable_variables)
        step = make_train_step(strategy, model, optimizer, config, jit_compile)
        self._execute = make_execution(step)
        self.batches = training_batches(config)
        self._elements = iter(strategy.experimental_distribute_dataset(self.batches))
        # Endlessly repeats one batch, so that the input costs nothing.
        same = tf.data.Dataset.from_tensors(next(iter(self.batches))).repeat()
        self._same = iter(strategy.experimental_distribute_dataset(same))
        self._step = 0
        for run in (self.both, self.network_alone):
            run(_STEPS_A_CALL)

    def _run(self, elements: Iterator, steps: int) -> None:
        for _ in range(steps // _STEPS_A_CALL):
            done, rates = tf.zeros([_STEPS_A_CALL]), tf.fill([_STEPS_A_CALL], 1e-4)
            metrics = self._execute(elements, tf.constant(self._step, tf.int64), done, rates)
            self._step += _STEPS_A_CALL
        metrics["loss"].numpy()

    def both(self, steps: int) -> None:
        self._run(self._elements, steps)

    def network_alone(self, steps: int) -> None:
        self._run(self._same, steps)


def _batches(files: Sequence[str], canvas_path: str, batch: int, side: int) -> Iterator[tuple]:
    samples = older_scripts.pairs(files, canvas_path, side)
    while True:
        sources, targets = zip(*itertools.islice(samples, batch))
        yield np.stack(sources) / np.float32(255), np.stack(targets) / np.float32(255)


def _keras_fit_process(connection: Connection, fields: dict, images_dir: Path, canvas_path: str) -> None:
    """Receives numbers of steps over the connection, runs Keras' fit for each, and sends back the time in seconds."""
    config = ml_collections.ConfigDict(fields)
    network = models.build(config).network
    network.compile(tf.keras.optimizers.Adam(1e-4), "mae")
    files = [str(path) for path in jpegs(images_dir) if min(Image.open(path).size) > config.data.crop]
    batches = _batches(files, canvas_path, config.batch_size, config.data.crop)
    while steps := connection.recv():
        started = time.perf_counter()
        network.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0)
        connection.send(time.perf_counter() - started)


def _against_keras_fit(
    config: ml_collections.ConfigDict, images_dir: Path, canvas_path: str, steps: int, rounds: int
) -> None:
    config.model.name, config.batch_size = "srresnet", 8
    # Keras runs in a separate process, in float32 like the older scripts, and never at the same time as our loop.
    spawn = multiprocessing.get_context("spawn")
    connection, other_end = spawn.Pipe()
    arguments = (other_end, config.to_dict(), images_dir, canvas_path)
    process = spawn.Process(target=_keras_fit_process, args=arguments, daemon=True)
    process.start()

    def keras_fit(steps: int) -> float:
        connection.send(steps)
        while not connection.poll(1.0):
            if not process.is_alive():
                raise RuntimeError("the process of Keras' fit ended early; its message is above")
        return connection.recv()

    def our_loop(steps: int) -> float:
        started = time.perf_counter()
        ours.both(steps)
        return time.perf_counter() - started

    keras_fit(1)
    ours = _Loop(config)
    pairs = [(our_loop(steps), keras_fit(steps)) for _ in range(rounds)]
    connection.send(0)
    # Keras' rounds vary by two thirds here, ours by a tenth: medians could favor us, the fastest rounds cannot.
    own, other = (min(side) for side in zip(*pairs))
    print(f"SRResNet: {8 * steps / own:.2f} images/s; Keras fit: {8 * steps / other:.2f} images/s")
    report("training_against_keras_fit", other / own, "x", 2)


def _bfloat16_loss(config: ml_collections.ConfigDict, folder: Path, steps: int) -> None:
    if not devices.cpu_has_bfloat16():
        print("training_bfloat16_loss: this CPU has no bfloat16")
        return
    config.steps = config.eval_every = config.checkpoint_every = steps
    config.data.deterministic = True

    def validation_psnr(precision: str) -> float:
        strategy, chosen = tf.distribute.OneDeviceStrategy("/cpu:0"), devices.choose_precision(precision)
        figures = loop.train_and_evaluate(config, str(folder / precision), strategy, False, precision=chosen)
        return figures["psnr"]

    single, half = validation_psnr("float32"), validation_psnr("bfloat16")
    print(f"validation PSNR after {steps} steps: float32 {single:.2f} dB, bfloat16 {half:.2f} dB")
    report("training_bfloat16_loss", single - half, "dB", 0.1, at_least=False)


def _loop_efficiency(config: ml_collections.ConfigDict, steps: int, rounds: int) -> None:
    ours = _Loop(config)
    crops = iter(ours.batches)

    def input_alone() -> None:
        for _ in range(steps):
            next(crops)

    both, network, read = median_of_alternating(
        [lambda: ours.both(steps), lambda: ours.network_alone(steps), input_alone], rounds
    )
    print(f"steps/s: loop {steps / both:.2f}, network alone {steps / network:.2f}, input alone {steps / read:.2f}")
    report("training_loop_efficiency", max(network, read) / both, "x", 0.95)


def _drift(config: ml_collections.ConfigDict, jit_compile: bool, steps: int) -> None:
    config.model.features, config.model.blocks = (8, 12), (1, 1)
    config.data.crop, config.batch_size = 32, 4
    # Otherwise so small a network would wait for JPEGs, and the first steps, with full buffers, would be the fastest.
    config.data.crops_per_image = 16
    ours, seconds, resident, process = _Loop(config, jit_compile), [], [], psutil.Process()
    for _ in range(steps // _STEPS_A_CALL):
        started = time.perf_counter()
        ours.both(_STEPS_A_CALL)
        seconds.append(time.perf_counter() - started)
        resident.append(process.memory_info().rss)
    calls = 100 // _STEPS_A_CALL
    suffix = "_xla" if jit_compile else ""
    for name, values in (("step", seconds), ("memory", resident)):
        first, last = statistics.median(values[:calls]), statistics.median(values[-calls:])
        report(f"training_{name}_drift{suffix}", last / first, "x", 1.1, at_least=False)


def measure(folder: Path, images_dir: Path, quick: bool) -> None:
    """Prints the figures.

    Args:
      folder: an empty folder for the dataset and the canvas.
      images_dir: a folder of JPEGs.
      quick: whether to use fewer steps and rounds.
    """
    config = prepare(folder, images_dir, "train=0.9,val=0.1")

    def recipe() -> ml_collections.ConfigDict:
        return ml_collections.ConfigDict(config.to_dict())

    rounds = 2 if quick else 5
    _against_keras_fit(recipe(), images_dir, str(folder / "canvas.png"), 4 if quick else 8, min(rounds, 3))
    _bfloat16_loss(recipe(), folder, 20 if quick else 600)
    _loop_efficiency(recipe(), 8 if quick else 40, rounds)
    for jit_compile in (False, True):
        _drift(recipe(), jit_compile, 400 if quick else 2000)


def main(argv: Sequence[str]) -> None:
    """Measures in a temporary folder."""
    command_line.refuse_positional(argv)
    rewriting = devices.rewriting(devices.choose_precision("auto").is_rewritten)
    with tempfile.TemporaryDirectory() as folder, rewriting:
        measure(Path(folder), folder_of_photographs(_IMAGES.value, Path(folder)), _QUICK.value)


if __name__ == "__main__":
    command_line.run(main)
