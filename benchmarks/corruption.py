r"""Measures the corruptions: speed of each, the input side against the older scripts' generator, share of a step.

    --images=DIR     JPEGs; by default those in coco/val2017, else scikit-image's and scikit-learn's

Out: a table, and one line per figure.

    corruption_slowest             pairs/s of the slowest corruption in the table, 128 x 128, batch 16, without XLA
    corruption_slowest_xla         pairs/s of the slowest corruption, compiled with XLA
    corruption_against_generator   pairs/s from TFRecords, overlaid in tf.data (--corrupt_on=host), divided by those of
                                   a generator that works like the older scripts
    corruption_share_of_step       share of the default network's training step that its overlays take, percent
    corruption_jpeg_psnr           largest difference in mean PSNR between our JPEG compression and Pillow's, dB, over
                                   qualities 60 to 95, 4:4:4 and 4:2:0
    corruption_text_occupancy      largest difference between the requested and actual occupancy of an image,
                                   percentage points

A pair is a crop corrupted twice. The generator reads each image with OpenCV and takes a crop; for source and target it
opens the canvas with Pillow, fades it and pastes it at a random offset. Like the older scripts, it runs in one thread.

Command:

    python -m benchmarks.corruption [--quick]
"""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_collections
import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image

from benchmarks.data import older_scripts
from benchmarks.data.photographs import folder_of_photographs, jpegs
from benchmarks.data.recipe import prepare
from benchmarks.measuring.figure import median_of_alternating, report
from common import command_line
from common.command_line import UserError
from training import corruption, models
from training.data import input_pipeline
from training.data.pairs import make_pairs, make_seeds, overlaid_on_host
from training.distributed import devices
from training.optimizers import Optimizer
from training.step import make_train_step

_QUICK = flags.DEFINE_bool("quick", False, "Fewer batches and rounds.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of JPEGs.")

_BATCH, _SIDE = 16, 128
_TABLE = [
    "watermark:canvas={canvas},opacity=0.5..1",
    "watermark:canvas={canvas},scale=0.5..1.5,rotate=-30..30",
    "watermark:canvas={stamp},layout=tile,scale=0.5..1.5,rotate=-30..30,tint=0..0.2,blur=0..1.5,warp=0..2",
    "text:occupancy=0..50",
    "text:occupancy=0..50,alphabet=latin+digits+cjk",
    "gaussian:stddev=0..50",
    "poisson:peak=10..100",
    "impulse:occupancy=0..95",
    "jpeg:quality=60..95,chroma=444",
    "jpeg:quality=60..95",
    "watermark:canvas={canvas},opacity=0.5..1+jpeg:quality=60..95",
    "watermark:canvas={canvas},scale=0.5..1.5|text@0.3",
]


def _corruptions(crops: tf.Tensor, folder: Path, calls: int, rounds: int) -> None:
    slowest, slowest_xla = np.inf, np.inf
    print(f"\n| corruption ({_SIDE} x {_SIDE}, batch {_BATCH}) | pairs/s | with XLA |\n| --- | --- | --- |")
    for form in _TABLE:
        spec = form.format(canvas=folder / "canvas.png", stamp=folder / "stamp.png")
        shown = form.format(canvas="canvas.png", stamp="stamp.png").replace("|", r"\|")
        try:
            corrupt = corruption.build(spec)
        except UserError as error:
            print(f"| `{shown}` | not here: {error} | |")
            continue

        def pair(clean: tf.Tensor, step: tf.Tensor, corrupt: corruption.Corruption = corrupt) -> tuple:
            return tuple(corrupt(clean, corruption.picture_seeds(0, step, stream, _BATCH)) for stream in (0, 1))

        compiled = [tf.function(pair, jit_compile=jit_compile) for jit_compile in (False, True)]
        steps = itertools.count()

        def run(function: tf.types.experimental.GenericFunction, steps: Iterator[int] = steps) -> None:
            for _ in range(calls):
                function(crops, tf.constant(next(steps)))[0][0].numpy()

        for function in compiled:
            run(function)
        seconds = median_of_alternating([lambda f=f: run(f) for f in compiled], rounds)
        plain, xla = (calls * _BATCH / taken for taken in seconds)
        slowest, slowest_xla = min(slowest, plain), min(slowest_xla, xla)
        print(f"| `{shown}` | {plain:.0f} | {xla:.0f} |", flush=True)
    report("corruption_slowest", slowest, "pairs/s", 150)
    report("corruption_slowest_xla", slowest_xla, "pairs/s", 150)


