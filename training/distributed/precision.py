"""Checks that a fast number format computes this run's network correctly on this processor, before it is used.

On processors with AMX, oneDNN's bfloat16 kernel for one convolution was found to be off by 67 to 145 percent, while
those of its neighbors were correct. The weights adapt to such an error, and validation in the same format shares it. So
before the first step every layer is computed in both formats from the same inputs: its outputs, and the gradients of
its input and its kernel. Some fused kernels appear only in the whole network, so that is compared too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging

from common.command_line import UserError
from training import models
from training.data.input_pipeline import training_batches
from training.data.pairs import make_pairs, make_seeds
from training.distributed import devices
from training.distributed.devices import FLOAT32, Precision
from training.distributed.workers import Team

# The tolerances are relative errors in the Euclidean norm. Rounding to bfloat16 gives 0.003; wrong kernels gave 0.2 to
# 1.45.
_LAYER_TOLERANCE = 0.05
# For layers without a kernel, such as normalization, which subtract almost equal numbers (0.035 was observed), and for
# the outputs of the whole network, which pass through about thirty layers.
_OTHER_TOLERANCE = 0.2
# For the gradient of a bias, a single sum over all pixels, in which rounding errors add up.
_SUM_TOLERANCE = 0.5
_WHOLE = "the whole network"


@dataclasses.dataclass(frozen=True)
class Fault:
    """A result that is off by more than rounding explains.

    Attributes:
      what: the layer and result, such as `conv2d_3 (Conv2D 48 -> 72, kernel 3x3): outputs`.
      error: error relative to the float32 result.
    """

    what: str
    error: float


def processor_name() -> str:
    """Returns the name of the GPU, or without a GPU, that of the CPU."""
    for gpu in tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "this processor")


def _described(layer: tf.keras.layers.Layer) -> str:
    shape = next((tuple(weight.shape) for weight in layer.weights if weight.shape.rank == 4), None)
    kernel = f" {shape[2]} -> {shape[3]}, kernel {shape[0]}x{shape[1]}" if shape else ""
    return f"{layer.name} ({type(layer).__name__}{kernel})"


def _weighted_layers(network: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    return [layer for layer in network.layers if layer.trainable_weights]


def _draw_zero_kernels(network: tf.keras.Model) -> None:
    """Gives random weights to layers that start at zero, whose outputs would otherwise reveal nothing."""
    for number, weight in enumerate(network.trainable_variables):
        if weight.shape.rank > 1 and not np.any(weight.numpy()):
            fan_in = float(np.prod(weight.shape[:-1]))
            weight.assign(tf.random.stateless_normal(weight.shape, [number, 0]) * (2.0 / fan_in) ** 0.5)


def _relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    size = float(np.linalg.norm(expected.astype(np.float64)))
    difference = float(np.linalg.norm(found.astype(np.float64) - expected))
    if not np.isfinite(difference):
        return float("inf")
    return difference / size if size else difference


def _layer_results(
    layers: Sequence[tf.keras.layers.Layer], inputs: Sequence[tf.Tensor]
) -> list[tuple[tf.Tensor, list[tf.Tensor]]]:
    """Returns, for each layer, its outputs and the gradients of its input and weights, all float32."""
    results = []
    for number, (layer, x) in enumerate(zip(layers, inputs)):
        outputs = tf.cast(layer(x), tf.float32)
        # Gradients without the activation: for a sum close to zero, rounding decides on which side of a kink it falls.
        activation = getattr(layer, "activation", None)
        if activation is not None:
            layer.activation = tf.keras.activations.linear
        try:
            with tf.GradientTape() as tape:
                tape.watch(x)
                sums = tf.cast(layer(x), tf.float32)
                total = tf.reduce_sum(sums * tf.random.stateless_normal(tf.shape(sums), [number, 1]))
            gradients = tape.gradient(total, [x, *layer.trainable_weights])
        finally:
            if activation is not None:
                layer.activation = activation
        results.append((outputs, [tf.cast(gradient, tf.float32) for gradient in gradients]))
    return results


def find_faults(
    fast: models.RestorationModel,
    slow: models.RestorationModel,
    source: tf.Tensor,
    precision: Precision,
    jit_compile: bool = False,
) -> tuple[list[Fault], float]:
    """Compares a network in a fast format with the same network in float32.

    Args:
      fast: the network computing in `precision.compute_dtype`; its weights are overwritten with those of `slow`.
      slow: the network in float32; its all-zero layers are overwritten with random weights.
      source: a batch, float32 `[N, H, W, C]` in 0..1.
      precision: the precision of `fast`.
      jit_compile: whether XLA compiles both.

    Returns:
      The faults, layers before the whole network and the worst first; and the largest relative error of any layer with
      a kernel.
    """
    _draw_zero_kernels(slow.taught)
    fast.taught.set_weights(slow.taught.get_weights())
    slow_layers, fast_layers = _weighted_layers(slow.taught), _weighted_layers(fast.taught)
    inside = tf.keras.Model(slow.taught.input, [layer.input for layer in slow_layers])

    compiled = functools.partial(tf.function, jit_compile=jit_compile)
    with devices.rewriting(False):
        inputs = compiled(inside)(source)
        expected = compiled(_layer_results)(slow_layers, inputs)
        expected_whole = compiled(slow.taught)(source)
    with devices.rewriting(precision.is_rewritten):
        found = compiled(_layer_results)(fast_layers, inputs)
        found_whole = compiled(fast.taught)(source)

    faults, largest = [], 0.0

    def compare(what: str, found: tf.Tensor, expected: tf.Tensor, tolerance: float) -> float:
        error = _relative_error(tf.cast(found, tf.float32).numpy(), expected.numpy())
        if error > tolerance:
            faults.append(Fault(what, error))
        return error

    for layer, (outputs, gradients), (true_outputs, true_gradients) in zip(slow_layers, found, expected):
        name, has_kernel = _described(layer), any(weight.shape.rank > 1 for weight in layer.trainable_weights)
        tolerance = _LAYER_TOLERANCE if has_kernel else _OTHER_TOLERANCE
        errors = [
            compare(f"{name}: outputs", outputs, true_outputs, tolerance),
            compare(f"{name}: gradient of its input", gradients[0], true_gradients[0], tolerance),
        ]
        for weight, gradient, true in zip(layer.trainable_weights, gradients[1:], true_gradients[1:]):
            what = f"{name}: gradient of its {weight.name.split('/')[-1].split(':')[0]}"
            if weight.shape.rank > 1:
                errors.append(compare(what, gradient, true, tolerance))
            else:
                compare(what, gradient, true, _SUM_TOLERANCE)
        largest = max(largest, *errors) if has_kernel else largest
    for what, one, true in zip(("restored image", "presence logits"), found_whole, expected_whole):
        compare(f"{_WHOLE}: {what}", one, true, _OTHER_TOLERANCE)
    return sorted(faults, key=lambda fault: (fault.what.startswith(_WHOLE), -fault.error)), largest


def prove(
    config: ml_collections.ConfigDict, precision: Precision, team: Team, replicas: int, jit_compile: bool
) -> Precision:
    """Compares the run's network in a fast format with float32, on the run's first batch.

    Args:
      config: a recipe.
      precision: the requested precision.
      team: the run's workers, who decide together.
      replicas: number of replicas that a batch is spread over.
      jit_compile: whether XLA compiles the step.

    Returns:
      `precision`, or float32 if it computes wrongly, with a logged warning.

    Raises:
      UserError: it computes wrongly, and the user asked for it by name.
    """
    faults, largest = [], 0.0
    if not precision.is_exact:
        images = next(iter(training_batches(config, 0, team.index, team.size)))
        rows = max(1, config.batch_size // replicas)
        seeds = [table[:rows] for table in make_seeds(config)(tf.constant(0, tf.int64))]
        source = make_pairs(config)(images[:rows], *seeds).source
        fast, slow = models.build(config, precision.compute_dtype), models.build(config)
        faults, largest = find_faults(fast, slow, source, precision, jit_compile)
    # Workers on other processors may have other faults, but all must take the same steps.
    _, float32_is_wanted = team.agree(0.0, precision.is_exact or bool(faults))
    if precision.is_exact:
        return precision
    processor = processor_name()
    if not float32_is_wanted:
        effect = f"within {largest:.1g} of float32 in every layer" if largest else "which changes nothing"
        logging.info("--precision: %s, %s on %s.", precision.name, effect, processor)
        return precision
    said = "another worker computes in float32"
    if faults:
        said = f"{faults[0].what} is off by {faults[0].error:.2g} of float32's result on {processor}"
    if precision.is_asked:
        raise UserError(f"--precision={precision.name}: {said}; train with --precision=float32")
    logging.warning("--precision=auto: in %s %s; this run computes in float32", precision.name, said)
    return FLOAT32
