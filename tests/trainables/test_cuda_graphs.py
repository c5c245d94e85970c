"""Periods as replays of a graph, trials apart, and precisions: the same training as the ordinary path."""

from __future__ import annotations

import pytest
import torch

from tests.trainables.configs import gan, small
from vistudy.trainables.cuda_graphs import GraphedPeriod, RecordingTape, ReplayTape
from vistudy.trainables.device import precision_context
from vistudy.trainables.models import MODELS, base, make_pack
from vistudy.trainables.models.stream_parallel import StreamParallelPack
from vistudy.trainables.nets import strided_conv
from vistudy.trainables.random_streams import Stream, normal, taped

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


def packs(configs, device, n=2, *, apart=False):
    build = MODELS[configs[0].model].pack
    return [StreamParallelPack(build, configs, device) if apart else build(configs, device) for _ in range(n)]


@pytest.fixture(params=[False, True])
def channels_last(request, monkeypatch):
    """A pack of one trial takes that layout on a GPU only; here on a CPU, too."""
    chosen = lambda device, k: request.param and k == 1  # noqa: E731
    monkeypatch.setattr(base, "channels_last", chosen)
    monkeypatch.setattr(strided_conv, "channels_last", chosen)


def three(**fields):
    return [gan(seed=s, reg_weight=5.0 * s, g_lr=1e-3 * (s + 1), **fields) for s in range(3)]


def assert_same(a, b):
    theirs = b.state()
    for name, tensor in a.state().items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.gpu
@pytest.mark.parametrize("fields", GANS, ids=str)
@pytest.mark.parametrize("apart", [False, True])
def test_replays_are_the_periods_themselves(fields, apart):
    a, b = packs(three(**fields), CUDA, apart=apart)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        periods = GraphedPeriod(a)
        for i in range(80):  # across two blocks of the streams
            periods(diagnose=i % 20 == 19)
            b.period(diagnose=False)
    assert periods._graph is not None
    assert_same(a, b)


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["aae", "ali", "vae"])
@pytest.mark.parametrize("apart", [False, True])
def test_every_model_of_nets_is_captured(model, apart):
    a, b = packs([small(model, seed=s) for s in range(2)], CUDA, apart=apart)
    periods = GraphedPeriod(a)
    for _ in range(12):
        periods(diagnose=False)
        b.period(diagnose=False)
    assert periods._graph is not None
    assert_same(a, b)


def test_a_tape_notes_and_replaces():
    stream = Stream(normal("z", (2,)), [0, 1], torch.device("cpu"))
    noted = RecordingTape()
    with taped(noted):
        values = stream.at(7)
    assert noted.calls == [(stream, 7)]
    other = torch.zeros_like(values)
    with taped(ReplayTape(noted.calls, [other])):
        assert stream.at(7) is other
    with taped(ReplayTape(noted.calls, [other])), pytest.raises(RuntimeError, match="step 8"):
        stream.at(8)
    assert torch.equal(stream.at(7), values)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("norm", ["none", "bn"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.usefixtures("channels_last")
def test_trials_side_by_side_are_the_trials_fused(device, norm, precision):
    device = torch.device(device)
    configs = three(data="digits", net="dcgan", width=4, norm=norm, precision=precision)
    (a,), (b,) = (packs(configs, device, 1, apart=apart) for apart in (True, False))
    assert_same(a, b)
    tolerance = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2}[precision]
    with precision_context("fp32", device):  # as evaluations are
        (samples, running), (expected, expected_running) = (pack.evaluation_samples(50, 0) for pack in (a, b))
    assert (samples - expected).abs().max() <= tolerance
    assert (running is None) is (expected_running is None) is (norm == "none")
    diagnostics = []
    for pack in (a, b):
        with precision_context(precision, device):
            diagnostics.append(pack.period(diagnose=True))
    for name, tensor in a.state().items():
        assert (tensor - b.state()[name]).abs().max() <= tolerance, name
    assert {n: v.shape for n, v in diagnostics[0].items()} == {n: v.shape for n, v in diagnostics[1].items()}
    assert a.get_counters() == b.get_counters() == [1, 2, 1]


@pytest.mark.parametrize("model", ["gan", "vae", "aae", "ali"])
@pytest.mark.usefixtures("channels_last")
def test_a_checkpoint_fits_trials_fused_and_side_by_side(model):
    configs = [small(model, data="digits", net="dcgan", width=4, anchor="previous_period", seed=s) for s in range(2)]
    cpu = torch.device("cpu")
    a, c = packs(configs, cpu, apart=True)
    (b,) = packs(configs, cpu, 1)
    for _ in range(3):
        a.period(diagnose=False)
    b.load(a.state())
    assert_same(a, b)
    for name, net in a.nets.items():
        assert all(torch.equal(view, b.nets[name].frozen[p]) for p, view in net.frozen.items())
    c.load(b.state())
    for pack in (a, c):
        pack.period(diagnose=False)
    assert_same(a, c)
    assert a.measures(0).keys() == b.measures(0).keys()


@pytest.mark.gpu
def test_small_nets_are_fused_and_large_ones_side_by_side():
    """Far from where one becomes the other, the probe has to find what the other measurements have found."""
    small, large = (
        [gan(seed=s, data=data, net="dcgan", width=width, norm="bn", batch_size=64) for s in range(k)]
        for data, width, k in (("digits", 16, 32), ("polygons", 64, 8))
    )
    assert not isinstance(make_pack(small, CUDA), StreamParallelPack)
    assert isinstance(make_pack(large, CUDA), StreamParallelPack)
