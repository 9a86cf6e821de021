"""Which upstreams, keys and models are left in peace for a while. Sans-I/O; times are monotonic seconds.

There is one breaker for each upstream (can it be reached?), each of its keys (is it let in?) and each model that a key
is used for (does it answer?). A healthy one takes no memory.

    closed --failures in a row--> open --cooldown over--> half open --probe succeeded--> closed
                                   ^                          |
                                   +------ probe failed ------+  (twice as long)
"""

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct

from aiproxyd.config import Target
from aiproxyd.routing.faults import Fault

FAILURES_TO_OPEN: Final = 3
"""Failures in a row that open a breaker where one alone says little."""
PROBE_LEASE_S: Final = 5.0
"""How long others wait for the outcome of a probe: a whole answer may take minutes."""
MAX_BREAKERS: Final = 4096
"""Breakers that are kept; callers choose models freely."""
MAX_MODEL_CHARS: Final = 256
"""Longest name of a model that has a breaker of its own; a request has room for megabytes."""
FORGET_S: Final = 900.0
"""How long after its last failure and cooldown a breaker is kept of which nothing more was heard."""

LONG_MODEL: Final = "..."
"""Stands for all models with longer names."""

NO_MODEL: Final = "-"
"""Stands for the model of calls that name none, about files for example: their failures say nothing about models."""

Place: TypeAlias = tuple[str, int, str]
"""Upstream, number of the key or -1 for all of them, model or "" for all of them."""


class Candidate(NamedTuple):
    """Where one attempt can be made: a target, with one of its upstream's keys."""

    target: Target
    key: int
    """Number of the key, from 0."""

    @property
    def places(self) -> tuple[Place, Place, Place]:
        """What has to be healthy for it."""
        upstream, model = self.target
        if len(model) > MAX_MODEL_CHARS:
            model = LONG_MODEL
        return (upstream, -1, ""), (upstream, self.key, ""), (upstream, self.key, model or NO_MODEL)


class Rest(NamedTuple):
    """A cooldown that begins."""

    place: Place
    lasts_s: float


class Cooldown(NamedTuple):
    """How a breaker opens for one kind of failure."""

    scope: int
    """Which of a candidate's places is concerned."""
    failures: int
    """In a row, until it opens."""
    base_s: float
    """How long it is open for the first time; twice as long each time after that."""
    max_s: float


_UPSTREAM, _KEY, _MODEL = range(3)
_COOLDOWNS: Final = {
    Fault.UNREACHABLE: Cooldown(_UPSTREAM, FAILURES_TO_OPEN, 1.0, 10.0),
    Fault.KEY: Cooldown(_KEY, 1, 60.0, 900.0),
    Fault.ACCESS: Cooldown(_MODEL, FAILURES_TO_OPEN, 60.0, 900.0),
    Fault.LIMIT: Cooldown(_MODEL, 1, 1.0, 60.0),
    Fault.SILENT: Cooldown(_MODEL, FAILURES_TO_OPEN, 1.0, 60.0),
    Fault.FAILING: Cooldown(_MODEL, FAILURES_TO_OPEN, 1.0, 60.0),
}
"""Without an entry, a failure says nothing about the place. A refused connection is asked about again soon: that costs
next to nothing, and the box may just be starting."""


class _Breaker(Struct):
    failures: int = 0
    """In a row."""
    openings: int = 0
    """In a row, without a success between them."""
    failed_at: float = 0.0
    open_until: float = 0.0
    probed_until: float = 0.0
    is_open: bool = False
    """Nobody was answered since it opened: who comes when its time is over is a probe."""
    fault: Fault = Fault.FAILING
    """What opened it."""

    def ready_at(self) -> float:
        return max(self.open_until, self.probed_until)

    def fail(self, now: float, cooldown: Cooldown, told_s: float | None, max_s: float) -> None:
        self.failures += 1
        self.failed_at = now
        if now < self.open_until:
            # Calls that were under way when it opened must not make it stay open for longer and longer.
            self.open_until = max(self.open_until, now + min(told_s or 0.0, max_s))
            return
        self.probed_until = 0.0
        # A failed probe opens at once, and so does an upstream that says how long.
        if self.openings == 0 and not told_s and self.failures < cooldown.failures:
            return
        lasts_s = min(cooldown.base_s * 2.0 ** min(self.openings, 30), cooldown.max_s)
        self.openings += 1
        self.is_open = True
        self.open_until = now + min(told_s or lasts_s, max_s)


