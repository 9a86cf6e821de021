import time
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.errors import InvalidRequest, NotReady, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats import GEMINI
from aiproxyd.formats.gemini import MAX_ARRAY_TAP_BYTES
from aiproxyd.hub import ModelCard, Usage
from aiproxyd.splice import apply_edits

TEXT = b'{"candidates":[{"content":{"parts":[{"text":"[1]"}]}}],"usageMetadata":{"promptTokenCount":3}}'
STOP = b'{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":4}}'
CARDS = [ModelCard(name=name) for name in "abcde"]
KEY_INVALID = b'{"error":{"code":400,"message":"API key AIza not valid","details":[{"reason":"API_KEY_INVALID"}]}}'
CONSUMER_SUSPENDED = KEY_INVALID.replace(b"API_KEY_INVALID", b"CONSUMER_SUSPENDED")
SERVICE_DISABLED = KEY_INVALID.replace(b"API_KEY_INVALID", b"SERVICE_DISABLED")


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\r\n\r\n"


def names_on_page(query: Mapping[str, str]) -> tuple[str, str | None]:
    page = msgspec.json.decode(GEMINI.encode_model_list(CARDS, query))
    return "".join(entry["displayName"] for entry in page["models"]), page.get("nextPageToken")


def test_a_request_is_any_object_because_the_path_names_the_model() -> None:
    peek = GEMINI.peek(b'{"model":5,"contents":"x"}')

    assert (peek.model, peek.stream, peek.wants_usage) == ("", False, True)
    for body in (b"[]", b"", b'{"a"', b'{"a":' + b"[" * 100_000):
        with pytest.raises(InvalidRequest):
            GEMINI.peek(body)


@pytest.mark.parametrize(
    ("body", "edited"),
    [
        (b'{"contents":[{"model":"x"}]}', b'{"contents":[{"model":"x"}]}'),
        (
            b'{"model" : "models/a","content":{"model":"x"}}',
            b'{"model" : "models/n/1","content":{"model":"x"}}',
        ),
        (
            b'{"requests":[{"model":"models/a","content":{}}, {"content":{}},{ "model":"a" }]}',
            b'{"requests":[{"model":"models/n/1","content":{}}, {"content":{}},{ "model":"models/n/1" }]}',
        ),
        (b'{"requests":[]}', b'{"requests":[]}'),
        (
            b'{"generateContentRequest":{"contents":[],"model":"models/a"}}',
            b'{"generateContentRequest":{"contents":[],"model":"models/n/1"}}',
        ),
        (
            b'{"generate_content_request":{"model":"models/a"},"model":null}',
            b'{"generate_content_request":{"model":"models/n/1"},"model":"models/n/1"}',
        ),
        (b'{"generateContentRequest":{}}', b'{"generateContentRequest":{}}'),
        (b"{}", b"{}"),
    ],
)
def test_the_model_is_edited_wherever_a_body_names_it(body: bytes, edited: bytes) -> None:
    assert apply_edits(body, GEMINI.edits(body, model="n/1", ask_usage=True)) == edited
    assert GEMINI.edits(body, model=None, ask_usage=True) == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"generateContentRequest":{"model":"a","model":"b"}}',
    ],
)
def test_a_body_in_which_the_model_cannot_be_found_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        GEMINI.edits(body, model="n", ask_usage=False)


@pytest.mark.parametrize(
    "body",
    [b'{"requests":{}}', b'{"requests":[5]}', b'{"generateContentRequest":[]}', b'{"generateContentRequest":null}'],
)
def test_what_names_no_model_is_left_to_the_upstream(body: bytes) -> None:
    assert GEMINI.edits(body, model="n", ask_usage=False) == []


def test_an_error_says_how_long_to_wait() -> None:
    error = NotReady("busy", retry_after_s=2.5)

    body = GEMINI.encode_error(error, "req_1")

    assert body == (
        b'{"error":{"code":503,"message":"busy","status":"UNAVAILABLE","details":'
        b'[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3s"}]}}'
    )
    assert GEMINI.decode_error(503, body).retry_after_s == 3


