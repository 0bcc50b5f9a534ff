"""Chooses a run's devices and precision, and whether XLA compiles it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from common.command_line import UserError


def split_cpu(count: int) -> None:
    """Splits the CPU into `count` logical devices, to try distribution without GPUs; call before TensorFlow starts."""
    if count < 1:
        raise UserError(f"--virtual_devices={count}: must be 1 or more")
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def mirrored_strategy() -> tf.distribute.MirroredStrategy:
    """Returns a MirroredStrategy over all GPUs, or over the CPU's logical devices if there is no GPU."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = [device.name for device in devices]
    # Between GPUs the default is NCCL; logical CPU devices support only the plain reduction.
    reduction = tf.distribute.ReductionToOneDevice() if devices[0].device_type == "CPU" else None
    return tf.distribute.MirroredStrategy(names, cross_device_ops=reduction)


def use_jit(mode: str) -> bool:
    """Returns whether XLA compiles the step. `mode` is `on`, `off`, or `auto`: only if there is a GPU.

    On CPUs, XLA's convolutions are 3 to 6 times slower than oneDNN's.
    """
    return bool(tf.config.list_physical_devices("GPU")) if mode == "auto" else mode == "on"


def cpu_has_bfloat16() -> bool:
    """Returns whether the CPU computes bfloat16 in hardware (AVX512-BF16 or AMX), according to /proc/cpuinfo."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def _gpus_have_bfloat16() -> bool:
    """Returns whether every GPU computes bfloat16 in hardware: compute capability 8.0 (Ampere) or newer."""
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return all(gpu.get("compute_capability", (0, 0)) >= (8, 0) for gpu in details)


@dataclasses.dataclass(frozen=True)
class Precision:
    """The precision that a run's network computes in; weights, losses and updates are always float32.

    Attributes:
      name: `float32`, `bfloat16` or `float16`.
      compute_dtype: compute dtype of the layers, for `models.build`.
      is_rewritten: whether oneDNN's CPU operations are rewritten to bfloat16, while the layers stay float32.
      is_asked: whether the user asked for this precision by name.
    """

    name: str = "float32"
    compute_dtype: str = "float32"
    is_rewritten: bool = False
    is_asked: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether everything is computed in float32."""
        return self.name == "float32"


FLOAT32 = Precision()


def choose_precision(mode: str) -> Precision:
    """Chooses the network's precision; `precision.prove` checks whether it can be trusted.

    Args:
      mode: `float32`, `bfloat16`, `float16` (with loss scaling), or `auto`: bfloat16 if the GPUs (or without GPUs, the
        CPU) support it in hardware, else float32.
    """
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    is_asked = mode != "auto"
    if not is_asked:
        mode = "bfloat16" if (_gpus_have_bfloat16() if on_gpu else cpu_has_bfloat16()) else "float32"
    is_rewritten = mode == "bfloat16" and not on_gpu
    return Precision(mode, "float32" if is_rewritten else mode, is_rewritten, is_asked)


@contextlib.contextmanager
def rewriting(is_on: bool) -> Iterator[None]:
    """Turns the rewriting of oneDNN operations to bfloat16 on or off for graphs called within the block."""
    option = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options().get(option, False)
    tf.config.optimizer.set_experimental_options({option: is_on})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})


def strategy(name: str) -> tf.distribute.Strategy:
    """Returns a strategy by name: `one_device`, `mirrored`, or `auto`, which mirrors if there are several devices."""
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if name == "mirrored" or (name == "auto" and len(devices) > 1):
        return mirrored_strategy()
    return tf.distribute.OneDeviceStrategy(devices[0].name)


def be_deterministic(seed: int) -> None:
    """Makes every operation reproducible to the bit, at some cost in speed."""
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
