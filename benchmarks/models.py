r"""Compares the networks: size, receptive field, arithmetic, training speed, and quality after equal training time.

    --images=DIR     JPEGs; by default those in coco/val2017, else scikit-image's and scikit-learn's
    --minutes=3      training time of each network for the table's last column

Out: a table with one row per network in training/models, and one line per figure.

    parameters            number of trained parameters
    receptive field       pixels per side that an output pixel depends on
    GFLOP/MP              floating-point operations to restore a million pixels; a multiply-add counts as two
    images/s              speed of a training step (two overlays, forward, backward, update) on 8 crops of 128 x 128, in
                          float32, and with oneDNN's bfloat16 convolutions if the CPU supports them
    covered dB            PSNR over covered pixels of held-out crops after --minutes of the default recipe, in the
                          faster of the two precisions; the time includes compilation but not the final validation

    models_unet_speed, models_nafnet_speed        images/s divided by those of srresnet, in the faster precision
    models_unet_quality, models_nafnet_quality    covered dB above those of srresnet

Command:

    python -m benchmarks.models [--quick]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import ml_collections
import tensorflow as tf
from absl import flags

from benchmarks.data.photographs import folder_of_photographs
from benchmarks.measuring.figure import median_of_alternating, report
from common import command_line
from configs import default, nafnet, srresnet
from preprocessing.conversion.convert import convert
from preprocessing.marks import draw
from training import loop, models
from training.data import input_pipeline
from training.distributed import devices
from training.optimizers import Optimizer
from training.step import make_train_step
from training.validation import Validation

_QUICK = flags.DEFINE_bool("quick", False, "Seconds of training on small crops: shows that it runs, says nothing else.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of JPEGs.")
_MINUTES = flags.DEFINE_float("minutes", 3.0, "Training time of each network.", lower_bound=0.0)

_RECIPES = {"unet": default, "srresnet": srresnet, "nafnet": nafnet}
_BASELINE = "srresnet"
_BATCH = 8
_DEVICE = "/cpu:0"


def _gflop_per_megapixel(network: tf.keras.Model) -> float:
    """Counts operations with TensorFlow's own per-op statistics, on an image large enough for any stride."""
    side = 256
    function = tf.function(network).get_concrete_function(tf.TensorSpec([1, side, side, 3]))
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    profile = tf.compat.v1.profiler.profile(function.graph, options=options)
    return profile.total_float_ops / side**2 * 1e6 / 1e9


def _training_step(config: ml_collections.ConfigDict, crops: tf.Tensor) -> Callable[[], None]:
    """Returns a function that runs one training step of a network, already compiled."""
    strategy = tf.distribute.OneDeviceStrategy(_DEVICE)
    with strategy.scope():
        model = models.build(config)
        optimizer = Optimizer(config, model.network.trainable_variables)
    step = make_train_step(strategy, model, optimizer, config, jit_compile=False)

    def run() -> None:
        step(crops, tf.constant(0, tf.int64), tf.constant(0.0), tf.constant(1e-4))["loss"].numpy()

    run()
    return run


def _crops(config: ml_collections.ConfigDict, side: int) -> tf.Tensor:
    """Returns one batch, uint8 `[_BATCH, side, side, 3]`."""
    config = config.copy_and_resolve_references()
    config.batch_size, config.data.crop = _BATCH, side
    return next(iter(input_pipeline.training_batches(config)))


def _images_per_second(
    recipes: dict[str, ml_collections.ConfigDict], crops: tf.Tensor, rounds: int
) -> dict[str, float]:
    """Returns images/s of each network's training step, in the active precision."""
    steps = []
    for recipe in recipes.values():
        config = recipe.copy_and_resolve_references()
        config.batch_size = _BATCH
        steps.append(_training_step(config, crops))
    return {name: _BATCH / seconds for name, seconds in zip(recipes, median_of_alternating(steps, rounds))}


def _covered_psnr(config: ml_collections.ConfigDict, workdir: Path, minutes: float) -> float:
    """Trains for `minutes` and returns the validation PSNR over covered pixels, in dB."""
    config.max_minutes = minutes
    config.eval_every = config.checkpoint_every = config.steps  # only at the end
    strategy = tf.distribute.OneDeviceStrategy(_DEVICE)
    return loop.train_and_evaluate(config, str(workdir), strategy, jit_compile=False)["covered_psnr"]


def _recipes(folder: Path, quick: bool) -> dict[str, ml_collections.ConfigDict]:
    recipes = {name: recipe.get_config() for name, recipe in _RECIPES.items()}
    for config in recipes.values():
        config.data.dir = str(folder / "dataset")
        config.source = f"watermark:canvas={folder / 'canvas.png'},opacity=0.5..1"
        config.log_every = 10
        if quick:
            config.batch_size, config.data.crop, config.data.shuffle_crops = 4, 48, 64
            config.val_crops, config.val_crop = 4, 64
    return recipes


def measure(folder: Path, images_dir: Path, minutes: float, quick: bool) -> None:
    """Prints the table and the figures.

    Args:
      folder: an empty folder for the dataset, the canvas and the runs.
      images_dir: a folder of JPEGs.
      minutes: training time of each network.
      quick: whether to use fewer rounds, small crops and small batches.
    """
    draw.save_whole(draw.tile(draw.text_stamp("Sample")), str(folder / "canvas.png"))
    convert(str(images_dir), str(folder / "dataset"), "train=0.8,val=0.2", shard_mb=8)
    recipes = _recipes(folder, quick)
    networks = {name: models.build(recipe) for name, recipe in recipes.items()}
    arithmetic = {name: _gflop_per_megapixel(model.network) for name, model in networks.items()}

    crops, rounds = _crops(recipes[_BASELINE], 48 if quick else 128), 3 if quick else 7
    float32 = _images_per_second(recipes, crops, rounds)
    bfloat16 = None
    if devices.cpu_has_bfloat16():
        with devices.rewriting(True):
            bfloat16 = _images_per_second(recipes, crops, rounds)
    speed = bfloat16 or float32
    before = Validation(recipes[_BASELINE]).before["covered_psnr"]
    quality = {name: _covered_psnr(config, folder / name, minutes) for name, config in recipes.items()}

    print(
        "\n| model | parameters | receptive field | GFLOP/MP | images/s, float32 | bfloat16 | "
        f"covered dB after {minutes:g} minutes, from {before:.1f} |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for name, model in networks.items():
        print(
            f"| `{name}` | {model.network.count_params():,} | {2 * model.halo + 1} | "
            f"{arithmetic[name]:.0f} | {float32[name]:.1f} | "
            f"{f'{bfloat16[name]:.1f}' if bfloat16 else 'not here'} | {quality[name]:.1f} |"
        )
    print()
    for name in recipes:
        if name != _BASELINE:
            report(f"models_{name}_speed", speed[name] / speed[_BASELINE], "x")
            report(f"models_{name}_quality", quality[name] - quality[_BASELINE], "dB")


def main(argv: Sequence[str]) -> None:
    """Measures in a temporary folder."""
    command_line.refuse_positional(argv)
    with tempfile.TemporaryDirectory() as folder:
        minutes = min(0.1, _MINUTES.value) if _QUICK.value else _MINUTES.value
        measure(Path(folder), folder_of_photographs(_IMAGES.value, Path(folder)), minutes, _QUICK.value)


if __name__ == "__main__":
    command_line.run(main)
