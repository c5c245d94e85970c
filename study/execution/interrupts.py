"""What Ctrl-C (SIGINT) and SIGTERM do to a run: the first one stops it in order, the second one ends it.

The line that says so is printed by a thread that the signal wakes: the main thread may be inside a library for seconds.
"""

from __future__ import annotations

import _thread
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
LOOK_EVERY_S = 0.5
"""How often whoever waits looks whether it is to stop, should the exception have been lost in a finalizer."""
STARTING = "no pack is in training yet"
TRAINING = "writing checkpoints"
DRAWING = "heatmaps are left out"
SYNCING = "MLflow gets some seconds more"
T = TypeVar("T")


class Stopping(BaseException):
    """The first signal came at a moment when nothing had to be waited for."""


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
        """A second signal came."""
        self.number: int | None = None
        """The first signal."""
        self.doing = STARTING
        """What the first signal says that the run does now."""

    @property
    def terminated(self) -> bool:
        """By SIGTERM: somebody is about to send SIGKILL."""
        return self.number == signal.SIGTERM

    def check(self) -> None:
        """Raise Stopping if the run was asked to stop."""
        if self.asked.is_set():
            raise Stopping

    def wait(self, future: Future[T]) -> T:
        """Its result. Raises Stopping once the run is asked to stop."""
        while True:
            self.check()
            if wait([future], LOOK_EVERY_S).done:
                return future.result()

    def here(self, error: BaseException) -> bool:
        """Whether an exception is how a first signal ended what was being done (Ray raises exceptions of its own)."""
        self._handled = self.asked.is_set()
        return self._handled and not self.again and isinstance(error, Stopping | KeyboardInterrupt | SystemExit)

    def settle(self, doing: str) -> None:
        """From here on the first signal raises nothing: what is left to do is short, or waits no longer after it."""
        self.doing, self._patient = doing, True

    @contextlib.contextmanager
    def patient(self, doing: str | None = None, then: Callable[[], None] | None = None) -> Iterator[None]:
        """For the time of a `with` the first signal raises nothing: `then` is called, in a thread of its own."""
        before = self.doing, self._then, self._patient
        self._then, self._patient = then, True
        self.doing = doing or self.doing
        if self.asked.is_set():  # it came just before
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
        """Call what `patient` was given, once."""
        with self._lock:
            then, self._then = self._then, None
        if then:
            threading.Thread(target=then, name="vistudy-stop", daemon=True).start()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, when Python gets to it."""
        self._ask(number)
        if self._handled:
            self.again = True
            self._twice.set()
            raise KeyboardInterrupt
        self._handled = True
        if not self._patient:
            raise Stopping

    def _listen(self, pipe: int, before: int) -> None:
        """In a thread, at once."""
        count = 0
        while data := os.read(pipe, 1):
            if before != -1:
                with contextlib.suppress(OSError):  # an event loop's, full or closed
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
            elif count == 2 and not self._twice.wait(LOOK_EVERY_S):  # Python took two signals for one
                _thread.interrupt_main(signal.Signals(data[0]))


@contextlib.contextmanager
def listening(say: Callable[[str], None], end_now: Callable[[int], None] | None = None) -> Iterator[Stop]:
    """Take over both signals for the time of a `with`; in another thread than the main one, neither.

    Args:
        say: called with a line at the first signal, in another thread.
        end_now: called with the number of a second signal, in another thread. Without it KeyboardInterrupt is raised.

    Raises:
        KeyboardInterrupt: the first signal was SIGINT, and nobody inside has taken Stopping; or the second signal.
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
    thread = threading.Thread(target=stop._listen, args=(out, woken), name="vistudy-signals", daemon=True)
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
