"""How long targets take to begin their answers: a peak counts at once, and fades. Sans-I/O."""

import math
from typing import Final

from msgspec import Struct

from aiproxyd.config import Target
from aiproxyd.routing.health import MAX_MODEL_CHARS

FADING_S: Final = 60.0
"""After this time without news, what was measured counts for 1/e."""
LEAST_S: Final = 0.001
"""Nothing is taken to be faster, so that calls that are running count before anything is known."""
FAILURE_S: Final = 5.0
"""What a failure costs at least, as in linkerd's load biaser: https://linkerd.io/docs/reference/load-balancing/. What
refuses at once would look fast else, and draw all calls."""
MAX_MEASURED: Final = 4096
"""Targets whose times are kept: callers choose models freely. They take up to 3 MB, and 6 MB where the characters of
the models' names take four bytes each."""


class _Measured(Struct):
    cost_s: float = 0.0
    at: float = 0.0
    running: int = 0


class Latencies:
    """The measured times of all targets; one for the application.

    A moving average that peaks reach at once, times the calls that are running there:
    https://linkerd.io/2016/03/16/beyond-round-robin-load-balancing-for-latency/.
    """

    def __init__(self) -> None:
        self._measured: dict[tuple[Target, bool], _Measured] = {}

    def __len__(self) -> int:
        return len(self._measured)

    def begin(self, target: Target, *, is_stream: bool) -> None:
        """Note that a call begins; streams are measured apart, since their answers begin before they are complete.

        Nothing is known of targets the name of whose model is very long.
        """
        if len(target.model) > MAX_MODEL_CHARS:
            return
        key = (target, is_stream)
        if key not in self._measured and len(self._measured) >= MAX_MEASURED:
            idle = next((known for known, measured in self._measured.items() if not measured.running), None)
            if idle is not None:
                del self._measured[idle]
        self._measured.setdefault(key, _Measured()).running += 1

    def observe(self, target: Target, seconds: float, now: float, *, is_stream: bool) -> None:
        """Note that an answer began *seconds* after its call."""
        measured = self._measured.get((target, is_stream))
        if measured is None:
            return
        weight = math.exp(-max(now - measured.at, 0.0) / FADING_S) if measured.at else 0.0
        faded = measured.cost_s * weight
        measured.cost_s = seconds if seconds > measured.cost_s else faded + seconds * (1 - weight)
        measured.at = now

    def fail(self, target: Target, seconds: float, now: float, *, is_stream: bool) -> None:
        """Note that a call failed *seconds* after it began. It counts as an answer that took no less than FAILURE_S."""
        self.observe(target, max(seconds, FAILURE_S), now, is_stream=is_stream)

    def end(self, target: Target, *, is_stream: bool) -> None:
        """Note that a call has ended."""
        measured = self._measured.get((target, is_stream))
        if measured is not None:
            measured.running -= 1

    def load(self, target: Target, now: float, *, is_stream: bool) -> float:
        """Return what it presumably costs to ask *target* now; little where nothing is known."""
        measured = self._measured.get((target, is_stream))
        if measured is None:
            return LEAST_S
        cost_s = measured.cost_s * math.exp(-max(now - measured.at, 0.0) / FADING_S)
        return max(cost_s, LEAST_S) * (measured.running + 1)
