"""VAE: (7) with its constants, and the term on its decoder as a null. Its linear case: `test_vae_linear.py`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from tests.trainables.configs import train, values
from vistudy.trainables import losses
from vistudy.trainables.config import hyperparameters
from vistudy.trainables.engine import Engine
from vistudy.trainables.models.base import ANCHORS
from vistudy.trainables.models.vae import VaeConfig, VaePack

CPU = torch.device("cpu")
DIGITS = {"data": "digits", "width": 4, "z_dim": 3}


def vae(**fields: Any) -> VaeConfig:
    defaults = {"d_updates": 20, "evaluations": 2, "bn_recalibration_images": 2048, "g_steps": 2, "batch_size": 10}
    return VaeConfig(**(defaults | fields)).resolve()


def pack(*configs: VaeConfig) -> VaePack:
    return VaePack(configs, CPU)


def test_second_term_is_the_divergence_of_two_gaussians():
    mean, log_variance = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    code = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(code, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(2)
    torch.testing.assert_close(losses.code_kl(mean, log_variance), expected)


def test_first_term_of_a_gaussian_decoder_is_its_log_density():
    x, mean = torch.randn(2, 5, 1, 4, 4, dtype=torch.float64), torch.randn(2, 5, 1, 4, 4, dtype=torch.float64)
    sigma = torch.tensor([[0.3], [2.0]], dtype=torch.float64)
    expected = -Normal(mean, sigma.view(2, 1, 1, 1, 1).expand_as(mean)).log_prob(x).flatten(2).sum(2)
    torch.testing.assert_close(losses.gaussian_nll(x, mean, sigma.log()), expected)


def test_first_term_of_a_bernoulli_decoder_is_the_cross_entropy_of_its_logits():
    h = torch.linspace(-3, 3, 2 * 5 * 16, dtype=torch.float64).view(2, 5, 1, 4, 4)
    x = torch.rand(2, 5, 1, 4, 4, dtype=torch.float64) * 2 - 1
    expected = F.binary_cross_entropy_with_logits(2 * h, (x + 1) / 2, reduction="none").flatten(2).sum(2)
    torch.testing.assert_close(losses.bernoulli_nll(x, h.tanh()), expected, rtol=1e-3, atol=0)


def test_a_saturated_bernoulli_decoder_stays_finite():
    x, mean = torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[-1.0, -1.0]]], requires_grad=True)
    loss = losses.bernoulli_nll(x, mean)
    loss.sum().backward()
    assert loss.item() == pytest.approx(-math.log(losses.BERNOULLI_MARGIN), rel=1e-2)
    assert mean.grad is not None
    assert mean.grad.isfinite().all()


def test_codes_are_mean_plus_standard_deviation_times_eps():
    mean, eps = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, -1.0]]])
    log_variance = torch.tensor([[[4.0, 9.0]]]).log()
    torch.testing.assert_close(losses.code_sample(mean, log_variance, eps), torch.tensor([[[7.0, -1.0]]]))


def regulariser_gradients(config: VaeConfig, periods: int) -> list[float]:
    """Norm of the term's gradient at each update of the last period."""
    p, norms = pack(config), []
    inner = p._update

    def spy(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        out = inner(*args, **{**kwargs, "diagnose": True})
        norms.append(out["g_grad_norm_reg"].item())
        return out

    for _ in range(periods - 1):
        p.period(diagnose=False)
    p._update = spy  # type: ignore[method-assign]
    p.period(diagnose=False)
    return norms


@pytest.mark.parametrize("data", [{}, DIGITS], ids=["ring8", "digits"])
@pytest.mark.parametrize("norm", ["none", "bn"])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_gradient_of_the_term_by_anchor(data, norm, anchor):
    """Exactly zero on the first update of a period for anchors at its start, and for no other update or anchor."""
    norms = regulariser_gradients(vae(norm=norm, anchor=anchor, g_steps=3, reg_weight=5.0, **data), 3)
    assert (norms[0] == 0.0) == (anchor in ("period_start", "param_space"))
    assert all(norm > 0 for norm in norms[1:])


@pytest.mark.parametrize("norm", ["none", "bn"])
@pytest.mark.parametrize("fields", [{}, {"sigma_learned": True}, DIGITS, DIGITS | {"decoder": "bernoulli"}], ids=str)
def test_placebo_is_bitwise_equal(norm, fields):
    """One update a period with anchor period_start: lambda 0, 5 and 5e6 are the same program, also in one pack."""
    configs = [vae(g_steps=1, reg_weight=w, norm=norm, **fields) for w in (0.0, 5.0, 5e6)]
    runs = [values(records) for records in train(*configs).values()]
    assert runs[0] == runs[1] == runs[2]
    assert all(config.inert() == ("reg_weight",) for config in configs)


def test_the_term_is_a_null_on_the_bound():
    """The negative control: within the noise of seeds at lambda 5, a brake at 500, never better."""
    weights, seeds = (0.0, 5.0, 500.0), range(4)
    fields = {"z_dim": 2, "width": 32, "batch_size": 32, "g_lr": 3e-3, "beta1": 0.9, "g_steps": 10}
    p = pack(*(vae(seed=s, reg_weight=w, **fields) for w in weights for s in seeds))
    for _ in range(30):
        last = p.period(diagnose=True)
    free, usual, strong = p.measures(1)["elbo_nats"].view(3, 4)
    assert abs((usual - free).mean()) < 2 * free.std()
    assert (strong < free).all()
    assert strong.mean() < free.mean() - 0.3
    assert (last["drift"].view(3, 4)[2] < last["drift"].view(3, 4)[0]).all()


def test_it_learns():
    config = vae(z_dim=2, width=32, batch_size=32, g_lr=3e-3, beta1=0.9, d_updates=600, sigma_learned=True)
    first, *_, last = (r.values for r in train(config)[config.trial_id()])
    assert last["elbo_nats"] > -2.0 > -100 > first["elbo_nats"]
    assert last["kl_nats"] > 1.0
    assert last["reconstruction_mse"] < 0.05 < first["reconstruction_mse"]
    assert last["dist"] < 0.3 < first["dist"]


def test_points_have_observation_noise_and_images_have_none():
    narrow, wide = (pack(vae(sigma=sigma)).evaluation_samples(2000, 0)[0] for sigma in (0.1, 0.4))
    assert (wide - narrow).std().item() == pytest.approx(0.3, rel=0.05)
    learned = pack(vae(sigma=0.1, sigma_learned=True))
    learned.nets["s"].frozen["log_ratio"].fill_(math.log(4))
    torch.testing.assert_close(learned.evaluation_samples(2000, 0)[0], wide)
    narrow, wide = (pack(vae(sigma=sigma, **DIGITS)).evaluation_samples(50, 0)[0] for sigma in (0.1, 0.4))
    assert torch.equal(narrow, wide)


def test_the_measured_bound_is_that_of_the_losses():
    p = pack(vae(beta=4.0, sigma=0.3))
    p.period(diagnose=False)
    x = torch.from_numpy(p.data.real(800, "reference"))[None]
    eps = p.fixed_normal("eps_measured", 800, 8)
    nll, kl = p.terms(x, eps, {name: net.frozen for name, net in p.nets.items()})
    found = p.measures(0)
    assert found["elbo_nats"].item() == pytest.approx(-(nll + kl).mean().item(), rel=1e-5)
    assert found["kl_nats"].item() == pytest.approx(kl.mean().item(), rel=1e-5)
    assert found["sigma"].item() == pytest.approx(0.3)


def test_diagnosing_does_not_change_training():
    quiet, loud = (pack(vae(g_steps=3, reg_weight=5.0, sigma_learned=True)) for _ in range(2))
    for _ in range(4):
        quiet.period(diagnose=False)
        out = loud.period(diagnose=True)
    for name, net in quiet.nets.items():
        assert torch.equal(net.flat, loud.nets[name].flat)
    assert set(out) == {"g_loss", "g_grad_norm_adv", "g_grad_norm_reg", "rho", "drift"}
    assert out["rho"].item() == pytest.approx((out["g_grad_norm_reg"] / out["g_grad_norm_adv"]).item())
    assert out["drift"].item() > 0


FORMS: list[dict[str, Any]] = [{"sigma_learned": True, "norm": "bn"}, DIGITS | {"decoder": "bernoulli"}]


@pytest.mark.parametrize("fields", FORMS, ids=["ring8", "digits"])
def test_a_diverging_trial_changes_no_bit_of_its_neighbours(fields):
    healthy = [vae(seed=s, reg_weight=5.0, **fields) for s in (0, 1, 2)]
    calm = train(healthy[0], vae(seed=9, reg_weight=5.0, **fields), *healthy[1:])
    wild = vae(seed=9, reg_weight=5.0, g_lr=1e30, **fields)
    beside = train(healthy[0], wild, *healthy[1:])
    for config in healthy:
        assert values(calm[config.trial_id()]) == values(beside[config.trial_id()])
    last = beside[wild.trial_id()][-1]
    assert (last.values["finite"], last.evaluation) == (0.0, 1)


@pytest.mark.parametrize("anchor", ["period_start", "ema"])
@pytest.mark.parametrize("fields", FORMS, ids=["ring8", "digits"])
def test_resuming_is_bitwise_the_same(fields, anchor):
    configs = [vae(seed=s, anchor=anchor, reg_weight=5.0, evaluations=4, **fields) for s in (0, 1)]
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


def test_a_pack_of_one_equals_a_pack_of_four():
    """Over the first 20 updates, within float tolerance."""
    configs = [vae(seed=s, g_lr=lr, reg_weight=5.0, sigma_learned=True) for s in (0, 1) for lr in (1e-4, 1e-3)]
    packed = train(*configs)
    for config in configs[::3]:
        (alone,) = train(config).values()
        for one, four in zip(alone, packed[config.trial_id()], strict=True):
            assert one.values.keys() == four.values.keys()
            for name in (
                "g_param_norm", "e_param_norm", "elbo_nats", "kl_nats", "nll_iw", "reconstruction_mse", "sigma",
            ):  # fmt: skip
                assert one.values[name] == pytest.approx(four.values[name], rel=1e-3), name


CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "data": ({}, "grid25"),
    "seed": ({}, 1),
    "d_updates": ({}, 22),
    "evaluations": ({}, 4),
    "batch_size": ({}, 8),
    "g_lr": ({}, 2e-3),
    "optimizer": ({}, "sgd"),
    "beta1": ({}, 0.6),
    "beta2": ({}, 0.9),
    "g_steps": ({"d_updates": 20}, 3),
    "reg_weight": ({}, 5.0),
    "anchor": ({"reg_weight": 5.0}, "previous_update"),
    "anchor_lag": ({"reg_weight": 5.0, "anchor": "lag"}, 3),
    "anchor_decay": ({"reg_weight": 5.0, "anchor": "ema"}, 0.5),
    "norm": ({}, "bn"),
    "net": ({"data": "digits", "batch_size": 8}, "mlp"),
    "width": ({}, 32),
    "depth": ({}, 3),
    "init": ({}, "xavier"),
    "z_dim": ({}, 4),
    "bn_recalibration_images": ({"norm": "bn"}, 4096),
    "decoder": (DIGITS, "bernoulli"),
    "sigma": ({}, 0.2),
    "sigma_learned": ({}, True),
    "beta": ({}, 2.0),
    "precision": ({}, "bf16"),
}


def test_every_hyperparameter_is_tried():
    assert set(CHANGES) == set(hyperparameters(VaeConfig))


@pytest.mark.parametrize("field", CHANGES)
def test_every_hyperparameter_changes_the_run(field):
    context, value = CHANGES[field]
    before = VaeConfig(**{"d_updates": 20, "evaluations": 2, "g_steps": 2, "batch_size": 16} | context)
    after = dataclasses.replace(before, **{field: value})
    assert getattr(before, field) != value
    (a,), (b,) = (train(c.resolve()).values() for c in (before, after))
    assert values(a) != values(b)


def test_unread_fields_do_not_make_another_trial():
    bernoulli = vae(decoder="bernoulli", **DIGITS)
    assert vae(decoder="bernoulli", sigma=0.7, sigma_learned=True, **DIGITS).trial_id() == bernoulli.trial_id()
    assert vae(sigma=0.7).trial_id() != vae().trial_id()
    assert VaeConfig.from_dict(bernoulli.to_dict()) == bernoulli


def test_a_bernoulli_decoder_of_points_is_refused():
    with pytest.raises(ValueError, match="'bernoulli' is for images, data 'ring8' has none"):
        vae(decoder="bernoulli")
