from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vistudy.trainables.metrics.coverage import prdc as module
from vistudy.trainables.metrics.coverage.prdc import NEIGHBOURS, prdc, radii


def brute(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    def gap(a: np.ndarray, b: np.ndarray) -> float:
        return math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)))

    def radius(points: np.ndarray, i: int) -> float:
        return sorted(gap(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]

    n, m = len(real), len(fake)
    real_radii, fake_radii = [radius(real, i) for i in range(n)], [radius(fake, j) for j in range(m)]
    near = [[gap(real[i], fake[j]) for j in range(m)] for i in range(n)]
    return {
        "prdc_precision": sum(any(near[i][j] < real_radii[i] for i in range(n)) for j in range(m)) / m,
        "prdc_recall": sum(any(near[i][j] < fake_radii[j] for j in range(m)) for i in range(n)) / n,
        "prdc_density": sum(near[i][j] < real_radii[i] for i in range(n) for j in range(m)) / (k * m),
        "prdc_coverage": sum(min(near[i]) < real_radii[i] for i in range(n)) / n,
    }


@pytest.mark.parametrize(("n", "m", "k", "shift"), [(30, 30, 2, 0.0), (30, 20, 3, 1.0), (25, 40, 5, 2.0)])
def test_it_is_the_definition(n: int, m: int, k: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(n + m)
    real, fake = torch.randn(n, 3, generator=generator), shift + torch.randn(m, 3, generator=generator)
    expected = brute(real.numpy(), fake.numpy(), k)
    assert prdc(real, fake, radii(real, k), k) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected["prdc_precision"] < 1


def test_one_distribution_has_density_one_and_the_coverage_of_the_closed_form() -> None:
    n, k = 1000, NEIGHBOURS
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(n, 8, generator=generator) for _ in range(8)]
    values = [prdc(a, b, radii(a)) for a, b in zip(draws[::2], draws[1::2], strict=True)]
    coverage = 1 - math.prod((n - 1 - i) / (2 * n - 1 - i) for i in range(k))
    assert coverage == pytest.approx(0.96898, abs=5e-6)
    assert np.mean([v["prdc_coverage"] for v in values]) == pytest.approx(coverage, abs=0.01)
    assert np.mean([v["prdc_density"] for v in values]) == pytest.approx(1, abs=0.05)
    assert np.mean([v["prdc_precision"] for v in values]) == pytest.approx(0.94, abs=0.02)


def test_one_repeated_point_covers_few_and_recalls_nothing() -> None:
    real = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    values = prdc(real, real[:1].repeat(200, 1), radii(real))
    assert values["prdc_precision"] == 1
    assert values["prdc_coverage"] < 0.2
    assert values["prdc_recall"] < 0.05


def test_far_samples_have_nothing() -> None:
    real = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert set(prdc(real, real + 1000, radii(real)).values()) == {0.0}


@pytest.mark.parametrize(("n", "dim", "k", "shift"), [(200, 8, 5, 0.3), (150, 64, 3, 0.0)])
def test_it_is_the_authors(n: int, dim: int, k: int, shift: float) -> None:
    published = pytest.importorskip("prdc")
    generator = torch.Generator().manual_seed(n)
    real, fake = torch.randn(n, dim, generator=generator), shift + torch.randn(n, dim, generator=generator)
    expected = published.compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)
    assert prdc(real, fake, radii(real, k), k) == pytest.approx(
        {f"prdc_{name}": float(value) for name, value in expected.items()}, abs=1e-6
    )


def test_precision_and_recall_are_torch_fidelitys() -> None:
    fidelity = pytest.importorskip("torch_fidelity.metric_prc")
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(300, 16, generator=generator), 0.2 + torch.randn(300, 16, generator=generator)
    expected = fidelity.prc_features_to_metric(fake, real, prc_neighborhood=3, prc_batch_size=100, verbose=False)
    ours = prdc(real, fake, radii(real, 3), 3)
    assert ours["prdc_precision"] == pytest.approx(expected["precision"], abs=1e-6)
    assert ours["prdc_recall"] == pytest.approx(expected["recall"], abs=1e-6)
    assert ours["prdc_precision"] != ours["prdc_recall"]


def test_rows_in_pieces_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(90, 4, generator=generator), torch.randn(70, 4, generator=generator)
    whole = prdc(real, fake, radii(real))
    monkeypatch.setattr(module, "ROWS", 32)
    assert prdc(real, fake, radii(real)) == pytest.approx(whole, abs=1e-12)
