"""Anthropic Messages: https://docs.anthropic.com/en/api/messages and /messages-streaming. Sans-I/O."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from aiproxyd.errors import InvalidRequest, Kind, ProxyError, UpstreamError, UpstreamKeyRefused, UpstreamRefusal
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
    read_number,
    unwrap_array,
)
from aiproxyd.hub import ModelCard, Usage
from aiproxyd.sse import SSEvent, first_event


class _OutputDetails(Struct):
    thinking_tokens: int | None = None


class _Usage(Struct):
    """Any field may be null or absent; in a stream, absent means unchanged."""

    input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _View(Struct):
    usage: Raw = NULL
    type: str = ""
    error: Any = None


class _EventView(Struct):
    type: str = ""
    message: _View | None = None
    usage: Raw = NULL
    error: Any = None


class _ModelEntry(Struct):
    id: str
    created_at: Any = None


class _ModelList(Struct):
    data: list[Raw]


DEFAULT_PAGE_SIZE: Final = 20
"""Models on a page where ``limit`` is left out: https://docs.anthropic.com/en/api/models-list."""

_models: Final = msgspec.json.Decoder(_ModelList)
_model: Final = msgspec.json.Decoder(_ModelEntry)
_peek: Final = msgspec.json.Decoder(Peek)
_view: Final = msgspec.json.Decoder(_View)
_usage: Final = msgspec.json.Decoder(_Usage | None)
_event_view: Final = msgspec.json.Decoder(_EventView)

