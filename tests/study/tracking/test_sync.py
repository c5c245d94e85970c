"""The mirror: what the runs of a study hold, and the pages that show them."""

from __future__ import annotations

import itertools
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.study.mlflow_study import FINGERPRINT, LABELS, STUDY, content, finish, new_ledger, records
from vistudy.analysis.ledger.ledger import Attempt, Ledger
from vistudy.study.tracking import mirror
from vistudy.study.tracking.mirror import SyncReport, TrackingError, sync
from vistudy.study.tracking.runs import batches

# MLflow leaves its SQLite connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


# -- what a run holds ----------------------------------------------------------------------------------------------


def test_what_the_runs_hold(study: tuple[Ledger, Attempt], uri: str, tmp_path: Path) -> None:
    heatmap = tmp_path / "heatmap.png"
    heatmap.write_bytes(b"png")
    q = {"t1-a": {0: 0.9, 3: 0.1, 2: math.nan}}
    report = sync(study[0], STUDY, uri, label=lambda records, ended: (LABELS, q), artifacts=[heatmap])
    assert report == SyncReport(runs_created=3, runs_finished=2, metrics_written=24, images_written=1, behind=0)
    found = content(uri)
    assert set(found) == {"parent", "t1-a", "t1-b", "t1-c"}
    a = found["t1-a"]
    assert a["info"] == ("batch_norm=false lr=0.0004 ratio=1:10 s0", "FINISHED", 2000, 9000)
    assert a["params"] == {
        "model": "gan",
        "data": "ring8",
        "seed": "0",
        "g_lr": "0.0004",
        "reg_weight": "5",
        "bn": "false",
        "data_fingerprint": FINGERPRINT,
    }
    assert a["data"] == found["parent"]["data"] == [("ring8", FINGERPRINT, "vistudy")]
    assert found["t1-b"]["data"] == []
    assert found["t1-b"]["tags"]["vistudy.data_fingerprint"] == "data not recorded"
    assert a["metrics"] == {
        "dist": [(40 * e, 1 / (e + 1), 2000 + e) for e in range(4)],
        "finite": [(40 * e, 1.0, 2000 + e) for e in range(4)],
        "q": [(0, 0.9, 2000), (120, 0.1, 2003)],
    }
    expected = {
        "kind": "trial", "trial_id": "t1-a", "study": STUDY, "seed": "0",
        "cell": "batch_norm=false,lr=0.0004,ratio=1:10",
        "state": "complete", "pack": "p1", "attempt": "1", "device": "cpu", "version.torch": "2.14", "synced": "3",
        "outcome": "converged", "flags": "late_spike,saturated", "t_thr": "40", "outcome_version": "1",
        "data": "ring8", "data_fingerprint": FINGERPRINT,
    }  # fmt: skip
    tags = {k.removeprefix("vistudy."): v for k, v in a["tags"].items() if k.startswith("vistudy.")}
    assert len(tags.pop("samples")) == 16
    assert tags == expected
    assert [f.split("+")[:3] for f in a["files"]] == [["images/samples", "step", "120"]] * 2
    shown, thumbnail = sorted(a["files"], key=len)
    assert thumbnail == shown.replace(".png", "+compressed.png")  # MLflow's pages show only pairs
    assert found["t1-b"]["info"][1] == "FAILED"
    assert found["t1-b"]["tags"]["vistudy.error"] == "Traceback: out of memory"
    assert found["t1-c"]["info"][1] == "KILLED"
    assert found["t1-c"]["tags"]["vistudy.state"] == "interrupted"
    parent = found["parent"]
    assert parent["info"] == (f"study {STUDY}", "KILLED", 1000, 9000)
    assert parent["files"] == [
        "environment.txt",
        "figures/heatmap.png",
        "git.json",
        "meta.json",
        "plan.json",
        "study.yaml",
    ]


def test_artifacts_lie_beside_the_database(study: tuple[Ledger, Attempt], uri: str) -> None:
    sync(study[0], STUDY, uri)
    pictures = list(Path(uri.removeprefix("sqlite:///")).parent.glob("mlartifacts/ring-test/*/artifacts/images/*"))
    assert len(pictures) == 2


def test_running_then_killed_then_opened_again(study: tuple[Ledger, Attempt], uri: str) -> None:
    ledger, attempt = study
    seen = []

    def state() -> None:
        run = content(uri)["t1-c"]
        seen.append((run["info"][1], run["tags"]["vistudy.state"], run["tags"]["vistudy.synced"]))

    for final in (False, True, False):
        sync(ledger, STUDY, uri, final=final)
        state()
    attempt.append(records(4, "c"), unix_ms=3000)
    sync(ledger, STUDY, uri, final=False)
    state()
    finish(ledger, "c")
    finish(ledger, "d", "failed")
    sync(ledger, STUDY, uri, final=False)
    state()
    assert seen == [
        ("RUNNING", "running", "3"),
        ("KILLED", "interrupted", "3"),
        ("KILLED", "interrupted", "3"),
        ("RUNNING", "running", "4"),
        ("FINISHED", "complete", "4"),
    ]
    found = content(uri)
    assert found["parent"]["info"][1] == "FINISHED"
    assert found["t1-d"]["info"][1:] == ("FAILED", 9000, 9000)


def test_relabel_changes_tags_of_ended_runs_only(study: tuple[Ledger, Attempt], uri: str) -> None:
    sync(study[0], STUDY, uri, outcomes=LABELS)
    before = content(uri)
    report = sync(study[0], STUDY, uri, outcomes={"t1-a": {"outcome": "slow", "outcome_version": 2}})
    assert (report.runs_created, report.metrics_written, report.images_written) == (0, 0, 0)
    after = content(uri)
    assert after["t1-a"]["tags"].pop("vistudy.outcome") == "slow"
    assert after["t1-a"]["tags"].pop("vistudy.outcome_version") == "2"
    for name in ("vistudy.outcome", "vistudy.outcome_version"):
        before["t1-a"]["tags"].pop(name)
    assert after == before


