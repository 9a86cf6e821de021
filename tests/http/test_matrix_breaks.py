"""Every caller's format with every upstream's: answers that break off, and callers who leave."""

import asyncio
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from tests.http.matrix import FLASH, GPT_5, LOCAL, OPUS, Cell, Stage, Talk, is_own, pairs
from tests.http.problems import CELLS, EXPECTED, INVALID, KEY, TOO_LONG, TYPE_KEYS, read_error, script
from tests.http.raw import send, write_request
from tests.support import Received, Reply

# --- Streams that fail


def event(data: Mapping[str, Any]) -> bytes:
    name = f"event: {data['type']}\n".encode() if "type" in data else b""
    return name + b"data: " + json.dumps(data).encode() + b"\n\n"


FIRST_ERRORS = {
    LOCAL: event({"error": {"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded"}}),
    GPT_5: event({"type": "error", "code": "rate_limit_exceeded", "message": "Slow down.", "param": None}),
    OPUS: event({"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}}),
    FLASH: event({"error": {"code": 429, "message": "Slow down.", "status": "RESOURCE_EXHAUSTED"}}),
}


@pairs(*CELLS, without=is_own)
def test_an_error_at_the_beginning_of_a_stream_is_an_ordinary_one(stage: Stage, name: str, cell: Cell) -> None:
    chunks = [b": hold the line\n\n", FIRST_ERRORS[cell]]
    if cell is OPUS:
        chunks[0] = event({"type": "ping"})
    script(stage, cell, Reply(chunks=chunks, content_type="text/event-stream"))

    problem = Talk(stage, name, cell.model, is_stream=True).fail("Hi")

    assert (*problem[:2], read_error(stage, name)[TYPE_KEYS[name]]) == EXPECTED[429].problem(name)
    assert "Slow down." in problem.message
    assert stage.callers[name].headers["content-type"].startswith("application/json")


FINISHES = {
    "openai-chat": rb'"finish_reason":\s*"|\[DONE\]',
    "openai-responses": rb"response\.completed|response\.incomplete",
    "anthropic": rb"message_stop|message_delta|\"stop_reason\":\s*\"",
    "gemini": rb"finishReason",
}
IN_BAND = {
    "openai-chat": rb'\ndata: \{"error":\{"message":"[^}]*\}\}\n\n$',
    "openai-responses": rb'\nevent: response\.failed\ndata: \{[^\n]*"code":"[^\n]*\n\n$',
    "anthropic": rb'\nevent: error\ndata: \{"type":"error","error":\{[^\n]*\n\n$',
    "gemini": rb'\ndata: \{"error":\{[^\n]*\}\}\r?\n\r?\n$',
}
WORDS = "and so on" * 20


@pairs(*CELLS, without=is_own)
@pytest.mark.parametrize("breaks", ["error mid-stream", "cut"])
def test_a_stream_that_breaks_is_not_whole(stage: Stage, name: str, cell: Cell, breaks: str) -> None:
    talk = Talk(stage, name, cell.model, is_stream=True)

    if name == "openai-responses":  # whose SDK does not raise, but shows the failure
        answer = talk.say(f"{WORDS} {breaks}")
        assert answer.stop == "failed"
        assert answer.raw.error.message
    else:
        problem = talk.fail(f"{WORDS} {breaks}")
        assert problem.message

    received = talk.caller.received
    assert b"and so" in received
    assert re.search(FINISHES[name], received) is None
    assert re.search(IN_BAND[name], received)
    assert (b"overloaded" in received.lower()) == (breaks != "cut")
    line = stage.log().splitlines()[-1]
    assert " error=upstream_" in line
    if cell in (OPUS, FLASH):  # which tell their usage from the beginning
        assert re.search(r" tokens=~100\+\d", line)


def fail_response(code: str, message: str) -> bytes:
    error = {"code": code, "message": message}
    response = {"id": "resp_1", "object": "response", "status": "failed", "output": [], "error": error}
    return event({"type": "response.failed", "sequence_number": 99, "response": response})


IN_BAND_ERRORS: Mapping[str, Mapping[Cell, bytes]] = {
    "rate limit": {
        **FIRST_ERRORS,
        GPT_5: fail_response("rate_limit_exceeded", "Slow down."),
    },
    "overload": {
        LOCAL: event({"error": {"message": "Busy.", "type": "server_error", "code": "server_is_overloaded"}}),
        GPT_5: fail_response("server_is_overloaded", "Busy."),
        OPUS: event({"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}),
        FLASH: event({"error": {"code": 503, "message": "Busy.", "status": "UNAVAILABLE"}}),
    },
    "too long": {
        LOCAL: event({"error": {"message": TOO_LONG[LOCAL], "type": INVALID, "code": "context_length_exceeded"}}),
        GPT_5: fail_response("context_length_exceeded", TOO_LONG[GPT_5]),
        OPUS: event({"type": "error", "error": {"type": INVALID, "message": TOO_LONG[OPUS]}}),
        FLASH: event({"error": {"code": 400, "message": TOO_LONG[FLASH], "status": "INVALID_ARGUMENT"}}),
    },
}
IN_BAND_WORDS: Mapping[str, Mapping[str, Any]] = {
    "rate limit": {
        "openai-chat": ("type", "rate_limit_error"),
        "openai-responses": ("code", "rate_limit_exceeded"),
        "anthropic": ("type", "rate_limit_error"),
        "gemini": ("code", 429),
    },
    "overload": {
        "openai-chat": ("type", "server_error"),
        "openai-responses": ("code", "server_is_overloaded"),  # by which Codex knows it
        "anthropic": ("type", "overloaded_error"),
        "gemini": ("code", 503),
    },
    "too long": {
        "openai-chat": ("code", "context_length_exceeded"),
        "openai-responses": ("code", "context_length_exceeded"),
        "anthropic": ("type", INVALID),
        "gemini": ("code", 400),
    },
}


@pairs(*CELLS, without=is_own)
@pytest.mark.parametrize("kind", IN_BAND_WORDS)
def test_an_error_within_a_stream_is_told_as_what_it_is(stage: Stage, name: str, cell: Cell, kind: str) -> None:
    vendor = stage.vendors[cell.upstream]

    def respond(received: Received) -> Reply:
        reply = vendor(received)
        assert reply.chunks is not None
        data = b"".join(reply.chunks).replace(b"\r\n", b"\n").split(b"\n\n")
        begun = b"\n\n".join(data[: len(data) // 2]) + b"\n\n"
        # At once with the beginning, it would be an ordinary error.
        return Reply(chunks=[begun, IN_BAND_ERRORS[kind][cell]], content_type="text/event-stream", gap_s=0.05)

    stage.upstreams[cell.upstream].respond(respond)
    path, body = write_request(name, cell.model, WORDS, is_stream=True)
    http = stage.callers[name].http

    received = b""
    with suppress(httpx2.RemoteProtocolError), http.stream("POST", stage.url + path, json=body) as response:
        for chunk in response.iter_bytes():
            received += chunk  # the last may be cut

    last = json.loads(received.rpartition(b"data: ")[2])
    error = last["response"]["error"] if name == "openai-responses" else last["error"]
    key, word = IN_BAND_WORDS[kind][name]
    assert error[key] == word
    if kind == "too long" and name == "anthropic":
        assert "prompt is too long" in error["message"]


@pairs(LOCAL, GPT_5, OPUS, without=lambda name, cell: name != "gemini")
@pytest.mark.parametrize("breaks", ["error mid-stream", "cut"])
def test_an_array_that_breaks_is_cut(stage: Stage, name: str, cell: Cell, breaks: str) -> None:
    path, body = write_request(name, cell.model, f"{WORDS} {breaks}", is_stream=True)

    with pytest.raises(httpx2.RemoteProtocolError):
        send(stage, name, path.partition("?")[0], body)

    assert b"finishReason" not in stage.callers[name].received


@pairs(*CELLS, without=is_own)
@pytest.mark.parametrize("breaks", ["error mid-stream", "cut"])
def test_an_answer_that_breaks_is_none(stage: Stage, name: str, cell: Cell, breaks: str) -> None:
    problem = Talk(stage, name, cell.model).fail(f"{WORDS} {breaks}")

    status = 500 if breaks == "error mid-stream" else 502
    assert (*problem[:2], read_error(stage, name)[TYPE_KEYS[name]]) == EXPECTED[500]._replace(status=status).problem(
        name
    )


def slow_down(stage: Stage, cell: Cell, gap_s: float) -> None:
    """Let the vendor of *cell* wait between the pieces of its streams."""
    vendor = stage.vendors[cell.upstream]

    def respond(received: Received) -> Reply:
        reply = vendor(received)
        assert reply.chunks is not None
        data = b"".join(reply.chunks)
        reply.chunks, reply.gap_s = [data[at : at + 4000] for at in range(0, len(data), 4000)], gap_s
        return reply

    stage.upstreams[cell.upstream].respond(respond)


@pairs(*CELLS, without=is_own)
def test_a_stream_that_falls_silent_is_not_whole(stage: Stage, name: str, cell: Cell) -> None:
    slow_down(stage, cell, 0.5)
    talk = Talk(stage, name, cell.model, is_stream=True)
    talk.url = stage.hasty_url

    if name == "openai-responses":
        assert talk.say(WORDS * 9).stop == "failed"
    else:
        assert talk.fail(WORDS * 9).message

    assert re.search(FINISHES[name], talk.caller.received) is None


@pairs(*CELLS, without=is_own)
def test_a_caller_who_leaves_ends_the_upstreams_stream(stage: Stage, name: str, cell: Cell) -> None:
    slow_down(stage, cell, 0.1)
    cancelled = stage.upstreams[cell.upstream].cancelled
    cancelled.clear()
    path, body = write_request(name, cell.model, WORDS * 9, is_stream=True)

    with stage.callers[name].http.stream("POST", stage.url + path, json=body) as response:
        assert next(response.iter_bytes())
        assert response.status_code == 200

    assert stage.run(asyncio.wait_for(cancelled.wait(), 1))
    assert re.search(r" status=499 .*tokens=", stage.log().splitlines()[-1])


@pairs(*CELLS, without=is_own)
def test_a_caller_who_does_not_wait_ends_the_upstreams_work(stage: Stage, name: str, cell: Cell) -> None:
    script(stage, cell, Reply(wait_s=3))
    cancelled = stage.upstreams[cell.upstream].cancelled
    cancelled.clear()
    path, body = write_request(name, cell.model, "Hi")

    with pytest.raises(httpx2.ReadTimeout):
        stage.callers[name].http.post(stage.url + path, json=body, timeout=0.1)

    assert stage.run(asyncio.wait_for(cancelled.wait(), 1))


@pairs(*CELLS, without=is_own)
@pytest.mark.parametrize("begun", [0, 1, 9])
def test_our_key_is_in_no_error_of_a_stream(stage: Stage, name: str, cell: Cell, begun: int) -> None:
    vendor = stage.vendors[cell.upstream]

    def respond(received: Received) -> Reply:
        reply = vendor(received)
        assert reply.chunks is not None
        events = b"".join(reply.chunks).replace(b"\r\n", b"\n").split(b"\n\n")[:begun]
        error = IN_BAND_ERRORS["overload"][cell].replace(b"Busy.", f"Busy, {KEY}.".encode())
        chunks = [*(each + b"\n\n" for each in events), error]
        return Reply(chunks=chunks, content_type="text/event-stream")

    stage.upstreams[cell.upstream].respond(respond)
    path, body = write_request(name, cell.model, WORDS, is_stream=True)

    with suppress(httpx2.RemoteProtocolError):
        send(stage, name, path, body)

    assert b"Busy, ***." in stage.callers[name].received
    assert KEY.encode() not in stage.callers[name].received
    assert KEY not in stage.log()
