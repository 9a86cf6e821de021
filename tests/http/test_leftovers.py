"""What an answered failure leaves behind: nothing that a garbage collection would have to find."""

import asyncio
import gc
import hashlib
from collections.abc import Iterator

import aiohttp
import pytest

from aiproxyd.errors import ProxyError
from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

PATHS = {
    "openai": ("/v1/chat/completions", "/v1/images/generations"),
    "anthropic": ("/v1/messages", "/v1/messages/batches"),
    "gemini": ("/v1beta/models/m:generateContent", "/v1beta/cachedContents"),
}
JSON = {"Content-Type": "application/json"}
STREAM = b'{"model":"m","stream":true}'
BEGINNING = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
KEY = f"[key kid]\nsecret = sha256:{hashlib.sha256(b'sk-kid').hexdigest()}\nmodels = m\n"


@pytest.fixture
def no_collection() -> Iterator[None]:
    # The daemon collects seldom, so that what is in a cycle keeps a request's body for minutes.
    gc.disable()
    gc.freeze()  # what is there already is not looked at
    yield
    gc.unfreeze()
    gc.enable()


async def survivors() -> list[str]:
    """Return the errors that still exist, once the tasks that served them have ended."""
    found: list[str] = []
    for _ in range(20):
        found = [repr(error) for error in gc.get_objects() if isinstance(error, ProxyError)]
        if not found:
            break
        await asyncio.sleep(0.01)
    return found


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("kind", [0, 1], ids=["own", "relayed"])
@pytest.mark.parametrize("provider", PATHS)
@pytest.mark.parametrize("failure", ["refused", "401", "400", "503", "in band", "cut", "garbage", "silent"])
async def test_no_error_of_an_upstream_outlives_its_answer(
    failure: str, provider: str, kind: int, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    replies = {
        "in band": Reply(b'{"type":"error","error":{"message":"x"}}'),
        "cut": Reply(b'{"half":', cut=True),
        "garbage": Reply(b"<html>", status=302),
        "silent": Reply(wait_s=5),
    }
    upstream.script(
        replies.get(failure) or Reply(b'{"error":{"message":"x"}}', int(failure) if failure.isdigit() else 200)
    )
    running = await gateway(upstream_section(upstream, provider, lines="first-event-timeout = 0.05"))
    if failure == "refused":
        await upstream.stop()

    for _ in range(3):
        async with http.post(running.url + PATHS[provider][kind], data=b'{"model":"m"}', headers=JSON) as response:
            # What is only relayed is not looked into.
            assert response.status >= 400 or (failure == "in band" and kind == 1)
            await response.read()

    assert await survivors() == []


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("failure", ["refused", "503", "401"])
async def test_no_error_of_a_target_outlives_the_answer_of_another(
    failure: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(
        lambda received: Reply(b"{}", 200 if b"two" in received.body else int(failure) if failure.isdigit() else 200)
    )
    first = upstream_section(upstream, "openai", "a")
    if failure == "refused":
        first = "[upstream a]\nprovider = openai\nbase-url = http://127.0.0.1:9/v1\n"
    ini = first + upstream_section(upstream, "openai", "b")
    running = await gateway(f"{ini}[model m]\ntargets = a/one, b/two\n[model n]\ntargets = a/one, a/one\n")
    statuses: list[int] = []

    for name in (b"m", b"n") * 2:
        async with http.post(f"{running.url}/v1/chat/completions", data=b'{"model":"%b"}' % name) as response:
            await response.read()
            statuses.append(response.status)

    assert statuses[::2] == [200, 200]
    assert all(status >= 500 for status in statuses[1::2])
    assert await survivors() == []


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", {}, 400),
        ("POST", "/v1/chat/completions", b'{"model":7}', {}, 400),
        ("POST", "/v1/messages", b"\xff", {}, 400),
        ("POST", "/v1/images/generations", b"{", JSON, 400),
        ("POST", "/v1/images/generations", b'{"model":"m","model":"m"}', JSON, 400),
        ("POST", "/v1/files", b"x", {"Content-Type": "multipart/form-data"}, 400),
        ("POST", "/v1/chat/completions", b'{"model":"m"}', {"Content-Encoding": "gzip", "Connection": "close"}, 400),
        ("POST", "/v1/chat/completions", b'{"model":"nope"}', {}, 404),
        ("POST", "/v1/images/generations", b'{"model":"nope"}', JSON, 404),
        ("GET", "/v1/models/nope", b"", {}, 404),
        ("GET", "/nothing", b"", {}, 404),
        ("GET", "/v1/files//x", b"", {}, 404),
        ("GET", "/v1/chat/completions", b"", {}, 405),
        ("POST", "/v1/chat/completions", b" " * 2000, {}, 413),
        ("GET", "/v1/responses", b"", {"Connection": "upgrade", "Upgrade": "websocket"}, 426),
        ("GET", "/v1/models", b"", {"Origin": "http://evil.test"}, 403),
        ("GET", "/v1/models", b"", {"Host": "evil.example"}, 403),
    ],
)
async def test_no_error_of_a_caller_outlives_its_answer(
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    ini = upstream_section(upstream, "openai", "a", "models = a") + upstream_section(
        upstream, "openai", "b", "models = m"
    )
    running = await gateway(ini, "--max-body-bytes", "1000")

    for _ in range(3):
        async with http.request(method, running.url + path, data=body or None, headers=headers) as response:
            assert response.status == status
            await response.read()

    assert await survivors() == []


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("headers", "path", "body", "status"),
    [
        ({}, "/v1/chat/completions", b'{"model":"m"}', 401),
        ({"x-api-key": "sk-no"}, "/v1/chat/completions", b'{"model":"m"}', 401),
        ({"x-api-key": "sk-kid"}, "/v1/chat/completions", b'{"model":"n"}', 403),
        ({"x-api-key": "sk-kid"}, "/v1/files", b"", 403),
    ],
)
async def test_no_error_about_a_key_outlives_its_answer(
    headers: dict[str, str],
    path: str,
    body: bytes,
    status: int,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    running = await gateway(upstream_section(upstream, "openai") + KEY)

    for _ in range(3):
        async with http.post(running.url + path, data=body, headers=headers) as response:
            assert response.status == status
            await response.read()

    assert await survivors() == []


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    "reply",
    [
        Reply(chunks=[BEGINNING], content_type="text/event-stream", gap_s=0.02),
        Reply(chunks=[BEGINNING], content_type="text/event-stream", gap_s=0.02, cut=True),
        Reply(chunks=[BEGINNING], content_type="text/event-stream", gap_s=5),
        Reply(chunks=[b": x\n\n"], content_type="text/event-stream"),
        Reply(chunks=[b'data: {"error":{"message":"x"}}\n\n'], content_type="text/event-stream"),
    ],
    ids=["ends early", "cut", "silent", "empty", "error"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_no_error_of_a_stream_outlives_it(
    path: str, reply: Reply, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(reply)
    running = await gateway(upstream_section(upstream, "openai", lines="idle-timeout = 0.05"))

    for _ in range(3):
        async with http.post(running.url + path, data=STREAM, headers=JSON) as response:
            assert b"error" in await response.read()

    assert await survivors() == []


@pytest.mark.usefixtures("no_collection")
async def test_no_error_of_a_download_outlives_it(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"x" * 1000, content_type="audio/wav", cut=True))
    running = await gateway(upstream_section(upstream, "openai"))

    for _ in range(3):
        async with http.get(f"{running.url}/v1/files/f/content") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()

    assert await survivors() == []
