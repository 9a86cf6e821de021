"""Errors inside streams."""

import pytest

from aiproxyd.errors import (
    InternalError,
    InvalidRequest,
    ProxyError,
    ShuttingDown,
    UpstreamCut,
    UpstreamKeyRefused,
    UpstreamRefusal,
)
from aiproxyd.formats import OPENAI_RESPONSES
from aiproxyd.formats.openai_responses.errors import write_failure

CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"error":null,"usage":null}}\n\n'


def event(data: bytes) -> bytes:
    return b"event: whatever\ndata: " + data + b"\n\n"


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b'{"type":"error","code":"rate_limit_exceeded","message":"busy","param":null}', 429, "busy"),
        (b'{"type":"error","code":503,"message":"busy"}', 503, "busy"),
        (b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}', 400, "no"),
        (b'{"type":"error"}', 502, "the upstream reported an error"),
        (b'{"error":{"message":"no"}}', 502, "no"),
        (b'{"error":"no"}', 502, "no"),
    ],
)
def test_a_stream_that_begins_with_an_error_is_one(data: bytes, status: int, message: str) -> None:
    error = OPENAI_RESPONSES.read_stream_error(b": ping\n\n" + event(data) + CREATED)

    assert isinstance(error, UpstreamRefusal)
    assert (error.status, error.message) == (status, message)


def test_a_refused_key_at_the_beginning_of_a_stream_is_not_quoted() -> None:
    data = b'{"type":"error","code":"invalid_api_key","message":"Incorrect API key provided: sk-up***am"}'

    assert isinstance(OPENAI_RESPONSES.read_stream_error(event(data)), UpstreamKeyRefused)


@pytest.mark.parametrize(
    "block",
    [CREATED, CREATED + event(b'{"type":"error","message":"later"}'), event(b"error"), b"event: error\n\n", b""],
)
def test_a_stream_that_begins_otherwise_is_no_error(block: bytes) -> None:
    assert OPENAI_RESPONSES.read_stream_error(block) is None


def test_an_error_in_band_is_the_flat_event_of_the_api_and_what_the_sdk_raises_on() -> None:
    assert OPENAI_RESPONSES.encode_stream_error(UpstreamCut("cut"), "req_1") == (
        b'event: error\ndata: {"type":"error","message":"cut","code":"upstream_cut","param":null,'
        b'"error":{"message":"cut","type":"server_error","param":null,"code":"upstream_cut"}}\n\n'
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("m"), "invalid_prompt"),
        (UpstreamRefusal("m", status=402), "insufficient_quota"),
        (UpstreamRefusal("m", status=413), "invalid_prompt"),
        (UpstreamRefusal("m", status=429), "rate_limit_exceeded"),
        (ShuttingDown("m"), "server_is_overloaded"),
        (UpstreamCut("m"), "server_error"),
        (InternalError("m"), "server_error"),
    ],
)
def test_a_failed_response_tells_whether_to_try_again(error: ProxyError, code: str) -> None:
    assert write_failure(error) == {"code": code, "message": "m"}
