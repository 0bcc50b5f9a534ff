"""A mark, out of many pictures that carry it: the way where no flat picture can be marked any more.

    found = estimate(PictureFolder("archive"))
    Image.fromarray(found.canvas).save("mark.png")

`estimation.place` says where the pictures agree, `estimation.mixture` separates there what is the mark's. The pictures
differ and the mark does not: the more pictures, and the more different they are, the surer it is.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.command_line import UserError
from common.images import is_image_name
from preprocessing.marks import smoothing
from preprocessing.marks.from_pictures import mixture, place, region

LEAST_PICTURES = 5
_MOST_BYTES = 2**30
# Alpha is right where it is off by no more than this.
_TOLERANCE = 0.03
_ENOUGH = 0.8
# Of the median opacity: less is another mark, or none.
_LEAST_OPACITY = 0.5
# Opacities that vary by less are all the same, but for errors.
_SAME_OPACITY = 0.012
_LEAST_ALPHA = 1.5 / 255
# Alpha below which colour is taken from the neighbourhood.
_FAINT = 0.05
# Of a pixel in a picture: its values, twice while they are gathered, and what setting corners right takes.
_BYTES_A_PIXEL = 24
_MARGIN, _TOUCH = 24, 3
# A mark so near the end of the pictures may go on beyond it.
_NEAR = 8
_TRIES = 3


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mark and what is known of it.

    Attributes:
      canvas: uint8 RGBA `[h, w, 4]`, transparent where there is no mark.
      confidence: float32 `[h, w]`, the probability that alpha is right to 0.03, as far as chance goes, 0..1.
      agreed: bool `[N]`, which pictures carry the mark.
      left_out: bool `[N]`, which may carry it too, but were more than memory is for.
      corners: int `[N, 2]`, y and x of the canvas in each picture that does.
      opacities: float64 `[N]`, that they carry it with, 1 being the canvas's own; 0 for the others.
      note: what was found, and what would make it better, in a line.
    """

    canvas: np.ndarray
    confidence: np.ndarray
    agreed: np.ndarray
    left_out: np.ndarray
    corners: np.ndarray
    opacities: np.ndarray
    note: str


class PictureFolder(Sequence):
    """A folder's pictures, by name, each read when it is asked for.

    Attributes:
      names: of the files that are pictures by their ending.
      others: of those that are not.
    """

    def __init__(self, folder: str) -> None:
        """Lists the folder.

        Args:
          folder: its files are pictures; folders in it are not looked into.

        Raises:
          UserError: there is no such folder, or no picture in it.
        """
        self._folder = folder
        try:
            files = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
        except OSError as error:
            raise UserError(f"{folder}: cannot be read as a folder ({error.strerror}); give one of pictures") from None
        self.names = [name for name in files if is_image_name(name)]
        self.others = [name for name in files if name not in self.names]
        if not self.names:
            raise UserError(f"{folder}: no pictures in it; give a folder of PNG or JPEG pictures that carry the mark")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> np.ndarray:
        path = os.path.join(self._folder, self.names[number])
        try:
            with Image.open(path) as image:
                if image.mode.startswith(("I", "F")):
                    raise UserError(f"{path}: more than 8 bits a pixel ({image.mode}); save it as RGB of 8 bits")
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{path}: cannot be read as a picture ({error}); mend it, or take it away") from None


def estimate(pictures: Sequence[np.ndarray], show_progress: bool = False) -> Estimate:
    """Recovers the mark that pictures have in common.

    Args:
      pictures: five or more, uint8 `[H, W, 3]`, of any sizes. The mark is at the same distance from a corner, an edge
        or the centre of all, or anywhere, but not scaled or turned. Each is asked for several times and only the
        mark's surroundings are kept, 1 GB of them at most: of more pictures, as many as fit, evenly spread.
      show_progress: whether to show bars on stderr.

    Returns:
      The mark.

    Raises:
      UserError: too few pictures, or no mark in common.
    """
    if len(pictures) < LEAST_PICTURES:
        raise UserError(
            f"{len(pictures)} pictures: at least {LEAST_PICTURES} are needed to tell the mark from what is beneath, "
            "and some dozens to do so well; or let flat pictures be marked and use extract"
        )

    def watch(steps: Iterable, what: str) -> Iterable:
        return tqdm(steps, what, disable=not show_progress, leave=False)

    placement = place.find(pictures, watch)
    if placement is None:
        raise UserError(
            f"no mark that these {len(pictures)} pictures have in common was found; give more of them, all with the "
            "mark in the same size and not turned, or let flat pictures be marked and use extract"
        )
    numbers = np.flatnonzero(placement.carries)
    margin = _MARGIN
    for _ in range(_TRIES):
        grown = region.grow(placement, margin)
        used = _that_fit(numbers, grown.size)
        stack, corners = region.cut(pictures, used, grown, _near_ends(placement.limits, placement.size))
        found = mixture.fit(stack, watch)
        carry = found.opacities > _LEAST_OPACITY
        if carry.sum() < LEAST_PICTURES:
            break
        cramped = _touches_closed_side(found.alpha, stack.open_sides)
        if carry.all() and not cramped:
            break
        numbers = numbers[~np.isin(numbers, used[~carry])]
        margin = 3 * margin if cramped else margin
    if carry.sum() < LEAST_PICTURES or not (found.alpha > _LEAST_ALPHA).any():
        raise UserError(
            f"what these {len(pictures)} pictures have in common is no mark over them; give more pictures with the "
            "mark, or let flat pictures be marked and use extract"
        )
    left_out = np.isin(np.arange(len(pictures)), numbers) & ~np.isin(np.arange(len(pictures)), used)
    return _assembled(found, used, carry, corners, stack.open_sides, left_out)


