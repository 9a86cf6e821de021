"""What holds for each format, those to come included: a new one adds rows to the tables and its recordings."""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import (
    BodyTimeout,
    BodyTooLarge,
    CallerError,
    InternalError,
    InvalidRequest,
    KeyRequired,
    LoopDetected,
    MethodNotAllowed,
    NotCached,
    NotReady,
    PermissionDenied,
    ProxyError,
    ShuttingDown,
    UnknownModel,
    UnknownPath,
    UpgradeRequired,
    UpstreamBusy,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamKeyRefused,
    UpstreamRefusal,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from aiproxyd.formats import FORMATS, GEMINI, OPENAI_CHAT, format_of_caller
from aiproxyd.formats.base import Format, StreamTap
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import (
    EmbeddingRequest,
    Embeddings,
    ModelCard,
    ReasoningControl,
    Request,
    Text,
    Tool,
    ToolChoice,
    Turn,
    Usage,
)
from aiproxyd.splice import apply_edits
from aiproxyd.sse import EventCutter, SSEDecoder

RECORDINGS = Path(__file__).parents[1] / "recordings"
WORDS = [
    "usage",
    "error",
    "choices",
    "finish_reason",
    "type",
    "message",
    "response",
    "response.completed",
    "message_start",
    "message_stop",
    "message_delta",
    "code",
    "status_code",
    "candidates",
    "usageMetadata",
    "promptFeedback",
    "blockReason",
    "finishReason",
    "details",
    "retryDelay",
    "reason",
    "API_KEY_INVALID",
    "input_tokens",
    "prompt_tokens",
    "prompt_tokens_details",
    "output_tokens_details",
    "promptTokenCount",
    "totalTokenCount",
    "data",
    "models",
    "id",
    "name",
    "created",
    "created_at",
    "detail",
    "msg",
    "stop",
]
"""Keys and values that the taps look for."""


class Recorded(NamedTuple):
    """What a recording holds."""

    terminal: bytes
    """Stands in the event that proves that the stream is complete, and in none before."""
    usage: Usage | None


RECORDED = {
    "openai-chat/tools": Recorded(
        b'"finish_reason":"tool_calls"',
        Usage(input_tokens=276, cache_read_tokens=1536, output_tokens=164, reasoning_tokens=64),
    ),
    "openai-chat/imitation": Recorded(b'"finish_reason": "stop"', Usage(input_tokens=26, output_tokens=9)),
    "openai-chat/lookalike": Recorded(
        b'"delta":{},"logprobs":null,"finish_reason":"stop"',
        Usage(input_tokens=32, cache_read_tokens=0, cache_write_tokens=8, output_tokens=30, reasoning_tokens=0),
    ),
    "openai-chat/error-in-band": Recorded(b'data: {"error":', None),
    "openai-chat/reasoning": Recorded(
        b'"finish_reason":"tool_calls"',
        Usage(input_tokens=100, cache_read_tokens=256, cache_write_tokens=64, output_tokens=96, reasoning_tokens=40),
    ),
    "openai-chat/refusal": Recorded(
        b'"delta":{},"logprobs":null,"finish_reason":"stop"',
        Usage(input_tokens=88, cache_read_tokens=0, output_tokens=23, reasoning_tokens=0),
    ),
    "openai-chat/multimodal": Recorded(b'"finish_reason":"stop"', Usage(input_tokens=1290, output_tokens=1301)),
    "openai-responses/tools": Recorded(
        b"event: response.completed",
        Usage(
            input_tokens=134, cache_read_tokens=2048, cache_write_tokens=128, output_tokens=391, reasoning_tokens=320
        ),
    ),
    "openai-responses/reasoning": Recorded(
        b"event: response.completed",
        Usage(input_tokens=61, cache_read_tokens=0, cache_write_tokens=0, output_tokens=74, reasoning_tokens=56),
    ),
    "openai-responses/parallel-tools": Recorded(
        b"event: response.completed",
        Usage(input_tokens=28, cache_read_tokens=384, cache_write_tokens=0, output_tokens=58, reasoning_tokens=0),
    ),
    "openai-responses/refusal": Recorded(
        b"event: response.completed",
        Usage(input_tokens=48, cache_read_tokens=0, cache_write_tokens=0, output_tokens=11, reasoning_tokens=0),
    ),
    "openai-responses/structured": Recorded(
        b"event: response.completed",
        Usage(input_tokens=52, cache_read_tokens=0, cache_write_tokens=0, output_tokens=8, reasoning_tokens=0),
    ),
    "openai-responses/media": Recorded(
        b"event: response.completed",
        Usage(input_tokens=869, cache_read_tokens=0, cache_write_tokens=1024, output_tokens=66, reasoning_tokens=32),
    ),
    "openai-responses/incomplete": Recorded(
        b"event: response.incomplete",
        Usage(input_tokens=31, cache_read_tokens=0, output_tokens=16, reasoning_tokens=16),
    ),
    "openai-responses/failed": Recorded(b"event: response.failed", None),
    "openai-responses/error-in-band": Recorded(b"event: error", None),
    "anthropic/tools": Recorded(
        b"event: message_stop",
        Usage(input_tokens=12, cache_read_tokens=3072, cache_write_tokens=420, output_tokens=211, reasoning_tokens=97),
    ),
    "anthropic/plain": Recorded(b"event: message_stop", Usage(input_tokens=8, output_tokens=5)),
    "anthropic/error-in-band": Recorded(
        b"event: error",
        Usage(input_tokens=12, cache_read_tokens=3072, cache_write_tokens=420, output_tokens=1),
    ),
    "anthropic/parallel-tools": Recorded(
        b"event: message_stop",
        Usage(input_tokens=410, cache_read_tokens=0, cache_write_tokens=0, output_tokens=118),
    ),
    "anthropic/reasoning": Recorded(
        b"event: message_stop",
        Usage(input_tokens=95, cache_read_tokens=1200, output_tokens=87, reasoning_tokens=61),
    ),
    "anthropic/refusal": Recorded(
        b"event: message_stop", Usage(input_tokens=23, cache_read_tokens=0, cache_write_tokens=0, output_tokens=6)
    ),
    "anthropic/search": Recorded(
        b"event: message_stop", Usage(input_tokens=2210, cache_read_tokens=0, cache_write_tokens=42, output_tokens=71)
    ),
    "anthropic/media": Recorded(b"event: message_stop", Usage(input_tokens=1530, output_tokens=14)),
    "gemini/tools": Recorded(
        b'"finishReason": "STOP", "index"',
        Usage(input_tokens=180, cache_read_tokens=1024, output_tokens=91, reasoning_tokens=58),
    ),
    "gemini/parallel-tools": Recorded(
        b'"finishReason": "STOP"', Usage(input_tokens=212, output_tokens=115, reasoning_tokens=71)
    ),
    "gemini/reasoning": Recorded(
        b'"finishReason": "STOP"',
        Usage(input_tokens=6, cache_read_tokens=8, output_tokens=69, reasoning_tokens=58),
    ),
    "gemini/structured": Recorded(b'"finishReason": "MAX_TOKENS"', Usage(input_tokens=9, output_tokens=12)),
    "gemini/refusal": Recorded(b'"finishReason": "SAFETY"', Usage(input_tokens=6, output_tokens=2)),
    "gemini/media": Recorded(b'"finishReason": "STOP"', Usage(input_tokens=1290, output_tokens=1302)),
    "gemini/search": Recorded(b'"finishReason": "STOP"', Usage(input_tokens=82, output_tokens=15)),
    "gemini/blocked": Recorded(b'"blockReason"', Usage(input_tokens=19, output_tokens=0)),
    "gemini/error-in-band": Recorded(
        b'{"error":', Usage(input_tokens=180, cache_read_tokens=1024, output_tokens=58, reasoning_tokens=58)
    ),
}
ARRAYS = [case for case in RECORDED if case.startswith("gemini/")]
WHOLE = [case for case in RECORDED if not case.endswith("error-in-band")]

REFUSED = {  # error.json: status, message, and whether the caller gets the body as it is
    "openai-chat/tools": (429, "Rate limit reached for gpt-5-mini in organization org-x on tokens per min (TPM)", True),
    "openai-chat/imitation": (422, "Field required", False),
    "openai-chat/error-in-band": (400, "This model's maximum context length is 272000 tokens.", True),
    "openai-responses/tools": (400, "Invalid schema for function 'get_weather'", True),
    "openai-responses/error-in-band": (400, "The encrypted content gAAA... could not be verified.", True),
    "anthropic/tools": (429, "This request would exceed your organization's rate limit of 40,000", True),
    "anthropic/plain": (400, "max_tokens: Field required", True),
    "anthropic/error-in-band": (529, "Overloaded", True),
    "gemini/tools": (429, "You exceeded your current quota, please check your plan and billing details.", True),
    "gemini/blocked": (400, "the upstream refused the gateway's credential", False),
    "gemini/error-in-band": (400, "* GenerateContentRequest.contents: contents is not specified\n", True),
}

OWN_ERRORS: dict[ProxyError, tuple[int, str, str | None, str, str]] = {
    # status, type and code in OpenAI's formats, type in Anthropic's, status in Gemini's
    InvalidRequest("m"): (400, "invalid_request_error", None, "invalid_request_error", "INVALID_ARGUMENT"),
    KeyRequired("m"): (401, "invalid_request_error", "invalid_api_key", "authentication_error", "UNAUTHENTICATED"),
    PermissionDenied("m"): (403, "permission_error", "permission_denied", "permission_error", "PERMISSION_DENIED"),
    UnknownModel("m"): (404, "invalid_request_error", "model_not_found", "not_found_error", "NOT_FOUND"),
    UnknownPath("m"): (404, "invalid_request_error", "unknown_url", "not_found_error", "NOT_FOUND"),
    MethodNotAllowed("PUT", ["GET"]): (
        405,
        "invalid_request_error",
        "method_not_allowed",
        "invalid_request_error",
        "INVALID_ARGUMENT",
    ),
    BodyTimeout("m"): (408, "server_error", "request_timeout", "timeout_error", "DEADLINE_EXCEEDED"),
    BodyTooLarge("m"): (413, "invalid_request_error", "request_too_large", "request_too_large", "INVALID_ARGUMENT"),
    UpgradeRequired("m"): (
        426,
        "invalid_request_error",
        "upgrade_required",
        "invalid_request_error",
        "INVALID_ARGUMENT",
    ),
    NotCached("m"): (504, "server_error", "not_cached", "timeout_error", "DEADLINE_EXCEEDED"),
    LoopDetected("m"): (508, "server_error", "loop_detected", "api_error", "INTERNAL"),
    UpstreamUnavailable("m"): (502, "server_error", "upstream_unavailable", "api_error", "INTERNAL"),
    UpstreamTimeout("m"): (504, "server_error", "upstream_timeout", "timeout_error", "DEADLINE_EXCEEDED"),
    UpstreamCut("m"): (502, "server_error", "upstream_cut", "api_error", "INTERNAL"),
    UpstreamBusy("m"): (503, "server_error", "upstream_busy", "overloaded_error", "UNAVAILABLE"),
    UpstreamGarbage("m"): (502, "server_error", "upstream_garbage", "api_error", "INTERNAL"),
    UpstreamKeyRefused("m"): (502, "server_error", "upstream_key_refused", "api_error", "INTERNAL"),
    UpstreamRefusal("m", status=402): (
        402,
        "insufficient_quota",
        "upstream_error",
        "billing_error",
        "RESOURCE_EXHAUSTED",
    ),
    UpstreamRefusal("m", status=409): (409, "invalid_request_error", "upstream_error", "conflict_error", "ABORTED"),
    UpstreamRefusal("m", status=429): (
        429,
        "rate_limit_error",
        "upstream_error",
        "rate_limit_error",
        "RESOURCE_EXHAUSTED",
    ),
    UpstreamRefusal("m", status=501): (501, "server_error", "upstream_error", "api_error", "UNIMPLEMENTED"),
    UpstreamRefusal("m", status=529): (529, "server_error", "upstream_error", "overloaded_error", "UNAVAILABLE"),
    NotReady("m"): (503, "server_error", "not_ready", "overloaded_error", "UNAVAILABLE"),
    ShuttingDown("m"): (503, "server_error", "shutting_down", "overloaded_error", "UNAVAILABLE"),
    InternalError("m \u00e9\u2028\n\"'"): (500, "server_error", "internal_error", "api_error", "INTERNAL"),
}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
TEXTS = (
    st.binary(max_size=60)
    | JSON.map(msgspec.json.encode)
    | st.text('{}[]":,0 \r\n', max_size=20).map(str.encode)
    | st.sampled_from([b"[" * 50_000, b'{"error":' * 50_000, b'{"error":{"message":"\xff"}}', b'{"usage":{"\xff":1}}'])
)
LINES = st.tuples(
    st.sampled_from([b"data: ", b"data:", b"event: ", b": ", b"", b"\n", b"data: [DONE]"]),
    TEXTS,
    st.sampled_from([b"\n", b"\n\n", b"\r\n\r\n", b"\r\r", b""]),
).map(b"".join)


each_format = pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)