@pytest.mark.parametrize(
    ("details", "wait_s"),
    [
        (b'[{"retryDelay":"17s"}]', 17.0),
        (b'[5,{"@type":"x"},{"retryDelay":"0.25s"}]', 0.25),
        (b'[{"retryDelay":3}]', 3.0),
        (b'[{"retryDelay":"0s"}]', 0.0),
        (b'[{"retryDelay":"soon"},{"retryDelay":"1s"}]', 1.0),
        (b'[{"retryDelay":"infs"}]', None),
        (b'[{"retryDelay":"nan"}]', None),
        (b'[{"retryDelay":"-5s"}]', None),
        (b'[{"retryDelay":null}]', None),
        (b'[{"retryDelay":1e308}]', 1e308),
        (b"[]", None),
        (b"{}", None),
        (b"null", None),
    ],
)
def test_the_time_to_wait_is_read_from_the_details(details: bytes, wait_s: float | None) -> None:
    error = b'{"error":{"code":429,"message":"no","details":' + details + b"}}"
    in_band = GEMINI.read_stream_error(event(error))

    assert GEMINI.decode_error(429, error).retry_after_s == wait_s
    assert in_band is not None
    assert in_band.retry_after_s == wait_s


def test_an_error_in_an_array_is_unwrapped() -> None:
    error = GEMINI.decode_error(404, b'[{"error":{"code":404,"message":"no","x":1.50}}\n]')

    assert isinstance(error, UpstreamRefusal)
    assert (error.message, error.body) == ("no", b'{"error":{"code":404,"message":"no","x":1.50}}')


def test_an_error_without_a_number_is_written_anew() -> None:
    # Gemini's SDKs take `code` for a number; imitations send OpenAI's.
    error = GEMINI.decode_error(404, b'{"error":{"message":"no","code":"x"}}')

    assert isinstance(error, UpstreamRefusal)
    assert (error.message, error.status, error.body) == ("no", 404, None)


def test_an_error_without_words_is_described_by_its_status() -> None:
    error = GEMINI.decode_error(503, b"<html>")

    assert isinstance(error, UpstreamRefusal)
    assert (error.message, error.body) == ("the upstream answered with status 503", None)


def test_a_refused_key_is_one_at_any_status_and_never_quoted() -> None:
    for error in (
        GEMINI.decode_error(400, KEY_INVALID),
        GEMINI.decode_error(403, KEY_INVALID),
        GEMINI.decode_error(403, CONSUMER_SUSPENDED),
        GEMINI.decode_error(401, b"AIza"),
        GEMINI.decode_error(400, b"[" + KEY_INVALID + b"]"),
        GEMINI.read_answer(KEY_INVALID).error,
        GEMINI.read_stream_error(event(KEY_INVALID)),
        GEMINI.read_answer(b'{"error":{"code":401,"message":"AIza"}}').error,
    ):
        assert isinstance(error, UpstreamKeyRefused)
        assert error.message == "the upstream refused the gateway's credential"
    assert isinstance(GEMINI.decode_error(403, SERVICE_DISABLED), UpstreamRefusal)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (b'{"code":429,"message":"busy"}', 429, "busy"),
        (b'{"code":400,"message":"busy"}', 400, "busy"),
        (b'{"code":599,"message":"busy"}', 599, "busy"),
        (b'{"code":399,"message":"busy"}', 502, "busy"),
        (b'{"code":600,"message":"busy"}', 502, "busy"),
        (b'{"code":"429","message":""}', 502, "the upstream reported an error"),
        (b'{"status":"INTERNAL"}', 502, "the upstream reported an error"),
        (b'"busy"', 502, "busy"),
        (b"[5]", 502, "the upstream reported an error"),
    ],
)
def test_an_error_with_a_success_status_has_the_status_of_its_code(error: bytes, status: int, message: str) -> None:
    body = b'{"error":' + error + b"}"

    for found in (
        GEMINI.read_answer(body).error,
        GEMINI.read_stream_error(b": ping\n\n" + event(body)),
        GEMINI.read_stream_error(b"[" + body),
        GEMINI.read_stream_error(b"[" + body + b"\r\n]\n"),
    ):
        assert isinstance(found, UpstreamRefusal)
        assert (found.status, found.message) == (status, message)


