"""The whole stack: study file -> Ray Tune -> ledger -> MLflow -> heatmap, run, killed, run again, grown."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest

from tests.study.runs import mlflow_runs, records, start, vistudy, write
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.tables.trials import load_frame

pytestmark = pytest.mark.slow

STUDY: dict[str, Any] = {
    "study": "tiny",
    "model": "gan",
    "seeds": [0, 1],
    "blocks": [
        {
            "data": "ring8",
            "budget": {"d_updates": 1500, "evaluations": 12},
            "factors": {"lr": [4e-4, 1000.0], "reg_weight": [0, 5], "ratio": ["1:1", "1:2"]},
            "fixed": {"batch_size": 16},
        },
        {
            "data": "digits",
            "budget": {"d_updates": 24, "evaluations": 12},
            "factors": {"lr": [1e-3], "reg_weight": [0, 5], "ratio": ["1:2"], "batch_norm": [True]},
            "fixed": {"batch_size": 16, "width": 4, "bn_recalibration_images": 2048},
            "keep_checkpoints": "final",
        },
    ],
}
TRIALS = 20


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(study file, store, output) of an undisturbed run."""
    folder = tmp_path_factory.mktemp("finished")
    file, store = write(folder / "tiny.yaml", STUDY), folder / "store"
    return file, store, vistudy("run", file, "--store", store)


def test_every_trial_has_all_its_records_and_an_outcome(finished):
    _, store, output = finished
    frame = load_frame(store, "tiny")
    assert len(frame) == TRIALS
    assert set(frame["state"]) == {"complete"}
    diverged = frame[frame["g_lr"] == 1000.0]
    assert set(diverged["outcome"]) == {"diverged"}
    counts = Counter(trial_id for trial_id, _ in records(store))
    for row in frame.itertuples():
        assert counts[row.trial_id] == 13 or row.outcome == "diverged"
    assert f"{TRIALS} trials in" in output


def test_placebo_is_bitwise_equal_through_the_whole_stack(finished):
    _, store, _ = finished
    frame, values = load_frame(store, "tiny"), records(store)
    placebo = frame[(frame["g_steps"] == 1) & (frame["g_lr"] < 1)]
    assert placebo["inert"].sum() == 2
    for _, pair in placebo.groupby("seed"):
        a, b = pair["trial_id"]
        assert [values[a, e] for e in range(13)] == [values[b, e] for e in range(13)]


def test_mlflow_has_one_finished_run_a_trial(finished):
    _, store, _ = finished
    runs = mlflow_runs(store, "tiny")
    assert len(runs) == len({run.data.tags["vistudy.trial_id"] for run in runs}) == TRIALS
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {"diverged", "stalled"} <= {run.data.tags["vistudy.outcome"] for run in runs}
    calm = next(run for run in runs if run.data.tags["vistudy.outcome"] != "diverged")
    assert {"q", "dist", "cov", "prec", "g_loss", "d_loss", "rho", "drift"} <= set(calm.data.metrics)
    assert calm.data.params["reg_weight"] in ("0", "5", "0.0", "5.0")


def test_heatmaps_are_drawn(finished):
    _, store, output = finished
    folder = store / "heatmaps" / "tiny"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "tiny-gan-ring8.png", "tiny-gan-ring8.svg", "tiny-gan-digits.png", "tiny-gan-digits.svg", "tiny.html",
    }  # fmt: skip
    assert all(str(folder / name) in output for name in names)
    assert "127.0.0.1:5000/#/experiments/" in (folder / "tiny.html").read_text()


def test_final_weights_are_kept_where_asked(finished):
    _, store, _ = finished
    frame = load_frame(store, "tiny").set_index("trial_id")
    for run in mlflow_runs(store, "tiny"):
        trial_id = run.data.tags["vistudy.trial_id"]
        artifacts = Path(unquote(urlsplit(run.info.artifact_uri).path))
        kept = Ledger(store).weights(trial_id)
        if frame.loc[trial_id, "data"] == "ring8":
            assert not kept
            continue
        assert {"g/dense.weight", "d/out.bias"} <= set(kept)
        with np.load(artifacts / "weights.npz") as stored:
            assert set(stored.files) == set(kept)
            norm = float(np.sqrt(sum((stored[n].astype(float) ** 2).sum() for n in stored.files if n[0] == "g")))
        assert norm == pytest.approx(run.data.metrics["g_param_norm"], rel=1e-6)