def _near_ends(limits: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    """Whether the mark was seen near the pictures' top, left, bottom and right ends."""
    top, left, bottom, right = limits
    return top > -_NEAR, left > -_NEAR, bottom - size[0] < _NEAR, right - size[1] < _NEAR


def _that_fit(numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    count = max(LEAST_PICTURES, min(len(numbers), _MOST_BYTES // (_BYTES_A_PIXEL * size[0] * size[1])))
    return numbers[np.unique(np.linspace(0, len(numbers) - 1, count).astype(int))]


def _touches_closed_side(alpha: np.ndarray, open_sides: tuple[bool, ...]) -> bool:
    """Whether the mark seems to go on where it was taken to have ended."""
    sides = alpha[:_TOUCH], alpha[-_TOUCH:], alpha[:, :_TOUCH], alpha[:, -_TOUCH:]
    return any((side > _LEAST_ALPHA).any() for side, is_open in zip(sides, open_sides) if not is_open)


def _assembled(
    found: mixture.Mixture,
    used: np.ndarray,
    carry: np.ndarray,
    corners: np.ndarray,
    open_sides: tuple[bool, ...],
    left_out: np.ndarray,
) -> Estimate:
    full = _full_opacity(found.opacities[carry])
    alpha = np.where(found.alpha * full > _LEAST_ALPHA, np.clip(found.alpha * full, 0, 1), 0)
    canvas = np.concatenate([_colors(alpha, found.premultiplied * full), 255 * alpha[..., None]], -1)
    part, corner = _extent(alpha > 0, open_sides)
    canvas = np.where(alpha[..., None] > 0, np.rint(canvas), 0).astype(np.uint8)[part]
    deviation = full * np.maximum(found.deviation[part], 1e-6)
    confidence = np.vectorize(math.erf, otypes=[np.float32])(_TOLERANCE / math.sqrt(2) / deviation)
    total = len(left_out)
    agreed, places, opacities = np.zeros(total, bool), np.zeros((total, 2), int), np.zeros(total)
    agreed[used[carry]] = True
    places[used[carry]] = corners[carry] + corner
    opacities[used[carry]] = found.opacities[carry] / full
    note = _note(float(confidence[canvas[..., 3] > 0].mean()), agreed, left_out, float(opacities[agreed].min()))
    return Estimate(canvas, confidence, agreed, left_out, places, opacities, note)


def _full_opacity(opacities: np.ndarray) -> float:
    """What the most opaque pictures have, so that none is more opaque than the canvas; 1 if they are all the same."""
    spread = 1.4826 * np.median(np.abs(opacities - np.median(opacities)))
    return float(np.quantile(opacities, 0.95)) if spread > _SAME_OPACITY else 1.0


def _colors(alpha: np.ndarray, premultiplied: np.ndarray) -> np.ndarray:
    """Colour `[H, W, 3]`; that of the faintest pixels, which noise would decide, is their neighbours'."""
    weighted = np.moveaxis(premultiplied, 0, -1) * alpha[..., None]
    square = alpha[..., None] ** 2
    near = smoothing.box(smoothing.box(weighted, 2), 2) / np.maximum(smoothing.box(smoothing.box(square, 2), 2), 1e-9)
    return np.clip((weighted + _FAINT**2 * near) / (square + _FAINT**2), 0, 255)


def _extent(mark: np.ndarray, open_sides: tuple[bool, ...]) -> tuple[tuple[slice, slice], np.ndarray]:
    """The mark's bounding box, up to the ends that it may go beyond."""
    rows, columns = (np.flatnonzero(mark.any(axis)) for axis in (1, 0))
    top, bottom, left, right = open_sides
    first = np.array([0 if top else rows[0], 0 if left else columns[0]])
    last = mark.shape[0] if bottom else rows[-1] + 1, mark.shape[1] if right else columns[-1] + 1
    return tuple(slice(int(start), int(stop)) for start, stop in zip(first, last)), first


def _note(sure: float, agreed: np.ndarray, left_out: np.ndarray, least_opacity: float) -> str:
    note = f"{agreed.sum()} of {(~left_out).sum()} pictures agree; confidence {sure:.2f} on the mark"
    if left_out.any():
        note += f"; {left_out.sum()} more were left out, since {_MOST_BYTES >> 20} MB hold no more"
    if least_opacity < 0.97:
        note += (
            f"; the canvas is as opaque as the most opaque pictures have it, the least have {least_opacity:.2f} of it"
        )
    if sure < _ENOUGH:
        note += (
            ". That is low: give more pictures, of different brightness where the mark is, unharmed by JPEG if there "
            "are any; or let flat pictures be marked and use extract"
        )
    return note
