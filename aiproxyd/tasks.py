"""Tasks: those in the background are named, referenced until they end, and never silent; any can be timed."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final

from typing_extensions import override

_log: Final = logging.getLogger(__name__)
_running: Final[set[asyncio.Task[None]]] = set()


def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run *work* in the background; the event loop alone would not keep it from being collected."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_finish)
    return task


class Patience:
    """Limits the time of each of many ``with`` blocks, one after the other, as ``asyncio.timeout_at`` does that of one.

    Its timer is set anew only where it would ring too late, or has rung too early: the waits for the events of a stream
    are many, and hardly ever long. Knows its event loop: asking for the running one costs a system call on Python 3.11,
    and the library asks twice.
    """

    __slots__ = ("_cancelling", "_handle", "_is_expired", "_loop", "_rings_at", "_task", "_when")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._when = 0.0
        self._rings_at = 0.0
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_expired = False
        self._cancelling = 0

    def until(self, when: float) -> "Patience":
        """Return this, for a block that must have ended at *when*, on the monotonic clock."""
        self._when = when
        return self

    def move(self, when: float) -> None:
        """Let the block that runs, if one does, end at *when* instead."""
        self._when = when
        if self._task is not None and (self._handle is None or self._rings_at > when):
            self._set_timer()

    def close(self) -> None:
        """Stop the timer; there are no more blocks."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task(self._loop)
        assert self._task is not None  # noqa: S101  # only tasks can be timed
        self._is_expired = False
        self._cancelling = self._task.cancelling()
        if self._handle is None or self._rings_at > self._when:
            self._set_timer()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        is_ours = self._is_expired and task is not None and task.uncancel() <= self._cancelling
        if is_ours and kind is asyncio.CancelledError:
            raise TimeoutError from exc

    def _set_timer(self) -> None:
        self.close()
        self._rings_at = self._when
        self._handle = self._loop.call_at(self._when, self._ring)

    def _ring(self) -> None:
        self._handle = None
        if self._task is None:
            return  # the next block sets it
        if time.monotonic() < self._when:
            self._set_timer()
        else:
            self._is_expired = True
            self._task.cancel()


class Clock(Patience):
    """Limits the time of the one ``with`` block that it is used for."""

    __slots__ = ()

    def __init__(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        """Take the time, on the monotonic clock, at which the block must have ended."""
        super().__init__(loop)
        self._when = when

    @property
    def when(self) -> float:
        """When the block must have ended, as it was set last."""
        return self._when

    @override
    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        super().__exit__(kind, exc, traceback)


def _finish(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled() and task.exception() is not None:
        _log.error("the background task %s failed", task.get_name(), exc_info=task.exception())
