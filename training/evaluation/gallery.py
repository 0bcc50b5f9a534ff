"""The pictures worth a look: those that gained least and those that gained most."""

from __future__ import annotations

import bisect
import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image

_QUALITY = 90
_LARGEST_SIDE = 768  # pixels; a larger picture is shown smaller, so that the page stays one that opens


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """A picture to show.

    Attributes:
      row: its figures and names, see `training.evaluate`.
      before: the overlaid picture as a JPEG.
      after: the restored one.
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
    """Keeps the extremes of all pictures that are offered, and no others, whatever their number.

    Pictures are ranked by the gain over covered pixels. Where a corruption covers nothing (noise, JPEG loss), by the
    gain over all of them.

    Attributes:
      measure: `covered_psnr` or `psnr`: what they are ranked by.
    """

    def __init__(self, shown: int):
        """Makes an empty one that keeps `shown` pictures of either kind."""
        self.measure = "psnr"
        self._shown = shown
        self._gains: list[float] = []  # ascending, as are the exhibits
        self._exhibits: list[Exhibit] = []

    def offer(self, row: dict[str, Any], corrupted: np.ndarray, restored: np.ndarray) -> None:
        """Considers a picture: its figures, and uint8 `[H, W, 3]` before and after."""
        if self.measure == "psnr" and row["covered_psnr_gain"] is not None:
            # The first covered picture decides; those before it have nothing to be compared by.
            self.measure, self._gains, self._exhibits = "covered_psnr", [], []
        gain = row[f"{self.measure}_gain"]
        if gain is None:
            return
        place, full = bisect.bisect(self._gains, gain), len(self._gains) == 2 * self._shown
        if full and place == self._shown:
            return  # in the middle
        before, size = _jpeg(corrupted)
        self._gains.insert(place, gain)
        self._exhibits.insert(place, Exhibit(row, before, _jpeg(restored)[0], size))
        if full:
            del self._gains[self._shown], self._exhibits[self._shown]

    @property
    def worst(self) -> list[Exhibit]:
        """Those that gained least, the least first."""
        return self._exhibits[: self._middle]

    @property
    def best(self) -> list[Exhibit]:
        """Those that gained most, the most first; none of them is among the worst."""
        return self._exhibits[self._middle :][::-1]

    @property
    def _middle(self) -> int:
        return (len(self._exhibits) + 1) // 2
