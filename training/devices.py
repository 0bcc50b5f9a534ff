"""Which devices a run computes on, in which precision, and whether XLA compiles it."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from absl import logging

from configs.command_line import UserError


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


def use_precision(mode: str) -> str:
    """Chooses what the network computes in; weights, losses and updates are float32 in any case.

    Args:
      mode: `float32`, `bfloat16`, `float16` (with loss scaling), or `auto`: bfloat16 where the GPUs, or else the CPU,
        have it in hardware. On CPUs oneDNN rewrites its own operations to bfloat16, for the whole process.

    Returns:
      The dtype for `models.build`; that of layers, which oneDNN's rewriting leaves float32.
    """
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    if mode == "auto":
        mode = "bfloat16" if (_gpus_have_bfloat16() if on_gpu else cpu_has_bfloat16()) else "float32"
    if mode != "float32":
        logging.info("The network runs in %s, weights stay float32 (--precision=float32 turns it off).", mode)
    if mode == "bfloat16" and not on_gpu:
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
        return "float32"
    return mode


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
