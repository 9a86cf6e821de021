"""The upstreams' own lists: asked once, kept, refreshed without anybody waiting for it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from typing_extensions import override
from yarl import URL

from aiproxyd.app import open_session
from aiproxyd.config import TimeLimits, UpstreamSettings
from aiproxyd.hub import ModelCard
from aiproxyd.providers.openai import OpenAIProvider
from aiproxyd.routing.discovery import FRESH_S, RETRY_S, ModelLists
from tests.support import Reply, Upstream

ONE = Reply(b'{"data":[{"id":"m1"}]}')
TWO = Reply(b'{"data":[{"id":"m1"},{"id":"m2"}]}')


def settings_of(upstream: Upstream) -> UpstreamSettings:
    limits = TimeLimits(connect_s=5, first_event_s=5, idle_s=5, request_s=5)
    return UpstreamSettings(name="up", provider="openai", base_url=URL(upstream.url), limits=limits)


@pytest.fixture
async def session(upstream: Upstream) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(settings_of(upstream)) as session:
        yield session


@pytest.fixture
def lists(upstream: Upstream, session: aiohttp.ClientSession) -> ModelLists:
    return ModelLists({"up": OpenAIProvider(settings_of(upstream), session, "1.1 test")})


def names(lists: ModelLists) -> list[str]:
    return [card.name for card in lists.known("up")]


class LaterClock:
    """The clock, so many seconds ahead."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def monotonic(self) -> float:
        return time.monotonic() + self._seconds


def pass_time(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let *seconds* have passed for the lists, and for nothing else."""
    monkeypatch.setattr("aiproxyd.routing.discovery.time", LaterClock(seconds))


async def wait_for_requests(upstream: Upstream, count: int) -> None:
    for _ in range(500):
        if len(upstream.received) >= count:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert len(upstream.received) == count


async def test_nothing_is_known_before_somebody_asks(upstream: Upstream, lists: ModelLists) -> None:
    upstream.script(ONE)

    before = names(lists), lists.version
    await lists.ensure([])
    await lists.ensure(["up"])

    assert before == ([], 0)
    assert names(lists) == ["m1"]
    assert lists.version == 1
    assert upstream.received[0].target == "/models"


async def test_callers_that_come_together_ask_once(upstream: Upstream, lists: ModelLists) -> None:
    upstream.script(Reply(ONE.body, wait_s=0.05))

    await asyncio.gather(*(lists.ensure(["up"]) for _ in range(10)))

    assert names(lists) == ["m1"]
    assert len(upstream.received) == 1


async def test_a_caller_that_leaves_does_not_stop_the_question(upstream: Upstream, lists: ModelLists) -> None:
    upstream.script(Reply(ONE.body, wait_s=0.1))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await lists.ensure(["up"])
    await lists.ensure(["up"])

    assert names(lists) == ["m1"]
    assert len(upstream.received) == 1


async def test_a_fresh_list_is_kept(upstream: Upstream, lists: ModelLists, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.script(ONE, TWO)
    await lists.ensure(["up"])

    pass_time(FRESH_S - 10, monkeypatch)
    await lists.ensure(["up"])
    await asyncio.sleep(0.05)

    assert len(upstream.received) == 1


async def test_an_old_list_serves_until_the_new_one_is_there(
    upstream: Upstream, lists: ModelLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.script(ONE, Reply(TWO.body, wait_s=0.1))
    await lists.ensure(["up"])

    pass_time(FRESH_S + 1, monkeypatch)
    await lists.ensure(["up"])
    await lists.ensure(["up"])
    old = names(lists), lists.version
    await wait_for_requests(upstream, 2)
    await asyncio.sleep(0.1)

    assert old == (["m1"], 1)
    assert (names(lists), lists.version) == (["m1", "m2"], 2)
    assert len(upstream.received) == 2


async def test_a_list_that_has_not_changed_is_no_new_version(
    upstream: Upstream, lists: ModelLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.script(ONE)
    await lists.ensure(["up"])

    pass_time(FRESH_S + 1, monkeypatch)
    await lists.ensure(["up"])
    await wait_for_requests(upstream, 2)

    assert lists.version == 1


async def test_an_upstream_that_failed_is_left_in_peace_for_a_while(
    upstream: Upstream, lists: ModelLists, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.script(Reply(b'{"error":{"message":"out of order"}}', 500), Reply(ONE.body, wait_s=0.02))

    await lists.ensure(["up"])
    await lists.ensure(["up"])
    await asyncio.sleep(0.05)
    in_peace = len(upstream.received)
    pass_time(RETRY_S + 1, monkeypatch)
    await lists.ensure(["up"])
    at_once = names(lists)
    await wait_for_requests(upstream, 2)

    assert in_peace == 1
    assert at_once == []
    assert names(lists) == ["m1"]
    assert caplog.messages == ["upstream up does not list its models: out of order"]


async def test_a_list_outlives_a_failure(
    upstream: Upstream, lists: ModelLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.script(ONE, Reply(b"", 503))
    await lists.ensure(["up"])

    pass_time(FRESH_S + 1, monkeypatch)
    await lists.ensure(["up"])
    await wait_for_requests(upstream, 2)

    assert (names(lists), lists.version) == (["m1"], 1)


class _Buggy(OpenAIProvider):
    """Fails once as no provider should."""

    @override
    async def list_models(self, key: int = 0) -> list[ModelCard]:
        self.list_models = super().list_models  # type: ignore[method-assign]
        raise LookupError("a bug")


async def test_a_bug_in_a_provider_keeps_nobody_waiting(
    upstream: Upstream, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.script(ONE)
    lists = ModelLists({"up": _Buggy(settings_of(upstream), session, "1.1 test")})

    await lists.ensure(["up"])
    after_the_bug = names(lists)
    await lists.ensure(["up"])

    assert after_the_bug == []
    assert names(lists) == ["m1"]
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.ERROR, "the background task models of up failed")
    ]
