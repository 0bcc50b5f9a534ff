"""Lays canvases over images, in graph ops: placed, scaled, rotated, warped, blurred, tinted and blended."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from training.corruption import random
from training.corruption.bank import read_bank
from training.corruption.spec import Range, Watermark

_NODES = 4  # nodes per side of the warp's grid
# Largest gap between copies of a tiled stamp, as a share of the stamp's size.
_LARGEST_GAP = 0.5
_DRAWS = ("canvas", "opacity", "scale", "rotate", "tint", "blur", "warp", "y", "x", "gap_y", "gap_x", "stagger")


def _within(range_: Range, draw: tf.Tensor) -> tf.Tensor:
    return range_.low + draw * (range_.high - range_.low)


def _spline(size: int) -> np.ndarray:
    """Returns the weights of a uniform cubic B-spline, `[size, _NODES]`. Rows sum to 1: no value exceeds its nodes."""
    at = (np.arange(size) + 0.5) / size * (_NODES - 3)
    first = np.minimum(at.astype(int), _NODES - 4)
    t = at - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
    spread = np.zeros([size, _NODES], np.float32)
    np.put_along_axis(spread, first[:, None] + np.arange(4), weights.astype(np.float32), axis=1)
    return spread


def _blurred(layer: tf.Tensor, stddev: tf.Tensor, radius: int) -> tf.Tensor:
    """Blurs every image by its own Gaussian, and drops a border of `radius` pixels, which lacks neighbors."""

    def weights(length: int) -> tf.Tensor:
        """Returns the matrices that blur a row of pixels, `[N, length, length - 2 radius]`."""
        away = np.arange(length)[:, None] - np.arange(radius, length - radius)
        gaussian = tf.exp(-0.5 * tf.square(away / tf.maximum(stddev, 1e-3)[:, None, None]))
        gaussian = tf.where(np.abs(away) <= radius, gaussian, 0.0)
        return gaussian / tf.reduce_sum(gaussian, 1, keepdims=True)

    # Matrix products: a convolution with one kernel per image would be depthwise, which is very slow in XLA on CPUs.
    height, width = layer.shape[1:3]
    layer = tf.einsum("nhwc,nhy->nywc", layer, weights(height))
    return tf.einsum("nywc,nwx->nyxc", layer, weights(width))


class WatermarkOverlay:
    """Blends one of several canvases over each image: `x = (1 - a) y + a c`, or by screen or multiply.

    The canvases are read once, into a constant of the graph.
    """

    def __init__(self, spec: Watermark):
        self._spec = spec
        self._bank = read_bank(spec.canvas, spec.scale.low)
        # Whole-pixel placement needs one read per pixel, interpolation four; and it keeps the watermark's own pixels.
        self._whole_pixels = spec.scale == Range(1, 1) and spec.rotate == Range(0, 0) and spec.warp == Range(0, 0)

    def __call__(self, clean: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Overlays every image; see `training.corruption.build` for the contract."""
        spec = self._spec
        numbers = random.per_picture(seeds, len(_DRAWS) + 3 + 2 * _NODES**2)
        draws = dict(zip(_DRAWS, tf.unstack(numbers[:, : len(_DRAWS)], axis=1)))
        colour, nodes = tf.split(numbers[:, len(_DRAWS) :], [3, -1], axis=1)

        # Blurring reads a pixel's surroundings, so the layer is sampled with a border that blurring consumes.
        border = math.ceil(3 * spec.blur.high)
        height, width = clean.shape[1:3]
        canvas = tf.cast(draws["canvas"] * self._bank.count, tf.int32)
        layer = self._layer(canvas, draws, nodes, height, width, border)
        if border:
            layer = _blurred(layer, _within(spec.blur, draws["blur"]), border)
        layer *= (_within(spec.opacity, draws["opacity"]) / 255.0)[:, None, None, None]
        mark, alpha = layer[..., :3], layer[..., 3:]
        if spec.tint.high:
            mark += _within(spec.tint, draws["tint"])[:, None, None, None] * (alpha * colour[:, None, None] - mark)
        if spec.blend == "screen":
            return clean + mark * (1.0 - clean), alpha
        if spec.blend == "multiply":
            return clean * (1.0 - alpha + mark), alpha
        return clean * (1.0 - alpha) + mark, alpha

    def _layer(
        self, canvas: tf.Tensor, draws: dict[str, tf.Tensor], nodes: tf.Tensor, height: int, width: int, border: int
    ) -> tf.Tensor:
        """Returns the watermark over each image plus a border: premultiplied, 0..255, before opacity."""
        spec = self._spec
        y = (tf.range(-border, height + border, dtype=tf.float32) + 0.5)[None, :, None]
        x = (tf.range(-border, width + border, dtype=tf.float32) + 0.5)[None, None, :]
        if spec.warp.high:
            nodes = tf.reshape(2.0 * nodes - 1.0, [-1, 2, _NODES, _NODES])
            nodes *= _within(spec.warp, draws["warp"])[:, None, None, None]
            rows, columns = _spline(height + 2 * border), _spline(width + 2 * border)
            shift = tf.einsum("hi,nkij,wj->nkhw", rows, nodes, columns)
            y, x = y + shift[:, 0], x + shift[:, 1]

        scale = _within(spec.scale, draws["scale"])
        angle = _within(spec.rotate, draws["rotate"]) * (math.pi / 180.0)
        cos, sin = tf.cos(angle), tf.sin(angle)
        canvas_height, canvas_width = self._bank.size(canvas)
        # The image's (anchor_y, anchor_x) lies on the canvas's (from_y, from_x).
        if spec.layout == "as-is":
            anchor_y, anchor_x = tf.fill(tf.shape(scale), height / 2), tf.fill(tf.shape(scale), width / 2)
            # Half the image's extent on the canvas. With a center between half_y and canvas_height - half_y (and so for
            # x), a larger canvas fills the image, and a smaller one lies inside it.
            half_y = (tf.abs(sin) * width + tf.abs(cos) * height) / (2 * scale)
            half_x = (tf.abs(cos) * width + tf.abs(sin) * height) / (2 * scale)
            from_y = half_y + self._place(draws["y"], canvas_height - 2 * half_y)
            from_x = half_x + self._place(draws["x"], canvas_width - 2 * half_x)
        elif spec.layout == "single":
            anchor_y, anchor_x = self._whole(draws["y"] * height), self._whole(draws["x"] * width)
            from_y, from_x = self._whole(canvas_height / 2), self._whole(canvas_width / 2)
        else:
            anchor_y, anchor_x = tf.zeros_like(scale), tf.zeros_like(scale)
            from_y, from_x = self._whole(draws["y"] * canvas_height), self._whole(draws["x"] * canvas_width)

        def on_canvas(value: tf.Tensor) -> tf.Tensor:
            return value[:, None, None]

        y, x = y - on_canvas(anchor_y), x - on_canvas(anchor_x)
        if spec.rotate != Range(0, 0):  # else rows and columns stay separate, which saves most of the arithmetic
            y, x = on_canvas(sin) * x + on_canvas(cos) * y, on_canvas(cos) * x - on_canvas(sin) * y
        y, x = on_canvas(from_y) + y / on_canvas(scale), on_canvas(from_x) + x / on_canvas(scale)
        if spec.layout == "tile":
            period_y = on_canvas(canvas_height + self._whole(draws["gap_y"] * _LARGEST_GAP * canvas_height))
            period_x = on_canvas(canvas_width + self._whole(draws["gap_x"] * _LARGEST_GAP * canvas_width))
            row = tf.floor(y / period_y)
            y -= row * period_y
            x += row * self._whole(on_canvas(draws["stagger"]) * period_x)
            x -= tf.floor(x / period_x) * period_x
        if self._whole_pixels:
            return self._bank.pixels(canvas, tf.cast(tf.floor(y), tf.int32), tf.cast(tf.floor(x), tf.int32))
        return self._bank.interpolated(canvas, y, x, scale)

    def _whole(self, value: tf.Tensor) -> tf.Tensor:
        """Rounds down if watermarks are placed on whole pixels."""
        return tf.floor(value) if self._whole_pixels else value

    def _place(self, draw: tf.Tensor, spare: tf.Tensor) -> tf.Tensor:
        """Returns a random offset between 0 and `spare`, which may be negative; whole if placing on whole pixels."""
        if not self._whole_pixels:
            return draw * spare
        # The product can round up to one past the last offset.
        return tf.sign(spare) * tf.minimum(tf.floor(draw * (tf.abs(spare) + 1.0)), tf.abs(spare))
