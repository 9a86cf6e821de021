"""The byte path."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import OPENAI_RESPONSES
from aiproxyd.hub import Usage
from aiproxyd.splice import apply_edits

CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"error":null,"usage":null}}\n\n'


def event(data: bytes) -> bytes:
    return b"event: whatever\ndata: " + data + b"\n\n"


def test_the_model_is_edited_and_usage_need_not_be_asked_for() -> None:
    body = b'{"input":[{"model":"m"}], "model":"m"}'

    edits = OPENAI_RESPONSES.edits(body, model="n", ask_usage=True)

    assert apply_edits(body, edits) == b'{"input":[{"model":"m"}], "model":"n"}'
    assert OPENAI_RESPONSES.edits(body, model=None, ask_usage=True) == []
    assert OPENAI_RESPONSES.peek(body).wants_usage


def test_a_request_without_a_model_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="missing required field `model`"):
        OPENAI_RESPONSES.peek(b'{"input":"hi"}')


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (b"null", None),
        (b'{"input_tokens":5,"output_tokens":0}', Usage(input_tokens=5, output_tokens=0)),
        (b'{"input_tokens":5.5}', None),
    ],
)
def test_usage_is_read_whole_and_streamed(usage: bytes, read: Usage | None) -> None:
    tap = OPENAI_RESPONSES.stream_tap(hide_usage=False)

    tap.feed(event(b'{"type":"response.completed","response":{"usage":' + usage + b"}}"))

    assert OPENAI_RESPONSES.read_answer(b'{"object":"response","usage":' + usage + b"}").usage == read
    # A misshapen usage does not make a complete stream look cut.
    assert (tap.usage, tap.is_complete) == (read, True)


def test_a_failed_response_is_an_answer() -> None:
    body = b'{"object":"response","status":"failed","error":{"code":"server_error","message":"no"}}'

    assert OPENAI_RESPONSES.read_answer(body) == (None, None)
    assert OPENAI_RESPONSES.read_answer(b"[]") == (None, None)


def test_an_error_without_a_response_is_none() -> None:
    error = OPENAI_RESPONSES.read_answer(b'{"error":{"message":"no"}}').error

    assert error is not None
    assert error.message == "no"


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"response.completed"}',
        b'{"type":"response.completed","response":null}',
        b'{"type":"response.incomplete","response":{}}',
        b'{"type":"response.failed","response":{"error":{"code":"server_error"}}}',
        b'{"type":"error","code":429,"message":["busy"],"param":null}',
        b'{"error":{"message":"no"}}',
        b'{"type":"error","error":"no"}',
    ],
)
def test_a_stream_is_complete_with_a_terminal_event_or_an_error(data: bytes) -> None:
    tap = OPENAI_RESPONSES.stream_tap(hide_usage=True)

    assert tap.feed(CREATED) == CREATED
    assert not tap.is_complete
    assert tap.feed(event(data) + CREATED) == event(data) + CREATED
    assert tap.is_complete


@pytest.mark.parametrize(
    "block",
    [
        event(b'{"type":"response.output_item.done","item":{"type":"error","error":{"message":"x"}}}'),
        event(b'{"type":"response.in_progress","response":{"error":{"message":"x"}}}'),
        event(b'{"type":"response.output_text.delta","delta":"response.completed","logprobs":[]}'),
        b"event: response.completed\ndata: {}\n\n",
        b"event: response.completed\n\n",
        b": error response.failed\n\n",
        event(b'{"type":"response.comp'),
        event(b'"response.completed"'),
    ],
)
def test_a_stream_is_not_complete_with_what_only_looks_like_its_end(block: bytes) -> None:
    tap = OPENAI_RESPONSES.stream_tap(hide_usage=True)

    assert tap.feed(block) == block
    assert (tap.usage, tap.is_complete) == (None, False)


@given(text=st.text() | st.sampled_from(['"type":"error"', "response.completed", '\n\ndata: {"type":"error"}\n\n']))
def test_text_of_the_model_confuses_nothing(text: str) -> None:
    block = event(msgspec.json.encode({"type": "response.output_text.delta", "delta": text}))
    tap = OPENAI_RESPONSES.stream_tap(hide_usage=True)

    assert tap.feed(block) == block
    assert (tap.usage, tap.is_complete) == (None, False)
    assert OPENAI_RESPONSES.read_stream_error(block) is None
