"""Ids of trials: they are in every record, so they never change for the same configuration."""

from __future__ import annotations

import dataclasses

import pytest

from tests.trainables.configs import small
from vistudy.trainables.trial_identity import NOT_RECORDED, make_trial_id


@pytest.mark.parametrize(
    ("model", "trial_id"),
    [("gan", "t2-ce6f17fb3e0d"), ("em", "t2-e8a4fbf5a3de"), ("gauss_gan", "t2-9a29a3ba1e02")],
)
def test_ids_of_known_configurations(model: str, trial_id: str) -> None:
    assert small(model).trial_id() == trial_id


def test_without_a_fingerprint_the_schema_is_1() -> None:
    config = dataclasses.replace(small("gan"), data_fingerprint=NOT_RECORDED)
    assert config.trial_id().startswith("t1-")
    assert small("gan").trial_id().startswith("t2-")


def test_the_order_of_fields_is_irrelevant() -> None:
    assert make_trial_id({"a": 1, "b": 2.0}) == make_trial_id({"b": 2.0, "a": 1})