def format_of(case: str) -> Format:
    return FORMATS[case.partition("/")[0]]


def recording(case: str, name: str) -> bytes:
    return (RECORDINGS / case / name).read_bytes()


def taps_of(fmt: Format) -> Iterator[StreamTap]:
    yield fmt.stream_tap(hide_usage=False)
    if fmt is GEMINI:
        yield GEMINI.array_tap()


def feed(tap: StreamTap, chunks: list[bytes]) -> bytes:
    """Feed a stream as the gateway does: whole events, at the end what is left."""
    cutter = EventCutter()
    blocks = [tap.feed(block) for chunk in chunks if (block := cutter.feed(chunk))]
    return b"".join(blocks) + tap.feed(cutter.take_rest())


def cut(stream: bytes, offsets: list[int]) -> list[bytes]:
    bounds = [0, *sorted(offset % (len(stream) + 1) for offset in offsets), len(stream)]
    return [stream[start:end] for start, end in pairwise(bounds)]


def test_every_recording_is_used_and_every_format_has_some() -> None:
    def cases(name: str) -> set[str]:
        return {f"{path.parent.parent.name}/{path.parent.name}" for path in RECORDINGS.glob(f"*/*/{name}")}

    assert cases("stream.sse") == cases("request.json") == set(RECORDED)
    assert cases("response.json") == set(WHOLE)
    assert cases("error.json") == set(REFUSED)
    assert cases("stream.json") == set(ARRAYS)
    assert {format_of(case).name for case in RECORDED} == set(FORMATS)