_TYPE_BY_KIND: Final[dict[Kind, str]] = {
    "invalid_request": "invalid_request_error",
    "authentication": "authentication_error",
    "billing": "billing_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "conflict": "conflict_error",
    "too_large": "request_too_large",
    "rate_limit": "rate_limit_error",
    "internal": "api_error",
    "unimplemented": "api_error",
    "timeout": "timeout_error",
    "overloaded": "overloaded_error",
}
_STATUS_BY_TYPE: Final = {
    "invalid_request_error": 400,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_UNEXPLAINED: Final = "the upstream reported an error"


class Anthropic(Format):
    """The ``anthropic`` format."""

    name = "anthropic"

    @override
    def peek(self, body: bytes) -> Peek:
        return decode_request(_peek, body)

    @override
    def encode_error(self, error: ProxyError, request_id: str) -> bytes:
        return msgspec.json.encode(
            {
                "type": "error",
                "error": {"type": _TYPE_BY_KIND[error.kind], "message": error.message},
                "request_id": request_id,
            }
        )

    @override
    def encode_stream_error(self, error: ProxyError, request_id: str) -> bytes:
        return b"event: error\ndata: " + self.encode_error(error, request_id) + b"\n\n"

    @override
    def decode_error(self, status: int, body: bytes) -> UpstreamError:
        message, error = decode_error_body(body)
        if error.get("type") == "authentication_error":
            return UpstreamKeyRefused("the upstream refused the gateway's credential")
        is_ours = "type" in error and "message" in error
        return UpstreamRefusal(
            message or f"the upstream answered with status {status}",
            status=status,
            body=unwrap_array(body) if is_ours else None,
        )

    @override
    def read_answer(self, body: bytes) -> Tapped:
        view = decode_answer(_view, body)
        if view is None:
            return Tapped()
        error = _decode_band_error(view.error, body) if view.type == "error" or view.error else None
        return Tapped(_merge_usage(None, view.usage), error)

    @override
    def stream_tap(self, *, hide_usage: bool = False, candidates: int = 1) -> StreamTap:
        return _Tap()

    @override
    def read_stream_error(self, block: bytes) -> UpstreamError | None:
        event = first_event(block)
        view = decode_view(_event_view, event.data) if event else None
        if event is None or view is None or not (view.type == "error" or view.error):
            return None
        return _decode_band_error(view.error, event.data)

    @override
    def decode_model_list(self, body: bytes) -> list[ModelCard]:
        cards: list[ModelCard] = []
        for raw in decode_list(_models, body).data:
            entry = decode_view(_model, raw)
            if entry:
                created = _read_time(entry.created_at)
                cards.append(
                    ModelCard(name=entry.id, created=created, owner="anthropic", origin=self.name, raw=raw.copy())
                )
        return cards

    @override
    def encode_model(self, card: ModelCard) -> bytes:
        if card.origin == self.name:
            return bytes(card.raw)
        created = datetime.fromtimestamp(card.created or 0, UTC)
        return msgspec.json.encode(
            {
                "type": "model",
                "id": card.name,
                "display_name": card.name,
                "created_at": created,
                "lifecycle": "active",
                "capabilities": None,
                "max_input_tokens": None,
                "max_tokens": None,
            }
        )

    @override
    def encode_model_list(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        limit = read_number(query, "limit", DEFAULT_PAGE_SIZE)
        names = [card.name for card in cards]
        if "before_id" in query:
            end = _find(names, query["before_id"], "before_id")
            start = max(end - limit, 0)
            has_more = start > 0
        else:
            start = _find(names, query["after_id"], "after_id") + 1 if "after_id" in query else 0
            end = min(start + limit, len(cards))
            has_more = end < len(cards)
        page: dict[str, bool | str | None] = {"has_more": has_more, "first_id": None, "last_id": None}
        if start < end:
            page |= {"first_id": names[start], "last_id": names[end - 1]}
        data = b",".join(map(self.encode_model, cards[start:end]))
        return b'{"data":[' + data + b"]," + msgspec.json.encode(page)[1:]


class _Tap(EventTap):
    words = (b'"message_', b'"error"')

    @override
    def look_at(self, event: SSEvent) -> bool:
        match decode_view(_event_view, event.data):
            case (
                _EventView(type="message_start", message=_View(usage=usage))
                | _EventView(type="message_delta", usage=usage)
            ):
                self.usage = _merge_usage(self.usage, usage)
            case _EventView(type="message_stop"):
                self.is_complete = self.is_terminal = True
            case _EventView(type=kind, error=error) if kind == "error" or error:
                self.is_complete = self.is_terminal = self.is_failed = True
            case _:
                pass
        return True


def _merge_usage(before: Usage | None, raw: Raw) -> Usage | None:
    """Return the usage after *raw*: its counts are cumulative, what it leaves out keeps its value."""
    now = decode_view(_usage, raw)
    if now is None:
        return before
    before = before or Usage()
    details = now.output_tokens_details
    return Usage(
        input_tokens=_newer(now.input_tokens, before.input_tokens),
        cache_read_tokens=_newer(now.cache_read_input_tokens, before.cache_read_tokens),
        cache_write_tokens=_newer(now.cache_creation_input_tokens, before.cache_write_tokens),
        output_tokens=_newer(now.output_tokens, before.output_tokens),
        reasoning_tokens=_newer(details.thinking_tokens if details else None, before.reasoning_tokens),
    )


def _find(names: Sequence[str], name: str, param: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise InvalidRequest(f"{param}: there is no model {name[:80]!r}", param=param) from None


def _newer(now: int | None, before: int | None) -> int | None:
    return before if now is None else now


def _read_time(created_at: object) -> int | None:
    try:
        time = datetime.fromisoformat(created_at if isinstance(created_at, str) else "")
    except ValueError:
        return None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def _decode_band_error(error: Any, body: bytes) -> UpstreamError:
    """Return what an error with a success status stands for; *error* should be an object with type and message."""
    if not isinstance(error, dict) or "message" not in error:
        return UpstreamRefusal(error if isinstance(error, str) else _UNEXPLAINED, status=502)
    if error.get("type") == "authentication_error":
        return UpstreamKeyRefused("the upstream refused the gateway's credential")
    status = _STATUS_BY_TYPE.get(str(error.get("type")), 502)
    return UpstreamRefusal(str(error["message"]) or _UNEXPLAINED, status=status, body=body)
