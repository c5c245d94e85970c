"""Periods as replays of a graph, trials apart, and precisions: the same training as the ordinary path."""

from __future__ import annotations

import pytest
import torch

from tests.trainables.configs import gan, small
from trainables.graphs import Noted, Periods, Replaced
from trainables.models import MODELS
from trainables.models.base import NetPack
from trainables.precision import arithmetic
from trainables.streams import Stream, normal, taped

CUDA = torch.device("cuda")
GANS = [
    {},
    {"norm": "bn"},
    {"anchor": "previous_update"},
    {"anchor": "lag", "anchor_lag": 3},
    {"anchor": "ema"},
    {"z_use": "fresh", "g_steps": 5, "d_steps": 3},
    {"optimizer": "sgd"},
    {"r1_weight": 0.1},
    {"data": "digits", "norm": "bn", "net": "dcgan", "width": 4},
]


def packs(configs, device, n=2):
    return [MODELS[configs[0].model].pack(configs, device) for _ in range(n)]


def choose(monkeypatch, *, apart):
    """What the probe would find."""
    monkeypatch.setattr(NetPack, "_faster_apart", lambda self, arch: apart)


def three(**fields):
    return [gan(seed=s, reg_weight=5.0 * s, g_lr=1e-3 * (s + 1), **fields) for s in range(3)]


def assert_same(a, b):
    theirs = b.state()
    for name, tensor in a.state().items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.gpu
@pytest.mark.parametrize("fields", GANS, ids=str)
@pytest.mark.parametrize("apart", [False, True])
def test_replays_are_the_periods_themselves(fields, apart, monkeypatch):
    choose(monkeypatch, apart=apart)
    a, b = packs(three(**fields), CUDA)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        periods = Periods(a)
        for i in range(80):  # across two blocks of the streams
            periods(diagnose=i % 20 == 19)
            b.period(diagnose=False)
    assert periods._graph is not None
    assert_same(a, b)


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["aae", "ali", "vae"])
def test_every_model_of_nets_is_captured(model):
    a, b = packs([small(model, seed=s) for s in range(2)], CUDA)
    periods = Periods(a)
    for _ in range(12):
        periods(diagnose=False)
        b.period(diagnose=False)
    assert periods._graph is not None
    assert_same(a, b)


def test_a_tape_notes_and_replaces():
    stream = Stream(normal("z", (2,)), [0, 1], torch.device("cpu"))
    noted = Noted()
    with taped(noted):
        values = stream.at(7)
    assert noted.calls == [(stream, 7)]
    other = torch.zeros_like(values)
    with taped(Replaced(noted.calls, [other])):
        assert stream.at(7) is other
    with taped(Replaced(noted.calls, [other])), pytest.raises(RuntimeError, match="step 8"):
        stream.at(8)
    assert torch.equal(stream.at(7), values)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("norm", ["none", "bn"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_trials_apart_are_the_trials_fused(device, norm, precision, monkeypatch):
    configs = three(data="digits", net="dcgan", width=4, norm=norm, precision=precision)
    choose(monkeypatch, apart=False)
    (b,) = packs(configs, torch.device(device), 1)
    choose(monkeypatch, apart=True)
    (a,) = packs(configs, torch.device(device), 1)
    assert_same(a, b)
    assert a.g.apart
    assert not b.g.apart
    tolerance = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2}[precision]
    for pack in (a, b):
        with arithmetic(precision, pack.device):
            pack.period(diagnose=True)
    for name, tensor in a.state().items():
        assert (tensor - b.state()[name]).abs().max() <= tolerance, name


@pytest.mark.parametrize("model", ["gan", "vae", "aae", "ali"])
def test_a_checkpoint_fits_packs_of_either_layout(model, monkeypatch):
    configs = [small(model, data="digits", net="dcgan", width=4, anchor="previous_period") for _ in range(2)]
    choose(monkeypatch, apart=True)
    (a,) = packs(configs, torch.device("cpu"), 1)
    for _ in range(3):
        a.period(diagnose=False)
    choose(monkeypatch, apart=False)
    (b,) = packs(configs, torch.device("cpu"), 1)
    b.load(a.state())
    assert_same(a, b)
    choose(monkeypatch, apart=True)
    (c,) = packs(configs, torch.device("cpu"), 1)
    c.load(b.state())
    for pack in (a, c):
        pack.period(diagnose=False)
    assert_same(a, c)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("fields", [{}, {"norm": "bn"}, {"data": "digits", "net": "dcgan", "width": 4}], ids=str)
def test_bf16_is_close_to_fp32_and_not_the_same(device, fields):
    device = torch.device(device)
    (a,), (b,) = (packs(three(precision=p, **fields), device, 1) for p in ("fp32", "bf16"))
    losses = []
    for pack, precision in ((a, "fp32"), (b, "bf16")):
        with arithmetic(precision, device):
            losses.append(pack.period(diagnose=True)["d_loss"])
    assert (losses[0] - losses[1]).abs().max() < 2e-2
    assert not torch.equal(losses[0], losses[1])
    assert b.g.flat.dtype == torch.float32
