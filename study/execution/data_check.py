"""Check that a plan's data exist, are undamaged and suffice, before anything is written or started."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.planning.plan import Plan, Trial
from vistudy.study.spec.hyperparameters import contains_level
from vistudy.study.spec.messages import KeyPath
from vistudy.study.spec.model import Block
from vistudy.study.spec.search_space import Dimension
from vistudy.trainables.data import DATASETS, DataError, Dataset
from vistudy.trainables.data.images.image_dataset import ImageData
from vistudy.trainables.metrics.evaluate import OF_FILES, check_enough, suite_of
from vistudy.trainables.metrics.features.inception import inception, inception_weights

BATCH = "batch_size"


def check_data(planned: Plan) -> None:
    """Read every data set of a plan once, so that files are prepared here and not by many workers at once.

    Raises:
        StudyError: files are missing or damaged, or there are too few images for the metrics or for a minibatch.
    """
    for block in planned.study.blocks:
        dataset = DATASETS[block.data]
        try:
            assert dataset.fingerprint
            if isinstance(dataset, ImageData):
                check_enough(dataset)
            if suite_of(dataset) in OF_FILES and inception_weights() is not None:
                inception()
        except DataError as error:
            raise block.error(("data",), f"{block.data}: {error}") from error
        _check_space(block, dataset)
    blocks = {block.name: block for block in planned.study.blocks}
    for trial in planned.trials:
        _check_batch(blocks[trial.block], _place(blocks[trial.block], trial), trial.config.batch_size)


def _check_space(block: Block, dataset: Dataset) -> None:
    """Check the largest minibatch that the search space allows, since a later round may draw it."""

    def check(dims: tuple[Dimension, ...], path: KeyPath) -> None:
        for dim in dims:
            if dim.name == BATCH:
                _check_batch(block, (*path, BATCH), max(map(int, dim.choices or (dim.high,))))

    check(block.sample.space if block.sample else (), ("sampling", "space"))
    for arm in block.arms.values():
        check(arm.space, ("arms", arm.name))


def _check_batch(block: Block, path: KeyPath, size: int) -> None:
    most = DATASETS[block.data].to_learn
    if most is not None and size > most:
        raise block.error(
            path,
            f"a minibatch of {size:,} is more than the {most:,} images to learn of data {block.data!r}: it would hold "
            f"some twice; allowed: batch_size up to {most:,}",
        )


def _place(block: Block, trial: Trial) -> KeyPath:
    """Key path of a trial's batch size in the study file."""
    arm = block.arms.get(str(trial.cell.get("arm", "")).partition("~")[0])  # a pilot's arm is `NAME~SCALE`
    if arm is not None and BATCH in arm.written:
        return ("arms", arm.name, BATCH)
    if BATCH in block.factors:
        levels = block.factors[BATCH]
        return (
            "factors",
            BATCH,
            next(i for i, level in enumerate(levels) if contains_level(trial.cell[BATCH], [level])),
        )
    if BATCH in block.fixed:
        return ("fixed", BATCH)
    return ("data",)


@contextlib.contextmanager
def data_errors() -> Iterator[None]:
    """Turn data errors that appear later (a changed cache, missing files) into a StudyError."""
    try:
        yield
    except DataError as error:
        # One that a worker sends by Ray is printed with the worker's stack; its cause is the error itself.
        cause = getattr(error, "cause", None)
        node = re.search(r"\bip=([^,)\s]+)", str(error)) if cause is not None else None
        raise StudyError(f"data{f' on {node[1]}' if node else ''}: {cause or error}") from error
