"""The byte path of the Messages API."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.formats import ANTHROPIC
from aiproxyd.hub import Usage

START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"type":"message","usage":{"input_tokens":3}}}\n\n'
)


def event(data: bytes) -> bytes:
    return b"event: whatever\ndata: " + data + b"\n\n"


def test_an_answer_of_another_shape_tells_nothing() -> None:
    assert ANTHROPIC.read_answer(b"[]") == (None, None)
    assert ANTHROPIC.read_answer(b'{"input_tokens":5}') == (None, None)


@pytest.mark.parametrize(
    ("before", "later", "read"),
    [
        (b'{"input_tokens":3}', b'{"output_tokens":7}', Usage(input_tokens=3, output_tokens=7)),
        (b'{"input_tokens":3,"output_tokens":1}', b'{"output_tokens":7}', Usage(input_tokens=3, output_tokens=7)),
        (b'{"input_tokens":3}', b'{"input_tokens":9,"output_tokens":0}', Usage(input_tokens=9, output_tokens=0)),
        (b'{"input_tokens":3}', b'{"input_tokens":null}', Usage(input_tokens=3)),
        (b'{"input_tokens":3}', b"null", Usage(input_tokens=3)),
        (b'{"input_tokens":3}', b'{"input_tokens":"9"}', Usage(input_tokens=3)),
        (b"null", b'{"output_tokens":7}', Usage(output_tokens=7)),
        (
            b'{"cache_read_input_tokens":4,"cache_creation_input_tokens":5}',
            b'{"output_tokens":7,"output_tokens_details":{"thinking_tokens":2}}',
            Usage(cache_read_tokens=4, cache_write_tokens=5, output_tokens=7, reasoning_tokens=2),
        ),
        (
            b'{"output_tokens_details":{"thinking_tokens":2}}',
            b'{"output_tokens_details":null,"cache_read_input_tokens":0}',
            Usage(cache_read_tokens=0, reasoning_tokens=2),
        ),
    ],
)
def test_later_counts_replace_earlier_ones_and_what_is_left_out_stays(before: bytes, later: bytes, read: Usage) -> None:
    tap = ANTHROPIC.stream_tap(hide_usage=False)

    tap.feed(event(b'{"type":"message_start","message":{"usage":' + before + b"}}"))
    tap.feed(event(b'{"type":"message_delta","delta":{},"usage":' + later + b"}"))

    assert (tap.usage, tap.is_complete) == (read, False)


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"message_stop"}',
        b'{"x":1, "type" : "message_stop"}',
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
        b'{"type":"error","error":"Overloaded"}',
        b'{"error":{"message":"Overloaded"}}',
    ],
)
def test_a_stream_is_complete_with_its_stop_or_an_error(data: bytes) -> None:
    tap = ANTHROPIC.stream_tap(hide_usage=True)

    assert tap.feed(START) == START
    assert not tap.is_complete
    assert tap.feed(event(data) + START) == event(data) + START
    assert tap.is_complete


@pytest.mark.parametrize(
    "block",
    [
        event(b'{"type":"message_delta","delta":{"stop_reason":"end_turn"}}'),
        event(b'{"type":"content_block_start","content_block":{"input":{"type":"message_stop","error":{"a":1}}}}'),
        event(b'{"type":"message_start"}'),
        event(b'{"type":"message_new"}'),
        b"event: message_stop\n\n",
        b'event: message_stop\n\n: "message_stop"\n\n',
        event(b'{"type":"message_st'),
        event(b'"message_stop"'),
        b"data: [DONE]\n\n",
    ],
)
def test_a_stream_is_not_complete_with_what_only_looks_like_its_end(block: bytes) -> None:
    tap = ANTHROPIC.stream_tap(hide_usage=True)

    assert tap.feed(block) == block
    assert (tap.usage, tap.is_complete) == (None, False)


@given(
    text=st.text() | st.sampled_from(['{"type":"message_stop"}', '"error"', "\n\nevent: message_stop\ndata: {}\n\n"])
)
def test_text_of_the_model_confuses_nothing(text: str) -> None:
    delta = {"type": "text_delta", "text": text, "partial_json": text}
    block = event(msgspec.json.encode({"type": "content_block_delta", "index": 0, "delta": delta}))
    tap = ANTHROPIC.stream_tap(hide_usage=True)

    assert tap.feed(block) == block
    assert (tap.usage, tap.is_complete) == (None, False)
    assert ANTHROPIC.read_stream_error(block) is None


@pytest.mark.parametrize(
    "block", [START, START + event(b'{"type":"error"}'), event(b"error"), b"event: error\n\n", b""]
)
def test_a_stream_that_begins_otherwise_is_no_error(block: bytes) -> None:
    assert ANTHROPIC.read_stream_error(block) is None


def test_tokens_written_to_the_cache_are_summed_where_only_their_lifetimes_are_told() -> None:
    split = b'{"usage":{"cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":4}}}'
    both = b'{"usage":{"cache_creation_input_tokens":5,"cache_creation":{"ephemeral_5m_input_tokens":3}}}'

    assert ANTHROPIC.read_answer(split).usage == Usage(cache_write_tokens=7)
    assert ANTHROPIC.read_answer(both).usage == Usage(cache_write_tokens=5)
