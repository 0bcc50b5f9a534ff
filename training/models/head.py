"""The head of every blind network: turns features into the restored image and the logits of an overlay's presence.

The head predicts three things per pixel: whether an overlay is present, p in 0..1, a gain g and a bias b. The result is
`y = x + p (g (x - 1/2) + b)`. Undoing a blend `x = (1 - a) y + a c` has this form, with g and b depending only on the
overlay, not on the image beneath it. p keeps uncovered pixels as they were; it is taught directly, because in training
it is known where the overlay lies.
"""

from __future__ import annotations

import tensorflow as tf

REACH = 1  # samples on each side that the head reads
# Factor on gains and logits. Adam moves every output of the last layer equally fast, but opaque watermarks need gains
# of 2 to 10, and a decision needs logits of that size, whereas a bias needs tenths.
_SCALE = 4.0
_OUTPUTS, _NAME = 7, "head"  # a gain and a bias per channel, and the logit


def build_network(picture: tf.Tensor, features: tf.Tensor, fold: int, name: str) -> tf.keras.Model:
    """Adds the head to a network.

    Args:
      picture: the network's Keras input, float32 `[N, H, W, 3]` in 0..1.
      features: float32 `[N, H / fold, W / fold, C]`, computed from `picture`.
      fold: pixels per side that a sample of `features` stands for.
      name: the model's name.

    Returns:
      A model from `picture` to two outputs: the restored image, float32 `[N, H, W, 3]`, not clipped, and the logits of
      an overlay's presence, float32 `[N, H, W, 1]`. At initialization the first is the input.
    """
    # In float32 under any policy: half its bits are too few for 256 levels times a gain.
    conv = tf.keras.layers.Conv2D(
        _OUTPUTS * fold**2, 2 * REACH + 1, padding="same", kernel_initializer="zeros", dtype="float32", name=_NAME
    )
    x = conv(features)
    if fold > 1:
        x = tf.nn.depth_to_space(x, fold)
    gain, bias, logits = tf.split(x, [3, 3, 1], axis=-1)
    gain, logits = _SCALE * gain, _SCALE * logits
    # A margin at both ends: where the network is sure that there is no overlay, the result is the input to the bit.
    presence = tf.clip_by_value(1.2 * tf.sigmoid(logits) - 0.1, 0.0, 1.0)
    restored = picture + presence * (gain * (picture - 0.5) + bias)
    return tf.keras.Model(picture, [restored, logits], name=name)


def be_cautious(network: tf.keras.Model, caution: float) -> None:
    """Makes a network leave more pixels as they are, permanently.

    Args:
      network: a network with the head of `build_network`; its weights are changed.
      caution: how much the logits of an overlay's presence are lowered. At 0 nothing changes; at 2 the network must be
        about seven times as sure as before.
    """
    (bias,) = [weight for weight in network.get_layer(_NAME).weights if weight.shape.rank == 1]
    values = bias.numpy()
    values[_OUTPUTS - 1 :: _OUTPUTS] -= caution / _SCALE
    bias.assign(values)
