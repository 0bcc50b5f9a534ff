"""Refines a placement that is a few pixels off: matches blocks of the canvas and fits a common motion to them.

Each block of a window is correlated with the image's whitened gradients, as in `locate`, a few pixels around its
place. The best match gives the block a displacement and a weight. The placement moves by the similarity transform that
fits the displacements best in a robust least-squares sense; a block that matched a natural edge is an outlier.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from training.keyed.locate import DAMPING, expected_gradients, picture_fields
from training.keyed.placement import PLACEMENT, Placement, over_picture
from training.keyed.traced import NUMBER

_WINDOW = 320  # pixels per side of the window: more costs time and adds little
_BLOCK = 64  # pixels per side
_REACH = 6  # largest displacement of a block, in pixels
_SURE = 3.0  # blocks with a lower score do not count
_AGREES = 0.4  # minimum response of a block that agrees, as a share of what its energy predicts
_ROBUST = 0.5  # pixels off the common motion at which a block's weight is halved
_ROUNDS = 4
_ALMOST = 0.2  # pixels: a corner this near to whole pixels is rounded, as watermarks mostly lie on whole pixels
_UNIT = 128.0  # pixels over which a change of scale or angle is compared with a shift
_SETTLED = 0.02  # pixels: refinement ends once a step moves no block further than this


def visible(placement: Placement, canvas_size: tuple[int, int], picture_size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns two corners of the part of an image that a canvas covers, ignoring its rotation."""
    limit = tf.cast(picture_size, tf.float32)
    last = placement.corner + placement.scale * tf.constant(canvas_size, tf.float32)
    return tf.clip_by_value(placement.corner, 0.0, limit), tf.clip_by_value(last, 0.0, limit)


