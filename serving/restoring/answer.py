"""What a model makes of a picture, whether a server ran it or this process did."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Answer:
    """A model's answer to a picture file.

    Attributes:
      restored_bytes: a PNG of the picture's size, RGB, or RGBA where the picture has alpha.
      found: whether the model found its mark, as exports of `serving.key` say; None from a model that does not say.
    """

    restored_bytes: bytes
    found: bool | None = None


@dataclasses.dataclass(frozen=True)
class PixelAnswer:
    """A model's answer to pixels.

    Attributes:
      restored: uint8, of the shape that was sent: `[H, W, 3]` or `[N, H, W, 3]`.
      found: bool of the shape `[]` or `[N]`, whether the model found its mark in each picture; None from a model that
        does not say.
    """

    restored: np.ndarray
    found: np.ndarray | None = None
