from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.errors import InvalidRequest, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats import OPENAI_CHAT
from aiproxyd.hub import Usage
from aiproxyd.splice import apply_edits
from aiproxyd.sse import EventCutter, SSEDecoder

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}],"usage":null}'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}'
DONE = b"data: [DONE]"


def edited(body: bytes, model: str | None = None) -> bytes:
    return apply_edits(body, OPENAI_CHAT.edits(body, model=model, ask_usage=True))


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b'{"model":"m"}', b'{"stream_options":{"include_usage":true},"model":"m"}'),
        (b"{}", b'{"stream_options":{"include_usage":true}}'),
        (b'{ "stream_options" : null }', b'{ "stream_options" : {"include_usage":true} }'),
        (b'{"stream_options":{}}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{ "a": 1.0 }}', b'{"stream_options":{ "include_usage":true,"a": 1.0 }}'),
        (b'{"stream_options":{"include_usage": false}}', b'{"stream_options":{"include_usage": true}}'),
        (b'{"stream_options":{"include_usage":null,"b":2}}', b'{"stream_options":{"include_usage":true,"b":2}}'),
    ],
)
def test_a_stream_is_asked_for_its_usage(body: bytes, asked: bytes) -> None:
    assert edited(body) == asked


def test_model_and_usage_are_edited_together() -> None:
    body = b'{"stream_options":{"include_usage":false},"messages":[{"model":"m"}],"model" : "m"}'

    assert edited(body, "n") == (b'{"stream_options":{"include_usage":true},"messages":[{"model":"m"}],"model" : "n"}')


def test_a_model_alone_is_edited_alone() -> None:
    assert apply_edits(b'{"model":"m"}', OPENAI_CHAT.edits(b'{"model":"m"}', model="n", ask_usage=False)) == (
        b'{"model":"n"}'
    )


def test_a_request_says_how_many_answers_it_wants() -> None:
    assert OPENAI_CHAT.peek(b'{"model":"m"}').candidates == 1
    assert OPENAI_CHAT.peek(b'{"model":"m","n":null}').candidates == 1
    assert OPENAI_CHAT.peek(b'{"model":"m","n":3}').candidates == 3


@pytest.mark.parametrize("body", [b'{"model":"a","model":"b"}', b'{"stream_options":{"a":1,"a":2}}'])
def test_a_key_that_stands_twice_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        edited(body, "n")


@pytest.mark.parametrize(
    ("options", "wants_usage"),
    [
        (b"", False),
        (b',"stream_options":null', False),
        (b',"stream_options":{}', False),
        (b',"stream_options":{"include_usage":null}', False),
        (b',"stream_options":{"include_usage":false}', False),
        (b',"stream_options":{"include_usage":true}', True),
    ],
)
def test_a_request_says_whether_its_stream_reports_usage(options: bytes, wants_usage: bool) -> None:
    assert OPENAI_CHAT.peek(b'{"model":"m"' + options + b"}").wants_usage is wants_usage