@pytest.mark.parametrize(
    "block",
    [
        event(TEXT),
        event(TEXT) + event(b'{"error":{"code":500}}'),
        event(b'{"error":null}'),
        event(b'"error"'),
        b"[" + TEXT + b',\r\n{"error":{"code":500}}]',
        b'[{"error":{"code":5',
        b'["error"]',
        b': "error"',
        b"[]",
        b"",
    ],
)
def test_a_stream_that_begins_otherwise_is_no_error(block: bytes) -> None:
    assert GEMINI.read_stream_error(block) is None


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (b"null", None),
        (b"[]", None),
        (b'{"promptTokenCount":"5"}', None),
        (
            b'{"promptTokenCount":5,"candidatesTokenCount":2,"totalTokenCount":7}',
            Usage(input_tokens=5, output_tokens=2),
        ),
        (b'{"promptTokenCount":5}', Usage(input_tokens=5, output_tokens=0)),
        (
            b'{"promptTokenCount":50,"cachedContentTokenCount":30,"candidatesTokenCount":2,"totalTokenCount":52}',
            Usage(input_tokens=20, cache_read_tokens=30, output_tokens=2),
        ),
        (
            b'{"promptTokenCount":5,"cachedContentTokenCount":30}',
            Usage(input_tokens=0, cache_read_tokens=30, output_tokens=0),
        ),
        (
            b'{"promptTokenCount":5,"candidatesTokenCount":2,"thoughtsTokenCount":9,"totalTokenCount":16}',
            Usage(input_tokens=5, output_tokens=11, reasoning_tokens=9),
        ),
        # Thoughts counted among the candidates.
        (
            b'{"promptTokenCount":5,"candidatesTokenCount":11,"thoughtsTokenCount":9,"totalTokenCount":16}',
            Usage(input_tokens=5, output_tokens=11, reasoning_tokens=9),
        ),
        (
            b'{"promptTokenCount":5,"toolUsePromptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":10}',
            Usage(input_tokens=8, output_tokens=2),
        ),
        (
            b'{"promptTokenCount":5,"thoughtsTokenCount":9,"totalTokenCount":14}',
            Usage(input_tokens=5, output_tokens=9, reasoning_tokens=9),
        ),
        (b'{"promptTokenCount":5,"totalTokenCount":14}', Usage(input_tokens=5, output_tokens=9)),
        (b'{"promptTokenCount":5,"totalTokenCount":3}', Usage(input_tokens=5, output_tokens=0)),
        (
            b'{"promptTokenCount":5,"candidatesTokenCount":2,"thoughtsTokenCount":9}',
            Usage(input_tokens=5, output_tokens=11, reasoning_tokens=9),
        ),
    ],
)
def test_usage_is_read_into_disjoint_buckets(usage: bytes, read: Usage | None) -> None:
    answer = b'{"candidates":[{"finishReason":"STOP"}],"usageMetadata":' + usage + b"}"
    tap, array_tap = GEMINI.stream_tap(hide_usage=False), GEMINI.array_tap()

    tap.feed(event(answer))
    array_tap.feed(b"[" + answer + b"]")
    array_tap.finish()

    assert GEMINI.read_answer(answer).usage == read
    # A misshapen usage does not make a complete stream look cut.
    assert (tap.usage, tap.is_complete) == (read, True)
    assert (array_tap.usage, array_tap.is_complete) == (read, True)


