"""Decide what MLflow lacks and send it in few calls, through `Experiment`; does not import MLflow."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistudy.analysis.ledger.documents import PlannedTrial, Record, Registration, StoredPlan, TrialEnd
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.analysis.tables.columns import NO_DATA
from vistudy.analysis.tables.trials import cell_tag
from vistudy.study.tracking.artifacts import SampleFiles, count_pictures, study_files
from vistudy.study.tracking.uri import EXAMPLE_FILTERS

if TYPE_CHECKING:
    from vistudy.study.tracking.client import Experiment

Records = Sequence[Record]
Labels = Mapping[str, Mapping[str, object]]
"""trial_id -> tag (without `vistudy.`) -> value: outcome, flags, t_thr, t_coll, t_div, outcome_version; or None."""
Series = Mapping[str, Mapping[int, float]]
"""trial_id -> evaluation -> value."""
LabelFn = Callable[[Mapping[str, Records], Mapping[str, TrialEnd]], tuple[Labels, Series]]
"""(records, ends of trials) -> (tags of the complete ones, composite deficiency Q of all)."""
Point = tuple[str, float, int, int]
"""Metric, value, timestamp in ms, step."""

BATCH_METRICS = 880
"""Metrics per call: MLflow accepts 1,000 entities, params and tags included."""
CHUNK_RECORDS = 10_000
"""Approximate number of records to hold at a time, about 30 MB."""
ENDED = {"complete": "FINISHED", "failed": "FAILED"}
"""State of a trial that has ended -> status of its run."""


@dataclass(kw_only=True, slots=True)
class Run:
    """Known state of an MLflow run, so that only differences are sent."""

    run_id: str
    status: str
    tags: dict[str, str]
    has_params: bool = False
    metrics: frozenset[str] = frozenset()
    existed: bool = False
    """Whether it existed before this process: an earlier sync may have been interrupted in it."""

    @property
    def synced(self) -> int:
        """Last evaluation whose metrics are stored; -1 if none."""
        return int(self.tags.get("vistudy.synced", -1))


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncRequest:
    """Arguments of a sync, as of `vistudy.study.tracking.mirror.sync`."""

    label: LabelFn | None
    outcomes: Labels
    relabel: bool
    artifacts: Sequence[Path]
    final: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RunWriter:
    """Brings one run up to date: pictures; then params, metrics and tags in one call; then its end status."""

    api: Experiment
    study: str
    trial: PlannedTrial
    records: Records
    outcome: TrialEnd | None
    labels: Mapping[str, object]
    q: Mapping[int, float]
    samples: SampleFiles | None
    final: bool

    @property
    def trial_id(self) -> str:
        """Of the trial."""
        return str(self.trial["trial_id"])

    def create(self, parent_id: str) -> Run:
        """Create the run with all tags known so far."""
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
        """Bring the run up to date. Counts `finished` (its trial has just ended), `metrics` and `images`."""
        new, before = self._missing(run), run.status
        status = ENDED[self.outcome["state"]] if self.outcome else self._unfinished(run, new)
        if status == "RUNNING":
            self.api.set_status(run, status)
        tags, pictures = self._tags(status), 0
        if self.outcome and self.samples and (self.records or "vistudy.samples" not in run.tags):
            files = self.samples.of(self.trial_id, self.trial["config"]["data"], self.records)
            tags["vistudy.samples"], sent = self.api.upload(run, files, run.tags.get("vistudy.samples"))
            pictures = count_pictures(files) if sent else 0
            if files:
                tags["mlflow.loggedImages"] = "True"
        written = self._write_metrics(run, new, tags)
        if status != "RUNNING":
            self.api.set_status(run, status, self._end())
        finished = status != before and bool(self.outcome)
        return Counter(finished=int(finished), metrics=written, images=pictures)

    def _missing(self, run: Run) -> Records:
        new = [record for record in self.records if record["evaluation"] > run.synced]
        if run.existed and new:  # MLflow's client commits metrics before tags, so an interruption leaves the tag behind
            last = self.api.last_step(run, new[0]["values"])
            new = [record for record in new if record["step"] > last]
        run.existed = False
        return new

    def _unfinished(self, run: Run, new: Records) -> str:
        if self.final:
            return "KILLED"
        return "RUNNING" if new else run.status  # a KILLED run is reopened when its trial resumes

    def _end(self) -> int:
        return int(self.outcome["unix_ms"] if self.outcome else self.records[-1]["unix_ms"])

    def _tags(self, status: str) -> dict[str, str]:
        config = self.trial["config"]
        tags = {f"vistudy.{name}": to_param(value) for name, value in self.labels.items() if value is not None}
        tags |= {
            "vistudy.data": str(config["data"]),
            "vistudy.data_fingerprint": config.get("data_fingerprint") or NO_DATA,
        }
        if self.outcome is None:
            return tags | {"vistudy.state": "running" if status == "RUNNING" else "interrupted"}
        end = self.outcome
        tags |= {
            "vistudy.state": end["state"],
            "vistudy.pack": end["pack_id"],
            "vistudy.attempt": str(end["attempt"]),
            "vistudy.device": str(end.get("device")),
        }
        tags |= {f"vistudy.version.{name}": str(version) for name, version in (end.get("versions") or {}).items()}
        if end.get("error"):
            tags["vistudy.error"] = str(end["error"])[-4000:]  # the end of a traceback is the useful part
        return tags

    def _write_metrics(self, run: Run, new: Records, tags: dict[str, str]) -> int:
        config = self.trial["config"]
        if not run.has_params and config.get("data_fingerprint"):  # params are written last, so an interruption shows
            self.api.log_datasets(run, {str(config["data"]): config["data_fingerprint"]})
        params = {name: to_param(value) for name, value in config.items()}
        count = 0
        for points, last in batches(new, self.q):
            self.api.log(run, points, params, tags | {"vistudy.synced": str(last)})
            count += len(points)
        if self.records:
            tags = tags | {"vistudy.synced": str(max(run.synced, self.records[-1]["evaluation"]))}
        self.api.log(run, [], params, tags)  # sends nothing if nothing differs
        return count


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport:
    """What a sync wrote."""

    runs_created: int
    """Of trials."""
    runs_finished: int
    """Of trials, set to FINISHED or FAILED."""
    metrics_written: int
    images_written: int
    behind: int
    """Evaluations of packs recorded since this sync read the ledger."""


class Syncer:
    """The writer of one experiment. Keeps the index of its runs between calls, until a call fails."""

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
        self._ended: dict[str, TrialEnd] = {}

    def sync(
        self,
        *,
        outcomes: Labels | None = None,
        label: LabelFn | None = None,
        relabel: bool = False,
        artifacts: Sequence[Path] = (),
        final: bool = True,
        running: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> SyncReport:
        """Sync the study once. Arguments as of `mirror.sync`; `running`: also trials that have not ended."""
        with self._ledger.lock(self._study, "sync"):
            try:
                before = self._ledger.progress()
                plan = self._ledger.read_plan(self._study)
                api = self._api or self._open()
                ended = self._read_outcomes(plan, final)
                request = SyncRequest(
                    label=label, outcomes=outcomes or {}, relabel=relabel, artifacts=artifacts, final=final
                )
                parent = self._write_parent(api, plan, request)
                done = Counter[str]()
                chunks = self._chunks(plan, ended, before, request, running)
                for written in (w for chunk in chunks for w in self._write_chunk(api, parent, chunk, ended, request)):
                    done += written
                    if progress:
                        progress(done["trials"], sum(map(len, chunks)))
                self._end_parent(api, parent, len(plan["trials"]), ended, request)
            except BaseException:
                self._api = None  # unknown what was written: read the runs again next time
                raise
        return SyncReport(
            runs_created=done["created"],
            runs_finished=done["finished"],
            metrics_written=done["metrics"],
            images_written=done["images"],
            behind=n_new_evaluations(self._ledger.progress(), before),
        )

    def _read_outcomes(self, plan: StoredPlan, final: bool) -> dict[str, TrialEnd]:
        """How trials ended. Before the final sync, synced trials are not read again."""
        done = self._ledger.finished_trials().intersection(trial["trial_id"] for trial in plan["trials"])
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
                if other:  # a server that answered too late created it twice: keep the fuller one
                    run, drop = (run, other) if run.synced > other.synced else (other, run)
                    api.delete(drop)
                self._runs[run.tags["vistudy.trial_id"]] = run
        self._api = api
        return api

    def _mirrored(self, trial_id: str, ended: Mapping[str, TrialEnd]) -> bool:
        run, outcome = self._runs.get(trial_id), ended.get(trial_id)
        if run is None or outcome is None or (self._samples and "vistudy.samples" not in run.tags):
            return False
        return run.status == ENDED[outcome["state"]] and run.tags.get("vistudy.attempt") == str(outcome["attempt"])

    def _chunks(
        self,
        plan: StoredPlan,
        ended: Mapping[str, TrialEnd],
        progress: Mapping[str, int],
        request: SyncRequest,
        running: bool,
    ) -> list[list[PlannedTrial]]:
        """Chunks of trials that may have something to write, ordered by pack, each small enough to be held."""
        packs = self._ledger.packs() if running else {}
        begun = {pack_id: pack["trial_ids"] for pack_id, pack in packs.items() if progress.get(pack_id, -1) >= 0}
        homes = {trial_id: pack_id for pack_id, trial_ids in begun.items() for trial_id in trial_ids}
        homes |= {trial_id: outcome["pack_id"] for trial_id, outcome in ended.items()}
        stale = {i for i in homes if request.relabel or not self._mirrored(i, ended)} | request.outcomes.keys()
        trials = [trial for trial in plan["trials"] if trial["trial_id"] in stale]
        trials.sort(key=lambda trial: homes.get(trial["trial_id"], ""))
        size = max(1, CHUNK_RECORDS // (1 + max([0, *progress.values()])))
        return [trials[i : i + size] for i in range(0, len(trials), size)]

    def _write_chunk(
        self,
        api: Experiment,
        parent: Run,
        chunk: Sequence[PlannedTrial],
        ended: Mapping[str, TrialEnd],
        request: SyncRequest,
    ) -> Iterator[Counter[str]]:
        """Create the missing runs of some trials, then write all, so that files always have a run."""
        ids = [trial["trial_id"] for trial in chunk]
        mirrored = {i for i in ids if self._mirrored(i, ended)}
        records: dict[str, list[Record]] = {}
        for record in self._ledger.records(ids if request.relabel else [i for i in ids if i not in mirrored]):
            records.setdefault(record["trial_id"], []).append(record)
        labels, q = request.label(records, ended) if request.label and records else ({}, {})
        labels = {**labels, **request.outcomes}
        writers = [
            RunWriter(
                api=api,
                study=self._study,
                trial=trial,
                records=[] if trial["trial_id"] in mirrored else records.get(trial["trial_id"], []),
                outcome=ended.get(trial["trial_id"]),
                labels=labels.get(trial["trial_id"], {}),
                q=q.get(trial["trial_id"], {}),
                samples=self._samples,
                final=request.final,
            )
            for trial in chunk
        ]
        writers = [writer for writer in writers if writer.records or writer.outcome]
        new = [writer for writer in writers if writer.trial_id not in self._runs]
        for writer in new:
            self._runs[writer.trial_id] = writer.create(parent.run_id)
        api.flush()
        yield Counter(trials=len(chunk) - len(writers), created=len(new))
        for writer in writers:
            yield Counter(trials=1) + writer.write(self._runs[writer.trial_id])
            api.flush_if_large()
        api.flush()

    def _end_parent(
        self, api: Experiment, parent: Run, trials: int, ended: Mapping[str, TrialEnd], request: SyncRequest
    ) -> None:
        last = max((int(outcome["unix_ms"]) for outcome in ended.values()), default=int(time.time() * 1000))
        status = "FINISHED" if len(ended) == trials else "KILLED" if request.final else "RUNNING"
        api.set_status(parent, status, last)
        api.flush()

    def _write_parent(self, api: Experiment, plan: StoredPlan, request: SyncRequest) -> Run:
        meta = self._ledger.read_meta(self._study)
        if self._parent is None:
            lines = [f"* {what}: `{search}`" for what, search in EXAMPLE_FILTERS]
            tags = {
                "vistudy.kind": "study",
                "vistudy.study": self._study,
                "mlflow.note.content": "Example filters:\n\n" + "\n".join(lines),
            }
            start = int(meta.get("created_ms", time.time() * 1000))
            self._parent = api.create(f"study {self._study}", tags, start)
            api.flush()
        files = study_files(self._ledger.read_study_text(self._study), plan, meta, request.artifacts)
        digest, _ = api.upload(self._parent, files, self._parent.tags.get("vistudy.files"))
        if "vistudy.files" not in self._parent.tags:  # written last
            api.log_datasets(self._parent, plan.get("data", {}))
        tags = {"vistudy.files": digest, "vistudy.trials": str(len(plan["trials"]))}
        api.log(self._parent, [], {}, tags | registration_tags(self._ledger.registrations(self._study)))
        return self._parent


def registration_tags(registrations: Sequence[Registration]) -> dict[str, str]:
    """Tags of the parent run: the newest registered claim, and its time (UTC)."""
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
    """Split finite values of records into batches of whole evaluations up to BATCH_METRICS; with each, its last one."""
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


def to_param(value: object) -> str:
    """Format a param or tag: lower-case booleans, shortest exact numbers, sequences joined by commas."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = format(value, "g")
        return short if float(short) == value else repr(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(to_param(item) for item in value)
    return str(value)


def n_new_evaluations(now: Mapping[str, int], before: Mapping[str, int]) -> int:
    """Number of evaluations of packs in one `Ledger.progress` that an earlier one lacks."""
    return sum(max(0, last - before.get(pack_id, -1)) for pack_id, last in now.items())
