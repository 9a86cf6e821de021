"""Gemini's errors, whole, in band and as ours: https://ai.google.dev/gemini-api/docs/troubleshooting. Sans-I/O."""

import math
from typing import Any, Final

import msgspec

from aiproxyd.errors import Kind, ProxyError, UpstreamError, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats.base import decode_error_body, encode_deep, unwrap_array

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


def encode_error(error: ProxyError) -> bytes:
    """Return the body of an error answer, which is also what stands in a started stream."""
    body: dict[str, Any] = {
        "code": 429 if error.status == 402 else error.status,
        "message": error.message,
        "status": _STATUS_WORD_BY_KIND[error.kind],
    }
    if error.retry_after_s is not None:
        delay = f"{math.ceil(error.retry_after_s)}s"
        body["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    return msgspec.json.encode({"error": body})


def decode_error(status: int, body: bytes) -> UpstreamError:
    """Decode the error answer of an upstream; takes any bytes."""
    message, error = decode_error_body(body)
    if _is_key_refused(status, error):
        return UpstreamKeyRefused("the upstream refused the gateway's credential")
    return UpstreamRefusal(
        message or f"the upstream answered with status {status}",
        status=status,
        body=unwrap_array(body) if "message" in error and isinstance(error.get("code"), int) else None,
        retry_after_s=_find_retry_delay_s(error),
    )


def decode_band_error(error: Any) -> UpstreamError:
    """Return what an error with a success status stands for; *error* should be an object with code and message."""
    if not isinstance(error, dict):
        error = {"message": error if isinstance(error, str) else None}
    code = error.get("code")
    if code == 401 or _is_key_refused(400, error):
        return UpstreamKeyRefused("the upstream refused the gateway's credential")
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    message = error.get("message")
    if not isinstance(message, str) or not message:
        message = "the upstream reported an error"
    body = encode_deep({"error": error})
    return UpstreamRefusal(message, status=status, body=body, retry_after_s=_find_retry_delay_s(error))


def _is_key_refused(status: int, error: dict[str, Any]) -> bool:
    reasons = (detail.get("reason") for detail in _details(error))
    return status == 401 or any(
        isinstance(reason, str) and reason.startswith(("API_KEY_", "CONSUMER_")) for reason in reasons
    )


def _find_retry_delay_s(error: dict[str, Any]) -> float | None:
    """Return the delay of the RetryInfo detail (``"17s"``), in seconds."""
    for detail in _details(error):
        try:
            delay_s = float(str(detail["retryDelay"]).removesuffix("s"))
        except (KeyError, ValueError, RecursionError):
            continue
        if 0 <= delay_s < float("inf"):
            return delay_s
    return None


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
