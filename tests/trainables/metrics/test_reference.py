from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.metrics.fakes import BARS, PLAIN, STACKED_BARS, Plain
from vistudy.trainables.data import DATASETS, Dataset
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.mixtures import GRID25, RING8, Mixture
from vistudy.trainables.metrics import evaluate
from vistudy.trainables.metrics import reference as module
from vistudy.trainables.metrics.evaluate import N_SAMPLES, evaluator, n_samples
from vistudy.trainables.metrics.known_failures import untrained
from vistudy.trainables.metrics.reference import moment_matched, real_pair, reference

NAMES = ("ring8", "grid25", "mog_full", "digits")
KEYS = {"dist_floor", "dist_floor_sd", "dist_ceiling", "dist_trivial", "cov_real", "prec_real", "max_abs_data"}


@functools.cache
def scale(name: str) -> dict[str, float]:
    return reference(DATASETS[name], lambda seed: untrained(DATASETS[name], seed))


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_is_in_order_and_repeats_itself(name: str) -> None:
    data, real = DATASETS[name], scale(name)
    assert set(real) == KEYS | ({"prec_pixels_real"} if name == "digits" else set())
    assert 0 < real["dist_floor_sd"] < real["dist_floor"] < real["dist_trivial"] < real["dist_ceiling"]
    assert reference(data, lambda seed: untrained(data, seed)) == real


@pytest.mark.parametrize("data", [RING8, GRID25], ids=lambda data: data.name)
def test_real_points_reach_all_modes_with_the_quality_of_the_closed_form(data: Mixture) -> None:
    real = scale(data.name)
    assert real["cov_real"] == 1
    assert real["prec_real"] == pytest.approx(1 - math.exp(-4.5), abs=0.002)  # 4 sd


def test_real_digits_cover_as_the_closed_form_says() -> None:
    expected = 1 - math.prod((799 - i) / (1599 - i) for i in range(5))
    assert scale("digits")["cov_real"] == pytest.approx(expected, abs=0.005)


def test_the_ceiling_is_the_median_of_eight_seeds() -> None:
    asked: list[int] = []

    def shifted(seed: int) -> torch.Tensor:
        asked.append(seed)
        far = 1000.0 * 2**seed  # so far that the distance is the shift over root 2
        return torch.from_numpy(RING8.real(2500, "reference")) + torch.tensor([far, 0.0])

    ceiling = reference(RING8, shifted)["dist_ceiling"]
    assert asked == list(range(8))
    assert ceiling == pytest.approx(1000 * (2**3 + 2**4) / 2 / math.sqrt(2), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_trivial_baseline_has_real_datas_moments(name: str) -> None:
    data = DATASETS[name]
    n = evaluator(data).n_samples
    flat = moment_matched(data, 0).reshape(n, -1)
    real = data.real(n, "held_out").reshape(n, -1)
    assert np.abs(flat.mean(axis=0) - real.mean(axis=0)).max() < 0.2 * real.std()  # clipping moves an image's mean
    if data.kind == "points":
        assert np.cov(flat.T) == pytest.approx(np.cov(real.T), abs=float(0.1 * real.var()))
    assert np.abs(flat).max() <= 1 or data.kind == "points"
    assert not np.array_equal(moment_matched(data, 1), moment_matched(data, 0))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Suites of images at N = 120, and a cache of the test's own."""
    for suite in ("images", "labelled_images", "stacked"):
        monkeypatch.setitem(N_SAMPLES, suite, 120)
    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path))
    return tmp_path


def grey(data: Dataset) -> Callable[[int], torch.Tensor]:
    """Images of faint noise, as an untrained generator makes them."""
    n = n_samples(data)
    return lambda seed: 0.1 * torch.randn(n, *data.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("data", [BARS, PLAIN, STACKED_BARS], ids=lambda data: data.name)
def test_images_have_a_floor_of_every_metric(data: Dataset, few: Path) -> None:
    real = reference(data, grey(data))
    judge = evaluator(data)
    others = set(judge.names) - {"dist", "cov", "prec"}
    assert set(real) == KEYS | {f"{name}_real" for name in others} | {f"{name}_real_sd" for name in others}
    assert 0 < real["dist_floor_sd"] < real["dist_floor"] < real["dist_ceiling"]
    assert real["fd_real"] == real["dist_floor"]
    pairs = [real_pair(data, pair) for pair in range(20)]
    assert real["prec_real"] == pytest.approx(np.mean([values["prec"] for values in pairs]), rel=1e-12)
    assert real["fd_real_sd"] == pytest.approx(np.std([values["fd"] for values in pairs], ddof=1), rel=1e-12)


def test_floors_of_images_are_computed_once_for_all_nets(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = reference(PLAIN, grey(PLAIN))
    monkeypatch.setattr(module, "real_pair", lambda *_: pytest.fail("computed again"))
    other_nets = reference(PLAIN, lambda seed: 2 * grey(PLAIN)(seed))
    assert other_nets.pop("dist_ceiling") != first.pop("dist_ceiling")
    assert other_nets == first
    (path,) = (few / "floors").glob("plain-*.json")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataError, match=f"{path}: damaged or foreign"):
        reference(PLAIN, grey(PLAIN))


def test_floors_are_kept_by_all_that_they_depend_on(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> int:
        reference(PLAIN, grey(PLAIN))
        return len(list((few / "floors").glob("*.json")))

    monkeypatch.setattr(module, "FLOOR_PAIRS", 2)
    assert kept() == kept() == 1
    monkeypatch.setattr(module, "FLOOR_PAIRS", 3)
    assert kept() == 2
    monkeypatch.setattr(evaluate, "VERSION", evaluate.VERSION + 1)
    assert kept() == 3
    monkeypatch.setattr(Plain, "fingerprint", "of other images")
    assert kept() == 4


def test_points_and_digits_keep_nothing(few: Path) -> None:
    reference(RING8, lambda seed: untrained(RING8, seed))
    assert not list(few.iterdir())


def test_images_of_more_pixels_than_samples_have_a_baseline_too(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "max_abs", 100.0)  # nothing is clipped
    data = dataclasses.replace(PLAIN, shape=(1, 16, 16))  # 256 components, 120 images
    real = data.real(120, "held_out").reshape(120, -1).astype(np.float64)
    draws = np.concatenate([moment_matched(data, draw).reshape(120, -1) for draw in range(40)])
    expected = np.cov(real.T)
    assert draws.mean(axis=0) == pytest.approx(real.mean(axis=0), abs=5 * real.std(axis=0).max() / 4800**0.5)
    assert np.cov(draws.T) == pytest.approx(expected, abs=0.07 * expected.max())
    assert np.linalg.matrix_rank(draws[:300] - real.mean(axis=0), tol=1e-3) == 119
