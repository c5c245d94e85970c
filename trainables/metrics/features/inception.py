"""Inception-v3 as FID and KID are published with: through torch-fidelity, from a file of weights that the user gives.

torch-fidelity is an optional package, and nothing is downloaded: environment variable VISTUDY_INCEPTION_WEIGHTS (or
`--inception-weights`) names its `weights-inception-2015-12-05-6726825d.pth`. Images become uint8, grey ones are
tiled to three channels, and torch-fidelity enlarges them to 299x299 as TensorFlow 1 did. Another library's resize or
weights make other quantities: never mix them in a table.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from vistudy.trainables.data.data_root import DataError

WEIGHTS_VARIABLE = "VISTUDY_INCEPTION_WEIGHTS"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of the file of weights."""
FEATURES = 2048
RESIZE = "bilinear as in TensorFlow 1, to 299x299"
IMAGES_AT_ONCE = 50


def inception_weights() -> Path | None:
    """The file of weights that the user gave, or None."""
    given = os.environ.get(WEIGHTS_VARIABLE)
    return Path(given).expanduser() if given else None


def checked_weights(path: Path | None) -> Path:
    """The path, after its checksum was verified (the file is a pickle: an unknown one must not be opened).

    Raises:
        DataError: there is no such file, or it is another one.
    """
    if path is None:
        raise DataError(f"Inception's features need its weights: give --inception-weights or set {WEIGHTS_VARIABLE}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; --inception-weights or {WEIGHTS_VARIABLE} name Inception's weights")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise DataError(
            f"{path}: these are not the weights that FID is published with: SHA-256 {found}, expected {SHA256} "
            "(torch-fidelity's weights-inception-2015-12-05-6726825d.pth)"
        )
    return path


def as_bytes(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) of (N, C, H, W) in [-1, 1]: rounded, what is outside cut off, one channel tiled to three.

    Raises:
        ValueError: neither one nor three channels.
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(f"Inception sees images of 1 or 3 channels, got {images.shape[1]}")
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1)


_one = threading.Lock()
"""Trials are judged by several threads; a GPU that they share with training has room for one batch of Inception's."""


@functools.cache
def extractor(path: Path, device: str) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """torch-fidelity's Inception-v3 with verified weights: uint8 (N, 3, H, W) -> features (N, 2048).

    Raises:
        DataError: torch-fidelity is not installed.
    """
    try:
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise DataError("Inception features are computed by torch-fidelity: pip install torch-fidelity") from error
    net: Callable[[Tensor], tuple[Tensor, ...]] = module.FeatureExtractorInceptionV3(
        "inception-v3-compat", [str(FEATURES)], feature_extractor_weights_path=str(path)
    ).to(device)
    return net


def inception() -> Callable[[Tensor], Tensor]:
    """Images (N, C, H, W) in [-1, 1] -> features (N, 2048) on the CPU; computed on a CUDA device where there is one.

    Raises:
        DataError: no weights, other weights, or no torch-fidelity.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = extractor(checked_weights(inception_weights()), device)

    def features(images: Tensor) -> Tensor:
        parts = torch.split(as_bytes(images), IMAGES_AT_ONCE)
        with _one:
            return torch.cat([net(part.to(device))[0].cpu() for part in parts])

    return features


def inception_provenance() -> dict[str, str]:
    """What has to stand beside a number from Inception's features."""
    return {
        "library": f"torch-fidelity {version('torch-fidelity')}",
        "weights_sha256": SHA256,
        "resize": RESIZE,
        "channels": "one channel is tiled to three",
    }
