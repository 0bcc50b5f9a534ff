"""Optimizers by name. TensorFlow Addons, at its end of life, is called here and nowhere else: only LAMB comes from it.

Adam: Kingma & Ba, ICLR 2015. AdamW: Loshchilov & Hutter, ICLR 2019. LAMB, for large batches: You et al., ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import ml_collections
import tensorflow as tf

from common.command_line import UserError

_NAMES = ("adam", "adamw", "lamb")


class Optimizer:
    """One interface for Keras's optimizers and for Addons', which follow Keras's older one.

    Attributes:
      keras: the optimizer, for checkpoints.
      scales_loss: whether the loss is scaled while its gradients are computed.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, variables: Sequence[tf.Variable], compute_dtype: str = "float32"
    ):
        """Makes the optimizer and its slots, under a strategy's scope.

        Args:
          config: a recipe; `optimizer`, `learning_rate` and `weight_decay` are read.
          variables: what will be optimized.
          compute_dtype: what the network computes in. float16 has few exponents: small gradients vanish in it, and
            the loss is scaled up while they are computed (Micikevicius et al., ICLR 2018).

        Raises:
          UserError: there is no such optimizer, or one that knows no weight decay is asked for some.
        """
        name, decay = config.optimizer, config.weight_decay
        if name not in _NAMES:
            raise UserError(f"config.optimizer={name!r}: there is no such optimizer; there are {', '.join(_NAMES)}")
        if name == "adam" and decay:
            raise UserError("config.weight_decay: adam has none; take --config.optimizer=adamw, or lamb")
        self._variables = list(variables)
        self._is_older = name == "lamb"
        if name == "lamb":
            import tensorflow_addons  # slow to import, hence only where it is used

            self.keras = tensorflow_addons.optimizers.LAMB(config.learning_rate, weight_decay=decay)
            self.keras._create_all_weights(self._variables)
        else:
            arguments = {"weight_decay": decay} if name == "adamw" else {}
            self.keras = {"adam": tf.keras.optimizers.Adam, "adamw": tf.keras.optimizers.AdamW}[name](
                config.learning_rate, **arguments
            )
            self.keras.build(self._variables)
        self._inner = self.keras
        self.scales_loss = compute_dtype == "float16"
        if self.scales_loss:
            self.keras = tf.keras.mixed_precision.LossScaleOptimizer(self.keras)

    def set_learning_rate(self, value: tf.Tensor) -> None:
        """Sets the learning rate of the steps that follow; outside of replicas."""
        self._inner.learning_rate.assign(value)

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Scales the loss whose gradients are computed."""
        return self.keras.get_scaled_loss(loss) if self.scales_loss else loss

    def unscaled(self, gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """Takes the loss's scale out of its gradients."""
        return self.keras.get_unscaled_gradients(gradients) if self.scales_loss else gradients

    def loss_scale(self) -> tf.Tensor:
        """What the loss is scaled by, a float32 scalar; 1 unless the network computes in float16."""
        return self.keras.loss_scale if self.scales_loss else tf.ones([])

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Makes a step, within a replica, with gradients that are summed over all of them already.

        Where the loss is scaled and a gradient is not finite, the step is left out, and the scale halved.
        """
        pairs = zip(gradients, self._variables)
        if self._is_older:
            self.keras.apply_gradients(pairs, experimental_aggregate_gradients=False)
        else:
            self.keras.apply_gradients(pairs, skip_gradients_aggregation=True)
