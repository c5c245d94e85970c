"""Minibatches of images: a stream of indices, and a gather from uint8 pixels on the device.

All pixels are on the device if they fit into RESIDENT_SHARE of its memory. Otherwise the images of a step are gathered
in pinned memory and copied to the device while it is still processing the previous step. The numbers are bitwise the
same in both cases and on any device.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vistudy.trainables.data.images.prepared_images import Prepared
from vistudy.trainables.random_streams import BLOCK, Draw, Source, Stream, generator

RESIDENT_SHARE = 0.15
"""Share of the device memory that a data set may take: each process on a device has its own copy."""


def to_float(pixels: Tensor) -> Tensor:
    """Convert uint8 pixels u to float32 in [-1, 1]: (2 u - 255) / 255.

    2 u - 255 is exact and the product with 1/255 is rounded once, so devices agree. With u / 127.5 they would not,
    because CUDA multiplies by a rounded reciprocal.
    """
    return pixels.float().mul_(2).sub_(255).mul_(1 / 255)


class EpochOrder:
    """Indices of n images, each once per epoch, in an order that is keyed by seed and epoch.

    Batches continue across the end of an epoch, so every batch is full. The order does not depend on the batch size.
    """

    def __init__(self, n: int, batch_size: int) -> None:
        self._n, self._batch_size = n, batch_size
        self._last: dict[int, tuple[int, np.ndarray]] = {}

    def __call__(self, seed: int, block: int) -> np.ndarray:
        """Indices of a block of steps, int64 (BLOCK, batch_size)."""
        count = BLOCK * self._batch_size
        epoch, offset = divmod(block * count, self._n)
        last = (block * count + count - 1) // self._n
        order = np.concatenate([self._epoch(seed, e) for e in range(epoch, last + 1)])
        return order[offset : offset + count].reshape(BLOCK, self._batch_size)

    def _epoch(self, seed: int, epoch: int) -> np.ndarray:
        """The order of one epoch. The latest per seed is cached, as an epoch of many images lasts many blocks."""
        cached = self._last.get(seed)
        if cached is None or cached[0] != epoch:
            cached = epoch, generator(seed, "data", epoch).permutation(self._n)
            self._last[seed] = cached
        return cached[1]


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether `nbytes` of pixels may stay on `device`. On the CPU they are mapped from the file and use no memory."""
    if device.type != "cuda":
        return True
    return nbytes <= RESIDENT_SHARE * torch.cuda.get_device_properties(device).total_memory


@functools.lru_cache(maxsize=1)
def _on_device(prepared: Prepared, device: torch.device) -> Tensor:
    """The images to learn, on `device`; cached for the next pack of this process that learns the same data."""
    return torch.from_numpy(prepared.images[: prepared.train]).to(device)


class ImageBatches(Source):
    """Minibatches of the trials of a pack, gathered from prepared images by indices that are keyed by (seed, step)."""

    def __init__(
        self,
        prepared: Prepared,
        draw: Draw,
        seeds: Sequence[int],
        device: torch.device,
        shape: tuple[int, ...],
        *,
        resident: bool | None = None,
    ) -> None:
        """Gather batches of samples of `shape`.

        Args:
            prepared: the images, (N, C, H, W).
            draw: (seed, block) -> int64 indices (BLOCK, B), or (BLOCK, B, images per sample).
            seeds: seeds of the K trials. Equal seeds are gathered once.
            device: device of the batches.
            shape: shape of one sample.
            resident: whether the images stay on the device; None: if they fit.
        """
        unique = sorted(set(seeds))
        images = prepared.images[: prepared.train]
        self._resident = fits(images.nbytes, device) if resident is None else resident
        self._pixels = _on_device(prepared, device) if self._resident else torch.from_numpy(images)
        self._indices = Stream(draw, unique, self._pixels.device)
        self._rows = torch.tensor([unique.index(seed) for seed in seeds], device=device)
        self._device, self._shape = device, shape

    def draw(self, step: int) -> Tensor:
        """See `Source`; float32 (K, B, *shape) in [-1, 1]."""
        indices = self._indices.draw(step)
        gather = self._gather if self._resident else self._gather_streamed
        pixels = gather(indices.flatten()).view(*indices.shape[:2], *self._shape)
        return to_float(pixels).index_select(0, self._rows)

    def _gather(self, indices: Tensor) -> Tensor:
        return self._pixels.index_select(0, indices)

    def _gather_streamed(self, indices: Tensor) -> Tensor:
        pinned = self._device.type == "cuda"  # torch reuses a pinned buffer only after its copy has finished
        pixels = torch.empty((len(indices), *self._pixels.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        torch.index_select(self._pixels, 0, indices, out=pixels)
        return pixels.to(self._device, non_blocking=pinned)
