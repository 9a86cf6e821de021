import pytest

from aiproxyd.errors import (
    UpstreamBusy,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamKeyRefused,
    UpstreamRefusal,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from aiproxyd.formats import FORMATS
from aiproxyd.routing.faults import Fault, judge


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (UpstreamKeyRefused("no"), Fault.KEY),
        (UpstreamBusy("full"), Fault.BUSY),
        (UpstreamUnavailable("down"), Fault.UNREACHABLE),
        (UpstreamTimeout("slow"), Fault.SILENT),
        (UpstreamGarbage("what"), Fault.SILENT),
        (UpstreamCut("cut"), Fault.FAILING),
        (UpstreamError("unlike"), Fault.FAILING),
    ],
)
def test_what_a_failure_of_the_connection_is_bound_to(error: UpstreamError, fault: Fault) -> None:
    assert judge(error) is fault


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (400, Fault.REQUEST),
        (402, Fault.KEY),
        (403, Fault.ACCESS),
        (404, Fault.TARGET),
        (408, Fault.FAILING),
        (409, Fault.FAILING),
        (413, Fault.REQUEST),
        (422, Fault.REQUEST),
        (429, Fault.LIMIT),
        (500, Fault.FAILING),
        (501, Fault.TARGET),
        (503, Fault.FAILING),
        (529, Fault.FAILING),
    ],
)
def test_what_a_status_is_bound_to(status: int, fault: Fault) -> None:
    assert judge(UpstreamRefusal("no", status=status)) is fault


@pytest.mark.parametrize(
    ("name", "status", "body", "fault"),
    [
        ("openai-chat", 429, b'{"error":{"message":"x","code":"insufficient_quota"}}', Fault.KEY),
        ("openai-responses", 429, b'{"error":{"message":"x","code":"rate_limit_exceeded"}}', Fault.LIMIT),
        ("openai-chat", 400, b'{"error":{"message":"This model\'s maximum context length is 9"}}', Fault.WINDOW),
        (
            "anthropic",
            400,
            b'{"error":{"type":"invalid_request_error","message":"prompt is too long: 9"}}',
            Fault.WINDOW,
        ),
        (
            "anthropic",
            400,
            b'{"error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API"}}',
            Fault.KEY,
        ),
        ("gemini", 400, b'{"error":{"code":400,"message":"exceeds the maximum number of tokens"}}', Fault.WINDOW),
    ],
)
def test_what_a_vendors_words_are_bound_to(name: str, status: int, body: bytes, fault: Fault) -> None:
    assert judge(FORMATS[name].decode_error(status, body)) is fault
