from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.errors import InvalidRequest, UpstreamError, UpstreamKeyRefused, UpstreamRefusal, UpstreamTimeout
from aiproxyd.formats import ANTHROPIC
from aiproxyd.hub import ModelCard, Usage
from aiproxyd.splice import apply_edits

START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"type":"message","usage":{"input_tokens":3}}}\n\n'
)
CARDS = [ModelCard(name=name) for name in "abcde"]


def event(data: bytes) -> bytes:
    return b"event: whatever\ndata: " + data + b"\n\n"


def names_on_page(query: Mapping[str, str], cards: list[ModelCard] = CARDS) -> tuple[str, bool, str | None, str | None]:
    page = msgspec.json.decode(ANTHROPIC.encode_model_list(cards, query))
    names = "".join(entry["id"] for entry in page["data"])
    return names, page["has_more"], page["first_id"], page["last_id"]


def test_the_model_is_edited() -> None:
    body = b'{"max_tokens":1,"model":"claude-*","messages":[{"model":"x"}]}'

    edits = ANTHROPIC.edits(body, model="claude-5", ask_usage=True)

    assert apply_edits(body, edits) == b'{"max_tokens":1,"model":"claude-5","messages":[{"model":"x"}]}'
    assert ANTHROPIC.peek(body).model == "claude-*"
    assert ANTHROPIC.edits(b"{}", model="claude-5", ask_usage=True) == []


@pytest.mark.parametrize(
    ("body", "passed_on"),
    [
        (
            b'{"type":"error","error":{"type":"api_error","message":"no"}}',
            b'{"type":"error","error":{"type":"api_error","message":"no"}}',
        ),
        (b'[{"error":{"type":"api_error","message":"no"}}]', b'{"error":{"type":"api_error","message":"no"}}'),
        (b'{"error":{"message":"no"}}', None),
        (b'{"message":"no"}', None),
        (b"no", None),
    ],
)
def test_an_error_answer_is_passed_on_where_it_is_of_this_format(body: bytes, passed_on: bytes | None) -> None:
    error = ANTHROPIC.decode_error(500, body)

    assert isinstance(error, UpstreamRefusal)
    assert (error.message, error.status, error.body) == ("no", 500, passed_on)


def test_an_error_answer_without_words_is_described_by_its_status() -> None:
    assert ANTHROPIC.decode_error(529, b"").message == "the upstream answered with status 529"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("invalid_request_error", 400),
        ("billing_error", 402),
        ("permission_error", 403),
        ("not_found_error", 404),
        ("conflict_error", 409),
        ("request_too_large", 413),
        ("rate_limit_error", 429),
        ("api_error", 500),
        ("timeout_error", 504),
        ("overloaded_error", 529),
        ("new_error", 502),
        (None, 502),
    ],
)
def test_an_error_with_a_success_status_has_the_status_of_its_type(kind: str | None, status: int) -> None:
    body = msgspec.json.encode({"type": "error", "error": {"type": kind, "message": "no"}})

    for error in (ANTHROPIC.read_answer(body).error, ANTHROPIC.read_stream_error(event(body))):
        assert isinstance(error, UpstreamRefusal)
        assert (error.status, error.message, error.body) == (status, "no", body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"type":"error","error":"no"}', "no"),
        (b'{"error":"no"}', "no"),
        (b'{"type":"error","error":{"type":"api_error"}}', "the upstream reported an error"),
        (b'{"type":"error"}', "the upstream reported an error"),
        (b'{"type":"error","error":["no"]}', "the upstream reported an error"),
    ],
)
def test_a_misshapen_error_with_a_success_status_is_one_but_not_passed_on(body: bytes, message: str) -> None:
    for error in (ANTHROPIC.read_answer(body).error, ANTHROPIC.read_stream_error(b": x\n\n" + event(body))):
        assert isinstance(error, UpstreamRefusal)
        assert (error.status, error.message, error.body) == (502, message, None)


def test_an_error_without_words_is_passed_on_and_described() -> None:
    error: UpstreamError | None = ANTHROPIC.read_answer(b'{"type":"error","error":{"message":""}}').error

    assert error is not None
    assert error.message == "the upstream reported an error"


def test_a_refused_key_with_a_success_status_is_not_quoted() -> None:
    body = b'{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key sk-ant-up"}}'

    error = ANTHROPIC.read_answer(body).error

    assert isinstance(error, UpstreamKeyRefused)
    assert error.message == "the upstream refused the gateway's credential"


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


