"""A router with scripted answers. The clock is a stand-in: all waits are computed, none is waited for."""

import random
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import TypeVar, cast

from msgspec.structs import replace
from yarl import URL

from aiproxyd.config import RetrySettings, Secret, Target, TimeLimits, UpstreamSettings
from aiproxyd.errors import (
    ProxyError,
    UpstreamRefusal,
)
from aiproxyd.routing.catalogue import Route
from aiproxyd.routing.choice import Router
from aiproxyd.routing.health import Candidate
from aiproxyd.routing.plan import Plan

LIMITS = TimeLimits(connect_s=1, first_event_s=1, idle_s=1, request_s=3600)
DEFAULTS = RetrySettings()
T = TypeVar("T")
A, B, C = (Target(name, "m") for name in "abc")


def run_at_once(work: Coroutine[object, None, T]) -> T:
    """Run what does not wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise AssertionError("it waits")


class Clock:
    def __init__(self) -> None:
        self.now = time.monotonic()  # which the event loop knows as well

    def __call__(self) -> float:
        return self.now


class Stage:
    """A router with scripted answers."""

    def __init__(
        self,
        keys: Sequence[int] = (1, 1, 1),
        *,
        settings: RetrySettings = DEFAULTS,
        max_concurrency: int | None = None,
        max_queue: int = 0,
        queue_timeout_s: float = 30.0,
        patience_s: Mapping[str, float] = {},
        seed: int = 1,
    ) -> None:
        self.clock = Clock()
        upstreams = [
            UpstreamSettings(
                name=name,
                provider="openai",
                base_url=URL("http://x"),
                api_keys=tuple(Secret(str(number)) for number in range(count)),
                max_concurrency=max_concurrency,
                max_queue=max_queue,
                queue_timeout_s=queue_timeout_s,
                limits=replace(LIMITS, request_s=patience_s.get(name, LIMITS.request_s)),
            )
            for name, count in zip("abc", keys, strict=True)
        ]
        self.router = Router(upstreams, settings, random.Random(seed), self.clock)  # noqa: S311  # no secret is drawn
        self.waited_s: list[float] = []

    def plan(self, *targets: Target, strategy: str = "ordered", conversation: bytes | None = None) -> Plan:
        return self.router.plan(Route(targets, strategy), is_stream=True, conversation=conversation)  # type: ignore[arg-type]

    def fail(self, plan: Plan, error: ProxyError) -> Candidate:
        """Make the next attempt fail with *error*; return where it was made."""
        return self.run(plan, error, None)

    def succeed(self, plan: Plan, latency_s: float = 0.1) -> Candidate:
        return self.run(plan, None, latency_s)

    def run(self, plan: Plan, error: ProxyError | None, latency_s: float | None) -> Candidate:
        candidate, wait_s = plan.next()
        self.waited_s.append(wait_s)
        self.clock.now += wait_s
        lease = run_at_once(plan.start(candidate, "me"))
        assert lease is not None
        if error is None:
            plan.answer(lease, latency_s)
            lease.succeed()
        else:
            lease.fail(error)
            plan.fail(candidate, error)
        lease.end()
        lease.end()
        return candidate


def refusal(status: int, retry_after_s: float | None = None) -> UpstreamRefusal:
    return UpstreamRefusal("no", status=status, retry_after_s=retry_after_s)


def upstreams_of(candidates: Iterable[Candidate]) -> str:
    return "".join(candidate.target.upstream for candidate in candidates)
