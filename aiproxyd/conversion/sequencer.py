"""Blocks one after the other, for formats whose streams cannot have two open at once. Sans-I/O."""

from collections.abc import Iterable
from typing import Final

from aiproxyd.errors import UpstreamGarbage
from aiproxyd.hub import BlockStart, BlockStop, CitationAdded, Delta, Event, Failed, Finish, SealSet

MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
"""Of all that waits in one answer."""
_EVENT_BYTES: Final = 100
"""About what an event takes beside its text."""

_FINISH: Final = -(2**63)
"""Stands for a key where it is the finish of a candidate that waits."""


class Sequencer:
    """Lets one block end before the next begins. One per answer.

    Keeps the events of blocks that begin too early until it is their turn, and the finish of a candidate until its last
    block has ended. All else passes at once. Where too much waits, the answer fails; behind that nothing is told.
    """

    def __init__(self) -> None:
        self._open: tuple[int, int] | None = None
        """Candidate and key of the block whose turn it is."""
        self._waiting: dict[tuple[int, int], list[Event]] = {}
        """What has come of the others, in the order in which they began."""
        self._waiting_bytes = 0
        self._has_failed = False

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """Return those events whose turn it is."""
        fed: list[Event] = []
        for event in events:
            if self._has_failed:
                break
            if type(event) is Delta and not self._waiting:
                fed.append(event)  # of the only block that is open
                continue
            match event:
                case Delta() | BlockStart() | SealSet() | CitationAdded() | BlockStop():
                    self._feed_block(event, fed)
                case Finish(candidate=candidate) if any(place[0] == candidate for place in self._waiting):
                    self._waiting[candidate, _FINISH] = [event]
                case _:
                    fed.append(event)
        return fed

    def _feed_block(self, event: Delta | BlockStart | SealSet | CitationAdded | BlockStop, fed: list[Event]) -> None:
        place = (event.candidate, event.key)
        if self._open is None:
            self._open = place
        if place != self._open:
            self._wait(place, event, fed)
            return
        fed.append(event)
        if isinstance(event, BlockStop):
            self._go_on(fed)

    def _wait(self, place: tuple[int, int], event: Event, fed: list[Event]) -> None:
        self._waiting.setdefault(place, []).append(event)
        self._waiting_bytes += _measure(event)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._has_failed = True
            self._waiting.clear()
            fed.append(Failed(UpstreamGarbage("the upstream's answer has too much in blocks that overlap")))

    def _go_on(self, fed: list[Event]) -> None:
        """Release what has waited, up to the first block that is not whole yet."""
        self._open = None
        while self._waiting and self._open is None:
            place = next(iter(self._waiting))
            events = self._waiting.pop(place)
            fed += events
            self._waiting_bytes -= sum(map(_measure, events))
            if not isinstance(events[-1], BlockStop | Finish):
                self._open = place


def _measure(event: Event) -> int:
    """Return about what *event* takes in memory while it waits."""
    match event:
        case Delta(text=text):
            return _EVENT_BYTES + len(text)
        case SealSet(seal=seal):
            return _EVENT_BYTES + len(seal.data)
        case Finish():
            return 0
        case _:
            return _EVENT_BYTES
