"""Logs on standard error, as text or one JSON object a line. Bodies and secrets never get here."""

import asyncio
import logging
import re
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, TextIO

import msgspec
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError
from typing_extensions import override

from aiproxyd.hub import Usage
from aiproxyd.telemetry.records import CallRecord, Try

FLUSH_AFTER_S: Final = 0.05
"""How long a line of the access log may wait for others, so that a busy daemon makes one system call for many."""
CLIENT_GONE: Final = 499
"""Status in the log of a request whose caller left before the answer was complete."""
REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="")
"""Id of the request that is being served, for whatever is logged meanwhile; empty outside of requests."""
MAX_TRIED_CHARS: Final = 1024
"""How much of the story of a call's attempts is logged on a line of text."""
MAX_NAME_CHARS: Final = 256
"""How much of a model's name is logged; callers choose it, and a body has room for megabytes."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9._:/@*+,-]+")
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")


def set_up_logging(level: str, log_format: Literal["text", "json"]) -> None:
    """Send all log records to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JSONFormatter() if log_format == "json" else _TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.server").addFilter(_hide_bad_http)


def _hide_bad_http(record: logging.LogRecord) -> bool:
    """Shorten what aiohttp logs of a request that it cannot read: its traceback quotes the request, keys and all.

    Bugs are logged before they get there.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ConnectionError):
        return False  # the caller has gone while it was being answered: the line of its request says so
    if isinstance(error, HttpProcessingError | RequestPayloadError):
        record.msg = f"{record.msg}: {type(error).__name__}"
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.exc_info = record.exc_text = None
    return True


class _TextFormatter(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        line = f"{_to_time(record.created)} {record.levelname} {record.name}: {_escape(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JSONFormatter(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _to_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _to_json(line)


class AccessLog:
    """One line for each request. Lines are written together, a moment later; ``flush`` writes what waits."""

    def __init__(self, log_format: Literal["text", "json"], stream: TextIO | None = None) -> None:
        self._render = _render_json if log_format == "json" else _render_text
        self._stream = stream
        self._lines: list[str] = []

    def write(self, method: str, path: str, status: int, record: CallRecord) -> None:
        """Log one request; *path* is without its query, which may hold a key."""
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.flush)
        self._lines.append(self._render(method, path, status, record))

    def flush(self) -> None:
        """Write the lines that wait."""
        lines, self._lines = self._lines, []
        if lines:
            stream = self._stream or sys.stderr
            stream.write("\n".join(lines) + "\n")
            stream.flush()


def _render_text(method: str, path: str, status: int, record: CallRecord) -> str:
    usage = record.usage
    dropped = ",".join(record.dropped)
    tokens = _render_usage(usage, is_estimated=record.is_usage_estimated) if usage else "-"
    return (
        f"{_to_time(time.time())} INFO request id={record.request_id} principal={_quote(record.principal)} "
        f"{method} {_quote(path)} model={_quote(record.model[:MAX_NAME_CHARS])} upstream={record.upstream or '-'} "
        f"{_render_target(record)}status={status} ms={record.elapsed_ms:.1f} tokens={tokens}"
        f"{f' cache={record.cache}' if record.cache else ''}"
        f"{f' saved={_render_usage(record.saved, is_estimated=False)}' if record.saved else ''}"
        f"{f' dropped={_quote_once(dropped)}' if dropped else ''}"
        f"{f' error={record.error}' if record.error else ''}"
    )


def _render_target(record: CallRecord) -> str:
    """Return what is not as it mostly is: another model than the caller named, more than one attempt."""
    model = record.upstream_model
    told = f"upstream-model={_quote(model[:MAX_NAME_CHARS])} " if model and model != record.model else ""
    if not _has_story(record):
        return f"{told}attempts={record.attempts} " if record.attempts > 1 else told
    tried = ",".join(map(_render_try, record.tries))
    return f"{told}attempts={record.attempts} tried={_quote_once(tried[:MAX_TRIED_CHARS])} "


def _has_story(record: CallRecord) -> bool:
    """Tell whether there is more to tell about the attempts than the rest of the line does."""
    tries = record.tries
    return len(tries) > 1 or (len(tries) == 1 and tries[0].usage is not None)


def _render_try(each: Try) -> str:
    return f"{each.upstream}/{each.model}#{each.key + 1}:{each.outcome}" + (
        f":{_render_usage(each.usage, is_estimated=each.is_usage_estimated)}" if each.usage is not None else ""
    )


def _render_usage(usage: Usage, *, is_estimated: bool) -> str:
    return f"{'~' if is_estimated else ''}{usage.total_input_tokens}+{usage.output_tokens or 0}"


def _tell_try(each: Try) -> dict[str, object]:
    told: dict[str, object] = {
        "upstream": each.upstream,
        "model": each.model[:MAX_NAME_CHARS],
        "key": each.key + 1,
        "outcome": each.outcome,
        "ms": round(each.ms, 1),
    }
    if each.usage is not None:
        told["tokens"] = each.usage
        if each.is_usage_estimated:
            told["tokens_estimated"] = True
    return told


def _render_json(method: str, path: str, status: int, record: CallRecord) -> str:
    line = {
        "time": _to_time(time.time()),
        "level": "info",
        "message": "request",
        "request_id": record.request_id,
        "principal": record.principal,
        "method": method,
        "path": path,
        "model": record.model[:MAX_NAME_CHARS],
        "upstream": record.upstream,
        "upstream_model": record.upstream_model[:MAX_NAME_CHARS],
        "status": status,
        "ms": round(record.elapsed_ms, 1),
        "tokens": record.usage,
    }
    if record.is_usage_estimated:
        line["tokens_estimated"] = True
    if record.attempts > 1:
        line["attempts"] = record.attempts
    if _has_story(record):
        line["tried"] = [_tell_try(each) for each in record.tries]
    if record.cache:
        line["cache"] = record.cache
    if record.saved:
        line["tokens_saved"] = record.saved
    if record.dropped:
        line["dropped"] = record.dropped
    if record.error:
        line["error"] = record.error
    return _to_json(line)


def _quote_once(text: str) -> str:
    """Return *text* so that it can neither end the line nor pass for another field."""
    if not text:
        return "-"
    return text if _PLAIN.fullmatch(text) else '"' + _escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


_quote: Final = lru_cache(maxsize=1024)(_quote_once)
"""The same, for short texts that come again and again."""


def _escape(text: str) -> str:
    """Return *text* on one line, without anything that a terminal obeys."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _to_json(line: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(line).decode()
    except UnicodeEncodeError:  # somebody sent bytes that are no UTF-8
        texts = {key: _escape(value) for key, value in line.items() if isinstance(value, str)}
        return msgspec.json.encode(line | texts).decode()


def _to_time(timestamp_s: float) -> str:
    second, rest = divmod(timestamp_s, 1)
    return f"{_to_second(second)}.{int(rest * 1000):03d}Z"


@lru_cache(maxsize=8)
def _to_second(second: float) -> str:
    # Lines come many to the second, and nothing in them costs as much as a date.
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
