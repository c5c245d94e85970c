"""One trial as an MLflow run: its tags, params, metrics and pictures; does not import MLflow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vistudy.analysis.ledger.documents import PlannedTrial, Record, TrialEnd
from vistudy.analysis.tables.columns import NO_DATA
from vistudy.analysis.tables.trials import cell_tag
from vistudy.study.tracking.artifacts import SampleFiles, count_pictures

if TYPE_CHECKING:
    from vistudy.study.tracking.client import Experiment

Records = Sequence[Record]
Point = tuple[str, float, int, int]
"""Metric, value, timestamp in ms, step."""


BATCH_METRICS = 880
"""Metrics per call: MLflow accepts 1,000 entities, params and tags included."""
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
