"""Brings a canvas into an image's frame: moved, scaled and rotated to where it was found."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import tensorflow as tf

from training.keyed.traced import BOOL, LAYER, NUMBER, SIZE, once


def turned(points: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """Rotates points `[..., 2]`, (y, x), about the origin, counterclockwise on a screen, where y points down.

    Angles, in radians, are broadcast against `[...]`.
    """
    sine, cosine = tf.sin(angle), tf.cos(angle)
    y, x = tf.unstack(points, axis=-1)
    return tf.stack([cosine * y - sine * x, sine * y + cosine * x], axis=-1)


class Placement(NamedTuple):
    """Where a canvas lies.

    A canvas point c, in pixels from the canvas's top left corner, appears in the image at
    `corner + scale R(rotation) c`.

    Attributes:
      corner: float32 `[2]`, (y, x) of the canvas's top left corner, pixels.
      scale: float32 scalar, image pixels per canvas pixel.
      rotation: float32 scalar, radians, counterclockwise on a screen.
    """

    corner: tf.Tensor
    scale: tf.Tensor
    rotation: tf.Tensor

    def picture_points(self, canvas_points: tf.Tensor) -> tf.Tensor:
        """Returns where canvas points, float32 `[N, 2]`, appear in the image."""
        return self.corner + self.scale * turned(canvas_points, self.rotation)

    def canvas_points(self, picture_points: tf.Tensor) -> tf.Tensor:
        """Returns which canvas points, float32 `[N, 2]`, appear at points of the image."""
        return turned(picture_points - self.corner, -self.rotation) / self.scale

    def seen_from(self, corner: tf.Tensor) -> Placement:
        """Returns this placement in a window of the image with its top left pixel at `corner`."""
        return self._replace(corner=self.corner - tf.cast(corner, tf.float32))


PLACEMENT = Placement(tf.TensorSpec([2], tf.float32), NUMBER, NUMBER)


def at_corner(corner: tf.Tensor) -> Placement:
    """Returns the placement of the unchanged canvas at `corner`."""
    return Placement(tf.cast(corner, tf.float32), tf.ones([]), tf.zeros([]))


def _windowed(layer: tf.Tensor, corner: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Shifts by whole pixels: copies rows and columns of the canvas, transparent outside it."""
    extent = tf.shape(layer)
    for axis in (0, 1):
        index = tf.range(size[axis]) - corner[axis]
        inside = tf.cast((index >= 0) & (index < extent[axis]), tf.float32)
        layer = tf.gather(layer, tf.clip_by_value(index, 0, extent[axis] - 1), axis=axis)
        layer *= tf.reshape(inside, [-1, 1, 1] if axis == 0 else [1, -1, 1])
    return layer


def pixel_middles(size: tf.Tensor) -> tf.Tensor:
    """Returns the centers of an image's pixels, float32 `[H, W, 2]`, (y, x); `size` is int32 `[2]`."""
    rows, columns = (tf.cast(tf.range(length), tf.float32) + 0.5 for length in tf.unstack(size))
    return tf.stack(tf.meshgrid(rows, columns, indexing="ij"), axis=-1)