@pytest.mark.parametrize("case", RECORDED)
def test_a_tap_reads_a_recorded_stream_and_leaves_it_as_it_is(case: str) -> None:
    stream = recording(case, "stream.sse")
    tap = format_of(case).stream_tap(hide_usage=False)

    assert feed(tap, [stream]) == stream
    assert tap.is_complete
    assert tap.usage == RECORDED[case].usage


@pytest.mark.parametrize("case", WHOLE)
def test_a_recorded_answer_has_the_usage_of_its_stream(case: str) -> None:
    tapped = format_of(case).read_answer(recording(case, "response.json"))

    assert tapped.usage == RECORDED[case].usage
    assert tapped.error is None


@pytest.mark.parametrize("case", [case for case in WHOLE if RECORDED[case].usage])
@pytest.mark.parametrize("count", [b"-1", b"1e99", b"99999999999999999999"])
def test_what_cannot_be_billed_is_no_usage(case: str, count: bytes) -> None:
    body = re.sub(rb'("\w*(?:tokens|TokenCount)": ?)[0-9]+', rb"\g<1>" + count, recording(case, "response.json"))

    usage = format_of(case).read_answer(body).usage

    assert usage is None or set(msgspec.structs.astuple(usage)) <= {None, 0}


@pytest.mark.parametrize("case", RECORDED)
@given(newline=st.sampled_from([b"\n", b"\r\n", b"\r"]), offsets=st.lists(st.integers(0, 8000), max_size=8))
def test_a_tap_reads_the_same_however_the_stream_is_cut(case: str, newline: bytes, offsets: list[int]) -> None:
    stream = recording(case, "stream.sse").replace(b"\r\n", b"\n").replace(b"\n", newline)
    tap = format_of(case).stream_tap(hide_usage=False)

    assert feed(tap, cut(stream, offsets)) == stream
    assert (tap.is_complete, tap.usage) == (True, RECORDED[case].usage)


