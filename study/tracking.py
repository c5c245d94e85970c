"""The mirror: ledger -> MLflow, by one writer, in batches. The only module of `study` that knows MLflow.

What a run holds: `docs/records.md`. Training never waits for this. An MLflow that is down, slow or wiped costs nothing: the
next `sync` writes what is missing, with the ledger's timestamps, and nothing twice.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import sys
import time
import urllib.parse
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.frame import cell_tag
from study.artifacts import SampleFiles, study_files, upload
from study.errors import StudyError
from study.ledger import Ledger

Records = list[dict[str, Any]]
Labels = Mapping[str, Mapping[str, object]]
"""trial_id -> tag (without `vistudy.`) -> value: outcome, flags, t_thr, t_coll, t_div, outcome_version ..."""

BATCH_METRICS = 880
"""Metrics in a call: MLflow takes 1,000 entities, params and tags among them."""

SEARCHES: tuple[tuple[str, str], ...] = (
    ("all trials, without the run of the study itself", "tags.vistudy.kind = 'trial'"),
    ("trials that kept all modes to the end", "tags.vistudy.outcome = 'converged'"),
    ("trials that found the modes and lost them again", "tags.vistudy.outcome = 'mode_collapse_late'"),
    ("trials that left the real numbers", "tags.vistudy.outcome = 'diverged' and metrics.finite = 0"),
    ("without the regularizer", "params.reg_weight = '0'"),
    ("one cell, all its seeds", "tags.vistudy.cell LIKE '%lr=0.0004,%' and tags.vistudy.kind = 'trial'"),
    ("near the real data at the last evaluation", "metrics.dist < 0.1 and metrics.cov > 0.9"),
    ("trials whose regularizer outweighs the adversarial gradient", "metrics.rho > 1"),
    ("trials that a machine failed, with their traceback as a tag", "tags.vistudy.state = 'failed'"),
)
"""(what it finds, filter) to type into the search field of an experiment."""

UI_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""Environment for `ui_command`: without the job runners a server takes a third of the memory."""

_QUIET = {**UI_ENVIRONMENT, "MLFLOW_LOGGING_LEVEL": "WARNING", "GIT_PYTHON_REFRESH": "quiet"}
_FAIL_FAST = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
_ENDED = {"complete": "FINISHED", "failed": "FAILED"}