def test_an_answer_with_an_error_in_it_is_an_error() -> None:
    tapped = OPENAI_CHAT.read_answer(b'{"error":{"message":"busy","code":503},"usage":{"prompt_tokens":1}}')

    assert isinstance(tapped.error, UpstreamRefusal)
    assert (tapped.error.status, tapped.error.message) == (503, "busy")
    assert OPENAI_CHAT.read_answer(b'{"error":"Unexpected endpoint"}').error is not None
    assert isinstance(OPENAI_CHAT.read_answer(b'{"error":{"code":401}}').error, UpstreamKeyRefused)
    assert OPENAI_CHAT.read_answer(b'{"error":null,"choices":null}').error is None


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (b"null", None),
        (b"{}", Usage()),
        (b'{"prompt_tokens":5}', Usage(input_tokens=5)),
        (b'{"prompt_tokens":5,"total_tokens":9,"completion_tokens":0}', Usage(input_tokens=5, output_tokens=0)),
        (
            b'{"prompt_tokens":50,"prompt_tokens_details":{"cached_tokens":20,"cache_write_tokens":10}}',
            Usage(input_tokens=20, cache_read_tokens=20, cache_write_tokens=10),
        ),
        (
            b'{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":20}}',
            Usage(input_tokens=0, cache_read_tokens=20),
        ),
        (b'{"prompt_tokens_details":{"cached_tokens":20}}', Usage(cache_read_tokens=20)),
        (b'{"prompt_tokens":5,"prompt_tokens_details":null}', Usage(input_tokens=5)),
        (
            b'{"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":3}}',
            Usage(output_tokens=7, reasoning_tokens=3),
        ),
        (b'{"prompt_tokens":"5"}', None),
        (b"[]", None),
    ],
)
def test_usage_is_read_into_disjoint_buckets(usage: bytes, read: Usage | None) -> None:
    assert OPENAI_CHAT.read_answer(b'{"choices":[],"usage":' + usage + b"}").usage == read


def test_an_answer_of_another_shape_tells_nothing() -> None:
    assert OPENAI_CHAT.read_answer(b"[]") == (None, None)
    assert OPENAI_CHAT.read_answer(b'{"object":"list","data":[]}') == (None, None)


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("at", range(4))
def test_hiding_usage_takes_out_its_own_chunk_and_nothing_else(blank: bytes, at: int) -> None:
    events = [ROLE, b": ping", FINISH, DONE]
    shown = b"".join(event + blank for event in events)
    block = b"".join(event + blank for event in [*events[:at], USAGE, *events[at:]])
    tap = OPENAI_CHAT.stream_tap(hide_usage=True)

    assert tap.feed(block) == shown
    assert (tap.usage, tap.is_complete) == (Usage(input_tokens=9, output_tokens=2), True)


