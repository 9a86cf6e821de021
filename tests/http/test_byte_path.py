"""Same format on both sides: what comes out is what went in."""

import aiohttp
import pytest

from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

CHAT = b'{"id":"c","object":"chat.completion","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3},"x":1.50}'
# Spelling, order, spaces and unknown fields that a decode and encode would not survive.
ODD_REQUEST = (
    b'{ "messages" : [ {"role":"user","content":"\\u00e9 \xc3\xa9"} ],\n'
    b' "temperature":1.0e0, "x-new": [1.50],"model":"m" }'
)


async def test_the_body_reaches_the_upstream_as_it_came(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(CHAT))
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.post(f"{running.url}/v1/chat/completions", data=ODD_REQUEST) as response:
        body = await response.read()

    assert response.status == 200
    assert body == CHAT
    assert upstream.received[0].body == ODD_REQUEST
    assert upstream.received[0].target == "/v1/chat/completions"
    assert upstream.received[0].headers["Authorization"] == "Bearer sk-upstream"


async def test_an_alias_changes_the_model_and_nothing_else(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(CHAT))
    running = await gateway(upstream_section(upstream, "openai") + "[model m]\ntargets = up/vendor/real-model:8b\n")

    async with http.post(f"{running.url}/v1/chat/completions", data=ODD_REQUEST) as response:
        assert response.status == 200

    assert upstream.received[0].body == ODD_REQUEST.replace(b'"m"', b'"vendor/real-model:8b"')
    assert response.headers["x-aiproxyd-model"] == "vendor/real-model:8b"
    assert response.headers["x-aiproxyd-upstream"] == "up"


@pytest.mark.parametrize("options", [b"", b'"stream_options":null,', b'"stream_options":{ "include_usage" : false },'])
async def test_a_chat_stream_is_asked_for_usage_that_the_caller_does_not_get_to_see(
    options: bytes, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    delta = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}\n\n'
    finish = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'
    upstream.script(Reply(chunks=[delta, finish + usage, b"data: [DONE]\n\n"], content_type="text/event-stream"))
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.post(
        f"{running.url}/v1/chat/completions", data=b"{" + options + b'"model":"m","stream":true,"messages":[]}'
    ) as response:
        body = await response.read()

    assert body == delta + finish + b"data: [DONE]\n\n"
    assert b'"include_usage":true' in upstream.received[0].body.replace(b" ", b"")
    assert "tokens=9+2" in running.log()
