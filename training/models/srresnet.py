"""SRResNet at the image's resolution, as large and deep as the older noise2noise scripts' default.

This is the network of Ledig et al. (*Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
Network*, CVPR 2017) without its upsampling, and with 3x3 convolutions at both ends: 16 residual blocks of 64 features
and one skip over all of them. Two things differ:

- There is no batch normalization, as in EDSR (Lim et al., CVPRW 2017), which found that it costs features their range
  flexibility, and memory, without a benefit. Here it would also make an image's result depend on the others in its
  batch, and so on the number of replicas. Each block's last convolution starts at zero instead, so that depth costs
  nothing at the start.
- It ends in the head of `head.py` rather than in the image itself, so that it starts as the identity.

All of it runs at full resolution, which is expensive: it is here for comparison, not for use.
"""

from __future__ import annotations

import tensorflow as tf

from training.models import head

FEATURES, BLOCKS = (64,), (16,)
STRIDE = 1


def halo(blocks: int) -> int:
    """Returns how many pixels on each side of an output pixel can influence it: one per 3x3 convolution."""
    return 1 + 2 * blocks + 1 + head.REACH


def _conv(x: tf.Tensor, features: int, kernel_initializer: str = "he_normal") -> tf.Tensor:
    return tf.keras.layers.Conv2D(features, 3, padding="same", kernel_initializer=kernel_initializer)(x)


def _prelu(x: tf.Tensor) -> tf.Tensor:
    return tf.keras.layers.PReLU(shared_axes=[1, 2])(x)  # one slope per channel, whatever the image's size


def srresnet(features: int = FEATURES[0], blocks: int = BLOCKS[0]) -> tf.keras.Model:
    """Builds the network.

    Args:
      features: channels throughout.
      blocks: residual blocks.

    Returns:
      A model from float32 `[N, H, W, 3]` in 0..1, any H and W, to the outputs of `head.build_network`.
    """
    picture = tf.keras.layers.Input((None, None, 3))
    first = _prelu(_conv(picture - 0.5, features))
    x = first
    for _ in range(blocks):
        x = x + _conv(_prelu(_conv(x, features)), features, "zeros")
    x = first + _conv(x, features)
    return head.build_network(picture, x, 1, "srresnet")
