"""DATASETS: every data set that a study file can name. To add one: a file here, and a line below."""

from __future__ import annotations

from trainables.data.base import Batches, Dataset
from trainables.data.celeba import CELEBA
from trainables.data.cifar import CIFAR10
from trainables.data.digits import DIGITS
from trainables.data.folder import IMAGE_FOLDER
from trainables.data.gaussians import MOG_FULL
from trainables.data.idx import FASHION_MNIST, MNIST
from trainables.data.mixtures import GRID25, RING8
from trainables.data.polygons import POLYGONS
from trainables.data.root import DataError
from trainables.data.stacked import STACKED_MNIST
from trainables.data.toys import NORMAL1D, POINT0, STATES8

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

__all__ = ["DATASETS", "Batches", "DataError", "Dataset"]
