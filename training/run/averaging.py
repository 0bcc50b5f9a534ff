"""An exponential moving average of the weights, which fluctuates less than the weights themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf


class WeightAverage:
    """Averages the weights over steps; `swapped` puts the average in their place.

    In the first steps the decay is at most `(1 + step) / (10 + step)`, so that the average soon forgets the initial
    weights.

    Attributes:
      averages: variables shaped like the weights, to be saved; empty if the decay is 0.
    """

    def __init__(self, weights: Sequence[tf.Variable], decay: float):
        """Starts from the current weights; call it in the strategy's scope.

        Args:
          weights: the variables to average.
          decay: decay per step, 0..1; 0 means no averaging.
        """
        self._weights = list(weights)
        self._decay = decay
        self.averages = [tf.Variable(weight, trainable=False, name="average") for weight in weights] if decay else []

    def update(self, step: tf.Tensor) -> None:
        """Moves the average one step toward the weights; call it in a graph, outside replica context."""
        if not self.averages:
            return
        step = tf.cast(step, tf.float32)
        share = 1.0 - tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        extended = tf.distribute.get_strategy().extended
        for average, weight in zip(self.averages, self._weights):
            extended.update(average, lambda a, w: a.assign_add(share * (w - a)), args=(weight,), group=True)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Replaces the weights by their average within the block."""
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
