"""Callers of one call: who hears what, who is charged, and what is left of it when all have gone."""

import asyncio
import gc
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import aiohttp
import msgspec
import pytest

from aiproxyd.cache.flights import Flight
from aiproxyd.cache.sharing import SharedAnswer
from tests.conftest import StartGateway
from tests.http.test_cache import (
    ANTHROPIC,
    CHAT,
    ON,
    SSE,
    STREAMED,
    ask,
    chat,
    delta,
    keys,
    measure,
    read_slowly,
    stream,
)
from tests.support import Gateway, Received, Reply, Upstream, upstream_section

# What a caller says of itself.

ALICE = {"user": "alice@secret", "metadata": {"case": "SECRET-77"}, "prompt_cache_key": "alice-session"}
ECHOED = ("metadata", "user", "prompt_cache_key", "safety_identifier", "instructions")


def event(name: str, **members: object) -> bytes:
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode({"type": name} | members) + b"\n\n"


def answer_as_responses(received: Received) -> Reply:
    """Answer as /responses does, whole or streaming, with what it repeats of the request."""
    asked = msgspec.json.decode(received.body)
    text = {"type": "output_text", "text": "Hello", "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
    usage = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    about = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5"}
    about |= {name: asked.get(name) for name in ECHOED}
    whole = about | {"status": "completed", "output": [item], "usage": usage}
    if not asked.get("stream"):
        return Reply(msgspec.json.encode(whole), wait_s=0.2)
    begun = about | {"status": "in_progress", "output": [], "usage": None}
    part = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    chunks = [
        event("response.created", response=begun),
        event("response.output_item.added", output_index=0, item=item | {"content": [], "status": "in_progress"}),
        event("response.content_part.added", **part, part=text | {"text": ""}),
        event("response.output_text.delta", **part, delta="Hello"),
        event("response.output_text.done", **part, text="Hello"),
        event("response.content_part.done", **part, part=text),
        event("response.output_item.done", output_index=0, item=item),
        event("response.completed", response=whole),
    ]
    return Reply(chunks=chunks, content_type=SSE, gap_s=0.03)


@pytest.mark.parametrize("is_joined", [False, True], ids=["hit", "joined"])
@pytest.mark.parametrize("led", [False, True], ids=["led whole", "led streaming"])
@pytest.mark.parametrize("asked", [False, True], ids=["asked whole", "asked streaming"])
async def test_what_a_caller_says_reaches_nobody_by_way_of_another_api(
    led: bool, asked: bool, is_joined: bool, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """Chat Completions repeats nothing of a request; converted into a call of /responses, it is repeated there."""
    upstream.respond(answer_as_responses)
    ini = upstream_section(upstream, "openai", lines="api = responses") + keys("alice", "bob")
    running = await gateway(ini + "[model m]\ntargets = up/gpt-5\ncache-scope = shared\n", *ON)
    first = asyncio.ensure_future(ask(http, running, CHAT | ALICE | {"stream": led}, Authorization="Bearer alice"))
    await (asyncio.sleep(0.1) if is_joined else first)

    body = {"model": "m", "input": "hi", "store": False, "stream": asked}
    other = await ask(http, running, body, "/v1/responses", Authorization="Bearer bob")

    await first
    assert len(upstream.received) == 1
    assert b"SECRET-77" in upstream.received[0].body  # or this would show nothing
    assert b"Hello" in other.body
    assert not [word for word in (b"SECRET", b"alice") if word in other.body]


# What is left when all have gone.


@contextmanager
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def count_alive(*kinds: type) -> Counter[str]:
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds))


