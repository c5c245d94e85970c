"""No command writes outside `--store`, `--out` and the cache: least of all into the store that this is a copy of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import vistudy as vs
from tests.study.runs import ENVIRONMENT, write
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.tracking.locations import rewrite_locations

STUDY = {
    "study": "tiny",
    "model": "gan",
    "data": "ring8",
    "seeds": [0],
    "budget": {"d_updates": 40, "evaluations": 20},
    "sampling": {"method": "sobol", "n": 2, "seed": 1, "space": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}},
    "arms": {"A0": {"reg_weight": 0}, "A1": {"reg_weight": 5}},
    "claim": {"id": "tiny-1", "baseline": "A0", "treatment": "A1"},
}
MAY = ("copy/", "out/", "cache/", "home/.cache/matplotlib/")
"""Where commands may write; the last is matplotlib's own list of fonts."""
NOBODY = "http://127.0.0.1:9"
SSH = [
    "--store",
    "/shared/v",
    "--tracking-uri",
    "http://m:5000",
    "--set",
    "head=10.0.0.1",
    "--set",
    "workers=10.0.0.2,10.0.0.3",
]
Commands = list[tuple[str, list[str]]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a small study, trained and mirrored."""
    folder = tmp_path_factory.mktemp("watched")
    report = vs.run(write(folder / "tiny.yaml", STUDY), store=str(folder / "original"), cluster="debug")
    assert report.n_trained == 4
    assert report.tracking_error is None
    return folder / "original"


def everything(file: str, trial: str) -> Commands:
    """Each command of `vistudy`, as its name without `cluster`, in a folder that has `copy` and `other` beside it."""
    store, new = ["--store", "../copy"], {**STUDY, "study": "again", "seeds": [1]}
    again = str(write(Path(file).with_name("again.yaml"), new))
    return [
        ("status", ["status", "tiny", *store]),
        ("plan", ["plan", file, *store]),
        ("register", ["register", again, *store]),
        ("run", ["run", again, *store, "--cluster", "debug"]),
        ("heatmap", ["heatmap", "tiny", *store]),
        ("report", ["report", "tiny", *store, "--png"]),
        ("sync", ["sync", "tiny", *store]),
        ("export", ["export", "tiny", *store, "--out", "../out/trials.csv"]),
        ("verdict", ["verdict", "tiny", *store, "--multiverse"]),
        ("relabel", ["relabel", "tiny", *store, "--version", "1", "--out", "../out/labels.csv"]),
        ("compare", ["compare", "tiny", "tiny", *store, "--store-b", "../other"]),
        ("atlas", ["atlas", "tiny", *store, "--out", "../out/atlas.html"]),
        ("film", ["film", trial, *store, "--out", "../out/films", "--frames", "2"]),
        ("doctor", ["doctor", "tiny", *store]),
        ("doctor --repair", ["doctor", "tiny", *store, "--repair"]),
        ("ui", ["ui", *store]),
        ("run --detach", ["run", file, "--store", "/nowhere", "--detach", "--cluster", NOBODY]),
        ("list", ["job", "list", "--cluster", NOBODY]),
        ("logs", ["job", "logs", "tiny", "--cluster", NOBODY]),
        ("stop", ["job", "stop", "tiny", "--cluster", NOBODY]),
        ("check", ["cluster", "check", "debug", *store]),
        ("render", ["cluster", "render", "ssh", "--out", "../out/ssh", *SSH]),
        ("options", ["cluster", "options", "ssh"]),
    ]


def names_of_commands() -> set[str]:
    from vistudy.study.cli.main import app

    found, todo = set(), [typer.main.get_command(app)]
    while todo:
        for name, command in todo.pop().commands.items():  # type: ignore[attr-defined]
            todo += [command] if hasattr(command, "commands") else []
            found |= set() if hasattr(command, "commands") else {name}
    return found


def test_no_command_writes_elsewhere(original: Path, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("home", "cwd", "tmp", "cache", "original", "copy", "other", "out")}
    for name in ("home", "cwd", "tmp", "cache", "out"):
        places[name].mkdir()
    shutil.copytree(original, places["original"])
    rewrite_locations(places["original"] / "mlflow.db")
    for name in ("copy", "other"):
        shutil.copytree(places["original"], places[name])
    file = str(write(tmp_path / "tiny.yaml", STUDY))
    (trial, *_) = sorted(Ledger(original).finished_trials())
    todo = everything(file, trial)
    assert {name.split()[0] for name, _ in todo} == names_of_commands()
    environment = {
        **ENVIRONMENT,
        "HOME": str(places["home"]),
        "TMPDIR": str(places["tmp"]),
        "VISTUDY_CACHE": str(places["cache"]),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]),
    }
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        environment.pop(name, None)
    for name in ("home/.cache", "home/.config"):
        (tmp_path / name / "matplotlib").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.study.changed_files", str(tmp_path)],
        cwd=places["cwd"], env=environment, input=json.dumps(todo), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    refused = {"run --detach", "list", "logs", "stop"}
    assert {name for name, (code, _) in found.items() if code == 2} == refused
    assert found["doctor"][0] == 0
    elsewhere = {
        name: outside
        for name, (_, paths) in found.items()
        if (outside := [path for path in paths if not path.startswith(MAY)])
    }
    assert elsewhere == {}
    looking = {"status", "plan", "export", "verdict", "compare", "relabel", "atlas", "film", "doctor"} | refused
    changes = {name: [path for path in found[name][1] if path.startswith("copy")] for name in looking}
    assert not any(changes.values()), changes
    caching = {name for name, (_, paths) in found.items() if any("outcome-cache.json" in path for path in paths)}
    assert caching <= {"run", "sync", "report"}