def test_an_answer_of_another_shape_tells_nothing() -> None:
    assert GEMINI.read_answer(b"[]") == (None, None)
    assert GEMINI.read_answer(b'{"totalTokens":5}') == (None, None)


@pytest.mark.parametrize(
    "data",
    [
        STOP,
        b'{"candidates":[{},{"finishReason":"MAX_TOKENS"}]}',
        b'{"candidates":[{"finishReason":1}]}',
        b'{"promptFeedback":{"blockReason":"SAFETY"}}',
        b'{"error":{"code":503}}',
        b'{"error":"no"}',
    ],
)
def test_a_stream_is_complete_with_a_finish_a_block_or_an_error(data: bytes) -> None:
    tap = GEMINI.stream_tap(hide_usage=True)

    assert tap.feed(event(TEXT)) == event(TEXT)
    assert not tap.is_complete
    assert tap.feed(event(data) + event(TEXT)) == event(data) + event(TEXT)
    assert tap.is_complete


@pytest.mark.parametrize(
    "data",
    [
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"args":{"error":{},"finishReason":"STOP"}}}]}}]}',
        b'{"candidates":[{"finishReason":null}],"promptFeedback":{"safetyRatings":[]},"error":null}',
        b'{"candidates":[{"finishReason":""}],"promptFeedback":{"blockReason":null}}',
        b'{"candidates":[{"finishReason":"ST',
        b'{"candidates":{"finishReason":"STOP"}}',
        b'{"error":{}}',
        b"{}",
    ],
)
def test_a_stream_is_not_complete_with_what_only_looks_like_its_end(data: bytes) -> None:
    tap, array_tap = GEMINI.stream_tap(hide_usage=True), GEMINI.array_tap()

    assert tap.feed(event(data)) == event(data)
    assert array_tap.feed(b"[" + data + b"]") == b"[" + data + b"]"
    array_tap.finish()
    assert (tap.usage, tap.is_complete) == (None, False)
    assert (array_tap.usage, array_tap.is_complete) == (None, False)


@given(
    text=st.text() | st.sampled_from(['"finishReason":"STOP"', '"error"', "]", '\r\n\r\ndata: {"error":{}}\r\n\r\n'])
)
def test_text_of_the_model_confuses_nothing(text: str) -> None:
    data = msgspec.json.encode({"candidates": [{"content": {"parts": [{"text": text}]}}]})
    tap, array_tap = GEMINI.stream_tap(hide_usage=True), GEMINI.array_tap()

    tap.feed(event(data))
    array_tap.feed(b"[" + data)
    array_tap.finish()

    assert (tap.usage, tap.is_complete) == (None, False)
    assert (array_tap.usage, array_tap.is_complete) == (None, False)
    assert GEMINI.read_stream_error(event(data)) is None


def test_an_array_is_complete_with_its_last_bracket_wherever_other_brackets_end_a_piece() -> None:
    pieces = [b"[" + TEXT[: TEXT.index(b"[1]") + 3], TEXT[TEXT.index(b"[1]") + 3 :], b"\n,", STOP, b"\n", b"]", b"\n"]

    complete = []
    tap = GEMINI.array_tap()
    for count in range(1, len(pieces) + 1):
        tap = GEMINI.array_tap()
        assert b"".join(map(tap.feed, pieces[:count])) == b"".join(pieces[:count])
        tap.finish()
        complete.append(tap.is_complete)

    assert complete == [False, False, False, False, False, True, True]
    assert tap.usage == Usage(input_tokens=3, output_tokens=4)


def test_an_array_of_many_pieces_costs_time_in_proportion_to_its_length() -> None:
    # Reading the copy at each piece that ended in a bracket froze the event loop for half a minute.
    tap = GEMINI.array_tap()
    started = time.perf_counter()

    for _ in range(3000):
        tap.feed(b'{"candidates":[' + b" " * 1300 + b"]")

    assert time.perf_counter() - started < 1


