"""Upstreams that come and go at random, and calls that overlap. The clock is a stand-in: nothing is waited for."""

import heapq
import random
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterator, Sequence
from itertools import accumulate, count
from typing import Final, NamedTuple, TypeVar, cast

from hypothesis import example, given
from hypothesis import strategies as st
from typing_extensions import override
from yarl import URL

from aiproxyd.config import RetrySettings, Secret, Target, TimeLimits, UpstreamSettings
from aiproxyd.errors import (
    ProxyError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamKeyRefused,
    UpstreamRefusal,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from aiproxyd.routing.catalogue import Route
from aiproxyd.routing.choice import TOLD_JITTER_S, Router
from aiproxyd.routing.faults import FINAL, Fault, judge
from aiproxyd.routing.health import PROBE_LEASE_S, Candidate

T = TypeVar("T")
NAMES: Final = "abc"
SETTINGS: Final = RetrySettings()
LIMITS: Final = TimeLimits(connect_s=1, first_event_s=1, idle_s=1, request_s=3600)
MAX_ATTEMPT_S: Final = 2.0


def refuse(status: int, retry_after_s: float | None = None) -> UpstreamRefusal:
    return UpstreamRefusal("no", status=status, retry_after_s=retry_after_s)


ERRORS: Final[Sequence[UpstreamError]] = (
    UpstreamUnavailable("down"),
    UpstreamTimeout("slow"),
    UpstreamCut("cut"),
    UpstreamGarbage("what"),
    UpstreamKeyRefused("no"),
    *(refuse(status) for status in (400, 402, 403, 404, 429, 500, 529)),
    refuse(429, 2.0),
    refuse(503, 60.0),
)


class Schedule:
    """How an upstream is over time: well (None), or failing in one way after the other; well again in the end."""

    def __init__(self, periods: Sequence[tuple[float, UpstreamError | None]]) -> None:
        self._ends = list(accumulate(length for length, _ in periods))
        self._states = [state for _, state in periods]

    @override
    def __repr__(self) -> str:
        return repr(list(zip(self._ends, self._states, strict=True)))

    def state_at(self, now: float) -> UpstreamError | None:
        at = bisect_right(self._ends, now)
        state = self._states[at] if at < len(self._states) else None
        return state and state.copy()  # who gives up writes into it when to come again


class Call(NamedTuple):
    """When a call begins, how long each of its attempts takes, and how it ends where it is answered."""

    begins_s: float
    attempt_s: float
    end: str
    """``whole``; ``cut``, behind its beginning; or ``left``, by a caller who lost patience in its first attempt."""


class World:
    """Simulated upstreams, the router that knows them, and the events that are to come."""

    def __init__(self, schedules: Sequence[Schedule], keys: Sequence[int], settings: RetrySettings, seed: int) -> None:
        self.now = 0.0
        self._schedules = dict(zip(NAMES, schedules, strict=True))
        self._settings = settings
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self.outcomes: list[str] = []
        upstreams = [
            UpstreamSettings(
                name=name,
                provider="openai",
                base_url=URL("http://x"),
                api_keys=tuple(Secret(str(number)) for number in range(key_count)),
                limits=LIMITS,
            )
            for name, key_count in zip(NAMES, keys, strict=True)
        ]
        self.targets = tuple(Target(name, "m") for name in NAMES)
        self.candidates = [
            Candidate(target, key) for target, keys_of in zip(self.targets, keys, strict=True) for key in range(keys_of)
        ]
        self.router = Router(upstreams, settings, random.Random(seed), lambda: self.now)  # noqa: S311  # no secret

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), act))

    def run(self) -> None:
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()

    def call(self, call: Call, strategy: str) -> None:
        """Let *call* begin at its time."""
        begin = self._serve(call, strategy)

        def go_on() -> None:
            wait_s = next(begin, None)
            if wait_s is not None:
                self.at(self.now + wait_s, go_on)

        self.at(call.begins_s, go_on)

    def _serve(self, call: Call, strategy: str) -> Iterator[float]:
        """Serve *call* as the dispatcher does, and yield how long each of its steps takes."""
        plan = self.router.plan(Route(self.targets, strategy), is_stream=True)  # type: ignore[arg-type]
        tried: dict[Candidate, set[Fault]] = {}
        began_s, attempts = self.now, 0
        while True:
            try:
                candidate, wait_s = plan.next()
            except ProxyError as exc:
                self.outcomes.append("error")
                self._check_given_up(exc, tried, attempts, self.now - began_s)
                return
            if wait_s:
                yield wait_s
            lease = finish(plan.start(candidate, "me"))
            if lease is None:
                continue
            attempts += 1
            error = self._schedules[candidate.target.upstream].state_at(self.now)
            yield call.attempt_s
            if call.end == "left" and attempts == 1:
                lease.end()
                self.outcomes.append("left")
                return
            if error is None:
                plan.answer(lease, call.attempt_s)
                yield call.attempt_s
                lease.succeed() if call.end == "whole" else lease.fail(UpstreamCut("cut"))
                lease.end()
                self.outcomes.append("served")
                return
            lease.fail(error)
            tried.setdefault(candidate, set()).add(plan.fail(candidate, error))
            lease.end()

    def _check_given_up(
        self, error: ProxyError, tried: dict[Candidate, set[Fault]], attempts: int, elapsed_s: float
    ) -> None:
        """Check that nobody was passed over who could have served the call."""
        assert attempts <= len(self.candidates) + self._settings.retries
        # Once more than it is repeated, it may wait for what others find out ahead of it.
        waits = self._settings.retries + 1 if self._settings.retries else 0
        longest_s = attempts * MAX_ATTEMPT_S + waits * (self._settings.max_wait_s + TOLD_JITTER_S)
        assert elapsed_s <= longest_s + 1e-6
        if any(FINAL & faults for faults in tried.values()):
            return
        alike = {Fault.UNREACHABLE, Fault.SILENT}  # would be the same with another key
        down = {candidate.target.upstream for candidate, faults in tried.items() if alike & faults}
        for candidate in self.candidates:
            is_resting = self.router.health.ready_at(candidate) > self.now
            assert candidate in tried or is_resting or candidate.target.upstream in down, (candidate, error)


