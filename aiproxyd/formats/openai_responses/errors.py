"""Errors inside streams. Sans-I/O.

https://platform.openai.com/docs/api-reference/responses-streaming/error
"""

from typing import Any, Final

import msgspec

from aiproxyd.errors import CONTEXT_LENGTH_EXCEEDED, Kind, ProxyError, UpstreamError
from aiproxyd.formats.base import decode_view
from aiproxyd.formats.openai_responses.taps import event_view
from aiproxyd.formats.openai_shared import decode_band_error, render_error
from aiproxyd.sse import first_event

_CODE_BY_KIND: Final[dict[Kind, str]] = {
    "invalid_request": "invalid_prompt",
    "too_large": "invalid_prompt",
    "billing": "insufficient_quota",
    "rate_limit": "rate_limit_exceeded",
    "overloaded": "server_is_overloaded",
}
"""Codes by which clients decide whether to try again; any other kind is a ``server_error``."""


def write_stream_error(error: ProxyError) -> bytes:
    """Return the event that reports *error* where no response can."""
    # The SDK raises on a top-level "error" object only, not on the documented flat error event: give both.
    rendered = render_error(error)
    event = {"type": "error", "message": error.message, "code": error.code, "param": error.param, "error": rendered}
    return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"


def write_failure(error: ProxyError) -> dict[str, Any]:
    """Return the ``error`` of a response that failed."""
    is_full = error.code == CONTEXT_LENGTH_EXCEEDED
    code = error.code if is_full else _CODE_BY_KIND.get(error.kind, "server_error")
    return {"code": code, "message": error.message}


def read_stream_error(block: bytes) -> UpstreamError | None:
    """Return the error that a stream begins with, where its first event is one."""
    event = first_event(block)
    view = decode_view(event_view, event.data) if event else None
    if view is None or not view.is_error:
        return None
    return decode_band_error(view.error or {"message": view.message, "code": view.code})