class TrackingError(StudyError):
    """MLflow cannot be reached or refuses. The ledger has everything; `vistudy sync` catches up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport:
    """What one `sync` wrote."""

    runs_created: int = 0
    runs_finished: int = 0
    """Runs of trials set to FINISHED or FAILED."""
    metrics_written: int = 0
    images_written: int = 0
    behind: int = 0
    """Records of the study that MLflow still lacks: 0 unless the sync failed."""


@dataclass(kw_only=True, slots=True)
class _Run:
    """What is known of one MLflow run, so that only differences are sent."""

    run_id: str
    status: str
    tags: dict[str, str]
    params: frozenset[str] = frozenset()
    metrics: frozenset[str] = frozenset()
    found: bool = False
    """It was there before this process: another sync may have been cut off in it."""

    @property
    def synced(self) -> int:
        """Last evaluation whose metrics are there."""
        return int(self.tags.get("vistudy.synced", -1))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """Arguments of one sync."""

    labels: Labels
    q: Mapping[str, Mapping[int, float]]
    artifacts: Sequence[Path]
    samples: SampleFiles | None
    final: bool
    progress: Callable[[int, int], None] | None


def sync(
    ledger: Ledger,
    study_name: str,
    tracking_uri: str,
    *,
    outcomes: Labels | Callable[[Collection[str]], Labels] | None = None,
    q: Mapping[str, Mapping[int, float]] | Callable[[Collection[str]], Mapping[str, Mapping[int, float]]] | None = None,
    artifacts: Sequence[Path] = (),
    samples: bool = True,
    modes: Mapping[str, Any] | None = None,
    final: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> SyncReport:
    """Bring a study's MLflow experiment up to date with the ledger.

    Args:
        ledger: the source.
        study_name: a study in it; also the experiment's name.
        tracking_uri: where MLflow is: sqlite:///file, http(s)://host:port, or a database.
        outcomes: tags of trials (see Labels). A mapping is compared with every run (relabel); a function is asked
            only for the trials whose runs are not ended in MLflow.
        q: trial_id -> evaluation -> composite deficiency, written as the metric `q`; or a function, asked likewise.
        artifacts: files for the parent run, such as heatmaps.
        samples: also write pictures of the samples of ended trials.
        modes: data set -> (m, 2) centres of its real modes, drawn behind sampled points.
        final: no training goes on: runs of unfinished trials are KILLED instead of RUNNING.
        progress: called with (trials done, trials to do).

    Raises:
        TrackingError: MLflow cannot be reached, or refuses.
        StudyBusyError: another process is syncing this study.
    """
    syncer = _Syncer(ledger, study_name, tracking_uri)
    pictures = SampleFiles(ledger, modes or {}) if samples else None
    return syncer.run(outcomes, q, artifacts=artifacts, samples=pictures, final=final, progress=progress)


class _Syncer:
    """One writer of one experiment. Keeps the index of its runs between calls, until one of them fails."""

    def __init__(self, ledger: Ledger, study: str, uri: str) -> None:
        check_tracking_uri(uri)
        self._ledger, self._study, self._uri = ledger, study, uri
        self._client: Any = None
        self._experiment = ""
        self._runs: dict[str, _Run] = {}
        self._parent: _Run | None = None

    def run(
        self, outcomes: Any, q: Any, *, artifacts: Sequence[Path] = (), samples: SampleFiles | None = None,
        final: bool, progress: Callable[[int, int], None] | None = None,
    ) -> SyncReport:  # fmt: skip
        """One pass over the whole study."""
        with self._ledger.lock(self._study, "sync"), _translated(self._uri):
            try:
                plan = self._ledger.read_plan(self._study)
                if self._client is None:
                    self._open()
                ids = [trial["trial_id"] for trial in plan["trials"]]
                ended = self._ledger.read_outcomes(ids)
                pending = [trial_id for trial_id in ids if not self._mirrored(trial_id, ended)]
                job = _Job(
                    labels=_ask(outcomes, pending), q=_ask(q, pending), artifacts=artifacts, samples=samples,
                    final=final, progress=progress,
                )  # fmt: skip
                return self._pass(plan, ended, pending, job)
            except BaseException:
                self._client = None  # what was written is unknown: look again next time
                raise

    def _mirrored(self, trial_id: str, ended: Mapping[str, Mapping[str, Any]]) -> bool:
        run, outcome = self._runs.get(trial_id), ended.get(trial_id)
        if run is None or outcome is None:
            return False
        return run.status == _ENDED[outcome["state"]] and run.tags.get("vistudy.attempt") == str(outcome["attempt"])

    def _pass(
        self, plan: Mapping[str, Any], ended: Mapping[str, Mapping[str, Any]], pending: Collection[str], job: _Job
    ) -> SyncReport:
        records: dict[str, Records] = {}
        for record in self._ledger.records(pending):
            records.setdefault(record["trial_id"], []).append(record)
        parent = self._write_parent(plan, job)
        done = {"runs_created": 0, "runs_finished": 0, "metrics_written": 0, "images_written": 0}
        todo = [t for t in plan["trials"] if t["trial_id"] in pending or t["trial_id"] in job.labels]
        for number, trial in enumerate(todo):
            trial_id = trial["trial_id"]
            mine, outcome = records.get(trial_id, []), ended.get(trial_id)
            if mine or outcome:
                writer = _TrialWriter(self._client, self._experiment, self._study, trial, mine, outcome, job)
                for name, count in writer.write(self._runs, parent.run_id).items():
                    done[name] += count
            if job.progress:
                job.progress(number + 1, len(todo))
        self._close_parent(parent, plan, ended, final=job.final)
        return SyncReport(**done)

    def _open(self) -> None:
        self._client = _client(self._uri)
        experiment = self._client.get_experiment_by_name(self._study)
        if experiment is None:
            self._experiment = self._client.create_experiment(
                self._study, artifact_location=_artifact_location(self._uri, self._study)
            )
        else:
            self._experiment = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                self._client.restore_experiment(self._experiment)
        self._runs, self._parent = {}, None
        for found in self._search():
            tags = dict(found.data.tags)
            run = _Run(
                run_id=found.info.run_id, status=found.info.status, tags=tags, found=True,
                params=frozenset(found.data.params), metrics=frozenset(found.data.metrics),
            )  # fmt: skip
            if tags.get("vistudy.kind") == "study":
                self._parent = self._parent or run
            elif tags.get("vistudy.kind") == "trial":
                self._keep_one(tags["vistudy.trial_id"], run)

    def _search(self) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], max_results=200, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _keep_one(self, trial_id: str, run: _Run) -> None:
        """A server that answered too late may have made a run twice: the fuller one stays."""
        other = self._runs.get(trial_id)
        if other is None:
            self._runs[trial_id] = run
            return
        keep, drop = (run, other) if run.synced > other.synced else (other, run)
        self._client.delete_run(drop.run_id)
        self._runs[trial_id] = keep

    def _write_parent(self, plan: Mapping[str, Any], job: _Job) -> _Run:
        meta = self._ledger.read_meta(self._study)
        if self._parent is None:
            tags = {"vistudy.kind": "study", "vistudy.study": self._study, "mlflow.note.content": _note()}
            start = int(meta.get("created_ms", time.time() * 1000))
            made = self._client.create_run(self._experiment, start_time=start, tags=tags, run_name=f"study {self._study}")
            self._parent = _Run(run_id=made.info.run_id, status="RUNNING", tags=tags)
        files = study_files(self._ledger.read_study_text(self._study), plan, meta, job.artifacts)
        upload(self._client, self._parent.run_id, files, self._parent.tags, "vistudy.artifacts")
        return self._parent

    def _close_parent(
        self, parent: _Run, plan: Mapping[str, Any], ended: Mapping[str, Any], *, final: bool
    ) -> None:
        tags = {"vistudy.trials": str(len(plan["trials"])), "vistudy.trials_ended": str(len(ended))}
        _log(self._client, parent, tags=tags)
        status = "FINISHED" if len(ended) == len(plan["trials"]) else "KILLED" if final else "RUNNING"
        end = max((int(outcome["unix_ms"]) for outcome in ended.values()), default=int(time.time() * 1000))
        _set_status(self._client, parent, status, end)


@dataclass(frozen=True, slots=True)
class _TrialWriter:
    """Brings the run of one trial up to date: run, pictures, then params, metrics and tags in one call, then the end."""

    client: Any
    experiment: str
    study: str
    trial: Mapping[str, Any]
    records: Records
    outcome: Mapping[str, Any] | None
    job: _Job

    def write(self, runs: dict[str, _Run], parent_id: str) -> dict[str, int]:
        """Do it; returns counts by the names of SyncReport."""
        trial_id = self.trial["trial_id"]
        made = trial_id not in runs
        if made:
            runs[trial_id] = self._create(parent_id)
        run = runs[trial_id]
        new = self._missing(run)
        before = run.status
        status = _ENDED[self.outcome["state"]] if self.outcome else self._unfinished(run, new)
        if status == "RUNNING":
            _set_status(self.client, run, status, 0)
        tags = self._tags(status)
        images = 0
        if self.outcome and self.records and self.job.samples:
            files = self.job.samples.of(trial_id, self.trial["config"]["data"], self.records)
            images = upload(self.client, run.run_id, files, run.tags, "vistudy.samples") // 2
            tags |= {"mlflow.loggedImages": "True"} if files else {}
        written = self._write_batches(run, new, tags)
        if status != "RUNNING":
            _set_status(self.client, run, status, self._end())
        finished = int(status in _ENDED.values() and (made or before != status))
        return {"runs_created": int(made), "runs_finished": finished, "metrics_written": written, "images_written": images}

    def _unfinished(self, run: _Run, new: Records) -> str:
        if self.job.final:
            return "KILLED"
        return "RUNNING" if new else run.status

    def _create(self, parent_id: str) -> _Run:
        start = self.records[0]["unix_ms"] if self.records else self._end()
        cell, seed = cell_tag(self.trial["cell"]), self.trial["config"]["seed"]
        tags = {"mlflow.parentRunId": parent_id, "vistudy.kind": "trial", "vistudy.trial_id": self.trial["trial_id"]}
        tags |= {"vistudy.study": self.study, "vistudy.cell": cell, "vistudy.seed": str(seed)}
        tags |= self._tags("RUNNING")
        made = self.client.create_run(
            self.experiment, start_time=start, tags=tags, run_name=f"{cell.replace(',', ' ')} s{seed}".strip()
        )
        return _Run(run_id=made.info.run_id, status="RUNNING", tags=tags)

    def _end(self) -> int:
        if self.outcome:
            return int(self.outcome["unix_ms"])
        return int(self.records[-1]["unix_ms"])

    def _tags(self, status: str) -> dict[str, str]:
        tags = {f"vistudy.{k}": _text(v) for k, v in self.job.labels.get(self.trial["trial_id"], {}).items() if v is not None}
        if self.outcome is None:
            return tags | {"vistudy.state": "running" if status == "RUNNING" else "planned"}
        found = self.outcome
        tags |= {"vistudy.state": found["state"], "vistudy.pack": found["pack_id"], "vistudy.attempt": str(found["attempt"])}
        tags |= {"vistudy.device": str(found.get("device"))}
        tags |= {f"vistudy.version.{name}": str(version) for name, version in (found.get("versions") or {}).items()}
        if found.get("error"):
            tags["vistudy.error"] = str(found["error"])[-4000:]
        return tags

    def _missing(self, run: _Run) -> Records:
        new = [record for record in self.records if record["evaluation"] > run.synced]
        shared = sorted(run.metrics & new[0]["values"].keys()) if new else []
        if run.found and shared:  # MLflow commits metrics before tags: a cut between them left the tag behind
            key = "finite" if "finite" in shared else shared[0]
            last = max((metric.step for metric in self.client.get_metric_history(run.run_id, key)), default=-1)
            new = [record for record in new if record["step"] > last]
        run.found = False
        return new

    def _write_batches(self, run: _Run, new: Records, tags: dict[str, str]) -> int:
        params = {} if run.params else {name: _text(value) for name, value in self.trial["config"].items()}
        count = 0
        for batch, last in _batches(new, self.job.q.get(self.trial["trial_id"], {})):
            _log(self.client, run, metrics=batch, params=params, tags=tags | {"vistudy.synced": str(last)})
            params, count = {}, count + len(batch)
        if self.records:
            tags = tags | {"vistudy.synced": str(self.records[-1]["evaluation"])}
        _log(self.client, run, params=params, tags=tags)
        return count
