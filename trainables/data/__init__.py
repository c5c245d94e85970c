"""DATASETS: every data set that a study file can name. To add one: a file here, and a line below."""

from __future__ import annotations

from trainables.data.base import Dataset
from trainables.data.digits import DIGITS
from trainables.data.mixtures import GRID25, RING8

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (RING8, GRID25, DIGITS)}

__all__ = ["DATASETS", "Dataset"]
