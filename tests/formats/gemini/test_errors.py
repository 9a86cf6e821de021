import contextlib

import msgspec
import pytest

from aiproxyd.errors import NotReady, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats import GEMINI

TEXT = b'{"candidates":[{"content":{"parts":[{"text":"[1]"}]}}],"usageMetadata":{"promptTokenCount":3}}'
KEY_INVALID = b'{"error":{"code":400,"message":"API key AIza not valid","details":[{"reason":"API_KEY_INVALID"}]}}'
CONSUMER_SUSPENDED = KEY_INVALID.replace(b"API_KEY_INVALID", b"CONSUMER_SUSPENDED")
SERVICE_DISABLED = KEY_INVALID.replace(b"API_KEY_INVALID", b"SERVICE_DISABLED")


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\r\n\r\n"


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


@pytest.mark.parametrize(
    "place", ["%b", '{"message":%b}', '{"details":[{"reason":%b}]}', '{"details":[{"retryDelay":%b}]}']
)
@pytest.mark.parametrize("depth", range(400, 1101, 50))
def test_an_error_of_any_depth_is_read_or_none(place: str, depth: int) -> None:
    body = b'{"error":%b}' % (place.encode() % (b"[" * depth + b"]" * depth))

    GEMINI.decode_error(500, body)
    with contextlib.suppress(msgspec.DecodeError):
        GEMINI.read_answer(body)


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


def test_an_error_in_band_is_one_line_of_data_and_nothing_else() -> None:
    assert GEMINI.encode_stream_error(NotReady("busy\n"), "req_1") == (
        b'data: {"error":{"code":503,"message":"busy\\n","status":"UNAVAILABLE"}}\r\n\r\n'
    )
