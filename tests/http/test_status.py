"""What is answered without a key, and what every answer carries."""

import asyncio
import hashlib

import aiohttp
import msgspec
import pytest

from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

KEY = f"[key someone]\nsecret = sha256:{hashlib.sha256(b'k').hexdigest()}\n"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/health", {"status": "alive"}),
        ("GET", "/ready", {"status": "ready"}),
        ("HEAD", "/", None),
        ("HEAD", "/health", None),
        ("HEAD", "/api/hello", None),
    ],
)
async def test_it_says_how_it_is_without_a_key(
    method: str, path: str, body: object, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(KEY, "--demo")

    async with http.request(method, running.url + path) as response:
        answer = await response.read()

    assert response.status == 200
    assert (msgspec.json.decode(answer) if answer else None) == body


async def test_the_root_says_what_it_is(gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    running = await gateway("", "--demo")

    async with http.get(running.url) as response:
        about = msgspec.json.decode(await response.read())

    assert about["name"] == "aiproxyd"
    assert about["endpoints"] == [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1beta/models/{model}:generateContent",
        "/v1beta/models/{model}:streamGenerateContent",
        "/v1beta/models",
        "/v1/embeddings",
        "/v1/models",
        "/health",
        "/ready",
    ]


# Clients of OpenAI whose base URL lacks /v1 were told no more than that there is nothing.
@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/chat/completions", "; the base URL of OpenAI's clients ends in /v1"),
        ("/models", "; the base URL of OpenAI's clients ends in /v1"),
        ("/chat", ""),
    ],
)
async def test_a_base_url_that_lacks_its_version_is_hinted_at(
    path: str, hint: str, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway("", "--demo")

    async with http.post(running.url + path, data=b"{}") as response:
        error = msgspec.json.decode(await response.read())["error"]

    assert response.status == 404
    assert error["message"] == f"there is nothing at {path}{hint}"


async def test_it_is_not_ready_while_its_only_upstream_cannot_be_reached(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai"), "--max-retry-wait", "0", attempts=())
    await upstream.stop()
    for _ in range(3):
        async with http.post(f"{running.url}/v1/chat/completions", data=b'{"model":"m"}'):
            pass

    async with http.get(f"{running.url}/ready") as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0


async def test_it_is_ready_again_when_an_upstream_answers_again(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", status=401), Reply(b"{}"))
    running = await gateway(upstream_section(upstream, "openai"), "--max-cooldown", "0.2", attempts=())

    statuses: list[int] = []
    for _ in range(2):
        async with http.post(f"{running.url}/v1/chat/completions", data=b'{"model":"m"}'):
            pass
        async with http.get(f"{running.url}/ready") as response:
            statuses.append(response.status)
        await asyncio.sleep(0.25)

    assert statuses == [503, 200]


async def test_a_sane_request_id_is_kept_and_another_one_made(
    gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway("", "--demo")
    ids: list[str] = []

    for presented in ("abc-123", "a b", "x" * 200, ""):
        async with http.get(f"{running.url}/health", headers={"x-request-id": presented}) as response:
            ids.append(response.headers["x-request-id"])

    assert ids[0] == "abc-123"
    assert all(len(made) == 24 and made.isalnum() for made in ids[1:])
    assert len(set(ids)) == 4
    assert all(f"id={made} " in running.log() for made in ids)


async def test_anthropics_sdks_find_a_request_id_where_they_look_for_it(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}"), Reply(b"{}", headers={"request-id": "req_upstream"}))
    running = await gateway(upstream_section(upstream, "anthropic"))

    found: list[str] = []
    for _ in range(2):
        async with http.post(
            f"{running.url}/v1/messages", data=b'{"model":"m"}', headers={"x-request-id": "ours"}
        ) as got:
            found.append(got.headers["request-id"])

    assert found == ["ours", "req_upstream"]


async def test_nothing_about_the_upstreams_connection_or_account_passes(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    headers = {
        "Set-Cookie": "a=b",
        "openai-organization": "org-secret",
        "Keep-Alive": "timeout=5",
        "x-ratelimit-remaining-tokens": "99",
        "openai-processing-ms": "12",
        "Server": "cloudflare",
    }
    upstream.script(Reply(b"{}", headers=headers))
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.post(f"{running.url}/v1/chat/completions", data=b'{"model":"m"}') as response:
        await response.read()

    assert {"Set-Cookie", "openai-organization", "Keep-Alive"}.isdisjoint(response.headers)
    assert response.headers["x-ratelimit-remaining-tokens"] == "99"
    assert response.headers["openai-processing-ms"] == "12"
    assert response.headers["Server"].startswith("aiproxyd")
