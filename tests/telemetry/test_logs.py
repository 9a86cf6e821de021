"""What is in a log line, and what can never be."""

import asyncio
import hashlib
import io
import logging
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import pytest
from aiohttp import ClientConnectionResetError, web
from aiohttp.test_utils import TestServer
from yarl import URL

from aiproxyd.hub import Usage
from aiproxyd.inflight import InFlight
from aiproxyd.middlewares.context import context
from aiproxyd.middlewares.errors import errors
from aiproxyd.telemetry.logs import AccessLog, set_up_logging
from aiproxyd.telemetry.records import CallRecord, Try
from tests.conftest import StartGateway
from tests.support import Reply, Upstream, upstream_section

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
CHAT = Reply(
    b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}'
)
KEY = f"[key tablet]\nsecret = sha256:{hashlib.sha256(b'sk-caller').hexdigest()}\n"
FORGERIES = [
    "a\n2026-01-01T00:00:00.000Z INFO request id=x principal=admin status=200",
    "a\r\nb",
    'a" status=200 "b',
    "a status=200 principal=admin",
    "a\tb",
    "a\\",
    'a\\" status=200',
    "a\u2028b\u0085c\x0bd",
    "a\x1b[2Kb\x9b2Kc\x7f",
]


def fill(record: CallRecord) -> CallRecord:
    record.principal, record.model, record.upstream, record.upstream_model = "tablet", "fast", "up", "real"
    record.attempts = 2
    record.usage = Usage(input_tokens=5, cache_read_tokens=4, output_tokens=2)
    return record


# One line of the access log.


async def test_a_text_line_has_all_fields() -> None:
    stream = io.StringIO()
    log = AccessLog("text", stream)

    log.write("POST", "/v1/chat/completions", 200, fill(CallRecord("id-1")))
    log.flush()

    assert re.fullmatch(
        rf"{TIME} INFO request id=id-1 principal=tablet POST /v1/chat/completions model=fast upstream=up "
        r"upstream-model=real attempts=2 status=200 ms=\d+\.\d tokens=9\+2\n",
        stream.getvalue(),
    )


async def test_a_json_line_has_all_fields() -> None:
    stream = io.StringIO()
    log = AccessLog("json", stream)

    log.write("POST", "/v1/chat/completions", 200, fill(CallRecord("id-1")))
    log.flush()

    line = msgspec.json.decode(stream.getvalue())
    assert re.fullmatch(TIME, line.pop("time"))
    assert isinstance(line.pop("ms"), float)
    assert line == {
        "level": "info",
        "message": "request",
        "request_id": "id-1",
        "principal": "tablet",
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "fast",
        "upstream": "up",
        "upstream_model": "real",
        "attempts": 2,
        "status": 200,
        "tokens": {
            "input_tokens": 5,
            "cache_read_tokens": 4,
            "cache_write_tokens": None,
            "output_tokens": 2,
            "reasoning_tokens": None,
        },
    }


async def test_what_is_not_known_is_a_dash_or_empty() -> None:
    text, as_json = io.StringIO(), io.StringIO()
    record = CallRecord("id-1")
    record.error = "invalid_api_key"

    for log in (AccessLog("text", text), AccessLog("json", as_json)):
        log.write("GET", "/v1/models", 401, record)
        log.flush()

    assert "principal=- GET /v1/models model=- upstream=- status=401 ms=" in text.getvalue()
    assert text.getvalue().endswith(" tokens=- error=invalid_api_key\n")
    line = msgspec.json.decode(as_json.getvalue())
    assert (line["principal"], line["model"], line["upstream"], line["tokens"]) == ("-", "", "", None)
    assert line["error"] == "invalid_api_key"


async def test_a_text_line_keeps_quiet_about_what_is_as_ever() -> None:
    stream = io.StringIO()
    log = AccessLog("text", stream)
    record = fill(CallRecord("id-1"))
    record.upstream_model, record.attempts = record.model, 1

    log.write("POST", "/v1/chat/completions", 200, record)
    log.flush()

    assert " model=fast upstream=up status=200 " in stream.getvalue()


