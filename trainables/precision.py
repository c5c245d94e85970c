"""Arithmetic of training: what products and convolutions are computed in. Weights and optimizers are float32 always."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = ("tf32", "bf16", "fp32")


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Inside, products of float32 tensors are computed in `precision`; the process' settings are put back."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        # no cache of cast weights: they change between the updates of a period
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
