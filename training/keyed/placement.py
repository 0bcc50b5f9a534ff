"""A canvas in a picture's frame: moved, scaled and turned to where it was found."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import tensorflow as tf


def turned(points: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """Points `[..., 2]`, (y, x), turned about the origin, counter-clockwise on a screen, where y points down."""
    sine, cosine = tf.sin(angle), tf.cos(angle)
    y, x = points[..., 0], points[..., 1]
    return tf.stack([cosine * y - sine * x, sine * y + cosine * x], axis=-1)


class Placement(NamedTuple):
    """Where a canvas lies.

    A canvas point c, pixels from its top left corner, appears in the picture at `corner + scale R(rotation) c`.

    Attributes:
      corner: float32 `[2]`, (y, x) of the canvas's top left corner, pixels.
      scale: float32 scalar, a picture's pixels to a canvas's.
      rotation: float32 scalar, radians, counter-clockwise as seen on a screen.
    """

    corner: tf.Tensor
    scale: tf.Tensor
    rotation: tf.Tensor

    def picture_points(self, canvas_points: tf.Tensor) -> tf.Tensor:
        """Where points of the canvas, float32 `[N, 2]`, appear."""
        return self.corner + self.scale * turned(canvas_points, self.rotation)

    def canvas_points(self, picture_points: tf.Tensor) -> tf.Tensor:
        """Which points of the canvas appear there, float32 `[N, 2]`."""
        return turned(picture_points - self.corner, -self.rotation) / self.scale

    def seen_from(self, corner: tf.Tensor) -> Placement:
        """The same in a window of the picture whose top left pixel is `corner`."""
        return self._replace(corner=self.corner - tf.cast(corner, tf.float32))


def at_corner(corner: tf.Tensor) -> Placement:
    """The canvas as it is, at `corner`."""
    return Placement(tf.cast(corner, tf.float32), tf.ones([]), tf.zeros([]))


def _windowed(layer: tf.Tensor, corner: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Whole pixels: rows and columns of the canvas, transparent outside of it."""
    for axis in (0, 1):
        index = tf.range(size[axis]) - corner[axis]
        inside = tf.cast((index >= 0) & (index < layer.shape[axis]), tf.float32)
        layer = tf.gather(layer, tf.clip_by_value(index, 0, layer.shape[axis] - 1), axis=axis)
        layer *= tf.reshape(inside, [-1, 1, 1] if axis == 0 else [1, -1, 1])
    return layer


def pixel_middles(size: tf.Tensor) -> tf.Tensor:
    """Where the pixels of a picture have their middles, float32 `[H, W, 2]`, (y, x); `size` is int32 `[2]`."""
    rows, columns = (tf.cast(tf.range(length), tf.float32) + 0.5 for length in tf.unstack(size))
    return tf.stack(tf.meshgrid(rows, columns, indexing="ij"), axis=-1)


def bilinear(image: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Samples float32 `[h, w, C]` at `[H, W, 2]`, (y, x) of pixels' middles; beyond the border it is repeated."""
    width, pixels = tf.shape(image)[1], tf.reshape(image, [-1, image.shape[-1]])
    last = tf.cast(tf.shape(image)[:2] - 1, tf.float32)
    at = tf.clip_by_value(at, 0.0, last)
    first = tf.minimum(tf.floor(at), last - 1.0)
    weight_y, weight_x = tf.split(at - first, 2, axis=-1)
    first = tf.cast(first, tf.int32)
    index = first[..., 0] * width + first[..., 1]

    def tap(dy: int, dx: int) -> tf.Tensor:
        return tf.gather(pixels, index + dy * width + dx)

    upper = tap(0, 0) * (1.0 - weight_x) + tap(0, 1) * weight_x
    lower = tap(1, 0) * (1.0 - weight_x) + tap(1, 1) * weight_x
    return upper * (1.0 - weight_y) + lower * weight_y


def _antialiased(layer: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """The canvas at `scale` of its size, its corner staying where it is."""
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
    """The part of a canvas that a picture shows, and a border: scaling all of a large one takes many times as long."""
    corners = placement.canvas_points(
        tf.constant(list(itertools.product((0.0, 1.0), repeat=2))) * tf.cast(size, tf.float32)
    )
    border = 4.0 + 4.0 / placement.scale  # the kernel's reach, and more
    limit = tf.constant(tuple(layer.shape[:2]), tf.float32)
    first = tf.clip_by_value(tf.floor(tf.reduce_min(corners, axis=0) - border), 0.0, limit - 1.0)
    last = tf.clip_by_value(tf.math.ceil(tf.reduce_max(corners, axis=0) + border), first + 1.0, limit)
    extent = tf.cast(last - first, tf.int32)
    part = tf.slice(layer, tf.concat([tf.cast(first, tf.int32), [0]], 0), tf.concat([extent, [4]], 0))
    return part, placement._replace(corner=placement.picture_points(first))


def _sampled(layer: tf.Tensor, placement: Placement, size: tf.Tensor) -> tf.Tensor:
    """Between pixels: the canvas is scaled first, then moved and turned by bilinear interpolation."""
    layer, placement = _seen_part(layer, placement, size)
    layer = tf.cond(placement.scale == 1.0, lambda: layer, lambda: _antialiased(layer, placement.scale))
    layer = tf.pad(layer, [[1, 1], [1, 1], [0, 0]])
    # The border of one pixel, and the half pixel to its middle, make the other half.
    return bilinear(layer, turned(pixel_middles(size) - placement.corner, -placement.rotation) + 0.5)


def over_picture(layer: tf.Tensor, placement: Placement, size: tf.Tensor) -> tf.Tensor:
    """Brings a canvas into a picture's frame.

    Args:
      layer: premultiplied canvas, float32 `[h, w, 4]`.
      placement: where it lies.
      size: int32 `[2]`, the picture's height and width.

    Returns:
      float32 `[H, W, 4]`; where the placement is of whole pixels, the canvas's own values.
    """
    whole = tf.round(placement.corner)
    is_whole = (placement.scale == 1.0) & (placement.rotation == 0.0) & tf.reduce_all(tf.equal(whole, placement.corner))
    placed = tf.cond(
        is_whole,
        lambda: _windowed(layer, tf.cast(whole, tf.int32), size),
        lambda: _sampled(layer, placement, size),
    )
    return tf.reshape(placed, [size[0], size[1], 4])
