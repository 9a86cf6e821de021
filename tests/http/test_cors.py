"""Web pages of named origins may read what they asked for; others may not."""

import hashlib

import aiohttp
import msgspec
import pytest

from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

PAGE = "http://page.test"
KEY = f"[key tablet]\nsecret = sha256:{hashlib.sha256(b'sk-tablet').hexdigest()}\n"
FROM_PAGE = {"Origin": PAGE, "Authorization": "Bearer sk-tablet"}
CHAT = b'{"model":"m","messages":[]}'
STREAM = b'{"model":"m","messages":[],"stream":true}'
EVENTS = [
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\ndata: [DONE]\n\n',
]


def cors_headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {
        name.lower(): value for name, value in response.headers.items() if name.lower().startswith("access-control-")
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "reply", "status"),
    [
        ("POST", "/v1/chat/completions", CHAT, Reply(b'{"choices":[]}'), 200),
        ("POST", "/v1/chat/completions", STREAM, Reply(chunks=EVENTS, content_type="text/event-stream"), 200),
        ("POST", "/v1/chat/completions", b"{", Reply(), 400),
        ("POST", "/v1/chat/completions", CHAT, Reply(b'{"error":{"message":"slow down"}}', 429), 429),
        ("GET", "/v1/models", None, Reply(b'{"data":[]}'), 200),
        ("GET", "/v1/models/nope", None, Reply(b'{"data":[]}'), 404),
        ("GET", "/v1/files/f/content", None, Reply(chunks=[b"a", b"b"], content_type="audio/mpeg"), 200),
        ("DELETE", "/v1/files/f", None, Reply(b"{}"), 200),
        ("GET", "/v1/chat/completions", None, Reply(), 405),
        ("GET", "/health", None, Reply(), 200),
    ],
)
async def test_a_page_of_a_named_origin_may_read_every_answer(
    method: str,
    path: str,
    body: bytes | None,
    reply: Reply,
    status: int,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    upstream.script(reply)
    running = await gateway(upstream_section(upstream, "openai") + KEY, "--cors-origins", f"http://a.test,{PAGE}")

    async with http.request(method, running.url + path, data=body, headers=FROM_PAGE) as response:
        await response.read()

    assert response.status == status
    headers = cors_headers(response)
    assert headers["access-control-allow-origin"] == PAGE
    assert "access-control-expose-headers" in headers
    assert "access-control-allow-credentials" not in headers


async def test_a_page_may_read_that_its_key_is_wrong(gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    running = await gateway(f"[aiproxyd]\ndemo = yes\n{KEY}", "--cors-origins", PAGE)

    async with http.get(f"{running.url}/v1/models", headers={"Origin": PAGE, "x-api-key": "wrong"}) as response:
        assert response.status == 401

    assert cors_headers(response)["access-control-allow-origin"] == PAGE


async def test_a_page_of_another_origin_may_not_read(gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    running = await gateway(f"[aiproxyd]\ndemo = yes\n{KEY}", "--cors-origins", PAGE)

    async with http.get(f"{running.url}/v1/models", headers=FROM_PAGE | {"Origin": "http://evil.test"}) as response:
        assert response.status == 200

    assert cors_headers(response) == {}


@pytest.mark.parametrize("origins", [PAGE, "*"])
@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/v1/chat/completions", "POST"),
        ("/v1/responses", "POST"),
        ("/v1/messages", "POST"),
        ("/v1beta/models/m:streamGenerateContent", "POST"),
        ("/v1/models", "GET"),
        ("/v1/files/f", "DELETE"),
    ],
)
async def test_a_preflight_is_answered_before_a_key_is_asked_for(
    path: str,
    method: str,
    origins: str,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    running = await gateway(upstream_section(upstream, "openai") + KEY, "--cors-origins", origins)
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }

    async with http.options(running.url + path, headers=headers) as response:
        assert response.status == 200

    allowed = cors_headers(response)
    assert allowed["access-control-allow-origin"] == PAGE
    assert allowed["access-control-allow-methods"] == method
    assert set(allowed["access-control-allow-headers"].lower().split(",")) == {
        "authorization",
        "content-type",
        "x-stainless-lang",
    }
    assert allowed["access-control-max-age"] == "3600"
    assert upstream.received == []


async def test_a_preflight_of_another_origin_is_refused(gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    running = await gateway(f"[aiproxyd]\ndemo = yes\n{KEY}", "--cors-origins", PAGE)
    headers = {"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"}

    async with http.options(f"{running.url}/v1/chat/completions", headers=headers) as response:
        answer = msgspec.json.decode(await response.read())

    # It was a 400, as is everything of aiohttp's own that we have no name for.
    assert response.status == 403
    assert answer["error"]["code"] == "permission_denied"
    assert "http://evil.test" in answer["error"]["message"]
    assert cors_headers(response) == {}


async def test_cors_is_off_until_origins_are_named(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"choices":[]}'))
    running = await gateway(upstream_section(upstream, "openai") + KEY)

    async with http.post(f"{running.url}/v1/chat/completions", data=CHAT, headers=FROM_PAGE) as answer:
        assert answer.status == 200
    async with http.options(
        f"{running.url}/v1/chat/completions", headers=FROM_PAGE | {"Access-Control-Request-Method": "POST"}
    ) as preflight:
        assert preflight.status == 405

    assert cors_headers(answer) == cors_headers(preflight) == {}