async def test_the_story_of_several_attempts_is_told() -> None:
    text, as_json = io.StringIO(), io.StringIO()
    record = fill(CallRecord("id-1"))
    record.tries = [Try("up", "real", 1, "cut", 12.34, Usage(input_tokens=1), True), Try("down", 'x"', 0, "ok", 5.0)]
    record.is_usage_estimated = True

    for log in (AccessLog("text", text), AccessLog("json", as_json)):
        log.write("POST", "/v1/messages", 200, record)
        log.flush()

    assert r' attempts=2 tried="up/real#2:cut:~1+0,down/x\"#1:ok" status=200 ' in text.getvalue()
    assert text.getvalue().endswith(" tokens=~9+2\n")
    line = msgspec.json.decode(as_json.getvalue())
    assert line["tokens_estimated"] is True
    assert line["tried"][0].pop("tokens")["input_tokens"] == 1
    assert line["tried"] == [
        {"upstream": "up", "model": "real", "key": 2, "outcome": "cut", "ms": 12.3, "tokens_estimated": True},
        {"upstream": "down", "model": 'x"', "key": 1, "outcome": "ok", "ms": 5.0},
    ]


async def test_what_a_single_failed_attempt_cost_is_told() -> None:
    text = io.StringIO()
    record = fill(CallRecord("id-1"))
    record.usage = None
    record.tries = [Try("up", "real", 0, "upstream_timeout", 12.34, Usage(input_tokens=5), True)]

    log = AccessLog("text", text)
    log.write("POST", "/v1/messages", 504, record)
    log.flush()

    assert ' tried="up/real#1:upstream_timeout:~5+0" ' in text.getvalue()


async def test_lines_are_written_together_a_moment_later() -> None:
    stream = io.StringIO()
    log = AccessLog("text", stream)

    log.write("GET", "/a", 200, CallRecord("id-1"))
    log.write("GET", "/b", 200, CallRecord("id-2"))
    at_once = stream.getvalue()
    await asyncio.sleep(0.1)
    later = stream.getvalue()
    log.write("GET", "/c", 200, CallRecord("id-3"))
    await asyncio.sleep(0.1)

    assert at_once == ""
    assert re.findall(r"id=(\S+)", later) == ["id-1", "id-2"]
    assert re.findall(r"id=(\S+)", stream.getvalue()) == ["id-1", "id-2", "id-3"]


async def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log = AccessLog("text")

    log.write("GET", "/a", 200, CallRecord("id-1"))
    log.flush()
    log.flush()

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("id=id-1") == 1


@pytest.mark.parametrize("text", FORGERIES)
async def test_no_name_forges_a_line_or_a_field(text: str) -> None:
    stream = io.StringIO()
    log = AccessLog("text", stream)
    record = fill(CallRecord("id-1"))
    record.principal = record.model = text
    record.upstream_model = f"real {text}"

    log.write("GET", text, 200, record)
    log.flush()

    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "QUOTED", line)
    assert re.fullmatch(
        rf"{TIME} INFO request id=id-1 principal=QUOTED GET QUOTED model=QUOTED upstream=up "
        r"upstream-model=QUOTED attempts=2 status=200 ms=\S+ tokens=9\+2",
        bare,
    )
    assert [msgspec.json.decode(found) for found in re.findall(r'"(?:[^"\\]|\\.)*"', line)] == [
        text,
        text,
        text,
        f"real {text}",
    ]


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_a_long_name_is_cut(log_format: str) -> None:
    stream = io.StringIO()
    log = AccessLog("json" if log_format == "json" else "text", stream)
    record = CallRecord("id-1")
    record.model = "x" * 1_000_000
    record.upstream_model = "y" * 1_000_000

    log.write("GET", "/a", 200, record)
    log.flush()

    assert stream.getvalue().count("x") == 256
    assert stream.getvalue().count("y") == 256


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_a_name_that_is_no_unicode_is_logged_all_the_same(log_format: str) -> None:
    stream = io.StringIO()
    log = AccessLog("json" if log_format == "json" else "text", stream)

    log.write("GET", "/a\udcff", 200, CallRecord("id-1"))
    log.flush()

    assert stream.getvalue().count("\n") == 1
    assert "/a" in stream.getvalue()


