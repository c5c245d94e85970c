"""Ledger -> MLflow runs: only what is missing there, in few calls. Knows no MLflow, only `tracking.Experiment`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.frame import cell_tag
from study.artifacts import SampleFiles, study_files
from study.ledger import Ledger
from study.tracking_uri import SEARCHES

if TYPE_CHECKING:
    from study.tracking import Experiment

Records = Sequence[Mapping[str, Any]]
Labels = Mapping[str, Mapping[str, object]]
"""trial_id -> tag (without `vistudy.`) -> value: outcome, flags, t_thr, t_coll, t_div, outcome_version. None: none."""
Series = Mapping[str, Mapping[int, float]]
"""trial_id -> evaluation -> value."""
Judge = Callable[[Mapping[str, Records], Mapping[str, dict[str, Any]]], tuple[Labels, Series]]
"""(records of trials, their outcome files) -> tags of those that are complete, composite deficiency Q of all."""
Point = tuple[str, float, int, int]
"""Metric, value, timestamp in ms, step."""

BATCH_METRICS = 880
"""Metrics in a call: MLflow takes 1,000 entities, params and tags among them."""
ENDED = {"complete": "FINISHED", "failed": "FAILED"}
"""State of a trial that has ended -> status of its run."""


@dataclass(kw_only=True, slots=True)
class Run:
    """What is known of one MLflow run, so that only differences are sent."""

    run_id: str
    status: str
    tags: dict[str, str]
    has_params: bool = False
    metrics: frozenset[str] = frozenset()
    found: bool = False
    """It was there before this process: an earlier sync may have been cut off in it."""

    @property
    def synced(self) -> int:
        """Last evaluation whose metrics are there; -1 if none."""
        return int(self.tags.get("vistudy.synced", -1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What one sync was asked for. See `study.tracking.sync`."""

    labels: Labels
    q: Mapping[str, Mapping[int, float]]
    artifacts: Sequence[Path]
    samples: SampleFiles | None
    final: bool
    progress: Callable[[int, int], None] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """Brings one run up to date: pictures; then params, metrics and tags in one call; then its end."""

    api: Experiment
    study: str
    trial: Mapping[str, Any]
    """As in the plan: trial_id, cell, config."""
    records: Records
    outcome: Mapping[str, Any] | None
    job: Job

    def create(self, parent_id: str) -> Run:
        """Make the run, with every tag that is known already."""
        cell, seed = cell_tag(self.trial["cell"]), self.trial["config"]["seed"]
        tags = {
            "mlflow.parentRunId": parent_id,
            "vistudy.kind": "trial",
            "vistudy.trial_id": self.trial["trial_id"],
            "vistudy.study": self.study,
            "vistudy.cell": cell,
            "vistudy.seed": str(seed),
        }
        start = int(self.records[0]["unix_ms"]) if self.records else self._end()
        return self.api.create(f"{cell.replace(',', ' ')} s{seed}".strip(), tags | self._tags("RUNNING"), start)

    def write(self, run: Run) -> tuple[bool, int, int]:
        """Bring it up to date. Returns: has it ended just now, metrics written, pictures written."""
        new, before = self._missing(run), run.status
        status = ENDED[self.outcome["state"]] if self.outcome else self._unfinished(run, new)
        if status == "RUNNING":
            self.api.set_status(run, status)
        tags, pictures = self._tags(status), 0
        if self.outcome and self.job.samples and (self.records or "vistudy.samples" not in run.tags):
            files = self.job.samples.of(self.trial["trial_id"], self.trial["config"]["data"], self.records)
            tags["vistudy.samples"], sent = self.api.upload(run, files, run.tags.get("vistudy.samples"))
            pictures = sum(name.endswith(".png") for name in files) if sent else 0
            if files:
                tags["mlflow.loggedImages"] = "True"
        written = self._write_metrics(run, new, tags)
        if status != "RUNNING":
            self.api.set_status(run, status, self._end())
        return status != before and status in ENDED.values(), written, pictures

    def _missing(self, run: Run) -> Records:
        new = [record for record in self.records if record["evaluation"] > run.synced]
        shared = sorted(run.metrics & new[0]["values"].keys()) if new else []
        if run.found and shared:  # MLflow commits metrics before tags: a cut between the two leaves the tag behind
            last = self.api.last_step(run, "finite" if "finite" in shared else shared[0])
            new = [record for record in new if record["step"] > last]
        run.found = False
        return new

    def _unfinished(self, run: Run, new: Records) -> str:
        if self.job.final:
            return "KILLED"
        return "RUNNING" if new else run.status  # a run that was KILLED is opened again when its trial goes on

    def _end(self) -> int:
        return int(self.outcome["unix_ms"] if self.outcome else self.records[-1]["unix_ms"])

    def _tags(self, status: str) -> dict[str, str]:
        labels = self.job.labels.get(self.trial["trial_id"], {})
        tags = {f"vistudy.{name}": text(value) for name, value in labels.items() if value is not None}
        if self.outcome is None:
            return tags | {"vistudy.state": "running" if status == "RUNNING" else "planned"}
        found = self.outcome
        tags |= {
            "vistudy.state": str(found["state"]),
            "vistudy.pack": str(found["pack_id"]),
            "vistudy.attempt": str(found["attempt"]),
            "vistudy.device": str(found.get("device")),
        }
        tags |= {f"vistudy.version.{name}": str(version) for name, version in (found.get("versions") or {}).items()}
        if found.get("error"):
            tags["vistudy.error"] = str(found["error"])[-4000:]  # the end of a traceback says most
        return tags

    def _write_metrics(self, run: Run, new: Records, tags: dict[str, str]) -> int:
        params = {name: text(value) for name, value in self.trial["config"].items()}
        count = 0
        for points, last in batches(new, self.job.q.get(self.trial["trial_id"], {})):
            self.api.log(run, points, params, tags | {"vistudy.synced": str(last)})
            count += len(points)
        if self.records:
            tags = tags | {"vistudy.synced": str(max(run.synced, self.records[-1]["evaluation"]))}
        self.api.log(run, [], params, tags)  # sends nothing if all of it is there
        return count


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport:
    """What one `sync` wrote."""

    runs_created: int
    """Runs of trials."""
    runs_finished: int
    """Runs of trials set to FINISHED or FAILED."""
    metrics_written: int
    images_written: int
    behind: int
    """Evaluations of packs that reached the ledger since this sync read it."""


