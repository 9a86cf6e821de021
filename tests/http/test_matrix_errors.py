"""Every caller's format with every upstream's: refusals, nonsense, silence."""

import json

import pytest

from tests.http.callers import Problem
from tests.http.matrix import FLASH, GPT_5, LOCAL, STREAM, Cell, Stage, Talk, is_own, pairs
from tests.http.problems import CELLS, EXPECTED, KEY, TOO_LONG, TYPE_KEYS, read_error, refusal, script
from tests.support import Reply
from tests.vendors.scene import RETRY_AFTER_S


@pairs(*CELLS, without=is_own)
@STREAM
@pytest.mark.parametrize("status", EXPECTED)
def test_a_refusal_is_raised_as_what_it_is(stage: Stage, name: str, cell: Cell, is_stream: bool, status: int) -> None:
    script(stage, cell, refusal(cell, status, f"No, because of {KEY}."))

    problem = Talk(stage, name, cell.model, is_stream=is_stream).fail("Hi")

    error = read_error(stage, name)
    assert (*problem[:2], error[TYPE_KEYS[name]]) == EXPECTED[status].problem(name)
    assert ("No, because of ***." in error["message"]) == (status != 401)
    if name == "gemini":
        assert error["code"] == EXPECTED[status].problem(name)[1]
    headers = stage.callers[name].headers
    if status in (429, 503, 529):
        assert headers["retry-after"] == str(RETRY_AFTER_S)
    if name == "gemini" and status in (429, 503):
        assert error["details"][0]["retryDelay"] == f"{RETRY_AFTER_S}s"
    seen = stage.callers[name].received.decode() + str(headers)
    assert [word for word in (KEY, "leak", "foreign", "FOREIGN", "1234567") if word in seen] == []


@pairs(*CELLS, without=is_own)
@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_client_is_always_told_how_long_to_wait(stage: Stage, name: str, cell: Cell, status: int) -> None:
    body = json.dumps({"error": {"message": "Wait."}}).encode()
    script(stage, cell, Reply(body, status))

    assert Talk(stage, name, cell.model).fail("Hi").message

    assert int(stage.callers[name].headers["retry-after"]) > 0


def assert_too_long(stage: Stage, name: str, problem: Problem) -> None:
    error = read_error(stage, name)
    assert problem.status == 400
    match name:
        case "anthropic":
            assert "prompt is too long" in error["message"]
        case "gemini":
            assert error["status"] == "INVALID_ARGUMENT"
        case _:
            assert error["code"] == "context_length_exceeded"


@pairs(*CELLS, without=is_own)
@STREAM
def test_a_prompt_that_is_too_long_is_known_as_one(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    script(stage, cell, refusal(cell, 400, TOO_LONG[cell], "context_length_exceeded"))

    assert_too_long(stage, name, Talk(stage, name, cell.model, is_stream=is_stream).fail("Hi"))


@pairs(LOCAL, GPT_5, without=is_own)
def test_an_empty_account_is_none_to_wait_for(stage: Stage, name: str, cell: Cell) -> None:
    script(stage, cell, refusal(cell, 429, "You exceeded your current quota.", "insufficient_quota"))

    problem = Talk(stage, name, cell.model).fail("Hi")

    words = {"openai": "insufficient_quota", "anthropic": "billing_error", "gemini": "RESOURCE_EXHAUSTED"}
    assert problem.status in (402, 429)
    assert read_error(stage, name)[TYPE_KEYS[name]] == words[name.partition("-")[0]]


# --- Nonsense and silence


NONSENSE = {
    "html": Reply(b"<html><body>Welcome!</body></html>", content_type="text/html"),
    "html that says it is JSON": Reply(b"<html><body>Welcome!</body></html>"),
    "nothing": Reply(b""),
    "half": Reply(b'{"id":'),
    "a list": Reply(b"[1,2]"),
    "another object": Reply(b'{"hello":"world"}'),
    "no UTF-8": Reply(b'{"id":"\xff"}'),
    "events": Reply(b'data: {"hello":"world"}\n\n', content_type="text/event-stream"),
    "no events": Reply(b"", content_type="text/event-stream"),
    "only comments": Reply(b": hi\n\n: ho\n\n", content_type="text/event-stream"),
    "events of nonsense": Reply(b"data: {nope\n\n", content_type="text/event-stream"),
}


@pairs(*CELLS, without=is_own)
@STREAM
@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_no_answer(stage: Stage, name: str, cell: Cell, is_stream: bool, reply: Reply) -> None:
    script(stage, cell, reply)

    problem = Talk(stage, name, cell.model, is_stream=is_stream).fail("Hi")

    assert (*problem[:2], read_error(stage, name)[TYPE_KEYS[name]]) == EXPECTED[401].problem(name)
    assert "Welcome" not in problem.message


@pairs(*CELLS, without=is_own)
@pytest.mark.parametrize("is_stream", [False, True], ids=["events for whole", "whole for events"])
def test_the_other_kind_of_answer_is_none(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, is_stream=not is_stream)
    talk.say("Hi")
    script(stage, cell, stage.vendors[cell.upstream](stage.upstreams[cell.upstream].received[-1]))

    problem = Talk(stage, name, cell.model, is_stream=is_stream).fail("Hi")

    assert (*problem[:2], read_error(stage, name)[TYPE_KEYS[name]]) == EXPECTED[401].problem(name)


@pairs(*CELLS, without=is_own)
@STREAM
def test_an_error_with_a_status_of_success_is_one(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    reply = refusal(cell, 429, "Slow down.", "rate_limit_exceeded")
    body = reply.body.replace(b"foreign_type", b"rate_limit_error")
    script(stage, cell, Reply(body))

    problem = Talk(stage, name, cell.model, is_stream=is_stream).fail("Hi")

    assert (*problem[:2], read_error(stage, name)[TYPE_KEYS[name]]) == EXPECTED[429].problem(name)


@pairs(*CELLS, without=is_own)
@STREAM
def test_an_upstream_that_hangs_is_given_up(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    script(stage, cell, Reply(wait_s=3))
    talk = Talk(stage, name, cell.model, is_stream=is_stream)
    talk.url = stage.hasty_url

    problem = talk.fail("Hi")

    assert (*problem[:2], read_error(stage, name)[TYPE_KEYS[name]]) == EXPECTED[504].problem(name)


BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5}}
STOPS = {
    "openai-chat": "content_filter",
    "openai-responses": "incomplete/content_filter",
    "anthropic": "refusal",
}


@pairs(FLASH, without=is_own)
@STREAM
def test_a_prompt_that_is_blocked_is_no_error(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    reply = Reply(json.dumps(BLOCKED).encode())
    if is_stream:
        reply = Reply(chunks=[b"data: " + reply.body + b"\r\n\r\n"], content_type="text/event-stream")
    script(stage, cell, reply)

    answer = Talk(stage, name, cell.model, is_stream=is_stream).say("Hi")

    assert (answer.text, answer.stop, answer.usage.input) == ("", STOPS[name], 5)
