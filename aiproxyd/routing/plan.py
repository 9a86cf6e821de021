"""The attempts of one request: who is asked, how each of them went, and who is asked next.

Does no I/O but for waiting in an upstream's queue; times are monotonic seconds.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from aiproxyd.config import RetrySettings, Target
from aiproxyd.errors import NotReady, ProxyError, UpstreamBusy, UpstreamError, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.routing.faults import FINAL, REPEATABLE, Fault, judge
from aiproxyd.routing.health import Candidate, Place
from aiproxyd.routing.latency import Latencies
from aiproxyd.routing.slots import Slots, acquire_first

if TYPE_CHECKING:
    from aiproxyd.routing.choice import Router

PROBED_S: Final = 0.2
"""How often a call that waits looks whether another one has found out that an upstream is well again."""

_UPSTREAM_WIDE: Final = frozenset((Fault.BUSY, Fault.UNREACHABLE))
"""What is the same with all keys of an upstream, and for all of its models."""
_TARGET_WIDE: Final = frozenset((Fault.SILENT, Fault.TIME))
"""What would be the same with another key, and take as long."""
_SLOWING: Final = frozenset((Fault.LIMIT, Fault.UNREACHABLE, Fault.SILENT, Fault.FAILING))
"""Failures of the place, and not of its key or of the request."""
_REASONS: Final = {
    Fault.KEY: "its API key is refused, or its account empty",
    Fault.ACCESS: "its API key may not use the model",
    Fault.LIMIT: "its rate limit is used up",
    Fault.UNREACHABLE: "it cannot be reached",
}

_log: Final = logging.getLogger(__name__)


class Step(NamedTuple):
    """What to do next."""

    candidate: Candidate
    wait_s: float
    """How long to wait first."""


class Lease:
    """One attempt at a candidate, from its slot in the queue to the end of its answer. Ends once, however it ends."""

    __slots__ = (
        "_is_open",
        "_is_probe",
        "_is_stream",
        "_latencies",
        "_outcome",
        "_router",
        "_slots",
        "_started_at",
        "_struck",
        "candidate",
    )

    def __init__(
        self,
        candidate: Candidate,
        router: "Router",
        slots: Slots | None,
        latencies: Latencies | None,
        struck: set[Place],
        *,
        is_stream: bool,
    ) -> None:
        self.candidate = candidate
        self._router = router
        self._slots = slots
        self._latencies = latencies
        self._struck = struck
        self._is_stream = is_stream
        self._is_open = True
        self._outcome: str | None = "left"
        self._started_at = router.clock()
        self._is_probe = router.health.begin(candidate, self._started_at)
        if latencies is not None:
            latencies.begin(candidate.target, is_stream=is_stream)

    def answer(self, latency_s: float | None) -> None:
        """Note that a good answer has begun, *latency_s* after it was asked for."""
        now = self._router.clock()
        self._outcome = "ok"
        if self._router.health.answer(self.candidate, now):
            _log.info("%s answers again", _describe(self.candidate.places[-1]))
        if self._latencies is not None and latency_s is not None:
            self._latencies.observe(self.candidate.target, latency_s, now, is_stream=self._is_stream)

    def succeed(self) -> None:
        """Note that the answer came to its end."""
        self._router.health.succeed(self.candidate, self._router.clock())

    def fail(self, error: ProxyError) -> Fault:
        """Note that the attempt failed, whether its answer had begun or not, and return what that is bound to."""
        fault = judge(error)
        now = self._router.clock()
        self._outcome = fault.name.lower()
        rest = self._router.health.fail(
            self.candidate,
            fault,
            now,
            error.retry_after_s,
            has_answered=isinstance(error, UpstreamRefusal | UpstreamKeyRefused),
            struck=self._struck,
        )
        if self._latencies is not None and fault in _SLOWING:
            self._latencies.fail(self.candidate.target, now - self._started_at, now, is_stream=self._is_stream)
        if rest is not None:
            _log.info("%s rests for %.1f s (%s)", _describe(rest.place), rest.lasts_s, fault.name.lower())
        return fault

    def withdraw(self) -> None:
        """Note that the candidate was not asked after all."""
        self._outcome = None

    def end(self) -> None:
        """Give back the slot; does nothing the second time."""
        if not self._is_open:
            return
        self._is_open = False
        if self._is_probe and self._outcome != "ok":
            # Also where it failed: of other places than the one that failed it has found out nothing.
            self._router.health.withdraw(self.candidate)
        if self._outcome is not None:
            self._router.outcomes[self.candidate.target.upstream, self._outcome] += 1
        if self._latencies is not None:
            self._latencies.end(self.candidate.target, is_stream=self._is_stream)
        if self._slots is not None:
            self._slots.release()


class Plan:
    """The attempts of one request: each candidate once, then a few of them again. One per request."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        deadlines: Mapping[str, float],
        router: "Router",
        settings: RetrySettings,
        latencies: Latencies | None,
        conversation: bytes | None,
        *,
        is_stream: bool,
    ) -> None:
        """Take when the call must be over at each upstream (*deadlines*)."""
        self._candidates = candidates
        self._deadlines = deadlines
        self._router = router
        self._settings = settings
        self._latencies = latencies
        self._conversation = conversation
        self._is_stream = is_stream
        self._tried: dict[Candidate, Fault | None] = {}
        self._told_until: dict[Candidate, float] = {}
        self._struck: set[Place] = set()
        self._repeats = 0
        self._waits_since: float | None = None
        """Since when others have been found out ahead of us, whenever we came."""
        self._failure: ProxyError | None = None
        self._is_over = False

    def deadline(self, candidate: Candidate) -> float:
        """Return when the whole call must be over where it is answered by *candidate*."""
        return self._deadlines[candidate.target.upstream]

    def next(self) -> Step:
        """Return whom to ask next, and how long to wait before.

        Raises:
            ProxyError: nobody is left; what the last attempt said, or NotReady where none was worth making.
        """
        now = self._router.clock()
        step = None if self._is_over else self._find_fresh(now) or self._find_repetition(now)
        if step is None:
            raise self._give_up(now)
        return step

    async def start(self, candidate: Candidate, principal: str) -> Lease | None:
        """Return the lease for one attempt at *candidate*, or another one that has a slot sooner.

        None where it should rest by now, and `next` is to be asked again. The lease's end is the caller's business.

        Raises:
            UpstreamBusy: there is no slot in time.
        """
        health, clock = self._router.health, self._router.clock
        if health.ready_at(candidate) > clock():
            self._wait_on(clock())
            return None
        slots = self._router.slots(candidate.target.upstream)
        if slots is not None and not slots.take():
            candidate, slots = await self._wait_for_slot(candidate, slots, principal)
            if health.ready_at(candidate) > clock():
                slots.release()
                self._wait_on(clock())
                return None
        self._tried[candidate] = None
        return Lease(candidate, self._router, slots, self._latencies, self._struck, is_stream=self._is_stream)

    def answer(self, lease: Lease, latency_s: float | None) -> None:
        """Note that an attempt's answer has begun well."""
        lease.answer(latency_s)
        self._failure = None
        if self._conversation is not None:
            self._router.affinity.keep(self._conversation, lease.candidate, self._router.clock())

    def fail(self, candidate: Candidate, error: ProxyError) -> Fault:
        """Note that an attempt failed with *error*, and return what that is bound to."""
        fault = judge(error)
        self._tried[candidate] = fault
        self._failure = error
        self._is_over = fault in FINAL
        for other in self._candidates:
            if other == candidate or _concerns(fault, candidate, other):
                self._tried.setdefault(other, fault)
                if isinstance(error, UpstreamError) and error.retry_after_s is not None:
                    self._told_until[other] = self._router.clock() + error.retry_after_s
        if fault is Fault.FAILING:
            # Another key would hardly mend it, so that other targets come first.
            self._candidates = sorted(self._candidates, key=lambda other: other.target == candidate.target)
        return fault

    def reject(self, target: Target, error: ProxyError) -> None:
        """Note that *target* cannot be asked this at all."""
        self._tried.update((candidate, Fault.TARGET) for candidate in self._candidates if candidate.target == target)
        # What an upstream said stays: the request may be repeated there.
        self._failure = self._failure or error

    async def _wait_for_slot(self, candidate: Candidate, slots: Slots, principal: str) -> tuple[Candidate, Slots]:
        """Wait for a slot at *candidate* or at any other that might be asked as well."""
        waiting = {slots: candidate}
        for other in self._fresh(self._router.clock()):
            slots_there = self._router.slots(other.target.upstream)
            if slots_there is not None:
                waiting.setdefault(slots_there, other)
        deadline = max(self.deadline(each) for each in waiting.values())
        try:
            taken = await acquire_first(list(waiting), principal, deadline)
        except UpstreamBusy:
            self._tried.update(dict.fromkeys(waiting.values(), Fault.BUSY))
            raise
        return waiting[taken], taken

    def _wait_on(self, now: float) -> None:
        """Let a repetition that was not made not count: not for ever, though."""
        if self._waits_since is None:
            self._waits_since = now
        if now - self._waits_since < self._settings.max_wait_s and self._repeats:
            self._repeats -= 1

    def _fresh(self, now: float) -> Iterator[Candidate]:
        """Yield those that were not tried yet, are well, and have time left."""
        ready_at = self._router.health.ready_at
        for candidate in self._candidates:
            if candidate not in self._tried and ready_at(candidate) <= now < self.deadline(candidate):
                yield candidate

    def _find_fresh(self, now: float) -> Step | None:
        """Return one that was not tried yet and is well, one with a free slot if there is one."""
        first = None
        for candidate in self._fresh(now):
            slots = self._router.slots(candidate.target.upstream)
            if slots is None or slots.is_free:
                return Step(candidate, 0.0)
            first = first or candidate
        return Step(first, 0.0) if first is not None else None

    def _find_repetition(self, now: float) -> Step | None:
        """Return the one that may be tried again, or at last for the first time, the soonest."""
        if self._repeats >= self._settings.retries:
            return None
        backoff_s = self._router.draw_backoff_s(self._repeats)
        waits = {
            candidate: self._wait_s(candidate, now, backoff_s)
            for candidate in self._candidates
            if self._tried.get(candidate, Fault.LIMIT) in REPEATABLE and now < self.deadline(candidate)
        }
        candidate = min(waits, key=waits.__getitem__, default=None)
        if candidate is None or waits[candidate] > min(self._settings.max_wait_s, self.deadline(candidate) - now):
            return None
        self._repeats += 1
        return Step(candidate, waits[candidate])

    def _wait_s(self, candidate: Candidate, now: float, backoff_s: float) -> float:
        told_s = max(self._router.health.ready_at(candidate), self._told_until.get(candidate, 0.0)) - now
        if told_s > 0 and self._router.health.is_probed(candidate, now):
            return PROBED_S  # nobody knows how long that takes
        if told_s > 0:
            return max(told_s + self._router.draw_jitter_s(), backoff_s)
        return backoff_s if candidate in self._tried else 0.0

    def _give_up(self, now: float) -> ProxyError:
        soonest = min(self._candidates, key=self._router.health.ready_at)
        wait_s = max(self._router.health.ready_at(soonest) - now, 0.0)
        if self._failure is not None:
            # Else it, whose traceback leads here, and the plan would hold each other.
            failure, self._failure = self._failure, None
            if wait_s and failure.retry_after_s is None and isinstance(failure, UpstreamError) and not self._is_over:
                failure.retry_after_s = wait_s
            return failure
        fault = self._router.health.find_fault(soonest)
        error = NotReady(
            "no upstream of this model is usable at the moment; the soonest is "
            f"{soonest.target.upstream} ({_REASONS.get(fault, 'its last calls failed')}), "
            f"to be asked again in {math.ceil(wait_s)} s",
            retry_after_s=wait_s,
        )
        error.is_lasting = fault is Fault.KEY
        return error


def _concerns(fault: Fault, failed: Candidate, other: Candidate) -> bool:
    """Tell whether it would go with *other* as it went where *fault* was found."""
    if fault in _UPSTREAM_WIDE:
        return other.target.upstream == failed.target.upstream
    return fault in _TARGET_WIDE and other.target == failed.target


def _describe(place: Place) -> str:
    """Return *place* in words."""
    upstream, key, model = place
    words = f"upstream {upstream}"
    if key >= 0:
        words += f" with key {key + 1}"
    return f"{words} for {model}" if model else words