class Health:
    """The breakers of all upstreams; one for the application."""

    def __init__(self, max_cooldown_s: float) -> None:
        """Leave nothing in peace for longer than *max_cooldown_s*, whatever it says itself; never where that is 0."""
        self._max_cooldown_s = max_cooldown_s
        self._breakers: dict[Place, _Breaker] = {}
        self._answered_at: dict[str, float] = {}
        """When each upstream gave its last good answer."""

    def ready_at(self, candidate: Candidate) -> float:
        """Return when *candidate* may be asked; in the past where it may be now."""
        return self._ready_at(candidate.places) if self._breakers else 0.0

    def is_probed(self, candidate: Candidate, now: float) -> bool:
        """Tell whether *candidate* may not be asked only because another call is finding out."""
        return now >= max(
            (self._breakers[place].open_until for place in candidate.places if place in self._breakers), default=0.0
        )

    def key_ready_at(self, upstream: str, key: int) -> float:
        """Return when *upstream* may be asked with *key*, whatever is known of single models."""
        return self._ready_at(Candidate(Target(upstream, ""), key).places[:_MODEL])

    def usable_at(self, upstream: str, key: int) -> float:
        """Return when *upstream* may be asked with *key* for any model at all, as far as is known.

        Where a model has failed and nothing was answered since, the others are taken to be no better.
        """
        answered_at = self._answered_at.get(upstream, 0.0)
        resting = [
            breaker.ready_at()
            for place, breaker in self._breakers.items()
            if place[:2] == (upstream, key) and place[2] and breaker.failed_at > answered_at
        ]
        return max(self.key_ready_at(upstream, key), min(resting, default=0.0))

    def begin(self, candidate: Candidate, now: float) -> bool:
        """Note that *candidate* is being asked, and tell whether that is a probe.

        Where a cooldown is just over, others wait for what comes of it; but where failures used to come fast, one that
        has not failed by the end of its lease is at work, and the others may come.
        """
        is_probe = False
        for place in candidate.places if self._breakers else ():
            breaker = self._breakers.get(place)
            if breaker is not None and breaker.is_open:
                if breaker.probed_until and breaker.fault is not Fault.SILENT:
                    breaker.is_open = False
                else:
                    breaker.probed_until = now + PROBE_LEASE_S
                    is_probe = True
        return is_probe

    def answer(self, candidate: Candidate, now: float) -> bool:
        """Note that an answer of *candidate* has begun: others may ask it again, but it is not over yet.

        Returns whether that ends a cooldown.
        """
        self._answered_at[candidate.target.upstream] = now
        is_back = False
        for place in candidate.places if self._breakers else ():
            breaker = self._breakers.get(place)
            if breaker is not None and now >= breaker.open_until:
                is_back = is_back or breaker.is_open
                breaker.is_open, breaker.open_until, breaker.probed_until = False, 0.0, 0.0
        return is_back

    def succeed(self, candidate: Candidate, now: float) -> None:
        """Note that *candidate* answered to the end."""
        if self._breakers:
            self._close(candidate.places, now)

    def fail(
        self,
        candidate: Candidate,
        fault: Fault,
        now: float,
        told_s: float | None = None,
        *,
        has_answered: bool = True,
        struck: set[Place] | None = None,
    ) -> Rest | None:
        """Note that *candidate* failed; *told_s* is how long it asks to be left in peace.

        Returns what rests from now on; None where nothing does, or did already.

        Where it *has_answered*, what the failure is not about is in order. *struck* are the places of which the same
        request has told before: a request that no upstream survives must not count as many, and close it to others.
        """
        cooldown = _COOLDOWNS.get(fault)
        scope = cooldown.scope if cooldown else len(candidate.places)
        self._close(candidate.places[: scope if has_answered else min(scope, _KEY)], now)
        if cooldown is None or not self._max_cooldown_s:
            return None
        place = candidate.places[scope]
        is_known = place in self._breakers
        if struck is not None:
            if place in struck and cooldown.failures > 1 and not told_s and not self._is_half_open(place, now):
                return None
            struck.add(place)
        if not is_known:
            self._make_room(now)
        breaker = self._breakers.setdefault(place, _Breaker())
        breaker.fault = fault
        rested = now < breaker.open_until
        breaker.fail(now, cooldown, told_s, self._max_cooldown_s)
        return None if rested or now >= breaker.open_until else Rest(place, breaker.open_until - now)

    def withdraw(self, candidate: Candidate) -> None:
        """Note that nothing came of a probe, through no fault of *candidate*'s: the next may find out."""
        for place in candidate.places if self._breakers else ():
            breaker = self._breakers.get(place)
            if breaker is not None:
                breaker.probed_until = 0.0

    def revive(self, upstream: str, key: int) -> None:
        """Note that *upstream* was reached and let *key* in; what is known of single models stays.

        The next call finds out whether that is all: an account without money may well list its models.
        """
        for place in Candidate(Target(upstream, ""), key).places[:_MODEL]:
            breaker = self._breakers.get(place)
            if breaker is not None:
                breaker.open_until = breaker.probed_until = 0.0

    def find_fault(self, candidate: Candidate) -> Fault:
        """Return why *candidate*, which has to wait, has to wait the longest."""
        found = [self._breakers[place] for place in candidate.places if place in self._breakers]
        return max(found, key=_Breaker.ready_at, default=_Breaker()).fault

    def cooling(self, now: float) -> dict[Place, float]:
        """Return what is left in peace at present, and for how many seconds more."""
        return {
            place: breaker.ready_at() - now for place, breaker in self._breakers.items() if breaker.ready_at() > now
        }

    def _is_half_open(self, place: Place, now: float) -> bool:
        breaker = self._breakers.get(place)
        return breaker is not None and breaker.is_open and now >= breaker.open_until

    def _close(self, places: Iterable[Place], now: float) -> None:
        """Forget what was wrong with *places*. A cooldown that was ordered in the meantime goes on."""
        for place in places:
            breaker = self._breakers.get(place)
            if breaker is not None and now >= breaker.open_until:
                del self._breakers[place]

    def _make_room(self, now: float) -> None:
        """Drop breakers that nobody has asked about for long; where there are too many, one of a model."""
        old = [
            place
            for place, breaker in self._breakers.items()
            if max(breaker.ready_at(), breaker.failed_at) + FORGET_S < now
        ]
        for place in old:
            del self._breakers[place]
        if len(self._breakers) >= MAX_BREAKERS:
            del self._breakers[next(filter(_is_models, self._breakers), next(iter(self._breakers)))]

    def _ready_at(self, places: Iterable[Place]) -> float:
        return max((self._breakers[place].ready_at() for place in places if place in self._breakers), default=0.0)


def _is_models(place: Place) -> bool:
    return bool(place[2])
