"""Who may be asked, and in which order: a model's targets with their upstreams' keys, by strategy and where it is warm.

Does no I/O; times are monotonic seconds.
"""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias, assert_never

from aiproxyd.config import RetrySettings, Target, UpstreamSettings
from aiproxyd.routing.affinity import Affinity
from aiproxyd.routing.catalogue import Route
from aiproxyd.routing.health import Candidate, Health
from aiproxyd.routing.latency import Latencies
from aiproxyd.routing.plan import Plan
from aiproxyd.routing.slots import Slots

BACKOFF_BASE_S: Final = 0.5
BACKOFF_MAX_S: Final = 8.0
"""Bounds of the pause before a failed attempt is repeated; the pause is drawn between 0 and the bound, which doubles:
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/."""
TOLD_JITTER_S: Final = 0.25
"""Added at random to a wait that the upstream asked for, so that not all come back in the same moment."""
MAX_CANDIDATES: Final = 64
"""Targets times keys that one request may try."""

Clock: TypeAlias = Callable[[], float]


class Router:
    """What is known about all upstreams: who is well, who is fast, who is full. One for the application."""

    def __init__(
        self,
        upstreams: Iterable[UpstreamSettings],
        settings: RetrySettings,
        randomness: random.Random,
        clock: Clock = time.monotonic,
    ) -> None:
        self.clock = clock
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Attempts by upstream and what came of them."""
        self.health = Health(settings.max_cooldown_s)
        self.affinity = Affinity(settings.affinity_ttl_s)
        self._settings = settings
        self._random = randomness
        self._latencies = Latencies()
        self._keys: dict[str, int] = {}
        self._patience_s: dict[str, float] = {}
        """How long a whole call may take, by upstream."""
        self._slots: dict[str, Slots] = {}
        for upstream in upstreams:
            self._keys[upstream.name] = max(len(upstream.api_keys), 1)
            self._patience_s[upstream.name] = upstream.limits.request_s
            if upstream.max_concurrency is not None:
                self._slots[upstream.name] = Slots(
                    upstream.name, upstream.max_concurrency, upstream.max_queue, upstream.queue_timeout_s
                )
        self._turns = dict.fromkeys(self._keys, 0)

    def plan(self, route: Route, *, is_stream: bool, conversation: bytes | None = None, rotates: bool = True) -> Plan:
        """Return the plan for one request; *conversation* is what `name_conversation` returned, None for none.

        Unless it *rotates*, an upstream's keys come in their order: what is stored with one is found again.
        """
        is_fast = route.strategy == "least-latency"
        now = self.clock()
        if len(route.targets) == 1 and self._keys[route.targets[0].upstream] == 1:
            return self._plan_only(route.targets[0], now, is_fast=is_fast, is_stream=is_stream)
        warm = self.affinity.find(conversation, now) if conversation is not None else None
        turns: dict[str, int] = {} if rotates else dict.fromkeys(self._keys, 0)
        candidates = [
            Candidate(target, key)
            for target in self._sort_targets(route, now, is_stream=is_stream)
            for key in self._sort_keys(target, warm, turns)
        ]
        if route.strategy != "ordered" and warm in candidates:
            candidates.remove(warm)
            candidates.insert(0, warm)
        return Plan(
            candidates[:MAX_CANDIDATES],
            {target.upstream: now + self._patience_s[target.upstream] for target in route.targets},
            self,
            self._settings,
            self._latencies if is_fast else None,
            conversation,
            is_stream=is_stream,
        )

    def _plan_only(self, target: Target, now: float, *, is_fast: bool, is_stream: bool) -> Plan:
        """Return the plan where there is but one candidate."""
        latencies = self._latencies if is_fast else None
        deadlines = {target.upstream: now + self._patience_s[target.upstream]}
        return Plan([Candidate(target, 0)], deadlines, self, self._settings, latencies, None, is_stream=is_stream)

    def has_choice(self, route: Route) -> bool:
        """Tell whether there is more than one candidate, so that it matters where a conversation was answered last."""
        return self.affinity.ttl_s > 0 and (len(route.targets) > 1 or self._keys[route.targets[0].upstream] > 1)

    def slots(self, upstream: str) -> Slots | None:
        """Return the slots of *upstream*; None where it has no limit."""
        return self._slots.get(upstream)

    @property
    def all_slots(self) -> Mapping[str, Slots]:
        """The slots of those upstreams that have a limit."""
        return self._slots

    @property
    def upstreams(self) -> Iterable[str]:
        """The names of all upstreams."""
        return self._keys

    def ready_in_s(self, upstream: str) -> float:
        """Return for how many seconds more *upstream* is left in peace with all its keys; 0 for one that is usable."""
        keys = range(self._keys[upstream])
        return max(min(self.health.usable_at(upstream, key) for key in keys) - self.clock(), 0.0)

    def resting_keys(self, upstream: str) -> list[int]:
        """Return the numbers of the keys with which *upstream* is left in peace for all models."""
        now = self.clock()
        return [key for key in range(self._keys[upstream]) if self.health.key_ready_at(upstream, key) > now]

    def draw_backoff_s(self, repeats: int) -> float:
        """Return how long to wait before the *repeats*-th repetition, counted from 0."""
        return self._random.uniform(0.0, min(BACKOFF_BASE_S * 2.0 ** min(repeats, 30), BACKOFF_MAX_S))

    def draw_jitter_s(self) -> float:
        """Return what to add to a wait that was asked for."""
        return self._random.uniform(0.0, TOLD_JITTER_S)

    def _sort_targets(self, route: Route, now: float, *, is_stream: bool) -> Sequence[Target]:
        if len(route.targets) < 2:
            return route.targets
        match route.strategy:
            case "ordered":
                return route.targets
            case "weighted":
                return self._sort_by_weight(route)
            case "least-latency":
                return self._sort_by_latency(route.targets, now, is_stream=is_stream)
            case _ as never:
                assert_never(never)

    def _sort_by_weight(self, route: Route) -> Sequence[Target]:
        weights = route.weights or (1.0,) * len(route.targets)
        # Drawn without putting back, each time in proportion to the weights: Efraimidis and Spirakis (2006).
        drawn = [(math.log(1.0 - self._random.random()) / weight) for weight in weights]
        return [
            target for _, _, target in sorted(zip(drawn, range(len(drawn)), route.targets, strict=True), reverse=True)
        ]

    def _sort_by_latency(self, targets: Sequence[Target], now: float, *, is_stream: bool) -> Sequence[Target]:
        """Return *targets*, the faster of two drawn at random first, so that not all run to the fastest."""
        loads = {target: self._latencies.load(target, now, is_stream=is_stream) for target in targets}
        rest = sorted(self._random.sample(targets, len(targets)), key=loads.__getitem__)
        if len(rest) > 2:
            best = min(self._random.sample(rest, 2), key=loads.__getitem__)
            rest.remove(best)
            rest.insert(0, best)
        return rest

    def _sort_keys(self, target: Target, warm: Candidate | None, turns: dict[str, int]) -> Iterable[int]:
        """Return the numbers of a target's keys: the warm one first, else each in its turn.

        *turns* says whose turn it is in this plan, in which all targets at one upstream take a single one.
        """
        upstream = target.upstream
        count = self._keys[upstream]
        if count == 1:
            return (0,)
        if warm is not None and warm.target == target:
            first = warm.key
        else:
            if upstream not in turns:
                turns[upstream] = self._turns[upstream]
                self._turns[upstream] = (turns[upstream] + 1) % count
            first = turns[upstream]
        return [(first + offset) % count for offset in range(count)]