@pytest.mark.parametrize("case", RECORDED)
def test_a_stream_is_complete_with_its_terminal_event_and_not_a_byte_before(case: str) -> None:
    stream = recording(case, "stream.sse")
    end = _end_of_data(stream, RECORDED[case].terminal)

    complete: list[int] = []
    for size in range(len(stream) + 1):
        tap = format_of(case).stream_tap(hide_usage=False)
        feed(tap, [stream[:size]])
        if tap.is_complete:
            complete.append(size)

    assert complete == list(range(end, len(stream) + 1))


def _end_of_data(stream: bytes, terminal: bytes) -> int:
    line = stream.rindex(b"\n", 0, stream.index(terminal)) + 1 if b"\n" in stream[: stream.index(terminal)] else 0
    end = stream.index(b"\n", stream.index(b"data: ", line))
    return end - 1 if stream.endswith(b"\r\n") else end


@pytest.mark.parametrize("case", ARRAYS)
def test_an_array_stream_is_complete_with_its_last_bracket_and_not_a_byte_before(case: str) -> None:
    stream = recording(case, "stream.json")

    complete: list[int] = []
    for size in range(len(stream) + 1):
        tap = GEMINI.array_tap()
        assert tap.feed(stream[:size]) == stream[:size]
        tap.finish()
        if tap.is_complete:
            complete.append(size)

    assert complete == [len(stream) - 1, len(stream)]