def _input_side(config: ml_collections.ConfigDict, images_dir: Path, folder: Path, batches: int, rounds: int) -> None:
    pairs = iter(overlaid_on_host(input_pipeline.training_batches(config), config))
    files = [str(path) for path in jpegs(images_dir) if min(Image.open(path).size) > _SIDE]
    older = older_scripts.pairs(files, str(folder / "canvas.png"), _SIDE)
    older_pairs = max(_BATCH, batches // 2)

    def ours() -> None:
        for _ in range(batches):
            next(pairs)

    def theirs() -> None:
        for _ in range(older_pairs):
            next(older)

    ours()
    own, other = median_of_alternating([ours, theirs], rounds)
    own, other = batches * _BATCH / own, older_pairs / other
    print(f"\nTFRecords to pairs: {own:.0f} pairs/s; the older scripts' generator: {other:.0f} pairs/s")
    report("corruption_against_generator", own / other, "x", 25)


def _share_of_step(config: ml_collections.ConfigDict, crops: tf.Tensor, calls: int, rounds: int) -> None:
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    ready = make_pairs(config)(crops, *make_seeds(config)(tf.constant(0)))
    functions = []
    for corrupt_on, batch in (("device", crops), ("host", ready)):
        with strategy.scope():
            model = models.build(config)
            optimizer = Optimizer(config, model.network.trainable_variables)
        step = make_train_step(strategy, model, optimizer, config, False, corrupt_on)

        def run(step: tf.types.experimental.GenericFunction = step, batch: tf.Tensor = batch) -> None:
            for number in range(calls):
                step(batch, tf.constant(number, tf.int64), tf.constant(0.0), tf.constant(1e-4))["loss"].numpy()

        run()
        functions.append(run)
    with_overlays, without = median_of_alternating(functions, rounds)
    print(f"\na step of the default network takes {1000 * without / calls:.0f} ms without its overlays")
    report("corruption_share_of_step", 100 * (1 - without / with_overlays), "%", 5, at_least=False)


def _jpeg_psnr(images_dir: Path, pictures: int) -> None:
    """Compares our JPEG compression with Pillow's on 256 x 256 crops of photographs."""
    opened = (Image.open(path).convert("RGB") for path in jpegs(images_dir))
    cut = [image.crop((0, 0, 256, 256)) for image in itertools.islice(opened, pictures)]
    clean = tf.constant(np.stack([np.asarray(image) for image in cut]))
    seeds = corruption.picture_seeds(0, tf.constant(0), 0, len(cut))
    largest = 0.0
    for quality, (chroma, subsampling) in itertools.product((60, 75, 85, 95), (("444", 0), ("420", 2))):
        corrupt = corruption.build(f"jpeg:quality={quality},chroma={chroma}")
        ours = tf.cast(tf.round(corrupt(tf.cast(clean, tf.float32) / 255.0, seeds)[0] * 255.0), tf.uint8)
        saved = []
        for image in cut:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
            saved.append(np.asarray(Image.open(buffer)))
        psnr = [np.mean(tf.image.psnr(clean, lossy, 255)) for lossy in (ours, tf.constant(np.stack(saved)))]
        largest = max(largest, abs(psnr[0] - psnr[1]))
    report("corruption_jpeg_psnr", float(largest), "dB", 0.5, at_least=False)


def _text_occupancy(pictures: int) -> None:
    largest = 0.0
    for occupancy in (1, 5, 10, 20, 30, 40, 50):
        corrupt = corruption.build(f"text:occupancy={occupancy}")
        seeds = corruption.picture_seeds(0, tf.constant(occupancy), 0, pictures)
        alpha = corrupt(tf.zeros([pictures, _SIDE, _SIDE, 3]), seeds)[1]
        covered = 100 * np.mean(alpha > corruption.COVERED, axis=(1, 2, 3))
        largest = max(largest, float(np.abs(covered - occupancy).max()))
    report("corruption_text_occupancy", largest, "points", 2, at_least=False)


def measure(folder: Path, images_dir: Path, quick: bool) -> None:
    """Prints the table and the figures.

    Args:
      folder: an empty folder for the dataset and the canvases.
      images_dir: a folder of JPEGs.
      quick: whether to use fewer batches and rounds.
    """
    config = prepare(folder, images_dir)
    crops = next(iter(input_pipeline.training_batches(config)))

    rounds = 3 if quick else 7
    _corruptions(tf.cast(crops, tf.float32) / 255.0, folder, 3 if quick else 10, rounds)
    _input_side(config, images_dir, folder, 50 if quick else 200, rounds)
    # Short turns, because the effect is smaller than the speed fluctuations of a shared machine within seconds.
    _share_of_step(config, crops, 2, 5 if quick else 60)
    _jpeg_psnr(images_dir, 10 if quick else 100)
    _text_occupancy(10 if quick else 100)


def main(argv: Sequence[str]) -> None:
    """Measures in a temporary folder."""
    command_line.refuse_positional(argv)
    rewriting = devices.rewriting(devices.choose_precision("auto").is_rewritten)
    with tempfile.TemporaryDirectory() as folder, rewriting:
        measure(Path(folder), folder_of_photographs(_IMAGES.value, Path(folder)), _QUICK.value)


if __name__ == "__main__":
    command_line.run(main)
