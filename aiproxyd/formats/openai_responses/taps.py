"""The byte path: what is read from answers that are relayed as they are. Sans-I/O."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from aiproxyd.formats.base import NULL, EventTap, Tapped, decode_answer, decode_view
from aiproxyd.formats.openai_responses.answers import read_usage
from aiproxyd.formats.openai_shared import decode_band_error
from aiproxyd.sse import SSEvent


class _View(Struct):
    """What the taps read from a whole response, or from the ``response`` of a terminal event."""

    usage: Raw = NULL
    object: str = ""
    error: Any = None


class EventView(Struct):
    """What the taps read from an event."""

    type: str = ""
    response: _View | None = None
    error: Any = None
    message: Any = None
    code: Any = None

    @property
    def is_error(self) -> bool:
        """The API gives a flat event of this type; the SDK takes any true value in ``error`` for one."""
        return self.type == "error" or bool(self.error)


_view: Final = msgspec.json.Decoder(_View)
event_view: Final = msgspec.json.Decoder(EventView)

_TERMINAL: Final = ("response.completed", "response.incomplete", "response.failed")
_TAPPED_WORDS: Final = (*(name.encode() for name in _TERMINAL), b"error")


class Tap(EventTap):
    """Reads along on a stream."""

    words = _TAPPED_WORDS

    @override
    def look_at(self, event: SSEvent) -> bool:
        view = decode_view(event_view, event.data)
        if view and (view.type in _TERMINAL or view.is_error):
            self.is_complete = self.is_terminal = True
            self.is_failed = view.is_error
            if view.response:
                self.usage = read_usage(view.response.usage)
        return True


def read_answer(body: bytes) -> Tapped:
    """Tap a whole answer that came with a success status.

    Raises:
        msgspec.DecodeError: *body* is not JSON at all.
    """
    # A response of status "failed" is an answer, and callers can read it; an error without a response is none.
    view = decode_answer(_view, body)
    if view is None:
        return Tapped()
    return Tapped(read_usage(view.usage), decode_band_error(view.error) if view.error and not view.object else None)