@pytest.mark.parametrize("case", ARRAYS)
@given(offsets=st.lists(st.integers(0, 3000), max_size=8))
def test_an_array_tap_reads_the_same_however_the_stream_is_cut(case: str, offsets: list[int]) -> None:
    stream = recording(case, "stream.json")
    tap = GEMINI.array_tap()

    assert b"".join(map(tap.feed, cut(stream, offsets))) == stream
    tap.finish()
    assert (tap.is_complete, tap.usage) == (True, RECORDED[case].usage)


@each_format
@given(blocks=st.lists(LINES, max_size=6))
def test_a_tap_takes_any_bytes_and_leaves_them_as_they_are(fmt: Format, blocks: list[bytes]) -> None:
    for tap in taps_of(fmt):
        assert [tap.feed(block) for block in blocks] == blocks


@given(case=st.sampled_from(sorted(RECORDED)), data=st.data())
def test_a_tap_takes_recordings_with_any_part_replaced(case: str, data: st.DataObject) -> None:
    stream = recording(case, "stream.sse")
    start = data.draw(st.integers(0, len(stream)))
    end = data.draw(st.integers(start, min(start + 40, len(stream))))
    stream = stream[:start] + data.draw(TEXTS) + stream[end:]

    assert feed(format_of(case).stream_tap(hide_usage=False), [stream]) == stream


@each_format
@given(blocks=st.lists(LINES, max_size=4).map(b"".join))
def test_the_beginning_of_a_stream_may_be_any_bytes(fmt: Format, blocks: bytes) -> None:
    error = fmt.read_stream_error(blocks)

    assert error is None or 400 <= error.status < 600


@each_format
@given(body=TEXTS)
def test_an_answer_is_read_or_said_to_be_no_json(fmt: Format, body: bytes) -> None:
    try:
        fmt.read_answer(body)
    except msgspec.DecodeError:
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, RecursionError)):
            msgspec.json.decode(body)


@each_format
@given(status=st.integers(400, 599), body=TEXTS)
def test_an_error_answer_may_be_any_bytes(fmt: Format, status: int, body: bytes) -> None:
    error = fmt.decode_error(status, body)

    assert error.status == status or isinstance(error, UpstreamKeyRefused)
    assert 0 < len(error.message) <= 2048
    assert msgspec.json.decode(fmt.encode_error(error, "req_1"))


@each_format
@given(body=TEXTS)
def test_a_list_of_models_is_read_or_said_to_be_none(fmt: Format, body: bytes) -> None:
    try:
        cards = fmt.decode_model_list(body)
    except UpstreamGarbage as exc:
        assert exc.message == "the upstream's list of models is none"  # noqa: PT017  # not raising is as good
        return
    for shown in FORMATS.values():
        assert msgspec.json.decode(shown.encode_model_list(cards, {}))


@each_format
@given(body=TEXTS)
def test_a_request_is_peeked_at_and_edited_or_refused(fmt: Format, body: bytes) -> None:
    try:
        fmt.peek(body)
        edited = apply_edits(body, fmt.edits(body, model="other", ask_usage=True))
    except InvalidRequest:
        return

    assert isinstance(msgspec.json.decode(edited, type=dict[str, msgspec.Raw]), dict)


@pytest.mark.parametrize("name", ["openai-chat", "openai-responses", "anthropic"])
def test_the_model_that_a_request_names_is_found(name: str) -> None:
    fmt = FORMATS[name]

    assert fmt.find_models(b'{"x":{"model":"y"},"model":"m/\\u00e9"}') == ["m/é"]
    assert fmt.find_models(b"{}") == []
    for body, param in (
        (b'{"models":["a"]}', "$.models"),
        (b'{"model":"a","Model":"b"}', "$.Model"),
        (b'{"model":"a","fallbacks":[]}', "$.fallbacks"),
    ):
        with pytest.raises(InvalidRequest, match="cannot be used with it") as caught:
            fmt.find_models(body)
        assert caught.value.param == param
    with pytest.raises(InvalidRequest, match="Expected `str`, got `int`"):
        fmt.find_models(b'{"model":5}')


