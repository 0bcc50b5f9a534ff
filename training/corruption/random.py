"""Random numbers that are the same whether compiled or not.

`tf.random.stateless_uniform` scrambles its seed differently inside and outside XLA, so the same seed gives other
numbers once a step is compiled (tensorflow#121243). Below that scrambling, both run the same Philox counter generator
(Salmon et al., SC 2011); the functions here pass it key and counter directly.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_PHILOX = 1  # TensorFlow's number for the algorithm
_FOLDED = 1 << 20  # streams from here on derive seeds; those below draw numbers


def bits(seed: tf.Tensor, shape: Sequence[int] | tf.Tensor, stream: int = 0) -> tf.Tensor:
    """Draws uniform random bits.

    Args:
      seed: int32 `[2]`.
      shape: the result's shape.
      stream: tells several draws from one seed apart.

    Returns:
      uint32 of the given shape.
    """
    low, high = tf.unstack(tf.cast(tf.bitcast(seed, tf.uint32), tf.uint64))
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=shape,
        key=tf.reshape(low | tf.bitwise.left_shift(high, tf.constant(32, tf.uint64)), [1]),
        counter=tf.constant([0, stream], tf.uint64),
        alg=_PHILOX,
        dtype=tf.uint32,
    )


def uniform(seed: tf.Tensor, shape: Sequence[int] | tf.Tensor, stream: int = 0) -> tf.Tensor:
    """Draws uniform float32 in 0 <= x < 1; takes the arguments of `bits`."""
    # A float32 holds 24 bits, so every value is exact, and 1 never occurs.
    return tf.cast(tf.bitwise.right_shift(bits(seed, shape, stream), tf.constant(8, tf.uint32)), tf.float32) / 2**24


def per_picture(seeds: tf.Tensor, count: int, stream: int = 0) -> tf.Tensor:
    """Draws a few uniform numbers for every image of a batch.

    Args:
      seeds: int32 `[N, 2]`.
      count: numbers per image.
      stream: tells several draws from one seed apart.

    Returns:
      float32 `[N, count]`, 0 <= x < 1; an image's numbers depend on its own seed alone.
    """
    return tf.map_fn(lambda seed: uniform(seed, [count], stream), seeds, fn_output_signature=tf.float32)


def fold(seeds: tf.Tensor, number: int) -> tf.Tensor:
    """Derives independent seeds, int32 `[N, 2]`, for the `number`th of several corruptions of the same images."""
    bits_ = tf.map_fn(lambda seed: bits(seed, [2], _FOLDED + number), seeds, fn_output_signature=tf.uint32)
    return tf.bitcast(bits_, tf.int32)
