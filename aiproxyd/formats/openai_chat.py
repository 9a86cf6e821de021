"""OpenAI Chat Completions and Embeddings: https://platform.openai.com/docs/api-reference/chat. Sans-I/O."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from aiproxyd.errors import ProxyError, UpstreamError
from aiproxyd.formats.base import (
    NULL,
    EventTap,
    Peek,
    StreamTap,
    Tapped,
    decode_answer,
    decode_request,
    decode_view,
)
from aiproxyd.formats.openai_shared import OpenAIFormat, decode_band_error
from aiproxyd.hub import Usage
from aiproxyd.splice import Edit, find_members, insert_member
from aiproxyd.sse import SSEvent, first_event


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Peek(Peek):
    stream_options: _StreamOptions | None = None
    n: int | None = None

    @property
    @override
    def candidates(self) -> int:
        return self.n or 1

    @property
    @override
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class _PromptDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _CompletionDetails(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


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
_usage: Final = msgspec.json.Decoder(_Usage | None)


class OpenAIChat(OpenAIFormat):
    """The ``openai-chat`` format."""

    name = "openai-chat"

    @override
    def peek(self, body: bytes) -> Peek:
        return decode_request(_peek, body)

    @override
    def edits(self, body: bytes, *, model: str | None, ask_usage: bool) -> list[Edit]:
        edits = super().edits(body, model=model, ask_usage=ask_usage)
        if ask_usage:
            edits.append(_ask_usage(body))
        return edits

    @override
    def encode_stream_error(self, error: ProxyError, request_id: str) -> bytes:
        # Without [DONE]: the SDKs take a stream that has it, or just ends, for complete.
        return b"data: " + self.encode_error(error, request_id) + b"\n\n"

    @override
    def read_answer(self, body: bytes) -> Tapped:
        view = decode_answer(_view, body)
        if view is None:
            return Tapped()
        return Tapped(_read_usage(view.usage), decode_band_error(view.error) if view.error else None)

    @override
    def stream_tap(self, *, hide_usage: bool = False, candidates: int = 1) -> StreamTap:
        return _Tap(hide_usage=hide_usage, candidates=candidates)

    @override
    def read_stream_error(self, block: bytes) -> UpstreamError | None:
        event = first_event(block)
        view = decode_view(_view, event.data) if event else None
        return decode_band_error(view.error) if view and view.error else None


class _Tap(EventTap):
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
        self.usage = _read_usage(view.usage) or self.usage
        return not (self._hide_usage and view.is_usage_only)


def _ask_usage(body: bytes) -> Edit:
    # Most bodies have none: then there is no need to find out where their other members stand.
    options = find_members(body).get("stream_options") if b"stream_options" in body else None
    if options is None:
        return insert_member(body, None, "stream_options", b'{"include_usage":true}')
    if body.startswith(b"null", options.start):
        return Edit(*options, b'{"include_usage":true}')
    flag = find_members(body, options).get("include_usage")
    return Edit(*flag, b"true") if flag else insert_member(body, options, "include_usage", b"true")


def _read_usage(raw: Raw) -> Usage | None:
    usage = decode_view(_usage, raw)
    if usage is None:
        return None
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    read = prompt.cached_tokens if prompt else None
    write = prompt.cache_write_tokens if prompt else None
    fresh = None if usage.prompt_tokens is None else max(usage.prompt_tokens - (read or 0) - (write or 0), 0)
    return Usage(
        input_tokens=fresh,
        cache_read_tokens=read,
        cache_write_tokens=write,
        output_tokens=usage.completion_tokens,
        reasoning_tokens=completion.reasoning_tokens if completion else None,
    )