@each_format
def test_a_stream_of_which_nothing_was_read_has_no_usage(fmt: Format) -> None:
    assert fmt.stream_decoder().untold_usage() is None


@pytest.mark.parametrize("case", RECORDED)
def test_a_recorded_request_is_edited_in_its_model_only(case: str) -> None:
    fmt, body = format_of(case), recording(case, "request.json")
    request = msgspec.json.decode(body)

    peek = fmt.peek(body)
    edited = apply_edits(body, fmt.edits(body, model="other/é", ask_usage=False))

    assert (peek.model, bool(peek.stream)) == (request.get("model", ""), request.get("stream", False))
    assert fmt.edits(body, model=None, ask_usage=False) == []
    assert msgspec.json.decode(edited) == request | ({"model": "other/é"} if "model" in request else {})
    assert len(edited) == len(body) + (len("other/é".encode()) - len(peek.model) if peek.model else 0)


@pytest.mark.parametrize("case", REFUSED)
def test_a_recorded_error_is_decoded(case: str) -> None:
    status, message, is_passed_on = REFUSED[case]
    body = recording(case, "error.json")

    error = format_of(case).decode_error(status, body)

    assert error.message.startswith(message)
    assert (error.body is not None if isinstance(error, UpstreamRefusal) else False) is is_passed_on
    if isinstance(error, UpstreamRefusal) and error.body is not None:
        sent = msgspec.json.decode(body)
        assert msgspec.json.decode(error.body) == (sent[0] if isinstance(sent, list) else sent)


@pytest.mark.parametrize(("error", "words"), OWN_ERRORS.items(), ids=lambda value: type(value).__name__)
def test_an_error_is_encoded_in_the_words_of_the_format(
    error: ProxyError, words: tuple[int, str, str | None, str, str]
) -> None:
    status, openai_type, openai_code, anthropic_type, gemini_status = words
    openai = {"error": {"message": error.message, "type": openai_type, "param": None, "code": openai_code}}
    expected: dict[str, dict[str, Any]] = {
        "openai-chat": openai,
        "openai-responses": openai,
        "anthropic": {
            "type": "error",
            "error": {"type": anthropic_type, "message": error.message},
            "request_id": "req_1",
        },
        # Google knows of no 402.
        "gemini": {
            "error": {"code": 429 if status == 402 else status, "message": error.message, "status": gemini_status}
        },
    }

    encoded = {name: msgspec.json.decode(fmt.encode_error(error, "req_1")) for name, fmt in FORMATS.items()}

    assert error.status == status
    assert encoded == expected


