"""Noise, in graph ops: Gaussian, Poisson and random-valued impulse noise (Lehtinen et al., ICML 2018, section 3).

A draw that decides between counts or pixels must give the same result compiled and not. So it compares whole numbers,
and the few parameters that these depend on are computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from training.corruption import random
from training.corruption import spec as spec_lib

_PARAMETERS, _FIELD = 0, 1  # streams of random numbers

_VECTOR = 64  # float32 numbers; a multiple of the vector length of any processor

# A Poisson mean is a whole number of 2**-13 photons, split into digits, lowest first. Each entry gives the bits of the
# digit, and the bits of a column index in its table. Counts without a column occur less than once in 1e11 draws.
_MEAN_BITS = 13
_DIGITS = ((10, 3), (9, 7), (8, 11))


class GaussianNoise:
    """Adds white Gaussian noise, independent for each pixel and channel."""

    def __init__(self, spec: spec_lib.Gaussian):
        self._stddev = spec.stddev

    def __call__(self, clean: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Adds noise to every image; see `training.corruption.build` for the contract."""
        stddev = tf.cast(_drawn(self._stddev, seeds), tf.float32) / 255.0
        noise = _normal(seeds, clean.shape[1:])
        return clean + stddev[:, None, None, None] * noise, tf.zeros_like(clean[..., :1])


