"""Optimizers by name. Only LAMB comes from TensorFlow Addons, which is at its end of life and is used nowhere else.

Adam: Kingma & Ba, ICLR 2015. AdamW: Loshchilov & Hutter, ICLR 2019. LAMB, for large batches: You et al., ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import ml_collections
import tensorflow as tf

from common.command_line import UserError

_NAMES = ("adam", "adamw", "lamb")


class Optimizer:
    """One interface to Keras's optimizers and to those of Addons, which follow an older Keras interface.

    Attributes:
      keras: the wrapped optimizer, for checkpoints.
      scales_loss: whether the loss is scaled before its gradients are computed.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, variables: Sequence[tf.Variable], compute_dtype: str = "float32"
    ):
        """Creates the optimizer and its slots; call it in the strategy's scope.

        Args:
          config: a recipe; reads `optimizer`, `learning_rate` and `weight_decay`.
          variables: the variables to optimize.
          compute_dtype: the network's compute dtype. float16 has a narrow exponent range, in which small gradients
            vanish, so the loss is scaled up while they are computed (Micikevicius et al., ICLR 2018).

        Raises:
          UserError: unknown optimizer, or weight decay requested from an optimizer that has none.
        """
        name, decay = config.optimizer, config.weight_decay
        if name not in _NAMES:
            raise UserError(f"config.optimizer={name!r}: there is no such optimizer; there are {', '.join(_NAMES)}")
        if name == "adam" and decay:
            raise UserError("config.weight_decay: adam has none; take --config.optimizer=adamw, or lamb")
        self._variables = list(variables)
        self._is_older = name == "lamb"
        if name == "lamb":
            import tensorflow_addons  # slow to import, so imported only where it is used

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
        """Sets the learning rate of the following steps; call it outside replica context."""
        self._inner.learning_rate.assign(value)

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Scales the loss before its gradients are computed."""
        return self.keras.get_scaled_loss(loss) if self.scales_loss else loss

    def unscaled(self, gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """Divides the loss scale out of the gradients."""
        return self.keras.get_unscaled_gradients(gradients) if self.scales_loss else gradients

    def loss_scale(self) -> tf.Tensor:
        """Returns the factor that scales the loss, a float32 scalar; 1 unless the network computes in float16."""
        return self.keras.loss_scale if self.scales_loss else tf.ones([])

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Takes one step, in replica context, with gradients that are already summed over all replicas.

        If the loss is scaled and a gradient is not finite, the step is skipped and the scale halved.
        """
        pairs = zip(gradients, self._variables)
        if self._is_older:
            self.keras.apply_gradients(pairs, experimental_aggregate_gradients=False)
        else:
            self.keras.apply_gradients(pairs, skip_gradients_aggregation=True)
