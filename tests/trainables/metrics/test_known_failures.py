from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from tests.trainables.metrics.fakes import BARS, PLAIN
from vistudy.trainables.data import DATASETS
from vistudy.trainables.data.mixtures import GRID25, RING8, Mixture
from vistudy.trainables.metrics.evaluate import N_SAMPLES, evaluator
from vistudy.trainables.metrics.known_failures import deficiency, direction_errors, failures, untrained
from vistudy.trainables.metrics.reference import reference

POINTS = pytest.mark.parametrize("data", [RING8, GRID25], ids=lambda data: data.name)


@functools.cache
def deficiencies(name: str) -> dict[str, float]:
    data = DATASETS[name]
    real = reference(data, lambda seed: untrained(data, seed))
    sets = failures(data) | {"untrained": untrained(data, 99).numpy()}
    return {
        failure: deficiency(evaluator(data)(torch.from_numpy(samples)[None])[0], real)
        for failure, samples in sets.items()
    }


@POINTS
def test_the_composite_orders_the_failures_of_points(data: Mixture) -> None:
    q = deficiencies(data.name)
    assert q["real, held out"] < 0.1
    assert 0.2 < q["a fifth of the modes dropped"] < 0.6
    assert 0.45 < q["every other mode dropped"] < 0.6
    assert q["every other mode dropped"] < q["neighbouring half dropped"] < 0.9
    assert q["one mode"] > 0.85
    within = 1 - math.exp(-4.5 / 25)  # of three sd, for a sample five times as wide
    assert q["sd 5 times too large"] == pytest.approx(1 - within / (1 - math.exp(-4.5)), abs=0.04)
    assert q["moment-matched Gaussian"] > 0.9
    assert q["untrained"] > 0.85


def test_the_composite_orders_the_failures_of_digits() -> None:
    q = deficiencies("digits")
    assert q["real, held out"] < 0.05
    assert q["pixel noise of sd .2"] < 0.1
    assert q["8 of 10 classes"] == pytest.approx(0.36, abs=0.03)  # .19 by neighbours alone
    assert q["5 of 10 classes"] == pytest.approx(0.75, abs=0.03)
    assert q["one class"] == pytest.approx(0.99, abs=0.02)
    assert q["a blank image"] == 1
    assert q["100 images repeated"] < q["25 images repeated"]
    assert 0.75 < q["25 images repeated"] < 1
    assert q["moment-matched Gaussian"] < q["pixel noise of sd .5"] < q["pixel noise of sd 1"]
    assert 0.6 < q["moment-matched Gaussian"] < 0.85
    assert q["untrained"] > 0.85


@POINTS
def test_sixty_four_equal_directions_err_less_than_256_random_ones(data: Mixture) -> None:
    for failure, (equal, random) in direction_errors(data, draws=4).items():
        assert abs(equal) < random / 3, failure
        assert abs(equal) < 6e-3, failure


def test_deficiency_is_the_worst_of_three() -> None:
    real = {"dist_floor": 1.0, "dist_ceiling": 5.0, "cov_real": 0.5, "prec_real": 0.8}
    assert deficiency({"dist": 2.0, "cov": 0.5, "prec": 0.8}, real) == pytest.approx(0.25)
    assert deficiency({"dist": 0.5, "cov": 0.1, "prec": 0.8}, real) == pytest.approx(0.8)
    assert deficiency({"dist": 0.5, "cov": 0.6, "prec": 0.4}, real) == pytest.approx(0.5)
    assert deficiency({"dist": 0.5, "cov": 0.6, "prec": 0.9}, real) == 0


def test_failures_of_images_drop_classes_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    for suite in ("images", "labelled_images"):
        monkeypatch.setitem(N_SAMPLES, suite, 200)
    labelled, plain = failures(BARS), failures(PLAIN)
    assert set(labelled) - set(plain) == {"3 of 4 classes", "2 of 4 classes", "one class"}
    assert {"real, held out", "25 images repeated", "blurred, sd 2", "moment-matched Gaussian"} <= set(plain)
    for data, sets in ((BARS, labelled), (PLAIN, plain)):
        assert {samples.shape for samples in sets.values()} == {(200, *data.shape)}
        assert {samples.dtype for samples in sets.values()} == {np.dtype(np.float32)}
    values = [
        evaluator(BARS)(torch.from_numpy(labelled[name])[None])[0] for name in ("real, held out", "2 of 4 classes")
    ]
    assert [value["class_coverage"] for value in values] == [1.0, 0.5]
    assert len(np.unique(plain["25 images repeated"], axis=0)) <= 25
    assert plain["blurred, sd 2"].std() < plain["blurred, sd 1"].std() < plain["real, held out"].std()