class PoissonNoise:
    """Replaces each value x by a count of photons, `Poisson(x * peak) / peak`.

    A sum of Poisson numbers is a Poisson number, with the sum of their means as its mean. So the mean, as a binary
    number, is cut into three digits, and each digit's Poisson number is drawn from its own table by Walker's alias
    method (ACM TOMS 3:253, 1977). The tables hold probabilities to 2**-32, and the mean is rounded to 2**-13 photons,
    or to float32's precision where that is coarser. Apart from that, the distribution is exact for every peak.
    """

    def __init__(self, spec: spec_lib.Poisson):
        self._peak = spec.peak
        # Plus eight, for the rounding of a float32.
        largest = int(spec.peak.high * 2**_MEAN_BITS) + 8
        self._digits = []
        first_bit = 0
        for digit_bits, column_bits in _DIGITS:
            rows = min(2**digit_bits, (largest >> first_bit) + 1)
            means = np.arange(rows) * 2.0 ** (first_bit - _MEAN_BITS)
            if rows > 1:
                self._digits.append((first_bit, digit_bits, _AliasTables(means, column_bits)))
            first_bit += digit_bits

    def __call__(self, clean: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Counts photons in every image, after rounding its values to 8-bit levels."""
        peak = _drawn(self._peak, seeds)
        # A rounded product of two equal float32 numbers is the same on every device.
        unit = tf.cast(peak * (2**_MEAN_BITS / 255.0), tf.float32)
        level = tf.round(tf.clip_by_value(clean, 0.0, 1.0) * 255.0)
        mean = tf.cast(tf.round(level * unit[:, None, None, None]), tf.int32)

        words = tf.bitcast(_bits(seeds, [len(self._digits), *clean.shape[1:]]), tf.int32)
        count = tf.zeros_like(mean)
        for number, (first_bit, digit_bits, tables) in enumerate(self._digits):
            digit = tf.bitwise.bitwise_and(tf.bitwise.right_shift(mean, first_bit), 2**digit_bits - 1)
            count += tables.draw(digit, words[:, number])
        scale = tf.cast(1.0 / peak, tf.float32)
        return tf.cast(count, tf.float32) * scale[:, None, None, None], tf.zeros_like(clean[..., :1])


class ImpulseNoise:
    """Replaces pixels by colors drawn uniformly from the 256 levels of each channel."""

    def __init__(self, spec: spec_lib.Impulse):
        self._occupancy = spec.occupancy

    def __call__(self, clean: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Replaces each pixel of an image with the same probability; alpha is 1 where it was replaced."""
        # With 24 bits the threshold for 100 percent, 2**24, fits an int32.
        threshold = tf.cast(tf.round(_drawn(self._occupancy, seeds) * (2**24 / 100.0)), tf.int32)
        words = _bits(seeds, [*clean.shape[1:3], 2])
        ticket = tf.cast(tf.bitwise.right_shift(words[..., :1], tf.constant(8, tf.uint32)), tf.int32)
        replaced = ticket < threshold[:, None, None, None]
        color = tf.cast(tf.bitcast(words[..., 1], tf.uint8)[..., :3], tf.float32) / 255.0
        return tf.where(replaced, color, clean), tf.cast(replaced, tf.float32)


def _drawn(span: spec_lib.Range, seeds: tf.Tensor) -> tf.Tensor:
    """Draws one number from a range per image: float64 `[N]`."""
    draw = tf.cast(random.per_picture(seeds, 1, _PARAMETERS)[:, 0], tf.float64)
    return span.low + draw * (span.high - span.low)


def _bits(seeds: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Draws random bits for every image, from its own seed alone: uint32 `[N, *shape]`."""
    return tf.map_fn(lambda seed: random.bits(seed, shape, _FIELD), seeds, fn_output_signature=tf.uint32)


def _normal(seeds: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Draws standard normal numbers by Box and Muller's method (1958): float32 `[N, *shape]`, none beyond 5.9."""
    size = int(np.prod(shape))
    # Whole vectors, because TensorFlow computes the logarithm of a batch's remainder by another routine: the last bit
    # would depend on the other images of the batch.
    pairs = -(-size // (2 * _VECTOR)) * _VECTOR
    words = tf.bitwise.right_shift(_bits(seeds, [2, pairs]), tf.constant(8, tf.uint32))
    uniform = tf.cast(words, tf.float32) / 2**24
    # Shifted half a step above 0, so that the logarithm is finite.
    radius = tf.sqrt(-2.0 * tf.math.log(uniform[:, 0] + 2.0**-25))
    # Sine and cosine of half the angle by their series, to 1e-7, because XLA calls the C library for every tf.sin.
    half = (uniform[:, 1] - 0.5) * np.pi
    sine, cosine = (
        tf.math.polyval([(-1) ** k / math.factorial(2 * k + odd) for k in range(6, -1, -1)], half * half)
        for odd in (1, 0)
    )
    sine *= half
    numbers = tf.concat([2.0 * radius * sine * cosine, radius * (1.0 - 2.0 * sine * sine)], axis=1)
    return tf.reshape(numbers[:, :size], [-1, *shape])


class _AliasTables:
    """Walker's tables for Poisson numbers of several means, built in linear time as by Vose (IEEE TSE 17:972, 1991).

    A column is drawn uniformly; a second draw then takes either the column's own count or its alias, the count that
    shares the column. The column and the second draw are the low and high bits of one random word. An entry packs the
    alias and the threshold in the same way, so the smaller of word and entry holds the count in its low bits.
    """

    def __init__(self, means: np.ndarray, column_bits: int):
        """Builds the tables.

        Args:
          means: `[R]`, in photons, evenly spaced from 0.
          column_bits: each row tabulates `2**column_bits` counts around its mean.
        """
        self._columns = 2**column_bits
        self._spacing = int(means[1])
        self._shifted = means[-1] > self._columns // 2
        table = np.stack([self._row(mean, max(0, int(mean) - self._columns // 2)) for mean in means])
        # Words are compared as signed numbers.
        self._table = (table.ravel() ^ np.uint32(1 << 31)).view(np.int32)

    def _row(self, mean: float, first: int) -> np.ndarray:
        columns, steps = self._columns, 2**32 // self._columns
        counts = first + np.arange(columns)
        log_factorial = np.cumsum(np.log(np.maximum(1, np.arange(first + columns))))[first:]
        probability = np.exp(counts * np.log(max(mean, 1e-300)) - mean - log_factorial)
        share = (probability / probability.sum() * columns).tolist()
        alias = list(range(columns))
        poor = [k for k in range(columns) if share[k] < 1.0]
        rich = [k for k in range(columns) if share[k] >= 1.0]
        while poor and rich:
            taker, giver = poor.pop(), rich[-1]
            alias[taker] = giver
            share[giver] -= 1.0 - share[taker]
            if share[giver] < 1.0:
                poor.append(rich.pop())
        # Columns that rounding leaves over have a share of 1 and are their own alias.
        own, other = np.arange(columns, dtype=np.uint32), np.array(alias, np.uint32)
        # If the second draw equals the threshold, the low bits decide; a threshold one step lower compensates.
        threshold = np.clip(np.rint(np.array(share) * steps) - (own < other), 0, steps - 1).astype(np.uint32)
        return threshold * np.uint32(columns) + other

    def draw(self, row: tf.Tensor, word: tf.Tensor) -> tf.Tensor:
        """Draws a count for each pixel.

        Args:
          row: int32, index of the mean.
          word: int32, uniform random bits, shaped like `row`.

        Returns:
          int32, shaped like `row`.
        """
        low_bits = self._columns - 1
        entry = tf.gather(tf.constant(self._table), row * self._columns + tf.bitwise.bitwise_and(word, low_bits))
        count = tf.bitwise.bitwise_and(tf.minimum(word, entry), low_bits)
        if self._shifted:
            count += tf.maximum(row * self._spacing - self._columns // 2, 0)
        return count
