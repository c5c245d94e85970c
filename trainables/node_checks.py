"""Check that this machine can train a pack: package versions, models, data sets, modules and files."""

from __future__ import annotations

import platform
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from vistudy.trainables import data as datasets
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.data import DATASETS, DataError, refuse_other_data
from vistudy.trainables.models import UnknownModel, config_from_dict
from vistudy.trainables.trial_identity import NOT_RECORDED


class NodeFailed(Exception):
    """This machine, or the code on it, cannot train a pack. The message says what is missing and what to do."""


def versions() -> dict[str, str]:
    """Versions of what the numbers of a trial depend on."""
    packages = ("vistudy", "torch", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def check_versions(expected: Mapping[str, str]) -> None:
    """Require the versions of the run. Local parts (+cpu, +cu130) may differ; an empty `expected` accepts any.

    Raises:
        NodeFailed: some versions differ; the message lists them.
    """
    installed = versions() if expected else {}
    other = [
        f"{name} {installed.get(name)} (the run: {required})"
        for name, required in expected.items()
        if installed.get(name, "").partition("+")[0] != required.partition("+")[0]
    ]
    if other:
        raise NodeFailed(f"has {', '.join(other)}. Install requirements.lock on that node, or end its Ray")


def trial_configs(trials: Sequence[Mapping[str, Any]]) -> list[TrainConfig]:
    """Build the configurations of stored trials.

    Raises:
        NodeFailed: this process does not know the model or the data set of a trial.
    """
    try:
        configs = [config_from_dict(trial) for trial in trials]
    except UnknownModel as error:
        raise NodeFailed(f"cannot build it: {error}") from error
    for name in sorted({config.data for config in configs} - DATASETS.keys()):
        raise NodeFailed(
            f"cannot build it: data {name!r} is not in {datasets.__file__}, which is all that a worker imports: "
            "it was added in another process only, or in other code. Add its file and its line there"
        )
    return configs


def check_data(pack: Mapping[str, Any]) -> None:
    """Require the data that the trials of a stored pack were planned on.

    Raises:
        NodeFailed: this process does not know the model or the data set.
        OtherData: the data set has other contents on this machine.
        DataError: the data set cannot be read on this machine.
    """
    first = trial_configs(pack["trials"])[0]  # a pack has one data set
    refuse_other_data(first.data, first.data_fingerprint or NOT_RECORDED)


def describe_missing(error: ImportError | DataError) -> str:
    """Describe what this machine is missing: a module and the line that imports it, or files."""
    if isinstance(error, DataError):
        return f"cannot read data: {error}. Every node needs the same files at the same place"
    at = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"cannot import {error.name or 'a module'}: {error}, in {at.filename}:{at.lineno}. Install it on every node, "
        "for the Python that runs vistudy there"
    )
