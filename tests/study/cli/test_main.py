"""The command line: refusals before anything starts, exit codes, help."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path

import pytest

from tests.study.runs import start, vistudy, write
from vistudy.study.cli.main import with_present_names

STUDY = {
    "study": "s",
    "model": "gan",
    "data": "ring8",
    "seeds": [0],
    "budget": {"d_updates": 20, "evaluations": 10},
    "factors": {"lr": [1e-3], "ratio": ["1:2"]},
}
MIRRORED = ("run", "heatmap", "report", "sync", "ui")
VERBS = (*MIRRORED, "plan", "status", "export", "register", "verdict", "relabel", "compare", "atlas", "film")


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "s.yaml", STUDY)


def refused(*args: str | Path) -> str:
    output = vistudy(*args, code=2)
    assert "Traceback" not in output
    assert "error:" in output
    return " ".join(output.split())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb):
    output = vistudy(verb, "--help")
    assert f"vistudy {verb}" in output.split("Example:")[1]
    assert "--store" in output
    assert ("--tracking-uri" in output) == (verb in MIRRORED)


def test_a_store_that_is_a_file(file, tmp_path):
    (tmp_path / "taken").write_text("")
    message = refused("run", file, "--store", tmp_path / "taken")
    assert str(tmp_path / "taken") in message
    assert "--store" in message


def test_a_store_of_unknown_kind(file):
    assert "s4://bucket" in refused("run", file, "--store", "s4://bucket/x")


def test_an_address_that_nothing_answers(file, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = time.monotonic()
    message = refused("run", file, "--store", tmp_path / "store", "--cluster", address)
    assert f"cluster {address}: nothing answers there" in message
    assert time.monotonic() - started < 60
    assert not list(tmp_path.glob("store/studies/*/plan.json"))
    assert not list(tmp_path.glob("store/packs/*"))


@pytest.mark.parametrize("address", ["nowhere", "host:notaport", "ray://127.0.0.1:10001"])
def test_an_address_that_is_none(file, tmp_path, address):
    assert f"cluster {address}" in refused("plan", file, "--store", tmp_path / "x", "--cluster", address).replace(
        "'", ""
    )


def test_a_tracking_uri_that_mlflow_refuses(file, tmp_path):
    message = refused("run", file, "--store", tmp_path / "store", "--tracking-uri", "mlruns")
    assert "mlruns" in message
    assert "sqlite:///" in message
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("verb", ["status", "heatmap", "sync"])
def test_a_study_that_the_store_does_not_have(verb, tmp_path):
    assert "no vistudy store is there" in refused(verb, "nothing", "--store", tmp_path)


def test_a_misspelt_factor_starts_nothing(tmp_path):
    bad = write(tmp_path / "bad.yaml", STUDY | {"factors": {"lrr": [1e-3]}})
    message = refused("run", bad, "--store", tmp_path / "store")
    assert "bad.yaml:1: factors.lrr" in message
    assert "'lr'" in message
    assert not (tmp_path / "store").exists()


def test_too_many_trials_need_a_yes(tmp_path):
    many = STUDY | {"seeds": list(range(11_000))}
    message = refused("plan", write(tmp_path / "many.yaml", many), "--no-pilot")
    assert "--allow-large" in message
    assert "10,000" in message or "10000" in message


def test_export_to_an_unknown_format(file, tmp_path):
    assert ".parquet" in refused("export", "s", "--out", tmp_path / "x.xlsx", "--store", tmp_path)


def test_plan_as_json(file, tmp_path):
    plan = json.loads(vistudy("plan", file, "--store", tmp_path / "store", "--json", "--no-pilot"))
    assert len(plan["pending"]) == len(plan["trials"]) == 1
    assert plan["cluster"]["slots"] >= 1
    assert not (tmp_path / "store").exists()


def test_plan_says_what_a_claim_can_detect(tmp_path):
    output = vistudy("plan", "study/recipes/claim_rings.yaml", "--no-pilot", "--power", "--store", tmp_path / "store")
    rows = [line.split() for line in output.splitlines() if line.startswith("ring8-G") and " x " in line]
    assert ["ring8-G", "60", "x", "2", "50", "%", "16", "points", "225"] in rows
    assert len(rows) == 4
    assert "how much of the baseline is stable is not known" in output
    command = ("plan", "study/recipes/claim_rings.yaml", "--no-pilot", "--power", "--base", "0.5")
    output = vistudy(*command, "--store", tmp_path / "store")
    (row,) = (line.split() for line in output.splitlines() if line.startswith("ring8-G") and " x " in line)
    assert row == ["ring8-G", "60", "x", "2", "50", "%", "16", "points", "225"]


@pytest.mark.slow
def test_a_page_that_is_ended_leaves_no_server(tmp_path):
    """Ended by SIGTERM, as a service is: its port is free again."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    page = start("ui", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--port", str(port))
    try:
        deadline = time.monotonic() + 120
        while not answers():
            assert page.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        page.terminate()
        page.wait(30)
    deadline = time.monotonic() + 20
    while answers():
        assert time.monotonic() < deadline, "its server still listens"
        time.sleep(0.2)


def test_words_of_earlier_versions_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "s.yaml", "--yes", "--hang-after=3", "--", "--yes"]
    assert with_present_names(words) == ["run", "s.yaml", "--allow-large", "--heartbeat-timeout=3", "--", "--yes"]
    assert with_present_names(["logs", "s"]) == ["job", "logs", "s"]
    assert with_present_names(["job", "logs", "stop"]) == ["job", "logs", "stop"]
    assert "`--yes` is now `--allow-large`" in capsys.readouterr().err
