"""Training pairs made one sample at a time, as in the older noise2noise scripts: the baseline for ours."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image


def pairs(files: Sequence[str], canvas_path: str, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads an image with OpenCV, takes a crop, and overlays it twice, in one thread as the older scripts do.

    Args:
      files: images, no side below `side`.
      canvas_path: RGBA PNG, no side below `side`; for every overlay it is opened with Pillow, faded, and pasted at a
        random offset.
      side: side of the crops, in pixels.

    Yields:
      Source and target, uint8 `[side, side, 3]`, endlessly.
    """
    rng = random.Random(0)

    def overlaid(clean: np.ndarray) -> np.ndarray:
        mark = Image.open(canvas_path)
        opacity = rng.uniform(0.5, 1.0)
        mark.putalpha(mark.getchannel("A").point(lambda alpha: int(alpha * opacity)))
        picture = Image.fromarray(clean)
        picture.paste(mark, (rng.randint(side - mark.width, 0), rng.randint(side - mark.height, 0)), mark)
        return np.asarray(picture)

    while True:
        picture = cv2.imread(rng.choice(files))
        y, x = (rng.randint(0, length - side) for length in picture.shape[:2])
        clean = cv2.cvtColor(picture[y : y + side, x : x + side], cv2.COLOR_BGR2RGB)
        yield overlaid(clean), overlaid(clean)