def test_an_array_without_a_finish_is_not_complete() -> None:
    for array in (b"[]", b"[" + TEXT + b"]", b"[" + TEXT + b"," + STOP):
        tap = GEMINI.array_tap()
        tap.feed(array)
        tap.finish()
        assert not tap.is_complete


def test_an_array_of_just_the_length_that_is_kept_is_read() -> None:
    tap = GEMINI.array_tap()

    tap.feed(b"[" + STOP + b" " * (MAX_ARRAY_TAP_BYTES - len(STOP) - 2) + b"]")
    tap.finish()

    assert (tap.is_complete, tap.usage) == (True, Usage(input_tokens=3, output_tokens=4))


def test_an_array_that_is_too_long_to_keep_is_complete_with_its_bracket() -> None:
    tap = GEMINI.array_tap()
    picture = b'[{"inlineData":"' + b"x" * MAX_ARRAY_TAP_BYTES

    assert tap.feed(picture) == picture
    tap.feed(b'"},')
    tap.finish()
    assert not tap.is_complete
    tap.feed(STOP + b"]")
    tap.feed(b"\r\n")
    tap.finish()

    assert (tap.is_complete, tap.usage) == (True, None)


def test_an_error_in_band_is_one_line_of_data_and_nothing_else() -> None:
    assert GEMINI.encode_stream_error(NotReady("busy\n"), "req_1") == (
        b'data: {"error":{"code":503,"message":"busy\\n","status":"UNAVAILABLE"}}\r\n\r\n'
    )


def test_a_list_of_models_is_decoded_entry_by_entry() -> None:
    body = b"""{"models":[
        {"name":"models/gemini-3-pro","displayName":"Gemini 3 Pro","temperature": 1.0},
        {"name":"tunedModels/mine"},{"name":"bare"},
        {"displayName":"no name"}, {"name":5}, 7, null, []
    ],"nextPageToken":"x"}"""

    cards = GEMINI.decode_model_list(body)

    assert [card.name for card in cards] == ["gemini-3-pro", "tunedModels/mine", "bare"]
    assert {(card.owner, card.origin) for card in cards} == {("google", "gemini")}
    assert GEMINI.encode_model(cards[0]) == (
        b'{"name":"models/gemini-3-pro","displayName":"Gemini 3 Pro","temperature": 1.0}'
    )
    assert GEMINI.decode_model_list(b"{}") == []


def test_a_model_of_another_format_is_shown_with_its_methods() -> None:
    assert msgspec.json.decode(GEMINI.encode_model(ModelCard(name="fast"))) == {
        "name": "models/fast",
        "displayName": "fast",
        "version": "",
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
    }


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({}, ("abcde", None)),
        ({"pageSize": "5"}, ("abcde", None)),
        ({"pageSize": "2"}, ("ab", "2")),
        ({"pageSize": "2", "pageToken": "2"}, ("cd", "4")),
        ({"pageSize": "2", "pageToken": "4"}, ("e", None)),
        ({"pageSize": "2", "pageToken": ""}, ("ab", "2")),
        ({"pageSize": "2", "pageToken": "999999999999999999"}, ("", None)),
    ],
)
def test_the_list_has_pages(query: Mapping[str, str], page: tuple[str, str | None]) -> None:
    assert names_on_page(query) == page


def test_an_empty_list_is_one_page() -> None:
    assert GEMINI.encode_model_list([], {}) == b'{"models":[]}'


def test_a_page_has_fifty_models_where_the_caller_does_not_say() -> None:
    cards = [ModelCard(name="m") for _ in range(51)]

    page = msgspec.json.decode(GEMINI.encode_model_list(cards, {}))

    assert (len(page["models"]), page["nextPageToken"]) == (50, "50")


@pytest.mark.parametrize("query", [{"pageSize": "0"}, {"pageSize": "-1"}, {"pageToken": "x"}, {"pageToken": "0"}])
def test_a_page_that_does_not_exist_is_refused(query: Mapping[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="must be a positive whole number"):
        GEMINI.encode_model_list(CARDS, query)
