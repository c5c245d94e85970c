"""The Dirac-GAN against its published trajectories and against the eigenvalues of its linearisation."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.configs import values
from tests.trainables.models.exact import check_isolation, check_pack_of_one, check_resuming, outcome, outcomes, train
from vistudy.trainables.config import hyperparameters
from vistudy.trainables.engine import reference, reference_key
from vistudy.trainables.models.base import ANCHORS
from vistudy.trainables.models.dirac_gan import DiracConfig, DiracPack, period_map

CPU = torch.device("cpu")
SIMULTANEOUS = {"schedule": "simultaneous"}


def eigenvalues(config: DiracConfig) -> np.ndarray:
    """Of a period near the equilibrium; locally stable if no modulus exceeds 1."""
    return np.linalg.eigvals(period_map(config)).astype(complex)


def config(**fields: Any) -> DiracConfig:
    return DiracConfig(**({"start_sd": 0.0} | fields)).resolve()


def small(**fields: Any) -> DiracConfig:
    defaults: dict[str, Any] = {"d_updates": 24, "evaluations": 4, "g_steps": 2, "d_steps": 3, "reg_weight": 0.5}
    return DiracConfig(**(defaults | fields)).resolve()


def after(periods: int, *configs: DiracConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """theta and psi of a pack, (K,) each."""
    pack = DiracPack(configs, CPU)
    for _ in range(periods):
        pack.period(diagnose=False)
    return pack.g.flat[:, 0], pack.d.flat[:, 0]


def radius(**fields: Any) -> float:
    return float(np.abs(eigenvalues(config(**fields))).max())


@pytest.mark.parametrize(
    ("fields", "distances"),
    [
        ({"loss": "saturating"}, (3.096949, 1.421019, 1.845274)),
        ({"loss": "non_saturating"}, (0.640207, 0.283923, 0.138877)),
        ({"loss": "wgan", "d_clip": 1.0}, (1.002152, 1.024119, 0.916885)),
        ({"loss": "saturating", "r1_weight": 0.3}, (0.000003, 0.0)),
    ],
)
def test_published_trajectories(fields, distances):
    """Distance from the equilibrium after 500 periods with rate .2 from (1, 1), by Mescheder et al.'s code.

    Simultaneous, alternating, alternating with five D steps.
    """
    for schedule, expected in zip((SIMULTANEOUS, {}, {"d_steps": 5}), distances, strict=False):
        theta, psi = after(500, config(**fields, **schedule))
        assert math.hypot(theta, psi) == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize("anchor", ["period_start", "param_space"])
def test_the_term_is_nothing_with_one_step_a_period(anchor):
    trials = [config(reg_weight=weight, anchor=anchor) for weight in (0.0, 1.0, 50.0)]
    theta, psi = after(500, *trials)
    assert torch.equal(theta, theta[:1].expand(3))
    assert torch.equal(psi, psi[:1].expand(3))
    assert (theta[0].item(), psi[0].item()) == pytest.approx((0.204888, 0.196553), abs=6e-7)
    assert all(trial.inert() == ("reg_weight",) for trial in trials)


@pytest.mark.parametrize("anchor", ["period_start", "param_space"])
def test_trajectory_under_the_term(anchor):
    trial = config(reg_weight=1.0, g_steps=5, anchor=anchor)
    assert torch.cat(after(500, trial)).tolist() == pytest.approx([-0.003643, 0.183602], abs=6e-7)
    assert trial.inert() == ()


def test_displacement_of_a_generator_phase():
    """Against a fixed D, k steps of rate h go h g (1 - (1 - 2 h lambda)^k) / (2 h lambda)."""
    h, weight, k = 0.2, 1.3, 7
    theta, _ = after(1, config(loss="wgan", g_lr=h, reg_weight=weight, g_steps=k))
    shrink = (1 - (1 - 2 * h * weight) ** k) / (2 * h * weight)
    assert 1 - theta.item() == pytest.approx(h * shrink, rel=1e-12)


TABLE = {
    1: (2.00, 2.00, 2.00, 2.00, 2.00, 2.00),
    2: (1.41, 1.47, 1.75, 2.00, 1.00, 0.20),
    5: (0.89, 0.99, 1.61, 2.00, 1.21, 0.36),
    20: (0.45, 0.58, 1.60, 2.00, 1.00, 0.20),
}
"""Largest rate whose radius does not exceed 1, by g_steps, for lambda = 0, .05, .2, .5, 1, 5; slope 1, one D step."""


@pytest.mark.parametrize("g_steps", TABLE)
def test_largest_stable_rate_under_the_term(g_steps):
    for weight, expected in zip((0, 0.05, 0.2, 0.5, 1, 5), TABLE[g_steps], strict=True):
        fields = {"loss": "wgan", "g_steps": g_steps, "reg_weight": weight}
        rates = np.arange(expected - 0.03, 2.5, 0.002)
        stable = [h for h in rates if radius(**fields, g_lr=h, d_lr=h) <= 1 + 1e-6]
        assert max(stable) == pytest.approx(expected, abs=0.008)


def test_mescheders_bound_of_alternating_descent():
    """Modulus 1 as long as sqrt(n_G n_D) h a <= 2."""
    steps = {"g_steps": 4, "d_steps": 4}
    assert radius(**steps, g_lr=1.0, d_lr=1.0) == pytest.approx(1.0, abs=1e-6)
    assert radius(**steps, g_lr=1.1, d_lr=1.1) == pytest.approx(2.428, abs=5e-4)
    for g_steps, d_steps in ((1, 1), (1, 5), (5, 2)):
        edge = 2 / math.sqrt(g_steps * d_steps) / 0.5
        for share, stable in ((0.99, True), (1.01, False)):
            h = share * edge
            assert (radius(g_steps=g_steps, d_steps=d_steps, g_lr=h, d_lr=h) <= 1 + 1e-9) == stable


@pytest.mark.parametrize("h", [0.01, 0.2, 1.0])
def test_modulus_of_simultaneous_descent(h):
    found = np.abs(eigenvalues(config(**SIMULTANEOUS, g_lr=h, d_lr=h)))
    assert sorted(found)[-2:] == pytest.approx([math.hypot(1, h / 2)] * 2)


@pytest.mark.parametrize(
    ("gamma", "expected"), [(0.0, 0.5j), (0.3, -0.15 + 0.47697j), (1.0, -0.5 + 0j), (1.25, -0.25 + 0j)]
)
def test_eigenvalues_of_the_continuous_dynamics_under_r1(gamma, expected):
    """-gamma/2 +- sqrt(gamma^2/4 - 1/4), critical at gamma = 1: of a simultaneous step, (eigenvalue - 1) / h."""
    h = 0.01
    rates = (np.linalg.eigvals(period_map(config(**SIMULTANEOUS, g_lr=h, d_lr=h, r1_weight=gamma))[:2, :2]) - 1) / h
    assert min(abs(rates - expected)) < 1e-5
    assert rates.sum() == pytest.approx(-gamma)


@pytest.mark.parametrize(
    ("fields", "radii"),
    [
        ({"anchor": "previous_update"}, (0.999815, 0.999305, 0.998978)),
        ({"anchor": "previous_period"}, (0.999815, 0.999305, 0.998978)),
        ({"anchor": "lag", "anchor_lag": 1}, (0.999815, 0.999305, 0.998978)),
        ({"anchor": "ema", "anchor_decay": 0.9}, (0.992421, 0.988140, 0.991327)),
        ({"anchor": "period_start"}, (1.0, 1.0, 1.0)),
        ({"anchor": "param_space"}, (1.0, 1.0, 1.0)),
    ],
)
def test_radius_by_anchor(fields, radii):
    """With one G step of rate .2 and slope .5, for lambda = .1, .5, 1."""
    assert [radius(reg_weight=weight, **fields) for weight in (0.1, 0.5, 1.0)] == pytest.approx(radii, abs=6e-7)


def test_negative_momentum_above_1_explodes():
    """2 h lambda > 1 with the previous update as the anchor."""
    assert radius(reg_weight=2.4, anchor="previous_update") < 1 < radius(reg_weight=2.6, anchor="previous_update")


def test_the_papers_anchor_never_contracts():
    """The map of a period has determinant 1."""
    for weight in (0.0, 0.3, 2.0):
        moved = period_map(config(reg_weight=weight, g_steps=4, d_steps=2))
        assert np.linalg.det(moved[:2, :2] + moved[:2, 2:] @ np.array([[1.0, 0.0]])) == pytest.approx(1.0)


@pytest.mark.parametrize("loss", ["non_saturating", "saturating", "wgan"])
@pytest.mark.parametrize("schedule", ["alternating", "simultaneous"])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_period_of_the_pack_is_the_linear_map(anchor, schedule, loss):
    """From each unit vector of (theta, psi, remembered thetas), scaled to where everything is linear."""
    trial = config(
        anchor=anchor, schedule=schedule, loss=loss, anchor_lag=3, anchor_decay=0.8, g_steps=3, d_steps=2,
        g_lr=0.3, d_lr=0.2, reg_weight=0.7, r1_weight=0.4,
    )  # fmt: skip
    expected, scale = period_map(trial), 1e-6
    size = len(expected)
    pack, start = DiracPack([trial] * size, CPU), scale * torch.eye(size, dtype=torch.float64)
    past = start[:, 2:].T.unsqueeze(2).contiguous()
    pack.load({"d_updates": torch.tensor(0), "g.flat": start[:, :1], "d.flat": start[:, 1:2], "anchor.past": past})
    pack.period(diagnose=True)
    now = torch.cat((pack.g.flat, pack.d.flat, pack.anchor.state()["past"].squeeze(2).T), 1)
    np.testing.assert_allclose(now.T.numpy() / scale, expected, atol=1e-9)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_contraction_of_the_pack_is_the_radius(anchor):
    """Slope of the logarithm of the distance from the equilibrium over 300 periods, for three weights in one pack."""
    near = {"start_theta": 1e-5, "start_psi": 1e-5, "anchor": anchor, "anchor_decay": 0.9, "g_steps": 2}
    trials = [config(reg_weight=weight, **near) for weight in (0.0, 0.3, 1.0)]
    pack, distances = DiracPack(trials, CPU), []
    for _ in range(600):
        pack.period(diagnose=False)
        distances.append(torch.hypot(pack.g.flat, pack.d.flat)[:, 0].log().numpy())
    measured = np.exp(np.polyfit(np.arange(300), np.array(distances[300:]), 1)[0])
    expected = [np.abs(eigenvalues(trial)).max() for trial in trials]
    assert measured.tolist() == pytest.approx(expected, abs=2e-4)


def test_start():
    """The seed moves theta and psi, each on its own and by start_sd times a standard normal number."""
    trials = [config(start_theta=2.0, start_psi=-3.0, start_sd=0.1, seed=seed) for seed in range(400)]
    theta, psi = after(0, *trials)
    moved = torch.stack((theta - 2, psi + 3)) / 0.1
    assert moved.mean(1).tolist() == pytest.approx([0, 0], abs=0.15)
    assert torch.cov(moved).flatten().tolist() == pytest.approx([1, 0, 0, 1], abs=0.2)
    assert torch.cat(after(0, trials[7])).tolist() == [theta[7].item(), psi[7].item()]


@pytest.mark.parametrize(("d_steps", "g_steps"), [(1, 1), (5, 2), (1, 4)])
def test_steps_are_counted(d_steps, g_steps):
    trial = small(d_steps=d_steps, g_steps=g_steps, d_updates=20)
    assert trial.steps_of_period() == (d_steps, g_steps)
    (records,) = train(trial).values()
    assert [record.step for record in records] == [0, 5, 10, 15, 20]


def test_clipping():
    pack = DiracPack([config(loss="wgan", d_clip=0.5)], CPU)
    for _ in range(100):
        pack.period(diagnose=False)
        assert abs(pack.d.flat.item()) <= 0.5


def test_diagnostics():
    pack = DiracPack([config(reg_weight=0.5, g_steps=2)], CPU)
    out = {name: value.item() for name, value in pack.period(diagnose=True).items()}
    sigmoid = 1 / (1 + math.exp(-1))
    middle = 1 - 0.2 * sigmoid
    adv = 1 / (1 + math.exp(-middle))
    theta = middle - 0.2 * (adv + (middle - 1))
    assert out["g_grad_norm_adv"] == pytest.approx(adv)
    assert out["g_grad_norm_reg"] == pytest.approx(1 - middle)
    assert out["rho"] == pytest.approx((1 - middle) / adv)
    assert out["g_loss"] == pytest.approx(math.log1p(math.exp(middle)) + 0.5 * (middle - 1) ** 2)
    assert out["drift"] == pytest.approx((theta - 1) ** 2)
    assert out["d_grad_norm"] == pytest.approx(theta / (1 + math.exp(theta)))
    assert out["d_loss"] == pytest.approx(math.log(2) + math.log1p(math.exp(-theta)))
    assert (out["d_acc_real"], out["d_acc_fake"]) == (0.0, 1.0)


def test_diagnosing_does_not_change_training():
    quiet, loud = (DiracPack([small()], CPU) for _ in range(2))
    for _ in range(5):
        assert quiet.period(diagnose=False) == {}
        loud.period(diagnose=True)
    assert torch.equal(torch.cat((quiet.g.flat, quiet.d.flat)), torch.cat((loud.g.flat, loud.d.flat)))


@pytest.mark.parametrize("anchor", ANCHORS)
def test_resuming_is_bitwise_the_same(anchor):
    check_resuming([small(seed=seed, anchor=anchor, g_lr=lr) for seed in (0, 1) for lr in (0.1, 0.3)])


def test_a_diverging_trial_changes_no_bit_of_its_neighbours():
    healthy, wild = [small(seed=s, loss="wgan") for s in (0, 1, 2)], small(seed=9, loss="wgan", g_lr=1e30, d_lr=1e30)
    check_isolation(healthy, small(seed=9, loss="wgan"), wild)


def test_a_pack_of_one():
    check_pack_of_one([small(seed=seed, g_lr=lr) for seed in (0, 1) for lr in (0.1, 0.2, 0.3)])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"loss": "saturating"}, "oscillating"),
        ({"loss": "saturating", "r1_weight": 1.0}, "converged"),
        ({"anchor": "ema", "anchor_decay": 0.9, "reg_weight": 1.0}, "converged"),
        ({"loss": "wgan", "g_lr": 2.1, "d_lr": 2.1}, "diverged"),
        ({"loss": "wgan", "g_steps": 5, "g_lr": 1.5, "d_lr": 1.5}, "diverged"),
        ({"loss": "wgan", "g_steps": 5, "g_lr": 1.5, "d_lr": 1.5, "reg_weight": 0.2}, "oscillating"),
    ],
)
def test_outcomes(fields, expected):
    assert outcome(DiracConfig(**fields).resolve()) == expected


def test_a_grid_diverges_where_the_radius_says_so():
    """Rates and weights around the boundary, which is no monotone function of lambda; slope 1, two G steps."""
    weights, rates = (0.0, 0.2, 0.5, 1.0), (0.9, 1.1, 1.35, 1.5, 1.7, 1.9, 2.1)
    fields = {"loss": "wgan", "g_steps": 2, "d_updates": 300, "evaluations": 20}
    trials = [config(**fields, g_lr=h, d_lr=h, reg_weight=weight) for weight in weights for h in rates]
    unstable = [bool(np.abs(eigenvalues(trial)).max() > 1 + 1e-6) for trial in trials]
    assert [label == "diverged" for label in outcomes(*trials)] == unstable
    assert [sum(unstable[i : i + 7]) for i in range(0, 28, 7)] == [4, 2, 1, 6]


CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "seed": ({}, 1),
    "d_updates": ({}, 27),
    "evaluations": ({}, 2),
    "g_lr": ({}, 0.1),
    "d_lr": ({}, 0.1),
    "d_steps": ({}, 2),
    "g_steps": ({}, 3),
    "loss": ({}, "saturating"),
    "schedule": ({}, "simultaneous"),
    "reg_weight": ({}, 0.1),
    "anchor": ({}, "ema"),
    "anchor_lag": ({"anchor": "lag"}, 3),
    "anchor_decay": ({"anchor": "ema"}, 0.5),
    "r1_weight": ({}, 0.1),
    "d_clip": ({}, 0.1),
    "start_theta": ({}, 1.1),
    "start_psi": ({}, 1.1),
    "start_sd": ({}, 0.2),
}
ONE_VALUE = {"data", "precision", "batch_size"}


def test_every_hyperparameter_is_tried():
    assert set(CHANGES) | ONE_VALUE == set(hyperparameters(DiracConfig))


@pytest.mark.parametrize("field", CHANGES)
def test_every_hyperparameter_changes_the_run(field):
    context, value = CHANGES[field]
    before = small(**context)
    (a,), (b,) = (train(c).values() for c in (before, dataclasses.replace(before, **{field: value}).resolve()))
    assert values(a) != values(b)


def test_what_is_not_read_makes_no_other_trial():
    assert small(batch_size=7, anchor_lag=5, anchor_decay=0.3).trial_id() == small().trial_id()
    assert config(seed=7).trial_id() == config().trial_id()
    assert small(seed=7).trial_id() != small().trial_id()


def test_the_ceiling_is_that_of_the_start():
    keys = {reference_key(small(**fields)) for fields in ({}, {"start_theta": 2.0}, {"start_sd": 0.0})}
    assert len(keys) == 3
    assert reference_key(small()) == reference_key(small(g_lr=0.7, seed=3, g_steps=4))
    assert reference(config(start_theta=2.0))["dist_ceiling"] == 2


def test_other_data_are_refused():
    with pytest.raises(ValueError, match=r"^data: model dirac_gan learns point0 only, got 'ring8'"):
        DiracConfig(data="ring8").resolve()