# The access log of a gateway.


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("name", FORGERIES)
async def test_no_caller_forges_a_line(
    name: str, log_format: str, upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(CHAT)
    running = await gateway(upstream_section(upstream, "openai"), log_format=log_format)

    async with http.post(f"{running.url}/v1/chat/completions", json={"model": name, "messages": []}) as response:
        body_status = response.status
    async with http.post(
        URL(f"{running.url}/v1beta/models/{quote(name, safe='')}:generateContent", encoded=True), data=b"{}"
    ) as response:
        path_status = response.status
    async with http.get(URL(f"{running.url}/v1/{quote(name, safe='')}?model=x", encoded=True)) as response:
        pass

    assert body_status in (200, 400)
    assert path_status in (400, 404)
    lines = running.log().splitlines() if log_format == "text" else running.log().removesuffix("\n").split("\n")
    assert len(lines) == 3
    if log_format == "json":
        assert [msgspec.json.decode(line)["status"] for line in lines] == [body_status, path_status, response.status]
    else:
        assert [re.sub(r'"(?:[^"\\]|\\.)*"', "", line).count("status=") for line in lines] == [1, 1, 1]


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_bodies_queries_and_keys_never_get_into_a_log(
    log_format: str,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    replies = [
        CHAT,
        Reply(b'{"error":{"message":"bad sk-upstream"}}', 401),
        Reply(b'{"error":{"message":"SECRET-ANSWER"}}', 500),
        Reply(b"SECRET-ANSWER"),
        Reply(b'{"choices":["SECRET-ANSWER"]}', cut=True),
    ]
    upstream.script(*replies)
    running = await gateway(upstream_section(upstream, "openai") + KEY, log_format=log_format)
    body = b'{"model":"m","messages":[{"role":"user","content":"SECRET-PROMPT"}]}'
    calls: list[tuple[str, bytes, dict[str, str]]] = [
        ("/v1/chat/completions?key=sk-caller&q=SECRET-QUERY", body, {}) for _ in replies
    ]
    calls += [
        ("/v1/chat/completions?q=SECRET-QUERY", body, {"Authorization": "Bearer sk-wrong-caller"}),
        ("/v1/chat/completions?key=sk-caller", body[:-1], {}),
        ("/v1/files?key=sk-caller&q=SECRET-QUERY", body, {"Content-Type": "text/plain"}),
        ("/nowhere?key=sk-caller", body, {}),
    ]

    for target, data, headers in calls:
        async with http.post(running.url + target, data=data, headers=headers) as response:
            await response.read()

    # The scripted upstream logs what it is asked, too.
    log = running.log() + "\n".join(line for line in caplog.messages if "HTTP/1.1" not in line)
    assert running.log().count("\n") == len(calls)
    secrets = ["sk-upstream", "sk-caller", "sk-wrong-caller", "SECRET-PROMPT", "SECRET-QUERY", "?"]
    assert [secret for secret in secrets if secret in log] == []


async def test_a_line_says_what_became_of_a_request(
    upstream: Upstream, gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    upstream.script(CHAT)
    ini = upstream_section(upstream, "openai") + KEY + "[model fast]\ntargets = up/real\n"
    running = await gateway(ini, log_format="json")

    async with http.post(
        f"{running.url}/v1/chat/completions",
        json={"model": "fast"},
        headers={"x-api-key": "sk-caller", "x-request-id": "mine"},
    ) as response:
        await response.read()

    line: dict[str, Any] = msgspec.json.decode(running.log())
    assert (line["request_id"], line["principal"], line["model"], line["upstream"]) == ("mine", "tablet", "fast", "up")
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["tokens"]["input_tokens"], line["tokens"]["cache_read_tokens"], line["tokens"]["output_tokens"]) == (
        5,
        4,
        2,
    )


async def test_a_path_that_is_no_unicode_is_answered_and_logged(gateway: StartGateway) -> None:
    running = await gateway("[aiproxyd]\ndemo = yes\n")
    url = URL(running.url)

    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()

    assert re.match(rb"HTTP/1\.[01] 4\d\d ", answer)
    assert "admin" not in running.log()


# The log of the daemon.


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Hand out the root logger without handlers, and put everything back."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    yield root
    root.handlers = handlers
    root.setLevel(level)


def test_text_logs_have_one_line_for_each_record(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("info", "text")

    logging.getLogger("aiproxyd.x").info("%d upstreams", 3)
    logging.getLogger("aiproxyd.x").debug("hidden")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(rf"{TIME} INFO aiproxyd\.x: 3 upstreams\n", captured.err)


def test_json_logs_have_one_object_for_each_record(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("debug", "json")

    logging.getLogger("aiproxyd.x").debug('say "%s"\n', "é")

    line = msgspec.json.decode(capsys.readouterr().err)
    assert re.fullmatch(TIME, line.pop("time"))
    assert line == {"level": "debug", "logger": "aiproxyd.x", "message": 'say "é"\n'}


def test_a_caller_who_goes_while_being_answered_leaves_no_traceback(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("info", "text")
    log = logging.getLogger("aiohttp.server")

    for error in (ClientConnectionResetError("Cannot write to closing transport"), LookupError("a bug")):
        log.error("Error handling request", exc_info=error)

    logged = capsys.readouterr().err
    assert "closing transport" not in logged
    assert logged.count("Error handling request") == 1
    assert "LookupError: a bug" in logged


def log_a_failure() -> None:
    try:
        raise LookupError("gone")
    except LookupError:
        logging.getLogger("aiproxyd.x").exception("it failed")


def test_a_traceback_follows_its_line_in_text(root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("error", "text")

    log_a_failure()

    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(" ERROR aiproxyd.x: it failed")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "LookupError: gone"


def test_a_traceback_is_a_field_in_json(root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("error", "json")

    log_a_failure()

    (text,) = capsys.readouterr().err.splitlines()
    line = msgspec.json.decode(text)
    assert (line["level"], line["message"]) == ("error", "it failed")
    assert line["traceback"].startswith("Traceback (most recent call last):\n")
    assert line["traceback"].endswith("\nLookupError: gone")


# The messages of upstreams and the names of callers are logged as they are.
@pytest.mark.parametrize("text", FORGERIES)
def test_no_message_forges_a_line_in_text(
    text: str, root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("info", "text")

    logging.getLogger("aiproxyd.x").warning("upstream up failed: %s", text)

    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert re.match(rf"{TIME} WARNING aiproxyd\.x: upstream up failed: a", line)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_message_that_is_no_unicode_is_logged_all_the_same(
    log_format: str, root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("info", "json" if log_format == "json" else "text")

    logging.getLogger("aiproxyd.x").warning("a%s", "\udcff")

    (line,) = capsys.readouterr().err.splitlines()
    assert "aiproxyd.x" in line
    assert "Traceback" not in line


# aiohttp logs malformed requests with a traceback that quotes them.
@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_the_key_of_a_malformed_request_is_not_logged(
    log_format: str, root_logger: logging.Logger, gateway: StartGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    running = await gateway("[aiproxyd]\ndemo = yes\n")
    url = URL(running.url)
    set_up_logging("debug", "json" if log_format == "json" else "text")

    for request in (
        b"GET /v1/\xff?key=sk-caller HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nx-api-key sk-caller\r\n\r\n",
        b"sk-caller\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(request)
        answer = await reader.readline()
        writer.close()
        assert b" 400 " in answer

    logged = capsys.readouterr().err
    assert logged.count("Error handling request") == 3
    assert "sk-caller" not in logged


# The id stood only within the text, and not even there where it was not thought of.
async def test_what_is_logged_while_a_request_is_served_has_its_id_in_json(
    root_logger: logging.Logger,
    upstream: Upstream,
    gateway: StartGateway,
    http: aiohttp.ClientSession,
    capsys: pytest.CaptureFixture[str],
) -> None:
    upstream.script(Reply(b'{"error":{"message":"no"}}', 401), Reply(b"x" * 9, cut=True), CHAT)
    running = await gateway(upstream_section(upstream, "openai"), log_format="json")
    set_up_logging("info", "json")

    for made in ("refused", "cut", "good"):
        async with http.post(
            f"{running.url}/v1/chat/completions", json={"model": "m"}, headers={"x-request-id": made}
        ) as response:
            await response.read()
        logging.getLogger("aiproxyd.x").warning("between requests")

    lines = [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines()]
    told = [line.get("request_id") for line in lines if line["logger"].startswith("aiproxyd")]
    assert told == ["refused", "refused", None, "cut", None, None]
    assert [msgspec.json.decode(line)["request_id"] for line in running.log().splitlines()] == [
        "refused",
        "cut",
        "good",
    ]


async def test_a_bug_is_logged_with_the_id_of_its_request(
    root_logger: logging.Logger, http: aiohttp.ClientSession, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("info", "json")

    async def fail(_request: web.Request) -> web.Response:
        raise LookupError("gone")

    app = web.Application(middlewares=(context(AccessLog("json"), InFlight()), errors()))
    app.router.add_get("/", fail)
    async with TestServer(app) as server, http.get(server.make_url("/"), headers={"x-request-id": "mine"}) as response:
        assert response.status == 500

    logged = [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines()]
    (line,) = [line for line in logged if "traceback" in line]
    assert (line["level"], line["request_id"]) == ("error", "mine")


def test_a_second_set_up_replaces_the_first(root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "text")
    set_up_logging("error", "json")

    logging.getLogger("aiproxyd.x").info("hidden")
    logging.getLogger("aiproxyd.x").error("shown")

    (line,) = capsys.readouterr().err.splitlines()
    assert msgspec.json.decode(line)["message"] == "shown"
