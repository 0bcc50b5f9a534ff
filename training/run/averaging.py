"""An exponential moving average of the weights, which wavers less than the weights themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf


class WeightAverage:
    """Follows weights; `swapped` puts the average in their place.

    Attributes:
      averages: variables like the weights, to be saved; none where the decay is 0.

    In the first steps the average forgets faster, so that the initial weights do not linger in it: its decay is at most
    `(1 + step) / (10 + step)`.
    """

    def __init__(self, weights: Sequence[tf.Variable], decay: float):
        """Starts at the weights' present values, under a strategy's scope.

        Args:
          weights: to be followed.
          decay: 0..1 a step; 0 follows at once, which is the weights themselves.
        """
        self._weights = list(weights)
        self._decay = decay
        self.averages = [tf.Variable(weight, trainable=False, name="average") for weight in weights] if decay else []

    def update(self, step: tf.Tensor) -> None:
        """Takes a step towards the weights, outside of replicas, within a graph."""
        if not self.averages:
            return
        step = tf.cast(step, tf.float32)
        share = 1.0 - tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        extended = tf.distribute.get_strategy().extended
        for average, weight in zip(self.averages, self._weights):
            extended.update(average, lambda a, w: a.assign_add(share * (w - a)), args=(weight,), group=True)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Within the block the weights are the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for average, weight in zip(self.averages, self._weights):
            value = weight.numpy()
            weight.assign(average.numpy())
            average.assign(value)
