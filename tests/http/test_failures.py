"""Whatever goes wrong: one clear error in the caller's format, never a truncated answer passed off as whole."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

SSE = "text/event-stream"


class Dialect:
    """How one format is called and how it says things."""

    def __init__(self, provider: str, path: str, stream_path: str, stream: bytes, rest: bytes) -> None:
        self.provider = provider
        self.path = path
        self.stream_path = stream_path
        self.body = b'{"model":"m"}'
        self.stream_body = b'{"model":"m","stream":true}'
        self.beginning = stream
        """First events of a stream."""
        self.rest = rest
        """The events that make it complete."""


DIALECTS = {
    "openai-chat": Dialect(
        "openai",
        "/v1/chat/completions",
        "/v1/chat/completions",
        b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    ),
    "openai-responses": Dialect(
        "openai",
        "/v1/responses",
        "/v1/responses",
        b'event: response.created\ndata: {"type":"response.created","response":{}}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n',
    ),
    "anthropic": Dialect(
        "anthropic",
        "/v1/messages",
        "/v1/messages",
        b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3}}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ),
    "gemini": Dialect(
        "gemini",
        "/v1beta/models/m:generateContent",
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}]}\r\n\r\n',
        b'data: {"candidates":[{"finishReason":"STOP"}]}\r\n\r\n',
    ),
}


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


def error_of(body: bytes, dialect: Dialect) -> dict[str, Any]:
    """Return the error object, having checked that the body is the dialect's error body."""
    answer = msgspec.json.decode(body)
    if dialect.provider == "anthropic":
        assert answer["type"] == "error"
        assert answer["request_id"]
    error: dict[str, Any] = answer["error"]
    assert error["message"]
    if dialect.provider == "gemini":
        assert error["status"].isupper()
    else:
        assert error["type"]
    return error


async def call(http: aiohttp.ClientSession, url: str, dialect: Dialect) -> tuple[aiohttp.ClientResponse, bytes]:
    async with http.post(url + dialect.path, data=dialect.body) as response:
        return response, await response.read()


async def test_an_upstream_that_refuses_the_connection_is_a_502(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, dialect.provider))
    await upstream.stop()

    response, body = await call(http, running.url, dialect)

    assert response.status == 502
    assert "cannot be reached" in error_of(body, dialect)["message"]
    assert upstream.url.removeprefix("http://") not in body.decode()


async def test_an_upstream_that_says_nothing_is_a_504(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(wait_s=5))
    running = await gateway(upstream_section(upstream, dialect.provider, lines="first-event-timeout = 0.1"))

    response, body = await call(http, running.url, dialect)

    assert response.status == 504
    assert error_of(body, dialect)


