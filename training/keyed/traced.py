"""Functions that a graph holds once, however many places call them.

With everything inlined, the graph of keyed restoration would be several times as large; its loading time, first answer
and memory grow with its size.
"""

from __future__ import annotations

from typing import Any, Callable

import tensorflow as tf

BOOL, INTEGER, NUMBER = (tf.TensorSpec([], dtype) for dtype in (tf.bool, tf.int32, tf.float32))
NUMBERS = tf.TensorSpec([None], tf.float32)
SIZE = tf.TensorSpec([2], tf.int32)  # height and width
PIXELS = tf.TensorSpec([None, None, 3], tf.uint8)  # [H, W, 3]
PICTURE = tf.TensorSpec([None, None, 3], tf.float32)  # [H, W, 3] in 0..1
LAYER = tf.TensorSpec([None, None, 4], tf.float32)  # [H, W, 4], premultiplied
PLANE = tf.TensorSpec([None, None], tf.float32)  # [H, W]


def once(function: Callable[..., Any], *signature: Any) -> Callable[..., Any]:
    """Makes a graph function that is traced once, and optimized once where the graph runs.

    Args:
      function: graph ops.
      *signature: a `tf.TensorSpec` per argument, or a tuple of them.

    Returns:
      The function; it turns Python arguments into tensors.
    """
    traced = tf.function(
        function,
        input_signature=signature,
        autograph=False,  # autograph takes half the tracing time, and is not needed
        experimental_attributes={"_noinline": True},
    )

    def call(*arguments: Any) -> Any:
        if tf.executing_eagerly():
            return traced(*arguments)
        # TensorFlow would specialize the function for every call with a constant, and optimize each copy. So constants
        # are made to depend on a size that is known only when the graph runs.
        first = tf.convert_to_tensor(tf.nest.flatten(arguments)[0])
        of_any_size = tf.compat.v1.placeholder_with_default(first, [None] * first.shape.rank)
        zero = tf.minimum(tf.size(of_any_size), 0)

        def unknown(spec: tf.TensorSpec, value: Any) -> tf.Tensor:
            value = tf.convert_to_tensor(value, spec.dtype)
            if tf.get_static_value(value) is None:
                return value
            return value ^ (zero < 0) if spec.dtype == tf.bool else value + tf.cast(zero, spec.dtype)

        return traced(*tf.nest.map_structure(unknown, signature, arguments))

    return call
