"""JSON documents of the store, typed. `docs/records.md` has the meaning and unit of every field.

They are typed dictionaries rather than dataclasses: a file that an older version wrote may lack a key, and a table of
10,000 trials reads half a million records, which are then not copied.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NotRequired, TypeAlias, TypedDict


class TrialState(StrEnum):
    """How a trial stands. Only `complete` and `failed` are stored, as `state` of a `TrialEnd`."""

    PLANNED = "planned"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    COMPLETE = "complete"
    FAILED = "failed"


class Record(TypedDict):
    """Metrics of one trial at one evaluation."""

    trial_id: str
    evaluation: int
    step: int
    """Updates of D."""
    wall_s: float
    unix_ms: int
    values: dict[str, float]


class TrialEnd(TypedDict):
    """`trials/<trial_id>.json`."""

    trial_id: str
    state: str
    wall_s: float
    error: str | None
    unix_ms: int
    pack_id: str
    attempt: int
    device: NotRequired[str]
    versions: NotRequired[dict[str, str]]


class PackRecord(TypedDict):
    """`packs/<pack_id>/pack.json`."""

    pack_id: str
    trial_ids: list[str]
    trials: list[dict[str, Any]]
    """Resolved configurations, in the order of `trial_ids`."""
    slots: NotRequired[list[dict[str, Any]]]
    """Configurations that are trained, filler trials included, where they are not `trials`."""
    reference: dict[str, float]
    samples: list[int]
    """Evaluations at which samples are stored."""
    keep_checkpoints: str
    created_ms: int


class PlannedTrial(TypedDict):
    """One of the `trials` of a plan."""

    trial_id: str
    block: str
    cell: dict[str, Any]
    """Factor, sampled dimension or `arm` -> level."""
    seed: int
    inert: list[str]
    also: list[dict[str, Any]]
    config: dict[str, Any]


StoredBlock = TypedDict(
    "StoredBlock",
    {
        "family": str,
        "class": str,
        "arms": dict[str, dict[str, Any]],
        "pilots": NotRequired[dict[str, dict[str, Any]]],
        "sample": NotRequired[dict[str, Any] | None],
        "budget": NotRequired[dict[str, int]],
        "model": str,
        "data": str,
        "data_fingerprint": NotRequired[str | None],
        "seeds": list[int],
        "factors": dict[str, list[Any]],
        "sampled": list[str],
        "fixed": dict[str, Any],
        "sample_evaluations": list[int],
        "keep_checkpoints": str,
    },
)
"""One of the `blocks` of a plan."""


class StoredPlan(TypedDict):
    """`studies/<study>/plan.json`."""

    study: str
    hash: str
    data: NotRequired[dict[str, str]]
    """Data set -> fingerprint."""
    factors: dict[str, list[Any]]
    seeds: list[int]
    cells: int
    blocks: dict[str, StoredBlock]
    trials: list[PlannedTrial]
    claim: NotRequired[dict[str, Any]]
    notes: NotRequired[list[str]]


class Heartbeat(TypedDict, total=False):
    """`heartbeat.json` of an attempt, with the number of the attempt."""

    host: str
    pid: int
    place: str
    d_updates: int
    saved_updates: int
    """Updates of D in the newest checkpoint."""
    up_s: float
    unix_ms: int
    over: bool
    """The process no longer trains the pack."""
    attempt: int


Registration: TypeAlias = dict[str, Any]
"""`studies/<study>/registration*.json`: the claim, the blocks and the hash that `vistudy register` froze."""