def test_status_and_export(finished, tmp_path):
    file, store, _ = finished
    assert "all 20 trials have ended" in vistudy("status", file, "--store", store)
    out = tmp_path / "trials.parquet"
    vistudy("export", "tiny", "--out", out, "--store", store)
    assert len(pd.read_parquet(out)) == TRIALS
    vistudy("export", "tiny", "--records", "--out", tmp_path / "records.csv", "--store", store)
    assert len(pd.read_csv(tmp_path / "records.csv")) == len(records(store))


def test_report_compare_and_atlas(finished, tmp_path):
    _, store, _ = finished
    output = vistudy("report", "tiny", "--store", store, "--out", tmp_path / "report")
    assert str(tmp_path / "report" / "report.html") in output
    page = (tmp_path / "report" / "report.html").read_text()
    assert all(trial_id in page for trial_id in load_frame(store, "tiny")["trial_id"])
    parent = Path(unquote(urlsplit(mlflow_runs(store, "tiny", "study")[0].info.artifact_uri).path))
    assert (parent / "figures" / "report.html").read_text() == page
    found = json.loads(vistudy("compare", "tiny", "tiny", "--store", store, "--json"))
    assert (found["shared"], found["disagree"], found["unequal"]) == (TRIALS, [], 0)
    vistudy("atlas", "tiny", "--store", store, "--out", tmp_path / "atlas.html")
    assert "data:image/png" in (tmp_path / "atlas.html").read_text()


def test_there_is_no_verdict_without_a_claim(finished):
    _, store, _ = finished
    assert "has no claim" in vistudy("verdict", "tiny", "--store", store, code=2)


def test_run_again_runs_nothing(finished):
    file, store, _ = finished
    before = records(store)
    output = vistudy("run", file, "--store", store)
    assert "nothing left to run" in output
    assert records(store) == before
    assert len(mlflow_runs(store, "tiny")) == TRIALS


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_driver_changes_no_bit(finished, tmp_path, kill):
    file, undisturbed, _ = finished
    store = tmp_path / "store"
    driver = start("run", file, "--store", store, "--checkpoint-every", "0")
    deadline = time.monotonic() + 120
    while not list(store.glob("packs/*/attempt-001/checkpoint-0000[1-3].pt")):
        assert time.monotonic() < deadline
        assert driver.poll() is None
        time.sleep(0.05)
    if kill == signal.SIGINT:  # as a terminal does it, to all processes of its foreground group, Ray's too
        os.killpg(driver.pid, kill)
    else:
        driver.send_signal(kill)
    if kill == signal.SIGKILL:  # left alone, workers go on for a second or two, and may come to their end
        for beat in filter(None, map(Ledger(store).heartbeat, Ledger(store).packs())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(beat["pid"]), signal.SIGKILL)
    code = driver.wait(timeout=120)
    done = Ledger(store).finished_trials()
    assert len(done) < TRIALS
    if kill != signal.SIGKILL:  # SIGTERM is what Slurm and spot instances send: it leaves in order
        assert code == (75 if kill == signal.SIGTERM else 130)
        assert "RUNNING" not in {run.info.status for run in mlflow_runs(store, "tiny")}
    vistudy("run", file, "--store", store)
    if kill == signal.SIGKILL:  # the others may leave packs whole that were nearly done
        assert any(len(Ledger(store).attempts(pack_id)) > 1 for pack_id in Ledger(store).packs())
    assert records(store) == records(undisturbed)
    runs = mlflow_runs(store, "tiny")
    assert Counter(run.data.tags["vistudy.trial_id"] for run in runs).most_common(1)[0][1] == 1
    assert len(runs) == TRIALS
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_growing_a_study_runs_what_is_new(finished, tmp_path):
    _, store, _ = finished
    before = records(store)
    grown = STUDY | {"seeds": [0, 1, 2]}
    grown["blocks"] = [dict(block) for block in STUDY["blocks"]]
    grown["blocks"][0]["factors"] = STUDY["blocks"][0]["factors"] | {"reg_weight": [0, 5, 50]}
    file = write(tmp_path / "grown.yaml", grown)
    plan = vistudy("plan", file, "--store", store, "--no-pilot")
    assert "in the store: 20 done, 0 of them failed; to run: 22" in plan
    output = vistudy("run", file, "--store", store)
    assert "22 of 42 trials to run" in output
    after = records(store)
    assert {key: after[key] for key in before} == before
    assert len(load_frame(store, "tiny")) == len(mlflow_runs(store, "tiny")) == 42
