"""The one Ray Tune trainable: a pack in, records out to its journal. Nothing here talks to a network but the store.

Every error of a trial becomes its state, so that what Tune sees as a failure is a machine's, and is retried: the next
attempt goes on from the newest checkpoint.
"""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import torch

from trainables.engine import Engine, Evaluation
from trainables.models import config_from_dict


class Attempt(Protocol):
    """The one writer of one try at a pack."""

    number: int

    def append(self, records: Sequence[Mapping[str, Any]], unix_ms: int) -> None:
        """Store one evaluation's records."""

    def checkpoint(self, evaluation: int, payload: bytes) -> None:
        """Store the state after an evaluation."""

    def samples(self, evaluation: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store samples by trial_id."""

    def weights(self, evaluation: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store trained parameters by `<trial_id>/<net>/<parameter>`."""


class Journal(Protocol):
    """What the trainable needs of the ledger."""

    def read_pack(self, pack_id: str) -> dict[str, Any]:
        """The pack's trials and settings."""

    def open_attempt(self, pack_id: str) -> Attempt:
        """Begin the next attempt."""

    def latest_checkpoint(self, pack_id: str) -> tuple[int, bytes] | None:
        """(evaluation, payload) of the newest good checkpoint."""

    def finish_trial(self, outcome: dict[str, Any]) -> None:
        """Store that a trial has ended."""


def train_pack(
    config: Mapping[str, Any],
    *,
    journal: Callable[[], Journal],
    checkpoint_every_s: float,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> dict[str, Any]:
    """Train the pack `config["pack_id"]` to its end and return what Tune is to be told of it.

    `journal` opens the store in this process. Errors of the store are raised: they are the machine's.
    """
    ledger, pack_id = journal(), str(config["pack_id"])
    pack = ledger.read_pack(pack_id)
    attempt = ledger.open_attempt(pack_id)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    origin = {"pack_id": pack_id, "attempt": attempt.number, "device": device_name(device), "versions": versions()}
    finished: set[str] = set()

    def finish(trial_id: str, state: str, wall_s: float, error: str | None = None) -> None:
        if trial_id not in finished:
            finished.add(trial_id)
            ledger.finish_trial(
                {"trial_id": trial_id, "state": state, "wall_s": wall_s, "error": error, "unix_ms": now_ms(), **origin}
            )

    configs = [config_from_dict(trial) for trial in pack["trials"]]
    wall_s = 0.0
    try:
        engine = Engine(configs, device=device, keep_samples=pack["samples"])
        if (found := ledger.latest_checkpoint(pack_id)) is not None:
            engine.restore(found[1])
    except Exception:
        for c in configs:
            finish(c.trial_id(), "failed", wall_s, traceback.format_exc())
        return {"trials": len(configs), "failed": len(configs)}
    saved = time.monotonic()
    for item in _caught(engine.evaluations()):
        if isinstance(item, str):
            for trial_id in engine.trial_ids:
                finish(trial_id, "failed", engine.wall_s, item)
            return {"trials": len(configs), "failed": len(configs)}
        attempt.append([_plain(record) for record in item.records], now_ms())
        if item.samples:
            attempt.samples(item.index, item.samples)
        for record in item.records:
            if record.values["finite"] == 0.0:  # decided: it has no further records
                finish(record.trial_id, "complete", record.wall_s)
        if time.monotonic() - saved >= checkpoint_every_s:
            attempt.checkpoint(item.index, engine.checkpoint())
            saved = time.monotonic()
    if pack["keep_checkpoints"] == "final":
        attempt.weights(engine.next_evaluation - 1, engine.weights())
    for trial_id in engine.trial_ids:
        finish(trial_id, "complete", engine.wall_s)
    return {"trials": len(configs), "failed": 0}


def _caught(evaluations: Iterator[Evaluation]) -> Iterator[Evaluation | str]:
    """The evaluations; an error of the training code comes last, as its traceback."""
    while True:
        try:
            item = next(evaluations)
        except StopIteration:
            return
        except Exception:
            yield traceback.format_exc()
            return
        yield item


def _plain(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("trial_id", "evaluation", "step", "values", "wall_s")}


def device_name(device: torch.device) -> str:
    """The hardware, for the record of a trial."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def versions() -> dict[str, str]:
    """What the numbers of a trial depend on."""
    packages = ("vistudy", "torch", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
