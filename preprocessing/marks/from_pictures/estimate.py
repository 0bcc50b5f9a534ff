"""Recovers a mark from many images that carry it, for when flat images can no longer be watermarked.

    found = estimate(PictureFolder("archive"))
    Image.fromarray(found.canvas).save("mark.png")

`place` finds where the images agree, and `mixture` separates the mark from them there. The images differ and the mark
does not, so more images, and more varied ones, make the result more certain.
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
# Alpha counts as right if its error is at most this.
_TOLERANCE = 0.03
_ENOUGH = 0.8
# Fraction of the median opacity; an image with less carries another mark, or none.
_LEAST_OPACITY = 0.5
# Opacities that spread less than this are all the same, apart from errors.
_SAME_OPACITY = 0.012
_LEAST_ALPHA = 1.5 / 255
# Alpha below which color is taken from the neighborhood.
_FAINT = 0.05
# Memory per pixel of an image: its values, twice while they are gathered, and what aligning the corners takes.
_BYTES_A_PIXEL = 24
_MARGIN, _TOUCH = 24, 3
# Pixels: a mark this close to the images' edge may extend beyond it.
_NEAR = 8
_TRIES = 3


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An estimated mark.

    Attributes:
      canvas: uint8 RGBA `[h, w, 4]`, transparent where there is no mark.
      confidence: float32 `[h, w]`, probability 0..1 that alpha is right to 0.03, as far as random errors go.
      agreed: bool `[N]`, which images carry the mark.
      left_out: bool `[N]`, which images may carry it too, but did not fit in memory.
      corners: int `[N, 2]`, y and x of the canvas in each image that carries the mark.
      opacities: float64 `[N]`, the mark's opacity in each image relative to the canvas; 0 if the image lacks the mark.
      note: a line on what was found and what would improve it.
    """

    canvas: np.ndarray
    confidence: np.ndarray
    agreed: np.ndarray
    left_out: np.ndarray
    corners: np.ndarray
    opacities: np.ndarray
    note: str


class PictureFolder(Sequence):
    """A folder's images, sorted by name, each read when accessed.

    Attributes:
      names: files with an image format's extension.
      others: all other files.
    """

    def __init__(self, folder: str) -> None:
        """Lists the folder.

        Args:
          folder: path of the folder; its subfolders are ignored.

        Raises:
          UserError: the folder does not exist or holds no images.
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
    """Recovers the mark that images have in common.

    Args:
      pictures: five or more, uint8 `[H, W, 3]`, of any sizes. The mark may be at a fixed distance from a corner, an
        edge or the center, or anywhere, but not scaled or rotated. Each image is read several times. Only the mark's
        surroundings are kept, at most 1 GB; if that is not enough for all images, an evenly spread subset is used.
      show_progress: whether to show progress bars on stderr.

    Returns:
      The mark.

    Raises:
      UserError: there are too few images, or they have no mark in common.
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
    """Returns whether the mark was seen near the images' top, left, bottom and right edges."""
    top, left, bottom, right = limits
    return top > -_NEAR, left > -_NEAR, bottom - size[0] < _NEAR, right - size[1] < _NEAR


def _that_fit(numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    count = max(LEAST_PICTURES, min(len(numbers), _MOST_BYTES // (_BYTES_A_PIXEL * size[0] * size[1])))
    return numbers[np.unique(np.linspace(0, len(numbers) - 1, count).astype(int))]


def _touches_closed_side(alpha: np.ndarray, open_sides: tuple[bool, ...]) -> bool:
    """Returns whether the mark reaches a side of the region that it was assumed not to cross."""
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
    """Returns the opacity of the most opaque images, so that none exceeds the canvas; 1 if all are the same."""
    spread = 1.4826 * np.median(np.abs(opacities - np.median(opacities)))
    return float(np.quantile(opacities, 0.95)) if spread > _SAME_OPACITY else 1.0


def _colors(alpha: np.ndarray, premultiplied: np.ndarray) -> np.ndarray:
    """Returns color `[H, W, 3]`; the faintest pixels, whose color would be mostly noise, take their neighbors'."""
    weighted = np.moveaxis(premultiplied, 0, -1) * alpha[..., None]
    square = alpha[..., None] ** 2
    near = smoothing.box(smoothing.box(weighted, 2), 2) / np.maximum(smoothing.box(smoothing.box(square, 2), 2), 1e-9)
    return np.clip((weighted + _FAINT**2 * near) / (square + _FAINT**2), 0, 255)


def _extent(mark: np.ndarray, open_sides: tuple[bool, ...]) -> tuple[tuple[slice, slice], np.ndarray]:
    """Returns the mark's bounding box, extended to the sides that it may cross, and its top left corner."""
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
