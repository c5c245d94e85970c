"""Runs of toys, as the engine and the outcome rules see them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.trainables.configs import values
from vistudy.analysis.outcomes.labels import Reference
from vistudy.analysis.outcomes.rules import label
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.engine import Engine, reference
from vistudy.trainables.records import Record


def train(*configs: TrainConfig) -> dict[str, list[Record]]:
    """Records of a pack by trial."""
    found: dict[str, list[Record]] = {c.trial_id(): [] for c in configs}
    for item in Engine(configs).evaluations():
        for record in item.records:
            found[record.trial_id].append(record)
    return found


def outcomes(*configs: TrainConfig) -> list[str]:
    """The labels of a pack's trials, by the reference that the engine computes for them."""
    known = reference(configs[0])
    scale = Reference.from_dict(known)
    found = []
    for records in train(*configs).values():
        names = {name for record in records for name in record.values}
        series = {name: np.array([r.values.get(name, np.nan) for r in records]) for name in names}
        series |= {"evaluation": np.array([r.evaluation for r in records]), "step": np.array([r.step for r in records])}
        found.append(label(series, scale, evaluations=configs[0].evaluations).label)
    return found


def outcome(config: TrainConfig) -> str:
    """The label of a trial."""
    return outcomes(config)[0]


def check_resuming(configs: Sequence[TrainConfig]) -> None:
    """From a checkpoint at the second of four evaluations, the rest is bitwise the same."""
    through = [r for item in Engine(configs).evaluations() for r in item.records]
    first, records = Engine(configs), []
    for item in first.evaluations():
        records += item.records
        if item.index == 2:
            break
    second = Engine(configs)
    second.restore(first.checkpoint())
    records += [r for item in second.evaluations() for r in item.records]
    assert [r.evaluation for r in through[:: len(configs)]] == [0, 1, 2, 3, 4]
    assert values(records) == values(through)


def check_isolation(healthy: Sequence[TrainConfig], calm: TrainConfig, wild: TrainConfig) -> None:
    """A trial that ends as non-finite changes no bit of its neighbours."""
    beside_calm, beside_wild = (train(healthy[0], other, *healthy[1:]) for other in (calm, wild))
    assert beside_wild[wild.trial_id()][-1].values["finite"] == 0.0
    for config in healthy:
        assert values(beside_calm[config.trial_id()]) == values(beside_wild[config.trial_id()])


def check_pack_of_one(configs: Sequence[TrainConfig]) -> None:
    """A trial alone gives the numbers that it gives in a pack."""
    packed = train(*configs)
    for config in configs:
        (alone,) = train(config).values()
        for one, many in zip(alone, packed[config.trial_id()], strict=True):
            assert one.values == pytest.approx(many.values, rel=1e-9, abs=1e-12)
