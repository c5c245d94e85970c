"""A small study in a ledger, an empty MLflow, and everything that a user sees there."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vistudy.analysis.ledger.ledger import Attempt, Ledger
from vistudy.study.tracking import mirror

STUDY = "ring-test"
FINGERPRINT = "0123456789abcdef"
LABELS = {
    "t1-a": {
        "outcome": "converged",
        "flags": ("late_spike", "saturated"),
        "t_thr": 40.0,
        "t_coll": None,
        "outcome_version": 1,
    }
}


def values(evaluation: int) -> dict[str, float]:
    return {"dist": 1 / (evaluation + 1), "cov": math.nan, "rho": math.inf, "finite": 1.0}


def records(evaluation: int, ids: str) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": f"t1-{i}",
            "evaluation": evaluation,
            "step": 40 * evaluation,
            "wall_s": 0.1,
            "values": values(evaluation),
        }
        for i in ids
    ]


def finish(ledger: Ledger, trial: str, state: str = "complete", attempt: int = 1) -> None:
    error = None if state == "complete" else "Traceback: out of memory"
    ledger.finish_trial(
        {"trial_id": f"t1-{trial}", "state": state, "pack_id": "p1", "attempt": attempt, "wall_s": 1.0, "device": "cpu",
         "versions": {"torch": "2.14"}, "error": error, "unix_ms": 9000}
    )  # fmt: skip


def new_ledger(root: Path, ids: str = "abcd") -> tuple[Ledger, Attempt]:
    ledger = Ledger(root)
    ledger.create()
    trials = [
        {"trial_id": f"t1-{i}", "cell": {"lr": 4e-4, "ratio": "1:10", "batch_norm": False},
         "config": {"model": "gan", "data": "ring8", "seed": seed, "g_lr": 4e-4, "reg_weight": 5.0, "bn": False}}
        for seed, i in enumerate(ids)
    ]  # fmt: skip
    trials[0]["config"] |= {"data_fingerprint": FINGERPRINT}  # the others are of schema 1
    plan = {"study": STUDY, "data": {"ring8": FINGERPRINT}, "trials": trials}
    ledger.write_study(STUDY, "study: ring-test\n", plan, {"created_ms": 1000, "git": {"sha": "abc"}})
    ledger.write_pack(
        {"pack_id": "p1", "trials": [t["config"] for t in trials], "trial_ids": [t["trial_id"] for t in trials],
         "reference": {}, "created_ms": 1}
    )  # fmt: skip
    return ledger, ledger.open_attempt("p1")


def content(uri: str) -> dict[str, Any]:
    """Everything that a user can see, without MLflow's own ids."""
    client = mirror.connect(uri)
    experiment = client.get_experiment_by_name(STUDY)
    found: dict[str, Any] = {}
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = {run.info.run_id for run in runs if run.data.tags["vistudy.kind"] == "study"}
    for run in runs:
        tags = {k: v for k, v in run.data.tags.items() if k not in ("mlflow.user", "mlflow.source.name")}
        if "mlflow.parentRunId" in tags:
            assert tags.pop("mlflow.parentRunId") in parents
        history = {
            key: sorted((m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, key))
            for key in run.data.metrics
        }
        folders = [""] + [a.path for a in client.list_artifacts(run.info.run_id) if a.is_dir]
        files = sorted(
            a.path for f in folders for a in client.list_artifacts(run.info.run_id, f or None) if not a.is_dir
        )
        name = tags.get("vistudy.trial_id", "parent")
        assert name not in found, "two runs for one trial"
        info = (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time)
        data = [(of.dataset.name, of.dataset.digest, of.dataset.source_type) for of in run.inputs.dataset_inputs]
        found[name] = {
            "info": info, "tags": tags, "params": dict(run.data.params), "metrics": history, "files": files,
            "data": data,
        }  # fmt: skip
    return found


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