def finish(work: Coroutine[object, None, T]) -> T:
    """Run what does not wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise AssertionError("it waits")


STATES = st.sampled_from((None, None, None, *ERRORS))
SCHEDULES = st.lists(st.tuples(st.floats(0.1, 20), STATES), max_size=12).map(Schedule)
CALLS = st.builds(
    Call,
    begins_s=st.floats(0, 60),
    attempt_s=st.floats(0.001, MAX_ATTEMPT_S),
    end=st.sampled_from(("whole", "whole", "whole", "cut", "left")),
)
DOWN: Final = [(5.0, UpstreamUnavailable("down"))]
LEFT: Final = [*(Call(1.0, 0.01, "whole") for _ in range(4)), Call(20.0, 0.01, "left")]
"""The last one is the probe after a cooldown, and nothing comes of it."""


@given(
    st.lists(SCHEDULES, min_size=3, max_size=3),
    st.lists(st.integers(1, 3), min_size=3, max_size=3),
    st.lists(CALLS, min_size=1, max_size=25),
    st.builds(RetrySettings, retries=st.integers(0, 3), max_wait_s=st.floats(0, 10)),
    st.sampled_from(("ordered", "weighted", "least-latency")),
    st.integers(0, 1000),
)
@example([Schedule(DOWN)] * 3, [1, 1, 1], LEFT, SETTINGS, "ordered", 0)
def test_calls_are_served_while_anyone_can_and_all_is_well_again_in_the_end(
    schedules: Sequence[Schedule],
    keys: Sequence[int],
    calls: Sequence[Call],
    settings: RetrySettings,
    strategy: str,
    seed: int,
) -> None:
    world = World(schedules, keys, settings, seed)
    for call in calls:
        world.call(call, strategy)
    world.run()
    assert len(world.outcomes) == len(calls)

    # Nothing is left out for ever, whatever has happened: not even by calls that were left in the middle.
    world.now = max(world.now, 12 * 20) + settings.max_cooldown_s + PROBE_LEASE_S
    assert world.router.health.cooling(world.now) == {}
    # One after the other: while one finds out whether all is well, others may be told to come back.
    for number in range(len(world.candidates)):
        world.call(Call(world.now + number, 0.1, "whole"), strategy)
    world.run()

    assert world.outcomes[len(calls) :] == ["served"] * len(world.candidates)


@given(st.lists(SCHEDULES, min_size=2, max_size=2), st.lists(CALLS, min_size=1, max_size=25), st.integers(0, 1000))
def test_one_upstream_that_is_always_well_serves_every_call(
    schedules: Sequence[Schedule], calls: Sequence[Call], seed: int
) -> None:
    # What is about the request is not to be asked again.
    errors = [schedule.state_at(at / 10) for schedule in schedules for at in range(2500)]
    is_final = any(error is not None and judge(error) in FINAL for error in errors)
    world = World([*schedules, Schedule([])], [1, 2, 1], SETTINGS, seed)
    for call in calls:
        world.call(call._replace(end="whole"), "ordered")
    world.run()

    assert is_final or world.outcomes == ["served"] * len(calls)
