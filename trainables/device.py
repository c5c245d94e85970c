"""The device of a process: which one it is, how much of its memory may be used, and the arithmetic of training.

Weights and optimizers are float32 always; the precision concerns matrix products and convolutions.
"""

from __future__ import annotations

import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = ("tf32", "bf16", "fp32")

CONTEXT_BYTES = 600 * 2**20
"""GPU memory that CUDA itself needs for a process, before any tensor is allocated."""


def default_device() -> torch.device:
    """Return the GPU of this process, or the CPU if it has none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """Name the hardware, for the record of a trial."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def limit_memory(device: torch.device, gpu_share: float) -> int | None:
    """Limit this process to its share of a GPU's memory.

    A process that exceeds the limit gets an out-of-memory error and halves its pack; its neighbours are unaffected.

    Returns:
        The limit in bytes; None on a CPU.
    """
    if device.type != "cuda":
        return None
    total = torch.cuda.get_device_properties(device).total_memory
    limit = share_of_memory(total, gpu_share)
    torch.cuda.set_per_process_memory_fraction(limit / total, device)
    return limit


def share_of_memory(total: int, gpu_share: float) -> int:
    """Bytes that a pack's tensors may take on a GPU of `total` bytes; a share is reduced by `CONTEXT_BYTES`."""
    return total if gpu_share == 1.0 else int(max(gpu_share * total - CONTEXT_BYTES, gpu_share * total / 2))


def release_memory(device: torch.device) -> None:
    """Return the memory of dropped tensors to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def precision_context(precision: str, device: torch.device) -> Iterator[None]:
    """Compute products of float32 tensors in `precision` inside the block; restore the process's settings after it."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        # No cache of cast weights: they change between the updates of a period.
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Flush denormal numbers to zero inside the block: a collapsing net is full of them, and they are slow.

    This is a setting of the current thread, so it is reset afterwards.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
