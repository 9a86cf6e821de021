"""Probes: whoever is left in peace is asked for its models, and nobody else is."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
from yarl import URL

from aiproxyd.app import open_session
from aiproxyd.config import RetrySettings, Secret, Target, TimeLimits, UpstreamSettings
from aiproxyd.providers.openai import OpenAIProvider
from aiproxyd.routing.choice import Router
from aiproxyd.routing.faults import Fault
from aiproxyd.routing.health import FAILURES_TO_OPEN, Candidate
from aiproxyd.routing.probing import probe
from aiproxyd.tasks import spawn
from tests.support import Received, Reply, Upstream

LISTED = Reply(b'{"data":[{"id":"m"}]}')
INTERVAL_S = 0.02
M = Target("up", "m")


@pytest.fixture
async def router(upstream: Upstream) -> AsyncIterator[Router]:
    """A router whose one upstream, with two keys, is probed."""
    settings = UpstreamSettings(
        name="up",
        provider="openai",
        base_url=URL(upstream.url),
        api_keys=(Secret("sk-1"), Secret("sk-2")),
        limits=TimeLimits(connect_s=5, first_event_s=5, idle_s=5, request_s=5),
    )
    router = Router([settings], RetrySettings(), random.Random(1))  # noqa: S311  # no secret is drawn
    async with open_session(settings) as session:
        providers = {"up": OpenAIProvider(settings, session, "1.1 test")}
        task = spawn(probe("up", providers, router, INTERVAL_S), "probe")
        yield router
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def rest(router: Router, fault: Fault, key: int = 0) -> None:
    for _ in range(FAILURES_TO_OPEN):
        router.health.fail(Candidate(M, key), fault, router.clock())


async def wait_for(predicate: Callable[[], bool]) -> None:
    for _ in range(500):
        if predicate():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come to that")


async def wait_until_revived(router: Router) -> None:
    await wait_for(lambda: not router.resting_keys("up"))


def keys_of(upstream: Upstream) -> list[str]:
    return [received.headers["Authorization"].removeprefix("Bearer ") for received in upstream.received]


async def test_who_is_well_is_not_asked(upstream: Upstream, router: Router) -> None:
    upstream.script(LISTED)

    await asyncio.sleep(5 * INTERVAL_S)

    assert upstream.received == []
    assert router.resting_keys("up") == []


async def test_a_key_that_rests_is_asked_about_until_it_is_let_in(upstream: Upstream, router: Router) -> None:
    upstream.script(Reply(b"{}", 401), Reply(b"<html>"), LISTED)
    rest(router, Fault.KEY, key=1)

    await wait_until_revived(router)
    await asyncio.sleep(5 * INTERVAL_S)

    assert keys_of(upstream) == ["sk-2"] * 3
    assert {(received.method, received.target) for received in upstream.received} == {("GET", "/models")}
    assert router.health.ready_at(Candidate(M, 1)) <= router.clock()


async def test_an_upstream_that_could_not_be_reached_is_back_with_all_its_keys(
    upstream: Upstream, router: Router
) -> None:
    upstream.script(LISTED)
    rest(router, Fault.UNREACHABLE)
    resting = router.resting_keys("up")

    await wait_until_revived(router)

    assert resting == [0, 1]
    assert router.ready_in_s("up") == 0.0


async def test_each_of_several_keys_is_asked_about(upstream: Upstream, router: Router) -> None:
    def respond(received: Received) -> Reply:
        return LISTED if received.headers["Authorization"] == "Bearer sk-2" else Reply(b"{}", 401)

    upstream.respond(respond)
    rest(router, Fault.KEY, key=0)
    rest(router, Fault.KEY, key=1)

    await wait_for(lambda: router.resting_keys("up") == [0] and len(upstream.received) >= 4)

    assert set(keys_of(upstream)) == {"sk-1", "sk-2"}
    assert keys_of(upstream).count("sk-2") == 1


async def test_a_model_that_rests_is_none_of_a_probes_business(upstream: Upstream, router: Router) -> None:
    upstream.script(LISTED)
    rest(router, Fault.LIMIT)

    await asyncio.sleep(5 * INTERVAL_S)

    assert upstream.received == []
    assert router.health.ready_at(Candidate(M, 0)) > router.clock()
