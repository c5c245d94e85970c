from __future__ import annotations

import math
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.metrics.fakes import BARS, PLAIN, STACKED_BARS, TOY
from vistudy.trainables.data import DATASETS, Dataset
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images.polygons import Polygons
from vistudy.trainables.metrics import inception_metrics
from vistudy.trainables.metrics.evaluate import METRICS, N_SAMPLES, Evaluator, evaluator, n_samples, suite_of
from vistudy.trainables.metrics.features import inception
from vistudy.trainables.metrics.features.digits_classifier import SHA256

TRIANGLES = Polygons(name="triangles", train=700, reference=650)
SETS = (*(DATASETS[name] for name in ("ring8", "grid25", "mog_full", "digits")), BARS, PLAIN, TRIANGLES, STACKED_BARS)
ALL = pytest.mark.parametrize("data", SETS, ids=lambda data: data.name)
OF_IMAGES = {"dist", "cov", "prec", "fd", "prdc_precision", "prdc_recall", "prdc_density", "prdc_coverage"}
EXPECTED = {
    "points": {
        "dist",
        "cov",
        "prec",
        "modes",
        "robust_modes",
        "mode_spread",
        "hq_share",
        "reverse_kl",
        "energy_distance",
    },
    "digits": OF_IMAGES | {"prec_pixels", "class_coverage"},
    "images": OF_IMAGES | {"prec_pixels", "kid", "mmd2", "swd"},
    "labelled_images": OF_IMAGES | {"prec_pixels", "kid", "mmd2", "swd", "class_coverage", "confident_share"},
    "triangles": OF_IMAGES | {"kid", "mmd2", "swd", "triangle_share"},
    "stacked": {"dist", "cov", "prec", "fd", "modes", "robust_modes", "reverse_kl", "confident_share"},
}


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    for suite in ("images", "labelled_images", "stacked"):
        monkeypatch.setitem(N_SAMPLES, suite, 300)


def some(data: Dataset, k: int) -> torch.Tensor:
    """Samples (k, N, *shape) of mixed quality."""
    n = evaluator(data).n_samples
    noise = np.random.default_rng(0).standard_normal((k, n, *data.shape), dtype=np.float32)
    level = np.linspace(0, 0.5, k, dtype=np.float32).reshape(k, *[1] * (noise.ndim - 1))
    return torch.from_numpy(data.real(n, "held_out") + level * noise)


@ALL
def test_names_are_those_of_the_records(data: Dataset) -> None:
    judge = evaluator(data)
    values = judge(some(data, 1))[0]
    assert set(values) == EXPECTED[suite_of(data)] == set(judge.names)
    assert all(isinstance(value, float) and math.isfinite(value) for value in values.values())


def test_no_two_metrics_of_a_suite_write_one_name() -> None:
    assert set(METRICS) == set(N_SAMPLES)
    for metrics in METRICS.values():
        counts = Counter(name for metric in metrics for name in metric.names)
        assert set(counts.values()) == {1}
        assert {"dist", "cov", "prec"} <= set(counts)


@ALL
def test_values_are_bitwise_those_of_the_trial_alone_even_beside_nan(data: Dataset) -> None:
    judge = evaluator(data)
    pack = some(data, 5)
    pack[3, 17] = float("nan")
    together = judge(pack)
    for k in (0, 1, 2, 4):
        assert together[k] == judge(pack[k : k + 1])[0]
    assert len({values["dist"] for values in together}) == 5
    assert set(together[3]) == set(together[0])
    assert all(math.isnan(value) for value in together[3].values())


@ALL
def test_infinite_samples_have_no_metrics(data: Dataset) -> None:
    pack = some(data, 1)
    pack[0, 0, 0] = float("inf")
    assert all(math.isnan(value) for value in evaluator(data)(pack)[0].values())


@ALL
def test_the_order_of_samples_means_nothing(data: Dataset) -> None:
    judge = evaluator(data)
    pack = some(data, 2)
    shuffled = pack[:, torch.randperm(judge.n_samples, generator=torch.Generator().manual_seed(0))]
    for values, again in zip(judge(pack), judge(shuffled), strict=True):
        if "swd" in values:  # another order, other patches
            assert again.pop("swd") == pytest.approx(values.pop("swd"), rel=0.25)
        assert again == pytest.approx(values, rel=1e-4, abs=1e-9)


@ALL
def test_full_collapse_is_finite(data: Dataset) -> None:
    judge = evaluator(data)
    constant = torch.from_numpy(data.real(1, "held_out")).expand(1, judge.n_samples, *data.shape)
    values = judge(constant)[0]
    assert all(math.isfinite(value) for value in values.values())
    assert values["cov"] <= 0.2


@pytest.mark.parametrize("scale", [1e6, 1e15])
@ALL
def test_an_explosion_is_judged_without_raising(data: Dataset, scale: float) -> None:
    values = evaluator(data)(scale * some(data, 1))[0]
    assert values["dist"] > scale / 100
    if data.kind != "stacked":  # a classifier is confident about anything that is large: there the distance decides
        assert values["cov"] == values["prec"] == 0


@ALL
def test_samples_whose_features_overflow_are_judged_without_raising(data: Dataset) -> None:
    values = evaluator(data)(3e38 * some(data, 1).sign())[0]
    assert not values["dist"] < math.inf


@ALL
def test_samples_that_need_gradients_or_are_strided_are_accepted(data: Dataset) -> None:
    pack = some(data, 4)
    expected = evaluator(data)(pack[::2].clone())
    assert evaluator(data)(pack.double().requires_grad_()[::2]) == expected


