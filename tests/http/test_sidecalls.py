"""Counting tokens and embeddings, for callers of one format and upstreams of another."""

from typing import Any

import aiohttp
import msgspec
import pytest

from aiproxyd.hub import Seal
from aiproxyd.seals import wrap_base64
from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

ASKED: dict[str, dict[str, Any]] = {
    "/v1/messages/count_tokens": {"model": "m", "messages": [{"role": "user", "content": "How many are we?"}]},
    "/v1/responses/input_tokens": {"model": "m", "input": "How many are we?"},
    "/v1beta/models/m:countTokens": {"contents": [{"parts": [{"text": "How many are we?"}]}]},
}
COUNTERS = {
    "anthropic": ("/v1/messages/count_tokens", b'{"input_tokens":7}'),
    "openai": ("/v1/responses/input_tokens", b'{"object":"response.input_tokens","input_tokens":7}'),
    "gemini": ("/v1beta/models/m:countTokens", b'{"totalTokens":7}'),
}
SHAPES = {
    "/v1/messages/count_tokens": lambda tokens: {"input_tokens": tokens},
    "/v1/responses/input_tokens": lambda tokens: {"object": "response.input_tokens", "input_tokens": tokens},
    "/v1beta/models/m:countTokens": lambda tokens: {"totalTokens": tokens},
}


async def post(
    http: aiohttp.ClientSession, url: str, body: object
) -> tuple[aiohttp.ClientResponse, dict[str, Any] | Any]:
    async with http.post(url, data=msgspec.json.encode(body), headers={"Content-Type": "application/json"}) as response:
        return response, msgspec.json.decode(await response.read())


@pytest.mark.parametrize("provider", COUNTERS)
@pytest.mark.parametrize("path", ASKED)
async def test_the_upstream_counts_in_its_own_words(
    path: str, provider: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    target, counted = COUNTERS[provider]
    upstream.script(Reply(counted))
    running = await gateway(upstream_section(upstream, provider))

    response, answer = await post(http, running.url + path, ASKED[path])

    assert response.status == 200
    assert answer == SHAPES[path](7)
    assert "x-aiproxyd-estimated" not in response.headers
    assert [received.target for received in upstream.received] == [target]
    assert b"How many are we?" in upstream.received[0].body
    assert b"max" not in upstream.received[0].body


FOREIGN = wrap_base64(Seal("anthropic@other/claude", "signature", "c2ln", "", "call"))
LED_WITH_OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "anthropic": (
        "/v1/messages/count_tokens",
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": "How many are we?"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "c_gw1", "name": "f", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c_gw1", "content": "x"}]},
            ],
        },
    ),
    "openai": (
        "/v1/responses/input_tokens",
        {
            "model": "m",
            "input": [
                {"role": "user", "content": "How many are we?"},
                {"type": "function_call", "call_id": "c_gw1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c_gw1", "output": "x"},
            ],
        },
    ),
    "gemini": (
        "/v1beta/models/m:countTokens",
        {
            "generateContentRequest": {
                "model": "models/m",
                "contents": [
                    {"role": "user", "parts": [{"text": "How many are we?"}]},
                    {
                        "role": "model",
                        "parts": [
                            {
                                "functionCall": {"name": "f", "id": "c_gw1"},
                                "thoughtSignature": FOREIGN,
                            }
                        ],
                    },
                    {"role": "user", "parts": [{"functionResponse": {"name": "f", "id": "c_gw1", "response": {}}}]},
                ],
            }
        },
    ),
}


