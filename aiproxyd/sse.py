"""Server-sent events, sans-I/O: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream.

Bytes in, whole events out, however the bytes are cut; LF, CRLF and CR end a line.
"""

import re
from typing import Final

from msgspec import Struct

from aiproxyd.errors import UpstreamGarbage

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""Longest single event that is held; a generated picture in base64 can reach tens of megabytes."""

FIRST_EVENTS: Final = 3
"""How many events at the beginning of what arrived together are looked at; comments may stand before the very first."""
LAST_EVENTS: Final = 8
"""How many events at the end of what arrived together are looked at; finish, usage and end come to three or four."""

_BOM: Final = b"\xef\xbb\xbf"
_BLANK_LINES: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2,}")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_EVENTS: Final = re.compile(rb"(?:event: ([^\n]*)\n)?data: ([^\n]*)(?:\n\n|\Z)|((?:[^\n]++\n?)++)")
"""The two shapes that nearly all events have, or else all lines of one. One search over all that arrived together costs
a third of looking at each piece."""


class SSEvent(Struct, frozen=True, gc=False):
    """One event: its name (empty where the stream gave none) and its data."""

    name: bytes
    data: bytes


class EventCutter:
    """Cuts a byte stream behind its last whole event, for relaying events untouched. One per stream."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """Return all bytes that belong to whole events so far and were not returned before; may be empty.

        Linear in the bytes fed; *chunk* may be cut anywhere.

        Raises:
            UpstreamGarbage: one event grew beyond MAX_EVENT_BYTES.
        """
        pending = self._pending
        if not pending and chunk.endswith((b"\n\n", b"\r\n\r\n")):
            return chunk
        # A blank line is at most 4 bytes (CRLF CRLF), so 3 bytes of it may have come earlier.
        scan_from = max(len(pending) - 3, 0)
        pending += chunk
        end = _find_last_blank_line(pending, scan_from)
        if end:
            whole = bytes(memoryview(pending)[:end])
            del pending[:end]
        else:
            whole = b""
        if len(pending) > MAX_EVENT_BYTES:
            raise UpstreamGarbage(f"one stream event is longer than {MAX_EVENT_BYTES} bytes")
        return whole

    def take_rest(self) -> bytes:
        """Return and forget what is held after the last whole event; for the end of the stream."""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest


def _find_last_blank_line(buffer: bytearray, start: int) -> int:
    """Return the offset behind the last blank line at or after *start*, 0 where there is none."""
    at = buffer.rfind(b"\n\n", start)
    if buffer.find(b"\r", start) >= 0:
        at = max(at, buffer.rfind(b"\n\r", start), buffer.rfind(b"\r\r", start))
    if at < 0:
        return 0
    end = at + 2
    # The CR found last may be the first half of a CRLF.
    return end + 1 if buffer[end - 1 : end + 1] == b"\r\n" else end


def split_events(block: bytes) -> list[bytes]:
    """Split whole events, as EventCutter returns them, into one piece per event, without the blank lines between."""
    if b"\r" not in block:
        pieces = block.split(b"\n\n")
    elif block.count(b"\r\n") == block.count(b"\n") == block.count(b"\r"):
        pieces = [piece.strip(b"\r\n") for piece in block.split(b"\r\n\r\n")]  # a fifth of the time
    else:
        pieces = _BLANK_LINES.split(block)
    return [piece for piece in pieces if piece]


def edge_events(block: bytes) -> list[bytes]:
    """Return the first few and the last few pieces of *block*, all of them where there are no more.

    What tells about a stream stands at its beginning and at its end; of hundreds of deltas that arrive together, those
    in between need not be looked at.
    """
    # Where blank lines of several kinds are mixed, the edges only come out wider.
    blank = b"\r\n\r\n" if b"\r" in block else b"\n\n"
    last = len(block)
    for _ in range(LAST_EVENTS + 1):
        last = block.rfind(blank, 0, last)
        if last < 0:
            pieces = split_events(block)
            few = len(pieces) <= FIRST_EVENTS + LAST_EVENTS
            return pieces if few else pieces[:FIRST_EVENTS] + pieces[-LAST_EVENTS:]
    first = 0
    for _ in range(FIRST_EVENTS):
        first = block.find(blank, first) + len(blank)
    if first > last:
        return split_events(block)
    return split_events(block[:first]) + split_events(block[last:])


def drop_event(block: bytes, piece: bytes) -> bytes:
    """Return *block* without *piece*, one of its split events, and the blank line behind it."""
    start = block.rindex(piece)
    blank = _BLANK_LINES.match(block, start + len(piece))
    return block[:start] + block[blank.end() if blank else start + len(piece) :]


def decode_event(piece: bytes) -> SSEvent | None:
    """Decode one event's lines; None where they hold no data (comments, a lone name)."""
    return _decode_lines(_LINE_END.sub(b"\n", piece) if b"\r" in piece else piece)


def _decode_lines(piece: bytes) -> SSEvent | None:
    """Decode one event whose lines end with LF; first the two shapes that nearly all of them have."""
    name, found, rest = piece.partition(b"\ndata: ")
    if b"\n" not in rest:
        if not found and name.startswith(b"data: ") and b"\n" not in name:
            return SSEvent(b"", name[6:])
        if found and name.startswith(b"event: ") and b"\n" not in name:
            return SSEvent(name[7:], rest)
    name = b""
    data: list[bytes] = []
    for line in piece.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return SSEvent(name, data[0] if len(data) == 1 else b"\n".join(data)) if data else None


def first_event(block: bytes) -> SSEvent | None:
    """Decode the first event of *block* that holds data; servers send comments ahead of it to keep the line alive."""
    start, event = 0, None
    while event is None and start < len(block):
        end, beyond = _find_blank_line(block, start)
        event = decode_event(block[start:end])
        start = beyond
    return event


def _find_blank_line(block: bytes, start: int) -> tuple[int, int]:
    """Return where the next blank line begins and ends, at or after *start*; the end of *block* where there is none."""
    if b"\r" in block:
        blank = _BLANK_LINES.search(block, start)
        return blank.span() if blank else (len(block), len(block))
    end = block.find(b"\n\n", start)
    return (end, end + 2) if end >= 0 else (len(block), len(block))


class SSEDecoder:
    """Decodes a byte stream into events. One per stream."""

    def __init__(self) -> None:
        self._cutter = EventCutter()
        self._is_first = True

    def feed(self, chunk: bytes) -> list[SSEvent]:
        """Return the events that *chunk* completes, oldest first.

        Linear in the bytes fed; *chunk* may be cut anywhere.

        Raises:
            UpstreamGarbage: one event grew beyond MAX_EVENT_BYTES.
        """
        whole = self._cutter.feed(chunk)
        return self._decode(whole) if whole else []

    def feed_eof(self) -> list[SSEvent]:
        """Return the last event of a stream that ended without a blank line, as several servers do; may be empty."""
        return self._decode(self._cutter.take_rest())

    def _decode(self, block: bytes) -> list[SSEvent]:
        if self._is_first:
            self._is_first = False
            block = block.removeprefix(_BOM)
        if b"\r" in block:
            # In half the time of replacing the pairs.
            block = b"\n".join(block.split(b"\r\n")).replace(b"\r", b"\n")
        events: list[SSEvent] = []
        for name, data, odd in _EVENTS.findall(block):
            event = _decode_lines(odd) if odd else SSEvent(name, data)
            if event is not None:
                events.append(event)
        return events
