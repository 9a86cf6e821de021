"""Instances that share their answers over a real Redis, which comes and goes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from aiproxyd.cache.stores import REDIS_REST_S
from tests.conftest import StartGateway
from tests.http.test_cache import ANTHROPIC, CHAT, STREAMED, ask, chat, measure
from tests.redis_server import Server, needs_redis
from tests.support import Reply, Upstream, upstream_section

pytestmark = needs_redis


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path)
    await server.start()
    yield server
    await server.stop()


async def test_what_one_instance_has_asked_another_answers_in_any_format(
    redis: Server, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(chat())
    ini = upstream_section(upstream, "openai", lines="flavour = compatible")
    first, second = [await gateway(ini, "--cache-ttl", "60", "--redis-url", redis.url) for _ in range(2)]
    limited = {"max_tokens": 99}

    asked = await ask(http, first, CHAT | limited)
    await asyncio.sleep(0.1)
    whole = await ask(http, second, CHAT | limited)
    streamed = await ask(http, second, STREAMED | limited)
    other = await ask(http, second, ANTHROPIC, "/v1/messages")

    assert len(upstream.received) == 1
    assert whole.body == asked.body
    assert streamed.text == "Hello"
    assert other.json["content"][0]["text"] == "Hello"
    assert all("hit" in answer.cache for answer in (whole, streamed, other))


async def test_no_call_fails_or_is_held_up_while_redis_is_away(
    redis: Server, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(lambda _: Reply(chat().body, wait_s=0.01))
    ini = upstream_section(upstream, "openai")
    running = await gateway(ini, "--cache-ttl", "60", "--redis-url", redis.url)
    loop = asyncio.get_running_loop()
    statuses: Counter[int] = Counter()
    longest_s = 0.0
    is_over = False

    async def call(number: int) -> None:
        nonlocal longest_s
        turn = 0
        while not is_over:
            begun_s = loop.time()
            question = CHAT | {"messages": [{"role": "user", "content": f"{number} {turn % 5}"}]}
            statuses[(await ask(http, running, question)).status] += 1
            longest_s = max(longest_s, loop.time() - begun_s)
            turn += 1
            await asyncio.sleep(0.01)

    callers = [asyncio.ensure_future(call(number)) for number in range(8)]
    await asyncio.sleep(0.5)
    hits_before = (await measure(http, running))['aiproxyd_cache_requests_total{outcome="hit"}']
    await redis.stop()
    await asyncio.sleep(0.5)
    await redis.start()
    for _ in range(10):  # on a busy machine it may be found slow once more
        await asyncio.sleep(REDIS_REST_S)
        if (await measure(http, running))['aiproxyd_cache_requests_total{outcome="hit"}'] > hits_before + 100:
            break
    is_over = True
    await asyncio.gather(*callers)

    measured = await measure(http, running)
    assert set(statuses) == {200}
    assert longest_s < 1.0
    assert hits_before > 0
    assert measured['aiproxyd_cache_requests_total{outcome="hit"}'] > hits_before + 100
    assert measured['aiproxyd_cache_redis_calls_total{outcome="failed"}'] >= 1


async def test_calls_are_joined_with_redis_too(
    redis: Server, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(lambda _: Reply(chat().body, wait_s=0.3))
    running = await gateway(upstream_section(upstream, "openai"), "--cache-ttl", "60", "--redis-url", redis.url)

    answers = await asyncio.gather(*(ask(http, running) for _ in range(50)))

    assert len(upstream.received) == 1
    assert {answer.text for answer in answers} == {"Hello"}
