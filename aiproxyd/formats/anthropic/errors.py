"""Errors of the Messages API: https://docs.anthropic.com/en/api/errors. Sans-I/O."""

from typing import Any, Final

from aiproxyd.errors import (
    CONTEXT_LENGTH_EXCEEDED,
    Kind,
    ProxyError,
    UpstreamError,
    UpstreamKeyRefused,
    UpstreamRefusal,
)
from aiproxyd.formats.anthropic.wire import encode
from aiproxyd.formats.base import decode_error_body, unwrap_array

_EMPTY_ACCOUNT: Final = "Your credit balance is too low"
"""How a refusal begins that is about the account, whatever its type says:
https://github.com/anthropics/claude-code/issues/66314."""

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
_TOO_LONG: Final = "prompt is too long"
"""The words by which Claude Code knows that it has to shorten the conversation."""
_UNEXPLAINED: Final = "the upstream reported an error"


def encode_error(error: ProxyError, request_id: str) -> bytes:
    """Return the body of an error answer."""
    message = error.message
    if error.code == CONTEXT_LENGTH_EXCEEDED and _TOO_LONG not in message:
        message = f"{_TOO_LONG}: {message}"
    described: dict[str, object] = {"type": _TYPE_BY_KIND[error.kind], "message": message}
    if error.details is not None:
        described["details"] = error.details
    return encode({"type": "error", "error": described, "request_id": request_id})


def encode_stream_error(error: ProxyError, request_id: str) -> bytes:
    """Return the event that reports *error* inside a started stream."""
    return b"event: error\ndata: " + encode_error(error, request_id) + b"\n\n"


def decode_error(status: int, body: bytes) -> UpstreamError:
    """Decode the error answer of an upstream; takes any bytes."""
    message, error = decode_error_body(body)
    if error.get("type") == "authentication_error":
        return UpstreamKeyRefused("the upstream refused the gateway's credential")
    is_ours = "type" in error and "message" in error
    refusal = UpstreamRefusal(
        message or f"the upstream answered with status {status}",
        status=status,
        body=unwrap_array(body) if is_ours else None,
    )
    if refusal.message.startswith(_EMPTY_ACCOUNT):
        refusal.kind = "billing"  # although its status is 400
    return refusal


def decode_band_error(error: Any, body: bytes) -> UpstreamError:
    """Return what an error with a success status stands for; *error* should be an object with type and message."""
    if not isinstance(error, dict) or "message" not in error:
        return UpstreamRefusal(error if isinstance(error, str) else _UNEXPLAINED, status=502)
    if error.get("type") == "authentication_error":
        return UpstreamKeyRefused("the upstream refused the gateway's credential")
    status = _STATUS_BY_TYPE.get(str(error.get("type")), 502)
    return UpstreamRefusal(str(error["message"]) or _UNEXPLAINED, status=status, body=body)
