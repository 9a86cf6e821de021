"""Opaque state that callers lost: kept here for a while, and put back when they go on with the conversation.

Many clients of the chat API send back only the fields that they know. What an upstream's model needs to find again,
signatures and encrypted thoughts, is therefore remembered by the call, or the text, that it stood before, and by all
that was said until then: conversations of one caller must not share it.
In memory, bounded in bytes and in time. No I/O.
"""

import hashlib
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from aiproxyd.hub import Block, Media, Reasoning, Refusal, Seal, Text, ToolCall, ToolResult, Turn
from aiproxyd.splice import JSON_ERRORS

MAX_BYTES: Final = 32 * 1024 * 1024
"""Of all that is remembered, for all callers together."""
MAX_ENTRY_BYTES: Final = 1024 * 1024
TTL_S: Final = 3600.0
"""How long something is remembered since it was last asked for."""
_ENTRY_BYTES: Final = 600
"""About what an entry takes beside its texts."""

Clock = Callable[[], float]


class Remembered(Struct, frozen=True):
    """What stood before and on one block of an answer."""

    before: tuple[Reasoning, ...]
    seal: Seal | None

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        seals = [thought.seal for thought in self.before] + [self.seal]
        texts = [thought.text for thought in self.before]
        for seal in seals:
            if seal is not None:
                texts += (seal.data, seal.item)
        return _ENTRY_BYTES + sum(map(sys.getsizeof, texts))


class Memory:
    """What is remembered, for all callers; none sees another's. Lives as long as the application."""

    def __init__(self, max_bytes: int = MAX_BYTES, ttl_s: float = TTL_S, clock: Clock = time.monotonic) -> None:
        self._entries: OrderedDict[tuple[str, bytes], tuple[float, Remembered]] = OrderedDict()
        """With the time until which each is good, oldest first."""
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self.size_bytes = 0
        """About what all of it takes."""

    def keep(self, principal: str, block: Block, remembered: Remembered, context: bytes) -> None:
        """Remember what stood before *block*, as the caller *principal* gets to see it, and on it.

        *context* tells it from the same elsewhere; see `find_context`.
        """
        name = _name(block, context)
        if name is None or remembered.size_bytes > MAX_ENTRY_BYTES:
            return
        self._forget((principal, name))
        now = self._clock()
        self._entries[principal, name] = (now + self._ttl_s, remembered)
        self.size_bytes += remembered.size_bytes
        while self._entries and (self.size_bytes > self._max_bytes or self._first_until() < now):
            self._forget(next(iter(self._entries)))

    def recall(self, principal: str, block: Block, context: bytes) -> Remembered | None:
        """Return what is remembered of *block*, which *principal* has sent back."""
        name = _name(block, context) if self._entries else None
        if name is None:
            return None
        entry = self._entries.pop((principal, name), None)
        if entry is None:
            return None
        until, remembered = entry
        now = self._clock()
        if until < now:
            self.size_bytes -= remembered.size_bytes
            return None
        self._entries[principal, name] = (now + self._ttl_s, remembered)
        return remembered

    def _first_until(self) -> float:
        return next(iter(self._entries.values()))[0]

    def _forget(self, key: tuple[str, bytes]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry[1].size_bytes


def find_context(turns: Iterable[Turn]) -> bytes:
    """Return what an answer to *turns* is told by from the same answer elsewhere: a digest of all that was said."""
    *_, context = find_contexts((*turns, Turn("assistant", ())))
    return context


def find_contexts(turns: Iterable[Turn]) -> Iterator[bytes]:
    """Yield for each of *turns*, as their caller sends them, the context of an answer that it is, or is a part of.

    What clients move, lose or split between two requests does not count: marks, seals, thoughts, the bounds of turns.
    """
    said = hashlib.sha256()
    context, before = b"", ""
    for turn in turns:
        if turn.role == "assistant" != before:
            context = said.digest()
        yield context
        for text in (text for block in turn.blocks for text in _texts_of(block)):
            said.update(f"{turn.role}\0{len(text)}\0{text}".encode(errors="replace"))
        before = turn.role


def _texts_of(block: Block) -> tuple[str, ...]:
    """Return what *block* says, such that another says another."""
    match block:
        case Text(text=text) | Refusal(text=text):
            return ("text", text)
        case Media(kind=kind):
            # Their length will do; there may be megabytes of them.
            return (kind, *(str(len(text or "")) for text in (block.data, block.url, block.file_id)))
        case ToolCall(id=call_id, name=name, arguments=arguments):
            return ("call", call_id, name, arguments)
        case ToolResult(call_id=call_id, content=content):
            return ("result", call_id, *(text for part in content for text in _texts_of(part)))
        case _:
            return ()


def _name(block: Block, context: bytes) -> bytes | None:
    """Return what *block* is found again by: what it says, and its context."""
    match block:
        case ToolCall(id=call_id, name=name, arguments=arguments):
            return _digest(context, "call", call_id, name, _settle_spelling(arguments))
        case Text(text=text) if words := text.strip():
            return _digest(context, "text", words)
        case _:
            return None


def _settle_spelling(arguments: str) -> str:
    """Return *arguments* such that spaces and order do not matter: several callers read them and write them anew."""
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments), order="sorted").decode()
    except (*JSON_ERRORS, OverflowError):
        return arguments


def _digest(context: bytes, *texts: str) -> bytes:
    return hashlib.sha256(context + "\0".join(texts).encode(errors="replace")).digest()
