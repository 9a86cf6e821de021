"""How many calls an upstream gets at once, and who waits for it: principals take turns, each in its own order."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final, TypeAlias

from aiproxyd.errors import UpstreamBusy

BUSY_RETRY_S: Final = 1.0
"""When a caller may try again who found the queue full."""


Turn: TypeAlias = "asyncio.Future[Slots]"
"""What a call waits for: whose slot it got."""


class Slots:
    """The slots of one upstream; one for the application."""

    def __init__(self, name: str, limit: int, max_waiting: int, patience_s: float) -> None:
        """Take how many calls may run (*limit*) and wait (*max_waiting*) at once, and how long one may wait."""
        self.name = name
        self._limit = self._free = limit
        self._max_waiting = max_waiting
        self.patience_s = patience_s
        self._waiting: OrderedDict[str, deque[Turn]] = OrderedDict()
        self._waiting_count = 0

    @property
    def running(self) -> int:
        """How many calls run."""
        return self._limit - self._free

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._waiting_count

    @property
    def is_free(self) -> bool:
        """Whether a call could begin at once."""
        return self._free > 0

    def take(self) -> bool:
        """Take a slot, if one is free."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    def enter(self, principal: str, turn: Turn) -> None:
        """Let *turn* wait for a slot, for *principal*.

        Raises:
            UpstreamBusy: too many wait already.
        """
        if self._waiting_count >= self._max_waiting and not self._make_room(principal):
            raise self._refuse_full()
        self._waiting.setdefault(principal, deque()).append(turn)
        self._waiting_count += 1

    def leave(self, principal: str, turn: Turn) -> None:
        """Let *turn* wait no longer, if it does."""
        turns = self._waiting.get(principal)
        if turns is not None and turn in turns:
            turns.remove(turn)
            self._waiting_count -= 1
            if not turns:
                del self._waiting[principal]

    def release(self) -> None:
        """Give a slot back, to the next who waits."""
        while self._waiting:
            principal, turns = next(iter(self._waiting.items()))
            turn = turns.popleft()
            self._waiting_count -= 1
            if turns:
                self._waiting.move_to_end(principal)
            else:
                del self._waiting[principal]
            if not turn.done():
                turn.set_result(self)
                return
        self._free += 1

    def _make_room(self, principal: str) -> bool:
        """Refuse the last of the calls of whoever has most waiting, so that *principal*, who has fewer, has a place.

        Else one that sends many at once would shut out all others.
        """
        greediest = max(self._waiting, key=lambda waiter: len(self._waiting[waiter]), default=principal)
        most = len(self._waiting.get(greediest, ()))
        if most < 2 or len(self._waiting.get(principal, ())) + 1 >= most:
            return False
        turn = self._waiting[greediest].pop()
        self._waiting_count -= 1
        if not turn.done():
            turn.set_exception(self._refuse_full())
        return True

    def _refuse_full(self) -> UpstreamBusy:
        return UpstreamBusy(
            f"upstream {self.name} is busy: {self.running} calls run there, and {self.waiting} wait already",
            retry_after_s=BUSY_RETRY_S,
        )


async def acquire_first(places: Sequence[Slots], principal: str, deadline: float) -> Slots:
    """Wait for a slot of any of *places*, for *principal*, until *deadline* on the monotonic clock at most.

    Return whose slot it is.

    Raises:
        UpstreamBusy: too many wait already, or none became free in time.
    """
    loop = asyncio.get_running_loop()
    turn: Turn = loop.create_future()
    entered: list[Slots] = []
    refusal: UpstreamBusy | None = None
    for place in places:
        try:
            place.enter(principal, turn)
        except UpstreamBusy as exc:
            refusal = refusal or exc
        else:
            entered.append(place)
    if not entered and refusal is not None:
        raise refusal
    patience_s = max(place.patience_s for place in entered)
    try:
        async with asyncio.timeout_at(min(loop.time() + patience_s, deadline)):
            return await turn
    except TimeoutError:
        _give_back(turn)
        names = " and ".join(place.name for place in entered)
        raise UpstreamBusy(
            f"upstream {names} is busy: the call had no turn in the time that it could wait",
            retry_after_s=BUSY_RETRY_S,
        ) from None
    except asyncio.CancelledError:
        _give_back(turn)
        raise
    finally:
        for place in entered:
            place.leave(principal, turn)


def _give_back(turn: Turn) -> None:
    """Give back a slot that became free in the moment in which nobody wanted it any more."""
    if turn.done() and not turn.cancelled() and turn.exception() is None:
        turn.result().release()
