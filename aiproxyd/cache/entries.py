"""What is kept of an answer: all of it, as its upstream's format has it whole. Sans-I/O."""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.formats.base import Format, decode_view
from aiproxyd.formats.codec import is_object, read_arguments
from aiproxyd.hub import Block, Candidate, Folder, Reasoning, Refusal, Request, Response, Text, ToolCall, Usage
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


def read_stream(fmt: Format, asked: Request, stream: bytes) -> Response:
    """Return the answer that *stream*, all bytes of an upstream's event stream in *fmt*, makes.

    Raises:
        UpstreamError: it is not complete, or an error.
    """
    decoder, folder = fmt.stream_decoder(asked.candidates), Folder()
    for event in _read_events(stream):
        for told in decoder.feed(event):
            folder.feed(told)
    for told in decoder.feed_eof():
        folder.feed(told)
    return folder.result()


def _read_events(stream: bytes) -> Iterable[SSEvent]:
    if stream.lstrip().startswith(b"["):
        # Gemini's other stream: an array of what its events hold.
        return [SSEvent(b"", bytes(part)) for part in decode_view(_array, stream) or ()]
    sse = SSEDecoder()
    return (*sse.feed(stream), *sse.feed_eof())


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
