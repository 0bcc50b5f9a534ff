"""Estimates a mark from marked copies, as anyone who has a collection of them can."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.command_line import UserError
from preprocessing.marks.from_pictures.estimate import LEAST_PICTURES
from preprocessing.marks.from_pictures.estimate import estimate as estimate_mark

LEAST_COPIES = LEAST_PICTURES


class NotEstimated(Exception):
    """Raised if the mark cannot be estimated from the copies; the message gives the reason in one line."""


def estimate(copies: Sequence[np.ndarray]) -> np.ndarray:
    """Estimates the mark that the copies have in common.

    Args:
      copies: at least `LEAST_COPIES`, uint8 `[H, W, 3]`.

    Returns:
      The mark, uint8 RGBA `[h, w, 4]`.

    Raises:
      NotEstimated: no mark was found.
    """
    try:
        return estimate_mark(copies).canvas
    except UserError as error:
        # The rest of the message is advice for someone who wants to recover the mark.
        raise NotEstimated(str(error).split(";")[0]) from None
