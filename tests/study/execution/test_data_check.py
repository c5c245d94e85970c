"""Data that are too few for metrics or minibatches: refused with both numbers, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError

import vistudy as vs
from tests.study.runs import write
from tests.trainables.data.files import picture, write_idx
from vistudy.analysis.ledger.errors import StudyError
from vistudy.study.cli import main as cli
from vistudy.study.execution.data_check import data_errors
from vistudy.trainables.data import DATASETS, DataError

STUDY = {"study": "few", "model": "gan", "data": "digits", "seeds": [0], "budget": {"d_updates": 4, "evaluations": 1}}
SOBOL = {"method": "sobol", "n": 2, "space": {"lr": {"low": 1e-4, "high": 1e-3, "log": True}}}
ARMS: dict[str, Any] = {"arms": {"a": {}, "b": {"batch_size": {"times": 20}}}}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VISTUDY_DATA_ROOT", str(tmp_path / "root"))
    (tmp_path / "root" / "image_folder").mkdir(parents=True)
    return tmp_path / "root"


def refused(tmp_path: Path, study: dict[str, Any]) -> str:
    """The message, the same of `plan` with and without its pilot and of `run`; nothing is written."""
    file, store = write(tmp_path / "few.yaml", STUDY | study), str(tmp_path / "store")
    said = set()
    for ask in (
        lambda: vs.plan(file, store=store),
        lambda: vs.plan(file, store=store, pilot=False),
        lambda: vs.run(file, store=store, cluster="debug"),
    ):
        with pytest.raises(StudyError) as caught:
            ask()
        said.add(str(caught.value))
    assert not Path(store).exists()
    (message,) = said
    assert message.startswith(f"{file}:1: ")
    return message.removeprefix(f"{file}:1: ")


def test_few_pictures(root: Path, tmp_path: Path) -> None:
    for i in range(20):
        picture(i, 64, 64).save(root / "image_folder" / f"{i}.png")
    assert refused(tmp_path, {"data": "image_folder"}) == (
        f"data: image_folder: {root}/image_folder has 20 images, 16 to learn and 4 to compare with; the metrics need "
        "at least 640 of each, 3,200 in all: add images, or take data that need no files, such as digits"
    )


@pytest.mark.parametrize("data", ["mnist", "stacked_mnist"])
def test_few_digits_as_published(root: Path, tmp_path: Path, data: str) -> None:
    """Stacks are drawn from them without end, and are still of as few images."""
    for part, n in (("train", 50), ("t10k", 700)):
        write_idx(root / "mnist", part, n)
    message = refused(tmp_path, {"data": data})
    assert f"data: {data}: {root}/mnist has 750 images, 50 to learn and 700 to compare with" in message
    assert "at least 640 of each: add" in message


def test_inceptions_weights_are_looked_for_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISTUDY_INCEPTION_WEIGHTS", str(tmp_path / "none.pth"))
    assert "none.pth: no such file; --inception-weights" in refused(tmp_path, {"data": "polygons"})


@pytest.mark.parametrize(
    ("key", "size", "study"),
    [
        ("fixed.batch_size", "998", {"fixed": {"batch_size": 998}}),
        ("factors.batch_size", "2,000", {"factors": {"batch_size": [64, 2000]}}),
        ("arms.b.batch_size", "1,280", ARMS),
        ("arms.b.batch_size", "1,200", ARMS | {"fixed": {"batch_size": 60}}),
        (
            "sampling.space.batch_size",
            "1,000",  # also if no point of the first round has it
            {"sampling": {"method": "boundary", "n": 2, "space": {"batch_size": {"low": 8, "high": 1000}}}},
        ),
        (
            "arms.b.batch_size",
            "4,000",
            {"arms": {"a": {}, "b": {"batch_size": {"choices": [8, 4000]}}}, "sampling": SOBOL},
        ),
    ],
)
def test_a_minibatch_of_more_images_than_there_are(tmp_path: Path, key: str, size: str, study: dict[str, Any]) -> None:
    message = refused(tmp_path, study)
    assert message.startswith(f"{key}: a minibatch of {size} is more than the 997 images to learn of data 'digits'")
    assert message.endswith("allowed: batch_size up to 997")


def test_all_images_are_a_minibatch_and_what_is_drawn_has_no_end(tmp_path: Path) -> None:
    file = write(tmp_path / "all.yaml", STUDY | {"fixed": {"batch_size": 997}})
    assert len(vs.plan(file, store=str(tmp_path / "store"), pilot=False).plan.trials) == 1
    file = write(tmp_path / "points.yaml", STUDY | {"data": "ring8", "fixed": {"batch_size": 100_000}})
    assert len(vs.plan(file, store=str(tmp_path / "store"), pilot=False).plan.trials) == 1
    assert DATASETS["stacked_mnist"].to_learn is None


def test_what_is_found_later_is_no_traceback_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever command meets it."""

    def app(args: list[str]) -> None:
        raise DataError("/cache/mnist: the prepared images were changed; delete this folder")

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "error: data: /cache/mnist: the prepared images were changed" in capsys.readouterr().err


def test_what_a_worker_finds_is_told_without_its_stack() -> None:
    error = DataError("/data/mnist: does not exist")
    by_ray = RayTaskError("measure", "ray::measure() (pid=7, ip=10.0.0.7)\n  File ...", error)
    for raised, said in ((error, "data: "), (by_ray.as_instanceof_cause(), "data on 10.0.0.7: ")):
        with pytest.raises(StudyError) as caught, data_errors():
            raise raised
        assert str(caught.value) == f"{said}/data/mnist: does not exist"
