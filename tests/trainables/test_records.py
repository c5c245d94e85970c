"""docs/records.md names every value that is recorded, and none that is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.configs import SMALL, small, train
from vistudy.trainables.data import DATASETS
from vistudy.trainables.engine import reference
from vistudy.trainables.metrics import reference as scale
from vistudy.trainables.metrics.evaluate import METRICS
from vistudy.trainables.metrics.inception_metrics import InceptionMetrics

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "records.md").read_text("utf-8")
FURTHER: dict[str, list[dict[str, Any]]] = {
    "gan": [{"data": "digits", "net": "mlp", "norm": "bn"}],
    "vae": [{"sigma_learned": True}],
}
"""Runs that record what a model's smallest does not."""


def named(heading: str) -> set[str]:
    """The names in the first columns of a section's tables."""
    section = PAGE.split(f"### {heading}\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", section, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


VALUES = named("Names in `values`")
SUITES = {name for metrics in METRICS.values() for metric in metrics for name in metric.names}


@pytest.mark.parametrize("suite", METRICS)
def test_every_metric_of_a_suite_is_named(suite):
    assert {name for metric in METRICS[suite] for name in metric.names} <= VALUES


def test_metrics_of_inception_are_named():
    assert set(InceptionMetrics.names) <= VALUES


def test_what_models_record_is_named_and_nothing_else_is():
    recorded = SUITES | set(InceptionMetrics.names)
    for model in SMALL:
        for fields in ({}, *FURTHER.get(model, [])):
            (records,) = train(small(model, **fields)).values()
            own = {name for record in records for name in record.values}
            assert own <= VALUES, (model, fields)
            recorded |= own
    assert recorded == VALUES


def test_names_of_the_reference():
    page = named("The reference of a pack")
    kept = set(reference(small("gan")))
    assert kept == {name for name in page if not name.startswith("<")}
    of_pairs = set(scale._floors(DATASETS["ring8"])[1])
    others = {name for metric in METRICS["points"] for name in metric.names} - {"dist", "cov", "prec"}
    assert {"<metric>_real", "<metric>_real_sd"} == page - kept
    assert of_pairs == {f"{name}{end}" for name in others for end in ("_real", "_real_sd")}
