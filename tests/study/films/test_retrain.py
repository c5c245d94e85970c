"""A trial trained again: the same numbers as its pack's, nothing written into the store, files that play."""

from __future__ import annotations

import dataclasses
import math
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from typer.testing import CliRunner

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.cli.main import app
from vistudy.study.films import film
from vistudy.study.films.agreement import compare_records
from vistudy.study.films.film import Caption, Frame, write_film
from vistudy.study.films.retrain import film_trial
from vistudy.trainables.engine import Engine, reference
from vistudy.trainables.models.dirac_gan import DiracConfig
from vistudy.trainables.models.gan import GanConfig
from vistudy.trainables.worker import train_pack

STUDY, PERIODS, EVALUATIONS = "demo", 24, 4
GANS = [
    GanConfig(
        data="ring8", seed=seed, d_updates=2 * PERIODS, d_steps=2, g_steps=2, evaluations=EVALUATIONS, batch_size=8,
        width=8, depth=1, g_lr=lr, d_lr=lr, reg_weight=5.0,
    ).resolve()
    for lr, seed in ((1e-3, 0), (1e-2, 1), (1e-2, 2))
]  # fmt: skip
TOY = DiracConfig(d_updates=10, evaluations=2).resolve()


def wild() -> GanConfig:
    """Diverges within the first evaluations."""
    return GanConfig.from_dict(GANS[0].to_dict() | {"g_lr": 1e30, "d_lr": 1e30, "optimizer": "sgd", "seed": 7})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two packs and a trial that has not been begun."""
    ledger = Ledger(tmp_path_factory.mktemp("films") / "store")
    ledger.create()
    waiting = GanConfig.from_dict(GANS[0].to_dict() | {"seed": 99})
    packs = {"p-gan": GANS, "p-toy": [TOY], "p-wild": [wild()]}
    trials = [c for configs in packs.values() for c in configs]
    plan = {"study": STUDY, "hash": "0" * 12, "factors": {}, "trials": [
        {"trial_id": c.trial_id(), "cell": {}, "config": c.to_dict(), "inert": []} for c in [*trials, waiting]
    ]}  # fmt: skip
    ledger.write_study(STUDY, "study: demo\n", plan, {})
    for pack_id, configs in packs.items():
        ids = [c.trial_id() for c in configs]
        pack = {"pack_id": pack_id, "trials": [c.to_dict() for c in configs], "trial_ids": ids, "created_ms": 1}
        ledger.write_pack(pack | {"samples": [], "keep_checkpoints": "none", "reference": reference(configs[0])})
        train_pack({"pack_id": pack_id}, journal=lambda: ledger, checkpoint_every_s=1e9, now_ms=lambda: 2)
    return Path(ledger.uri)


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Trial ids of every pack that is trained in the test, and on how many threads."""
    seen: list[list[str]] = []

    class Spy(Engine):
        def __init__(self, configs: Any, **options: Any) -> None:
            super().__init__(configs, **options)
            seen.append([*self.trial_ids, str(torch.get_num_threads())])

    monkeypatch.setattr("vistudy.trainables.engine.Engine", Spy)
    return seen


def test_records_come_out_bit_for_bit_and_the_store_is_untouched(
    store: Path, tmp_path: Path, packs: list[list[str]]
) -> None:
    before, threads = files_of(store), torch.get_num_threads()
    torch.set_num_threads(2)
    for config in GANS:
        made = film_trial(config.trial_id(), store, tmp_path, frames=3)
        assert made.agreement.exact, made.agreement
        assert made.agreement.compared == EVALUATIONS + 1
        assert made.agreement.text == "All 5 stored evaluations are bit for bit the same."
    assert packs == [[*(c.trial_id() for c in GANS), "1"]] * 3
    assert files_of(store) == before
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


def test_alone_it_agrees_to_rounding(store: Path, tmp_path: Path, packs: list[list[str]]) -> None:
    made = film_trial(GANS[1].trial_id(), store, tmp_path, frames=2, without_pack=True)
    assert packs == [[GANS[1].trial_id(), "1"]]
    assert made.agreement.compared == EVALUATIONS + 1
    assert made.agreement.first is None
    assert made.agreement.difference < 1e-4


