"""Cuts the marked regions out of the images and aligns them to the pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from preprocessing.marks.from_pictures import features
from preprocessing.marks.from_pictures.alternation import Stack
from preprocessing.marks.from_pictures.place import MarkLocations

_ROUNDS = 10
# If the mark's place is nearly certain, an image moves only if its edges then fit the others' this many times better.
_BETTER = 1.25


def grow(placement: MarkLocations, margin: int) -> MarkLocations:
    """Extends the region by a margin, in pixels, as far as the images reach."""
    top, left, bottom, right = placement.limits
    first = np.maximum((-margin, -margin), (top, left))
    last = np.minimum((placement.size[0] + margin, placement.size[1] + margin), (bottom, right))
    return placement._replace(
        corners=placement.corners + first,
        size=tuple(int(size) for size in last - first),
        limits=(top - first[0], left - first[1], bottom - first[0], right - first[1]),
    )


def cut(
    pictures: Sequence[np.ndarray], numbers: Sequence[int], placement: MarkLocations, seen: tuple[bool, ...]
) -> tuple[Stack, np.ndarray]:
    """Cuts out the region.

    Args:
      pictures: all images, uint8 `[H, W, 3]`.
      numbers: indices of the images to use.
      placement: the region's place.
      seen: whether the mark was seen near the images' top, left, bottom and right edges.

    Returns:
      The stack, and the corners, int `[len(numbers), 2]`, corrected to the pixel.
    """
    corners = placement.corners[list(numbers)]
    crops = [_crop(pictures[number], corner, placement.size) for number, corner in zip(numbers, corners)]
    if placement.reach:
        moves = _moves(crops, placement.reach + 1, 1.0 if placement.shifts else _BETTER)
        corners = corners + moves
        crops = [_crop(pictures[number], corner, placement.size) for number, corner in zip(numbers, corners)]
    top, left, bottom, right = (
        near and limit in (0, size) for near, limit, size in zip(seen, placement.limits, (0, 0, *placement.size))
    )
    inside = np.array([inside for _, inside in crops])
    return Stack(np.stack([crop for crop, _ in crops]), inside, (top, bottom, left, right)), corners


def _crop(picture: np.ndarray, corner: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Returns uint8 `[3, h, w]`, 0 outside the image, and top, bottom, left and right of the part inside."""
    first = np.maximum(corner, 0)
    last = np.maximum(np.minimum(corner + size, picture.shape[:2]), first)
    (top, left), (bottom, right) = np.minimum(first - corner, size), np.minimum(last - corner, size)
    crop = np.zeros((3, *size), np.uint8)
    crop[:, top:bottom, left:right] = picture[first[0] : last[0], first[1] : last[1]].transpose(2, 0, 1)
    return crop, (top, bottom, left, right)


def _moves(crops: list[tuple[np.ndarray, tuple[int, ...]]], reach: int, better: float) -> np.ndarray:
    """Returns each crop's move (y, x), up to `reach`, that makes it fit the others `better` times as well: `[N, 2]`."""
    height, width = crops[0][0].shape[1:]
    span = tuple(features.fast_length(size + 2 * reach) for size in (height, width))
    spectra = []
    for crop, (top, bottom, left, right) in crops:
        edges = np.zeros((2, height, width), np.complex64)
        if bottom - top > 2 and right - left > 2:
            part = np.s_[:, top:bottom, left:right]
            edges[part] = features.whitened_edges(crop[part].transpose(1, 2, 0))
        spectra.append(np.fft.fft2(edges, span).astype(np.complex64))
    moves = np.zeros((len(crops), 2), int)
    rows, columns = (np.fft.fftfreq(size)[:, None] for size in span)
    window = np.arange(-reach, reach + 1)
    for _ in range(_ROUNDS):
        before = moves.copy()
        shifted = [
            spectrum * np.exp(2j * np.pi * (rows * move[0] + columns.T * move[1]))
            for spectrum, move in zip(spectra, moves)
        ]
        total = sum(shifted)
        for number, spectrum in enumerate(spectra):
            others = np.conj(total - shifted[number])
            fits = np.fft.ifft2((others * spectrum).sum(0)).real[np.ix_(window, window)]
            if fits.max() > better * fits[tuple(moves[number] + reach)]:
                moves[number] = np.array(np.unravel_index(fits.argmax(), fits.shape)) - reach
        if (moves == before).all():
            break
    return moves
