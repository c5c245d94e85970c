"""Kills worker processes whose packs have stopped sending heartbeats. Knows no Ray."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from vistudy.analysis.ledger.documents import Heartbeat
from vistudy.analysis.ledger.errors import StudyError
from vistudy.analysis.ledger.ledger import Ledger

HANG_FACTOR = 10.0
"""A silence must also be this many times as long as the longest one that the pack has broken."""
WATCH_EVERY_S = 5.0

_log = logging.getLogger("vistudy.supervisor")


class Watchdog:
    """Kill processes of packs without a heartbeat, from a thread of its own. Uses no clock but this process's."""

    def __init__(self, ledger: Ledger, heartbeat_timeout_s: float, kill: Callable[[str, int], None]) -> None:
        """`kill(node, pid)` ends a process."""
        self._ledger, self._heartbeat_timeout_s, self._kill = Ledger(ledger.uri), heartbeat_timeout_s, kill
        self._since: dict[str, tuple[Any, float, float]] = {}
        """Pack -> last heartbeat, when it came, longest silence so far."""
        self._hung: dict[str, str] = {}
        self._times: dict[str, int] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="vistudy-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def started(self, pack_id: str) -> None:
        """Start to watch a pack: a worker has begun with it."""
        with self._lock:
            self._since[pack_id] = (None, time.monotonic(), 0.0)

    def ended(self, pack_id: str) -> str | None:
        """Stop watching a pack. Returns why it was killed, None if it was not."""
        with self._lock:
            self._since.pop(pack_id, None)
            return self._hung.pop(pack_id, None)

    def _work(self) -> None:
        while not self._stop.wait(min(WATCH_EVERY_S, self._heartbeat_timeout_s / 4)):
            for pack_id in list(self._since):
                try:
                    self._check_heartbeat(pack_id, self._ledger.heartbeat(pack_id))
                except StudyError as error:
                    _log.warning("cannot read the heartbeat of pack %s: %s", pack_id, error)
                except Exception:  # whatever it is, keep watching the other packs
                    _log.exception("the watchdog failed for pack %s", pack_id)

    def _check_heartbeat(self, pack_id: str, beat: Heartbeat | None) -> None:
        now = time.monotonic()
        with self._lock:
            if pack_id not in self._since:
                return
            last, since, longest = self._since[pack_id]
            if beat != last:
                self._since[pack_id] = (beat, now, max(longest, now - since) if last is not None else longest)
                return
            # Each time that a pack is considered hung, its limit doubles: it may only be slow.
            limit = max(self._heartbeat_timeout_s, HANG_FACTOR * longest) * 2 ** self._times.get(pack_id, 0)
            if beat is None or now - since < limit:
                return
            self._hung[pack_id] = f"it sent no heartbeat for {now - since:.0f} s and was killed"
            self._times[pack_id] = self._times.get(pack_id, 0) + 1
            self._since[pack_id] = (beat, now, longest)
        _log.warning("pack %s hangs: process %s on %s is killed", pack_id, beat["pid"], beat["host"])
        self._kill(str(beat["place"]), int(beat["pid"]))