def bilinear(image: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Samples float32 `[h, w, C]` at `[..., 2]`, (y, x), 0 being the first pixel's center; repeats the border."""
    width, pixels = tf.shape(image)[1], tf.reshape(image, [-1, image.shape[-1]])
    last = tf.cast(tf.shape(image)[:2] - 1, tf.float32)
    at = tf.clip_by_value(at, 0.0, last)
    # In an image one pixel wide, that pixel is its own neighbor.
    first = tf.maximum(0.0, tf.minimum(tf.floor(at), last - 1.0))
    weight_y, weight_x = tf.split(at - first, 2, axis=-1)
    row, column = tf.unstack(tf.cast(first, tf.int32), axis=-1)
    down, right = tf.unstack(tf.cast(tf.minimum(last, 1.0), tf.int32))
    index, down = row * width + column, down * width

    def tap(dy: int, dx: int) -> tf.Tensor:
        return tf.gather(pixels, index + dy * down + dx * right)

    upper = tap(0, 0) * (1.0 - weight_x) + tap(0, 1) * weight_x
    lower = tap(1, 0) * (1.0 - weight_x) + tap(1, 1) * weight_x
    return upper * (1.0 - weight_y) + lower * weight_y


def _taps(at: tf.Tensor) -> list[tf.Tensor]:
    """Returns cubic weights of the samples from 1 before to 2 after points `at`, 0..1 between samples (Keys 1981)."""
    square = tf.square(at)
    cube = square * at
    return [
        -0.5 * cube + square - 0.5 * at,
        1.5 * cube - 2.5 * square + 1.0,
        -1.5 * cube + 2.0 * square + 0.5 * at,
        0.5 * cube - 0.5 * square,
    ]


def _bicubic(image: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Samples as `bilinear` does, but by cubic convolution, which keeps edges as sharp as image editors do; 0..1."""
    size, pixels = tf.shape(image), tf.reshape(image, [-1, image.shape[-1]])
    at = tf.clip_by_value(at, 0.0, tf.cast(size[:2] - 1, tf.float32))
    first = tf.floor(at)
    weights_y, weights_x = (_taps(part) for part in tf.split(at - first, 2, axis=-1))
    y, x = tf.unstack(tf.cast(first, tf.int32), axis=-1)
    rows = [tf.clip_by_value(y + step, 0, size[0] - 1) * size[1] for step in range(-1, 3)]
    columns = [tf.clip_by_value(x + step, 0, size[1] - 1) for step in range(-1, 3)]

    def along_x(row: tf.Tensor) -> tf.Tensor:
        return tf.add_n([tf.gather(pixels, row + column) * weight for column, weight in zip(columns, weights_x)])

    sampled = tf.add_n([along_x(row) * weight for row, weight in zip(rows, weights_y)])
    return tf.clip_by_value(sampled, 0.0, 1.0)


def _antialiased(layer: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Scales the canvas, keeping its corner in place."""
    size = tf.cast(tf.math.ceil(scale * tf.cast(tf.shape(layer)[:2], tf.float32)), tf.int32)
    scaled = tf.raw_ops.ScaleAndTranslate(
        images=layer[None],
        size=size,
        scale=tf.fill([2], scale),
        translation=tf.zeros([2]),
        kernel_type="keyscubic",
        antialias=True,
    )
    return tf.clip_by_value(scaled[0], 0.0, 1.0)


def _seen_part(layer: tf.Tensor, placement: Placement, size: tf.Tensor) -> tuple[tf.Tensor, Placement]:
    """Crops a canvas to what an image shows of it plus a border: scaling a whole large canvas takes much longer."""
    corners = placement.canvas_points(
        tf.constant(list(itertools.product((0.0, 1.0), repeat=2))) * tf.cast(size, tf.float32)
    )
    border = 4.0 + 4.0 / placement.scale  # more than the kernel's reach
    limit = tf.cast(tf.shape(layer)[:2], tf.float32)
    first = tf.clip_by_value(tf.floor(tf.reduce_min(corners, axis=0) - border), 0.0, limit - 1.0)
    last = tf.clip_by_value(tf.math.ceil(tf.reduce_max(corners, axis=0) + border), first + 1.0, limit)
    extent = tf.cast(last - first, tf.int32)
    part = tf.slice(layer, tf.concat([tf.cast(first, tf.int32), [0]], 0), tf.concat([extent, [4]], 0))
    return part, placement._replace(corner=placement.picture_points(first))


def _sampled(layer: tf.Tensor, placement: Placement, size: tf.Tensor, is_sharp: tf.Tensor) -> tf.Tensor:
    """Places between pixels: shrinks the canvas if needed, then moves, rotates and enlarges it by interpolation."""
    layer, placement = _seen_part(layer, placement, size)
    shrunk_by = tf.minimum(placement.scale, 1.0)
    layer = tf.cond(shrunk_by == 1.0, lambda: layer, lambda: _antialiased(layer, shrunk_by))
    border = 2  # pixels that the kernels reach
    layer = tf.ensure_shape(tf.pad(layer, [[border, border], [border, border], [0, 0]]), [None, None, 4])
    at = placement.canvas_points(pixel_middles(size)) * shrunk_by + (border - 0.5)
    return tf.cond(is_sharp, lambda: _bicubic(layer, at), lambda: bilinear(layer, at))


def laid(layer: tf.Tensor, placement: Placement, size: tf.Tensor, is_sharp: tf.Tensor | bool = False) -> tf.Tensor:
    """Brings a canvas into an image's frame.

    Args:
      layer: premultiplied canvas, float32 `[h, w, 4]`.
      placement: where the canvas lies.
      size: int32 `[2]`, the image's height and width.
      is_sharp: whether to interpolate as sharply as editors lay watermarks; slower, and not needed for finding.

    Returns:
      float32 `[H, W, 4]`; the canvas's own values if it is unscaled, unrotated and on whole pixels.
    """
    whole = tf.round(placement.corner)
    is_whole = (placement.scale == 1.0) & (placement.rotation == 0.0) & tf.reduce_all(tf.equal(whole, placement.corner))
    placed = tf.cond(
        is_whole,
        lambda: _windowed(layer, tf.cast(whole, tf.int32), size),
        lambda: _sampled(layer, placement, size, tf.convert_to_tensor(is_sharp)),
    )
    return tf.reshape(placed, [size[0], size[1], 4])


_laid_once = once(laid, LAYER, PLACEMENT, SIZE, BOOL)


def over_picture(
    layer: tf.Tensor, placement: Placement, size: tf.Tensor, is_sharp: tf.Tensor | bool = False
) -> tf.Tensor:
    """Does what `laid` does, in a function that the graph holds once."""
    return _laid_once(layer, placement, size, is_sharp)