async def leave(http: aiohttp.ClientSession, running: Gateway, body: object) -> None:
    asking = asyncio.ensure_future(ask(http, running, body))
    await asyncio.sleep(0.1)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize(
    ("reply", "bodies"),
    [
        (chat(), [CHAT, CHAT]),
        (stream("a", "b"), [STREAMED, STREAMED]),
        (stream("a", "b", gap_s=0.02), [STREAMED, CHAT, STREAMED]),
        (Reply(chat().body, wait_s=0.05), [CHAT, STREAMED, CHAT]),
        (Reply(b'{"error":{"message":"no","type":"x"}}', 400, wait_s=0.05), [CHAT, CHAT]),
        (Reply(b"{}", 500, wait_s=0.05), [CHAT, CHAT, CHAT]),
        (Reply(b'{"choices":', cut=True), [CHAT, CHAT]),
        (stream("a", is_complete=False), [STREAMED, CHAT]),
        (Reply(chat("x" * 4_300_000).body, wait_s=0.05), [CHAT, CHAT]),
    ],
    ids=["whole", "stream", "followed", "followed whole", "refused", "failed", "cut", "stream cut", "too long"],
)
async def test_a_call_is_gone_with_its_callers(
    reply: Reply, bodies: Iterable[object], upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """The daemon collects garbage seldom: what is held in circles stays for minutes, with the bodies in it."""
    upstream.script(reply)
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    with no_collection():
        await asyncio.gather(*(ask(http, running, body) for body in bodies))
        await asyncio.sleep(0.1)

        assert count_alive(Flight, SharedAnswer) == {}


@pytest.mark.parametrize("body", [CHAT, STREAMED], ids=["whole", "stream"])
async def test_a_call_that_all_have_left_is_gone(
    body: object, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(stream(*"abcdefgh", gap_s=0.5) if body is STREAMED else Reply(chat().body, wait_s=5.0))
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    with no_collection():
        await asyncio.gather(*(leave(http, running, body) for _ in range(2)))
        await asyncio.wait_for(upstream.cancelled.wait(), 2)
        await asyncio.sleep(0.1)

        assert count_alive(Flight, SharedAnswer) == {}


# Who is charged.

OTHER_USAGE = {"prompt_tokens": 77, "completion_tokens": 7, "total_tokens": 84}


def cut_by_the_model(words: str) -> Reply:
    """Return a stream that is given to its caller, and not kept."""
    reply = stream(*words, gap_s=0.05)
    assert isinstance(reply.chunks, list)
    reply.chunks[-3] = delta({}, "length")
    return reply


def speak_cut(received: Received) -> Reply:
    is_stream = b'"stream":true' in received.body.replace(b" ", b"")
    return cut_by_the_model("abcdefgh") if is_stream else chat(usage=OTHER_USAGE)


async def read_lines(running: Gateway) -> list[str]:
    """Return what the log says of each call from its tokens on, in order."""
    await asyncio.sleep(0.1)
    return sorted(line.partition(" tokens=")[2] for line in running.log().splitlines())


async def test_who_stays_alone_for_an_answer_that_does_not_do_bears_both_calls(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(speak_cut)
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    first = asyncio.ensure_future(read_slowly(http, running, 3))
    await asyncio.sleep(0.1)

    whole = await ask(http, running)

    await first
    assert (whole.status, len(upstream.received)) == (200, 2)
    assert await read_lines(running) == ["- cache=miss", "77+7 cache=miss"]
    story = running.log().partition(" attempts=2 tried=")[2].partition(" ")[0]
    assert story == '"up/m#1:left:10+2,up/m#1:ok"'


async def test_who_makes_a_call_of_its_own_after_all_saves_nothing(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(speak_cut)
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    first = asyncio.ensure_future(ask(http, running, STREAMED))
    await asyncio.sleep(0.1)

    await ask(http, running)

    await first
    assert len(upstream.received) == 2
    assert await read_lines(running) == ["10+2 cache=miss", "77+7 cache=miss"]
    assert not [name for name in await measure(http, running) if "saved" in name]


@pytest.mark.parametrize("body", [CHAT, STREAMED], ids=["whole", "streaming"])
async def test_who_leaves_is_charged_nothing_where_another_stays(
    body: object, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(stream(*"abcdefgh", gap_s=0.05))
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    first = asyncio.ensure_future(ask(http, running, STREAMED))
    await asyncio.sleep(0.1)

    await leave(http, running, body)

    await first
    assert await read_lines(running) == ["- cache=collapsed", "10+2 cache=miss"]


async def test_who_leaves_last_is_charged_for_what_was_written(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(stream(*"abcdefgh" * 10, gap_s=0.02))
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    first = asyncio.ensure_future(read_slowly(http, running, 8))
    await asyncio.sleep(0.05)
    whole = asyncio.ensure_future(ask(http, running))
    await first
    await asyncio.sleep(0.3)
    whole.cancel()
    await asyncio.wait_for(upstream.cancelled.wait(), 2)

    lines = await read_lines(running)

    assert lines[0] == "- cache=miss"
    tokens, _, rest = lines[1].partition(" ")
    assert rest == "cache=collapsed"
    assert tokens.startswith("~")
    assert int(tokens.rpartition("+")[2]) >= 10


async def test_nobody_has_saved_a_call_that_failed(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(stream(*"abc", gap_s=0.1, is_complete=False))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    await asyncio.gather(*(ask(http, running, STREAMED) for _ in range(3)))

    lines = await read_lines(running)
    assert sum(line.startswith("~") for line in lines) == 1
    assert not [line for line in lines if "saved" in line]


@pytest.mark.parametrize("seed", range(8))
async def test_each_call_is_charged_once_whoever_comes_and_leaves(
    seed: int, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    chance = random.Random(seed)  # noqa: S311  # no secret is drawn
    stop = "length" if seed % 2 else "stop"  # every other answer is not kept

    def respond(received: Received) -> Reply:
        if b'"stream":true' not in received.body:
            return Reply(chat("abcdefgh", stop).body, wait_s=0.15)
        reply = stream(*"abcdefgh", gap_s=0.02, wait_s=0.05)
        assert isinstance(reply.chunks, list)
        reply.chunks[-3] = delta({}, stop)
        return reply

    upstream.respond(respond)
    running = await gateway(upstream_section(upstream, "openai", lines="flavour = compatible"), *ON)

    async def call() -> None:
        await asyncio.sleep(chance.random() / 4)
        limited: dict[str, object] = CHAT | {"max_tokens": 99}
        body, path = chance.choice([(ANTHROPIC, "/v1/messages"), (limited, "/v1/chat/completions")])
        wishes = {"Cache_Control": "no-cache"} if chance.random() < 0.1 else {}
        asking = asyncio.ensure_future(ask(http, running, {**body, "stream": chance.random() < 0.6}, path, **wishes))
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.3)
            asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking

    await asyncio.gather(*(call() for _ in range(8)))
    await asyncio.sleep(0.2)

    log = running.log()
    charged = re.findall(r" tokens=~?\d+\+\d+", log) + re.findall(r"#1:\w+:~?\d+\+\d+", log)
    assert len(charged) == len(upstream.received), log


# What is told of errors.


@pytest.mark.parametrize("status", [400, 500])
async def test_who_is_told_anothers_error_is_told_where_it_comes_from(
    status: int, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"error":{"message":"oh","type":"x"}}', status, wait_s=0.2))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = await asyncio.gather(*(ask(http, running) for _ in range(4)))

    assert {answer.status for answer in answers} == {status}
    told = Counter(answer.cache for answer in answers)
    led = 1 if status == 400 else 2  # a failure is tried once more
    assert told == {"aiproxyd; fwd=miss": led, "aiproxyd; fwd=miss; collapsed": 4 - led}
    assert {answer.headers["x-aiproxyd-upstream"] for answer in answers} == {"up"}
    assert {answer.headers["x-aiproxyd-model"] for answer in answers} == {"m"}
    assert {answer.headers["x-aiproxyd-attempts"] for answer in answers} == {"1"}
    measured = await measure(http, running)
    assert measured['aiproxyd_cache_requests_total{outcome="collapsed"}'] == 4 - led
    lines = running.log().splitlines()
    assert sum(" cache=collapsed error=" in line and " upstream=up " in line for line in lines) == 4 - led


# Long answers.


async def test_who_waits_for_what_is_too_long_to_be_held_waits_for_it_once(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(lambda _: Reply(chat("x" * 4_300_000).body, wait_s=0.4))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    answers = await asyncio.gather(*(ask(http, running) for _ in range(6)))

    assert len(upstream.received) == 6
    assert upstream.peak == 5
    assert {answer.cache for answer in answers} == {"aiproxyd; fwd=miss"}


async def test_who_wants_it_whole_does_not_wait_for_the_end_of_what_is_too_long(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    long = stream(*["x" * 500_000] * 10, *"abcdefghij", gap_s=0.05)
    upstream.respond(lambda received: long if b'"stream":true' in received.body else chat())
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    first = asyncio.ensure_future(ask(http, running, STREAMED))
    await asyncio.sleep(0.1)

    whole = await ask(http, running)
    was_done = first.done()

    assert (whole.text, whole.cache) == ("Hello", "aiproxyd; fwd=miss")
    assert not was_done
    assert len((await first).text) == 5_000_010
    assert await read_lines(running) == ["10+2 cache=miss"] * 2


def write_long_stream(events: int) -> Reply:
    """Return a stream of so many small events, in pieces as they come off a socket."""
    body = b"".join(
        (
            delta({"role": "assistant", "content": ""}),
            delta({"content": "word"}) * events,
            delta({}, "stop"),
            b"data: [DONE]\n\n",
        )
    )
    return Reply(chunks=[body[at : at + 16_384] for at in range(0, len(body), 16_384)], content_type=SSE)


async def test_a_long_stream_is_read_as_it_comes_and_not_all_at_its_end(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """Reading all of it at once would hold up all other calls for a tenth of a second."""
    upstream.script(write_long_stream(20_000))
    running = await gateway(upstream_section(upstream, "openai"), *ON)
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            begun_s = time.thread_time()  # of this process alone, whatever else the machine does
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.thread_time() - begun_s)

    with no_collection():
        watching = asyncio.ensure_future(watch())
        async with http.post(running.url + "/v1/chat/completions", json=STREAMED) as response:
            async for _ in response.content.iter_any():
                pass
        await asyncio.sleep(0.1)
        watching.cancel()
    again = await ask(http, running, STREAMED)

    assert "hit" in again.cache
    assert again.text == "word" * 20_000
    assert longest_s < 0.03


async def test_a_rate_limit_is_told_to_all_who_have_waited(upstream: Upstream, gateway: StartGateway) -> None:
    upstream.respond(lambda _: Reply(b'{"error":{"message":"slow down"}}', status=429, wait_s=0.2))
    running = await gateway(upstream_section(upstream, "openai"), *ON, "--retries", "0")

    async with aiohttp.ClientSession() as many:
        answers = await asyncio.gather(*(ask(many, running) for _ in range(5)))

    assert [answer.status for answer in answers] == [429] * 5
    assert len(upstream.received) == 1


async def test_what_is_never_kept_says_so(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"object":"list","data":[],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}'))
    running = await gateway(upstream_section(upstream, "openai"), *ON)

    async with http.post(running.url + "/v1/embeddings", json={"model": "m", "input": "a"}) as response:
        assert (response.status, response.headers["Cache-Status"]) == (200, "aiproxyd; fwd=bypass")
    assert " cache=bypass" in running.log()