def test_judge_relabels_what_has_ended(study: tuple[Ledger, Attempt], uri: str) -> None:
    """Tags of ended runs follow the judge; nothing else of them is written again, no picture made."""
    sync(study[0], STUDY, uri, label=lambda records, ended: (LABELS, {}))
    before = content(uri)
    asked: list[list[str]] = []

    def judge(found: Any, ended: Any) -> Any:
        asked.append(sorted(found))
        return {"t1-a": {"outcome": "slow", "t_thr": 80.0}}, {"t1-a": {0: 0.5}}

    report = sync(study[0], STUDY, uri, label=judge, relabel=True)
    assert report == SyncReport(runs_created=0, runs_finished=0, metrics_written=0, images_written=0, behind=0)
    assert asked == [["t1-a", "t1-b", "t1-c"]]
    before["t1-a"]["tags"] |= {"vistudy.outcome": "slow", "vistudy.t_thr": "80"}
    assert content(uri) == before


def test_judge_gets_the_records_of_trials_whose_runs_go_on(study: tuple[Ledger, Attempt], uri: str) -> None:
    asked: list[list[str]] = []

    def judge(records: Any, ended: Any) -> Any:
        asked.append(sorted(records))
        return {trial_id: {"outcome": "slow"} for trial_id in records}, {}

    for _ in range(2):
        sync(study[0], STUDY, uri, label=judge)
    assert asked == [["t1-a", "t1-b", "t1-c"], ["t1-c"]]  # t1-d failed before it had a record
    assert content(uri)["t1-a"]["tags"]["vistudy.outcome"] == "slow"


def test_batches_hold_whole_evaluations() -> None:
    some = [{"evaluation": e, "step": e, "unix_ms": 1, "values": {f"m{i}": 1.0 for i in range(500)}} for e in range(3)]
    found = [(len(points), last) for points, last in batches(some, q={1: 0.5, 2: math.inf})]
    assert found == [(500, 0), (501, 1), (500, 2)]


def test_large_trials_go_in_several_batches(tmp_path: Path, uri: str) -> None:
    ledger, attempt = new_ledger(tmp_path / "store", ids="a")
    wide = {f"m{i:02d}": float(i) for i in range(60)}
    for evaluation in range(40):
        attempt.append([{**records(evaluation, "a")[0], "values": wide}], unix_ms=evaluation + 1)
    finish(ledger, "a")
    assert sync(ledger, STUDY, uri).metrics_written == 2400
    found = content(uri)["t1-a"]
    assert len(found["metrics"]) == 60
    assert {len(points) for points in found["metrics"].values()} == {40}
    assert found["tags"]["vistudy.synced"] == "39"


# -- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sentence", "search"), mirror.EXAMPLE_FILTERS)
def test_searches_are_valid(searchable: Any, sentence: str, search: str) -> None:
    client, experiment = searchable
    client.search_runs([experiment], search)


@pytest.fixture(scope="module")
def searchable(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("search")
    shutil.copy(empty_database, folder / "mlflow.db")
    ledger, attempt = new_ledger(folder / "store")
    attempt.append(records(0, "abcd"), unix_ms=1)
    finish(ledger, "a")
    uri = f"sqlite:///{folder}/mlflow.db"
    sync(ledger, STUDY, uri, outcomes=LABELS)
    client = mirror.connect(uri)
    return client, client.get_experiment_by_name(STUDY).experiment_id


def test_searches_find(searchable: Any) -> None:
    client, experiment = searchable
    searches = [search for _, search in mirror.EXAMPLE_FILTERS]
    count = {search: len(client.search_runs([experiment], search)) for search in searches}
    assert count["tags.vistudy.kind = 'trial'"] == 4
    assert count["tags.vistudy.outcome = 'converged'"] == 1
    assert count["tags.vistudy.kind = 'trial' and tags.vistudy.seed = '0'"] == 1
    assert count["tags.vistudy.state = 'failed'"] == 0


def test_default_uri_and_ui_command(tmp_path: Path) -> None:
    uri = mirror.default_tracking_uri(tmp_path)
    assert uri == f"sqlite:///{tmp_path}/mlflow.db"
    command = mirror.ui_command(uri, port=5001)
    options = dict(itertools.pairwise(command))
    assert options["--backend-store-uri"] == uri
    assert options["--default-artifact-root"] == f"file://{tmp_path}/mlartifacts"
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "5001")
    assert mirror.UI_ENVIRONMENT["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    with pytest.raises(TrackingError, match="is a server already"):
        mirror.ui_command("http://127.0.0.1:5000")
    with pytest.raises(TrackingError, match="--tracking-uri"):
        mirror.default_tracking_uri("memory://store")


def test_no_telemetry(uri: str) -> None:
    mirror.connect(uri)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"


def test_a_database_whose_making_was_killed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.store.db.utils as migrations

    uri = f"sqlite:///{tmp_path}/mlflow.db"

    class Killed(BaseException):
        """As SIGKILL: nothing tidies up."""

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(migrations, "_upgrade_db", killed)
        with pytest.raises(Killed):
            mirror.connect(uri).search_experiments()
    assert (tmp_path / "mlflow.db").stat().st_size == 0
    assert len(mirror.connect(uri).search_experiments()) == 1
    assert not list(tmp_path.glob("*.new*"))