async def test_a_whole_answer_that_is_cut_is_a_502(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"half":', cut=True))
    running = await gateway(upstream_section(upstream, dialect.provider))

    response, body = await call(http, running.url, dialect)

    assert response.status == 502
    assert "cut" in error_of(body, dialect)["message"]


@pytest.mark.parametrize("garbage", [b"<html>hello</html>", b'{"half":', b"\xff\xfe", b""])
async def test_an_answer_that_is_not_json_is_a_502(
    garbage: bytes, dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(garbage))
    running = await gateway(upstream_section(upstream, dialect.provider))

    response, body = await call(http, running.url, dialect)

    assert response.status == 502
    assert error_of(body, dialect)["message"] == "the upstream's answer is not JSON"


@pytest.fixture
async def babbler() -> AsyncIterator[str]:
    """An upstream that does not speak HTTP."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_upstream_that_does_not_speak_http_is_a_502(
    dialect: Dialect, babbler: str, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    flavour = "flavour = first-party" if dialect.provider == "openai" else ""
    running = await gateway(f"[upstream up]\nprovider = {dialect.provider}\nbase-url = {babbler}\n{flavour}\n")

    response, body = await call(http, running.url, dialect)

    assert response.status == 502
    assert "HTTP" in error_of(body, dialect)["message"]


async def test_a_401_of_the_upstream_is_our_failure_and_shows_no_part_of_a_key(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"error":{"message":"Incorrect API key provided: sk-up***am","type":"x"}}', status=401))
    running = await gateway(upstream_section(upstream, dialect.provider))

    response, body = await call(http, running.url, dialect)

    assert response.status == 502
    assert error_of(body, dialect)["message"] == "the upstream refused the gateway's credential"
    assert b"sk-" not in body


async def test_a_429_keeps_its_retry_after(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b'{"detail":"slow down"}', status=429, headers={"Retry-After": "17"}))
    running = await gateway(upstream_section(upstream, dialect.provider))

    response, body = await call(http, running.url, dialect)

    assert response.status == 429
    assert response.headers["Retry-After"] == "17"
    assert error_of(body, dialect)["message"] == "slow down"


async def test_a_429_without_retry_after_gets_one(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", status=429))
    running = await gateway(upstream_section(upstream, dialect.provider))

    response, _ = await call(http, running.url, dialect)

    assert int(response.headers["Retry-After"]) > 0


async def test_an_error_in_the_callers_own_format_passes_byte_for_byte(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    refusal = b'{ "error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context"} }'
    upstream.script(Reply(refusal, status=400))
    running = await gateway(upstream_section(upstream, "openai"))

    response, body = await call(http, running.url, DIALECTS["openai-chat"])

    assert response.status == 400
    assert body == refusal


@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_a_5xx_page_becomes_an_error_of_the_callers_format(
    status: int, dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"<html>bad gateway</html>", status=status, content_type="text/html"))
    running = await gateway(upstream_section(upstream, dialect.provider))

    response, body = await call(http, running.url, dialect)

    assert response.status == status
    assert "<html" not in error_of(body, dialect)["message"]


async def test_an_endless_error_page_is_not_read_to_its_end(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"x" * 300_000, status=500, content_type="text/plain"))
    running = await gateway(upstream_section(upstream, dialect.provider))

    response, body = await call(http, running.url, dialect)

    assert response.status == 500
    assert error_of(body, dialect)["message"] == "the upstream answered with status 500"


async def test_a_redirect_is_not_followed(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}))
    running = await gateway(upstream_section(upstream, dialect.provider))

    response, _ = await call(http, running.url, dialect)

    assert response.status == 502
    assert "Location" not in response.headers
    assert len(upstream.received) == 1


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"x"', b"\xff", b""])
async def test_malformed_json_is_a_400(
    body: bytes, dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, dialect.provider))

    async with http.post(running.url + dialect.path, data=body) as response:
        answer = await response.read()

    assert response.status == 400
    assert error_of(answer, dialect)
    assert not upstream.received


@pytest.mark.parametrize("name", ["openai-chat", "openai-responses", "anthropic"])
async def test_a_wrong_type_is_named_by_its_path(
    name: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    dialect = DIALECTS[name]
    running = await gateway(upstream_section(upstream, dialect.provider))

    async with http.post(running.url + dialect.path, data=b'{"model":"m","stream":"yes"}') as response:
        answer = await response.read()

    assert response.status == 400
    assert "$.stream" in error_of(answer, dialect)["message"]


async def test_a_body_over_the_limit_is_a_413(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, dialect.provider), "--max-body-bytes", "1000")

    async def chunked() -> AsyncIterator[bytes]:
        yield b" " * 2000

    for data in (b" " * 1001, chunked()):
        async with http.post(running.url + dialect.path, data=data) as response:
            body = await response.read()

        assert response.status == 413
        assert "1000 bytes" in error_of(body, dialect)["message"]
    assert not upstream.received


async def test_a_wrong_method_is_a_405_and_an_unknown_path_a_404(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, dialect.provider))

    async with http.delete(running.url + dialect.path) as response:
        wrong_method = await response.read()
        status = response.status
    async with http.get(running.url + "/nothing/here") as response:
        unknown = await response.read()

    assert status == 405
    assert error_of(wrong_method, dialect)
    assert response.status == 404
    assert b"/nothing/here" in unknown


async def test_an_answer_that_is_compressed_all_the_same_is_decompressed(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(gzip.compress(b'{"ok":1.0}'), headers={"Content-Encoding": "gzip"}))
    running = await gateway(upstream_section(upstream, dialect.provider))

    response, body = await call(http, running.url, dialect)

    assert body == b'{"ok":1.0}'
    assert "Content-Encoding" not in response.headers
    assert upstream.received[0].headers["Accept-Encoding"] == "identity"


# Streams.


async def test_a_whole_stream_passes_byte_for_byte(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    wire = dialect.beginning + dialect.rest
    upstream.script(Reply(chunks=[wire[at : at + 7] for at in range(0, len(wire), 7)], content_type=SSE))
    running = await gateway(upstream_section(upstream, dialect.provider))

    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as response:
        body = await response.read()

    assert body == wire
    assert response.content_type == SSE


async def test_a_stream_without_its_last_blank_line_is_complete(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    wire = (dialect.beginning + dialect.rest).rstrip()
    upstream.script(Reply(chunks=[wire], content_type=SSE))
    running = await gateway(upstream_section(upstream, dialect.provider))

    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as response:
        assert await response.read() == wire


@pytest.mark.parametrize("cut", [True, False])
async def test_a_stream_that_breaks_off_ends_with_the_formats_own_error(
    cut: bool, dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    half = dialect.rest[: len(dialect.rest) // 2]
    upstream.script(Reply(chunks=[dialect.beginning, half], content_type=SSE, gap_s=0.02, cut=cut))
    running = await gateway(upstream_section(upstream, dialect.provider))

    received = b""
    was_cut = False
    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as response:
        try:
            async for chunk in response.content.iter_any():
                received += chunk
        except aiohttp.ClientPayloadError:
            was_cut = True

    assert response.status == 200
    assert received.startswith(dialect.beginning)
    last = received.removeprefix(dialect.beginning)
    assert half not in received
    assert error_of(last[last.index(b"{") :], dialect)
    assert was_cut is (dialect.provider == "gemini")
    assert "error=upstream_cut" in running.log()


async def test_a_stream_that_falls_silent_ends_with_an_error(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(chunks=[dialect.beginning], content_type=SSE, gap_s=5))
    running = await gateway(upstream_section(upstream, dialect.provider, lines="idle-timeout = 0.1"))

    received = b""
    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as response:
        try:
            async for chunk in response.content.iter_any():
                received += chunk
        except aiohttp.ClientPayloadError:
            assert dialect.provider == "gemini"

    last = received.removeprefix(dialect.beginning)
    assert "in time" in error_of(last[last.index(b"{") :], dialect)["message"]


async def test_a_stream_that_is_complete_may_be_left_open_by_its_upstream(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    wire = dialect.beginning + dialect.rest
    upstream.script(Reply(chunks=[wire], content_type=SSE, gap_s=5))
    running = await gateway(upstream_section(upstream, dialect.provider, lines="idle-timeout = 0.1"))

    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as response:
        assert await response.read() == wire


@pytest.mark.parametrize(
    "rest",
    [b'data: {"choices":[],"usa', b"data: [DO", b"event: mess", b": comm"],
    ids=["json", "done", "name", "comment"],
)
async def test_half_an_event_is_not_passed_on_even_behind_the_end(
    rest: bytes, dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    wire = dialect.beginning + dialect.rest
    upstream.script(Reply(chunks=[wire, rest], content_type=SSE))
    running = await gateway(upstream_section(upstream, dialect.provider))

    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as response:
        assert await response.read() == wire


async def test_comments_do_not_count_as_the_first_event(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # OpenRouter sends comments while it waits for its own upstream; what follows may be an error.
    comment, error = b": OPENROUTER PROCESSING\n\n", b'{"error":{"message":"slow","code":429,"type":null,"param":null}}'
    good = DIALECTS["openai-chat"].beginning + DIALECTS["openai-chat"].rest
    upstream.script(
        Reply(chunks=[comment, b"data: " + error + b"\n\n"], content_type=SSE, gap_s=0.02),
        Reply(chunks=[comment, good], content_type=SSE, gap_s=0.02),
        Reply(chunks=[comment], content_type=SSE, gap_s=0.02),
    )
    running = await gateway(upstream_section(upstream, "openai"))

    answers: list[tuple[int, bytes]] = []
    for _ in range(3):
        async with http.post(f"{running.url}/v1/chat/completions", data=b'{"model":"m","stream":true}') as response:
            answers.append((response.status, await response.read()))

    assert answers[0][0] == 429
    assert msgspec.json.decode(answers[0][1])["error"]["message"] == "slow"
    assert answers[1] == (200, comment + good)
    assert answers[2][0] == 502


@pytest.mark.parametrize("chunks", [[b""], [b"data: {"]])
async def test_a_stream_that_ends_before_its_first_event_is_a_502(
    chunks: list[bytes], dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(chunks=chunks, content_type=SSE))
    running = await gateway(upstream_section(upstream, dialect.provider))

    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as response:
        body = await response.read()

    assert response.status == 502
    assert error_of(body, dialect)


async def test_a_stream_answered_whole_is_a_502(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", content_type="text/plain"))
    running = await gateway(upstream_section(upstream, dialect.provider))

    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as response:
        body = await response.read()

    assert response.status == 502
    assert "stream" in error_of(body, dialect)["message"]


async def test_a_stream_that_begins_with_an_error_is_an_ordinary_error(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    error = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    upstream.script(Reply(chunks=[b"event: error\ndata: " + error + b"\n\n"], content_type=SSE))
    running = await gateway(upstream_section(upstream, "anthropic"))

    async with http.post(f"{running.url}/v1/messages", data=b'{"model":"m","stream":true}') as response:
        body = await response.read()

    assert response.status == 529
    assert body == error


async def test_a_gemini_array_stream_passes_and_a_cut_one_is_cut(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    first, last = b'[{"candidates":[{"content":{}}]}', b',\r\n{"candidates":[{"finishReason":"STOP"}]}]'
    upstream.script(Reply(chunks=[first, last], gap_s=0.02), Reply(chunks=[first], gap_s=0.02))
    running = await gateway(upstream_section(upstream, "gemini"))
    url = f"{running.url}/v1beta/models/m:streamGenerateContent"

    async with http.post(url, data=b"{}") as response:
        whole = await response.read()
    async with http.post(url, data=b"{}") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()

    assert whole == first + last


async def test_a_caller_that_leaves_stops_the_upstream_call_within_a_second(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(chunks=[dialect.beginning] * 1000, content_type=SSE, gap_s=0.05))
    running = await gateway(upstream_section(upstream, dialect.provider))

    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as response:
        await response.content.readany()
        response.close()
    started = time.monotonic()
    await asyncio.wait_for(upstream.cancelled.wait(), 5)

    assert time.monotonic() - started < 1
    assert "status=499" in running.log()


async def test_a_caller_that_leaves_before_the_answer_stops_the_upstream_call(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(wait_s=30))
    running = await gateway(upstream_section(upstream, dialect.provider))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(http, running.url, dialect), 0.2)
    await asyncio.wait_for(upstream.cancelled.wait(), 1)

    assert "status=499" in running.log()


# Fallback and loops.


async def test_the_next_target_answers_when_the_first_does_not(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", status=503), Reply(b'{"fine":true}'))
    ini = upstream_section(upstream, dialect.provider, "a") + upstream_section(upstream, dialect.provider, "b")
    running = await gateway(ini + "[model m]\ntargets = a/one, b/two\n")

    response, body = await call(http, running.url, dialect)

    assert body == b'{"fine":true}'
    assert response.headers["x-aiproxyd-attempts"] == "2"
    assert response.headers["x-aiproxyd-upstream"] == "b"


async def test_a_request_that_is_at_fault_itself_is_not_tried_again(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}", status=400))
    ini = upstream_section(upstream, dialect.provider, "a") + upstream_section(upstream, dialect.provider, "b")
    running = await gateway(ini + "[model m]\ntargets = a/one, b/two\n")

    response, _ = await call(http, running.url, dialect)

    assert response.status == 400
    assert len(upstream.received) == 1


async def test_a_method_that_has_no_equal_in_the_upstreams_format_is_refused(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "anthropic"))

    async with http.post(running.url + "/v1beta/models/m:predictLongRunning", data=b"{}") as response:
        body = await response.read()

    assert response.status == 400
    assert "no such method" in error_of(body, DIALECTS["gemini"])["message"]


async def test_a_request_that_comes_back_to_us_is_a_508(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    running = await gateway(upstream_section(upstream, "openai"))
    upstream.script(Reply(b"{}"))
    await call(http, running.url, DIALECTS["openai-chat"])
    via = upstream.received[0].headers["Via"]

    async with http.post(f"{running.url}/v1/chat/completions", data=b'{"model":"m"}', headers={"Via": via}) as response:
        assert response.status == 508

    assert len(upstream.received) == 1


async def test_two_lines_of_via_are_both_looked_at_and_both_kept(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # Each proxy may add a header line of its own; only the first used to count.
    running = await gateway(upstream_section(upstream, "openai"))
    upstream.script(Reply(b"{}"))
    url = f"{running.url}/v1/chat/completions"

    async with http.post(url, data=b'{"model":"m"}', headers=[("Via", "1.1 a"), ("Via", "1.0 b")]) as response:
        assert response.status == 200
    via = upstream.received[0].headers.getall("Via")
    mark = via[0].removeprefix("1.1 a, 1.0 b, ")
    async with http.post(url, data=b'{"model":"m"}', headers=[("Via", "1.1 a"), ("Via", mark)]) as response:
        assert response.status == 508

    assert via == [f"1.1 a, 1.0 b, {mark}"]
    assert mark.startswith("1.1 aiproxyd-")
    assert len(upstream.received) == 1


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 505, 520, 529, 599])
async def test_every_5xx_is_tried_at_the_next_target(
    status: int, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # Only some of them used to count: Cloudflare's 520 to 526 did not.
    upstream.script(Reply(b"{}", status=status), Reply(b'{"fine":true}'))
    ini = upstream_section(upstream, "openai", "a") + upstream_section(upstream, "openai", "b")
    running = await gateway(ini + "[model m]\ntargets = a/one, b/two\n")

    response, body = await call(http, running.url, DIALECTS["openai-chat"])

    assert (response.status, body) == (200, b'{"fine":true}')
    assert response.headers["x-aiproxyd-attempts"] == "2"


async def test_the_request_timeout_bounds_all_attempts_together(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # Each attempt used to have the whole of it, so that three targets took three times as long.
    upstream.script(Reply(b"{}", status=503, wait_s=0.15), Reply(b"{}", status=503, wait_s=5))
    ini = "".join(
        upstream_section(upstream, dialect.provider, name, "request-timeout = 0.3") for name in ("a", "b", "c")
    )
    running = await gateway(ini + "[model m]\ntargets = a/one, b/two, c/three\n")
    started = time.monotonic()

    response, body = await call(http, running.url, dialect)

    assert response.status == 504
    assert "in time" in error_of(body, dialect)["message"]
    assert 0.25 < time.monotonic() - started < 1
    assert response.headers["x-aiproxyd-attempts"] == "2"
    assert len(upstream.received) == 2


@pytest.mark.parametrize("failure", ["refused", "no HTTP", "cut", "status 503", "status 400"])
async def test_the_log_of_a_failed_attempt_has_neither_the_upstreams_text_nor_the_query(
    failure: str,
    babbler: str,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Upstreams quote prompts in their errors, and aiohttp's exceptions show the URL.
    caplog.set_level("INFO")
    refusal = b'{"error":{"message":"SECRET prompt","type":"x","code":null,"param":null}}'
    upstream.script(
        Reply(refusal, status=int(failure[-3:])) if failure.startswith("status") else Reply(refusal, cut=True)
    )
    ini = upstream_section(upstream, "openai")
    if failure == "no HTTP":
        ini = f"[upstream up]\nprovider = openai\nbase-url = {babbler}\n"
    running = await gateway(ini)
    if failure == "refused":
        await upstream.stop()

    async with http.post(f"{running.url}/v1/chat/completions?x=SECRET", data=b'{"model":"m"}') as response:
        assert response.status >= 400

    ours = [record.getMessage() for record in caplog.records if record.name.startswith("aiproxyd.")]
    (line,) = [line for line in ours if "attempt 1 at up/m#1 failed" in line]
    assert "SECRET" not in str(ours)
    assert ("refused with status" in line) is failure.startswith("status")


# Keys of ours.


@pytest.mark.parametrize("status", [400, 402, 403, 404, 422, 429, 500, 503])
@pytest.mark.parametrize("path", ["own", "/v1/files"])
async def test_no_error_of_an_upstream_that_is_passed_on_shows_our_keys(
    path: str, status: int, dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # "Incorrect API key provided: sk-..." came through where its status was another than 401.
    error = {"message": "no use for sk-upstream or sk-other", "type": "x", "code": status, "status": "X"}
    answer = {"type": "error", "error": error, "request_id": "req_1"}
    upstream.script(Reply(msgspec.json.encode(answer), status=status))
    section = upstream_section(upstream, dialect.provider).replace("sk-upstream", "sk-upstream, sk-other")
    running = await gateway(section)
    headers = {"gemini": {"x-goog-api-client": "x"}, "anthropic": {"anthropic-version": "x"}}.get(dialect.provider, {})
    url = running.url + (dialect.path if path == "own" else path)

    async with http.post(url, data=dialect.body, headers=headers) as response:
        body = await response.read()

    assert response.status == status
    assert error_of(body, dialect)["message"] == "no use for *** or ***"
    assert b"sk-" not in body


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("openai-chat", 400, {"message": "sk-***am", "code": "invalid_api_key"}),
        ("openai-responses", 403, {"message": "sk-***am", "type": "authentication_error"}),
        ("anthropic", 403, {"message": "sk-***am", "type": "authentication_error"}),
        ("gemini", 400, {"message": "AI***am", "code": 400, "details": [{"reason": "API_KEY_INVALID"}]}),
        ("gemini", 403, {"message": "AI***am", "code": 403, "details": [{"reason": "API_KEY_SERVICE_BLOCKED"}]}),
        ("gemini", 403, {"message": "AI***am", "code": 403, "details": [{"reason": "CONSUMER_SUSPENDED"}]}),
    ],
)
async def test_a_refusal_of_our_key_is_ours_whatever_its_status(
    name: str,
    status: int,
    error: dict[str, Any],
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    dialect = DIALECTS[name]
    upstream.script(Reply(msgspec.json.encode({"type": "error", "error": error}), status=status))
    running = await gateway(upstream_section(upstream, dialect.provider), attempts=())

    response, body = await call(http, running.url, dialect)
    async with http.get(f"{running.url}/ready") as ready:
        pass

    assert response.status == 502
    assert error_of(body, dialect)["message"] == "the upstream refused the gateway's credential"
    assert b"***" not in body
    assert ready.status == 503
    assert "error=upstream_key_refused" in running.log()


# How long things may take.


@pytest.mark.parametrize("path", ["/v1/files", "/v1/images/generations"])
async def test_an_upload_may_take_longer_than_an_answer_while_it_moves(
    path: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # The clock of the answer used to run from the first byte of the upload.
    upstream.script(Reply(b"{}", wait_s=0.2))
    running = await gateway(upstream_section(upstream, "openai", lines="first-event-timeout = 0.3\nidle-timeout = 0.3"))

    async def send() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"x" * 1000
            await asyncio.sleep(0.1)

    async with http.post(
        running.url + path, data=send(), headers={"Content-Type": "application/octet-stream"}
    ) as response:
        assert response.status == 200

    assert upstream.received[0].body == b"x" * 6000


async def test_an_upload_that_stalls_ends(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(Reply(b"{}"))
    running = await gateway(upstream_section(upstream, "openai", lines="idle-timeout = 0.2"))

    async def send() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await asyncio.sleep(30)

    started = time.monotonic()
    async with http.post(
        f"{running.url}/v1/files", data=send(), headers={"Content-Type": "application/octet-stream"}
    ) as response:
        answer = msgspec.json.decode(await response.read())

    assert (response.status, answer["error"]["code"]) == (408, "request_timeout")
    assert time.monotonic() - started < 2


async def test_an_upstream_may_answer_before_it_has_got_everything(gateway: StartGateway) -> None:
    # The clock of the upload is over by then, and must not be set any more.
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 415 X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        running = await gateway(f"[upstream up]\nprovider = openai\nbase-url = http://127.0.0.1:{port}/v1\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
        writer.write(b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc")

        answer = await asyncio.wait_for(reader.readline(), 5)

        writer.write(b"defghi")
        writer.close()
        await writer.wait_closed()
        await running.runner.cleanup()
    assert answer.startswith(b"HTTP/1.1 415 ")


async def test_a_body_that_does_not_come_is_a_408(
    dialect: Dialect,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A caller who sends a byte a minute held a connection for as long as it liked.
    monkeypatch.setattr("aiproxyd.handlers.reading.BODY_TIMEOUT_S", 0.1)
    running = await gateway(upstream_section(upstream, dialect.provider))

    async def send() -> AsyncIterator[bytes]:
        yield b'{"model":'
        await asyncio.sleep(30)

    async with http.post(running.url + dialect.path, data=send()) as response:
        body = await response.read()

    assert response.status == 408
    assert error_of(body, dialect)["message"] == "the request body did not come within 0.1 seconds"
    assert response.headers["x-should-retry"] == "false"
    assert upstream.received == []


@pytest.mark.parametrize("name", ["openai-chat", "openai-responses", "anthropic"])
async def test_a_connection_is_not_kept_behind_the_last_event(
    name: str,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Caller and connection waited out the idle-timeout, 300 s, for an upstream that does not close.
    monkeypatch.setattr("aiproxyd.providers.base.END_PATIENCE_S", 0.1)
    dialect = DIALECTS[name]
    wire = dialect.beginning + dialect.rest
    upstream.script(Reply(chunks=[wire, b": never\n\n"], content_type=SSE, gap_s=30))
    running = await gateway(upstream_section(upstream, dialect.provider))
    started = time.monotonic()

    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as response:
        assert await response.read() == wire
    await asyncio.wait_for(upstream.cancelled.wait(), 5)

    assert time.monotonic() - started < 2
    assert "error=" not in running.log()


@pytest.mark.parametrize("kind", ["stream", "bytes"])
async def test_a_caller_that_takes_nothing_any_more_is_cut_off(
    kind: str,
    upstream: Upstream,
    gateway: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Writing to it waited without end, and held the upstream's connection.
    monkeypatch.setattr("aiproxyd.relay.STALLED_READER_S", 0.1)
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"a" * 100_000)
    upstream.script(Reply(chunks=[event] * 1000, content_type=SSE if kind == "stream" else "audio/wav"))
    running = await gateway(upstream_section(upstream, "openai", lines="request-timeout = 1.5"))
    path = b"/v1/chat/completions" if kind == "stream" else b"/v1/audio/speech"
    body = b'{"model":"m","stream":true}'

    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]), limit=10_000_000)
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (path, len(body), body)
    )
    await asyncio.wait_for(upstream.cancelled.wait(), 15)
    async with asyncio.timeout(15):
        received = await reader.read(-1)
    writer.close()
    await writer.wait_closed()

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert "error=caller_stalled" in running.log()
    assert len(received) < 50_000_000
    assert not received.endswith(b"0\r\n\r\n")


# Whether a stream is complete.


def finish_of(name: str, index: int) -> bytes:
    if name == "gemini":
        return b'data: {"candidates":[{"index":%d,"finishReason":"STOP"}]}\r\n\r\n' % index
    return b'data: {"choices":[{"index":%d,"delta":{},"finish_reason":"stop"}]}\n\n' % index


@pytest.mark.parametrize(
    ("name", "end", "is_complete"),
    [
        ("openai-chat", finish_of("openai-chat", 1), False),
        ("openai-chat", finish_of("openai-chat", 1) * 2, False),
        ("openai-chat", finish_of("openai-chat", 1) + finish_of("openai-chat", 0), True),
        ("openai-chat", finish_of("openai-chat", 1) + b"data: [DONE]\n\n", True),
        ("gemini", finish_of("gemini", 0), False),
        ("gemini", finish_of("gemini", 0) + finish_of("gemini", 1), True),
    ],
)
async def test_a_stream_of_two_candidates_is_complete_when_both_are(
    name: str,
    end: bytes,
    is_complete: bool,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
) -> None:
    # The first finish used to count for all of them.
    dialect = DIALECTS[name]
    upstream.script(Reply(chunks=[dialect.beginning, end], content_type=SSE, gap_s=0.02))
    running = await gateway(upstream_section(upstream, dialect.provider))
    body = b'{"generationConfig":{"candidateCount":2}}' if name == "gemini" else b'{"model":"m","stream":true,"n":2}'

    received = b""
    async with http.post(running.url + dialect.stream_path, data=body) as response:
        try:
            async for chunk in response.content.iter_any():
                received += chunk
        except aiohttp.ClientPayloadError:
            assert name == "gemini"

    assert received.startswith(dialect.beginning + end)
    assert (received == dialect.beginning + end) is is_complete
    assert ("error=upstream_cut" in running.log()) is not is_complete


ERROR_EVENTS = {
    "openai-chat": b'data: {"error":{"message":"x","type":"server_error","code":null,"param":null}}\n\n',
    "openai-responses": b'event: error\ndata: {"type":"error","message":"x","code":"server_error"}\n\n',
    "anthropic": b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n',
    "gemini": b'data: {"error":{"code":500,"message":"x","status":"INTERNAL"}}\r\n\r\n',
}


@pytest.mark.parametrize("name", ERROR_EVENTS)
async def test_an_upstreams_own_error_in_a_stream_is_passed_on_and_logged(
    name: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # Gemini CLI takes it for an empty chunk unless the connection is cut, and our log called it a success.
    dialect = DIALECTS[name]
    wire = dialect.beginning + ERROR_EVENTS[name]
    upstream.script(Reply(chunks=[dialect.beginning, ERROR_EVENTS[name]], content_type=SSE, gap_s=0.02))
    running = await gateway(upstream_section(upstream, dialect.provider))

    received, was_cut = b"", False
    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as response:
        try:
            async for chunk in response.content.iter_any():
                received += chunk
        except aiohttp.ClientPayloadError:
            was_cut = True

    assert received == wire
    assert was_cut is (name == "gemini")
    assert "error=upstream_error" in running.log()


async def test_a_success_other_than_200_keeps_its_status(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # A 202 came out as a 502.
    wire = dialect.beginning + dialect.rest
    upstream.script(Reply(b'{"queued":true}', status=202), Reply(chunks=[wire], status=201, content_type=SSE))
    running = await gateway(upstream_section(upstream, dialect.provider))

    response, body = await call(http, running.url, dialect)
    async with http.post(running.url + dialect.stream_path, data=dialect.stream_body) as stream:
        assert await stream.read() == wire

    assert (response.status, body, stream.status) == (202, b'{"queued":true}', 201)


async def test_errors_of_the_caller_are_not_to_be_tried_again_and_others_may(
    dialect: Dialect, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # Claude Code tried a wrong key ten times.
    upstream.script(Reply(b"{}", status=503))
    running = await gateway(upstream_section(upstream, dialect.provider))

    async with http.post(running.url + dialect.path, data=b"{") as malformed:
        pass
    async with http.get(f"{running.url}/nothing") as unknown:
        pass
    failed, _ = await call(http, running.url, dialect)

    assert [answer.headers.get("x-should-retry") for answer in (malformed, unknown, failed)] == ["false", "false", None]


@pytest.mark.parametrize("is_stream", [True, False])
async def test_our_key_is_taken_out_of_an_error_that_comes_with_a_success_status(
    is_stream: bool, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    # Only answers whose status was an error were looked through.
    error = b'{"error":{"message":"sk-upstream is out of credit","type":"x","code":null,"param":null}}'
    upstream.script(Reply(b"data: " + error + b"\n\n", content_type=SSE) if is_stream else Reply(error))
    running = await gateway(upstream_section(upstream, "openai"))

    body = b'{"model":"m","stream":%s}' % (b"true" if is_stream else b"false")
    async with http.post(f"{running.url}/v1/chat/completions", data=body) as response:
        answer = await response.read()

    assert response.status == 502
    assert msgspec.json.decode(answer)["error"]["message"] == "*** is out of credit"
    assert b"sk-upstream" not in answer
