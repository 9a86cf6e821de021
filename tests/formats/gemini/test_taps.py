import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import GEMINI
from aiproxyd.formats.gemini import MAX_ARRAY_TAP_BYTES
from aiproxyd.hub import Usage
from aiproxyd.splice import apply_edits

TEXT = b'{"candidates":[{"content":{"parts":[{"text":"[1]"}]}}],"usageMetadata":{"promptTokenCount":3}}'
STOP = b'{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":4}}'


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\r\n\r\n"


def test_a_request_is_any_object_because_the_path_names_the_model() -> None:
    peek = GEMINI.peek(b'{"model":5,"contents":"x"}')

    assert (peek.model, peek.stream, peek.wants_usage) == ("", False, True)
    for body in (b"[]", b"", b'{"a"', b'{"a":' + b"[" * 100_000):
        with pytest.raises(InvalidRequest):
            GEMINI.peek(body)


@pytest.mark.parametrize(
    ("body", "candidates"),
    [
        (b"{}", 1),
        (b'{"generationConfig":{"candidateCount":3}}', 3),
        (b'{"generation_config":{"candidate_count":2},"generationConfig":{"candidateCount":null}}', 2),
        (b'{"generationConfig":{"candidateCount":"3"}}', 1),
    ],
)
def test_how_many_answers_are_asked_for_is_seen_in_either_spelling(body: bytes, candidates: int) -> None:
    assert GEMINI.peek(body).candidates == candidates


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


def test_every_model_that_a_body_names_is_found() -> None:
    body = b'{"model":"models/a","requests":[{"model":"b"},{}],"generateContentRequest":{"model":"tunedModels/c"}}'

    assert GEMINI.find_models(body) == ["a", "tunedModels/c", "b"]
    with pytest.raises(InvalidRequest, match="limited to certain models"):
        GEMINI.find_models(b'{"Model":"a"}')


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
