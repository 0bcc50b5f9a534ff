"""The data that training is measured on: photographs as TFRecords, overlaid with a tiled caption."""

from __future__ import annotations

from pathlib import Path

import ml_collections

from configs import default
from preprocessing.conversion.convert import convert
from preprocessing.marks import draw


def prepare(folder: Path, images_dir: Path, splits: str = "train=1.0") -> ml_collections.ConfigDict:
    """Converts photographs and draws a canvas.

    Args:
      folder: an empty folder; receives `dataset/`, `stamp.png` and `canvas.png` (the tiled stamp).
      images_dir: a folder of JPEGs.
      splits: splits, as for `preprocessing.coco_to_tfrecord`.

    Returns:
      The default recipe for this data, with the canvas at a random offset and opacity.
    """
    stamp = draw.text_stamp("Sample")
    draw.save_whole(stamp, str(folder / "stamp.png"))
    draw.save_whole(draw.tile(stamp), str(folder / "canvas.png"))
    convert(str(images_dir), str(folder / "dataset"), splits, shard_mb=8)
    config = default.get_config()
    config.data.dir = str(folder / "dataset")
    config.source = f"watermark:canvas={folder / 'canvas.png'},opacity=0.5..1"
    return config
