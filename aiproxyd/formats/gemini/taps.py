"""The byte path of generateContent: what is read from requests and answers that are relayed as they are. Sans-I/O."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from aiproxyd.errors import UpstreamError
from aiproxyd.formats.base import (
    NULL,
    EventTap,
    Peek,
    StreamTap,
    Tapped,
    decode_answer,
    decode_body,
    decode_view,
)
from aiproxyd.formats.gemini.errors import decode_band_error
from aiproxyd.formats.gemini.settings import MAX_CANDIDATES
from aiproxyd.formats.gemini.usage import read_usage
from aiproxyd.splice import Span, find_elements, find_members
from aiproxyd.sse import SSEvent, first_event

MAX_ARRAY_TAP_BYTES: Final = 4 * 1024 * 1024
"""Longest JSON-array stream whose usage is read; a longer one is relayed all the same."""


class _CamelConfig(Struct, rename="camel"):
    candidate_count: int | None = None


class _SnakeConfig(Struct):
    candidate_count: int | None = None


class _Body(Struct):
    """What of a request steers the byte path; the path names model and method."""

    camel_config: Raw = msgspec.field(default=NULL, name="generationConfig")
    snake_config: Raw = msgspec.field(default=NULL, name="generation_config")


class _Peek(Peek):
    candidate_count: int = 1

    @property
    @override
    def candidates(self) -> int:
        return self.candidate_count


class _Candidate(Struct, rename="camel"):
    index: int = 0
    finish_reason: Any = None


class _PromptFeedback(Struct, rename="camel"):
    block_reason: Any = None


class _View(Struct, rename="camel"):
    usage_metadata: Raw = NULL
    candidates: list[_Candidate] | None = None
    prompt_feedback: _PromptFeedback | None = None
    error: Any = None

    @property
    def is_blocked(self) -> bool:
        return self.prompt_feedback is not None and bool(self.prompt_feedback.block_reason)


_camel_config: Final[msgspec.json.Decoder[_CamelConfig | _SnakeConfig]] = msgspec.json.Decoder(_CamelConfig)
_snake_config: Final[msgspec.json.Decoder[_CamelConfig | _SnakeConfig]] = msgspec.json.Decoder(_SnakeConfig)
_body: Final = msgspec.json.Decoder(_Body)
_view: Final = msgspec.json.Decoder(_View)
_views: Final = msgspec.json.Decoder(list[_View])


def peek(body: bytes) -> Peek:
    """Read what steers the byte path from a request body.

    Raises:
        InvalidRequest: malformed JSON, or no object.
    """
    config = decode_body(_body, body)
    counts = [
        view.candidate_count
        for raw in (config.camel_config, config.snake_config)
        for decoder in (_camel_config, _snake_config)
        if (view := decode_view(decoder, raw)) is not None and view.candidate_count is not None
    ]
    return _Peek("", candidate_count=max(counts, default=1))


def find_model_spans(body: bytes) -> list[Span]:
    """Return where a Gemini body names models itself: embedContent, each of batchEmbedContents, countTokens.

    Raises:
        InvalidRequest: a key stands twice.
    """
    members = find_members(body)
    nested = [members[key] for key in ("generateContentRequest", "generate_content_request") if key in members]
    if "requests" in members and body.startswith(b"[", members["requests"].start):
        nested += find_elements(body, members["requests"])
    # What is no object is not ours to judge: null, for one, is as good as absent.
    objects = [members, *(find_members(body, within) for within in nested if body.startswith(b"{", within.start))]
    return [spans["model"] for spans in objects if "model" in spans]


def read_answer(body: bytes) -> Tapped:
    """Tap a whole answer that came with a success status.

    Raises:
        msgspec.DecodeError: *body* is not JSON at all.
    """
    view = decode_answer(_view, body)
    if view is None:
        return Tapped()
    return Tapped(read_usage(view.usage_metadata), decode_band_error(view.error) if view.error else None)


def read_stream_error(block: bytes) -> UpstreamError | None:
    """Return the error that a stream of either shape begins with, where its first events are one."""
    event = first_event(block)
    view = decode_view(_view, event.data) if event else _first_element(block)
    return decode_band_error(view.error) if view and view.error else None


def _first_element(block: bytes) -> _View | None:
    views = decode_view(_views, block.rstrip().removesuffix(b"]") + b"]")
    return views[0] if views else None


class _AnswerTap(StreamTap):
    """What both shapes of the stream have in common: the answers that they are made of."""

    def __init__(self, candidates: int) -> None:
        super().__init__()
        self._unfinished = set(range(min(candidates, MAX_CANDIDATES)))

    def _take(self, view: _View) -> None:
        self.usage = read_usage(view.usage_metadata) or self.usage
        if view.error:
            self.is_failed = True
        for candidate in view.candidates or ():
            if candidate.finish_reason:
                self._unfinished.discard(candidate.index)
        is_finished = bool(view.candidates) and not self._unfinished
        self.is_complete = self.is_complete or self.is_failed or view.is_blocked or is_finished


class SSETap(_AnswerTap, EventTap):
    """Reads along on the stream of ``alt=sse``."""

    words = (b'"usageMetadata"', b'"finishReason"', b'"error"', b'"blockReason"')

    @override
    def look_at(self, event: SSEvent) -> bool:
        view = decode_view(_view, event.data)
        if view:
            self._take(view)
        return True


class ArrayTap(_AnswerTap):
    """Keeps a copy of the array, up to a bound, and reads it when its end has come."""

    def __init__(self, candidates: int) -> None:
        super().__init__(candidates)
        self._copy = bytearray()

    @override
    def feed(self, block: bytes) -> bytes:
        if len(self._copy) <= MAX_ARRAY_TAP_BYTES:
            self._copy += block
        elif end := block.rstrip()[-1:]:
            self._copy[-1:] = end
        return block

    @override
    def finish(self) -> None:
        if len(self._copy) > MAX_ARRAY_TAP_BYTES:
            self.is_complete = self._copy.rstrip().endswith(b"]")  # the only proof there is
            return
        for view in decode_view(_views, bytes(self._copy)) or ():
            self._take(view)