@given(offsets=st.lists(st.integers(0, 500), max_size=6), newline=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_hidden_usage_stays_hidden_however_the_stream_is_cut(offsets: list[int], newline: bytes) -> None:
    events = [ROLE, USAGE, b"id: 5\n" + ROLE, FINISH, USAGE, DONE]
    stream = b"".join(event + b"\n\n" for event in events).replace(b"\n", newline)
    bounds = [0, *sorted(offset % len(stream) for offset in offsets), len(stream)]
    cutter, tap = EventCutter(), OPENAI_CHAT.stream_tap(hide_usage=True)

    blocks = [tap.feed(cutter.feed(stream[start:end])) for start, end in pairwise(bounds)]
    relayed = b"".join(blocks) + tap.feed(cutter.take_rest())

    assert SSEDecoder().feed(relayed) == SSEDecoder().feed(stream.replace(USAGE + newline * 2, b""))
    assert tap.usage == Usage(input_tokens=9, output_tokens=2)


@pytest.mark.parametrize(
    "kept",
    [
        # Azure begins with what its filter found in the prompt.
        b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n',
        b'data: {"choices":[],"usage":null}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":9}}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":9},"error":{"message":"no"}}\n\n',
        b'data: {"usage"\n\n',
        b': "usage"\n\n',
    ],
)
def test_hiding_usage_leaves_other_chunks_alone(kept: bytes) -> None:
    assert OPENAI_CHAT.stream_tap(hide_usage=True).feed(kept) == kept


@pytest.mark.parametrize(
    "chunk",
    [
        b'data: {"choices":null,"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n',
        b'data: {"usage" : {"prompt_tokens":9,"completion_tokens":2}}\n\n',
        b'event: message\ndata:{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2},"x":{"usage":null}}\n\n',
    ],
)
def test_a_usage_chunk_is_known_in_any_spelling(chunk: bytes) -> None:
    tap = OPENAI_CHAT.stream_tap(hide_usage=True)

    assert tap.feed(chunk) == b""
    assert tap.usage == Usage(input_tokens=9, output_tokens=2)
    assert not tap.is_complete


def test_usage_that_cannot_be_read_is_hidden_all_the_same() -> None:
    tap = OPENAI_CHAT.stream_tap(hide_usage=True)

    assert tap.feed(b'data: {"choices":[],"usage":{"prompt_tokens":9.5}}\n\n') == b""
    assert tap.usage is None


def test_the_last_usage_counts() -> None:
    tap = OPENAI_CHAT.stream_tap(hide_usage=False)

    tap.feed(b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}\n\n' + USAGE + b"\n\n")

    assert tap.usage == Usage(input_tokens=9, output_tokens=2)


@pytest.mark.parametrize(
    "end",
    [
        FINISH,
        DONE,
        b"data:[DONE]",
        b'data: {"choices":[{"finish_reason": "length"}]}',
        b'data: {"choices":[{"finish_reason":null},{"finish_reason":"stop"}]}',
        b'data: {"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":"?"}}',
        b'data: {"error":{"message":"no"}}',
        b'data: {"error":"no","error_type":"generation"}',
    ],
)
def test_a_stream_is_complete_with_a_finish_an_error_or_done(end: bytes) -> None:
    tap = OPENAI_CHAT.stream_tap(hide_usage=False)

    tap.feed(ROLE + b"\n\n")
    assert not tap.is_complete
    tap.feed(end + b"\n\n")
    tap.feed(ROLE + b"\n\n")
    assert tap.is_complete


@pytest.mark.parametrize(
    "chunk",
    [
        # Some servers say so in every chunk.
        b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":""}]}',
        b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason": ""}]}',
        b'data: {"choices":[{"native_finish_reason":"stop"}],"error":null}',
        b'data: {"choices":[],"x":{"finish_reason":"stop","error":{"message":"no"}}}',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"st',
        b'data: "[DONE]"',
        b": [DONE]",
        b"data: x\ndata: [DONE]",
        b'data: {"error":{}}',
    ],
)
def test_a_stream_is_not_complete_with_what_only_looks_like_its_end(chunk: bytes) -> None:
    tap = OPENAI_CHAT.stream_tap(hide_usage=False)

    assert tap.feed(chunk + b"\n\n") == chunk + b"\n\n"
    assert not tap.is_complete


@given(text=st.text() | st.sampled_from([USAGE.decode(), FINISH.decode(), "\n\n" + DONE.decode(), '","error":{"']))
def test_text_of_the_model_confuses_nothing(text: str) -> None:
    chunk = {"choices": [{"delta": {"content": text, "tool_calls": [{"function": {"arguments": text}}]}}]}
    block = b"data: " + msgspec.json.encode(chunk) + b"\n\n"
    tap = OPENAI_CHAT.stream_tap(hide_usage=True)

    assert tap.feed(block) == block
    assert (tap.usage, tap.is_complete) == (None, False)


def test_a_stream_that_begins_with_an_error_is_one() -> None:
    error = OPENAI_CHAT.read_stream_error(b': x\n\ndata: {"error":{"message":"busy","code":"rate_limit_exceeded"}}\n\n')

    assert isinstance(error, UpstreamRefusal)
    assert (error.status, error.message) == (429, "busy")
    said = b'"message":"busy","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"'
    assert error.body == b'{"error":{%b}}' % said


@pytest.mark.parametrize(
    "block",
    [
        ROLE + b"\n\n",
        ROLE + b'\n\ndata: {"error":{"message":"later"}}\n\n',
        b'data: {"error":null,"choices":[]}\n\n',
        b'data: {"choices":[{"delta":{"error":{"message":"x"}}}]}\n\n',
        b': "error"\n\n',
        b'data: "error"\n\n',
        b"",
    ],
)
def test_a_stream_that_begins_otherwise_is_no_error(block: bytes) -> None:
    assert OPENAI_CHAT.read_stream_error(block) is None