@pytest.mark.parametrize("provider", LED_WITH_OTHERS)
async def test_what_other_models_have_left_in_a_conversation_is_not_counted(
    provider: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """It used to go out as it was, and the vendors refuse signatures and ids that are not theirs."""
    path, asked = LED_WITH_OTHERS[provider]
    target, counted = COUNTERS[provider]
    upstream.script(Reply(counted))
    running = await gateway(upstream_section(upstream, provider))

    response, answer = await post(http, running.url + path, asked)

    assert response.status == 200
    assert answer == SHAPES[path](7)
    assert [received.target for received in upstream.received] == [target]
    body = upstream.received[0].body
    assert b"How many are we?" in body
    assert b"_gw1" not in body
    assert b"Z3cxL" not in body


async def test_a_conversation_that_only_its_own_vendor_understands_is_counted_as_it_is(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"input_tokens":7}'))
    running = await gateway(upstream_section(upstream, "anthropic"))
    asked = {"model": "m", "messages": [{"role": "_gw1", "content": 1}]}

    answer = (await post(http, running.url + "/v1/messages/count_tokens", asked))[1]

    assert answer == {"input_tokens": 7}
    assert upstream.received[0].body == msgspec.json.encode(asked)


@pytest.mark.parametrize("path", ASKED)
async def test_where_nobody_counts_it_is_estimated_and_marked(
    path: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai", lines="flavour = compatible"))

    response, answer = await post(http, running.url + path, ASKED[path])

    assert answer == SHAPES[path](8)
    assert response.headers["x-aiproxyd-estimated"] == "tokens"
    assert upstream.received == []


@pytest.mark.parametrize("provider", ["anthropic", "gemini"])
async def test_an_imitation_without_a_counter_is_estimated_for(
    provider: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"detail":"Not Found"}', status=404))
    running = await gateway(upstream_section(upstream, provider))

    response, answer = await post(http, running.url + "/v1/messages/count_tokens", ASKED["/v1/messages/count_tokens"])

    assert answer == {"input_tokens": 8}
    assert response.headers["x-aiproxyd-estimated"] == "tokens"


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
async def test_nobody_estimates_what_is_kept_elsewhere(
    provider: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """The tokens of a thread's last message were told as those of all of it."""
    upstream.script(Reply(b'{"detail":"Not Found"}', status=404))
    lines = "flavour = compatible" if provider == "openai" else ""
    running = await gateway(upstream_section(upstream, provider, lines=lines))
    asked = ASKED["/v1/messages/count_tokens"] | {"thread": {"type": "continue", "previous_message_id": "msg_1"}}

    response, answer = await post(http, running.url + "/v1/messages/count_tokens", asked)

    assert response.status == 400
    assert answer["error"]["details"]["error_code"] == "thread_unsupported_request"


async def test_an_error_of_the_counter_is_told_in_the_callers_words(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"error":{"code":429,"message":"slowly","status":"RESOURCE_EXHAUSTED"}}', status=429))
    running = await gateway(upstream_section(upstream, "gemini"))

    response, answer = await post(http, running.url + "/v1/messages/count_tokens", ASKED["/v1/messages/count_tokens"])

    assert response.status == 429
    assert answer["error"] == {"type": "rate_limit_error", "message": "slowly"}


async def test_a_count_that_is_none_is_a_502(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"tokens":"seven"}'))
    running = await gateway(upstream_section(upstream, "gemini"))

    response, _ = await post(http, running.url + "/v1/messages/count_tokens", ASKED["/v1/messages/count_tokens"])

    assert response.status == 502


async def test_an_openai_client_gets_embeddings_of_gemini(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"embeddings":[{"values":[1.0,2.0]},{"values":[3.0,4.0]}]}'))
    running = await gateway(upstream_section(upstream, "gemini"))

    response, answer = await post(
        http, running.url + "/v1/embeddings", {"model": "m", "input": ["a", "b"], "encoding_format": "base64"}
    )

    assert response.status == 200
    assert [entry["embedding"] for entry in answer["data"]] == ["AACAPwAAAEA=", "AABAQAAAgEA="]
    assert upstream.received[0].target == "/v1beta/models/m:batchEmbedContents"


async def test_where_nobody_says_what_embeddings_cost_it_is_estimated_and_marked(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"embeddings":[{"values":[1.0]},{"values":[2.0]}]}'))
    running = await gateway(upstream_section(upstream, "gemini"))

    response, answer = await post(http, running.url + "/v1/embeddings", {"model": "m", "input": ["abcdefgh", "\u4f60"]})

    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert response.headers["x-aiproxyd-estimated"] == "usage"
    assert running.log().endswith(" tokens=-\n")


async def test_what_embeddings_cost_is_told_where_the_upstream_says_it(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"embeddings":[{"values":[1.0]}],"usageMetadata":{"promptTokenCount":7}}'))
    running = await gateway(upstream_section(upstream, "gemini"))

    response, answer = await post(http, running.url + "/v1/embeddings", {"model": "m", "input": "a"})

    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert "x-aiproxyd-estimated" not in response.headers
    assert "tokens=7+0" in running.log()


async def test_a_gemini_client_gets_embeddings_of_openai(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(
        Reply(b'{"data":[{"index":0,"embedding":[1.0,2.0]}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}')
    )
    running = await gateway(upstream_section(upstream, "openai"))
    asked = {"content": {"parts": [{"text": "a"}]}, "taskType": "RETRIEVAL_QUERY"}

    response, answer = await post(http, running.url + "/v1beta/models/m:embedContent", asked)

    assert answer == {"embedding": {"values": [1.0, 2.0]}}
    assert response.headers["x-aiproxyd-dropped"] == "taskType"
    assert upstream.received[0].target == "/v1/embeddings"
    assert "tokens=3+0" in running.log()


async def test_anthropic_has_no_embeddings(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "anthropic"))

    response, answer = await post(http, running.url + "/v1/embeddings", {"model": "m", "input": "a"})

    assert response.status == 400
    assert "makes no embeddings" in answer["error"]["message"]
