"""Which devices a run computes on, in which precision, and whether XLA compiles it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from common.command_line import UserError


def split_cpu(count: int) -> None:
    """Splits the CPU into `count` logical devices, to try distribution without GPUs; before TensorFlow starts."""
    if count < 1:
        raise UserError(f"--virtual_devices={count}: must be 1 or more")
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def mirrored_strategy() -> tf.distribute.MirroredStrategy:
    """MirroredStrategy over all GPUs, or over the CPU's logical devices where there is none."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = [device.name for device in devices]
    # NCCL is the default between GPUs; logical CPU devices only have the plain reduction.
    reduction = tf.distribute.ReductionToOneDevice() if devices[0].device_type == "CPU" else None
    return tf.distribute.MirroredStrategy(names, cross_device_ops=reduction)


def use_jit(mode: str) -> bool:
    """Whether XLA compiles the step: `on`, `off`, or `auto`, which is where there is a GPU.

    On CPUs XLA's convolutions are 3 to 6 times slower than oneDNN's.
    """
    return bool(tf.config.list_physical_devices("GPU")) if mode == "auto" else mode == "on"


def cpu_has_bfloat16() -> bool:
    """Whether the processor computes bfloat16 in hardware (AVX512-BF16 or AMX), by Linux's list of its features."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def _gpus_have_bfloat16() -> bool:
    """Whether every GPU computes bfloat16 in hardware: compute capability 8.0, Ampere, or newer."""
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return all(gpu.get("compute_capability", (0, 0)) >= (8, 0) for gpu in details)


@dataclasses.dataclass(frozen=True)
class Precision:
    """What a run's network computes in; weights, losses and updates are float32 in any case.

    Attributes:
      name: `float32`, `bfloat16` or `float16`.
      compute_dtype: of the layers, for `models.build`.
      is_rewritten: whether oneDNN rewrites its operations on CPUs to bfloat16, which leaves layers float32.
      is_asked: whether the user named it.
    """

    name: str = "float32"
    compute_dtype: str = "float32"
    is_rewritten: bool = False
    is_asked: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether it is float32 throughout."""
        return self.name == "float32"


FLOAT32 = Precision()


def choose_precision(mode: str) -> Precision:
    """Chooses what the network computes in; `precision.prove` says whether that can be trusted.

    Args:
      mode: `float32`, `bfloat16`, `float16` (with loss scaling), or `auto`: bfloat16 where the GPUs, or else the CPU,
        have it in hardware.
    """
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    is_asked = mode != "auto"
    if not is_asked:
        mode = "bfloat16" if (_gpus_have_bfloat16() if on_gpu else cpu_has_bfloat16()) else "float32"
    is_rewritten = mode == "bfloat16" and not on_gpu
    return Precision(mode, "float32" if is_rewritten else mode, is_rewritten, is_asked)


@contextlib.contextmanager
def rewriting(is_on: bool) -> Iterator[None]:
    """Within the block, oneDNN's operations in graphs that are called are rewritten to bfloat16, or are not."""
    option = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options().get(option, False)
    tf.config.optimizer.set_experimental_options({option: is_on})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})


def strategy(name: str) -> tf.distribute.Strategy:
    """The strategy by its name: `one_device`, `mirrored`, or `auto`, which mirrors where there are several devices."""
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if name == "mirrored" or (name == "auto" and len(devices) > 1):
        return mirrored_strategy()
    return tf.distribute.OneDeviceStrategy(devices[0].name)


def be_deterministic(seed: int) -> None:
    """Has every operation give the same result to the bit each time, at some cost in speed."""
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
