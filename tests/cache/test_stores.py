"""Where answers are kept: the bound of the memory, and a real Redis that comes and goes."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from aiproxyd.cache.entries import Entry
from aiproxyd.cache.stores import (
    MAX_REDIS_CALLS,
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


def make(body: bytes = b"{}", ttl_s: float = 60.0, age_s: float = 0.0) -> Held:
    usage = Usage(input_tokens=1, output_tokens=2)
    return Held(Entry("openai-chat", "up", "m", time.time() - age_s, ttl_s, b"r" * 16, body, usage))


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


async def test_what_nobody_may_have_any_more_makes_room() -> None:
    store = MemoryStore(10_000)
    for number in range(3):
        await store.put(name(number), make(ttl_s=0.05))
    await store.put(name(3), make())
    await asyncio.sleep(0.06)

    await store.put(name(4), make())

    assert len(store) == 2
    assert store.size_bytes == 2 * (OVERHEAD_BYTES + 2)


async def test_an_answer_shows_what_it_was_rendered_to_before_it_was_put() -> None:
    """Those who wait for one call share what it comes to, whether it is kept, and where."""
    store, held = MemoryStore(10_000), make()

    store.render(name(1), held, b"q", Rendering(b"rendered", ()))
    before = store.size_bytes
    await store.put(name(1), held)

    assert before == 0
    assert store.size_bytes == held.size_bytes == 2 * OVERHEAD_BYTES + 10
    found = await store.get(name(1))
    assert found is not None
    assert found.renderings[b"q"].body == b"rendered"


def test_the_memory_is_described() -> None:
    assert MemoryStore(70_000).describe() == "memory, at most 70000 bytes"


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
        other.render(name(1), found, b"q", Rendering(b"rendered", ()))  # for those who have it now
        assert found.renderings[b"q"].body == b"rendered"
        again = await other.get(name(1))
        assert again is not None
        assert again.renderings == {}


@needs_redis
async def test_redis_shows_the_keys_in_letters(server: Server) -> None:
    async with open_store(server.url) as store:
        await store.put(name(255), make())

        assert await store._redis.keys("*") == [b"aiproxyd:cache:" + b"0" * 30 + b"ff"]


@needs_redis
async def test_an_entry_of_another_version_is_none(server: Server) -> None:
    async with open_store(server.url) as store:
        await store._redis.set(b"aiproxyd:cache:" + name(1).hex().encode(), b"\x93nonsense")

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


async def test_nobody_waits_longer_for_a_redis_that_hangs_because_many_do() -> None:
    loop = asyncio.get_running_loop()
    waited_s: list[float] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    deaf = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with deaf, open_store(f"redis://127.0.0.1:{deaf.sockets[0].getsockname()[1]}") as store:

        async def ask(number: int) -> None:
            begun_s = loop.time()
            assert await store.get(name(number)) is None
            waited_s.append(loop.time() - begun_s)

        await asyncio.gather(*(ask(number) for number in range(10 * MAX_REDIS_CALLS)))

        assert max(waited_s) < 2 * REDIS_TIMEOUT_S
        (family,) = store.families()
        assert dict(family.samples)["failed",] <= MAX_REDIS_CALLS


async def test_a_redis_that_has_only_much_to_do_is_not_taken_for_one_that_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while command := await reader.read(4096):
                await asyncio.sleep(0.1 if b"GET" in command else 0)
                writer.write(b"$-1\r\n" if b"GET" in command else b"+OK\r\n")
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as slow:
        async with open_store(f"redis://127.0.0.1:{slow.sockets[0].getsockname()[1]}?protocol=2") as store:
            await asyncio.gather(*(store.get(name(number)) for number in range(5 * MAX_REDIS_CALLS)))

            (family,) = store.families()
        await asyncio.sleep(0.1)  # the other side hears that its connections are closed

    outcomes = dict(family.samples)
    assert outcomes["ok",] >= MAX_REDIS_CALLS
    assert ("failed",) not in outcomes
    assert warnings(caplog) == []


GARBAGE = [
    b"$abc\r\n",
    b"$5\r\nab\r\n\r\n\r\n",
    b"HTTP/1.1 400 Bad\r\n\r\n",
    b"*1\r\n$1\r\na\r\n",
    b":1\r\n",
    b"$-5\r\n",
]


@pytest.mark.parametrize("garbage", [*GARBAGE, b"%1\r\n", b"x" * 200_000, b"*x\r\n", b"\xff\r\n", b"+\xff\r\n"])
async def test_what_is_no_redis_harms_nobody(garbage: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(4096):
                writer.write(garbage)
                await writer.drain()
        writer.close()

    other = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with other, open_store(f"redis://127.0.0.1:{other.sockets[0].getsockname()[1]}") as store:
        assert await store.get(name(1)) is None
        await store.put(name(1), make())
        assert await store.get(name(1)) is None


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("aiproxyd.")]


async def test_the_log_says_what_is_wrong_with_which_redis(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    port = find_port()
    fails = "fails, and calls go on without the cache: ConnectionError"
    for url, said in (
        (f"redis://user:secret@127.0.0.1:{port}/1", f"Redis at 127.0.0.1:{port} {fails}: Connection refused"),
        (f"unix://{tmp_path}/none", f"Redis at {tmp_path}/none {fails}: No such file or directory"),
    ):
        caplog.clear()
        async with open_store(url) as store:
            await store.get(name(1))

        assert warnings(caplog) == [said]


@needs_redis
async def test_the_log_says_what_redis_has_against_us(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async with open_store(server.url) as store:
        await store._redis.lpush(b"aiproxyd:cache:" + name(1).hex().encode(), b"not a string")
        await store.get(name(1))
        await store._redis.config_set("requirepass", "secret")
    async with open_store(f"redis://:wr0ng@127.0.0.1:{server.port}") as store:
        await store.get(name(1))
    async with open_store(server.url) as store:
        await store.get(name(1))

    begin = f"Redis at 127.0.0.1:{server.port} fails, and calls go on without the cache: "
    assert warnings(caplog) == [
        f"{begin}ResponseError: WRONGTYPE",
        f"{begin}AuthenticationError: WRONGPASS",
        f"{begin}AuthenticationError: NOAUTH",
    ]


async def test_a_redis_is_described_without_its_password(tmp_path: Path) -> None:
    for url, place in (
        ("redis://user:secret@host", "Redis at host:6379, database 0"),
        ("rediss://:secret@host:1/2", "Redis at host:1, database 2"),
        ("unix://user:secret@/run/redis.sock?db=3", "Redis at /run/redis.sock, database 3"),
    ):
        async with open_store(url) as store:
            assert store.describe() == place


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
        f"Redis at 127.0.0.1:{server.port} answers again"
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
