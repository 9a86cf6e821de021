"""The byte path of the format: what steers a call, and what is read from an answer on its way through. Sans-I/O."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from aiproxyd.errors import UpstreamError
from aiproxyd.formats.base import NULL, EventTap, Peek, Tapped, decode_answer, decode_body, decode_view
from aiproxyd.formats.openai_chat.views import read_raw_usage
from aiproxyd.formats.openai_chat.wire import StreamOptions
from aiproxyd.formats.openai_shared import decode_band_error
from aiproxyd.splice import Edit, find_members, insert_member
from aiproxyd.sse import SSEvent, first_event


class _Peek(Peek):
    stream_options: StreamOptions | None = None
    n: int | None = None

    @property
    @override
    def candidates(self) -> int:
        return self.n or 1

    @property
    @override
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class _Choice(Struct):
    index: int = 0
    finish_reason: Any = None


class _View(Struct):
    """What the taps read from an answer or a chunk. The SDK takes any true value in ``error`` for one."""

    usage: Raw = NULL
    error: Any = None
    choices: list[_Choice] | None = None

    @property
    def is_usage_only(self) -> bool:
        return bytes(self.usage) != bytes(NULL) and not self.choices and not self.error


MAX_CHOICES: Final = 128
"""The largest ``n`` of the API."""

_peek: Final = msgspec.json.Decoder(_Peek)
_view: Final = msgspec.json.Decoder(_View)


def peek(body: bytes) -> Peek:
    """Read what steers the byte path from a request body.

    Raises:
        InvalidRequest: malformed JSON or a wrong type.
    """
    return decode_body(_peek, body)


def read_answer(body: bytes) -> Tapped:
    """Tap a whole answer that came with a success status.

    Raises:
        msgspec.DecodeError: *body* is not JSON at all.
    """
    view = decode_answer(_view, body)
    if view is None:
        return Tapped()
    return Tapped(read_raw_usage(view.usage), decode_band_error(view.error) if view.error else None)


def read_stream_error(block: bytes) -> UpstreamError | None:
    """Return the error that a stream begins with, where its first events are one."""
    event = first_event(block)
    view = decode_view(_view, event.data) if event else None
    return decode_band_error(view.error) if view and view.error else None


class ChatTap(EventTap):
    """The tap of one stream."""

    words = (b'"finish_reason":"', b'"finish_reason": "', b"[DONE]", b'"usage"', b'"error"')

    def __init__(self, *, hide_usage: bool, candidates: int) -> None:
        super().__init__()
        self._hide_usage = hide_usage
        self._unfinished = set(range(min(candidates, MAX_CHOICES)))

    @override
    def look_at(self, event: SSEvent) -> bool:
        if event.data.startswith(b"[DONE]"):
            self.is_complete = self.is_terminal = True
            return True
        view = decode_view(_view, event.data)
        if view is None:
            return True
        # Not before the chunk was read: at the end of a cut stream, half a chunk is shown to us.
        if view.error:
            self.is_complete = self.is_failed = True
        for choice in view.choices or ():
            if choice.finish_reason:
                self._unfinished.discard(choice.index)
                self.is_complete = self.is_complete or not self._unfinished
        self.usage = read_raw_usage(view.usage) or self.usage
        return not (self._hide_usage and view.is_usage_only)


def ask_usage(body: bytes) -> Edit:
    """Return the edit that makes a stream report its usage.

    Raises:
        InvalidRequest: a key stands twice.
    """
    # Most bodies have none: then there is no need to find out where their other members stand.
    options = find_members(body).get("stream_options") if b"stream_options" in body else None
    if options is None:
        return insert_member(body, None, "stream_options", b'{"include_usage":true}')
    if body.startswith(b"null", options.start):
        return Edit(*options, b'{"include_usage":true}')
    flag = find_members(body, options).get("include_usage")
    return Edit(*flag, b"true") if flag else insert_member(body, options, "include_usage", b"true")
