"""The upstreams' other paths: what goes through, untouched and at once, and what does not."""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import unquote

import aiohttp
import msgspec
import pytest
from aiohttp import web
from yarl import URL

from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

BOUNDARY = "x-BOUNDARY-7"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
BINARY = bytes(range(256)) * 4096
KEY = f"[key kid]\nsecret = sha256:{hashlib.sha256(b'sk-kid').hexdigest()}\nmodels = allowed, m\n"
KID = {"Authorization": "Bearer sk-kid"}
JSON = {"Content-Type": "application/json"}
CURL = {"Content-Type": "application/x-www-form-urlencoded"}
XBOUNDARY = {"Content-Type": f"multipart/form-data; xboundary=A; boundary={BOUNDARY}"}
QUOTED_BOUNDARY = {"Content-Type": f'multipart/form-data; x="; boundary=A"; boundary="{BOUNDARY}"'}
ALIAS = "[model alias]\ntargets = up/real-model-name\n"
OK = Reply(b'{"ok":1.50}')

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Coroutine[Any, Any, str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start an upstream that does not read requests before it handles them, and return its INI section."""
    runners: list[web.ServerRunner] = []

    async def start(handler: Handler) -> str:
        runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"[upstream up]\nprovider = openai\nbase-url = http://127.0.0.1:{runner.addresses[0][1]}/v1\n"

    yield start
    for runner in runners:
        await runner.cleanup()


def field(name: str, value: str, line: str = "") -> bytes:
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{line}\r\n\r\n{value}\r\n'.encode()


def file(content: bytes, name: str = "a.wav") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    return head.encode() + b"Content-Type: audio/wav\r\n\r\n" + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


async def read_json(response: aiohttp.ClientResponse) -> Any:
    assert response.content_type == "application/json"
    return msgspec.json.decode(await response.read())


# Streaming, both ways.


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("head", [field("model", "alias"), b""], ids=["model", "no model"])
async def test_an_upload_reaches_the_upstream_while_it_is_still_being_sent(
    has_length: bool, head: bytes, serve: Serve, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    begun = asyncio.Event()
    received: list[bytes] = []
    lengths: list[str | None] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        lengths.append(request.headers.get("Content-Length"))
        async for chunk in request.content.iter_any():
            received.append(chunk)
            begun.set()
        return web.Response(body=b"{}", content_type="application/json")

    first, rest = head + file(BINARY)[:-2], BINARY * 4 + b"\r\n" + END

    async def send() -> AsyncIterator[bytes]:
        yield first
        async with asyncio.timeout(5):
            await begun.wait()  # forever, if somebody on the way waits for the whole body
        yield rest

    running = await gateway(await serve(handler) + ALIAS)
    headers = FORM | ({"Content-Length": str(len(first) + len(rest))} if has_length else {})

    async with http.post(f"{running.url}/v1/audio/transcriptions", data=send(), headers=headers) as response:
        assert response.status == 200

    expected = (first + rest).replace(b"\r\nalias\r\n", b"\r\nreal-model-name\r\n")
    assert b"".join(received) == expected
    assert lengths == [str(len(expected)) if has_length else None]


async def test_a_binary_answer_reaches_the_caller_while_it_is_still_being_sent(
    serve: Serve, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    seen = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "audio/mpeg"})
        await response.prepare(request)
        await response.write(BINARY)
        async with asyncio.timeout(5):
            await seen.wait()  # forever, if somebody on the way waits for the whole answer
        await response.write(BINARY[::-1])
        return response

    running = await gateway(await serve(handler))

    async with http.post(f"{running.url}/v1/audio/speech", data=b'{"model":"tts","input":"hi"}') as response:
        body = await response.content.readexactly(len(BINARY))
        seen.set()
        body += await response.read()

    assert response.content_type == "audio/mpeg"
    assert body == BINARY + BINARY[::-1]


async def test_events_reach_the_caller_one_by_one_and_are_metered(
    serve: Serve, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    seen = asyncio.Event()
    first = b'data: {"choices":[{"text":"a"}]}\n\n'
    last = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\ndata: [DONE]\n\n'

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(first)
        async with asyncio.timeout(5):
            await seen.wait()
        await response.write(last)
        return response

    running = await gateway(await serve(handler))

    async with http.post(f"{running.url}/v1/completions", json={"model": "m", "stream": True}) as response:
        body = await response.content.readexactly(len(first))
        seen.set()
        body += await response.read()

    assert body == first + last
    assert "tokens=7+3" in running.log()


STREAM = b'{"model":"m","stream":true}'
TEXT = b'data: {"choices":[{"index":0,"text":"a","finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize("cut", [True, False])
async def test_a_stream_of_completions_that_breaks_off_ends_with_an_error_in_band(
    cut: bool, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(chunks=[TEXT, FINISH[:30]], content_type="text/event-stream", gap_s=0.02, cut=cut))
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.post(f"{running.url}/v1/completions", data=STREAM, headers=JSON) as response:
        body = await response.read()

    assert response.status == 200
    assert body.startswith(TEXT + b"data: ")
    assert msgspec.json.decode(body.removeprefix(TEXT + b"data: "))["error"]["code"] == "upstream_cut"
    assert "error=upstream_cut" in running.log()


async def test_a_stream_of_completions_that_ends_before_it_begins_is_a_502(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(chunks=[b": ping\n\n"], content_type="text/event-stream"))
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.post(f"{running.url}/v1/completions", data=STREAM, headers=JSON) as response:
        answer = await read_json(response)

    assert (response.status, answer["error"]["code"]) == (502, "upstream_cut")


async def test_events_of_which_we_do_not_know_the_end_are_relayed_as_they_are(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # Progress of an image or an assistant's run: no event is known that says that nothing is missing.
    upstream.script(Reply(chunks=[b"event: a\nda", b"ta: 1\n\n: half"], content_type="text/event-stream", gap_s=0.02))
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.post(f"{running.url}/v1/images/generations", data=STREAM, headers=JSON) as response:
        assert await response.read() == b"event: a\ndata: 1\n\n: half"

    assert response.content_type == "text/event-stream"


async def test_an_answer_that_breaks_off_breaks_off_for_the_caller(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(BINARY, content_type="audio/mpeg", cut=True))
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.get(f"{running.url}/v1/files/f/content") as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_compressed_upload_is_passed_on_as_it_was_before(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai") + ALIAS)
    body = field("model", "alias") + file(BINARY[:100_000]) + END
    headers = FORM | {"Content-Encoding": "gzip"}
    async with http.post(
        f"{running.url}/v1/audio/transcriptions", data=gzip.compress(body, mtime=0), headers=headers
    ) as response:
        assert response.status == 200

    assert upstream.received[0].body == body.replace(b"alias", b"real-model-name")
    assert "Content-Encoding" not in upstream.received[0].headers


# The model.


async def test_json_goes_through_as_it_came_but_for_an_alias(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai") + ALIAS)
    body = b'{ "prompt":"\\u00e9 model", "n":1.0e0,\n"model" : "%s", "x":{"model":"alias"} }'

    shown: list[str] = []
    for model in (b"alias", b"m"):
        async with http.post(
            f"{running.url}/v1/images/generations?x=1", data=body % model, headers={"Content-Type": "application/json"}
        ) as response:
            assert (response.status, await response.read()) == (200, b'{"ok":1.50}')
        shown.append(response.headers["x-aiproxyd-model"])

    renamed, plain = upstream.received
    assert renamed.body == body % b"real-model-name"
    assert renamed.headers["Content-Length"] == str(len(renamed.body))
    assert plain.body == body % b"m"
    assert (plain.method, plain.target) == ("POST", "/v1/images/generations?x=1")
    assert shown == ["real-model-name", "m"]


@pytest.mark.parametrize(
    "body",
    [
        field("model", "alias") + file(b"abc") + END,
        field("prompt", "hi") + field("model", "alias") + END,
        file(b"small" * 100) + field("model", "alias") + END,
        file(b"abc\r\n", 'model"; x="') + field("model", "alias") + END,
        f"--{BOUNDARY}\r\nX-A: 1\r\ncontent-disposition:form-data;name=model\r\n\r\nalias\r\n".encode() + END,
        b"preamble\r\n" + field("model", "alias", "; x=y") + END,
        field("model", "alias").replace(b'model"\r\n', b'model"\r\nContent-Type: text/plain\r\n') + END,
    ],
    ids=["first", "second", "after a file", "after an odd file", "other spelling", "preamble", "more headers"],
)
async def test_the_model_of_a_form_is_found_and_renamed(
    body: bytes, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai") + ALIAS)

    async with http.post(f"{running.url}/v1/audio/transcriptions", data=body, headers=FORM) as response:
        assert response.status == 200

    (received,) = upstream.received
    assert received.body == body.replace(b"alias", b"real-model-name")
    assert received.headers["Content-Length"] == str(len(received.body))
    assert received.headers["Content-Type"] == FORM["Content-Type"]
    assert "model=alias" in running.log()


async def test_the_model_of_a_form_is_found_however_the_form_is_cut(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai") + ALIAS)
    body = file(b"abc") + field("model", "alias") + END

    async def send() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 23):
            yield body[at : at + 23]
            await asyncio.sleep(0.002)

    async with http.post(f"{running.url}/v1/audio/transcriptions", data=send(), headers=FORM) as response:
        assert response.status == 200

    assert upstream.received[0].body == body.replace(b"alias", b"real-model-name")


FORGED = field("model", "allowed")[:-2]


@pytest.mark.parametrize(
    "start",
    [
        file(b"x" + FORGED),
        file(FORGED.replace(BOUNDARY.encode(), b"other")),
        file(b"\r\n" + FORGED.replace(BOUNDARY.encode(), BOUNDARY.encode() + b"x")),
        file(b"\r\n" + FORGED.removeprefix(b"--" + BOUNDARY.encode() + b"\r\n")),
        file(b"allowed", "a; name=model; b"),
        file(b"allowed", "; name=model;"),
        file(b"allowed", 'a\\"; name=model; b'),
        field("prompt", 'Content-Disposition: form-data; name="model"\r\n\r\nallowed'),
        field("models", "allowed"),
        field("x", "allowed", "; y=name=model"),
        field("x", "allowed", '; name="model"'),
    ],
    ids=[
        "no line start",
        "other boundary",
        "longer boundary",
        "no boundary",
        "filename",
        "filename 2",
        "escaped",
        "value",
        "models",
        "parameter",
        "second name",
    ],
)
async def test_what_only_looks_like_the_model_of_a_form_does_not_count(
    start: bytes, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai") + KEY)
    body = start + field("model", "expensive") + END

    async with http.post(f"{running.url}/v1/audio/transcriptions", data=body, headers=FORM | KID) as response:
        answer = await read_json(response)

    assert response.status == 403
    assert answer["error"]["message"] == "the key kid may not use the model 'expensive'"
    assert upstream.received == []


async def test_the_model_can_stand_in_the_query(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    ini = upstream_section(upstream, "openai", "a", "models = x") + upstream_section(
        upstream, "openai", "b", "models = m"
    )
    running = await gateway(ini)

    async with http.get(f"{running.url}/v1/things?model=m") as response:
        assert response.status == 200

    assert response.headers["x-aiproxyd-upstream"] == "b"


async def test_an_alias_in_the_query_is_renamed(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai") + "[model alias]\ntargets = up/vendor/a&b=c\n")
    query = "?model=alias&x=model%20y&mode%6c=alias&models=alias&model"

    async with http.get(URL(f"{running.url}/v1/things{query}", encoded=True)) as response:
        assert response.status == 200

    assert upstream.received[0].target == (
        "/v1/things?model=vendor/a%26b%3Dc&x=model%20y&model=vendor/a%26b%3Dc&models=alias&model=vendor/a%26b%3Dc"
    )


@pytest.mark.parametrize(
    "headers", [CURL, {"Content-Encoding": "gzip", "Content-Type": "text/plain"}], ids=["curl -d", "compressed"]
)
async def test_json_is_read_as_json_whatever_its_type_says(
    headers: dict[str, str], upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # `curl -d` says that its JSON is a form.
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai") + ALIAS)
    body = b' {"model":"alias"}'
    sent = gzip.compress(body, mtime=0) if "Content-Encoding" in headers else body

    async with http.post(f"{running.url}/v1/images/generations", data=sent, headers=headers) as response:
        assert response.status == 200

    assert upstream.received[0].body == b' {"model":"real-model-name"}'


async def test_a_form_that_is_none_of_json_goes_through_as_it_is(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai") + ALIAS)

    async with http.post(f"{running.url}/v1/things", data=b"model=alias&x=%20", headers=CURL) as response:
        assert response.status == 200

    assert upstream.received[0].body == b"model=alias&x=%20"
    assert upstream.received[0].headers["Content-Type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("headers", [FORM, CURL, JSON, {"Content-Type": "application/octet-stream"}])
async def test_what_grows_beyond_the_limit_when_it_is_decompressed_is_refused(
    headers: dict[str, str], upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # A gzip bomb: 1 kB that stands for 1 MB.
    running = await gateway(upstream_section(upstream, "openai"), "--max-body-bytes", "100000")
    bomb = gzip.compress(b" " * 1_000_000, mtime=0)

    async with http.post(
        f"{running.url}/v1/files", data=bomb, headers=headers | {"Content-Encoding": "gzip"}
    ) as response:
        answer = await read_json(response)

    assert (response.status, answer["error"]["code"]) == (413, "request_too_large")
    assert upstream.received == []


async def test_a_model_whose_upstreams_do_not_speak_the_callers_format_is_a_400(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # What an Anthropic upstream makes of an OpenAI path is anyone's guess.
    upstream.script(OK)
    ini = upstream_section(upstream, "openai", "o") + upstream_section(upstream, "anthropic", "a", "models = claude")
    running = await gateway(ini + "[model both]\ntargets = a/claude, o/gpt\n")

    async with http.post(f"{running.url}/v1/images/generations", json={"model": "claude"}) as response:
        answer = await read_json(response)
    async with http.post(f"{running.url}/v1/images/generations", json={"model": "both"}) as second:
        assert second.status == 200

    assert response.status == 400
    assert answer["error"]["message"] == "the upstream of the model 'claude' does not speak openai-chat"
    assert second.headers["x-aiproxyd-upstream"] == "o"
    assert len(upstream.received) == 1


@pytest.mark.parametrize("path", ["/v1/files", "/v1beta/cachedContents"])
async def test_an_upstream_that_is_named_must_speak_the_callers_format(
    path: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # Our OpenAI key must not go to paths below /v1beta, which that upstream would find at /v1/v1beta.
    running = await gateway(upstream_section(upstream, "openai", "o") + upstream_section(upstream, "gemini", "g"))
    wrong, fmt = ("g", "openai-chat") if path == "/v1/files" else ("o", "gemini")

    async with http.get(running.url + path, headers={"x-aiproxyd-upstream": wrong}) as response:
        answer = await read_json(response)

    assert response.status == 400
    assert answer["error"]["message"] == (f"x-aiproxyd-upstream: there is no upstream {wrong!r} that speaks {fmt}")
    assert upstream.received == []


async def test_an_unknown_model_is_refused(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    ini = upstream_section(upstream, "openai", "a", "models = x") + upstream_section(
        upstream, "openai", "b", "models = m"
    )
    running = await gateway(ini)

    async with http.post(f"{running.url}/v1/images/generations", json={"model": "nope"}) as response:
        answer = await read_json(response)

    assert response.status == 404
    assert answer["error"]["message"] == "there is no model 'nope' here; available: x, m"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "malformed JSON"),
        (b'{"model":7}', "invalid request body"),
        (b'["model"]', "invalid request body"),
        (b'{"model":"a","model":"b"}', "malformed JSON: a key stands twice"),
        (b"\xff", "malformed JSON"),
    ],
)
async def test_json_that_makes_no_sense_is_refused(
    body: bytes, message: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.post(
        f"{running.url}/v1/images/generations", data=body, headers={"Content-Type": "application/json"}
    ) as response:
        answer = await read_json(response)

    assert response.status == 400
    assert answer["error"]["message"].startswith(message)
    assert upstream.received == []


async def test_a_form_without_a_boundary_is_refused(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.post(
        f"{running.url}/v1/files", data=b"x", headers={"Content-Type": "multipart/form-data"}
    ) as response:
        answer = await read_json(response)

    assert (response.status, answer["error"]["message"]) == (400, "multipart/form-data without a boundary")


async def test_json_beyond_the_limit_is_refused(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai"), "--max-body-bytes", "100")

    async with http.post(f"{running.url}/v1/images/generations", json={"prompt": "x" * 100}) as response:
        answer = await read_json(response)

    assert response.status == 413
    assert answer["error"]["code"] == "request_too_large"


async def test_json_of_unknown_length_is_read_to_the_limit_and_no_further(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai"), "--max-body-bytes", "100")

    async def send(size: int) -> AsyncIterator[bytes]:
        yield b'{"prompt":"'
        yield b"x" * (size - 13)
        yield b'"}'

    statuses: list[int] = []
    for size in (100, 101):
        async with http.post(
            f"{running.url}/v1/images/generations", data=send(size), headers={"Content-Type": "application/json"}
        ) as response:
            statuses.append(response.status)

    assert statuses == [200, 413]
    assert len(upstream.received) == 1


async def test_json_that_is_badly_compressed_is_refused(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai"))
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    async with http.post(f"{running.url}/v1/images/generations", data=b"{}", headers=headers) as response:
        answer = await read_json(response)

    assert response.status == 400
    assert answer["error"]["type"] == "invalid_request_error"


# Keys that are limited to models.


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{}", {"Content-Type": "application/json"}),
        (field("prompt", "x") + END, FORM),
        (b"\0\1", {"Content-Type": "application/octet-stream"}),
    ],
)
async def test_a_limited_key_is_refused_where_no_model_is_named(
    body: bytes, headers: dict[str, str], upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai") + KEY)

    async with http.post(f"{running.url}/v1/files", data=body, headers=headers | KID) as response:
        answer = await read_json(response)

    assert response.status == 403
    assert answer["error"]["message"] == ("this key is limited to certain models, and the request does not name one")
    assert upstream.received == []


# An upstream may find a model where we do not look for it, or prefer another of several.
@pytest.mark.parametrize(
    ("query", "body", "headers", "message"),
    [
        ("?model=allowed", b'{"model":"other"}', {"Content-Type": "text/plain"}, "does not name one"),
        ("?model=allowed", file(b"x" * 700_000) + field("model", "other") + END, FORM, "the model 'other'"),
        ("?model=allowed", b'{"model":"other"}', {"Content-Type": "application/json"}, "the model 'other'"),
        ("?model=other", b'{"model":"allowed"}', {"Content-Type": "application/json"}, "the model 'other'"),
        ("?model=allowed&model=other", b'{"model":"allowed"}', JSON, "the model 'other'"),
        ("?model=other&model=allowed", b'{"model":"allowed"}', JSON, "the model 'other'"),
        ("?model=allowed", b"", {}, "does not name one"),
        ("?model=allowed", b"{}", JSON, "does not name one"),
        ("", b'{"model":""}', JSON, "does not name one"),
        ("", b'{"model":"other"}', CURL, "the model 'other'"),
        ("", b"model=allowed", CURL, "does not name one"),
        ("", gzip.compress(b'{"model":"other"}', mtime=0), {"Content-Encoding": "gzip"}, "the model 'other'"),
        ("", field("model", "other") + END, XBOUNDARY, "the model 'other'"),
        ("", field("model", "other") + END, QUOTED_BOUNDARY, "the model 'other'"),
        ("", file(b"x" * 700_000) + END, FORM, "does not name one"),
    ],
)
async def test_a_limited_key_cannot_hide_a_model(
    query: str,
    body: bytes,
    headers: dict[str, str],
    message: str,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    running = await gateway(upstream_section(upstream, "openai") + KEY)

    async with http.post(f"{running.url}/v1/images/edits{query}", data=body, headers=headers | KID) as response:
        answer = await read_json(response)

    assert response.status == 403
    assert answer["error"]["message"].endswith(message)
    assert upstream.received == []


@pytest.mark.parametrize(("model", "status"), [("allowed", 200), ("other", 403)])
async def test_a_limited_key_may_use_its_models(
    model: str, status: int, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai") + KEY)

    async with http.post(f"{running.url}/v1/images/generations", json={"model": model}, headers=KID) as response:
        assert response.status == status
    async with http.post(
        f"{running.url}/v1/audio/transcriptions", data=field("model", model) + END, headers=FORM | KID
    ) as response:
        assert response.status == status

    assert len(upstream.received) == (2 if status == 200 else 0)


@pytest.mark.parametrize(
    "path", ["/v1/things", "/v1/batches", "/v1/fine_tuning/jobs", "/v1/images/generations/x", "/v1/responses/r/cancel"]
)
async def test_a_limited_key_may_use_only_what_one_model_decides(
    path: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # A batch file, say, names other models than the request that starts it.
    running = await gateway(upstream_section(upstream, "openai") + KEY)

    async with http.post(running.url + path, json={"model": "allowed"}, headers=KID) as response:
        answer = await read_json(response)

    assert response.status == 403
    assert answer["error"]["message"] == "this key is limited to certain models, and the request does not name one"
    assert upstream.received == []


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (field("model", "allowed") + field("model", "other") + END, FORM, "the form names its model twice"),
        (b'{"model":"allowed","model":"other"}', JSON, "malformed JSON: a key stands twice in one object"),
        (b'{"model":"allowed","Model":"other"}', JSON, "'Model' cannot be used with it"),
        (b'{"model":"allowed","mod\\u0065ls":["other"]}', JSON, "'models' cannot be used with it"),
        (b'{"model":"allowed","fallbacks":["other"]}', JSON, "'fallbacks' cannot be used with it"),
    ],
    ids=["form", "twice", "Model", "models", "fallbacks"],
)
async def test_a_limited_key_cannot_name_a_model_in_a_way_that_parsers_disagree_about(
    body: bytes,
    headers: dict[str, str],
    message: str,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    running = await gateway(upstream_section(upstream, "openai") + KEY)

    async with http.post(f"{running.url}/v1/images/edits", data=body, headers=headers | KID) as response:
        answer = await read_json(response)

    assert response.status == 400
    assert answer["error"]["message"].endswith(message)
    assert upstream.received == []


@pytest.mark.parametrize(
    ("provider", "path", "body", "status", "message"),
    [
        ("openai", "/v1/chat/completions", b'{"model":"other"}', 403, "the model 'other'"),
        ("openai", "/v1/chat/completions", b'{"model":"m","models":["other"]}', 400, "'models' cannot be used with it"),
        ("openai", "/v1/responses", b'{"model":"m","MODEL":"other"}', 400, "'MODEL' cannot be used with it"),
        ("openai", "/v1/embeddings", b'{"model":"m","model":"other"}', 400, "a key stands twice in one object"),
        ("anthropic", "/v1/messages", b'{"model":"m","fallbacks":[]}', 400, "'fallbacks' cannot be used with it"),
        ("gemini", "/v1beta/models/other:generateContent", b"{}", 403, "the model 'other'"),
        ("gemini", "/v1beta/models/m:embedContent", b'{"model":"models/other"}', 403, "the model 'other'"),
        (
            "gemini",
            "/v1beta/models/m:embedContent",
            b'{"model":"m","Model":"x"}',
            400,
            "'Model' cannot be used with it",
        ),
        (
            "gemini",
            "/v1beta/models/m:batchEmbedContents",
            b'{"requests":[{"model":"models/m"},{"model":"models/other"}]}',
            403,
            "the model 'other'",
        ),
        (
            "gemini",
            "/v1beta/models/m:countTokens",
            b'{"generateContentRequest":{"model":"models/other"}}',
            403,
            "the model 'other'",
        ),
        ("gemini", "/v1beta/models/m:embedContent", b'{"model":7}', 400, "Expected `str`, got `int`"),
    ],
)
async def test_a_limited_key_cannot_hide_a_model_from_our_own_endpoints(
    provider: str,
    path: str,
    body: bytes,
    status: int,
    message: str,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    running = await gateway(upstream_section(upstream, provider) + KEY)

    async with http.post(running.url + path, data=body, headers=JSON | KID) as response:
        answer = await read_json(response)

    assert response.status == status
    assert answer["error"]["message"].endswith(message)
    assert upstream.received == []


@pytest.mark.parametrize(
    ("provider", "path", "body"),
    [
        ("openai", "/v1/chat/completions", b'{"model":"m","metadata":{"models":"other"}}'),
        ("anthropic", "/v1/messages/count_tokens", b'{"model":"m"}'),
        ("gemini", "/v1beta/models/m:batchEmbedContents", b'{"requests":[{"model":"models/m"},{"model":"m"},null]}'),
        ("gemini", "/v1beta/models/m:countTokens", b'{"generateContentRequest":{"model":"models/allowed"}}'),
    ],
)
async def test_a_limited_key_may_use_its_models_at_our_own_endpoints(
    provider: str, path: str, body: bytes, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, provider) + KEY)

    async with http.post(running.url + path, data=body, headers=JSON | KID) as response:
        assert response.status == 200

    assert upstream.received[0].body == body


# Methods and paths.


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/files?limit=2&after=a%2Fb", b""),
        ("GET", "/v1/responses/resp_1", b""),
        ("GET", "/v1/realtime/sessions", b""),
        ("DELETE", "/v1/files/file-1", b""),
        ("PUT", "/v1/things/%E2%82%AC/x", b"binary\0"),
        ("PATCH", "/v1/things/a;b=c/x", b"binary"),
        ("POST", "/v1/responses/resp_1/cancel", b""),
    ],
)
async def test_every_method_and_path_goes_through_as_it_is(
    method: str, path: str, body: bytes, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"text", 201, "text/plain"))
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.request(method, URL(running.url + path, encoded=True), data=body or None) as response:
        assert (response.status, response.content_type, await response.read()) == (201, "text/plain", b"text")

    (received,) = upstream.received
    assert (received.method, received.target, received.body) == (method, path, body)


@pytest.mark.parametrize("status", [202, 204])
async def test_a_success_without_a_body_stays_one(
    status: int, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"", status, ""))
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.delete(f"{running.url}/v1/files/f") as response:
        assert (response.status, await response.read()) == (status, b"")


# Some servers take a part that is empty, dotted, or dotted up to a semicolon for none: what we check, they do not see.
@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/../models",
        "/v1/files/%2e%2e/x",
        "/v1/.%2E/x",
        "/v1/files/..",
        "/v1/x%2F..%2Fy",
        "/v1/./x",
        "/v1/files/..;x/y",
        "/v1/files/%2e%2e%3bx/y",
        "/v1/files/.;/y",
        "/v1/files/;x/y",
        "/v1/files//y",
        "/v1/files%2F%2Fy",
        "/v1/files/",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/v1beta/cachedContents/",
    ],
)
async def test_no_path_has_parts_that_servers_disagree_about(
    path: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.get(URL(running.url + path, encoded=True)) as response:
        answer = await read_json(response)

    message = f"there is nothing at {unquote(path)}: empty parts, '.' and '..' are not understood"
    assert (response.status, answer["error"]["message"]) == (404, message)
    assert upstream.received == []


async def test_the_caller_can_choose_the_upstream(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai", "a") + upstream_section(upstream, "openai", "b"))

    async with http.get(f"{running.url}/v1/files") as first:
        pass
    async with http.get(f"{running.url}/v1/files", headers={"x-aiproxyd-upstream": "b"}) as named:
        pass
    async with http.get(f"{running.url}/v1/files", headers={"x-aiproxyd-upstream": "c"}) as unknown:
        answer = await read_json(unknown)

    assert first.headers["x-aiproxyd-upstream"] == "a"
    assert named.headers["x-aiproxyd-upstream"] == "b"
    assert (unknown.status, answer["error"]["message"]) == (
        400,
        "x-aiproxyd-upstream: there is no upstream 'c' that speaks openai-chat",
    )


async def test_a_path_goes_to_the_first_upstream_that_speaks_the_callers_format(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(
        upstream_section(upstream, "openai", "o")
        + upstream_section(upstream, "anthropic", "a")
        + upstream_section(upstream, "gemini", "g")
    )

    async with http.post(f"{running.url}/v1/messages/batches", json={}) as batches:
        pass
    async with http.get(f"{running.url}/v1/files", headers={"anthropic-version": "2023-06-01"}) as files:
        pass
    async with http.get(f"{running.url}/v1beta/cachedContents") as contents:
        pass

    assert [answer.headers["x-aiproxyd-upstream"] for answer in (batches, files, contents)] == ["a", "a", "g"]
    assert [request.target for request in upstream.received] == [
        "/v1/messages/batches",
        "/v1/files",
        "/v1beta/cachedContents",
    ]
    assert [request.headers.get("x-api-key") for request in upstream.received] == ["sk-upstream", "sk-upstream", None]
    assert upstream.received[2].headers["x-goog-api-key"] == "sk-upstream"


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        (
            "/v1/interactions",
            {"x-goog-api-key": "any"},
            {"error": {"code": 404, "message": "", "status": "NOT_FOUND"}},
        ),
        (
            "/v1beta/cachedContents",
            {},
            {"error": {"code": 404, "message": "", "status": "NOT_FOUND"}},
        ),
        (
            "/v1/messages/batches",
            {"x-request-id": "r-1"},
            {"type": "error", "error": {"type": "not_found_error", "message": ""}, "request_id": "r-1"},
        ),
    ],
)
async def test_a_path_whose_format_nobody_speaks_is_refused_in_that_format(
    path: str,
    headers: dict[str, str],
    expected: dict[str, Any],
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.post(running.url + path, json={}, headers=headers) as response:
        answer = await read_json(response)

    expected["error"]["message"] = f"there is nothing at {path}, and no upstream that might know it"
    assert (response.status, answer) == (404, expected)
    assert upstream.received == []


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/realtime?model=m", "/v1/files"])
async def test_a_websocket_is_refused_with_the_status_that_makes_codex_fall_back(
    path: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai"))

    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await http.ws_connect(running.url + path)
    async with http.get(running.url + path, headers={"Connection": "upgrade", "Upgrade": "WebSocket"}) as response:
        answer = await read_json(response)

    assert caught.value.status == 426
    assert (response.status, answer["error"]["code"]) == (426, "upgrade_required")


async def test_an_upgrade_to_http_2_is_not_taken_up_and_not_refused(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # Java's HTTP client offers h2c with its first request.
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai"))
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAA"}

    async with http.post(f"{running.url}/v1/images/generations", json={"model": "m"}, headers=headers) as response:
        assert response.status == 200
    async with http.post(f"{running.url}/v1/chat/completions", json={"model": "m"}, headers=headers) as own:
        assert own.status == 200

    assert [received.body for received in upstream.received] == [b'{"model": "m"}', b'{"model": "m"}']
    assert "Upgrade" not in upstream.received[0].headers


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/%6dodels", "GET"),
        ("DELETE", "/v1/%6dodels/m", "GET, POST"),
        ("POST", "/v1/chat%2Fcompletions", "POST"),
        ("PUT", "/v1/chat/completion%73", "POST"),
        ("PUT", "/v1/%6dodels/m%3AgenerateContent", "GET, POST"),
    ],
)
async def test_a_path_that_decodes_to_one_of_ours_is_not_relayed(
    method: str, path: str, allow: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # Relayed, it would be served without what we do at that path: check a limited key's model, for one.
    running = await gateway(upstream_section(upstream, "openai") + upstream_section(upstream, "gemini", "g"))

    async with http.request(method, URL(running.url + path, encoded=True), data=b'{"model":"m"}') as response:
        await response.read()

    assert (response.status, response.headers.get("Allow")) == (405, allow)
    assert upstream.received == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/chat/completion%73", 403),
        ("/v1beta/models/other%3AgenerateContent", 403),
        ("/v1beta/%6dodels/other:generateContent", 404),
        ("/v1/%6dodels/other%3AgenerateContent", 404),
    ],
)
async def test_a_path_that_decodes_to_one_of_ours_is_served_as_ours_or_not_at_all(
    path: str, status: int, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai") + upstream_section(upstream, "gemini", "g") + KEY)

    async with http.post(
        URL(running.url + path, encoded=True), data=b'{"model":"other"}', headers=JSON | KID
    ) as response:
        await response.read()

    assert response.status == status
    assert upstream.received == []


@pytest.mark.parametrize(
    ("method", "path", "headers", "allow"),
    [
        ("GET", "/v1/chat/completions", {}, "POST"),
        ("PUT", "/v1/embeddings", {}, "POST"),
        ("GET", "/v1/responses", {}, "POST"),
        ("DELETE", "/v1/responses", {}, "POST"),
        ("GET", "/v1/messages", {}, "POST"),
        ("PATCH", "/v1/messages/count_tokens", {}, "POST"),
        ("POST", "/v1/models", {}, "GET"),
        ("DELETE", "/v1/models", {"anthropic-version": "2023-06-01"}, "GET"),
        ("POST", "/v1beta/models", {}, "GET"),
        ("PUT", "/v1beta/models/m:generateContent", {}, "GET, POST"),
    ],
)
async def test_a_wrong_method_on_an_own_path_is_refused_in_the_callers_shape(
    method: str,
    path: str,
    headers: dict[str, str],
    allow: str,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.request(method, running.url + path, headers=headers) as response:
        answer = await read_json(response)

    assert (response.status, response.headers["Allow"]) == (405, allow)
    assert answer["error"]["message"] == f"{method} is not allowed here; allowed: {allow}"
    match answer:
        case {"type": "error", "request_id": str(), "error": {"type": "invalid_request_error"}}:
            shape = "anthropic"
        case {"error": {"code": 405, "status": "INVALID_ARGUMENT"}}:
            shape = "gemini"
        case {"error": {"code": "method_not_allowed", "type": "invalid_request_error"}}:
            shape = "openai"
        case _:
            shape = str(answer)
    is_anthropic = path.startswith("/v1/messages") or bool(headers)
    assert shape == ("anthropic" if is_anthropic else "gemini" if "beta" in path else "openai")
    assert upstream.received == []


# Headers and the query.


async def test_nothing_of_the_callers_credentials_and_connection_reaches_the_upstream(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai"))
    headers = {
        "Authorization": "Bearer sk-caller",
        "x-api-key": "sk-caller",
        "x-goog-api-key": "sk-caller",
        "api-key": "sk-caller",
        "Proxy-Authorization": "Basic sk-caller",
        "Cookie": "session=sk-caller",
        "Connection": "keep-alive, x-hop",
        "x-hop": "1",
        "Keep-Alive": "timeout=5",
        "TE": "trailers",
        "Trailer": "x-t",
        "Forwarded": "for=10.1.2.3",
        "X-Forwarded-For": "10.1.2.3",
        "X-Real-IP": "10.1.2.3",
        "Origin": "",
        "Referer": "http://intranet/",
        "Accept-Encoding": "br",
        "OpenAI-Organization": "org-of-the-caller",
        "OpenAI-Project": "proj-of-the-caller",
        "OpenAI-Api-Key": "sk-caller",
        "Anthropic-Api-Key": "sk-caller",
        "Anthropic-Workspace-Id": "w-of-the-caller",
        "x-goog-user-project": "p-of-the-caller",
        "x-aiproxyd-upstream": "up",
        "x-anything-else": "1",
    }
    del headers["Origin"]
    raw_query = (
        "?key=sk-caller&alt=json&x=a%20b+c&k%65y=sk-caller&key&monkey=1&keys="
        "&api_key=sk-caller&access_token=sk-caller&oauth%5Ftoken=sk-caller"
    )

    async with http.get(
        URL(f"{running.url}/v1/responses/things{raw_query}", encoded=True), headers=headers
    ) as response:
        assert response.status == 200

    (received,) = upstream.received
    assert received.target == "/v1/responses/things?alt=json&x=a%20b+c&monkey=1&keys="
    assert "sk-caller" not in str(received.headers)
    assert received.headers.pop("Via").startswith("1.1 aiproxyd-")
    assert received.headers.pop("User-Agent").startswith("Python/")
    received.headers.pop("Content-Length", None)
    assert dict(received.headers) == {
        "Host": upstream.url.removeprefix("http://"),
        "Authorization": "Bearer sk-upstream",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }


async def test_what_the_sdks_say_about_themselves_and_their_sessions_reaches_the_upstream(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai"))
    headers = {
        "Anthropic-Beta": "files-api-2025-04-14",
        "anthropic-version": "2023-06-01",
        "OpenAI-Beta": "assistants=v2",
        "X-Stainless-Lang": "python",
        "x-stainless-retry-count": "0",
        "session_id": "s-1",
        "conversation_id": "c-1",
        "x-session-affinity": "s-2",
        "x-claude-code-session-id": "s-3",
        "x-client-request-id": "r-1",
        "Idempotency-Key": "i-1",
        "traceparent": "00-1-2-03",
        "Accept": "audio/*",
        "Accept-Language": "de",
        "User-Agent": "Codex/1",
    }

    async with http.post(
        f"{running.url}/v1/responses/x", data=b"{}", headers={**headers, "Content-Type": "application/json"}
    ) as response:
        assert response.status == 200

    received = upstream.received[0].headers
    assert {name: received.get(name) for name in headers} == headers
    assert received["Content-Type"] == "application/json"


async def test_the_marks_of_proxies_before_us_are_kept(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.get(f"{running.url}/v1/files", headers={"Via": "1.1 nginx"}) as response:
        assert response.status == 200

    assert upstream.received[0].headers["Via"].startswith("1.1 nginx, 1.1 aiproxyd-")


async def test_a_request_that_has_been_here_before_is_refused(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(OK)
    running = await gateway(upstream_section(upstream, "openai"))
    async with http.get(f"{running.url}/v1/files") as response:
        assert response.status == 200
    mark = upstream.received[0].headers["Via"]

    async with http.get(f"{running.url}/v1/files", headers={"Via": f"1.1 nginx, {mark}"}) as response:
        answer = await read_json(response)

    assert (response.status, answer["error"]["code"]) == (508, "loop_detected")
    assert len(upstream.received) == 1


async def test_only_known_headers_of_the_upstream_reach_the_caller(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(
        Reply(
            b"RIFF",
            content_type="audio/wav",
            headers={
                "Content-Disposition": 'attachment; filename="a.wav"',
                "x-ratelimit-remaining-requests": "9",
                "openai-processing-ms": "12",
                "Set-Cookie": "session=secret",
                "openai-organization": "org-of-the-gateway",
                "Server": "envoy",
                "x-internal": "1",
                "Access-Control-Allow-Origin": "*",
            },
        )
    )
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.get(f"{running.url}/v1/files/f/content") as response:
        assert await response.read() == b"RIFF"

    headers = response.headers
    assert headers["Content-Type"] == "audio/wav"
    assert headers["Content-Disposition"] == 'attachment; filename="a.wav"'
    assert headers["x-ratelimit-remaining-requests"] == "9"
    assert headers["openai-processing-ms"] == "12"
    assert not {"Set-Cookie", "openai-organization", "x-internal", "Access-Control-Allow-Origin"} & set(headers)
    assert headers["Server"] != "envoy"


# Errors.


@pytest.mark.parametrize("status", [400, 404, 409, 422, 429, 500, 503])
async def test_an_error_of_the_upstream_is_the_callers(
    status: int, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    body = b'{"error":{"message":"no such file","type":"invalid_request_error","param":null,"code":"x","new":1.0}}'
    upstream.script(Reply(body, status, headers={"Retry-After": "7"}))
    running = await gateway(upstream_section(upstream, "openai"))

    async with http.get(f"{running.url}/v1/files/f") as response:
        assert (response.status, await response.read()) == (status, body)

    assert response.headers["Retry-After"] == "7"


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Reply(b'{"error":{"message":"Incorrect API key provided: sk-upst***"}}', 401), 502, "upstream_key_refused"),
        (Reply(b"", 302, headers={"Location": "http://elsewhere/"}), 502, "upstream_garbage"),
        (Reply(wait_s=60), 504, "upstream_timeout"),
        (Reply(b"{}", cut=True), 502, "upstream_cut"),
    ],
)
async def test_a_failure_of_the_upstream_is_told_in_our_words(
    reply: Reply, status: int, code: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(reply)
    running = await gateway(upstream_section(upstream, "openai", lines="first-event-timeout = 0.3"))

    async with http.get(f"{running.url}/v1/files/f") as response:
        answer = await read_json(response)

    assert (response.status, answer["error"]["code"]) == (status, code)
    assert "sk-upst" not in answer["error"]["message"]


async def test_an_upstream_that_is_down_is_told_in_the_callers_shape(
    gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway("[upstream up]\nprovider = anthropic\nbase-url = http://127.0.0.1:9\n")

    async with http.post(f"{running.url}/v1/messages/batches", json={}) as response:
        answer = await read_json(response)

    assert response.status == 502
    assert answer["type"] == "error"
    assert answer["error"] == {"type": "api_error", "message": "upstream up cannot be reached"}


# What one attempt did not bring. By default a gateway goes on.

TWO_KEYS = "api-key = sk-1, sk-2"
REFUSED = (
    Reply(b"{}", 401),
    Reply(b"{}", 403),
    Reply(b"{}", 429, headers={"retry-after": "60"}),
    Reply(b'{"error":{"message":"no","code":"insufficient_quota"}}', 429),
)


def section(upstream: Upstream, lines: str) -> str:
    return f"[upstream up]\nprovider = openai\nbase-url = {upstream.url}/v1\n{lines}\n"


def keys_of(upstream: Upstream) -> list[str]:
    return [received.headers["Authorization"].removeprefix("Bearer ") for received in upstream.received]


@pytest.mark.parametrize("reply", REFUSED, ids=["401", "403", "429", "quota"])
async def test_what_one_key_is_refused_is_asked_with_the_next(
    reply: Reply, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(lambda received: reply if received.headers["Authorization"] == "Bearer sk-1" else OK)
    running = await gateway(section(upstream, TWO_KEYS) + ALIAS, attempts=())

    attempts: list[str] = []
    for _ in range(3):
        async with http.post(f"{running.url}/v1/moderations", json={"model": "alias", "input": "a"}) as response:
            assert await response.read() == OK.body
            attempts.append(response.headers["x-aiproxyd-attempts"])

    # Whether a key may use a model is not clear from one refusal.
    assert attempts == (["2", "1", "2"] if reply.status == 403 else ["2", "1", "1"])
    assert keys_of(upstream)[:3] == ["sk-1", "sk-2", "sk-2"]
    assert len({received.body for received in upstream.received}) == 1


@pytest.mark.parametrize("reply", REFUSED, ids=["401", "403", "429", "quota"])
@pytest.mark.parametrize(
    ("method", "headers", "body"),
    [
        ("GET", {}, None),
        ("POST", JSON, b"{}"),
        ("POST", FORM | {"Content-Encoding": "gzip"}, gzip.compress(field("purpose", "batch") + END)),
        ("PUT", JSON, b"{}"),
        ("PATCH", JSON, b"{}"),
        ("DELETE", {}, None),
    ],
    ids=["get", "post", "form", "put", "patch", "delete"],
)
async def test_whatever_one_key_is_refused_is_asked_with_the_next(
    method: str,
    headers: dict[str, str],
    body: bytes | None,
    reply: Reply,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    """PUT, PATCH, DELETE and held forms were attempted once, although a refusal proves that nothing was done."""
    upstream.respond(lambda received: reply if received.headers["Authorization"] == "Bearer sk-1" else OK)
    running = await gateway(section(upstream, TWO_KEYS), attempts=())

    async with http.request(method, f"{running.url}/v1/files", data=body, headers=headers) as response:
        assert (response.status, response.headers["x-aiproxyd-attempts"]) == (200, "2")

    assert keys_of(upstream) == ["sk-1", "sk-2"]
    assert len({received.body for received in upstream.received}) == 1


@pytest.mark.parametrize(
    "reply",
    [Reply(b"{}", 503), Reply(b'{"half":', cut=True), Reply(b"{}", 429, headers={"retry-after": "0.1"})],
    ids=["503", "cut", "429"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_may_be_over_in_a_moment_is_asked_again(
    method: str, reply: Reply, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(reply, OK)
    running = await gateway(section(upstream, "api-key = sk-1"), attempts=())
    body = {"input": "a"} if method == "POST" else None

    async with http.request(method, f"{running.url}/v1/moderations", json=body) as response:
        assert await response.read() == OK.body

    assert response.status == 200
    assert response.headers["x-aiproxyd-attempts"] == "2"


async def test_attempts_have_an_end_and_the_last_one_is_told(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.script(Reply(b'{"error":{"message":"sk-1 is tired"}}', 503))
    running = await gateway(section(upstream, "api-key = sk-1"), "--max-cooldown", "0", attempts=())

    async with http.get(f"{running.url}/v1/files/f") as response:
        answer = await read_json(response)

    assert (response.status, answer["error"]["message"]) == (503, "*** is tired")
    assert len(upstream.received) == 3
    assert response.headers["x-aiproxyd-attempts"] == "3"
    assert sum("failed: refused with status 503" in message for message in caplog.messages) == 3


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_what_another_attempt_would_not_mend_is_told_at_once(
    status: int, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", status))
    running = await gateway(section(upstream, TWO_KEYS), attempts=())

    async with http.get(f"{running.url}/v1/files/f") as response:
        assert response.status == status

    assert len(upstream.received) == 1


FAILURES = [Reply(b"{}", 500), Reply(b"{}", 503), Reply(b"{}", 409), Reply(b'{"id":"b', cut=True)]


@pytest.mark.parametrize(
    ("method", "headers", "body"),
    [
        ("POST", JSON, b'{"input_file_id":"f"}'),
        ("POST", JSON, b'{"training_file":"f","model":"m"}'),
        ("POST", FORM | {"Content-Encoding": "gzip"}, gzip.compress(field("model", "m") + END)),
        ("PUT", JSON, b"{}"),
        ("PATCH", JSON, b"{}"),
        ("DELETE", {}, None),
    ],
    ids=["post", "post with a model", "held form", "put", "patch", "delete"],
)
@pytest.mark.parametrize("reply", FAILURES, ids=["500", "503", "409", "cut"])
async def test_what_may_have_been_carried_out_is_not_asked_again(
    reply: Reply,
    method: str,
    headers: dict[str, str],
    body: bytes | None,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    """A batch whose answer broke off was created three times."""
    upstream.script(reply, OK)
    running = await gateway(section(upstream, TWO_KEYS), attempts=())

    async with http.request(method, f"{running.url}/v1/batches", data=body, headers=headers) as response:
        assert response.status in (409, 500, 502, 503)

    assert len(upstream.received) == 1
    assert response.headers["x-aiproxyd-attempts"] == "1"


@pytest.mark.parametrize("reply", FAILURES, ids=["500", "503", "409", "cut"])
@pytest.mark.parametrize(
    ("method", "headers"),
    [("GET", {}), ("POST", {"Idempotency-Key": "i-1"}), ("DELETE", {"Idempotency-Key": "i-1"})],
    ids=["get", "post", "delete"],
)
async def test_what_does_no_harm_is_asked_again_with_the_same_key(
    method: str,
    headers: dict[str, str],
    reply: Reply,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    """With another account's key the batch would not be there, and what is idempotent would be done twice."""
    upstream.script(reply, OK)
    running = await gateway(section(upstream, TWO_KEYS), attempts=())

    async with http.request(method, f"{running.url}/v1/batches/b", headers=headers) as response:
        assert (response.status, response.headers["x-aiproxyd-attempts"]) == (200, "2")

    assert keys_of(upstream) == ["sk-1", "sk-1"]
    assert {received.headers.get("Idempotency-Key") for received in upstream.received} == {
        headers.get("Idempotency-Key")
    }


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (FORM, field("purpose", "batch") + file(b"a") + END),
        ({"Content-Type": "application/octet-stream"}, b"bytes"),
        ({"Content-Type": "application/octet-stream", "Idempotency-Key": "i-1"}, b"bytes"),
    ],
    ids=["form", "bytes", "idempotent"],
)
@pytest.mark.parametrize("reply", [Reply(b"{}", 503), Reply(b"{}", 401), Reply(b"{}", 429)], ids=["503", "401", "429"])
@pytest.mark.parametrize("path", ["/v1/files", "/v1/audio/transcriptions"])
async def test_uploads_are_attempted_once(
    path: str,
    reply: Reply,
    headers: dict[str, str],
    body: bytes,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    upstream.script(reply, OK)
    running = await gateway(section(upstream, TWO_KEYS), attempts=())

    async with http.post(f"{running.url}{path}", data=body, headers=headers) as response:
        assert response.status in (429, 502, 503)

    assert len(upstream.received) == 1
    assert response.headers["x-aiproxyd-attempts"] == "1"


async def test_an_answer_that_breaks_off_after_it_has_begun_is_not_begun_again(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(chunks=[BINARY], cut=True, content_type="audio/mpeg"), OK)
    running = await gateway(section(upstream, TWO_KEYS), attempts=())

    with pytest.raises(aiohttp.ClientPayloadError):
        async with http.post(f"{running.url}/v1/audio/speech", json={"input": "a"}) as response:
            await response.read()

    assert len(upstream.received) == 1


async def test_a_full_upstream_is_waited_for(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", wait_s=0.1))
    running = await gateway(section(upstream, f"{TWO_KEYS}\nmax-concurrency = 1"), attempts=())

    async def ask() -> tuple[int, str]:
        async with http.get(f"{running.url}/v1/files") as response:
            return response.status, response.headers["x-aiproxyd-attempts"]

    assert list(await asyncio.gather(ask(), ask())) == [(200, "1"), (200, "1")]
    assert upstream.peak == 1


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(b"{}", 403), "access"),
        (Reply(b"{}", 429, headers={"retry-after": "60"}), "limit"),
        (Reply(b"{}", 503), "failing"),
        (Reply(b'{"half":', cut=True), "failing"),
        (Reply(b"<html>", 302), "silent"),
    ],
    ids=["403", "429", "503", "cut", "302"],
)
@pytest.mark.parametrize("body", [{}, {"model": "m"}], ids=["no model", "model"])
async def test_what_fails_here_says_nothing_of_other_paths_and_models(
    body: dict[str, str],
    reply: Reply,
    outcome: str,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    """All that names no model was taken for one: who failed to create batches kept others from fine-tuning."""
    upstream.respond(lambda received: reply if received.target == "/v1/batches" else OK)
    running = await gateway(section(upstream, "api-key = sk-1"), "--retries", "0", attempts=())

    for _ in range(4):
        async with http.post(f"{running.url}/v1/batches", json=body) as response:
            assert response.status == (502 if reply.cut or reply.status == 302 else reply.status)
    for path in ("/v1/fine_tuning/jobs", "/v1/chat/completions"):
        async with http.post(running.url + path, json={"model": "m"}) as response:
            assert response.status == 200
    for path in ("/ready", "/v1/batches/b"):
        async with http.get(running.url + path) as response:
            assert response.status == 200
    async with http.get(f"{running.url}/metrics") as response:
        metrics = await response.text()

    assert len(upstream.received) == 7
    assert f'aiproxyd_attempts_total{{outcome="{outcome}",upstream="up"}} 4' in metrics
    assert "aiproxyd_cooldown_seconds{" not in metrics


async def test_a_stream_without_a_model_that_breaks_off_says_nothing_of_other_paths(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    broken = Reply(chunks=[TEXT], content_type="text/event-stream", cut=True)
    upstream.respond(lambda received: broken if received.target == "/v1/completions" else OK)
    running = await gateway(section(upstream, "api-key = sk-1"), "--retries", "0", attempts=())

    for _ in range(4):
        async with http.post(f"{running.url}/v1/completions", json={"stream": True}) as response:
            assert b"upstream_cut" in await response.read()
    async with http.get(f"{running.url}/v1/files") as response:
        assert response.status == 200


async def test_a_key_that_is_refused_here_and_an_upstream_that_is_down_are_left_in_peace(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.respond(lambda received: Reply(b"{}", 401) if received.headers["Authorization"].endswith("1") else OK)
    running = await gateway(section(upstream, TWO_KEYS), "--retries", "0", attempts=())

    for _ in range(3):
        async with http.get(f"{running.url}/v1/files") as response:
            assert response.status == 200
    assert keys_of(upstream) == ["sk-1", "sk-2", "sk-2", "sk-2"]
    await upstream.stop()
    codes: list[str] = []
    for _ in range(4):
        async with http.get(f"{running.url}/v1/files") as response:
            codes.append((await read_json(response))["error"]["code"])

    assert codes == ["upstream_unavailable"] * 3 + ["not_ready"]


async def test_what_is_stored_is_found_with_the_key_that_stored_it(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """Keys took turns, so that with keys of different accounts every other call was about what is not there."""
    upstream.script(OK)
    running = await gateway(section(upstream, TWO_KEYS), attempts=())

    async def ask(method: str, path: str, body: dict[str, str] | None = None) -> str:
        async with http.request(method, f"{running.url}/v1/{path}", json=body) as response:
            assert response.status == 200
        return keys_of(upstream)[-1]

    stored = [
        await ask("POST", "batches", {"input_file_id": "f"}),
        await ask("GET", "batches/b"),
        await ask("POST", "fine_tuning/jobs", {"model": "m", "training_file": "f"}),
        await ask("GET", "fine_tuning/jobs/j"),
        await ask("DELETE", "responses/r"),
    ]
    computed = [await ask("POST", "moderations", {"model": "m", "input": "a"}) for _ in range(4)]

    assert stored == ["sk-1"] * 5
    assert computed == ["sk-1", "sk-2", "sk-1", "sk-2"]


UPLOAD = b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n"


@pytest.mark.parametrize(
    ("sent", "then"),
    [
        (b"Content-Length: 100\r\n\r\nabc", b""),
        (b"Content-Length: 100\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"ZZZ\r\nbad"),
    ],
    ids=["stalls", "never begins", "breaks off"],
)
async def test_an_upload_that_its_caller_does_not_finish_is_no_failure_of_the_upstream(
    sent: bytes,
    then: bytes,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    """After three of them others got a 503, and the log said that the upstream had not answered within 600 s."""
    upstream.script(OK)
    running = await gateway(section(upstream, "api-key = sk-1\nidle-timeout = 0.2"), attempts=())
    port = int(running.url.rpartition(":")[2])

    async def upload() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UPLOAD + sent)
        await asyncio.sleep(0.05)
        writer.write(then)
        async with asyncio.timeout(5):
            line = await reader.readline()
        writer.close()
        return line

    lines = [await upload() for _ in range(3)]
    async with http.get(f"{running.url}/v1/files") as response:
        assert response.status == 200
    async with http.get(f"{running.url}/metrics") as response:
        metrics = await response.text()

    assert [line.split()[1] for line in lines] == [b"408"] * 3
    assert 'aiproxyd_attempts_total{outcome="left",upstream="up"} 3' in metrics
    assert "error=request_timeout" in running.log()


async def test_an_answer_shows_that_the_upstream_is_well(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    """Answers of these paths did not count: after some failures in a whole day the upstream was left in peace."""
    failure = Reply(b"{}", 503)
    upstream.script(failure, OK, failure, OK, failure, OK)
    running = await gateway(section(upstream, "api-key = sk-1"), "--retries", "0", attempts=())

    statuses: list[int] = []
    for _ in range(6):
        async with http.get(f"{running.url}/v1/files") as response:
            statuses.append(response.status)

    assert statuses == [503, 200] * 3
