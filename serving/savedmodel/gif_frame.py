"""Cuts a GIF down to its first frame, inside the graph: decoders decode all frames before they return one.

A 400 kB GIF can hold 20 frames of 25 million pixels each, and a frame can claim to be larger than the GIF's screen. So
everything after the first frame is cut off before decoding, and that frame's own size is read. Format:
https://www.w3.org/Graphics/GIF/spec-gif89a.txt.
"""

from __future__ import annotations

import tensorflow as tf

_HEADER = 13  # bytes: signature and logical screen descriptor
_EXTENSION, _IMAGE = 0x21, 0x2C
_TRAILER = b";"


def first_frame(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts a GIF off after its first frame.

    Args:
      data: scalar string, at least 14 bytes, starting with `GIF8`.

    Returns:
      The shortened GIF, and the frame's (width, height), int32 `[2]`, zeros if there is no frame. If `data` ends inside
      the frame, the shortened GIF is invalid and decoders reject it.
    """
    raw = tf.io.decode_raw(data, tf.uint8)
    last = tf.size(raw) - 1

    def byte(at: tf.Tensor) -> tf.Tensor:
        return tf.cast(raw[tf.minimum(at, last)], tf.int32)

    def after_table(flags: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        """Returns the position after the color table, or `at` if the flags say that there is none."""
        return at + tf.where(flags >= 0x80, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

    def after_blocks(at: tf.Tensor) -> tf.Tensor:
        """Returns the position after a chain of data blocks; each begins with its length, and the last is empty."""
        at = tf.while_loop(
            lambda at: (at <= last) & (byte(at) > 0), lambda at: (at + 1 + byte(at),), (at,), parallel_iterations=1
        )[0]
        return at + 1

    at = tf.while_loop(
        lambda at: (at <= last) & tf.equal(byte(at), _EXTENSION),
        lambda at: (after_blocks(at + 2),),
        (after_table(byte(tf.constant(10)), tf.constant(_HEADER)),),
        parallel_iterations=1,
    )[0]

    def frame() -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.stack([byte(at + 5) + 256 * byte(at + 6), byte(at + 7) + 256 * byte(at + 8)])
        return after_blocks(after_table(byte(at + 9), at + 10) + 1), size

    is_there = (at <= last) & tf.equal(byte(at), _IMAGE)
    end, size = tf.cond(is_there, frame, lambda: (at, tf.zeros([2], tf.int32)))
    return tf.strings.substr(data, 0, tf.minimum(end, last + 1)) + _TRAILER, size
