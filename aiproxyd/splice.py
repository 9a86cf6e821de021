"""Changes single values of a JSON text in place; every other byte stays as it came. Sans-I/O.

msgspec finds where a value ends (its Raw slices), a small pattern finds where it begins: nothing but keys is looked at.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from aiproxyd.errors import InvalidRequest

JSON_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that it cannot read; the last for some hundred brackets inside one another."""

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items: Final = msgspec.json.Decoder(list[msgspec.Raw])
_OPEN: Final = re.compile(rb"\s*[{\[]\s*")
_KEY: Final = re.compile(rb'"(?:[^"\\]|\\.)*"\s*:\s*', re.DOTALL)
_COMMA: Final = re.compile(rb"\s*,\s*")


class Span(NamedTuple):
    """Where a value stands: ``text[start:end]``."""

    start: int
    end: int


class Edit(NamedTuple):
    """Replaces ``text[start:end]``; an empty span inserts."""

    start: int
    end: int
    value: bytes


def find_members(text: bytes, within: Span | None = None) -> dict[str, Span]:
    """Return where each value of the JSON object stands that fills *within* (all of *text* where left out).

    Raises:
        InvalidRequest: not a JSON object, or one that holds the same key twice, whose meaning would be anyone's guess.
    """
    start, end = within or (0, len(text))
    try:
        fields = _fields.decode(text[start:end])
    except JSON_ERRORS as exc:
        raise InvalidRequest(f"malformed JSON: {exc}") from exc
    spans: dict[str, Span] = {}
    at = _skip(_OPEN, text, start)
    for key, raw in fields.items():
        if spans:
            at = _skip(_COMMA, text, at)
        at = _skip(_KEY, text, at)
        value = bytes(raw)
        if not text.startswith(value, at):
            raise _duplicate_key()
        spans[key] = Span(at, at := at + len(value))
    if text[at:end].strip() != b"}" and fields:
        raise _duplicate_key()
    return spans


def find_elements(text: bytes, within: Span) -> list[Span]:
    """Return where each element of the JSON array stands that fills *within*.

    Raises:
        InvalidRequest: not a JSON array.
    """
    try:
        items = _items.decode(text[within.start : within.end])
    except JSON_ERRORS as exc:
        raise InvalidRequest(f"malformed JSON: {exc}") from exc
    spans: list[Span] = []
    at = _skip(_OPEN, text, within.start)
    for raw in items:
        if spans:
            at = _skip(_COMMA, text, at)
        spans.append(Span(at, at := at + len(bytes(raw))))
    return spans


def insert_member(text: bytes, within: Span | None, key: str, value: bytes) -> Edit:
    """Return the edit that adds ``"key":value`` in front of the members of the object that fills *within*."""
    at = _skip(_OPEN, text, within.start if within else 0)
    comma = b"" if text.startswith(b"}", at) else b","
    return Edit(at, at, msgspec.json.encode(key) + b":" + value + comma)


def apply_edits(text: bytes, edits: Iterable[Edit]) -> bytes:
    """Return *text* with all *edits* made; their spans must not overlap."""
    pieces: list[bytes] = []
    at = 0
    for edit in sorted(edits):
        pieces += (text[at : edit.start], edit.value)
        at = edit.end
    pieces.append(text[at:])
    return b"".join(pieces)


def _skip(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    match = pattern.match(text, at)
    if match is None:
        raise _duplicate_key()
    return match.end()


def _duplicate_key() -> InvalidRequest:
    # The text is valid JSON by now, so keys and Raw values can only disagree where a key stands twice.
    return InvalidRequest("malformed JSON: a key stands twice in one object")
