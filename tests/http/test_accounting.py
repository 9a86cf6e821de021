"""What a call cost is recorded however it ends: as the upstream said, else as an estimate that is marked as one."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
from aiohttp import web
from typing_extensions import override

from aiproxyd.commands.serve import start
from aiproxyd.config import load_settings
from aiproxyd.hub import Usage
from aiproxyd.telemetry.logs import AccessLog
from aiproxyd.telemetry.records import CallRecord
from tests.support import Received, Reply, Upstream

SSE = "text/event-stream"
ASKED = "Tell me about blue things, and about nothing else, at some length."
"""17 or 18 tokens."""


class Records(AccessLog):
    """Keeps the records of all requests, beside logging them."""

    def __init__(self) -> None:
        super().__init__("text")
        self.done: list[CallRecord] = []

    @override
    def write(self, method: str, path: str, status: int, record: CallRecord) -> None:
        self.done.append(record)

    async def next(self) -> CallRecord:
        """Return the record of the next request that ends."""
        for _ in range(500):
            if self.done:
                break
            await asyncio.sleep(0.01)
        return self.done.pop(0)


class Running(NamedTuple):
    url: str
    records: Records


Start = Callable[..., Coroutine[Any, Any, Running]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Start]:
    """Start gateways whose records can be read: ``await serve(ini, *flags)``."""
    runners: list[web.AppRunner] = []

    async def serve(ini: str, *flags: str) -> Running:
        path = tmp_path / "config.ini"

        def configure() -> Any:
            path.write_text(ini)
            return load_settings(["--config", str(path), "--port", "0", *flags], {})

        records = Records()
        runners.append(await start(await asyncio.to_thread(configure), records))
        return Running(f"http://127.0.0.1:{runners[-1].addresses[0][1]}", records)

    yield serve
    for runner in runners:
        await runner.cleanup()


def event(data: object, kind: str = "") -> bytes:
    return (f"event: {kind}\n".encode() if kind else b"") + b"data: " + msgspec.json.encode(data) + b"\n\n"


def chat_event(delta: object, finish: str | None = None) -> bytes:
    return event({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def responses_event(kind: str, **members: object) -> bytes:
    return event({"type": kind, **members}, kind)


MESSAGE = {"type": "message", "id": "i", "role": "assistant", "status": "in_progress", "content": []}
DONE = MESSAGE | {"status": "completed", "content": [{"type": "output_text", "text": "blue", "annotations": []}]}
RESPONSE = {"id": "r", "object": "response", "model": "m", "status": "in_progress", "output": []}
COMPLETED = RESPONSE | {
    "status": "completed",
    "output": [DONE],
    "usage": {"input_tokens": 25, "output_tokens": 7, "total_tokens": 32},
}


class Script(NamedTuple):
    """A stream in one format: 25 tokens in, 7 out."""

    begin: bytes
    delta: bytes
    end: bytes


SCRIPTS = {
    "chat": Script(
        chat_event({"role": "assistant", "content": ""}),
        chat_event({"content": "blue "}),
        chat_event({}, "stop")
        + event({"id": "c", "model": "m", "choices": [], "usage": {"prompt_tokens": 25, "completion_tokens": 7}})
        + b"data: [DONE]\n\n",
    ),
    "responses": Script(
        responses_event("response.created", response=RESPONSE)
        + responses_event("response.output_item.added", output_index=0, item=MESSAGE)
        + responses_event(
            "response.content_part.added",
            item_id="i",
            output_index=0,
            content_index=0,
            part={"type": "output_text", "text": "", "annotations": []},
        ),
        responses_event("response.output_text.delta", item_id="i", output_index=0, content_index=0, delta="blue "),
        responses_event("response.output_item.done", output_index=0, item=DONE)
        + responses_event("response.completed", response=COMPLETED),
    ),
    "anthropic": Script(
        event(
            {
                "type": "message_start",
                "message": {
                    "id": "a",
                    "type": "message",
                    "role": "assistant",
                    "model": "m",
                    "content": [],
                    "usage": {"input_tokens": 25, "output_tokens": 1},
                },
            },
            "message_start",
        )
        + event(
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            "content_block_start",
        ),
        event(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "blue "}},
            "content_block_delta",
        ),
        event({"type": "content_block_stop", "index": 0}, "content_block_stop")
        + event(
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
            "message_delta",
        )
        + event({"type": "message_stop"}, "message_stop"),
    ),
    "gemini": Script(
        b"",
        event({"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "blue "}]}}]}),
        event(
            {
                "candidates": [{"index": 0, "content": {"role": "model", "parts": []}, "finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 25, "candidatesTokenCount": 7, "totalTokenCount": 32},
            }
        ),
    ),
}


class Caller(NamedTuple):
    path: str
    body: dict[str, object]


TURNS = [{"role": "user", "content": ASKED}]
GEMINI_BODY: dict[str, object] = {"contents": [{"role": "user", "parts": [{"text": ASKED}]}]}
CALLERS = {
    "chat": Caller("/v1/chat/completions", {"model": "m", "messages": TURNS, "stream": True}),
    "responses": Caller("/v1/responses", {"model": "m", "input": ASKED, "stream": True}),
    "anthropic": Caller("/v1/messages", {"model": "m", "max_tokens": 99, "messages": TURNS, "stream": True}),
    "gemini": Caller("/v1beta/models/m:streamGenerateContent?alt=sse", GEMINI_BODY),
    "gemini array": Caller("/v1beta/models/m:streamGenerateContent", GEMINI_BODY),
}
UPSTREAMS = {
    "chat": "provider = openai\nflavour = compatible",
    "responses": "provider = openai\nflavour = first-party\napi = responses",
    "anthropic": "provider = anthropic",
    "gemini": "provider = gemini",
}


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest) -> Caller:
    return CALLERS[request.param]


@pytest.fixture(params=UPSTREAMS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def section(upstream: Upstream, kind: str, lines: str = "", name: str = "up") -> str:
    base_url = upstream.url + ("/v1" if kind in ("chat", "responses") else "")
    return f"[upstream {name}]\n{UPSTREAMS[kind]}\nbase-url = {base_url}\napi-key = k\n{lines}\n"


def find_script(received: Received) -> Script:
    path = received.target
    return SCRIPTS[
        "gemini"
        if "v1beta" in path
        else "anthropic"
        if "messages" in path
        else "responses"
        if "responses" in path
        else "chat"
    ]


def speak(
    deltas: int, *, is_complete: bool = False, is_cut: bool = False, gap_s: float = 0.0
) -> Callable[[Received], Reply]:
    """Return what answers in the format that is asked for."""

    def respond(received: Received) -> Reply:
        script = find_script(received)
        events = [event for event in (script.begin, *[script.delta] * deltas) if event]
        events += [script.end] if is_complete else []
        if "streamGenerateContent" in received.target and "alt=sse" not in received.target:
            array = [(b"," if number else b"[") + event.strip()[6:] for number, event in enumerate(events)]
            return Reply(chunks=[*array, b"]"] if is_complete else array, gap_s=gap_s, cut=is_cut)
        return Reply(chunks=events, gap_s=gap_s, cut=is_cut, content_type=SSE)

    return respond


async def read_and_leave(http: aiohttp.ClientSession, url: str, caller: Caller, words: int) -> None:
    """Read *words* words of an answer, and no more."""
    async with http.post(url + caller.path, json=caller.body) as response:
        assert response.status == 200
        seen = b""
        while seen.count(b"blue") < words:
            seen += await response.content.readany()
        response.close()


def knows_input(received: Received) -> bool:
    return find_script(received) is SCRIPTS["anthropic"]


async def test_a_stream_that_comes_to_its_end_costs_what_the_upstream_says(
    caller: Caller, kind: str, upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    upstream.respond(speak(3, is_complete=True))
    running = await serve(section(upstream, kind))

    async with http.post(running.url + caller.path, json=caller.body) as response:
        await response.read()
    record = await running.records.next()

    assert response.status == 200
    assert record.usage is not None
    assert (record.usage.total_input_tokens, record.usage.output_tokens) == (25, 7)
    assert not record.is_usage_estimated
    assert [(made.outcome, made.usage) for made in record.tries] == [("ok", None)]


async def test_a_stream_that_its_caller_leaves_costs_what_was_written_by_then(
    caller: Caller, kind: str, upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    upstream.respond(speak(1000, gap_s=0.01))
    running = await serve(section(upstream, kind))

    await read_and_leave(http, running.url, caller, 6)
    record = await running.records.next()

    check_estimate(record.usage, upstream.received[0])
    assert record.is_usage_estimated


async def test_a_stream_that_is_cut_costs_what_was_written_by_then(
    caller: Caller, kind: str, upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    upstream.respond(speak(6, is_cut=True, gap_s=0.01))
    running = await serve(section(upstream, kind))

    async with http.post(running.url + caller.path, json=caller.body) as response:
        try:
            await response.read()
        except aiohttp.ClientPayloadError:
            assert "Generate" in caller.path  # its SDKs see an error in band nowhere else
    record = await running.records.next()

    assert record.error == "upstream_cut"
    check_estimate(record.usage, upstream.received[0])
    assert record.is_usage_estimated


def check_estimate(usage: Usage | None, received: Received) -> None:
    """Compare with 25 tokens of input where the upstream has said so, else about 20; and 6 words of output."""
    assert usage is not None
    assert usage.total_input_tokens == 25 if knows_input(received) else 15 <= usage.total_input_tokens <= 60
    assert usage.output_tokens is not None
    assert 5 <= usage.output_tokens <= 15


@pytest.mark.parametrize("has_headers", [False, True])
async def test_an_answer_that_does_not_begin_in_time_costs_its_input(
    has_headers: bool, caller: Caller, kind: str, upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    silence = Reply(chunks=[b"", b""], gap_s=9, content_type=SSE) if has_headers else Reply(wait_s=9)
    upstream.script(silence)
    running = await serve(section(upstream, kind, "first-event-timeout = 0.15"), "--retries", "0")

    async with http.post(running.url + caller.path, json=caller.body) as response:
        assert response.status == 504
    record = await running.records.next()

    (made,) = record.tries
    assert made.outcome == "upstream_timeout"
    assert made.usage is not None
    assert 15 <= made.usage.total_input_tokens <= 60
    assert made.usage.output_tokens == 0
    assert record.usage is None
    assert not record.is_usage_estimated


async def test_what_fails_before_another_answers_is_counted_apart(
    caller: Caller, kind: str, upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    nothing = Reply(chunks=[], cut=True, content_type=SSE)
    replies = iter([lambda _: nothing, speak(3, is_complete=True)])
    upstream.respond(lambda received: next(replies)(received))
    running = await serve(section(upstream, kind))

    async with http.post(running.url + caller.path, json=caller.body) as response:
        await response.read()
    record = await running.records.next()

    assert response.status == 200
    failed, good = record.tries
    assert (failed.outcome, good.outcome, good.usage) == ("upstream_cut", "ok", None)
    assert failed.usage is not None
    assert 15 <= failed.usage.total_input_tokens <= 60
    assert record.usage is not None
    assert (record.usage.total_input_tokens, record.usage.output_tokens) == (25, 7)
    assert not record.is_usage_estimated


WHOLE = Caller("/v1/chat/completions", {"model": "m", "messages": TURNS})
STREAM = CALLERS["chat"]
IN_BAND = event({"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}})


@pytest.mark.parametrize(
    ("asked", "reply"),
    [
        (WHOLE, Reply(b"{}", 503)),
        (WHOLE, Reply(b'{"error":{"message":"no","code":429}}')),
        (STREAM, Reply(b"{}", 429)),
        (STREAM, Reply(chunks=[IN_BAND], content_type=SSE)),
        (STREAM, Reply(b'{"error":{"message":"no","code":429}}')),
    ],
    ids=["whole", "whole with status 200", "stream", "stream in band", "stream answered whole"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_what_is_refused_costs_nothing(
    path: str, asked: Caller, reply: Reply, upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    """A refusal inside a stream that had not begun was charged as if the model had read the prompt."""
    upstream.script(reply)
    running = await serve(section(upstream, "chat"), "--retries", "0")

    async with http.post(running.url + path, json=asked.body | {"max_tokens": 9}) as response:
        assert response.status in (429, 503)
    record = await running.records.next()

    assert (record.usage, record.is_usage_estimated) == (None, False)
    assert [made.usage for made in record.tries] == [None]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_whole_answer_that_is_cut_costs_its_input(
    path: str, upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"choices":', cut=True))
    running = await serve(section(upstream, "chat"), "--retries", "0")

    async with http.post(running.url + path, json=WHOLE.body | {"max_tokens": 9}) as response:
        assert response.status == 502
    record = await running.records.next()

    (made,) = record.tries
    assert made.usage is not None
    assert made.usage.total_input_tokens >= 15


@pytest.mark.parametrize("asked", [WHOLE, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_caller_that_leaves_before_the_answer_has_cost_the_input(
    path: str, asked: Caller, upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(wait_s=9))
    running = await serve(section(upstream, "chat"))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), http.post(running.url + path, json=asked.body | {"max_tokens": 9}):
            pass
    record = await running.records.next()

    assert record.usage is not None
    assert 15 <= record.usage.total_input_tokens <= 60
    assert record.is_usage_estimated
    assert [made.outcome for made in record.tries] == ["left"]


async def test_a_caller_that_leaves_the_queue_has_cost_nothing(
    upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", wait_s=0.6))
    running = await serve(section(upstream, "chat", "max-concurrency = 1"))

    async def ask(timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s), http.post(running.url + WHOLE.path, json=WHOLE.body) as response:
            await response.read()

    first = asyncio.ensure_future(ask(5))
    await asyncio.sleep(0.1)
    with pytest.raises(TimeoutError):
        await ask(0.2)
    record = await running.records.next()
    await first

    assert (record.usage, record.is_usage_estimated, record.tries, record.attempts) == (None, False, [], 0)


async def test_a_completion_of_the_old_kind_that_its_caller_leaves_is_estimated_too(
    upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    word = event({"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": "blue "}]})
    upstream.script(Reply(chunks=[word] * 1000, gap_s=0.01, content_type=SSE))
    running = await serve(section(upstream, "chat"))

    await read_and_leave(
        http, running.url, Caller("/v1/completions", {"model": "m", "prompt": ASKED, "stream": True}), 6
    )
    record = await running.records.next()

    assert record.is_usage_estimated
    check_estimate(record.usage, upstream.received[0])
    assert [made.outcome for made in record.tries] == ["left"]


async def test_a_caller_that_leaves_while_we_connect_has_cost_nothing(
    serve: Start, http: aiohttp.ClientSession
) -> None:
    with socket.socket() as deaf, contextlib.ExitStack() as stack:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):  # its queue of connections is full: the next one hangs
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        running = await serve(
            f"[upstream up]\nprovider = openai\nbase-url = http://127.0.0.1:{deaf.getsockname()[1]}/v1\n"
        )

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), http.post(running.url + WHOLE.path, json=WHOLE.body):
                pass
        record = await running.records.next()

    assert (record.usage, record.is_usage_estimated) == (None, False)
    assert [made.outcome for made in record.tries] == ["left"]


async def test_what_cannot_be_sent_to_a_target_is_no_attempt_there(
    upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", 503))
    ini = section(upstream, "chat").replace("[upstream up]", "[upstream a]") + (
        f"[upstream b]\nprovider = anthropic\nbase-url = {upstream.url}\n[model m]\ntargets = a/gpt-4o, b/m\n"
    )
    running = await serve(ini, "--retries", "0")
    block = {"type": "container_upload", "file_id": "f"}  # means nothing to other vendors
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}

    async with http.post(running.url + "/v1/messages", json=body) as response:
        await response.read()
    record = await running.records.next()

    assert response.status == 503
    assert (response.headers["x-aiproxyd-upstream"], response.headers["x-aiproxyd-attempts"]) == ("b", "1")
    assert [made.upstream for made in record.tries] == ["b"]


async def test_a_count_that_asks_nobody_needs_no_upstream_and_says_nothing_about_it(
    upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    """It used to wait for a slot, got a 503 while the upstream rested, and made it look well when it came between."""
    upstream.script(Reply(b"{}", 500))
    ini = f"[upstream up]\nprovider = openai\nbase-url = {upstream.url}/v1\n"
    running = await serve(ini, "--retries", "0")
    asked = {"model": "m", "max_tokens": 9, "messages": TURNS}
    statuses: list[tuple[int, int]] = []

    for _ in range(4):
        async with http.post(running.url + "/v1/messages", json=asked) as generated:
            pass
        async with http.post(running.url + "/v1/messages/count_tokens", json=asked) as counted:
            assert counted.headers["x-aiproxyd-estimated"] == "tokens"
        statuses.append((generated.status, counted.status))

    assert statuses == [(500, 200)] * 3 + [(503, 200)]


async def test_a_stream_that_is_cut_is_counted_once(
    upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(chunks=[chat_event({"content": "blue"})], cut=True, content_type=SSE))
    running = await serve(section(upstream, "chat"))

    async with http.post(running.url + STREAM.path, json=STREAM.body) as response:
        await response.read()
    async with http.get(running.url + "/metrics") as response:
        lines = (await response.text()).splitlines()

    assert [line for line in lines if line.startswith("aiproxyd_attempts_total")] == [
        'aiproxyd_attempts_total{outcome="failing",upstream="up"} 1.0'
    ]


async def test_streams_that_outlive_their_time_do_not_make_an_upstream_rest(
    upstream: Upstream, serve: Start, http: aiohttp.ClientSession
) -> None:
    word = chat_event({"content": "blue"})
    upstream.script(Reply(chunks=[word] * 200, gap_s=0.05, content_type=SSE))
    running = await serve(section(upstream, "chat", "request-timeout = 0.3"))

    for _ in range(4):
        async with http.post(running.url + STREAM.path, json=STREAM.body) as response:
            assert response.status == 200
            assert b"request-timeout" in await response.read()
