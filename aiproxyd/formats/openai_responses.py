"""OpenAI Responses: https://platform.openai.com/docs/api-reference/responses. Sans-I/O."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from aiproxyd.errors import ProxyError, UpstreamError
from aiproxyd.formats.base import NULL, EventTap, Peek, StreamTap, Tapped, decode_answer, decode_request, decode_view
from aiproxyd.formats.openai_shared import OpenAIFormat, decode_band_error, render_error
from aiproxyd.hub import Usage
from aiproxyd.sse import SSEvent, first_event


class _InputDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _View(Struct):
    """What the taps read from a whole response, or from the ``response`` of a terminal event."""

    usage: Raw = NULL
    object: str = ""
    error: Any = None


class _EventView(Struct):
    type: str = ""
    response: _View | None = None
    error: Any = None
    message: Any = None
    code: Any = None

    @property
    def is_error(self) -> bool:
        """The API gives a flat event of this type; the SDK takes any true value in ``error`` for one."""
        return self.type == "error" or bool(self.error)


_peek: Final = msgspec.json.Decoder(Peek)
_view: Final = msgspec.json.Decoder(_View)
_usage: Final = msgspec.json.Decoder(_Usage | None)
_event_view: Final = msgspec.json.Decoder(_EventView)

_TERMINAL: Final = ("response.completed", "response.incomplete", "response.failed")
_TAPPED_WORDS: Final = (*(name.encode() for name in _TERMINAL), b"error")


class OpenAIResponses(OpenAIFormat):
    """The ``openai-responses`` format."""

    name = "openai-responses"

    @override
    def peek(self, body: bytes) -> Peek:
        return decode_request(_peek, body)

    @override
    def encode_stream_error(self, error: ProxyError, request_id: str) -> bytes:
        # The SDK raises on a top-level "error" object only, not on the documented flat error event: give both.
        rendered = render_error(error)
        event = {"type": "error", "message": error.message, "code": error.code, "param": error.param, "error": rendered}
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"

    @override
    def read_answer(self, body: bytes) -> Tapped:
        # A response of status "failed" is an answer, and callers can read it; an error without a response is none.
        view = decode_answer(_view, body)
        if view is None:
            return Tapped()
        return Tapped(_read_usage(view), decode_band_error(view.error) if view.error and not view.object else None)

    @override
    def stream_tap(self, *, hide_usage: bool = False, candidates: int = 1) -> StreamTap:
        return _Tap()

    @override
    def read_stream_error(self, block: bytes) -> UpstreamError | None:
        event = first_event(block)
        view = decode_view(_event_view, event.data) if event else None
        if view is None or not view.is_error:
            return None
        return decode_band_error(view.error or {"message": view.message, "code": view.code})


class _Tap(EventTap):
    words = _TAPPED_WORDS

    @override
    def look_at(self, event: SSEvent) -> bool:
        view = decode_view(_event_view, event.data)
        if view and (view.type in _TERMINAL or view.is_error):
            self.is_complete = self.is_terminal = True
            self.is_failed = view.is_error
            if view.response:
                self.usage = _read_usage(view.response)
        return True


def _read_usage(view: _View) -> Usage | None:
    usage = decode_view(_usage, view.usage)
    if usage is None:
        return None
    details_in, details_out = usage.input_tokens_details, usage.output_tokens_details
    read = details_in.cached_tokens if details_in else None
    write = details_in.cache_write_tokens if details_in else None
    fresh = None if usage.input_tokens is None else max(usage.input_tokens - (read or 0) - (write or 0), 0)
    return Usage(
        input_tokens=fresh,
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=usage.output_tokens,
        reasoning_tokens=details_out.reasoning_tokens if details_out else None,
    )
