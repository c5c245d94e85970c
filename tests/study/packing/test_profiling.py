"""Probes on a made-up device: what they conclude, when they stop, and when they are not made at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.configs import gan
from vistudy.study.packing import profiling
from vistudy.study.packing.packs import PackCost, cost_key
from vistudy.trainables.config import TrainConfig
from vistudy.trainables.models import MODELS, Model

FOR_EVER = 10**12
CPU = torch.device("cpu")


class Device:
    """A clock that moves as far as a period of K trials takes, and a memory that holds `bytes_each` for each trial."""

    def __init__(
        self, period_s: Any, total_bytes: int | None = None, bytes_each: int = 0, fixed_bytes: int = 0
    ) -> None:
        self.total_bytes, self.period_s, self.bytes_each, self.fixed_bytes = (
            total_bytes, period_s, bytes_each, fixed_bytes,
        )  # fmt: skip
        self.clock, self.peak, self.built = 0.0, 0, list[int]()

    def now(self) -> float:
        return self.clock

    def reset(self) -> None:
        self.peak = 0

    def peak_bytes(self) -> int:
        return self.peak


class FakePack:
    def __init__(self, device: Device, trials: int) -> None:
        self.device, self.trials = device, trials
        device.built.append(trials)
        device.peak = max(device.peak, device.fixed_bytes + device.bytes_each * trials)

    def period(self, *, diagnose: bool) -> dict[str, Any]:
        self.device.clock += self.device.period_s(self.trials)
        return {}

    def evaluation_samples(self, n: int, evaluation: int) -> None:
        assert self.device.total_bytes, "only where memory is measured"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Any:
    """measure(device, periods of all trials)"""

    def run(device: Device, of_all: int = FOR_EVER) -> PackCost | None:
        config = gan()
        model = Model(config=type(config), pack=lambda configs, _: FakePack(device, len(configs)))  # type: ignore[arg-type, return-value]
        monkeypatch.setitem(MODELS, config.model, model)
        return profiling.measure(config, of_all, device, CPU)

    return run


def test_the_size_with_the_cheapest_trials_is_found(measure: Any) -> None:
    device = Device(lambda k: 1e-4 * (5 + k + max(0, k - 24) * 2))  # the cache is full at 24
    cost = measure(device)
    assert cost.best == 24
    assert cost.seconds(1) == pytest.approx(6e-4)
    assert cost.seconds(20) == pytest.approx(25e-4)  # between two sizes
    assert max(device.built) == 48  # dearer by more than a tenth there and at 32: no larger one is tried


def test_trials_that_get_ever_cheaper_fill_the_largest_pack(measure: Any) -> None:
    assert measure(Device(lambda k: 1e-3)).best == profiling.SIZES[-1]


def test_slow_nets_cost_the_budget_and_no_more(measure: Any) -> None:
    device = Device(lambda k: 0.3 * k)
    cost = measure(device)
    assert device.clock < profiling.BUDGET_S + 4 * 0.3 * 2  # the last size may end after it
    assert cost.max_trials <= 2
    alone = measure(Device(lambda k: 5.0 * k))
    assert (alone.max_trials, alone.best) == (1, 1)


@pytest.mark.parametrize(("of_all", "built"), [(1000, [1]), (800_000, [1, 2])])
def test_short_training_is_not_measured(measure: Any, of_all: int, built: list[int]) -> None:
    """800,000 periods take 480 s one by one, and 280 s two by two."""
    device = Device(lambda k: 1e-4 * (5 + k))
    assert measure(device, of_all=of_all) is None
    assert device.built == built
    assert device.clock < 0.2


def test_what_runs_out_of_memory_does_not_fit(measure: Any) -> None:
    def period_s(trials: int) -> float:
        if trials > 8:
            raise torch.OutOfMemoryError
        return 1e-4

    assert measure(Device(period_s)).max_trials == 8


def test_an_error_of_a_model_is_not_the_probes_to_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path))
    monkeypatch.setattr(profiling, "measure", broken)
    assert profiling.profile_structure(gan(), FOR_EVER, 1.0) is None
    assert "no such kernel" in caplog.text


@pytest.mark.parametrize(
    ("total_bytes", "fixed_bytes", "most"),
    [
        (1000, 300, 16),  # nine tenths of 1000 hold 300 and 60 trials of 10: the next size after 16 is 64
        (180, 112, 4),
        (10**9, 0, 512),
    ],
)
def test_packs_fit_into_the_memory_of_the_device(measure: Any, total_bytes: int, fixed_bytes: int, most: int) -> None:
    device = Device(lambda k: 1e-5, total_bytes=total_bytes, bytes_each=10, fixed_bytes=fixed_bytes)
    assert measure(device).max_trials == most
    assert max(device.built) == most  # what would not fit was not even tried


def test_a_full_gpu_is_not_given_more(measure: Any) -> None:
    device = Device(lambda k: 1e-3 * max(4, k), total_bytes=10**9)
    assert measure(device).max_trials == 16
    assert device.built == [1, 4, 16]  # 16 cost four times as much as 4


def test_only_long_structures_are_probed() -> None:
    short, long = (
        [gan(seed=s, d_updates=100) for s in range(3)],
        [gan(seed=s, norm="bn", d_updates=20_000) for s in range(40)],
    )
    found = profiling.worth_profiling([*short, *long])
    assert list(found) == [cost_key(long[0])]
    assert profiling.periods(found[cost_key(long[0])]) == 40 * 20_000


def test_trials_that_differ_in_length_share_a_probe() -> None:
    assert cost_key(gan(d_updates=100)) == cost_key(gan(d_updates=200, evaluations=10, seed=3))
    assert cost_key(gan(norm="bn")) != cost_key(gan())


# -- the cache -------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[TrainConfig]:
    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path / "cache"))
    made: list[TrainConfig] = []

    def fake(config: TrainConfig, *_: object) -> PackCost:
        made.append(config)
        return PackCost(sizes=(1, 4), period_s=(1.0, 0.1 + 0.2), max_trials=4)

    monkeypatch.setattr(profiling, "measure", fake)
    return made


def test_a_probe_is_kept(measured: list[TrainConfig]) -> None:
    first = profiling.profile_structure(gan(), FOR_EVER, 1.0)
    assert profiling.profile_structure(gan(seed=1, d_updates=77), FOR_EVER, 1.0) == first
    assert len(measured) == 1
    profiling.profile_structure(gan(norm="bn"), FOR_EVER, 1.0)
    assert len(measured) == 2


def test_a_damaged_probe_is_made_anew(measured: list[TrainConfig], tmp_path: Path) -> None:
    first = profiling.profile_structure(gan(), FOR_EVER, 1.0)
    (path,) = (tmp_path / "cache" / "probes").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    assert profiling.profile_structure(gan(), FOR_EVER, 1.0) == first
    assert len(measured) == 2
    assert profiling.profile_structure(gan(), FOR_EVER, 1.0) == first
    assert len(measured) == 2


def test_without_a_cache_it_is_measured_each_time(
    measured: list[TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path / "file" / "below"))
    assert profiling.profile_structure(gan(), FOR_EVER, 1.0) == profiling.profile_structure(gan(), FOR_EVER, 1.0)
    assert len(measured) == 2


def test_a_real_probe_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path))
    monkeypatch.setattr(profiling, "SIZES", (1, 4))
    before = torch.get_num_threads()
    try:
        cost = profiling.profile_structure(gan(), FOR_EVER, 1.0)
    finally:
        torch.set_num_threads(before)
    assert cost is not None
    assert cost.sizes == (1, 4)
    assert all(seconds > 0 for seconds in cost.period_s)
