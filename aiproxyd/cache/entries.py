"""What is kept of an answer: all of it, as its upstream's format has it whole. Sans-I/O."""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import ProxyError, UpstreamGarbage
from aiproxyd.formats.base import Format, decode_view
from aiproxyd.formats.codec import is_object, read_arguments
from aiproxyd.hub import Block, Candidate, Event, Folder, Reasoning, Refusal, Request, Response, Text, ToolCall, Usage
from aiproxyd.sse import SSEDecoder, SSEvent

MAX_ENTRY_BYTES: Final = 4 * 1024 * 1024
"""Longest answer that is kept, as it came."""

_COMPLETE: Final = frozenset(("end", "tool", "stop_sequence"))
"""The stops of answers that anybody would want again."""

_array: Final = msgspec.json.Decoder(list[Raw])


class Entry(Struct, frozen=True, gc=False):
    """One answer."""

    format: str
    """Name of the format that it is written in: its upstream's."""
    upstream: str
    model: str
    """As the upstream names it."""
    made_at: float
    """Unix time, in seconds."""
    ttl_s: float
    request: bytes
    """Digest of the request that it was given to."""
    body: bytes
    """The answer, whole."""
    usage: Usage | None = None
    """What it cost when it was made."""
    has_echo: bool = False
    """It repeats words of the request that it was given to."""

    def age_s(self, now: float) -> float:
        """Return how old it is at the Unix time *now*."""
        return max(now - self.made_at, 0.0)


class StreamReader:
    """Reads an upstream's event stream as it comes, into the answer that it makes. One per stream.

    All of a long stream at once would hold up everything else for a tenth of a second.
    """

    def __init__(self, fmt: Format, asked: Request) -> None:
        self._sse = SSEDecoder()
        self._decoder = fmt.stream_decoder(asked.candidates)
        self._folder = Folder()
        self._array: bytearray | None = None
        """Gemini's other stream, an array of what its events hold; it is read at its end."""
        self._failure: ProxyError | None = None
        self._size_bytes = 0
        self.events = 0
        """How many have come."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Never raises: what is wrong with them is told in the end."""
        if self._failure is not None:
            return
        try:
            self._take(chunk)
        except ProxyError as exc:
            self._failure = exc.with_traceback(None)
            self._folder, self._array = Folder(), None

    def result(self) -> Response:
        """Return the answer; once, when all has come.

        Raises:
            ProxyError: it is not complete, or an error.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # else the error holds this frame, and the frame the error
        if self._array is None:
            self._read(self._sse.feed_eof())
        else:
            self._read(SSEvent(b"", bytes(part)) for part in decode_view(_array, bytes(self._array)) or ())
        self._fold(self._decoder.feed_eof())
        return self._folder.result()

    def _take(self, chunk: bytes) -> None:
        is_first = not self._size_bytes
        self._size_bytes += len(chunk.lstrip() if is_first else chunk)
        if self._size_bytes > MAX_ENTRY_BYTES:
            raise UpstreamGarbage("the stream is too long to be told again")
        if is_first and chunk.lstrip().startswith(b"["):
            self._array = bytearray()
        if self._array is None:
            self._read(self._sse.feed(chunk))
        else:
            self._array += chunk

    def _read(self, events: Iterable[SSEvent]) -> None:
        for event in events:
            self.events += 1
            self._fold(self._decoder.feed(event))

    def _fold(self, events: Iterable[Event]) -> None:
        # Not where the result is raised: an error among them, and the frame that it is raised from, would hold each
        # other.
        for event in events:
            self._folder.feed(event)


def is_good(response: Response, asked: Request) -> bool:
    """Tell whether *response* would be as good a second time: complete, not refused, not empty."""
    return bool(response.candidates) and all(_is_good(candidate, asked) for candidate in response.candidates)


def _is_good(candidate: Candidate, asked: Request) -> bool:
    is_complete = candidate.stop in _COMPLETE or (candidate.stop == "length" and asked.max_output_tokens is not None)
    is_odd = bool(candidate.detail) or any(map(_is_bad, candidate.blocks))
    return is_complete and not is_odd and any(map(_says_something, candidate.blocks))


def _is_bad(block: Block) -> bool:
    """Tell whether *block* is what nobody would want again: a refusal, or a call that the model got wrong."""
    return isinstance(block, Refusal) or (
        isinstance(block, ToolCall) and not block.is_custom and not is_object(read_arguments(block.arguments).encode())
    )


def _says_something(block: Block) -> bool:
    return bool(block.text.strip()) if isinstance(block, Text) else not isinstance(block, Reasoning)


encode_entry: Final = msgspec.msgpack.Encoder().encode
decode_entry: Final = msgspec.msgpack.Decoder(Entry).decode
