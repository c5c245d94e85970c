"""Ledger -> MLflow runs: only what is missing there, in few calls. Knows no MLflow, only `Experiment`."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.tables.columns import NO_DATA
from vistudy.analysis.tables.trials import cell_tag
from vistudy.study.tracking.artifacts import SampleFiles, pictures_in, study_files
from vistudy.study.tracking.uri import EXAMPLE_FILTERS

if TYPE_CHECKING:
    from vistudy.study.tracking.client import Experiment

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
CHUNK_RECORDS = 10_000
"""Records that are read at a time, about: some 30 MB."""
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
class SyncRequest:
    """What one sync was asked for. See `vistudy.study.tracking.mirror.sync`."""

    judge: Judge | None
    outcomes: Labels
    relabel: bool
    artifacts: Sequence[Path]
    final: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """Brings one run up to date: pictures; then params, metrics and tags in one call; then its end."""

    api: Experiment
    study: str
    trial: Mapping[str, Any]
    """As in the plan: trial_id, cell, config."""
    records: Records
    outcome: Mapping[str, Any] | None
    labels: Mapping[str, object]
    q: Mapping[int, float]
    samples: SampleFiles | None
    final: bool

    @property
    def trial_id(self) -> str:
        """Of the trial."""
        return str(self.trial["trial_id"])

    def create(self, parent_id: str) -> Run:
        """Make the run, with every tag that is known already."""
        cell, seed = cell_tag(self.trial["cell"]), self.trial["config"]["seed"]
        tags = {
            "mlflow.parentRunId": parent_id,
            "vistudy.kind": "trial",
            "vistudy.trial_id": self.trial_id,
            "vistudy.study": self.study,
            "vistudy.cell": cell,
            "vistudy.seed": str(seed),
        }
        start = int(self.records[0]["unix_ms"]) if self.records else self._end()
        return self.api.create(f"{cell.replace(',', ' ')} s{seed}".strip(), tags | self._tags("RUNNING"), start)

    def write(self, run: Run) -> Counter[str]:
        """Bring it up to date. Counts: finished (has it ended just now), metrics and images written."""
        new, before = self._missing(run), run.status
        status = ENDED[self.outcome["state"]] if self.outcome else self._unfinished(run, new)
        if status == "RUNNING":
            self.api.set_status(run, status)
        tags, pictures = self._tags(status), 0
        if self.outcome and self.samples and (self.records or "vistudy.samples" not in run.tags):
            files = self.samples.of(self.trial_id, self.trial["config"]["data"], self.records)
            tags["vistudy.samples"], sent = self.api.upload(run, files, run.tags.get("vistudy.samples"))
            pictures = pictures_in(files) if sent else 0
            if files:
                tags["mlflow.loggedImages"] = "True"
        written = self._write_metrics(run, new, tags)
        if status != "RUNNING":
            self.api.set_status(run, status, self._end())
        finished = status != before and bool(self.outcome)
        return Counter(finished=int(finished), metrics=written, images=pictures)

    def _missing(self, run: Run) -> Records:
        new = [record for record in self.records if record["evaluation"] > run.synced]
        if run.found and new:  # MLflow's client commits metrics before tags: a cut between leaves the tag behind
            last = self.api.last_step(run, new[0]["values"])
            new = [record for record in new if record["step"] > last]
        run.found = False
        return new

    def _unfinished(self, run: Run, new: Records) -> str:
        if self.final:
            return "KILLED"
        return "RUNNING" if new else run.status  # a run that was KILLED is opened again when its trial goes on

    def _end(self) -> int:
        return int(self.outcome["unix_ms"] if self.outcome else self.records[-1]["unix_ms"])

    def _tags(self, status: str) -> dict[str, str]:
        config = self.trial["config"]
        tags = {f"vistudy.{name}": text(value) for name, value in self.labels.items() if value is not None}
        tags |= {
            "vistudy.data": str(config["data"]),
            "vistudy.data_fingerprint": config.get("data_fingerprint") or NO_DATA,
        }
        if self.outcome is None:
            return tags | {"vistudy.state": "running" if status == "RUNNING" else "interrupted"}
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
        config = self.trial["config"]
        if not run.has_params and config.get("data_fingerprint"):  # params are there last: a cut before is seen
            self.api.learns(run, {str(config["data"]): config["data_fingerprint"]})
        params = {name: text(value) for name, value in config.items()}
        count = 0
        for points, last in batches(new, self.q):
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
        self._ended: dict[str, dict[str, Any]] = {}

    def sync(
        self,
        *,
        outcomes: Labels | None = None,
        judge: Judge | None = None,
        relabel: bool = False,
        artifacts: Sequence[Path] = (),
        final: bool = True,
        running: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> SyncReport:
        """One pass over the study. Arguments as of `mirror.sync`; without `running`, of trials that ended."""
        with self._ledger.lock(self._study, "sync"):
            try:
                before = self._ledger.progress()
                plan = self._ledger.read_plan(self._study)
                api = self._api or self._open()
                ended = self._read_outcomes(plan, final)
                job = SyncRequest(
                    judge=judge, outcomes=outcomes or {}, relabel=relabel, artifacts=artifacts, final=final
                )
                parent = self._write_parent(api, plan, job)
                done = Counter[str]()
                chunks = self._chunks(plan, ended, before, job, running)
                for written in (w for chunk in chunks for w in self._write_chunk(api, parent, chunk, ended, job)):
                    done += written
                    if progress:
                        progress(done["trials"], sum(map(len, chunks)))
                self._end_parent(api, parent, len(plan["trials"]), ended, job)
            except BaseException:
                self._api = None  # it is not known what was written: look again next time
                raise
        return SyncReport(
            runs_created=done["created"],
            runs_finished=done["finished"],
            metrics_written=done["metrics"],
            images_written=done["images"],
            behind=newer(self._ledger.progress(), before),
        )

    def _read_outcomes(self, plan: Mapping[str, Any], final: bool) -> dict[str, dict[str, Any]]:
        """Outcomes of trials that ended. Until the last pass those of completed, mirrored ones are not read again."""
        done = self._ledger.done().intersection(trial["trial_id"] for trial in plan["trials"])
        kept = {
            i: outcome
            for i, outcome in self._ended.items()
            if not final and i in done and outcome["state"] == "complete" and self._mirrored(i, self._ended)
        }
        self._ended = kept | self._ledger.read_outcomes(done - kept.keys())
        return self._ended

    def _open(self) -> Experiment:
        api = self._connect()
        self._runs, self._parent, self._ended = {}, None, {}
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

    def _chunks(
        self,
        plan: Mapping[str, Any],
        ended: Mapping[str, Mapping[str, Any]],
        progress: Mapping[str, int],
        job: SyncRequest,
        running: bool,
    ) -> list[list[Mapping[str, Any]]]:
        """Trials that may have something to write, those of a pack together, so few that memory holds their records."""
        packs = self._ledger.packs() if running else {}
        begun = {pack_id: pack["trial_ids"] for pack_id, pack in packs.items() if progress.get(pack_id, -1) >= 0}
        homes = {trial_id: pack_id for pack_id, trial_ids in begun.items() for trial_id in trial_ids}
        homes |= {trial_id: outcome["pack_id"] for trial_id, outcome in ended.items()}
        wanted = {i for i in homes if job.relabel or not self._mirrored(i, ended)} | job.outcomes.keys()
        todo = [trial for trial in plan["trials"] if trial["trial_id"] in wanted]
        todo.sort(key=lambda trial: homes.get(trial["trial_id"], ""))
        size = max(1, CHUNK_RECORDS // (1 + max([0, *progress.values()])))
        return [todo[i : i + size] for i in range(0, len(todo), size)]

    def _write_chunk(
        self,
        api: Experiment,
        parent: Run,
        chunk: Sequence[Mapping[str, Any]],
        ended: Mapping[str, Any],
        job: SyncRequest,
    ) -> Iterator[Counter[str]]:
        """Bring the runs of some trials up to date: first all are made, then written, so that files have a run."""
        ids = [trial["trial_id"] for trial in chunk]
        mirrored = {i for i in ids if self._mirrored(i, ended)}
        records: dict[str, list[dict[str, Any]]] = {}
        for record in self._ledger.records(ids if job.relabel else [i for i in ids if i not in mirrored]):
            records.setdefault(record["trial_id"], []).append(record)
        labels, q = job.judge(records, ended) if job.judge and records else ({}, {})
        labels = {**labels, **job.outcomes}
        replays = [
            Replay(
                api=api,
                study=self._study,
                trial=trial,
                records=[] if trial["trial_id"] in mirrored else records.get(trial["trial_id"], []),
                outcome=ended.get(trial["trial_id"]),
                labels=labels.get(trial["trial_id"], {}),
                q=q.get(trial["trial_id"], {}),
                samples=self._samples,
                final=job.final,
            )
            for trial in chunk
        ]
        replays = [replay for replay in replays if replay.records or replay.outcome]
        new = [replay for replay in replays if replay.trial_id not in self._runs]
        for replay in new:
            self._runs[replay.trial_id] = replay.create(parent.run_id)
        api.flush()
        yield Counter(trials=len(chunk) - len(replays), created=len(new))
        for replay in replays:
            yield Counter(trials=1) + replay.write(self._runs[replay.trial_id])
            api.pause()
        api.flush()

    def _end_parent(
        self, api: Experiment, parent: Run, trials: int, ended: Mapping[str, Any], job: SyncRequest
    ) -> None:
        last = max((int(outcome["unix_ms"]) for outcome in ended.values()), default=int(time.time() * 1000))
        status = "FINISHED" if len(ended) == trials else "KILLED" if job.final else "RUNNING"
        api.set_status(parent, status, last)
        api.flush()

    def _write_parent(self, api: Experiment, plan: Mapping[str, Any], job: SyncRequest) -> Run:
        meta = self._ledger.read_meta(self._study)
        if self._parent is None:
            lines = [f"* {what}: `{search}`" for what, search in EXAMPLE_FILTERS]
            tags = {
                "vistudy.kind": "study",
                "vistudy.study": self._study,
                "mlflow.note.content": "Searches worth typing:\n\n" + "\n".join(lines),
            }
            start = int(meta.get("created_ms", time.time() * 1000))
            self._parent = api.create(f"study {self._study}", tags, start)
            api.flush()
        files = study_files(self._ledger.read_study_text(self._study), plan, meta, job.artifacts)
        print_, _ = api.upload(self._parent, files, self._parent.tags.get("vistudy.files"))
        if "vistudy.files" not in self._parent.tags:  # it is written last
            api.learns(self._parent, plan.get("data", {}))
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
