"""Gemini generateContent: https://ai.google.dev/api/generate-content. Sans-I/O.

The Python SDK and Gemini CLI read streams with a pattern, not an SSE parser: a comment, an ``event:`` line or
``[DONE]`` breaks them, so nothing but ``data: {...}`` is ever written here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from aiproxyd.errors import Kind, ProxyError, UpstreamError, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats.base import (
    NULL,
    EventTap,
    Format,
    Peek,
    StreamTap,
    Tapped,
    decode_answer,
    decode_error_body,
    decode_list,
    decode_request,
    decode_view,
    find_model_members,
    read_name,
    read_number,
    unwrap_array,
)
from aiproxyd.hub import ModelCard, Usage
from aiproxyd.splice import Edit, Span, find_elements, find_members
from aiproxyd.sse import SSEvent, first_event

MAX_CANDIDATES: Final = 8
"""The largest ``candidateCount`` of the API."""
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


class _Usage(Struct, rename="camel"):
    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    total_token_count: int | None = None


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


class _ModelEntry(Struct):
    name: str


class _ModelList(Struct):
    models: list[Raw] = []


DEFAULT_PAGE_SIZE: Final = 50
"""Models on a page where ``pageSize`` is left out: https://ai.google.dev/api/models#method:-models.list."""

_models: Final = msgspec.json.Decoder(_ModelList)
_model: Final = msgspec.json.Decoder(_ModelEntry)
_camel_config: Final[msgspec.json.Decoder[_CamelConfig | _SnakeConfig]] = msgspec.json.Decoder(_CamelConfig)
_snake_config: Final[msgspec.json.Decoder[_CamelConfig | _SnakeConfig]] = msgspec.json.Decoder(_SnakeConfig)
_body: Final = msgspec.json.Decoder(_Body)
_usage: Final = msgspec.json.Decoder(_Usage | None)
_view: Final = msgspec.json.Decoder(_View)
_views: Final = msgspec.json.Decoder(list[_View])

_STATUS_WORD_BY_KIND: Final[dict[Kind, str]] = {
    "invalid_request": "INVALID_ARGUMENT",
    "authentication": "UNAUTHENTICATED",
    "billing": "RESOURCE_EXHAUSTED",
    "permission": "PERMISSION_DENIED",
    "not_found": "NOT_FOUND",
    "conflict": "ABORTED",
    "too_large": "INVALID_ARGUMENT",
    "rate_limit": "RESOURCE_EXHAUSTED",
    "internal": "INTERNAL",
    "unimplemented": "UNIMPLEMENTED",
    "timeout": "DEADLINE_EXCEEDED",
    "overloaded": "UNAVAILABLE",
}


