"""What can be measured of the upstreams. Does no I/O."""

from collections.abc import Iterable
from heapq import nlargest
from typing import Final

from aiproxyd.routing.choice import Router
from aiproxyd.telemetry.metrics import Family

MAX_COOLDOWNS: Final = 100
"""Cooldowns that are told of, the longest; callers choose the names of models."""


def families(router: Router) -> Iterable[Family]:
    """Yield the metrics."""
    names, slots = list(router.upstreams), router.all_slots
    cooling = router.health.cooling(router.clock())
    yield Family(
        "aiproxyd_attempts",
        "counter",
        "Attempts to have a call answered, by what came of them.",
        ("upstream", "outcome"),
        list(router.outcomes.items()),
    )
    yield Family(
        "aiproxyd_upstream_usable",
        "gauge",
        "Whether an upstream may be asked at present, with one of its keys at least.",
        ("upstream",),
        [((name,), float(router.ready_in_s(name) == 0.0)) for name in names],
    )
    yield Family(
        "aiproxyd_cooldown_seconds",
        "gauge",
        f"How long an upstream, one of its keys or a model still rests after failures; the longest {MAX_COOLDOWNS}.",
        ("upstream", "key", "model"),
        [
            ((upstream, str(key + 1) if key >= 0 else "", model), left_s)
            for (upstream, key, model), left_s in nlargest(MAX_COOLDOWNS, cooling.items(), key=lambda item: item[1])
        ],
    )
    yield Family(
        "aiproxyd_upstream_running",
        "gauge",
        "Calls that run at an upstream with max-concurrency.",
        ("upstream",),
        [((name,), float(held.running)) for name, held in slots.items()],
    )
    yield Family(
        "aiproxyd_upstream_waiting",
        "gauge",
        "Calls that wait for an upstream with max-concurrency.",
        ("upstream",),
        [((name,), float(held.waiting)) for name, held in slots.items()],
    )
