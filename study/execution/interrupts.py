"""Handling of Ctrl-C (SIGINT) and SIGTERM: the first signal stops a run in an orderly way, the second ends it at once.

A thread that the signal wakes prints the message, because the main thread may be inside a library for seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from types import FrameType
from typing import TypeVar

from vistudy.analysis.ledger.errors import Terminated

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_S = 0.5
"""Polling interval of waits, in case the exception was lost in a finalizer."""
STARTING = "no pack is in training yet"
TRAINING = "writing checkpoints"
DRAWING = "heatmaps are left out"
SYNCING = "MLflow gets some seconds more"
T = TypeVar("T")


class Stopping(BaseException):
    """Raised by the first signal where no orderly stop is needed."""


class Stop:
    """Whether a run was asked to stop, and by which signal."""

    def __init__(
        self, say: Callable[[str], None] = lambda line: None, end_now: Callable[[int], None] | None = None
    ) -> None:
        self._say, self._end_now = say, end_now
        self._then: Callable[[], None] | None = None
        self._patient = self._handled = False
        self._lock, self._twice = threading.Lock(), threading.Event()
        self.asked = threading.Event()
        self.again = False
        """A second signal arrived."""
        self.number: int | None = None
        """The first signal."""
        self.doing = STARTING
        """Current activity, as the message of the first signal names it."""

    @property
    def terminated(self) -> bool:
        """Whether the signal was SIGTERM, which SIGKILL usually follows."""
        return self.number == signal.SIGTERM

    def check(self) -> None:
        """Raise Stopping if the run was asked to stop."""
        if self.asked.is_set():
            raise Stopping

    def wait(self, future: Future[T]) -> T:
        """Wait for a future and return its result. Raises Stopping once the run is asked to stop."""
        while True:
            self.check()
            if wait([future], POLL_S).done:
                return future.result()

    def here(self, error: BaseException) -> bool:
        """Whether an exception is the effect of a first signal (Ray raises exceptions of its own)."""
        self._handled = self.asked.is_set()
        return self._handled and not self.again and isinstance(error, Stopping | KeyboardInterrupt | SystemExit)

    def settle(self, doing: str) -> None:
        """From now on the first signal raises nothing: the remaining work is short, or stops waiting by itself."""
        self.doing, self._patient = doing, True

    @contextlib.contextmanager
    def patient(self, doing: str | None = None, then: Callable[[], None] | None = None) -> Iterator[None]:
        """For the time of a `with`, the first signal calls `then` in a separate thread instead of raising."""
        before = self.doing, self._then, self._patient
        self._then, self._patient = then, True
        self.doing = doing or self.doing
        if self.asked.is_set():  # the signal came just before
            self._tell()
        try:
            yield
        finally:
            self.doing, self._then, self._patient = before

    def _ask(self, number: int) -> None:
        if self.number is None:
            self.number = number
        self.asked.set()

    def _tell(self) -> None:
        """Call the function given to `patient`, once."""
        with self._lock:
            then, self._then = self._then, None
        if then:
            threading.Thread(target=then, name="vistudy-stop", daemon=True).start()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal in the main thread, when Python gets to it."""
        self._ask(number)
        if self._handled:
            self.again = True
            self._twice.set()
            raise KeyboardInterrupt
        self._handled = True
        if not self._patient:
            raise Stopping

    def _listen(self, pipe: int, before: int, main_thread: int) -> None:
        """React to signals at once, in a separate thread."""
        count = 0
        while data := os.read(pipe, 1):
            if before != -1:
                with contextlib.suppress(OSError):  # the wakeup descriptor of an event loop, full or closed
                    os.write(before, data)
            if data[0] not in SIGNALS:
                continue
            count += 1
            self._ask(data[0])
            if count == 1:
                self._say(f"stopping: {self.doing} (again to end now)")
                self._tell()
            elif self._end_now:
                self._end_now(data[0])
            elif count == 2 and not self._twice.wait(POLL_S):  # Python merged two signals: send one more
                signal.pthread_kill(main_thread, data[0])


@contextlib.contextmanager
def listening(say: Callable[[str], None], end_now: Callable[[int], None] | None = None) -> Iterator[Stop]:
    """Handle both signals for the time of a `with`; outside the main thread, handle neither.

    Args:
        say: called with a line at the first signal, in another thread.
        end_now: called with the number of a second signal, in another thread. Without it KeyboardInterrupt is raised.

    Raises:
        KeyboardInterrupt: the first signal was SIGINT and Stopping was not caught; or the second signal was SIGINT.
        Terminated: likewise SIGTERM.
    """
    stop = Stop(say, end_now)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    out, into = os.pipe()
    os.set_blocking(into, False)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    woken = signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    arguments = (out, woken, threading.get_ident())
    thread = threading.Thread(target=stop._listen, args=arguments, name="vistudy-signals", daemon=True)
    thread.start()
    try:
        for number in SIGNALS:
            signal.signal(number, stop._handle)
        yield stop
    except Stopping:
        raise (Terminated if stop.terminated else KeyboardInterrupt) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(woken)
        stop._twice.set()
        os.close(into)  # ends the thread
        thread.join()
        os.close(out)
