"""Who may call: keys in every place where an SDK puts one, and web pages where there is no key."""

import asyncio
import hashlib
import io
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from aiproxyd.app import create_app
from aiproxyd.config import load_settings
from aiproxyd.telemetry.logs import AccessLog
from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

DEMO = "[aiproxyd]\ndemo = yes\n"
KEYS = (
    f"{DEMO}[key tablet]\nsecret = sha256:{hashlib.sha256(b'sk-tablet').hexdigest()}\n"
    f"[key é]\nsecret = sha256:{hashlib.sha256('sk-ü'.encode()).hexdigest()}\n"
)

NO_KEY = "a key is required: send it as `Authorization: Bearer KEY`, `x-api-key: KEY` or `x-goog-api-key: KEY`"


async def get(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, Any]:
    async with http.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()}) as response:
        return response.status, msgspec.json.decode(await response.read())


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Authorization": "Bearer sk-tablet"}, ""),
        ({"authorization": "bearer  sk-tablet "}, ""),
        ({"x-api-key": "sk-tablet"}, ""),
        ({"x-goog-api-key": "sk-tablet"}, ""),
        ({"api-key": "sk-tablet"}, ""),
        ({}, "?key=sk-tablet"),
        ({}, "?alt=sse&k%65y=sk%2Dtablet"),
        ({"Authorization": "Bearer placeholder", "x-api-key": "sk-tablet"}, ""),
        ({"Authorization": "Bearer sk-tablet", "x-api-key": "placeholder"}, ""),
    ],
)
async def test_a_key_is_found_wherever_an_sdk_puts_it(
    headers: dict[str, str], query: str, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(KEYS)

    async with http.get(f"{running.url}/v1/models{query}", headers=headers) as response:
        assert response.status == 200

    assert " principal=tablet " in running.log()


async def test_keys_and_their_names_may_hold_any_letters(gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    running = await gateway(KEYS)

    status, _ = await get(http, f"{running.url}/v1/models", x_api_key="sk-ü")

    assert status == 200
    assert ' principal="é" ' in running.log()


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, NO_KEY),
        ({"Authorization": "Bearer"}, NO_KEY),
        (
            {"Authorization": "Basic sk-tablet"},
            NO_KEY,
        ),
        ({"Authorization": "Bearer sk-tabletx"}, "this is not a key of the gateway"),
        ({"x-api-key": "sk-table"}, "this is not a key of the gateway"),
        ({"x-api-key": ""}, "this is not a key of the gateway"),
        ({"x-api-key": hashlib.sha256(b"sk-tablet").hexdigest()}, "this is not a key of the gateway"),
        ({"x-api-key": "sk-\udcff"}, "this is not a key of the gateway"),
    ],
)
async def test_without_a_key_of_ours_nobody_gets_in(
    headers: dict[str, str], message: str, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(KEYS)

    async with http.get(f"{running.url}/v1/models", headers=headers) as response:
        answer = msgspec.json.decode(await response.read())

    assert response.status == 401
    assert answer["error"]["message"] == message
    assert answer["error"]["code"] == "invalid_api_key"
    assert " principal=- " in running.log()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "/v1/messages",
            {"type": "error", "error": {"type": "authentication_error", "message": "this is not a key of the gateway"}},
        ),
        (
            "/v1beta/models/m:generateContent",
            {"error": {"code": 401, "message": "this is not a key of the gateway", "status": "UNAUTHENTICATED"}},
        ),
        (
            "/v1/responses",
            {
                "error": {
                    "message": "this is not a key of the gateway",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "invalid_api_key",
                }
            },
        ),
    ],
)
async def test_a_wrong_key_is_refused_in_the_callers_shape(
    path: str, expected: dict[str, Any], gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(KEYS)

    async with http.post(running.url + path, data=b"{}", headers={"Authorization": "Bearer wrong"}) as response:
        answer = msgspec.json.decode(await response.read())

    answer.pop("request_id", None)
    assert (response.status, answer) == (401, expected)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("HEAD", "/health"),
        ("GET", "/ready"),
        ("HEAD", "/ready"),
        ("GET", "/"),
        ("HEAD", "/"),
        ("HEAD", "/api/hello"),
    ],
)
async def test_some_paths_are_open(method: str, path: str, gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    running = await gateway(KEYS)

    async with http.request(method, running.url + path) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/health"),
        ("GET", "/health/"),
        ("GET", "/health/x"),
        ("GET", "//health"),
        ("GET", "/api/hello"),
        ("GET", "/unknown"),
        ("GET", "/v1/files"),
        ("OPTIONS", "/v1/models"),
        ("POST", "/v1/chat/completions"),
    ],
)
async def test_all_other_paths_are_closed(
    method: str, path: str, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(KEYS)

    async with http.request(method, running.url + path) as response:
        assert response.status == 401


async def test_a_preflight_shows_no_key(gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    running = await gateway(KEYS, "--cors-origins", "http://page.test")
    headers = {
        "Origin": "http://page.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }

    async with http.options(f"{running.url}/v1/chat/completions", headers=headers) as response:
        assert response.status == 200

    assert response.headers["Access-Control-Allow-Origin"] == "http://page.test"


async def test_a_preflight_leads_no_further_than_to_an_answer_about_cors(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai") + KEYS)

    for path in ("/v1/chat/completions", "/v1/files", "/v1/models", "/health"):
        async with http.options(running.url + path, headers={"Access-Control-Request-Method": "POST"}) as response:
            assert response.status == 405

    assert upstream.received == []


async def test_where_there_are_keys_anonymous_callers_can_be_let_in_all_the_same(
    gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(KEYS, "--allow-anonymous")

    anonymous, _ = await get(http, f"{running.url}/v1/models")
    known, _ = await get(http, f"{running.url}/v1/models", x_api_key="sk-tablet")
    wrong, _ = await get(http, f"{running.url}/v1/models", x_api_key="sk-wrong")

    assert (anonymous, known, wrong) == (200, 200, 401)
    assert [line.split("principal=")[1].split()[0] for line in running.log().splitlines()] == ["-", "tablet", "-"]


async def test_where_there_is_no_key_whatever_is_presented_is_ignored(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}"))
    running = await gateway(upstream_section(upstream, "openai"))

    status, _ = await get(http, f"{running.url}/v1/files?key=x", authorization="Bearer sk-any", x_api_key="sk-any")

    assert status == 200
    assert "sk-any" not in str(upstream.received[0])


# Web pages.


@pytest.mark.parametrize("origin", ["http://evil.test", "http://page.test.evil", "https://page.test", "null"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/files", "/health/", "/api/hello"])
async def test_where_there_is_no_key_a_web_page_of_an_unknown_origin_is_refused(
    origin: str, path: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai"), "--cors-origins", "http://page.test, http://b.test")

    status, answer = await get(http, running.url + path, origin=origin)

    assert status == 403
    assert answer["error"]["message"] == (
        f"web pages of '{origin}' may not call: name it in --cors-origins, or configure a key"
    )
    assert upstream.received == []


async def test_an_origin_that_is_no_unicode_is_refused_all_the_same(
    gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(DEMO)

    status, answer = await get(http, f"{running.url}/v1/models", origin="http://\udcff")

    assert (status, answer["error"]["code"]) == (403, "permission_denied")


@pytest.mark.parametrize(
    ("origins", "origin"),
    [("http://a.test, http://page.test", "http://page.test"), ("*", "http://any.test"), ("*", "null")],
)
async def test_where_there_is_no_key_a_web_page_of_a_listed_origin_may_call(
    origins: str, origin: str, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(DEMO, "--cors-origins", origins)

    status, _ = await get(http, f"{running.url}/v1/models", origin=origin)

    assert status == 200


async def test_a_web_page_with_a_key_may_call_from_anywhere(gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    running = await gateway(KEYS)

    status, _ = await get(http, f"{running.url}/v1/models", origin="http://evil.test", x_api_key="sk-tablet")

    assert status == 200


async def test_a_preflight_of_an_unknown_origin_is_refused_where_there_is_no_key(
    gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(DEMO)
    headers = {"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"}

    async with http.options(f"{running.url}/v1/chat/completions", headers=headers) as response:
        assert response.status == 405

    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("path", ["/health", "/ready", "/"])
async def test_what_says_nothing_but_that_we_are_there_is_open_to_web_pages_too(
    path: str, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(DEMO)

    status, _ = await get(http, running.url + path, origin="http://evil.test")

    assert status == 200


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
async def test_where_there_is_no_key_a_web_page_that_hides_its_origin_is_refused(
    site: str, status: int, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # A browser sends no Origin with the GET of an image, a script or a link.
    running = await gateway(DEMO)

    refused, answer = await get(http, f"{running.url}/v1/models", sec_fetch_site=site)

    assert refused == status
    if status == 403:
        assert answer["error"]["message"] == (
            "web pages of another site may not call: name it in --cors-origins, or configure a key"
        )


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example:3000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.1.7.nip.io", 403),
        ("Evil.Example", 403),
        ("127.0.0.1", 200),
        ("127.0.0.1:3000", 200),
        ("192.168.1.7:3000", 200),
        ("[::1]", 200),
        ("[::1]:3000", 200),
        ("[fe80::1]:80", 200),
        ("localhost", 200),
        ("LOCALHOST:3000", 200),
        ("app.localhost:3000", 200),
        ("box", 200),
        ("box:3000", 200),
        ("box.local", 200),
        ("box.lan:3000", 200),
        ("box.home.arpa", 200),
        ("box.internal", 200),
        ("box.intranet", 200),
        ("box.test", 200),
    ],
)
async def test_where_there_is_no_key_a_host_name_that_a_stranger_may_own_is_refused(
    host: str, status: int, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # DNS rebinding: the page's own domain leads to us, so that the browser finds nothing odd.
    running = await gateway(DEMO)

    refused, answer = await get(http, f"{running.url}/v1/models", host=host)

    assert refused == status
    if status == 403:
        assert answer["error"]["message"] == (
            f"the gateway is not known as {host.lower()!r}: call it by its address, or configure a key"
        )


async def test_the_configured_host_is_a_name_of_ours(http: aiohttp.ClientSession) -> None:
    # Listens on an address all the same: no name with dots leads here on every machine.
    flags = ["--demo", "--allow-anonymous", "--host", "AI.example.org"]
    settings = await asyncio.to_thread(load_settings, flags, {})
    runner = web.AppRunner(await create_app(settings, AccessLog("text", io.StringIO())))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/models"

    own, _ = await get(http, url, host="ai.Example.org:3000")
    foreign, _ = await get(http, url, host="www.ai.example.org:3000")
    await runner.cleanup()

    assert (own, foreign) == (200, 403)


async def test_a_caller_without_a_host_header_is_no_browser(gateway: StartGateway) -> None:
    running = await gateway(DEMO)

    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
    writer.write(b"GET /v1/models HTTP/1.0\r\n\r\n")
    answer = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    await writer.wait_closed()

    assert answer.split()[1] == b"200"


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.test"}, {"sec_fetch_site": "cross-site"}, {"host": "evil.example"}]
)
async def test_letting_anonymous_callers_in_beside_keys_does_not_let_web_pages_in(
    headers: dict[str, str], gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # The check used to be made only where there were no keys at all.
    running = await gateway(KEYS, "--allow-anonymous")

    anonymous, _ = await get(http, f"{running.url}/v1/models", **headers)
    known, _ = await get(http, f"{running.url}/v1/models", x_api_key="sk-tablet", **headers)

    assert (anonymous, known) == (403, 200)


async def test_a_wrong_key_is_not_to_be_tried_again(gateway: StartGateway, http: aiohttp.ClientSession) -> None:
    # Claude Code tries what its SDK takes for transient ten times.
    running = await gateway(KEYS)

    async with http.get(f"{running.url}/v1/models") as refused:
        assert refused.status == 401
    async with http.get(f"{running.url}/v1/models", headers={"x-api-key": "sk-tablet"}) as let_in:
        assert let_in.status == 200

    assert refused.headers["x-should-retry"] == "false"
    assert "x-should-retry" not in let_in.headers
