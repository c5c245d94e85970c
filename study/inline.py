"""Trains packs one after another in this process, without Ray: for debuggers, and to compare with."""

from __future__ import annotations

import contextlib
import functools
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence

from study.errors import StudyError
from study.ledger import Ledger
from study.packing import Pack
from study.provenance import now_ms
from study.supervisor import Executed, Supervisor
from trainables.tune import train_pack

POLL_S = 0.1


def execute_here(packs: Sequence[Pack], ledger: Ledger, *, checkpoint_every_s: float) -> Executed:
    """Train the packs to their ends, in order. What `study.executor.execute` does, in this process.

    Raises:
        StudyError: the store failed for good.
    """
    started, run = time.monotonic(), f"run-{secrets.token_hex(6)}"
    supervisor = Supervisor(packs, ledger, clock=time.monotonic, now_ms=now_ms, one_machine=True)
    train = functools.partial(
        train_pack, journal=functools.partial(Ledger, ledger.uri), checkpoint_every_s=checkpoint_every_s, run=run
    )
    with _sigterm(supervisor, ledger, run) as asked, contextlib.suppress(KeyboardInterrupt):
        while not supervisor.finished:
            pack = supervisor.next()
            if pack is None:  # one waits for its next try
                time.sleep(POLL_S)
                continue
            supervisor.ended(pack.pack_id, train({"pack_id": pack.pack_id}))
    if supervisor.broken is not None:
        raise supervisor.broken
    left = supervisor.left > 0
    return Executed(wall_s=time.monotonic() - started, interrupted=left, terminated=left and asked.is_set())


@contextlib.contextmanager
def _sigterm(supervisor: Supervisor, ledger: Ledger, run: str) -> Iterator[threading.Event]:
    """On SIGTERM the pack in training writes a checkpoint and ends; a second one is as Ctrl-C."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(*_: object) -> None:
        if asked.is_set():
            signal.raise_signal(signal.SIGINT)
            return
        asked.set()
        supervisor.stop()
        ledger.ask_stop(run)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
        with contextlib.suppress(StudyError):  # a file that nobody will ask for again
            ledger.withdraw_stop(run)