@pytest.fixture(scope="module")
def dense() -> dict[int, np.ndarray]:
    """Samples of GANS[1] after every period, by an engine that evaluates there."""
    configs = [dataclasses.replace(c, evaluations=PERIODS) for c in GANS]
    engine = Engine(configs, keep_samples=range(PERIODS + 1))
    return {item.step: item.samples[configs[1].trial_id()] for item in engine.evaluations()}


@pytest.mark.parametrize(("frames", "steps"), [
    (2, [0, 24, 48]),
    (4, [0, 12, 24, 36, 48]),
    (6, [0, 8, 16, 24, 32, 40, 48]),
    (500, list(range(0, 49, 2))),
])  # fmt: skip
def test_frames_are_spread_over_training(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dense: dict[int, np.ndarray], frames: int,
    steps: list[int],
) -> None:  # fmt: skip
    seen = list[Frame]()
    monkeypatch.setattr(
        "vistudy.study.films.retrain.write_film", lambda filmed, *_: (seen.extend(filmed), (Path(), None, Path()))[1]
    )
    made = film_trial(GANS[1].trial_id(), store, tmp_path, frames=frames)
    assert [frame.step for frame in seen] == steps
    assert made.agreement.exact
    assert all(frame.samples.shape == (2500, 2) for frame in seen)
    assert all(np.array_equal(frame.samples, dense[frame.step]) for frame in seen)


def test_files(store: Path, tmp_path: Path) -> None:
    made = film_trial(GANS[0].trial_id(), store, tmp_path / "new", frames=6)
    assert made.gif == tmp_path / "new" / f"{GANS[0].trial_id()}.gif"
    assert {path.name for path in made.paths} == {path.name for path in (tmp_path / "new").iterdir()}
    with Image.open(made.gif) as gif:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
        assert gif.size == (320, 346)
    assert durations == [film.FRAME_MS] * 6 + [film.LAST_MS]
    with Image.open(made.strip) as strip:
        assert strip.width > 3 * strip.height
        assert strip.info["dpi"] == pytest.approx((200, 200), abs=0.1)


def test_a_diverging_trial_ends_early(store: Path, tmp_path: Path) -> None:
    made = film_trial(wild().trial_id(), store, tmp_path, frames=8)
    assert made.agreement.exact
    assert 1 <= made.agreement.compared < EVALUATIONS + 1
    assert made.frames < 9


def test_an_unambiguous_beginning_will_do(store: Path, tmp_path: Path) -> None:
    wanted = GANS[2].trial_id()
    assert film_trial(wanted[:-1], store, tmp_path, frames=1).trial_id == wanted


def test_refusals(store: Path, tmp_path: Path) -> None:
    waiting = GanConfig.from_dict(GANS[0].to_dict() | {"seed": 99}).trial_id()
    cases = {
        "t1-nothing": "no study there plans it",
        "": "no study there plans it",
        "t2-": "6 trials begin so",
        waiting: "has not been begun",
        TOY.trial_id(): "have no picture",
    }
    for trial_id, message in cases.items():
        with pytest.raises(StudyError, match=message):
            film_trial(trial_id, store, tmp_path / "none")
    with pytest.raises(StudyError, match="at least 1"):
        film_trial(GANS[0].trial_id(), store, tmp_path / "none", frames=0)
    assert not (tmp_path / "none").exists()