def window(
    placement: Placement, canvas_size: tuple[int, int], picture_size: tf.Tensor, side: tf.Tensor | int = _WINDOW
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns a window around the middle of the visible part of the canvas.

    Args:
      placement: where the canvas lies, roughly.
      canvas_size: the canvas's height and width.
      picture_size: int32 `[2]`, the image's height and width.
      side: the window's side in pixels, or one per axis; limited to the image's size.

    Returns:
      The window's corner and size, int32 `[2]` each.
    """
    first, last = visible(placement, canvas_size, picture_size)
    size = tf.minimum(picture_size, side)
    start = tf.cast((first + last) / 2.0, tf.int32) - size // 2
    return tf.clip_by_value(start, 0, picture_size - size), size


def _blocks(x: tf.Tensor) -> tf.Tensor:
    """float32 `[C, H, W]`, sides multiples of `_BLOCK`, to `[B, C, _BLOCK, _BLOCK]`."""
    shape = tf.shape(x)
    rows, columns = shape[1] // _BLOCK, shape[2] // _BLOCK
    x = tf.reshape(x, [shape[0], rows, _BLOCK, columns, _BLOCK])
    return tf.reshape(tf.transpose(x, [1, 3, 0, 2, 4]), [rows * columns, shape[0], _BLOCK, _BLOCK])


def _peaks(expected: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns where blocks match best: subpixel displacements `[B, 2]`, from parabolas, and the peak values `[B]`."""
    spectrum = tf.math.conj(tf.signal.rfft2d(expected)) * tf.signal.rfft2d(found)
    correlation = tf.signal.irfft2d(tf.reduce_sum(spectrum, axis=1))
    side, border = 2 * _REACH + 1, 2 * _REACH + 3
    near = tf.roll(correlation, [_REACH + 1, _REACH + 1], [1, 2])[:, :border, :border]
    index = tf.argmax(tf.reshape(near[:, 1:-1, 1:-1], [-1, side * side]), axis=1, output_type=tf.int32)
    row, column = index // side, index % side
    here = (tf.range(tf.size(index)) * border + row + 1) * border + column + 1
    around = tf.constant([0, -border, border, -1, 1])[:, None]  # itself, above, below, left, right
    value, above, below, left, right = tf.unstack(tf.gather(tf.reshape(near, [-1]), here + around))
    between = [
        tf.clip_by_value(0.5 * (before - after) / tf.minimum(before + after - 2.0 * value, -1e-6), -0.5, 0.5)
        for before, after in ((above, below), (left, right))
    ]
    return tf.cast(tf.stack([row, column], axis=1) - _REACH, tf.float32) + tf.stack(between, axis=1), value


def _motion(middles: tf.Tensor, moved: tf.Tensor, weight: tf.Tensor, rigid: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Fits `moved = shift + [[s, r], [-r, s]] middles`, with s = r = 0 if rigid; returns the shift, and (s, r)."""
    zero, one = tf.zeros_like(weight), tf.ones_like(weight)
    y, x = tf.unstack(tf.where(rigid, 0.0, middles), axis=1)
    rows = tf.concat([tf.stack([one, zero, y, x], 1), tf.stack([zero, one, x, -y], 1)], axis=0)
    target = tf.reshape(tf.transpose(moved), [-1, 1])

    # If no block counts, the prior keeps the placement where it is.
    prior = 1e-3 * np.eye(4, dtype=np.float32)

    def refitted(number: tf.Tensor, solution: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        left = tf.reduce_sum(tf.square(tf.reshape(target - tf.matmul(rows, solution), [2, -1])), axis=0)
        trusted = weight / (1.0 + left / _ROBUST**2)
        both = tf.tile(trusted, [2])[:, None]
        normal = tf.matmul(rows, both * rows, transpose_a=True) + prior
        return number + 1, tf.linalg.solve(normal, tf.matmul(rows, both * target, transpose_a=True))

    solution = tf.while_loop(lambda number, _: number < _ROUNDS, refitted, (0, tf.zeros([4, 1])))[1][:, 0]
    return solution[:2], solution[2:]


class Match(NamedTuple):
    """How well a placement explains an image.

    Attributes:
      placement: where the canvas lies.
      score: float32 scalar, how sure the match is; comparable with `locate.score_map`.
      opacity: float32 scalar, the opacity to within a fifth.
      consensus: float32 scalar, 0 to 1, share of the visible canvas that agrees; at a wrong scale only some of it does.
    """

    placement: Placement
    score: tf.Tensor
    opacity: tf.Tensor
    consensus: tf.Tensor


MATCH = Match(PLACEMENT, NUMBER, NUMBER, NUMBER)


class _Blocks:
    """An image split into blocks, each of which votes for a displacement."""

    def __init__(self, picture: tf.Tensor, layer: tf.Tensor, counts: tf.Tensor | None):
        self._layer, self._size = layer, tf.shape(picture)[:2]
        self._fields = picture_fields(picture[None], 1.0, None if counts is None else counts[None])
        self._padding = [[0, 0], [0, -self._size[0] % _BLOCK], [0, -self._size[1] % _BLOCK]]
        self._whitened = self._in_blocks(self._fields.gradients[1:, 0])

        rows, columns = tf.unstack(-(-self._size // _BLOCK))
        index = tf.range(rows * columns)
        block = tf.cast(tf.stack([index // columns, index % columns], axis=1), tf.float32)
        self._middles = (block + 0.5) * _BLOCK  # float32 [B, 2]

    def _in_blocks(self, gradients: tf.Tensor) -> tf.Tensor:
        """float32 `[3, 2, H, W]` to `[B, 6, _BLOCK, _BLOCK]`, zero-padded to whole blocks."""
        planes = tf.reshape(gradients, [6, self._size[0], self._size[1]])
        return _blocks(tf.pad(planes, self._padding))

    def _expected(self, placement: Placement) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what each block of the canvas adds to gradients, `[B, 6, _BLOCK, _BLOCK]`, and its energy, `[B]`."""
        placed = over_picture(self._layer, placement, self._size)
        expected = expected_gradients(self._fields, placed)
        energy = tf.reduce_sum(tf.square(expected), axis=[0, 1])[None] * self._fields.inverse_power
        energies = tf.reduce_sum(_blocks(tf.pad(energy, self._padding)), axis=[1, 2, 3])
        return self._in_blocks(expected), energies

    def matched(self, placement: Placement, rigid: tf.Tensor) -> tuple[Match, Placement]:
        """Returns how well a placement explains the window, and the placement that its blocks agree on."""
        expected, energies = self._expected(placement)
        agreements = tf.reduce_sum(expected * self._whitened, axis=[1, 2, 3])
        agreement, energy = tf.reduce_sum(agreements), tf.reduce_sum(energies) + 1e-12
        agrees = tf.cast(agreements > _AGREES * agreement * energies / energy, tf.float32)
        consensus = tf.reduce_sum(agrees * energies) / energy
        match = Match(placement, agreement / tf.sqrt(energy), agreement / energy, consensus)
        return match, self._moved(placement, expected, energies, rigid)

    def distance(self, one: Placement, other: Placement) -> tf.Tensor:
        """Returns how far two placements are apart in the block that differs most: pixels, float32 scalar."""
        middles = one.canvas_points(self._middles)
        return tf.reduce_max(tf.norm(other.picture_points(middles) - self._middles, axis=1))

    def _moved(self, placement: Placement, expected: tf.Tensor, energies: tf.Tensor, rigid: tf.Tensor) -> Placement:
        displaced, matched = _peaks(expected, self._whitened)
        scores = matched / tf.sqrt(energies + DAMPING * tf.reduce_max(energies) + 1e-12)
        weight = tf.square(tf.maximum(0.0, scores - _SURE))
        weight /= tf.reduce_sum(weight) + 1e-6
        middle = tf.reduce_sum(self._middles * weight[:, None], axis=0)
        shift, linear = _motion((self._middles - middle) / _UNIT, displaced, weight, rigid)
        stretch, turn = linear[0] / _UNIT, linear[1] / _UNIT
        away = placement.corner - middle
        corner = placement.corner + shift + stretch * away + turn * tf.stack([away[1], -away[0]])
        whole = tf.round(corner)
        is_almost_whole = rigid & tf.reduce_all(tf.abs(corner - whole) < _ALMOST)
        corner = tf.where(is_almost_whole, whole, corner)
        grown = tf.sqrt(tf.square(1.0 + stretch) + tf.square(turn))
        return Placement(corner, placement.scale * grown, placement.rotation - tf.atan2(turn, 1.0 + stretch))


def refine(
    picture: tf.Tensor,
    layer: tf.Tensor,
    start: Placement,
    rigid: tf.Tensor | bool,
    counts: tf.Tensor | None = None,
    steps: tf.Tensor | int = 2,
) -> Match:
    """Refines a placement.

    Args:
      picture: float32 `[H, W, 3]` in 0..1; for a large image, its `window`.
      layer: premultiplied canvas, float32 `[h, w, 4]`.
      start: a placement that is right to within a few pixels.
      rigid: whether to keep scale and rotation and refine only the corner; a corner near whole pixels is rounded.
      counts: float32 `[H, W]`, 0 for pixels to leave out, else 1; None if all count.
      steps: maximum number of steps; fewer if the placement settles earlier.
    """
    part, rigid = _Blocks(picture, layer, counts), tf.convert_to_tensor(rigid)

    def step(number: tf.Tensor, match: Match, following: Placement) -> tuple[tf.Tensor, Match, Placement]:
        del match
        return number + 1, *part.matched(following, rigid)

    def goes_on(number: tf.Tensor, match: Match, following: Placement) -> tf.Tensor:
        return (number <= steps) & (part.distance(match.placement, following) > _SETTLED)

    elsewhere = start._replace(corner=start.corner + 1.0)
    nowhere = Match(elsewhere, tf.zeros([]), tf.zeros([]), tf.zeros([]))
    _, match, _ = tf.while_loop(goes_on, step, (0, nowhere, start))
    return match
