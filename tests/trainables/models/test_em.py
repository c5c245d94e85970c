"""EM: scikit-learn's iterations, monotony, relaxation in (0, 2), the anchor's damping, and how trials fail."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from tests.trainables.configs import train, values
from vistudy.trainables.config import hyperparameters
from vistudy.trainables.data import DATASETS
from vistudy.trainables.engine import Engine
from vistudy.trainables.models.em import FORMS, EmConfig, EmPack, log_joint

CPU = torch.device("cpu")


def em(**fields: Any) -> EmConfig:
    return EmConfig(**({"data": "mog_full", "d_updates": 12, "evaluations": 3, "points": 300} | fields)).resolve()


def pack(*configs: EmConfig) -> EmPack:
    return EmPack(configs, CPU)


def iterate(p: EmPack, times: int) -> EmPack:
    for _ in range(times):
        p.period(diagnose=False)
    return p


def residual(p: EmPack) -> list[float]:
    """Largest change that one EM iteration would make, a trial."""
    found: list[float] = (p.em()[0] - p.mixture.flat).abs().amax(1).tolist()
    return found


def start(p: EmPack, **values: np.ndarray | torch.Tensor) -> None:
    """Put parameters in the place of the initial ones, in every trial."""
    for name, value in values.items():
        p.mixture.frozen[name].copy_(torch.as_tensor(value))


def precisions(covs: np.ndarray, form: str) -> np.ndarray:
    inverse = np.linalg.inv(covs)
    diagonal = np.diagonal(inverse, axis1=1, axis2=2)
    return {"full": inverse, "diag": diagonal, "spherical": diagonal[:, 0]}[form]


@pytest.mark.parametrize("form", FORMS)
def test_sixty_iterations_are_scikit_learns(form):
    """And the order of things: its bound is of before the last M step, its score of after."""
    p = pack(*(em(covariance=form, init="random", seed=s, points=1500) for s in (0, 1)))
    starts = [{name: value[i].numpy().copy() for name, value in p.mixture.frozen.items()} for i in (0, 1)]
    iterate(p, 59)
    last, measures = p.period(diagnose=True), p.measures(1)
    assert (measures["log_likelihood"] + last["g_loss"]).max() > 1e-9  # it still moves: the order can be told
    for i, first in enumerate(starts):
        theirs = GaussianMixture(
            p.config.components, covariance_type=form, tol=0, max_iter=60, reg_covar=1e-6,
            weights_init=first["weights"], means_init=first["means"],
            precisions_init=precisions(first["covariances"], form),
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # with tolerance 0 it does not call itself converged
            theirs.fit(p.x[i].numpy())
        assert theirs.n_iter_ == 60
        mine = {name: value[i].numpy() for name, value in p.mixture.frozen.items()}
        np.testing.assert_allclose(mine["weights"], theirs.weights_, rtol=0, atol=1e-10)
        np.testing.assert_allclose(mine["means"], theirs.means_, rtol=0, atol=1e-10)
        covs = theirs.covariances_ if form == "full" else np.reshape(theirs.covariances_, (5, -1, 1)) * np.eye(2)
        np.testing.assert_allclose(mine["covariances"], covs, rtol=0, atol=1e-10)
        assert measures["log_likelihood"][i].item() == pytest.approx(theirs.score(p.x[i].numpy()), abs=1e-10)
        assert -last["g_loss"][i].item() == pytest.approx(theirs.lower_bound_, abs=1e-10)
        held_out = DATASETS["mog_full"].real(5000, "reference").astype(float)
        assert -measures["test_nll"][i].item() == pytest.approx(theirs.score(held_out), abs=1e-9)


def test_the_likelihood_of_the_true_mixture_is_the_data_sets():
    p, data = pack(em()), DATASETS["mog_full"]
    start(p, weights=data.weights, means=data.means, covariances=data.covariances)
    points = data.real(500, "held_out")
    mine = log_joint(torch.from_numpy(points).double()[None], **p.mixture.frozen).logsumexp(1)[0]
    np.testing.assert_allclose(mine.numpy(), data.log_density(points), rtol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("init", ["spread", "points", "random"])
def test_the_likelihood_never_falls(form, init):
    """Nor under the term, which leaves a step that raises (8) less."""
    same = {"covariance": form, "init": init, "reg_covar": 0.0, "points": 1000}
    p = pack(*(em(seed=s, reg_weight=w, **same) for s in (0, 1) for w in (0.0, 50.0)))
    losses = torch.stack([p.period(diagnose=True)["g_loss"] for _ in range(40)])
    assert losses.isfinite().all()
    assert (losses.diff(dim=0) <= 1e-12).all()
    assert (losses[0] - losses[-1] > 0.01).all()


def test_relaxation_converges_between_0_and_2():
    """Near an optimum, the mean of all means is learnt in one EM step: so its error shrinks by 1 - eta an iteration."""
    etas = (0.2, 1.0, 1.5, 1.9, 2.1)
    p = pack(*(em(relaxation=eta, seed=1) for eta in etas))
    p.mixture.flat.copy_(iterate(pack(em(seed=1)), 200).mixture.flat)
    p.mixture.frozen["means"].add_(1e-6)
    early, late = (np.array(residual(iterate(p, 40))) for _ in range(2))
    assert (late[-2:] / early[-2:]) ** (1 / 40) == pytest.approx([0.9, 1.1], rel=1e-3)
    left = residual(iterate(p, 320))
    assert max(left[:-1]) < 1e-13
    assert math.isnan(left[-1])


@pytest.mark.parametrize("weight", [0.5, 100.0])
def test_the_term_damps_a_round_components_step_by_n_over_n_plus_2_lambda_variance(weight):
    free, held = pack(em(covariance="spherical")), pack(em(covariance="spherical", reg_weight=weight))
    before = {name: value.clone() for name, value in free.mixture.frozen.items()}
    iterate(free, 1)
    iterate(held, 1)
    counts = free.mixture.frozen["weights"][0] * 300  # responsibilities are those of before: the same in both
    variance = before["covariances"][0, :, 0, 0]
    share = counts / (counts + 2 * weight * variance)
    step, left = (p.mixture.frozen["means"][0] - before["means"][0] for p in (free, held))
    torch.testing.assert_close(left, share[:, None] * step, rtol=1e-10, atol=1e-13)
    assert (share < 1).all()


def test_the_term_damps_slanted_components_along_each_of_their_axes():
    free, held = pack(em()), pack(em(reg_weight=100.0))
    for p in (free, held):
        start(p, covariances=DATASETS["mog_full"].covariances)
    before, covs = free.mixture.frozen["means"][0].clone(), free.mixture.frozen["covariances"][0].clone()
    iterate(free, 1)
    iterate(held, 1)
    counts = free.mixture.frozen["weights"][0] * 300
    variances, axes = torch.linalg.eigh(covs)
    step, left = (axes.mT @ (p.mixture.frozen["means"][0] - before)[..., None] for p in (free, held))
    share = counts[:, None] / (counts[:, None] + 200 * variances)
    torch.testing.assert_close(left, share[..., None] * step, rtol=1e-9, atol=1e-12)


def test_the_term_is_a_null_at_the_end_and_a_brake_before():
    """The negative control: the same likelihood in the end, and less of it on the way, for every seed."""
    weights = (0.0, 5.0, 500.0)
    p = pack(*(em(seed=s, reg_weight=w) for s in range(4) for w in weights))
    p.mixture.flat.copy_(iterate(pack(*(em(seed=s) for s in range(4))), 400).mixture.flat.repeat_interleave(3, 0))
    optimum = p.measures(0)["log_likelihood"]
    p.mixture.frozen["means"].add_(0.05)
    missing = (optimum - iterate(p, 1).measures(0)["log_likelihood"]).view(4, 3)
    assert (missing.diff(dim=1) > 0).all()
    torch.testing.assert_close(iterate(p, 600).measures(0)["log_likelihood"], optimum, rtol=0, atol=1e-8)


def test_a_singular_covariance_ends_its_trial_and_no_other():
    """Twelve points for five full covariances: without reg_covar a likelihood without bound."""
    small = {"points": 12, "d_updates": 40, "evaluations": 4}
    neighbours = [em(seed=s, reg_covar=0.1, **small) for s in (0, 1, 2)]
    calm = train(neighbours[0], em(seed=3, reg_covar=0.1, **small), *neighbours[1:])
    broken = em(seed=3, reg_covar=0.0, **small)
    beside = train(neighbours[0], broken, *neighbours[1:])
    for config in neighbours:
        assert values(calm[config.trial_id()]) == values(beside[config.trial_id()])
        assert calm[config.trial_id()][-1].values["finite"] == 1.0
    last = beside[broken.trial_id()][-1]
    assert (last.values["finite"], last.evaluation) == (0.0, 1)
    assert math.isnan(last.values["log_likelihood"])


def test_a_singular_covariance_of_the_last_iteration_is_seen_by_its_samples():
    p = pack(em(), em(seed=1))
    p.mixture.frozen["covariances"][0, 2] = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    assert p.mixture.flat.isfinite().all()
    samples, _ = p.evaluation_samples(500, 0)
    assert samples.isfinite().flatten(1).all(1).tolist() == [False, True]
    assert p.measures(0)["test_nll"].isfinite().tolist() == [False, True]


def test_an_empty_component_ends_its_trial_and_no_other():
    configs = [em(), em(seed=1), em(seed=2)]
    p, alone = pack(*configs), pack(*configs)
    p.mixture.frozen["means"][1, 0] = 1e3
    iterate(p, 2)
    iterate(alone, 2)
    assert p.mixture.flat.isfinite().all(1).tolist() == [True, False, True]
    assert p.mixture.flat[1].isnan().all()
    assert torch.equal(p.mixture.flat[::2], alone.mixture.flat[::2])


def test_samples_are_of_the_mixture():
    p, data = pack(em()), DATASETS["mog_full"]
    start(p, weights=data.weights, means=data.means, covariances=data.covariances)
    samples = p.evaluation_samples(40_000, 0)[0][0].double()
    assert p.evaluation_samples(40_000, 0)[0].dtype == torch.float32
    mean = torch.from_numpy((data.weights[:, None] * data.means).sum(0))
    outer = data.covariances + data.means[:, :, None] * data.means[:, None, :].astype(float)
    second = torch.from_numpy((data.weights[:, None, None] * outer).sum(0))
    torch.testing.assert_close(samples.mean(0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(samples.T @ samples / len(samples), second, rtol=0.03, atol=0.03)
    start(p, weights=np.eye(5)[1])
    alone = p.evaluation_samples(40_000, 0)[0][0].double()
    torch.testing.assert_close(alone.T.cov(), torch.from_numpy(data.covariances[1]), rtol=0.03, atol=0.003)


@pytest.mark.parametrize("data", ["ring8", "mog_full"])
def test_a_stop_and_a_restart_change_no_bit(data):
    configs = [em(data=data, seed=s, relaxation=eta, reg_weight=5.0) for s in (0, 1) for eta in (0.5, 1.0)]
    through = [r for item in Engine(configs).evaluations() for r in item.records]
    first, records = Engine(configs), []
    for item in first.evaluations():
        records += item.records
        if item.index == 2:
            break
    second = Engine(configs)
    second.restore(first.checkpoint())
    records += [r for item in second.evaluations() for r in item.records]
    assert values(records) == values(through)
    assert set(second.weights()) >= {
        f"{configs[0].trial_id()}/g/{name}" for name in ("weights", "means", "covariances")
    }


def test_a_pack_of_one_equals_a_pack_of_many():
    configs = [
        em(seed=s, relaxation=eta, init=init) for s in (0, 1) for eta in (0.5, 1.0) for init in ("spread", "random")
    ]
    packed = train(*configs)
    for config in configs[::3]:
        (alone,) = train(config).values()
        for one, many in zip(alone, packed[config.trial_id()], strict=True):
            assert one.values.keys() == many.values.keys()
            for name, value in one.values.items():
                assert value == pytest.approx(many.values[name], rel=1e-6, abs=1e-9), name


def test_records_hold_the_likelihood():
    (records,) = train(em()).values()
    always = {"log_likelihood", "test_nll", "smallest_weight", "g_param_norm", "max_abs_sample", "finite", "dist"}
    assert always <= set(records[0].values)
    assert always | {"g_loss", "drift"} <= set(records[1].values)
    assert "g_loss" not in records[0].values


CHANGES: dict[str, Any] = {
    "data": "ring8",
    "seed": 1,
    "d_updates": 14,
    "evaluations": 4,
    "components": 3,
    "covariance": "diag",
    "relaxation": 0.5,
    "reg_weight": 5.0,
    "reg_covar": 1e-3,
    "init": "random",
    "points": 200,
}
UNREAD = {"batch_size", "precision"}


def test_every_hyperparameter_is_tried():
    assert set(CHANGES) | UNREAD == set(hyperparameters(EmConfig))


@pytest.mark.parametrize("field", CHANGES)
def test_every_hyperparameter_changes_the_run(field):
    before = em()
    after = dataclasses.replace(before, **{"data_fingerprint": None, field: CHANGES[field]}).resolve()
    assert getattr(before, field) != CHANGES[field]
    (a,), (b,) = (train(c).values() for c in (before, after))
    assert values(a) != values(b)


def test_what_em_does_not_read_makes_no_other_trial():
    assert em(batch_size=8).trial_id() == em().trial_id()
    assert EmConfig.from_dict(em().to_dict()) == em()


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"data": "digits"}, "allowed: .*ring8"), ({"components": 7, "points": 6}, "raise 'points'")],
)
def test_what_em_cannot_learn_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        em(**fields)


def test_starts_are_keyed_and_of_their_kind():
    p = pack(*(em(init=init, seed=s) for init in ("spread", "points", "random") for s in (0, 0, 1)))
    means = p.mixture.frozen["means"]
    for i, init in enumerate(("spread", "points", "random")):
        a, b, c = means[3 * i : 3 * i + 3]
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        among = (a[:, None] == p.x[3 * i][None]).all(2).any(1)
        assert among.all() == (init != "random")
        assert len({tuple(mean.tolist()) for mean in a}) == 5
    nearest = torch.stack([torch.pdist(m).min() for m in means]).view(3, 3)
    assert nearest[0].mean() > nearest[1].mean()
    assert torch.equal(p.x[0], p.x[1])
    assert not torch.equal(p.x[0], p.x[2])
    assert em(init="points").untrained() == em(init="random")