class Gemini(Format):
    """The ``gemini`` format."""

    name = "gemini"
    # Gemini CLI reads an error event as an empty chunk and ends with exit code 0; only a cut connection stops it.
    stream_error_closes = True

    @override
    def peek(self, body: bytes) -> Peek:
        config = decode_request(_body, body)
        counts = [
            view.candidate_count
            for raw in (config.camel_config, config.snake_config)
            for decoder in (_camel_config, _snake_config)
            if (view := decode_view(decoder, raw)) is not None and view.candidate_count is not None
        ]
        return _Peek("", candidate_count=max(counts, default=1))

    @override
    def edits(self, body: bytes, *, model: str | None, ask_usage: bool) -> list[Edit]:
        if model is None:
            return []
        value = msgspec.json.encode(f"models/{model}")
        return [Edit(*span, value) for span in _find_model_spans(body)]

    @override
    def find_models(self, body: bytes) -> list[str]:
        find_model_members(body)
        return [read_name(body, span).removeprefix("models/") for span in _find_model_spans(body)]

    @override
    def encode_error(self, error: ProxyError, request_id: str) -> bytes:
        body: dict[str, Any] = {
            "code": error.status,
            "message": error.message,
            "status": _STATUS_WORD_BY_KIND[error.kind],
        }
        if error.retry_after_s is not None:
            delay = f"{math.ceil(error.retry_after_s)}s"
            body["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
        return msgspec.json.encode({"error": body})

    @override
    def encode_stream_error(self, error: ProxyError, request_id: str) -> bytes:
        return b"data: " + self.encode_error(error, request_id) + b"\r\n\r\n"

    @override
    def decode_error(self, status: int, body: bytes) -> UpstreamError:
        message, error = decode_error_body(body)
        if _is_key_refused(status, error):
            return UpstreamKeyRefused("the upstream refused the gateway's credential")
        return UpstreamRefusal(
            message or f"the upstream answered with status {status}",
            status=status,
            body=unwrap_array(body) if "message" in error and isinstance(error.get("code"), int) else None,
            retry_after_s=_find_retry_delay_s(error),
        )

    @override
    def read_answer(self, body: bytes) -> Tapped:
        view = decode_answer(_view, body)
        if view is None:
            return Tapped()
        return Tapped(_read_usage(view.usage_metadata), _decode_band_error(view.error) if view.error else None)

    @override
    def stream_tap(self, *, hide_usage: bool = False, candidates: int = 1) -> StreamTap:
        return _Tap(candidates)

    def array_tap(self, candidates: int = 1) -> StreamTap:
        """Return a tap for the stream without ``alt=sse``, a JSON array of the same objects."""
        return _ArrayTap(candidates)

    @override
    def read_stream_error(self, block: bytes) -> UpstreamError | None:
        event = first_event(block)
        view = decode_view(_view, event.data) if event else _first_element(block)
        return _decode_band_error(view.error) if view and view.error else None

    @override
    def decode_model_list(self, body: bytes) -> list[ModelCard]:
        cards: list[ModelCard] = []
        for raw in decode_list(_models, body).models:
            entry = decode_view(_model, raw)
            if entry:
                name = entry.name.removeprefix("models/")
                cards.append(ModelCard(name=name, owner="google", origin=self.name, raw=raw.copy()))
        return cards

    @override
    def encode_model(self, card: ModelCard) -> bytes:
        if card.origin == self.name:
            return bytes(card.raw)
        return msgspec.json.encode(
            {
                "name": f"models/{card.name}",
                "displayName": card.name,
                "version": "",
                "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
            }
        )

    @override
    def encode_model_list(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        size = read_number(query, "pageSize", DEFAULT_PAGE_SIZE)
        start = read_number(query, "pageToken", 0)
        body = b'{"models":[' + b",".join(map(self.encode_model, cards[start : start + size])) + b"]"
        # The token is the offset of the next page: the list is short and changes seldom.
        return body + (b',"nextPageToken":"%d"}' % (start + size) if start + size < len(cards) else b"}")


class _AnswerTap(StreamTap):
    """What both shapes of the stream have in common: the answers that they are made of."""

    def __init__(self, candidates: int) -> None:
        super().__init__()
        self._unfinished = set(range(min(candidates, MAX_CANDIDATES)))

    def _take(self, view: _View) -> None:
        self.usage = _read_usage(view.usage_metadata) or self.usage
        if view.error:
            self.is_failed = True
        for candidate in view.candidates or ():
            if candidate.finish_reason:
                self._unfinished.discard(candidate.index)
        is_finished = bool(view.candidates) and not self._unfinished
        self.is_complete = self.is_complete or self.is_failed or view.is_blocked or is_finished


class _Tap(_AnswerTap, EventTap):
    words = (b'"usageMetadata"', b'"finishReason"', b'"error"', b'"blockReason"')

    @override
    def look_at(self, event: SSEvent) -> bool:
        view = decode_view(_view, event.data)
        if view:
            self._take(view)
        return True


class _ArrayTap(_AnswerTap):
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


def _find_model_spans(body: bytes) -> list[Span]:
    """Return where a Gemini body names models itself: embedContent, each of batchEmbedContents, countTokens."""
    members = find_members(body)
    nested = [members[key] for key in ("generateContentRequest", "generate_content_request") if key in members]
    if "requests" in members and body.startswith(b"[", members["requests"].start):
        nested += find_elements(body, members["requests"])
    # What is no object is not ours to judge: null, for one, is as good as absent.
    objects = [members, *(find_members(body, within) for within in nested if body.startswith(b"{", within.start))]
    return [spans["model"] for spans in objects if "model" in spans]


def _first_element(block: bytes) -> _View | None:
    views = decode_view(_views, block.rstrip().removesuffix(b"]") + b"]")
    return views[0] if views else None


def _is_key_refused(status: int, error: dict[str, Any]) -> bool:
    reasons = (str(detail.get("reason")) for detail in _details(error))
    return status == 401 or any(reason.startswith(("API_KEY_", "CONSUMER_")) for reason in reasons)


def _find_retry_delay_s(error: dict[str, Any]) -> float | None:
    """Return the delay of the RetryInfo detail (``"17s"``), in seconds."""
    for detail in _details(error):
        try:
            delay_s = float(str(detail["retryDelay"]).removesuffix("s"))
        except (KeyError, ValueError):
            continue
        if 0 <= delay_s < float("inf"):
            return delay_s
    return None


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _decode_band_error(error: Any) -> UpstreamError:
    """Return what an error with a success status stands for; *error* should be an object with code and message."""
    if not isinstance(error, dict):
        error = {"message": error if isinstance(error, str) else None}
    code = error.get("code")
    if code == 401 or _is_key_refused(400, error):
        return UpstreamKeyRefused("the upstream refused the gateway's credential")
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    message = str(error.get("message") or "the upstream reported an error")
    body = msgspec.json.encode({"error": error})
    return UpstreamRefusal(message, status=status, body=body, retry_after_s=_find_retry_delay_s(error))


def _read_usage(raw: Raw) -> Usage | None:
    usage = decode_view(_usage, raw)
    if usage is None:
        return None
    prompt = (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0)
    candidates, thoughts = usage.candidates_token_count, usage.thoughts_token_count or 0
    if candidates is None and usage.total_token_count is not None:
        output = max(usage.total_token_count - prompt, 0)
    elif usage.total_token_count == prompt + (candidates or 0):
        # Some backends count the thoughts inside the candidates: then the total leaves no room for them.
        output = candidates or 0
    else:
        output = (candidates or 0) + thoughts
    return Usage(
        input_tokens=max(prompt - (usage.cached_content_token_count or 0), 0),
        cache_read_tokens=usage.cached_content_token_count,
        output_tokens=output,
        reasoning_tokens=usage.thoughts_token_count,
    )