@each_format
@pytest.mark.parametrize("error", OWN_ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_told_by_its_status(fmt: Format, error: ProxyError) -> None:
    assert fmt.error_status(error) == (429 if fmt is GEMINI and error.status == 402 else error.status)


@each_format
@pytest.mark.parametrize("error", OWN_ERRORS, ids=lambda error: type(error).__name__)
def test_an_encoded_error_is_decoded_with_its_status_and_message(fmt: Format, error: ProxyError) -> None:
    body = fmt.encode_error(error, "req_1")

    decoded = fmt.decode_error(error.status, body)

    if isinstance(error, KeyRequired):
        # What an upstream says about our key is not the caller's 401, and is not quoted.
        assert isinstance(decoded, UpstreamKeyRefused)
        assert (decoded.message, decoded.status) == ("the upstream refused the gateway's credential", 502)
        return
    assert (decoded.message, decoded.status) == (error.message, error.status)
    assert isinstance(decoded, UpstreamRefusal)
    assert decoded.body == body


@each_format
@pytest.mark.parametrize("error", OWN_ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_in_band_is_whole_events_and_ends_the_stream(fmt: Format, error: ProxyError) -> None:
    block = fmt.encode_stream_error(error, "req_1")
    tap = fmt.stream_tap(hide_usage=True)
    cutter = EventCutter()

    assert cutter.feed(block) == block
    assert len(SSEDecoder().feed(block)) == 1
    assert tap.feed(block) == block
    assert tap.is_complete


@each_format
@pytest.mark.parametrize("error", OWN_ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_in_band_is_found_where_a_stream_begins_with_it(fmt: Format, error: ProxyError) -> None:
    block = fmt.encode_stream_error(error, "req_1")

    found = fmt.read_stream_error(b": ping\n\n" + block)

    assert found is not None
    if not isinstance(error, KeyRequired):
        assert found.message == error.message
    assert isinstance(found, UpstreamRefusal | UpstreamKeyRefused)


def test_a_failed_stream_is_cut_where_clients_overlook_an_error_in_band() -> None:
    assert [name for name, fmt in FORMATS.items() if fmt.stream_error_closes] == ["gemini"]


@each_format
def test_a_refused_key_in_band_is_no_401_and_quotes_nothing(fmt: Format) -> None:
    found = fmt.read_stream_error(fmt.encode_stream_error(KeyRequired("sk-upstream is wrong"), "req_1"))

    assert isinstance(found, UpstreamKeyRefused)
    assert (found.status, found.message) == (502, "the upstream refused the gateway's credential")


@pytest.mark.parametrize("case", [case for case in RECORDED if not case.endswith("error-in-band")])
def test_a_stream_that_begins_well_begins_with_no_error(case: str) -> None:
    assert format_of(case).read_stream_error(recording(case, "stream.sse")) is None


def test_every_class_of_errors_has_its_words() -> None:
    def leaves(error: type[ProxyError]) -> set[type[ProxyError]]:
        children = [child for child in error.__subclasses__() if child.__module__.startswith("aiproxyd.")]
        return set().union(*map(leaves, children)) if children else {error}

    assert {type(error) for error in OWN_ERRORS} == leaves(ProxyError)
    assert not {CallerError, UpstreamError} & leaves(ProxyError)


COUNTERS: dict[str, tuple[str, bytes, list[str]]] = {
    # Where to ask, how it is answered, and what of a request is told
    "openai-responses": (
        "/v1/responses/input_tokens",
        b'{"object":"response.input_tokens","input_tokens":31}',
        ["model", "instructions", "input", "tools", "tool_choice", "parallel_tool_calls", "reasoning"],
    ),
    "anthropic": (
        "/v1/messages/count_tokens",
        b'{"input_tokens":31}',
        ["model", "system", "messages", "tools", "tool_choice", "thinking", "output_config"],
    ),
    "gemini": ("/v1beta/models/m/é".replace("é", "%C3%A9") + ":countTokens", b'{"totalTokens":31}', []),
}
COUNTED = Request(
    model="m/é",
    turns=[Turn("system", (Text("Be brief."),)), Turn("user", (Text("Hello"),))],
    tools=[Tool(name="f")],
    tool_choice=ToolChoice("auto"),
    parallel_tool_calls=False,
    reasoning=ReasoningControl(mode="on", effort="low"),
    max_output_tokens=500,
    temperature=0.5,
    stream=True,
    user="u-1",
)


def test_the_formats_that_count_tokens_are_known() -> None:
    assert {name for name, fmt in FORMATS.items() if fmt.counts_tokens} == set(COUNTERS)


@pytest.mark.parametrize("name", COUNTERS)
def test_a_count_is_asked_for_and_answered(name: str) -> None:
    fmt, (path, answer, members) = FORMATS[name], COUNTERS[name]
    capabilities = Capabilities(reasoning="adaptive" if name == "anthropic" else "effort")

    asked = fmt.encode_count_request(COUNTED, capabilities, Losses())

    assert asked is not None
    assert asked[0] == path
    told = msgspec.json.decode(asked[1])
    assert set(members) == set(told) or name == "gemini"
    decoded = fmt.decode_count_request(asked[1])
    assert decoded.turns == COUNTED.turns
    assert [tool.name for tool in decoded.tools] == ["f"]
    assert fmt.encode_count(31) == answer
    assert fmt.decode_count(answer) == 31
    with pytest.raises(UpstreamGarbage, match="the upstream has counted no tokens"):
        fmt.decode_count(b"{}")


def test_chat_knows_of_no_count_but_is_given_one_all_the_same() -> None:
    assert OPENAI_CHAT.encode_count_request(COUNTED, Capabilities(), Losses()) is None
    assert OPENAI_CHAT.encode_count(31) == b'{"input_tokens":31}'
    with pytest.raises(UpstreamGarbage, match="the upstream has counted no tokens"):
        OPENAI_CHAT.decode_count(b'{"input_tokens":31}')


EMBEDDERS: dict[str, tuple[str, str]] = {
    "openai-chat": ("/v1/embeddings", "/v1/embeddings"),
    "gemini": ("/v1beta/models/m:batchEmbedContents", "/v1beta/models/m:batchEmbedContents"),
}


@pytest.mark.parametrize("name", EMBEDDERS)
def test_embeddings_are_asked_for_and_answered(name: str) -> None:
    fmt, (path, asked_at) = FORMATS[name], EMBEDDERS[name]
    wanted = EmbeddingRequest(model="m", inputs=("a", "b"))
    embeddings = Embeddings(vectors=((1.0,), (2.0,)))

    asked = fmt.encode_embedding_request(wanted)

    assert asked is not None
    assert asked[0] == path
    assert fmt.decode_embedding_request(asked[1], asked_at).inputs == ("a", "b")
    assert fmt.decode_embeddings(fmt.encode_embeddings(embeddings, wanted)).vectors == embeddings.vectors


@pytest.mark.parametrize("name", sorted(set(FORMATS) - set(EMBEDDERS)))
def test_a_format_without_embeddings_says_so(name: str) -> None:
    fmt, wanted = FORMATS[name], EmbeddingRequest(model="m", inputs=("a",))

    assert fmt.encode_embedding_request(wanted) is None
    with pytest.raises(InvalidRequest, match="there are no embeddings at /v1/x"):
        fmt.decode_embedding_request(b"{}", "/v1/x")
    with pytest.raises(UpstreamGarbage, match="holds no embeddings"):
        fmt.decode_embeddings(b"{}")
    with pytest.raises(NotImplementedError):
        fmt.encode_embeddings(Embeddings(vectors=()), wanted)


CARDS = [
    ModelCard(name="fast"),
    ModelCard(name="local/qwen3:8b", created=1_763_856_000, owner="local"),
    ModelCard(name='odd "é"', created=0),
]


@each_format
def test_a_list_of_models_is_read_back_with_its_names(fmt: Format) -> None:
    cards = fmt.decode_model_list(fmt.encode_model_list(CARDS, {}))

    assert [card.name for card in cards] == ["fast", "local/qwen3:8b", 'odd "é"']
    assert {card.origin for card in cards} == {fmt.name.partition("-")[0]}


@each_format
def test_an_entry_goes_back_to_its_own_format_as_it_came(fmt: Format) -> None:
    card = fmt.decode_model_list(fmt.encode_model_list(CARDS, {}))[1]
    odd = msgspec.structs.replace(card, raw=msgspec.Raw(b'{ "id" : "x","x_new":1.50 }'))

    assert fmt.encode_model(odd) == b'{ "id" : "x","x_new":1.50 }'
    assert b'{ "id" : "x","x_new":1.50 }' in fmt.encode_model_list([odd], {})


@each_format
def test_an_entry_of_one_format_is_shown_in_every_other(fmt: Format) -> None:
    cards = fmt.decode_model_list(fmt.encode_model_list(CARDS, {}))

    for other in FORMATS.values():
        shown = other.decode_model_list(other.encode_model_list(cards, {}))
        assert [card.name for card in shown] == ["fast", "local/qwen3:8b", 'odd "é"']


@pytest.mark.parametrize(
    ("path", "headers", "name"),
    [
        ("/v1/chat/completions", {"anthropic-version": "2023-06-01"}, "openai-chat"),
        ("/v1/embeddings", {}, "openai-chat"),
        ("/v1/completions", {}, "openai-chat"),
        ("/v1/responses", {"x-goog-api-key": "k"}, "openai-responses"),
        ("/v1/responses/resp_1/cancel", {}, "openai-responses"),
        ("/v1/messages", {}, "anthropic"),
        ("/v1/messages/count_tokens", {}, "anthropic"),
        ("/v1beta/models", {"anthropic-version": "2023-06-01"}, "gemini"),
        ("/v1beta1/publishers/google/models/m:generateContent", {}, "gemini"),
        ("/v1alpha/models/m", {}, "gemini"),
        ("/v1/models", {}, "openai-chat"),
        ("/v1/models", {"anthropic-version": "2026-10-21"}, "anthropic"),
        ("/v1/models", {"x-goog-api-key": "k"}, "gemini"),
        ("/v1/models", {"x-goog-api-client": "google-genai-sdk/3.4.0", "anthropic-version": "1"}, "gemini"),
        ("/v1/models/gpt-5", {}, "openai-chat"),
        ("/v1/models/gemini-3-pro:generateContent", {}, "gemini"),
        ("/v1/models/claude-5", {"anthropic-version": "1"}, "anthropic"),
        ("/v1/files", {}, "openai-chat"),
        ("/", {}, "openai-chat"),
    ],
)
def test_the_format_of_a_caller_shows_in_its_path_and_headers(path: str, headers: Mapping[str, str], name: str) -> None:
    assert format_of_caller(path, headers).name == name
