"""A model's answers, whether a server or this process ran the model."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Answer:
    """A model's answer to an image file.

    Attributes:
      restored_bytes: a PNG of the image's size: RGBA if the image has alpha, else RGB.
      found: whether the model found its mark; None if the model does not report it. Exports of `serving.key` do.
    """

    restored_bytes: bytes
    found: bool | None = None


@dataclasses.dataclass(frozen=True)
class PixelAnswer:
    """A model's answer to pixels.

    Attributes:
      restored: uint8, same shape as sent: `[H, W, 3]` or `[N, H, W, 3]`.
      found: bool `[]` or `[N]`, whether the model found its mark in each image; None if the model does not report it.
    """

    restored: np.ndarray
    found: np.ndarray | None = None
