"""Which headers pass, in both directions: by allow-list, so that nothing passes for want of having been thought of."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

from multidict import CIMultiDict

_PASSED_ON: Final = frozenset(
    (
        "accept",
        "accept-language",
        "content-type",
        "idempotency-key",
        "originator",
        "traceparent",
        "tracestate",
        "user-agent",
        "version",
        "via",
        "x-app",
        "x-client-request-id",
        "x-goog-api-client",
        "x-goog-fieldmask",
        "x-goog-request-params",
        "x-server-timeout",
        # Sessions: Codex, opencode.
        "conversation-id",
        "conversation_id",
        "session-id",
        "session_id",
        "thread-id",
        "thread_id",
        "x-session-affinity",
        "x-session-id",
    )
)
_PASSED_ON_PREFIXES: Final = (
    "anthropic-",
    "openai-",
    "x-stainless-",
    "x-goog-upload-",
    "x-claude-code-",
    "x-codex-",
)
_KEPT_BACK: Final = frozenset(
    ("anthropic-api-key", "anthropic-workspace-id", "openai-api-key", "openai-organization", "openai-project")
)
"""Credentials whose names fit a prefix above, and accounts of the caller's, which our key has no access to."""

_NEUTRAL: Final = frozenset(("traceparent", "tracestate", "via"))

_PASSED_BACK: Final = frozenset(
    (
        "content-type",
        "content-disposition",
        "content-language",
        "openai-model",
        "openai-processing-ms",
        "openai-version",
        "request-id",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
    )
)
_PASSED_BACK_PREFIXES: Final = ("x-ratelimit-", "anthropic-ratelimit-", "anthropic-fast-")


@lru_cache(maxsize=1024)
def _is_passed_on(name: str) -> bool:
    name = name.lower()
    return name in _PASSED_ON or (name.startswith(_PASSED_ON_PREFIXES) and name not in _KEPT_BACK)


@lru_cache(maxsize=1024)
def _is_passed_back(name: str) -> bool:
    name = name.lower()
    return name in _PASSED_BACK or name.startswith(_PASSED_BACK_PREFIXES)


def select_for_upstream(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return the caller's headers that an upstream gets to see: no credentials, cookies or hop-by-hop headers."""
    return CIMultiDict([item for item in headers.items() if _is_passed_on(item[0])])


def select_for_conversion(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return those of the headers for an upstream that mean the same in every format."""
    return CIMultiDict([item for item in headers.items() if item[0].lower() in _NEUTRAL])


def select_for_caller(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return the upstream's headers that the caller gets to see: nothing about its connection, encoding or account."""
    return CIMultiDict([item for item in headers.items() if _is_passed_back(item[0])])


def read_retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the upstream asks to wait, in seconds; None where it does not say."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "")
        try:
            seconds = float(text) * unit_s
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    return _read_date_s(headers.get("retry-after", ""))


def _read_date_s(text: str) -> float | None:
    """Return how far in the future the HTTP date *text* is, in seconds; by our clock, for want of a better one."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for numbers that are too long for any date
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)  # `-0000` is no time zone
    return max((date - datetime.now(UTC)).total_seconds(), 0.0)
