"""Several processes that do the same work, and their parent, which starts another one where one has ended.

Knows nothing of the work. For POSIX systems; no event loop and no thread may exist where workers are forked.
"""

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""The first of them stops the workers; a second one ends them at once."""
STEADY_AFTER_S: Final = 10.0
"""A worker that ends sooner makes the next but one of its place wait, lest a fault at the start takes all the CPU."""
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 30.0
"""How long a place stays empty at most."""

_log: Final = logging.getLogger(__name__)


class Worker(NamedTuple):
    """What a worker is told; it has SIGNALS blocked, for it to decide when it can be stopped in good form."""

    number: int
    """From 1."""
    line: socket.socket
    """To the parent; at its end when there is no parent any more."""

    def tell_ready(self) -> None:
        """Tell the parent that this worker does its work."""
        try:
            self.line.send(b"r")
        except OSError:
            _log.debug("nobody is there to be told that worker %d is ready", self.number)  # the line says so, too


class _Place:
    """One of the workers there are to be, whichever process that is at present."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0
        self.line: socket.socket | None = None
        """None where no process runs."""
        self.is_ready = False
        self.started_s = self.due_s = 0.0
        """When, on the monotonic clock, its process was started; when the next one is to be, where none runs."""
        self.early_ends = 0
        """How many of its processes in a row have ended before STEADY_AFTER_S."""

    def next_pause_s(self, now_s: float) -> float:
        """Note the end of the process; return how long to wait for the next one."""
        self.early_ends = self.early_ends + 1 if now_s - self.started_s < STEADY_AFTER_S else 0
        if self.early_ends < 2:
            return 0.0
        return min(FIRST_PAUSE_S * 2.0 ** min(self.early_ends - 2, 30), MAX_PAUSE_S)


class Supervisor:
    """The parent of *count* workers."""

    def __init__(self, count: int, *, on_ready: Callable[[], None], on_stop: Callable[[], None]) -> None:
        """Take what is to be done once all workers are ready, and before they are told to stop."""
        self._places = [_Place(number) for number in range(1, count + 1)]
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._is_up = self._is_stopping = False
        self._last_word: int | None = None
        """The signal that would not wait."""
        self._status = 0

    def supervise(self) -> Worker | int:
        """Keep the workers running until the first of SIGNALS.

        Returns in every worker, with what it is, and in the parent when all have ended, with the exit status: 1 where
        a worker ended before all were ready for the first time. A second signal ends the parent, too.
        """
        with _caught_signals() as signals:
            outcome = self._run(signals)
        if self._last_word is not None and isinstance(outcome, int):
            signal.signal(self._last_word, signal.SIG_DFL)
            os.kill(os.getpid(), self._last_word)
        return outcome

    def _run(self, signals: socket.socket) -> Worker | int:
        while not self._is_stopping or self._running():
            for place in self._find_due():
                worker = self._start(place)
                if worker is not None:
                    return worker
            spoke = self._wait(signals)
            # Signals come first: a worker that ended meanwhile may have been told to by whoever sent us the same.
            self._heed(signals)
            for place in spoke:
                self._listen(place)
        return self._status

    def _running(self) -> list[_Place]:
        return [place for place in self._places if place.line is not None]

    def _find_due(self) -> list[_Place]:
        now_s = time.monotonic()
        is_wanted = not self._is_stopping
        return [place for place in self._places if is_wanted and place.line is None and place.due_s <= now_s]

    def _start(self, place: _Place) -> Worker | None:
        """Fork; return, in the new process, what it is."""
        if self._is_stopping:  # one before it could not be started
            return None
        place.started_s, place.is_ready = time.monotonic(), False
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what comes now is for us, not for both
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                place.pid = os.fork()
                if not place.pid:
                    for line in (ours, *(other.line for other in self._running())):
                        line.close()  # type: ignore[union-attr]  # those that run have one
                    return Worker(place.number, theirs.dup())
            place.line = ours
        except OSError as exc:
            self._replace(place, f"worker {place.number} cannot be started ({exc.strerror})")
        else:
            _log.info("worker %d is process %d", place.number, place.pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return None

    def _wait(self, signals: socket.socket) -> list[_Place]:
        """Wait until there is something to do; return the workers of which there is something to hear."""
        lines = {place.line.fileno(): place for place in self._places if place.line is not None}
        poll = select.poll()
        for descriptor in (signals.fileno(), *lines):
            poll.register(descriptor, select.POLLIN)
        empty = [] if self._is_stopping else [place.due_s for place in self._places if place.line is None]
        timeout_ms = max(0.0, min(empty) - time.monotonic()) * 1000 + 1 if empty else None
        return [lines[descriptor] for descriptor, _ in poll.poll(timeout_ms) if descriptor in lines]

    def _heed(self, signals: socket.socket) -> None:
        try:
            numbers = signals.recv(64)
        except BlockingIOError:
            return
        for number in numbers:
            if not self._is_stopping:
                self._on_stop()
                self._stop(signal.SIGTERM)
            else:
                self._last_word = number
                self._stop(signal.SIGKILL)

    def _stop(self, number: int) -> None:
        self._is_stopping = True
        for place in self._running():
            os.kill(place.pid, number)

    def _listen(self, place: _Place) -> None:
        """Take in what the worker says, or that it has ended."""
        assert place.line is not None  # noqa: S101  # only those are waited for
        if place.line.recv(16):
            place.is_ready = True
            if not self._is_up and all(other.is_ready for other in self._places):
                self._is_up = True
                self._on_ready()
            return
        place.line.close()
        place.line = None
        _, status = os.waitpid(place.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        told = f"worker {place.number} (process {place.pid}) {_describe_end(code)}"
        if not self._is_stopping:
            self._replace(place, told)
        elif code and self._last_word is None and not self._status:
            _log.warning("%s", told)

    def _replace(self, place: _Place, told: str) -> None:
        if not self._is_up:
            _log.error("%s before it was ready", told)
            self._status = 1
            self._stop(signal.SIGTERM)
            return
        now_s = time.monotonic()
        pause_s = place.next_pause_s(now_s)
        place.due_s = now_s + pause_s
        _log.error("%s; the next one starts %s", told, f"in {pause_s:g} s" if pause_s else "now")


@contextmanager
def _caught_signals() -> Iterator[socket.socket]:
    """Yield a socket on which the number of each of SIGNALS arrives as a byte; all is as before in the end."""
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)
        before = {number: signal.signal(number, _do_nothing) for number in SIGNALS}
        # Whoever started us may ignore it, and then the ends of our workers could not be asked for.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)


def _do_nothing(*_: object) -> None:
    """Handle a signal whose number has been written down; without a handler, it would not be."""


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    names: Sequence[str] = [each.name for each in signal.Signals if each == -code]
    return f"was ended by {names[0] if names else f'signal {-code}'}"
