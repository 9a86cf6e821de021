"""What all requests of one conversation have in common, whose clients send it whole each time. Sans-I/O.

It is found before each call, so of long texts only samples are looked at.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.splice import JSON_ERRORS

MAX_TURNS: Final = 8
"""Turns, or blocks of the orders, that the beginning of a conversation has at most."""
MAX_USER_TURNS: Final = 2
"""Turns of the user's among them, if they follow one another: Gemini CLI, for one, begins each conversation with the
same turn about the day and the folder, and asks in the next one."""
LONG_BYTES: Final = 4096
"""Longer turns and orders are known by their ends and their length."""

SESSION_NAME: Final = re.compile(rb'^"\s*[^\s"].*', re.DOTALL)
"""A string that says something, in JSON."""

_END_BYTES: Final = LONG_BYTES // 4
"""How much of each end counts; it is cut from twice as much, to make up for what is taken out."""
_SLACK_BYTES: Final = 256
"""More than that is hardly taken out."""
_START_BYTES: Final = 128

_ROLE: Final = re.compile(rb'\s*\{\s*(?:"type"\s*:\s*"message"\s*,\s*)?"role"\s*:\s*"([a-z]+)"')
"""Where most clients write it, so that a long turn need not be read to its end."""
_HEAD: Final = re.compile(
    rb'\{\s*"role"\s*:\s*"user"\s*,\s*"content"\s*:\s*(?:\[\s*\{\s*"type"\s*:\s*"text"\s*,\s*"text"\s*:\s*)?'
)
"""How a turn of the user's begins: many clients write its text as a block only where they mark that for the cache."""
_MARK: Final = re.compile(rb'"cache_control"\s*:\s*(?:null|\{[^{}]*\})\s*')
_BLANKS: Final = b" \t\r\n"
_CLOSERS: Final = b"]}" + _BLANKS


class _Turn(Struct):
    role: str | None = None
    type: str | None = None


_turn: Final = msgspec.json.Decoder(_Turn)
_blocks: Final = msgspec.json.Decoder(list[Raw])


class Conversations:
    """How conversations are told apart in the bodies of one format; one for each."""

    def __init__(
        self,
        turns: str,
        *,
        orders: Sequence[str] = (),
        passing: bytes = b"",
        sessions: Mapping[str, re.Pattern[bytes]] = MappingProxyType({}),
    ) -> None:
        """Look for the *turns* in that member, for the system's in *orders*.

        Blocks of the latter that begin with *passing* change from request to request. *sessions* are members that may
        name the conversation, and what at the beginning of their JSON text does.
        """
        self._orders = orders
        self._passing = passing
        self._sessions = sessions
        fields = [(f"m{number}", Raw, Raw(b"")) for number in range(len(sessions) + len(orders))]
        names = {field[0]: name for field, name in zip(fields, (*sessions, *orders), strict=True)}
        view = msgspec.defstruct(
            "Body", [("turns", list[Raw] | str | None, None), *fields], rename={"turns": turns, **names}.get
        )
        self._view: msgspec.json.Decoder[Struct] = msgspec.json.Decoder(view)

    def find(self, body: bytes) -> bytes:
        """Return what all requests of one conversation have in common; empty where *body* begins none."""
        try:
            turns, *members = msgspec.structs.astuple(self._view.decode(body))
        except JSON_ERRORS:
            return b""
        for pattern, member in zip(self._sessions.values(), members, strict=False):
            found = pattern.search(bytes(member)[:LONG_BYTES])
            if found:
                return found[0]
        parts: list[bytes] = []
        for member in members[len(self._sessions) :]:
            if member:
                parts += self._sample_orders(bytes(member))
        parts += [_sample(turns.encode())] if isinstance(turns, str) else _sample_opening(turns or ())
        return b"\0".join(parts)

    def _sample_orders(self, orders: bytes) -> list[bytes]:
        if not orders.startswith(b"["):
            return [_sample(orders)]
        blocks = map(bytes, _blocks.decode(orders)[:MAX_TURNS])
        passing = self._passing
        return [_sample(block) for block in blocks if not passing or passing not in block[:_START_BYTES]]


def _sample_opening(turns: Sequence[Raw]) -> list[bytes]:
    """Return what tells the first of *turns* from others, up to what the user says first."""
    opening: list[bytes] = []
    asked = 0
    for turn in map(bytes, turns[:MAX_TURNS]):
        is_user = _is_user(turn)
        if asked and not is_user:
            break
        opening.append(_sample(turn))
        asked += is_user
        if asked == MAX_USER_TURNS:
            break
    return opening


def _is_user(turn: bytes) -> bool:
    found = _ROLE.match(turn)
    if found:
        return found[1] == b"user"
    try:
        head = _turn.decode(turn)
    except JSON_ERRORS:
        return False
    # Turns of Gemini may lack a role; what lacks one in Responses has a type.
    return head.role == "user" or (head.role is None and head.type is None)


def _sample(value: bytes) -> bytes:
    """Return what tells *value* from others, the same whether or not it is the last turn."""
    if len(value) <= LONG_BYTES + _SLACK_BYTES:
        whole = _strip(value)
        if len(whole) <= LONG_BYTES:
            return whole
    ends = _strip(value[: 2 * _END_BYTES] + value[-2 * _END_BYTES :])
    stripped_bytes = 4 * _END_BYTES - len(ends)
    return b"%b%d%b" % (ends[:_END_BYTES], len(value) - stripped_bytes, ends[-_END_BYTES:])


def _strip(value: bytes) -> bytes:
    """Return *value* without what clients change as soon as a turn follows."""
    value = _unmark(value)
    head = _HEAD.match(value)
    return value[head.end() if head else 0 :].rstrip(_CLOSERS)


def _unmark(value: bytes) -> bytes:
    """Return *value* without marks for the cache: clients move them on to the last turn.

    https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching
    """
    kept, *pieces = _MARK.split(value)
    for piece in pieces:
        if piece.startswith(b","):
            kept += piece[1:].lstrip(_BLANKS)
        else:
            kept = kept.rstrip(b"," + _BLANKS) + piece
    return kept
