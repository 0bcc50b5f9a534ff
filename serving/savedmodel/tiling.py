"""Restores images of any size inside the graph: mirrored padding, and tiling above a size limit.

A network's input sides must be multiples of its stride, and its memory grows with the number of pixels. So the graph
pads the image at the bottom and right by mirroring, up to the next multiple, and processes a large image window by
window:

    |<------------------- side, padded to a multiple of the stride ------------------->|
    |<-------- window -------->|
    |        tile        | halo|
              | halo |      tile       | halo |
                               | halo |       tile (the last window ends at the edge)   |

Each window is as wide as a tile plus a halo on both sides. The halo is the distance from which pixels can influence
each other, so the part of a window that is kept equals the untiled result. The first window starts, and the last one
ends, at the image's own edge, where the network sees exactly what it would see untiled. All windows have the same
shape, and their starts, tiles and halos are multiples of the stride, so that strided layers fall on the same grid.
"""

from __future__ import annotations

import dataclasses
from typing import Callable

import tensorflow as tf

from training.data.reflection import mirrored_indices

# Default tile: 512 pixels, or 5 halos. A tile of 5 halos has windows of 7, whose halos cost about as much work as the
# tiles. Larger tiles would save little of that and need more memory, which grows with the window's area.
_DEFAULT_TILE, _DEFAULT_TILE_IN_HALOS = 512, 5


def _round_up(value: int | tf.Tensor, multiple: int) -> int | tf.Tensor:
    # Avoids dividing a negative number, which ONNX rounds in the other direction.
    return (value + multiple - 1) // multiple * multiple


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How images are cut for a network; all in pixels. `halo` and `tile` are multiples of `stride`."""

    stride: int
    halo: int
    tile: int
    max_untiled_pixels: int

    @classmethod
    def of_network(
        cls, stride: int, halo: int, tile: int | None = None, max_untiled_pixels: int | None = None
    ) -> Tiling:
        """Fills in defaults.

        Args:
          stride: the network's input sides must be multiples of this.
          halo: how far away, on each side, a pixel can influence an output pixel; rounded up to the stride.
          tile: side of the part that a window contributes. Default: 512, or five times the halo if larger.
          max_untiled_pixels: batches of up to this many pixels go through the network at once. Default: the pixels of
            one window, so that an untiled image takes no more memory than a tiled one.

        Raises:
          ValueError: a number is out of range.
        """
        if stride < 1 or halo < 0 or (tile is not None and tile < 1):
            raise ValueError(f"stride {stride}, halo {halo}, tile {tile}: stride and tile >= 1, halo >= 0")
        halo = _round_up(halo, stride)
        tile = _round_up(tile or max(_DEFAULT_TILE, _DEFAULT_TILE_IN_HALOS * halo), stride)
        if max_untiled_pixels is None:
            max_untiled_pixels = (tile + 2 * halo) ** 2
        return cls(stride, halo, tile, max_untiled_pixels)


class _Windows:
    """The windows along one axis of `size` pixels."""

    def __init__(self, size: tf.Tensor, tiling: Tiling) -> None:
        self._size, self._tiling = size, tiling
        self.padded = _round_up(size, tiling.stride)
        self.length = tf.minimum(self.padded, tiling.tile + 2 * tiling.halo)
        self.count = tf.maximum(-((2 * tiling.halo - self.padded) // tiling.tile), 1)

    def pixels(self, index: tf.Tensor) -> tf.Tensor:
        """Returns the indices of the source pixels that window `index` reads."""
        return mirrored_indices(self._start(index), self.length, self._size)

    def kept(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the start and end, inside window `index`, of the part that is kept."""
        tiling = self._tiling
        first = tf.where(index == 0, 0, index * tiling.tile + tiling.halo)
        last = tf.where(index == self.count - 1, self._size, (index + 1) * tiling.tile + tiling.halo)
        return first - self._start(index), last - self._start(index)

    def _start(self, index: tf.Tensor) -> tf.Tensor:
        return tf.minimum(index * self._tiling.tile, self.padded - self.length)


def _run(network: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    """Calls the network once: uint8 in, clipped and rounded uint8 out."""
    restored = tf.cast(network(tf.cast(images, tf.float32) / 255.0), tf.float32)
    return tf.cast(tf.round(tf.clip_by_value(restored, 0.0, 1.0) * 255.0), tf.uint8)


def _collect(count: tf.Tensor, element: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Concatenates `element(0)`, `element(1)`, … along axis 0, computing one at a time."""
    pieces = tf.TensorArray(tf.uint8, size=count, infer_shape=False, element_shape=[None, None, 3])
    _, pieces = tf.while_loop(
        lambda index, _: index < count,
        lambda index, pieces: (index + 1, pieces.write(index, element(index))),
        (0, pieces),
        parallel_iterations=1,  # holds the activations of only one window at a time
    )
    return pieces.concat()


def restore_untiled(network: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, stride: int) -> tf.Tensor:
    """Restores a batch of images of equal size in one piece; graph ops only.

    Args:
      network: maps float32 `[N, H, W, 3]` in 0..1, sides multiples of `stride`, to the same shape and range.
      images: uint8 `[N, H, W, 3]`, any H, W >= 1.
      stride: pixels; the network's input sides must be multiples of this.

    Returns:
      uint8, same shape as `images`.
    """
    shape = tf.shape(images)
    height, width = shape[1], shape[2]
    padded = tf.gather(images, mirrored_indices(0, _round_up(height, stride), height), axis=1)
    padded = tf.gather(padded, mirrored_indices(0, _round_up(width, stride), width), axis=2)
    return _run(network, padded)[:, :height, :width]


def restore_any_size(network: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, tiling: Tiling) -> tf.Tensor:
    """Restores a batch of images of equal size, tiled if large; graph ops only.

    Args:
      network: maps float32 `[N, H, W, 3]` in 0..1, sides multiples of the stride, to the same shape and range.
      images: uint8 `[N, H, W, 3]`, any H, W >= 1.
      tiling: the network's stride and halo, and the sizes of tiles and untiled batches.

    Returns:
      uint8, same shape as `images`; tiled and untiled results agree within one gray level.
    """
    shape = tf.shape(images)
    batch, height, width = shape[0], shape[1], shape[2]
    rows, columns = _Windows(height, tiling), _Windows(width, tiling)

    def strip(index: tf.Tensor) -> tf.Tensor:
        image, row = images[index // rows.count], index % rows.count
        pixels = tf.gather(image, rows.pixels(row), axis=0)
        top, bottom = rows.kept(row)

        def tile_transposed(column: tf.Tensor) -> tf.Tensor:  # columns first: `_collect` joins along axis 0
            window = tf.gather(pixels, columns.pixels(column), axis=1)
            left, right = columns.kept(column)
            return tf.transpose(_run(network, window[tf.newaxis])[0, top:bottom, left:right], [1, 0, 2])

        return tf.transpose(_collect(columns.count, tile_transposed), [1, 0, 2])

    def tiled() -> tf.Tensor:
        return tf.reshape(_collect(batch * rows.count, strip), shape)

    pixels = tf.reduce_prod(tf.cast([batch, rows.padded, columns.padded], tf.int64))
    restored = tf.cond(
        pixels <= tiling.max_untiled_pixels, lambda: restore_untiled(network, images, tiling.stride), tiled
    )
    return tf.ensure_shape(restored, [None, None, None, 3])