class Syncer:
    """One writer of one experiment. Keeps the index of its runs between calls, until one of them fails."""

    def __init__(
        self,
        ledger: Ledger,
        study: str,
        connect: Callable[[], Experiment],
        *,
        samples: bool = True,
        modes: Mapping[str, Any] | None = None,
    ) -> None:
        self._ledger, self._study, self._connect = ledger, study, connect
        self._samples = SampleFiles(ledger, modes or {}) if samples else None
        self._api: Experiment | None = None
        self._runs: dict[str, Run] = {}
        self._parent: Run | None = None

    def sync(
        self,
        *,
        outcomes: Labels | None = None,
        judge: Judge | None = None,
        artifacts: Sequence[Path] = (),
        final: bool = True,
        running: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> SyncReport:
        """One pass over the study. Arguments as of `study.tracking.sync`; without `running`, of trials that ended."""
        with self._ledger.lock(self._study, "sync"):
            try:
                before = self._ledger.progress()
                plan = self._ledger.read_plan(self._study)
                api = self._api or self._open()
                ids = [trial["trial_id"] for trial in plan["trials"]]
                ended = self._ledger.read_outcomes(ids)
                pending = [i for i in ids if (running or i in ended) and not self._mirrored(i, ended)]
                records: dict[str, list[dict[str, Any]]] = {}
                for record in self._ledger.records(pending):
                    records.setdefault(record["trial_id"], []).append(record)
                labels, q = judge(records, ended) if judge else ({}, {})
                job = Job(
                    labels={**labels, **(outcomes or {})},
                    q=q,
                    artifacts=artifacts,
                    samples=self._samples,
                    final=final,
                    progress=progress,
                )
                totals = self._pass(api, plan, ended, set(pending), records, job)
            except BaseException:
                self._api = None  # it is not known what was written: look again next time
                raise
        created, finished, metrics, images = totals
        return SyncReport(
            runs_created=created,
            runs_finished=finished,
            metrics_written=metrics,
            images_written=images,
            behind=newer(self._ledger.progress(), before),
        )

    def _open(self) -> Experiment:
        api = self._connect()
        self._runs, self._parent = {}, None
        for run in api.runs():
            if run.tags.get("vistudy.kind") == "study":
                self._parent = self._parent or run
            elif run.tags.get("vistudy.kind") == "trial":
                other = self._runs.get(run.tags["vistudy.trial_id"])
                if other:  # a server that answered too late made it twice: the fuller one stays
                    run, drop = (run, other) if run.synced > other.synced else (other, run)
                    api.delete(drop)
                self._runs[run.tags["vistudy.trial_id"]] = run
        self._api = api
        return api

    def _mirrored(self, trial_id: str, ended: Mapping[str, Mapping[str, Any]]) -> bool:
        run, outcome = self._runs.get(trial_id), ended.get(trial_id)
        if run is None or outcome is None or (self._samples and "vistudy.samples" not in run.tags):
            return False
        return run.status == ENDED[outcome["state"]] and run.tags.get("vistudy.attempt") == str(outcome["attempt"])

    def _pass(
        self,
        api: Experiment,
        plan: Mapping[str, Any],
        ended: Mapping[str, Any],
        pending: set[str],
        records: dict[str, list[dict[str, Any]]],
        job: Job,
    ) -> tuple[int, int, int, int]:
        parent = self._write_parent(api, plan, job)
        created = finished = metrics = images = 0
        todo = [t for t in plan["trials"] if t["trial_id"] in pending or t["trial_id"] in job.labels]
        for number, trial in enumerate(todo, 1):
            trial_id = trial["trial_id"]
            mine, outcome = records.pop(trial_id, []), ended.get(trial_id)
            if mine or outcome:
                replay = Replay(api=api, study=self._study, trial=trial, records=mine, outcome=outcome, job=job)
                if trial_id not in self._runs:
                    self._runs[trial_id] = replay.create(parent.run_id)
                    created += 1
                end, written, pictures = replay.write(self._runs[trial_id])
                finished, metrics, images = finished + end, metrics + written, images + pictures
            if job.progress:
                job.progress(number, len(todo))
        all_ended = len(ended) == len(plan["trials"])
        last = max((int(outcome["unix_ms"]) for outcome in ended.values()), default=int(time.time() * 1000))
        api.set_status(parent, "FINISHED" if all_ended else "KILLED" if job.final else "RUNNING", last)
        return created, finished, metrics, images

    def _write_parent(self, api: Experiment, plan: Mapping[str, Any], job: Job) -> Run:
        meta = self._ledger.read_meta(self._study)
        if self._parent is None:
            lines = [f"* {what}: `{search}`" for what, search in SEARCHES]
            tags = {
                "vistudy.kind": "study",
                "vistudy.study": self._study,
                "mlflow.note.content": "Searches worth typing:\n\n" + "\n".join(lines),
            }
            start = int(meta.get("created_ms", time.time() * 1000))
            self._parent = api.create(f"study {self._study}", tags, start)
        files = study_files(self._ledger.read_study_text(self._study), plan, meta, job.artifacts)
        print_, _ = api.upload(self._parent, files, self._parent.tags.get("vistudy.files"))
        tags = {"vistudy.files": print_, "vistudy.trials": str(len(plan["trials"]))}
        api.log(self._parent, [], {}, tags | registration_tags(self._ledger.registrations(self._study)))
        return self._parent


def registration_tags(registrations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Tags of the parent run that say which claim is registered, and when it was (UTC): the newest one."""
    if not registrations:
        return {}
    last = registrations[-1]
    when = datetime.fromtimestamp(last["registered_ms"] / 1000, tz=UTC).isoformat(timespec="seconds")
    return {
        "vistudy.claim_id": str(last["claim"]["id"]),
        "vistudy.claim_hash": str(last["claim_hash"]),
        "vistudy.registered": when,
    }


def batches(records: Records, q: Mapping[int, float]) -> Iterator[tuple[list[Point], int]]:
    """Finite values of records, whole evaluations at a time, up to BATCH_METRICS; with the last evaluation in each."""
    points: list[Point] = []
    last = -1
    for record in records:
        values = dict(record["values"])
        if record["evaluation"] in q:
            values["q"] = q[record["evaluation"]]
        more = [(k, float(v), record["unix_ms"], record["step"]) for k, v in values.items() if math.isfinite(v)]
        if points and len(points) + len(more) > BATCH_METRICS:
            yield points, last
            points = []
        points, last = points + more, record["evaluation"]
    if points:
        yield points, last


def text(value: object) -> str:
    """A param or tag: booleans in lower case, numbers as short as no bit is lost, sequences joined by commas."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = format(value, "g")
        return short if float(short) == value else repr(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(text(item) for item in value)
    return str(value)


def newer(now: Mapping[str, int], before: Mapping[str, int]) -> int:
    """Evaluations of packs in one `Ledger.progress` that an earlier one lacks."""
    return sum(max(0, last - before.get(pack_id, -1)) for pack_id, last in now.items())
