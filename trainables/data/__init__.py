"""DATASETS: every data set that a study file can name. To add one, add a file here and a line below."""

from __future__ import annotations

from vistudy.trainables.data.base import Batches, Dataset
from vistudy.trainables.data.data_root import DataError, OtherData
from vistudy.trainables.data.gaussians import MOG_FULL
from vistudy.trainables.data.images.celeba import CELEBA
from vistudy.trainables.data.images.cifar import CIFAR10
from vistudy.trainables.data.images.digits import DIGITS
from vistudy.trainables.data.images.folder import IMAGE_FOLDER
from vistudy.trainables.data.images.idx import FASHION_MNIST, MNIST
from vistudy.trainables.data.images.image_dataset import forget_seen_files
from vistudy.trainables.data.images.polygons import POLYGONS
from vistudy.trainables.data.images.stacked import STACKED_MNIST
from vistudy.trainables.data.mixtures import GRID25, RING8
from vistudy.trainables.data.toys import NORMAL1D, POINT0, STATES8

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        RING8,
        GRID25,
        MOG_FULL,
        DIGITS,
        POLYGONS,
        MNIST,
        FASHION_MNIST,
        STACKED_MNIST,
        CIFAR10,
        CELEBA,
        IMAGE_FOLDER,
        POINT0,
        STATES8,
        NORMAL1D,
    )
}

DIGITS_OF_FINGERPRINT = 16
"""Hex digits of a fingerprint that are used in trial ids: as many as fit everywhere, including digests of MLflow."""


def fingerprint(name: str) -> str:
    """Return the fingerprint of a data set on this machine, as used in trial ids: 16 hex digits.

    Raises:
        DataError: files of the data set are missing or damaged.
    """
    return DATASETS[name].fingerprint[:DIGITS_OF_FINGERPRINT]


def refuse_other_data(name: str, recorded: str) -> None:
    """Require that a data set has the recorded fingerprint. An empty one accepts any data.

    Files are read again before they are rejected, as they may have been fixed.

    Raises:
        DataError: the data set has other contents on this machine, or is missing.
    """
    if not recorded or fingerprint(name) == recorded:
        return
    forget_seen_files()
    actual = fingerprint(name)
    if actual != recorded:
        raise OtherData(
            f"data {name!r} here have the fingerprint {actual}, the trials were planned on data of the fingerprint "
            f"{recorded}: nothing is trained on them. Put those data back (the same files on every machine), or run "
            "the study again: on other data its trials are new ones"
        )


__all__ = [
    "DATASETS",
    "Batches",
    "DataError",
    "Dataset",
    "OtherData",
    "fingerprint",
    "forget_seen_files",
    "refuse_other_data",
]
