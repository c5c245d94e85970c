"""The GAN on a finite sample space: its exact steps against the optimum found otherwise, its rates against theory."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tests.trainables.configs import values
from tests.trainables.models.exact import check_isolation, check_pack_of_one, check_resuming, outcome, train
from vistudy.trainables.config import hyperparameters
from vistudy.trainables.data.toys import STATES8
from vistudy.trainables.engine import reference, reference_key
from vistudy.trainables.models.finite_gan import FiniteConfig, FinitePack, generator_step
from vistudy.trainables.random_streams import generator

CPU = torch.device("cpu")
P = torch.tensor(STATES8.solution, dtype=torch.float64)


def small(**fields: Any) -> FiniteConfig:
    return FiniteConfig(**({"d_updates": 12, "evaluations": 4} | fields)).resolve()


def trajectory(periods: int, *weights: float, seed: int = 0) -> np.ndarray:
    """q of a pack after each period, (periods + 1, K, 8)."""
    pack = FinitePack([small(reg_weight=weight, seed=seed) for weight in weights], CPU)
    found = [pack.g.flat.numpy().copy()]
    for _ in range(periods):
        pack.period(diagnose=False)
        found.append(pack.g.flat.numpy().copy())
    return np.array(found)


@pytest.mark.parametrize("weight", [0.3, 1.0, 4.0])
def test_the_generator_step_is_the_minimum_of_eq_19(weight):
    """Found by a general optimizer over softmax parameters."""
    rng = generator(0, "test")
    old, d = rng.dirichlet(np.ones(5)), rng.uniform(0.1, 0.9, size=5)

    def objective(logits: np.ndarray) -> float:
        q = np.exp(logits - logits.max())
        q /= q.sum()
        return float(-(q * np.log(d)).sum() + weight * (q * np.log(q / old)).sum())

    best = minimize(objective, np.zeros(5), method="BFGS", options={"gtol": 1e-10}).x
    expected = np.exp(best) / np.exp(best).sum()
    step = generator_step(
        torch.tensor(old)[None], torch.tensor(d)[None].log(), torch.tensor([[weight]], dtype=torch.float64)
    )
    np.testing.assert_allclose(step[0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(step[0].numpy(), old * d ** (1 / weight) / (old * d ** (1 / weight)).sum(), rtol=1e-12)


@pytest.mark.parametrize("weight", [0.26, 0.4, 0.75, 1.0, 2.0, 5.0])
def test_rate_of_convergence(weight):
    """|1 - 1/(2 lambda)| a period, to 4 digits."""
    error = np.linalg.norm(trajectory(300, weight)[:, 0] - P.numpy(), axis=1)
    last = np.flatnonzero(error > 1e-9)[-1]
    assert error[last] < 1e-7
    assert error[last] / error[last - 1] == pytest.approx(abs(1 - 1 / (2 * weight)), abs=5e-5)


def test_stable_above_a_quarter_only():
    error = np.abs(trajectory(1500, 0.2, 0.24, 0.249, 0.251, 0.26) - P.numpy()).max(2)[-2:]
    assert (error[:, :3] > 0.01).all()  # they go to and fro for ever
    assert error[1, 3] < 1e-3
    assert error[1, 4] < 1e-9


def test_linearised_period():
    """At q = p a small change is multiplied by 1 - 1/(2 lambda), with its sign."""
    change = torch.tensor([[1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 0.0, 0.0]], dtype=torch.float64) * 1e-7
    for weight in (0.3, 1.0, 3.0):
        q = P + change
        step = generator_step(q, P.log() - (P + q).log(), torch.tensor([[weight]], dtype=torch.float64))
        np.testing.assert_allclose((step - P).numpy(), (1 - 1 / (2 * weight)) * change.numpy(), atol=1e-13)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_collapse_in_one_step_without_the_term(seed):
    start, after = trajectory(1, 0.0, seed=seed)[:, 0]
    d = P.numpy() / (P.numpy() + start)
    assert after.tolist() == [float(i == d.argmax()) for i in range(8)]


def test_without_the_term_a_collapsed_generator_leaps():
    """Where nothing is generated D is 1: the first such state is next."""
    found = trajectory(6, 0.0)[1:, 0]
    assert (found.max(1) == 1).all()
    assert (found[1:].argmax(1) != found[:-1].argmax(1)).all()


def test_states_that_are_lost_stay_lost_under_the_term():
    old = torch.tensor([[0.0, 0.5, 0.5]], dtype=torch.float64)
    step = generator_step(
        old, torch.tensor([[0.0, -1.0, -2.0]], dtype=torch.float64), torch.tensor([[1e-30]], dtype=torch.float64)
    )
    assert step.tolist() == [[0.0, 1.0, 0.0]]


def joint_kl(q: np.ndarray) -> float:
    """(14) term by term: KL(q(x, y)||p(x, y)) with D of (18)."""
    p = P.numpy()
    d = p / (p + q)
    return float((p / 2 * np.log(p / 2 / (d * p)) + q / 2 * np.log(q / 2 / ((1 - d) * p))).sum())


def test_joint_kl_falls_monotonically():
    """lambda = 1 alternates exact minima of (14)."""
    for seed in range(5):
        pack, found = FinitePack([small(seed=seed)], CPU), []
        for evaluation in range(20):
            found.append(pack.measures(evaluation)["joint_kl"].item())
            assert found[-1] == pytest.approx(joint_kl(pack.g.flat[0].numpy()), abs=1e-14)
            pack.period(diagnose=False)
        assert (np.diff(found) < 0).all()


def test_joint_kl_rises_where_lambda_is_not_that_of_the_derivation():
    pack = FinitePack([small(reg_weight=0.2)], CPU)
    found = [(pack.measures(0)["joint_kl"].item(), pack.period(diagnose=False))[0] for _ in range(20)]
    assert (np.diff(found) > 0).any()


def test_diagnostics():
    pack = FinitePack([small(reg_weight=weight) for weight in (0.0, 0.5)], CPU)
    p, q = P.numpy(), pack.g.flat[1].numpy().copy()
    out = {name: value.numpy() for name, value in pack.period(diagnose=True).items()}
    mixture = (p + q) / 2
    jsd = ((p * np.log(p / mixture)).sum() + (q * np.log(q / mixture)).sum()) / 2
    d = p / (p + q)
    assert out["d_loss"] == pytest.approx(np.full(2, 2 * math.log(2) - 2 * jsd))
    assert out["g_loss"] == pytest.approx([-np.log(d.max()), -0.5 * np.log((q * d**2).sum())])
    assert out["d_acc_real"] == pytest.approx(np.full(2, p[d > 0.5].sum()))
    assert out["d_acc_fake"] == pytest.approx(np.full(2, q[d < 0.5].sum()))
    assert out["drift"][1] == pytest.approx(((pack.g.flat[1].numpy() - q) ** 2).mean())


@pytest.mark.parametrize(("weight", "expected"), [(0.0, "mode_collapse_early"), (0.2, "stalled"), (1.0, "converged")])
def test_outcomes(weight, expected):
    assert outcome(FiniteConfig(reg_weight=weight).resolve()) == expected


def test_resuming_is_bitwise_the_same():
    check_resuming([small(seed=seed, reg_weight=weight) for seed in (0, 1) for weight in (0.0, 0.2, 1.0)])


def test_a_broken_trial_changes_no_bit_of_its_neighbours(monkeypatch):
    """An exact step cannot diverge: one trial's parameters are spoilt before training."""
    healthy, other, wild = [small(seed=s) for s in (0, 1, 2)], small(seed=9), small(seed=9, reg_weight=2.0)
    inner = FinitePack.__init__

    def spoilt(pack: FinitePack, configs: Any, device: torch.device) -> None:
        inner(pack, configs, device)
        for row, config in zip(pack.g.flat, configs, strict=True):
            if config == wild:
                row[3] = torch.inf

    monkeypatch.setattr(FinitePack, "__init__", spoilt)
    check_isolation(healthy, other, wild)


