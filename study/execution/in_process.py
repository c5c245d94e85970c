"""Train packs one after another in this process, without Ray: for debuggers and comparisons."""

from __future__ import annotations

import contextlib
import functools
import logging
import secrets
import time
from collections.abc import Sequence

from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger
from vistudy.study.execution.interrupts import TRAINING, Stop
from vistudy.study.execution.provenance import now_ms
from vistudy.study.execution.supervisor import ExecutionResult, Supervisor
from vistudy.study.packing.packs import Pack
from vistudy.trainables.worker import train_pack

POLL_S = 0.1
_log = logging.getLogger("vistudy.supervisor")


def execute_in_process(
    packs: Sequence[Pack], ledger: Ledger, *, checkpoint_every_s: float, stop: Stop | None = None
) -> ExecutionResult:
    """Train the packs to completion, in order: `ray_tune.execute` in this process.

    `stop`: after a signal, the current pack writes a checkpoint before its next period and ends.

    Raises:
        StudyError: the store failed permanently.
    """
    started, run = time.monotonic(), f"run-{secrets.token_hex(6)}"
    supervisor = Supervisor(packs, ledger, clock=time.monotonic, now_ms=now_ms, one_machine=True)
    train = functools.partial(
        train_pack, journal=functools.partial(Ledger, ledger.uri), checkpoint_every_s=checkpoint_every_s, run=run
    )

    def request_stop() -> None:
        supervisor.stop()
        try:
            ledger.request_stop(run)
        except StudyError as error:
            _log.warning("cannot request a checkpoint of the pack: %s", error)

    try:
        with (stop or Stop()).patient(TRAINING, request_stop):
            while not supervisor.finished:
                pack = supervisor.next()
                if pack is None:  # one pack waits for its next attempt
                    time.sleep(POLL_S)
                    continue
                supervisor.ended(pack.pack_id, train({"pack_id": pack.pack_id}))
    finally:
        with contextlib.suppress(StudyError):  # nobody reads this file again
            ledger.clear_stop_request(run)
    if supervisor.fatal_error is not None:
        raise supervisor.fatal_error
    return ExecutionResult(wall_s=time.monotonic() - started, interrupted=supervisor.n_unfinished > 0)
