"""What both OpenAI formats share: errors (https://platform.openai.com/docs/guides/error-codes) and model lists.

Sans-I/O.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from aiproxyd.errors import Kind, ProxyError, UpstreamError, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats.base import Format, decode_error_body, decode_list, decode_view, unwrap_array
from aiproxyd.hub import ModelCard

_TYPE_BY_KIND: Final[dict[Kind, str]] = {
    "invalid_request": "invalid_request_error",
    "authentication": "invalid_request_error",
    "billing": "insufficient_quota",
    "permission": "permission_error",
    "not_found": "invalid_request_error",
    "conflict": "invalid_request_error",
    "too_large": "invalid_request_error",
    "rate_limit": "rate_limit_error",
    "internal": "server_error",
    "unimplemented": "server_error",
    "timeout": "server_error",
    "overloaded": "server_error",
}
_STATUS_BY_WORD: Final = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "server_is_overloaded": 503,
    "overloaded_error": 503,
}
"""HTTP status of an error that came in band, by its ``code`` or ``type``."""
_KEY_REFUSED: Final = (401, "401", "invalid_api_key", "authentication_error")
_MAX_TIME_S: Final = 253_402_300_799
"""The end of the year 9999; some imitations give milliseconds."""


class _ModelEntry(Struct):
    id: str
    created: Any = None
    owned_by: str | None = None


class _ModelList(Struct):
    data: list[Raw]


_models: Final = msgspec.json.Decoder(_ModelList)
_model: Final = msgspec.json.Decoder(_ModelEntry)


class OpenAIFormat(Format):
    """Base of the two formats of one vendor."""

    @override
    def encode_error(self, error: ProxyError, request_id: str) -> bytes:
        return msgspec.json.encode({"error": render_error(error)})

    @override
    def decode_error(self, status: int, body: bytes) -> UpstreamError:
        message, error = decode_error_body(body)
        if _is_key_refused(error):
            return UpstreamKeyRefused("the upstream refused the gateway's credential")
        return UpstreamRefusal(
            message or f"the upstream answered with status {status}",
            status=status,
            body=unwrap_array(body) if "message" in error else None,
        )

    @override
    def decode_model_list(self, body: bytes) -> list[ModelCard]:
        cards: list[ModelCard] = []
        for raw in decode_list(_models, body).data:
            entry = decode_view(_model, raw)
            if entry:
                created, owner = _read_time(entry.created), entry.owned_by or ""
                cards.append(ModelCard(name=entry.id, created=created, owner=owner, origin="openai", raw=raw.copy()))
        return cards

    @override
    def encode_model(self, card: ModelCard) -> bytes:
        if card.origin == "openai":
            return bytes(card.raw)
        entry = {"id": card.name, "object": "model", "created": card.created or 0, "owned_by": card.owner or "aiproxyd"}
        return msgspec.json.encode(entry)

    @override
    def encode_model_list(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        return b'{"object":"list","data":[' + b",".join(map(self.encode_model, cards)) + b"]}"


def _read_time(created: object) -> int | None:
    return int(created) if isinstance(created, int | float) and 0 <= created <= _MAX_TIME_S else None


def render_error(error: ProxyError) -> dict[str, Any]:
    """Return the ``error`` object for *error*."""
    param = error.param.removeprefix("$.") if error.param else None  # OpenAI writes `messages[0]`, without a root
    return {"message": error.message, "type": _TYPE_BY_KIND[error.kind], "param": param, "code": error.code}


def _is_key_refused(error: dict[str, Any]) -> bool:
    return any(isinstance(word, str | int) and word in _KEY_REFUSED for word in (error.get("code"), error.get("type")))


def decode_band_error(error: Any) -> UpstreamError:
    """Return what an error inside a stream or a 200 answer stands for.

    *error* is an object with message, type and code, or what an imitation has in its place, mostly the bare message.
    """
    if not isinstance(error, dict):
        error = {"message": error if isinstance(error, str) else None}
    if _is_key_refused(error):
        return UpstreamKeyRefused("the upstream refused the gateway's credential")
    status = error.get("status_code") or error.get("code")
    if not (isinstance(status, int) and 400 <= status < 600):
        status = _STATUS_BY_WORD.get(str(error.get("code"))) or _STATUS_BY_WORD.get(str(error.get("type"))) or 502
    body = msgspec.json.encode({"error": {"message": "", "type": None, "param": None, "code": None} | error})
    return UpstreamRefusal(str(error.get("message") or "the upstream reported an error"), status=status, body=body)
