"""Inception-v3 as used for published FID and KID: by torch-fidelity, with a file of weights that the user provides.

torch-fidelity is an optional package. Nothing is downloaded: the environment variable VISTUDY_INCEPTION_WEIGHTS (or
`--inception-weights`) names its `weights-inception-2015-12-05-6726825d.pth`. Images become uint8, grey ones are
tiled to three channels, and torch-fidelity enlarges them to 299x299 as TensorFlow 1 did. Values with
another library's resize or weights are not comparable: never mix them in a table.
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
"""SHA-256 of the file of weights."""
FEATURES = 2048
RESIZE = "bilinear as in TensorFlow 1, to 299x299"
IMAGES_AT_ONCE = 50


def inception_weights() -> Path | None:
    """Return the file of weights that the user provides, or None."""
    path = os.environ.get(WEIGHTS_VARIABLE)
    return Path(path).expanduser() if path else None


def checked_weights(path: Path | None) -> Path:
    """Return the path after verifying its checksum: the file is a pickle, so an unknown one must not be opened.

    Raises:
        DataError: there is no such file, or its checksum is wrong.
    """
    if path is None:
        raise DataError(f"Inception's features need its weights: give --inception-weights or set {WEIGHTS_VARIABLE}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; --inception-weights or {WEIGHTS_VARIABLE} name Inception's weights")
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != SHA256:
        raise DataError(
            f"{path}: these are not the weights that FID is published with: SHA-256 {actual}, expected {SHA256} "
            "(torch-fidelity's weights-inception-2015-12-05-6726825d.pth)"
        )
    return path


def as_bytes(images: Tensor) -> Tensor:
    """Convert images (N, C, H, W) in [-1, 1] to uint8 (N, 3, H, W): clipped, rounded, one channel tiled to three.

    Raises:
        ValueError: the images have neither one nor three channels.
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(f"Inception sees images of 1 or 3 channels, got {images.shape[1]}")
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1)


_one = threading.Lock()
"""Several threads evaluate trials, but a GPU that is also training has room for only one batch of Inception."""


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
        DataError: the weights are missing or wrong, or torch-fidelity is not installed.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = extractor(checked_weights(inception_weights()), device)

    def features(images: Tensor) -> Tensor:
        parts = torch.split(as_bytes(images), IMAGES_AT_ONCE)
        with _one:
            return torch.cat([net(part.to(device))[0].cpu() for part in parts])

    return features


def inception_provenance() -> dict[str, str]:
    """Return what has to be reported with values from features of Inception."""
    return {
        "library": f"torch-fidelity {version('torch-fidelity')}",
        "weights_sha256": SHA256,
        "resize": RESIZE,
        "channels": "one channel is tiled to three",
    }
