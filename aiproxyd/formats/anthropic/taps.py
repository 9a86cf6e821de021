"""The byte path: usage, errors and the end of answers that are relayed as they come. Sans-I/O."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from aiproxyd.errors import UpstreamError
from aiproxyd.formats.anthropic.answers import merge_usage
from aiproxyd.formats.anthropic.errors import decode_band_error
from aiproxyd.formats.base import NULL, EventTap, Tapped, decode_answer, decode_view
from aiproxyd.sse import SSEvent, first_event


class _View(Struct):
    usage: Raw = NULL
    type: str = ""
    error: Any = None


class _EventView(Struct):
    type: str = ""
    message: _View | None = None
    usage: Raw = NULL
    error: Any = None


_view: Final = msgspec.json.Decoder(_View)
_event_view: Final = msgspec.json.Decoder(_EventView)


class Tap(EventTap):
    """Reads along on one stream."""

    words = (b'"message_', b'"error"')

    @override
    def look_at(self, event: SSEvent) -> bool:
        match decode_view(_event_view, event.data):
            case (
                _EventView(type="message_start", message=_View(usage=usage))
                | _EventView(type="message_delta", usage=usage)
            ):
                self.usage = merge_usage(self.usage, usage)
            case _EventView(type="message_stop"):
                self.is_complete = self.is_terminal = True
            case _EventView(type=kind, error=error) if kind == "error" or error:
                self.is_complete = self.is_terminal = self.is_failed = True
            case _:
                pass
        return True


def read_answer(body: bytes) -> Tapped:
    """Tap a whole answer that came with a success status.

    Raises:
        msgspec.DecodeError: *body* is not JSON at all.
    """
    view = decode_answer(_view, body)
    if view is None:
        return Tapped()
    error = decode_band_error(view.error, body) if view.type == "error" or view.error else None
    return Tapped(merge_usage(None, view.usage), error)


def read_stream_error(block: bytes) -> UpstreamError | None:
    """Return the error that a stream begins with, where its first events are one."""
    event = first_event(block)
    view = decode_view(_event_view, event.data) if event else None
    if event is None or view is None or not (view.type == "error" or view.error):
        return None
    return decode_band_error(view.error, event.data)
