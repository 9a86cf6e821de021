"""Which requests are being served, so that a stop can wait for them, and end in good form those that take too long."""

import asyncio
from typing import Final

from aiproxyd.errors import ShuttingDown
from aiproxyd.telemetry.records import CallRecord

LAST_WORDS_S: Final = 2.0
"""How long a request that was stopped may take to tell its caller."""


class InFlight:
    """The requests that are being served; one for the application, made in its event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[object], CallRecord] = {}
        self._idle = asyncio.Event()

    def enter(self, record: CallRecord) -> asyncio.Task[object]:
        """Note that the current task serves a request; what is returned is for ``leave``."""
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101  # handlers always run in one
        self._tasks[task] = record
        return task

    def leave(self, task: asyncio.Task[object]) -> None:
        """Note that *task* has served its request."""
        del self._tasks[task]
        if not self._tasks:
            self._idle.set()

    async def drain(self, timeout_s: float) -> None:
        """Wait until no request is being served; stop those that are after *timeout_s*."""
        if await self._is_idle_within(timeout_s):
            return
        for task, record in self._tasks.items():
            record.is_stopped = True
            task.cancel()
        await self._is_idle_within(LAST_WORDS_S)

    async def _is_idle_within(self, timeout_s: float) -> bool:
        self._idle.clear()
        if not self._tasks:
            return True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


def take_stop(record: CallRecord) -> ShuttingDown | None:
    """Return what to tell the caller of a request that was just cancelled; None where it is the caller who has gone.

    The task of a request that ``drain`` stopped goes on after this, to say it.
    """
    task = asyncio.current_task()
    if not record.is_stopped or task is None:
        return None
    task.uncancel()
    return ShuttingDown("the gateway is being stopped; try again in a moment")
