"""The images worth a look: those that gained least and those that gained most."""

from __future__ import annotations

import bisect
import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image

_QUALITY = 90  # of the JPEGs in the page
_LARGEST_SIDE = 768  # pixels; larger images are scaled down, so that the page stays small enough to open


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """An image to show.

    Attributes:
      row: its row of pictures.csv, see `training.evaluate`.
      before: the overlaid image as a JPEG.
      after: the restored image as a JPEG.
      size: (width, height) of both, pixels.
    """

    row: dict[str, Any]
    before: bytes
    after: bytes
    size: tuple[int, int]


def _jpeg(picture: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    image, buffer = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue(), image.size


class Gallery:
    """Keeps only the best and worst of the images offered, however many there are.

    Images are ranked by their gain over covered pixels, or, if the corruption covers nothing (noise, JPEG loss), over
    all pixels.

    Attributes:
      measure: the measure that images are ranked by, `covered_psnr` or `psnr`.
    """

    def __init__(self, shown: int):
        """Makes an empty gallery that keeps `shown` best and `shown` worst images."""
        self.measure = "psnr"
        self._shown = shown
        self._gains: list[float] = []  # ascending; exhibits are in the same order
        self._exhibits: list[Exhibit] = []

    def offer(self, row: dict[str, Any], corrupted: np.ndarray, restored: np.ndarray) -> None:
        """Considers an image: its row of figures, and the image before and after, uint8 `[H, W, 3]`."""
        if self.measure == "psnr" and row["covered_psnr_gain"] is not None:
            # The first covered image switches the measure; earlier images have no value for it and are dropped.
            self.measure, self._gains, self._exhibits = "covered_psnr", [], []
        gain = row[f"{self.measure}_gain"]
        if gain is None:
            return
        place, full = bisect.bisect(self._gains, gain), len(self._gains) == 2 * self._shown
        if full and place == self._shown:
            return  # neither among the best nor among the worst
        before, size = _jpeg(corrupted)
        self._gains.insert(place, gain)
        self._exhibits.insert(place, Exhibit(row, before, _jpeg(restored)[0], size))
        if full:
            del self._gains[self._shown], self._exhibits[self._shown]

    @property
    def worst(self) -> list[Exhibit]:
        """The images that gained least, least first."""
        return self._exhibits[: self._middle]

    @property
    def best(self) -> list[Exhibit]:
        """The images that gained most, most first; none of them is also in `worst`."""
        return self._exhibits[self._middle :][::-1]

    @property
    def _middle(self) -> int:
        return (len(self._exhibits) + 1) // 2