def test_an_error_in_band_is_a_named_event() -> None:
    assert ANTHROPIC.encode_stream_error(UpstreamTimeout("silence"), "req_1") == (
        b'event: error\ndata: {"type":"error","error":{"type":"timeout_error","message":"silence"},'
        b'"request_id":"req_1"}\n\n'
    )


def test_a_list_of_models_is_decoded_entry_by_entry() -> None:
    body = b"""{"data":[
        {"type":"model","id":"claude-5","display_name":"Claude 5","created_at":"2026-08-01T00:00:00Z","x": 1.50},
        {"id":"zoned","created_at":"2026-08-01T02:00:00.5+02:00"},
        {"id":"naive","created_at":"2026-08-01T00:00:00"},
        {"id":"date","created_at":"2026-08-01"},
        {"id":"epoch","created_at":"1970-01-01T00:00:00Z"},
        {"id":"zero","created_at":"0001-01-01T00:00:00"},
        {"id":"number","created_at":1785542400},
        {"id":"null","created_at":null},
        {"id":"odd","created_at":"soon"},
        {"name":"no id"}, {"id":5}, 7, null, []
    ],"has_more":true}"""

    cards = ANTHROPIC.decode_model_list(body)

    assert [(card.name, card.created) for card in cards] == [
        ("claude-5", 1785542400),
        ("zoned", 1785542400),
        ("naive", 1785542400),
        ("date", 1785542400),
        ("epoch", 0),
        ("zero", -62135596800),
        ("number", None),
        ("null", None),
        ("odd", None),
    ]
    assert {(card.owner, card.origin) for card in cards} == {("anthropic", "anthropic")}
    assert ANTHROPIC.encode_model(cards[0]).endswith(b'"x": 1.50}')


def test_a_model_of_another_format_is_shown_with_all_that_the_sdk_wants() -> None:
    assert msgspec.json.decode(ANTHROPIC.encode_model(ModelCard(name="fast", created=1785542400))) == {
        "type": "model",
        "id": "fast",
        "display_name": "fast",
        "created_at": "2026-08-01T00:00:00Z",
        "lifecycle": "active",
        "capabilities": None,
        "max_input_tokens": None,
        "max_tokens": None,
    }
    assert b'"created_at":"1970-01-01T00:00:00Z"' in ANTHROPIC.encode_model(ModelCard(name="fast"))


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({}, ("abcde", False, "a", "e")),
        ({"limit": "5"}, ("abcde", False, "a", "e")),
        ({"limit": "2"}, ("ab", True, "a", "b")),
        ({"limit": "2", "after_id": "b"}, ("cd", True, "c", "d")),
        ({"limit": "2", "after_id": "c"}, ("de", False, "d", "e")),
        ({"limit": "2", "after_id": "e"}, ("", False, None, None)),
        ({"limit": "2", "before_id": "d"}, ("bc", True, "b", "c")),
        ({"limit": "2", "before_id": "c"}, ("ab", False, "a", "b")),
        ({"limit": "2", "before_id": "b"}, ("a", False, "a", "a")),
        ({"before_id": "a"}, ("", False, None, None)),
        ({"limit": "1000", "lifecycle": "active"}, ("abcde", False, "a", "e")),
    ],
)
def test_the_list_has_pages(query: Mapping[str, str], page: tuple[str, bool, str | None, str | None]) -> None:
    assert names_on_page(query) == page


def test_an_empty_list_is_one_page() -> None:
    assert ANTHROPIC.encode_model_list([], {}) == b'{"data":[],"has_more":false,"first_id":null,"last_id":null}'


def test_a_page_has_twenty_models_where_the_caller_does_not_say() -> None:
    cards = [ModelCard(name=f"m{number}") for number in range(21)]

    names, has_more, _, last = names_on_page({}, cards)

    assert (names.count("m"), has_more, last) == (20, True, "m19")


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": "0"}, "limit"), ({"after_id": "x"}, "after_id"), ({"before_id": ""}, "before_id")],
)
def test_a_page_that_does_not_exist_is_refused(query: Mapping[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{param}") as caught:
        ANTHROPIC.encode_model_list(CARDS, query)

    assert caught.value.param == param
