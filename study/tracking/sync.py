"""Decide which runs MLflow lacks and write them, through `Experiment`; does not import MLflow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistudy.analysis.ledger.documents import PlannedTrial, Record, Registration, StoredPlan, TrialEnd
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.tracking.artifacts import SampleFiles, study_files
from vistudy.study.tracking.runs import ENDED, Records, Run, RunWriter
from vistudy.study.tracking.uri import EXAMPLE_FILTERS

if TYPE_CHECKING:
    from vistudy.study.tracking.client import Experiment

Labels = Mapping[str, Mapping[str, object]]
"""trial_id -> tag (without `vistudy.`) -> value: outcome, flags, t_thr, t_coll, t_div, outcome_version; or None."""
Series = Mapping[str, Mapping[int, float]]
"""trial_id -> evaluation -> value."""
LabelFn = Callable[[Mapping[str, Records], Mapping[str, TrialEnd]], tuple[Labels, Series]]
"""(records, ends of trials) -> (tags of the complete ones, composite deficiency Q of all)."""
CHUNK_RECORDS = 10_000
"""Approximate number of records to hold at a time, about 30 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncRequest:
    """Arguments of a sync, as of `vistudy.study.tracking.mirror.sync`."""

    label: LabelFn | None
    outcomes: Labels
    relabel: bool
    artifacts: Sequence[Path]
    final: bool


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
                for counts in (w for chunk in chunks for w in self._write_chunk(api, parent, chunk, ended, request)):
                    done += counts
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
        unchanged = {
            i: outcome
            for i, outcome in self._ended.items()
            if not final and i in done and outcome["state"] == "complete" and self._mirrored(i, self._ended)
        }
        self._ended = unchanged | self._ledger.read_outcomes(done - unchanged.keys())
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
        started = {pack_id: pack["trial_ids"] for pack_id, pack in packs.items() if progress.get(pack_id, -1) >= 0}
        homes = {trial_id: pack_id for pack_id, trial_ids in started.items() for trial_id in trial_ids}
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


def n_new_evaluations(now: Mapping[str, int], before: Mapping[str, int]) -> int:
    """Number of evaluations of packs in one `Ledger.progress` that an earlier one lacks."""
    return sum(max(0, last - before.get(pack_id, -1)) for pack_id, last in now.items())