def test_comparison() -> None:
    nan, inf = math.nan, math.inf
    same = compare_records({0: {"a": nan, "b": inf}, 1: {"a": 1.0}}, {0: {"a": nan, "b": inf}, 2: {"a": 1.0}})
    assert (same.compared, same.exact, same.difference, same.first) == (1, True, 0.0, None)
    near = compare_records({0: {"a": 200.0}, 1: {"a": 0.0}}, {0: {"a": 200.002}, 1: {"a": 2e-5}})
    assert not near.exact
    assert near.difference == pytest.approx(2e-5)
    assert near.first is None
    assert near.text == "All 2 stored evaluations agree to 2e-05."
    far = compare_records({0: {"a": 1.0}, 3: {"a": 1.0}}, {0: {"a": 1.0}, 3: {"a": 1.5}})
    assert far.first == 3
    assert far.text.startswith("From evaluation 3 on the records differ from the stored ones, by up to 5.0e-01; ")
    for one, other in (({"a": 1.0}, {"a": nan}), ({"a": inf}, {"a": -inf}), ({"a": 1.0}, {"b": 1.0}), ({"a": 1.0}, {})):
        assert compare_records({0: one}, {0: other}).difference == inf
    assert compare_records({0: {"a": 1.0}}, {0: {"a": 1.0, "of_a_later_metric": 2.0}}).exact
    assert compare_records({}, {0: {"a": 1.0}}).text == "The store has no records of this trial to compare with."


def make_film(folder: Path, frames: int = 3, side: int = 9) -> tuple[Path, Path | None, Path]:
    rng = np.random.default_rng(0)
    shots = [Frame(step=10 * i, samples=rng.uniform(-1, 1, (4, 3, side, side))) for i in range(frames)]
    return write_film(shots, Caption(trial_id="t1-x", what="w", outcome="slow", limit=1.0, modes=None), folder)


def test_ffmpeg_gets_every_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for ffmpeg keeps what it is given: raw frames of even height and width."""
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor last; do :; done\nwc -c > "$last"\necho "$@" >> "$last"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    gif, mp4, _ = make_film(tmp_path / "out")
    assert mp4 == tmp_path / "out" / "t1-x.mp4"
    count, arguments = mp4.read_text().splitlines()
    with Image.open(gif) as image:
        width, height = image.size
    assert width % 2 == height % 2 == 0
    assert int(count) == 3 * width * height * 3
    assert f"-s {width}x{height}" in arguments
    assert "yuv420p" in arguments
    program.write_text("#!/bin/sh\necho broken codec >&2\nexit 3\n")
    with pytest.raises(StudyError, match=r"ffmpeg failed \(broken codec\); the GIF"):
        make_film(tmp_path / "again")


def test_without_ffmpeg_there_is_no_mp4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert make_film(tmp_path)[1] is None
    assert {path.suffix for path in tmp_path.iterdir()} == {".gif", ".png"}


@pytest.mark.parametrize("frames", [1, 2, 20])
def test_few_frames_and_many(tmp_path: Path, frames: int) -> None:
    gif, _, strip = make_film(tmp_path, frames)
    with Image.open(gif) as image:
        assert getattr(image, "n_frames", 1) == frames
    with Image.open(strip) as image:
        assert image.width == pytest.approx(200 * max(min(frames, 8) * 1.41 + 0.3, 5.6), abs=2)


def test_command(store: Path, tmp_path: Path) -> None:
    arguments = ["film", GANS[0].trial_id(), "--store", str(store), "--out", str(tmp_path), "--frames", "2"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / f"{GANS[0].trial_id()}.gif").is_file()
    assert "3 frames. All 5 stored evaluations are bit for bit the same." in " ".join(done.output.split())


def test_a_trial_of_a_model_that_this_code_lacks_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "store")
    ledger.create()
    config = GANS[0].to_dict() | {"model": "mine"}
    trial = {"trial_id": "t1-0123456789ab", "cell": {}, "config": config, "inert": []}
    ledger.write_study(
        "gone", "study: gone\n", {"study": "gone", "hash": "0" * 12, "factors": {}, "trials": [trial]}, {}
    )
    ledger.write_pack({"pack_id": "p-1", "trials": [config], "trial_ids": [trial["trial_id"]], "created_ms": 1})
    with pytest.raises(
        StudyError, match=r"this machine cannot build it: model 'mine' is not in .*add-a-model.md says\.$"
    ):
        film_trial("t1-0123", ledger.uri, tmp_path / "out")
