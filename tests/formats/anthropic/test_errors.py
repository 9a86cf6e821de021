"""Errors of the Messages API."""

import msgspec
import pytest

from aiproxyd.errors import InvalidRequest, UpstreamError, UpstreamKeyRefused, UpstreamRefusal, UpstreamTimeout
from aiproxyd.formats import ANTHROPIC


def event(data: bytes) -> bytes:
    return b"event: whatever\ndata: " + data + b"\n\n"


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


def test_an_error_in_band_is_a_named_event() -> None:
    assert ANTHROPIC.encode_stream_error(UpstreamTimeout("silence"), "req_1") == (
        b'event: error\ndata: {"type":"error","error":{"type":"timeout_error","message":"silence"},'
        b'"request_id":"req_1"}\n\n'
    )


def test_details_stand_where_programs_look_for_them() -> None:
    error = InvalidRequest("no", details={"error_code": "thread_unsupported_request"})

    assert ANTHROPIC.encode_error(error, "req_1") == (
        b'{"type":"error","error":{"type":"invalid_request_error","message":"no",'
        b'"details":{"error_code":"thread_unsupported_request"}},"request_id":"req_1"}'
    )


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "maximum number of tokens exceeded",
            "prompt is too long: maximum number of tokens exceeded",
        ),
        ("prompt is too long: 210000 tokens", "prompt is too long: 210000 tokens"),
    ],
)
def test_a_full_context_is_said_in_the_words_that_claude_code_looks_for(message: str, told: str) -> None:
    error = UpstreamRefusal(message, status=400)
    error.forget_format()

    assert msgspec.json.decode(ANTHROPIC.encode_error(error, "req_1"))["error"]["message"] == told


def test_a_refused_key_is_not_the_callers_and_not_quoted() -> None:
    error = ANTHROPIC.decode_error(
        401, b'{"type":"error","error":{"type":"authentication_error","message":"sk-ant-up"}}'
    )

    assert isinstance(error, UpstreamKeyRefused)
    assert error.message == "the upstream refused the gateway's credential"
