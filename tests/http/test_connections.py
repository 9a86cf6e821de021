"""Connections to upstreams are used again, whatever is done with their answers; names of models stay names."""

import asyncio

import aiohttp
import msgspec
import pytest

from tests.conftest import StartGateway
from tests.support import Received, Reply, Upstream, upstream_section

SSE = "text/event-stream"
ANTHROPIC_STREAM = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","content":[],"usage":{"input_tokens":1,'
    b'"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":'
    b'"Hi"}}\n\nevent: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{'
    b'"output_tokens":2}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


async def test_a_converted_stream_leaves_its_connection_to_the_next(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """The end of the connection's answer comes a moment behind the end of the stream."""
    upstream.script(Reply(chunks=[ANTHROPIC_STREAM, b""], gap_s=0.03, content_type="text/event-stream"))
    running = await gateway(upstream_section(upstream, "anthropic"))
    body = {"model": "claude-sonnet-5", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}

    for _ in range(5):
        async with http.post(running.url + "/v1/chat/completions", json=body) as response:
            assert (await response.read()).endswith(b"data: [DONE]\n\n")

    assert len({received.peer for received in upstream.received}) == 1


@pytest.mark.parametrize("name", ["a/../b", "..", "a/.", "../../v1beta/cachedContents/x"])
async def test_the_name_of_a_model_leads_nowhere_else(
    name: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "gemini"))
    body = {"model": name, "messages": [{"role": "user", "content": "Hello"}]}

    async with http.post(running.url + "/v1/chat/completions", json=body) as response:
        answer = await response.json()

    assert response.status == 400
    assert answer["error"]["param"] == "model"
    assert upstream.received == []


async def test_what_is_dropped_is_named_within_bounds(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(lambda received: Reply(b'{"content":[],"stop_reason":"end_turn"}'))
    running = await gateway(upstream_section(upstream, "anthropic"))
    unknown = {f"{number:03d}" + "x" * 1_000: 1 for number in range(500)}
    body = {"model": "claude-sonnet-5", "messages": [{"role": "user", "content": "Hello"}], **unknown}

    async with http.post(running.url + "/v1/chat/completions", data=msgspec.json.encode(body)) as response:
        assert response.status == 200

    assert len(response.headers["x-aiproxyd-dropped"]) <= 1024
    assert len(running.log()) < 5_000


async def test_an_answer_that_fails_before_it_was_sent_is_an_ordinary_error(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    def respond(received: Received) -> Reply:
        failed = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'
        begun = ANTHROPIC_STREAM.partition(b"event: content_block_start")[0]
        return Reply(chunks=[begun + failed], content_type="text/event-stream")

    upstream.respond(respond)
    running = await gateway(upstream_section(upstream, "anthropic"))
    body = {"model": "claude-sonnet-5", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}

    async with http.post(running.url + "/v1/chat/completions", json=body) as response:
        answer = await response.json()

    assert response.status == 503
    assert answer["error"]["message"] == "busy"


async def test_as_many_streams_as_there_are_run_at_once(upstream: Upstream, gateway: StartGateway) -> None:
    count = 1_100
    begun = ANTHROPIC_STREAM.partition(b"event: content_block_stop")[0]
    upstream.respond(lambda _: Reply(chunks=[begun, ANTHROPIC_STREAM[len(begun) :]], gap_s=5, content_type=SSE))
    running = await gateway(upstream_section(upstream, "anthropic"))
    body = {
        "model": "claude-sonnet-5",
        "max_tokens": 9,
        "stream": True,
        "messages": [{"role": "user", "content": "Hi"}],
    }

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as many:
        answers = await asyncio.gather(*(many.post(running.url + "/v1/messages", json=body) for _ in range(count)))
        firsts = await asyncio.gather(*(answer.content.readline() for answer in answers))
        for answer in answers:
            answer.close()

    assert firsts == [b"event: message_start\n"] * count
