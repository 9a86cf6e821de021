"""Where answers are kept: the bound of the memory, and a real Redis that comes and goes."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aiproxyd.cache.entries import Entry
from aiproxyd.cache.stores import (
    MAX_RENDERINGS,
    OVERHEAD_BYTES,
    REDIS_REST_S,
    REDIS_TIMEOUT_S,
    Held,
    MemoryStore,
    RedisStore,
    Rendering,
)
from aiproxyd.hub import Usage
from tests.redis_server import Server, find_port, needs_redis


def make(body: bytes = b"{}", ttl_s: float = 60.0, age_s: float = 0.0) -> Entry:
    usage = Usage(input_tokens=1, output_tokens=2)
    return Entry("openai-chat", "up", "m", time.time() - age_s, ttl_s, b"r" * 16, body, usage)


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def size(store: MemoryStore, name: str = "aiproxyd_cache_bytes") -> float:
    return next(number for family in store.families() if family.name == name for _, number in family.samples)


async def test_what_is_put_is_got_until_its_time_is_over() -> None:
    store = MemoryStore(10_000)
    await store.put(name(1), make(b"1"))
    await store.put(name(2), make(b"2", age_s=61))

    held, old = await store.get(name(1)), await store.get(name(2))

    assert held is not None
    assert held.entry.body == b"1"
    assert old is None
    assert len(store) == 1
    assert await store.get(name(3)) is None


async def test_a_newer_answer_takes_the_place_of_an_older_one() -> None:
    store = MemoryStore(10_000)
    for body in (b"1" * 900, b"2"):
        await store.put(name(1), make(body))

    held = await store.get(name(1))

    assert held is not None
    assert held.entry.body == b"2"
    assert store.size_bytes == OVERHEAD_BYTES + 1


async def test_the_memory_has_a_bound_and_what_was_used_last_stays() -> None:
    store = MemoryStore(10 * (OVERHEAD_BYTES + 1000))

    for number in range(1000):
        await store.put(name(number), make(b"x" * 1000))
        await store.get(name(0))
        assert store.size_bytes <= 10 * (OVERHEAD_BYTES + 1000)

    kept = [number for number in range(1000) if await store.get(name(number))]
    assert kept == [0, *range(991, 1000)]
    assert size(store) == store.size_bytes
    assert size(store, "aiproxyd_cache_entries") == 10


async def test_what_an_answer_was_rendered_to_counts_too() -> None:
    store = MemoryStore(4 * OVERHEAD_BYTES - 100)
    await store.put(name(1), make())
    await store.put(name(2), make())
    held = await store.get(name(2))
    assert held is not None

    store.render(name(2), held, b"q", Rendering(b"rendered", ()))
    at_first = len(store)
    store.render(name(2), held, b"p", Rendering(b"again", ()))

    assert at_first == 2
    assert len(store) == 1
    assert held.renderings[b"q"].body == b"rendered"
    assert store.size_bytes <= 4 * OVERHEAD_BYTES


async def test_what_an_answer_is_rendered_to_that_is_gone_is_not_kept() -> None:
    store = MemoryStore(10_000)
    await store.put(name(1), make())
    held = await store.get(name(1))
    assert held is not None
    await store.put(name(1), make())

    store.render(name(1), held, b"q", Rendering(b"rendered", ()))

    assert store.size_bytes == OVERHEAD_BYTES + 2


async def test_an_answer_is_kept_in_few_renderings() -> None:
    store = MemoryStore(100_000)
    await store.put(name(1), make())
    held = await store.get(name(1))
    assert held is not None

    for number in range(100):
        store.render(name(1), held, name(number), Rendering(b"x", ()))

    assert list(held.renderings) == [name(number) for number in range(100 - MAX_RENDERINGS, 100)]
    assert store.size_bytes == held.size_bytes


async def test_an_answer_that_is_larger_than_the_cache_is_not_kept() -> None:
    store = MemoryStore(1000)

    await store.put(name(1), make(b"x" * 2000))

    assert (len(store), store.size_bytes) == (0, 0)


async def test_ten_thousand_answers_take_little_more_than_their_bytes() -> None:
    count, length = 10_000, 2000
    tracemalloc.start()
    try:
        store = MemoryStore(64 * 1024 * 1024)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            await store.put(name(number), make(bytes([number % 256]) * length))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    taken = after - before
    assert len(store) == count
    assert taken <= 1.3 * count * length
    assert taken <= store.size_bytes <= 1.3 * taken  # what we say is what it is, about


# Redis.


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path)
    await server.start()
    yield server
    await server.stop()


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(url)
    try:
        yield store
    finally:
        await store.close()


@needs_redis
async def test_redis_keeps_answers_for_all_instances(server: Server) -> None:
    async with open_store(server.url) as store, open_store(server.url) as other:
        await store.put(name(1), make(b"1"))
        await store.put(name(2), make(b"2", ttl_s=0.1))
        found = await other.get(name(1))
        await asyncio.sleep(0.15)
        old = await other.get(name(2))
        unknown = await other.get(name(3))

        assert found is not None
        assert found.entry.body == b"1"
        assert found.entry.usage == Usage(input_tokens=1, output_tokens=2)
        assert (old, unknown) == (None, None)
        other.render(name(1), found, b"q", Rendering(b"", ()))  # is not kept, and does no harm
        assert isinstance(found, Held)


@needs_redis
async def test_an_entry_of_another_version_is_none(server: Server) -> None:
    async with open_store(server.url) as store:
        await store._redis.set(b"aiproxyd:cache:" + name(1), b"\x93nonsense")

        assert await store.get(name(1)) is None


async def test_without_redis_nobody_waits_for_long_and_it_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    async with open_store(f"redis://:se%63ret@127.0.0.1:{find_port()}") as store:
        started = loop.time()
        for number in range(50):
            assert await store.get(name(number)) is None
            await store.put(name(number), make())

    assert loop.time() - started < 2 * REDIS_TIMEOUT_S
    (record,) = [record for record in caplog.records if record.name.startswith("aiproxyd.")]
    assert record.levelname == "WARNING"
    assert "secret" not in caplog.text


async def test_a_redis_that_hangs_is_waited_for_once_in_a_while() -> None:
    loop = asyncio.get_running_loop()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    deaf = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with deaf, open_store(f"redis://127.0.0.1:{deaf.sockets[0].getsockname()[1]}") as store:
        started = loop.time()
        for number in range(50):
            assert await store.get(name(number)) is None

        assert REDIS_TIMEOUT_S * 0.9 <= loop.time() - started < 2 * REDIS_TIMEOUT_S
        (family,) = store.families()
        assert list(family.samples) == [(("failed",), 1)]


async def wait_for(is_so: Callable[[], Coroutine[Any, Any, bool]], timeout_s: float) -> None:
    for _ in range(round(timeout_s / 0.05)):
        if await is_so():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


@needs_redis
async def test_a_redis_that_is_killed_is_used_again_when_it_is_back(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with open_store(server.url) as store:
        await store.put(name(1), make())
        assert await store.get(name(1)) is not None

        await server.stop()
        assert await store.get(name(1)) is None
        await server.start()

        async def is_used() -> bool:
            await store.put(name(1), make())
            return await store.get(name(1)) is not None

        await wait_for(is_used, REDIS_REST_S + 2)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("aiproxyd.")][-1] == (
        "Redis answers again"
    )


@needs_redis
async def test_a_redis_that_was_restarted_between_two_calls_is_not_missed(server: Server) -> None:
    """The connections that were waiting are closed: the first call on one of them fails, and is made again."""
    async with open_store(server.url) as store:
        await store.put(name(1), make())
        await server.stop()
        await server.start()

        await store.put(name(1), make())

        assert await store.get(name(1)) is not None