def test_a_pack_of_one():
    check_pack_of_one([small(seed=seed, reg_weight=weight) for seed in (0, 1) for weight in (0.0, 0.3, 1.0)])


CHANGES: dict[str, Any] = {"seed": 1, "d_updates": 16, "evaluations": 3, "reg_weight": 2.0, "start_sd": 0.5}
ONE_VALUE = {"data", "precision", "batch_size"}


def test_every_hyperparameter_is_tried():
    assert set(CHANGES) | ONE_VALUE == set(hyperparameters(FiniteConfig))


@pytest.mark.parametrize("field", CHANGES)
def test_every_hyperparameter_changes_the_run(field):
    before = small()
    (a,), (b,) = (train(c).values() for c in (before, dataclasses.replace(before, **{field: CHANGES[field]})))
    assert values(a) != values(b)


def test_the_ceiling_is_that_of_the_start():
    keys = {reference_key(small(**fields)) for fields in ({}, {"start_sd": 0.0})}
    assert len(keys) == 2
    assert reference_key(small()) == reference_key(small(reg_weight=0.7, seed=3))
    equal = reference(small(start_sd=0.0))["dist_ceiling"]
    assert equal == pytest.approx(math.log(8) + (P * P.log()).sum().item())


def test_other_data_are_refused():
    with pytest.raises(ValueError, match=r"^data: model finite_gan learns states8 only, got 'point0'"):
        FiniteConfig(data="point0").resolve()
