r"""Measures the input pipeline: TFRecords to 128 x 128 (source, target) pairs, on all cores.

    --images=DIR     JPEGs; by default those in coco/val2017, else scikit-image's and scikit-learn's

Out: one line per figure.

    input_crops          crops/s that tf.data delivers, uint8, before any corruption
    input_pairs          pairs/s including the overlays of source and target, in tf.data (--corrupt_on=host)
    input_decode_share   time that a plain loop in one thread needs to decode as many whole images, divided by the time
                         of input_pairs: below 1, cropping while decoding and taking several crops per image pay off

Command:

    python -m benchmarks.input_pipeline [--quick]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf
from absl import flags

from benchmarks.data.photographs import folder_of_photographs, jpegs
from benchmarks.data.recipe import prepare
from benchmarks.measuring.figure import median_of_alternating, report
from common import command_line
from training.data import input_pipeline
from training.data.pairs import overlaid_on_host

_QUICK = flags.DEFINE_bool("quick", False, "Fewer batches and rounds.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of JPEGs.")

_TARGET = 800  # pairs/s on two cores


def measure(folder: Path, images_dir: Path, batches: int, rounds: int) -> None:
    """Prints the figures.

    Args:
      folder: an empty folder for the dataset and the canvas.
      images_dir: a folder of JPEGs.
      batches: number of batches of 16 timed per round.
      rounds: number of rounds to take medians over.
    """
    config = prepare(folder, images_dir)
    endless: Iterator[tf.Tensor] = iter(input_pipeline.training_batches(config))
    overlaid = iter(overlaid_on_host(input_pipeline.training_batches(config), config))

    def take(batches_of: Iterator) -> None:
        for _ in range(batches):
            next(batches_of)

    files = [str(path) for path in jpegs(images_dir)]

    def decode_whole() -> None:
        for k in range(batches * config.batch_size // config.data.crops_per_image):
            tf.io.decode_jpeg(tf.io.read_file(files[k % len(files)]), channels=3)

    for iterator in (endless, overlaid):  # warm-up: compiles, and fills the shuffle buffers
        take(iterator)
    seconds = median_of_alternating([lambda: take(endless), lambda: take(overlaid), decode_whole], rounds)
    pictures = batches * config.batch_size
    report("input_crops", pictures / seconds[0], "crops/s")
    report("input_pairs", pictures / seconds[1], "pairs/s", _TARGET)
    report("input_decode_share", seconds[2] / seconds[1], "x")


def main(argv: Sequence[str]) -> None:
    """Measures in a temporary folder."""
    command_line.refuse_positional(argv)
    with tempfile.TemporaryDirectory() as folder:
        quick = _QUICK.value
        measure(
            Path(folder), folder_of_photographs(_IMAGES.value, Path(folder)), 50 if quick else 200, 3 if quick else 7
        )


if __name__ == "__main__":
    command_line.run(main)
