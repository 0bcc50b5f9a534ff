"""Random numbers are uniform, independent of compilation, and different for different seeds."""

import numpy as np
import tensorflow as tf

from training.corruption import random


def _draw(seed, shape, stream=0, jit=False):
    return tf.function(lambda s: random.uniform(s, shape, stream), jit_compile=jit)(tf.constant(seed)).numpy()


def test_xla_draws_the_same_numbers_to_the_bit():
    np.testing.assert_array_equal(_draw([5, -7], [1000]), _draw([5, -7], [1000], jit=True))


def test_numbers_are_uniform_and_below_one():
    numbers = _draw([1, 2], [200_000])
    assert 0.0 <= numbers.min() and numbers.max() < 1.0
    counts, _ = np.histogram(numbers, 20, (0, 1))
    # Chi-squared with 19 degrees of freedom: 43.8 is its 99.9 % quantile.
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 43.8


def test_seeds_and_streams_are_told_apart():
    draws = {_draw([a, b], [4], stream).tobytes() for a in range(-2, 3) for b in range(-2, 3) for stream in range(2)}
    assert len(draws) == 50
