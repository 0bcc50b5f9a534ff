"""Finds where images carry the same mark: at a fixed distance from a corner, edge middle or the center, or anywhere.

First, all images are aligned at each of these anchors and their edges are summed: what they have in common stands out
against sums of randomly shifted images. If nothing does, pairs of images are correlated. Images whose best shifts are
consistent around triangles carry the mark, and their sum is the template that finds it in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from preprocessing.marks.from_pictures import features

# Longest side of downscaled images, pixels: for fixed places, and for correlating pairs.
_SIDE, _PAIR_SIDE = 1024, 512
_PAIRED = 24
_LEAST_PIXELS = 20
_BEYOND_CHANCE = 1.15
_FOUND = 7.0
_ROUNDS = 3
_LEAST_PICTURES = 5


class MarkLocations(NamedTuple):
    """The place of the mark.

    Attributes:
      corners: int `[N, 2]`, y and x of the region's top left corner in each image; may lie outside the image.
      carries: bool `[N]`, whether the mark was seen there.
      size: height and width of the region.
      limits: top, left, bottom and right to which the region could be extended, relative to its corner.
      reach: largest possible error of a corner, pixels.
      shifts: whether the mark's place differs between images.
    """

    corners: np.ndarray
    carries: np.ndarray
    size: tuple[int, int]
    limits: tuple[int, int, int, int]
    reach: int
    shifts: bool


Watch = Callable[[Iterable, str], Iterable]


def find(pictures: Sequence[np.ndarray], watch: Watch = lambda steps, _: steps) -> MarkLocations | None:
    """Finds the region that contains the mark.

    Args:
      pictures: uint8 `[H, W, 3]`, read one after the other, and again if places differ.
      watch: wraps an iterable, with a label, to show progress.

    Returns:
      The placement, or None if the images have no mark in common.
    """
    sizes = np.array([picture.shape[:2] for picture in watch(pictures, "reading")])
    found = _at_fixed_place(pictures, sizes, watch)
    return found if found is not None else _anywhere(pictures, sizes, watch)


def _anchored(sizes: np.ndarray) -> list[np.ndarray]:
    """Returns the images' corners `[N, 2]` in a frame that holds the largest of them, for every distinct anchor."""
    frame = sizes.max(0)
    ways = {}
    for y in (0, 2, 1):
        for x in (0, 2, 1):
            corners = np.stack(
                [(0 * own, limit // 2 - own // 2, limit - own)[at] for own, limit, at in zip(sizes.T, frame, (y, x))], 1
            )
            ways.setdefault(corners.tobytes(), corners)
    return list(ways.values())


def _at_fixed_place(pictures: Sequence[np.ndarray], sizes: np.ndarray, watch: Watch) -> MarkLocations | None:
    factor = -(-int(sizes.max()) // _SIDE)
    frame = sizes.max(0) // factor + 1
    ways = _anchored(sizes)
    real = [features.Agreement(*frame) for _ in ways]
    chance = [features.Agreement(*frame) for _ in ways]
    rng = np.random.default_rng(0)
    for number, picture in enumerate(watch(pictures, "looking at one place")):
        for way, agreement, by_chance in zip(ways, real, chance):
            corner = way[number]
            skip = -corner % factor
            seen = features.whitened_edges(picture[skip[0] :, skip[1] :], factor)
            agreement.add(seen, *((corner + skip) // factor))
            shift = tuple(rng.integers(0, seen.shape[1:]))
            by_chance.add(np.roll(seen, shift, (1, 2)), *((corner + skip) // factor))
    best, best_evidence, box = None, 0.0, None
    for way, agreement, by_chance in zip(ways, real, chance):
        significance = agreement.significance()
        beyond = significance - _BEYOND_CHANCE * by_chance.significance().max()
        evidence = np.maximum(beyond, 0).sum()
        if (beyond > 0).sum() >= _LEAST_PIXELS and evidence > best_evidence:
            best, best_evidence, box = way, evidence, _bounds(beyond > 0)
    if best is None:
        return None
    top, left, bottom, right = (factor * edge for edge in box)
    return MarkLocations(
        np.array([top, left]) - best,
        np.ones(len(sizes), bool),
        (bottom - top, right - left),
        (-top, -left, int(sizes[:, 0].max()) - top, int(sizes[:, 1].max()) - left),
        0 if _is_exact(best, sizes) else 1,
        False,
    )


def _is_exact(corners: np.ndarray, sizes: np.ndarray) -> bool:
    """Returns whether alignment loses no half pixel, as it does at a middle if some sizes are even and others odd."""
    spare = sizes.max(0) - sizes
    return bool(((corners == 0) | (corners == spare)).all(0).all())


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _anywhere(pictures: Sequence[np.ndarray], sizes: np.ndarray, watch: Watch) -> MarkLocations | None:
    factor = -(-int(sizes.max()) // _PAIR_SIDE)
    frame = tuple(int(size) for size in sizes.max(0) // factor + 1)
    span = tuple(features.fast_length(2 * size) for size in frame)

    def seen(number: int) -> np.ndarray:
        return features.whitened_edges(pictures[number], factor)

    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(_PAIRED, len(pictures))).astype(int))
    spectra = [np.fft.fft2(seen(number), span).astype(np.complex64) for number in chosen]
    shifts = np.zeros((len(chosen), len(chosen), 2), int)
    for i in watch(range(len(chosen)), "comparing pairs"):
        for j in range(i):
            shifts[i, j] = _peak(spectra[i], spectra[j])[0]
            shifts[j, i] = -shifts[i, j]
    hub, members = _consistent(shifts)
    if len(members) < 2:
        return None
    corners = {chosen[hub]: np.zeros(2, int)} | {chosen[j]: shifts[hub, j] for j in members}
    box = None
    for _ in watch(range(_ROUNDS), "looking everywhere"):
        agreement, by_chance = features.Agreement(*span), features.Agreement(*span)
        middle = np.array(frame) // 2
        rng = np.random.default_rng(0)
        for number, corner in corners.items():
            own = seen(number)
            agreement.add(own, *(middle - corner))
            by_chance.add(np.roll(own, tuple(rng.integers(0, own.shape[1:])), (1, 2)), *(middle - corner))
        common = agreement.significance() > by_chance.significance().max() * (0.8 if len(corners) < 8 else 1.0)
        if common.sum() < _LEAST_PIXELS:
            return None
        box = _bounds(common)
        template = np.where(common, agreement.sums, 0)[:, box[0] : box[2], box[1] : box[3]]
        spectrum = np.fft.fft2(template, span)
        corners = {}
        for number in range(len(pictures)):
            shift, score = _peak(spectrum, np.fft.fft2(seen(number), span))
            if score > _FOUND:
                corners[number] = shift - (np.array(box[:2]) - middle)
        if len(corners) < 3:
            return None
    if len(corners) < _LEAST_PICTURES:
        return None
    offset = np.array(box[:2]) - middle
    places = np.array([corners.get(number, np.zeros(2, int)) + offset for number in range(len(pictures))])
    carries = np.isin(np.arange(len(pictures)), list(corners))
    size = (factor * (box[2] - box[0]), factor * (box[3] - box[1]))
    far = int(sizes.max())
    return MarkLocations(factor * places, carries, size, (-far, -far, far, far), factor, True)


def _peak(template: np.ndarray, picture: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns a template's shift to its place in an image, and the peak's height in deviations; takes spectra."""
    found = np.fft.ifft2((np.conj(template) * picture).sum(0)).real
    at = np.unravel_index(found.argmax(), found.shape)
    score = found[at] / (1.4826 * np.median(np.abs(found)) + 1e-9)
    return np.array([place - size if place > size // 2 else place for place, size in zip(at, found.shape)]), score


def _consistent(shifts: np.ndarray) -> tuple[int, np.ndarray]:
    """Returns the image in the most triangles whose shifts add up to 0, and the other images in these triangles."""
    number = len(shifts)
    around = shifts[:, :, None] + shifts[None] - shifts[:, None]
    closes = (np.abs(around) <= 1).all(-1)
    different = ~np.eye(number, dtype=bool)
    closes &= different[:, :, None] & different[None] & different[:, None]
    support = closes.sum(2)
    hub = int(support.sum(1).argmax())
    return hub, np.flatnonzero(support[hub] >= max(1, support[hub].max() // 4))