@ALL
def test_another_number_of_samples_is_refused(data: Dataset) -> None:
    pack = some(data, 2)
    with pytest.raises(ValueError, match=rf"'{data.name}' is evaluated by samples of shape"):
        evaluator(data)(pack[:, 1:])
    with pytest.raises(ValueError, match="is evaluated by samples of shape"):
        evaluator(data)(pack[0])
    with pytest.raises(ValueError, match="is evaluated by samples of shape"):
        Evaluator(data, data.real(100, "reference"))


@ALL
def test_an_evaluator_is_made_once(data: Dataset) -> None:
    assert evaluator(data) is evaluator(data)


@ALL
def test_threads_change_no_bit(data: Dataset) -> None:
    pack = some(data, 4)
    pack[1] = math.nan
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = evaluator(data)(pack)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(evaluator(data)(pack, 3), alone, rtol=0, atol=0, equal_nan=True)


def test_threads_judge_trials_at_once() -> None:
    data = DATASETS["ring8"]
    judge, both = Evaluator(data, data.real(N_SAMPLES["points"], "reference")), threading.Barrier(2)
    look = judge._view
    judge._view = lambda samples: (both.wait(60), look(samples))[1]
    judge(some(data, 2), 2)


@pytest.mark.gpu
@ALL
def test_samples_on_a_gpu_are_judged_as_on_the_cpu(data: Dataset) -> None:
    pack = some(data, 2)
    assert evaluator(data)(pack.cuda()) == evaluator(data)(pack)


def test_what_outcomes_are_judged_by_is_one_of_the_named_metrics() -> None:
    points, images = (evaluator(DATASETS[name])(some(DATASETS[name], 4))[3] for name in ("ring8", "digits"))
    assert (points["cov"], points["prec"]) == (points["robust_modes"] / 8, points["hq_share"])
    assert (images["dist"], images["cov"], images["prec"]) == (
        images["fd"],
        images["prdc_coverage"],
        images["prdc_precision"],
    )
    assert len({images[name] for name in images if name.startswith("prdc")}) == 4


def test_each_kind_of_data_has_its_suite() -> None:
    suites = {data.name: suite_of(data) for data in (*DATASETS.values(), BARS, PLAIN, STACKED_BARS, TOY)}
    assert suites["ring8"] == suites["grid25"] == suites["mog_full"] == "points"
    assert suites["digits"] == "digits"
    assert suites["mnist"] == suites["fashion_mnist"] == suites["cifar10"] == suites["bars"] == "labelled_images"
    assert suites["polygons"] == "triangles"
    assert suite_of(Polygons(name="squares", corners=4)) == "images"
    assert suites["celeba"] == suites["image_folder"] == suites["plain"] == "images"
    assert suites["stacked_mnist"] == suites["stacked_bars"] == "stacked"
    assert suites["toy"] == "exact"


def test_fewer_images_than_the_suite_wants_are_all_used_and_too_few_refused() -> None:
    assert n_samples(TRIANGLES) == 650
    assert evaluator(TRIANGLES).provenance()["n_samples"] == 650
    assert n_samples(Polygons(name="unequal", train=680, reference=1300)) == 680  # baselines are drawn from the first
    for train, reference in ((700, 600), (60, 1300)):
        too_few = Polygons(name="too_few", train=train, reference=reference)
        with pytest.raises(DataError, match=rf"{train} to learn and {reference:,} to compare with.*least 640 of each"):
            evaluator(too_few)


def test_a_study_can_say_what_its_values_depend_on() -> None:
    assert evaluator(DATASETS["ring8"]).provenance() == {"suite": "points", "suite_version": 2, "n_samples": 2500}
    of_bars, of_digits = evaluator(BARS).provenance(), evaluator(DATASETS["digits"]).provenance()
    assert of_bars["features"] == "classifier"
    assert len(str(of_bars["weights_sha256"])) == 64
    assert float(of_bars["accuracy"]) > 0.9
    assert of_digits["features"] == "digits"
    assert of_digits["weights_sha256"] == SHA256


def test_another_feature_space_can_be_asked_for() -> None:
    reference = BARS.real(300, "reference")
    values = [Evaluator(BARS, reference, space)(some(BARS, 1))[0] for space in (None, "classifier", "random_conv")]
    assert values[0] == values[1]
    assert values[2]["dist"] != values[0]["dist"]
    assert values[2]["swd"] == values[0]["swd"]
    assert set(values[2]) == EXPECTED["images"]  # random convolutions know no classes


def test_a_labelled_metric_on_unlabelled_data_is_refused() -> None:
    with pytest.raises(DataError, match="'plain' has no labels"):
        Evaluator(PLAIN, PLAIN.real(300, "reference"), "classifier")


def test_inceptions_metrics_join_where_the_user_gives_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = evaluator(PLAIN)(some(PLAIN, 1))[0]
    monkeypatch.setenv("VISTUDY_INCEPTION_WEIGHTS", str(tmp_path / "weights.pth"))
    with pytest.raises(DataError, match=r"weights\.pth: no such file"):
        evaluator(PLAIN)
    assert "inception_fd" not in evaluator(DATASETS["digits"]).names  # suites that are content-addressed stay
    monkeypatch.setattr(inception_metrics, "inception", lambda: lambda images: images.flatten(1)[:, ::40])
    judge = evaluator(PLAIN)
    values = judge(some(PLAIN, 1))[0]
    assert {name: values[name] for name in without} == without
    assert set(values) - set(without) == set(inception_metrics.InceptionMetrics.names)
    assert judge.provenance()["inception_weights_sha256"] == inception.SHA256


def test_an_evaluator_looks_where_the_process_is_pointed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = evaluator(PLAIN)
    for variable in ("VISTUDY_CACHE", "VISTUDY_DATA_ROOT"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(tmp_path))
            assert evaluator(PLAIN) is not before
    assert evaluator(PLAIN) is before
