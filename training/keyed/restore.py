"""A picture under a known canvas, restored: located, fitted, inverted.

    restore = KeyedRestorer(rgba)
    restore(pictures)["restored"]

Where the canvas is not found, the picture comes back untouched, and so does every pixel that it leaves uncovered.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from training.keyed import canvas_features, locate
from training.keyed.blend import invert
from training.keyed.fit import fit
from training.keyed.placement import Placement, at_corner, over_picture
from training.keyed.refine import refine, window

# Highest scores of pictures without the canvas are about 10, seldom 20.
FOUND = 25.0
_LEVELS = (1, 2, 4)
# Points of an FFT, above which the search goes on at half the resolution.
_LARGEST_FFT = 1_800_000
_FIT_WINDOW = 640  # pixels a side
_STRIP = 512  # rows
# A little above the 0.02 from which a pixel counts as covered: the opacity is not known to the last digit, and pixels
# that count as uncovered are left alone.
_COVERED = 0.0205


class KeyedRestorer:
    """Restores pictures that carry one canvas."""

    def __init__(self, rgba: np.ndarray):
        """Computes what the search needs of the canvas.

        Args:
          rgba: the canvas, uint8 `[h, w, 4]`, not transparent everywhere.
        """
        layer = canvas_features.premultiplied(rgba)
        self._layer = tf.constant(layer)
        self._features = [canvas_features.canvas_features(canvas_features.shrunk(layer, level)) for level in _LEVELS]

    def _coarse(self, picture: tf.Tensor) -> Placement:
        size = tf.shape(picture)[:2]
        points = tf.reduce_prod(tf.cast(size + self._layer.shape[:2], tf.float32))

        def at(level: int, features: canvas_features.CanvasFeatures) -> tf.Tensor:
            shrunk = tf.nn.avg_pool2d(picture[None], level, level, "VALID")[0] if level > 1 else picture
            scores = locate.score_map(locate.picture_fields(shrunk, level), features)
            return locate.best_offset(scores, tf.shape(shrunk)[:2])[1] * level

        is_too_large = [points / level**2 > _LARGEST_FFT for level in _LEVELS[:-1]]
        branches = [lambda level=level, of=of: at(level, of) for level, of in zip(_LEVELS, self._features)]
        return at_corner(tf.switch_case(tf.reduce_sum(tf.cast(is_too_large, tf.int32)), branches))

    def _fit(self, picture: tf.Tensor, placement: Placement) -> tf.Tensor:
        """Opacity in a window: it has enough edges, and a large picture's whole would take too much memory."""
        corner, size = window(placement, tuple(self._layer.shape[:2]), tf.shape(picture)[:2], _FIT_WINDOW)
        seen = tf.slice(picture, tf.concat([corner, [0]], 0), tf.concat([size, [3]], 0))
        return fit(seen, over_picture(self._layer, placement.seen_from(corner), size))

    def _inverted(self, pixels: tf.Tensor, placement: Placement, opacity: tf.Tensor) -> tf.Tensor:
        """Inverts the blend in strips, so that memory does not grow with the picture."""
        height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]

        def strip(index: tf.Tensor) -> tf.Tensor:
            top = index * _STRIP
            part = pixels[top : top + _STRIP]
            layer = over_picture(self._layer, placement.seen_from(tf.stack([top, 0])), tf.shape(part)[:2])
            inverted = invert(tf.cast(part, tf.float32) / 255.0, layer, opacity)
            restored = tf.cast(tf.round(tf.clip_by_value(inverted, 0.0, 1.0) * 255.0), tf.uint8)
            return tf.where(opacity * layer[..., 3:] > _COVERED, restored, part)

        count = -(-height // _STRIP)
        strips = tf.TensorArray(tf.uint8, size=count, infer_shape=False, element_shape=[None, None, 3])
        _, strips = tf.while_loop(
            lambda index, _: index < count,
            lambda index, strips: (index + 1, strips.write(index, strip(index))),
            (0, strips),
            parallel_iterations=1,
        )
        return tf.reshape(strips.concat(), [height, width, 3])

    def _restore_one(self, pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        picture = tf.cast(pixels, tf.float32) / 255.0
        placement, score = refine(picture, self._layer, self._coarse(picture), rigid=True)
        transform = tf.stack([*tf.unstack(placement.corner), placement.scale, placement.rotation])

        def restored() -> tuple[tf.Tensor, tf.Tensor]:
            opacity = self._fit(picture, placement)
            return self._inverted(pixels, placement, opacity), opacity

        inverted, opacity = tf.cond(score >= FOUND, restored, lambda: (pixels, tf.zeros([])))
        return inverted, score, transform, opacity

    def __call__(self, pictures: tf.Tensor) -> dict[str, tf.Tensor]:
        """Restores pictures.

        Args:
          pictures: uint8 `[N, H, W, 3]`.

        Returns:
          restored: like `pictures`.
          score: float32 `[N]`, how sure it is that the canvas is there.
          transform: float32 `[N, 4]`, (dy, dx, scale, rotation in radians) of the canvas.
          opacity: float32 `[N]`, 0 where the canvas was not found.
        """
        one, number = tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.float32)
        signature = (one, number, tf.TensorSpec([4], tf.float32), number)
        mapped = tf.map_fn(self._restore_one, pictures, fn_output_signature=signature, parallel_iterations=1)
        return dict(zip(("restored", "score", "transform", "opacity"), mapped))
