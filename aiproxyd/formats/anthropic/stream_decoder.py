"""Streams of the Messages API, read: https://docs.anthropic.com/en/api/messages-streaming. Sans-I/O."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace
from typing_extensions import override

from aiproxyd.errors import UpstreamGarbage
from aiproxyd.formats.anthropic import answers, wire
from aiproxyd.formats.anthropic.errors import decode_band_error
from aiproxyd.formats.anthropic.wire import NAME, encode, read_string
from aiproxyd.formats.base import NULL, decode_view
from aiproxyd.formats.codec import StreamDecoder
from aiproxyd.hub import (
    Block,
    BlockStart,
    BlockStop,
    CitationAdded,
    Delta,
    End,
    Event,
    Finish,
    Opaque,
    Ping,
    Reasoning,
    Seal,
    SealSet,
    Start,
    Text,
    ToolCall,
    Usage,
    UsageSeen,
)
from aiproxyd.splice import JSON_ERRORS
from aiproxyd.sse import SSEvent


class _Delta(Struct):
    """Of a block, or of the message."""

    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Raw = NULL
    stop_reason: Raw = NULL
    stop_sequence: Raw = NULL
    stop_details: Raw = NULL


class _Event(Struct):
    """Any event; all but its type is there in some of them only."""

    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: Raw = NULL
    message: Raw = NULL
    usage: Raw = NULL
    error: Any = None


_event: Final = msgspec.json.Decoder(_Event)
_message: Final = msgspec.json.Decoder(wire.MessageView)
_members: Final = msgspec.json.Decoder(dict[str, Raw])


class _OpenBlock:
    """A block while its deltas come."""

    __slots__ = ("arguments", "held", "key", "pieces", "seal", "takes")

    def __init__(self, key: int, takes: str) -> None:
        self.key = key
        self.takes = takes
        """The type of those deltas that are its text."""
        self.seal: Seal | None = None
        self.arguments: str | None = None
        """Of a call whose deltas have said nothing so far: what was given at its start."""
        self.held: Block | None = None
        """A block without a text of its own, which waits until it is whole."""
        self.pieces: list[str] = []
        """Of the input of a held block."""


class EventDecoder(StreamDecoder):
    """Reads one stream of an upstream.

    Its grammar::

        message_start
        ( content_block_start content_block_delta* content_block_stop )*     blocks are told apart by their index
        message_delta+                                                       stop reason and usage, the last one counts
        message_stop
        ping anywhere; error anywhere, and nothing behind it

    What it does not know it passes over. Only message_stop proves that nothing is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._has_begun = False
        self._open: dict[int, _OpenBlock] = {}
        self._next_key = 0
        self._usage: Usage | None = None
        self._stop: Raw = NULL
        self._stop_sequence: Raw = NULL
        self._stop_details: Raw = NULL

    @override
    def feed(self, event: SSEvent) -> list[Event]:
        if self.is_over:
            return []
        try:
            message = _event.decode(event.data)
        except msgspec.ValidationError:
            return []  # JSON, but not as the API has it
        except JSON_ERRORS as exc:
            return self._feed_no_json(event.data, exc)
        if message.type == "content_block_delta":
            return self._feed_delta(message)
        handler = _HANDLERS.get(message.type)
        if handler is not None:
            return handler(self, message)
        is_error = message.type == "error" or message.error
        return self._fail(decode_band_error(message.error, event.data)) if is_error else []

    @override
    def feed_eof(self) -> list[Event]:
        if self.is_over:
            return []
        return self._fail_cut()

    def _feed_no_json(self, data: bytes, exc: Exception) -> list[Event]:
        if not data.strip() or data == b"[DONE]":
            return []  # some relays end each stream as OpenAI does
        return self._fail(UpstreamGarbage(f"an event of the upstream's stream is no JSON: {exc}"))

    def _feed_delta(self, message: _Event) -> list[Event]:
        block, delta = self._open.get(message.index), message.delta
        if block is None or delta is None:
            return []
        if delta.type != block.takes:
            return self._feed_extra(block, delta)
        text = delta.text or delta.thinking or delta.partial_json
        if not text:
            return []
        if block.held is not None:
            block.pieces.append(text)
            return []
        if block.arguments is not None and not text.isspace():
            block.arguments = None
        return [Delta(0, block.key, text)]

    def _feed_extra(self, block: _OpenBlock, delta: _Delta) -> list[Event]:
        """Take what a delta adds to a block apart from its text."""
        if delta.type == "signature_delta" and block.takes == "thinking_delta" and delta.signature:
            block.seal = Seal(NAME, "signature", delta.signature)
        elif delta.type == "citations_delta" and block.takes == "text_delta" and delta.citation != NULL:
            return [CitationAdded(0, block.key, answers.read_citation(delta.citation))]
        return []

    def _feed_message_start(self, message: _Event) -> list[Event]:
        view = decode_view(_message, message.message) or wire.MessageView()
        tier = answers.read_tier(view.usage)
        start = Start(id=read_string(view.id), model=read_string(view.model), service_tier=tier)
        events: list[Event] = [] if self._has_begun else [start]
        self._has_begun = True
        return events + self._see_usage(view.usage)

    def _see_usage(self, raw: Raw) -> list[Event]:
        usage = answers.merge_usage(self._usage, raw)
        if usage is None or usage == self._usage:
            return []
        self._usage = usage
        return [UsageSeen(usage)]

    def _begin(self) -> list[Event]:
        """Return the start, where the upstream has left it out."""
        if self._has_begun:
            return []
        self._has_begun = True
        return [Start()]

    def _feed_block_start(self, message: _Event) -> list[Event]:
        block = answers.read_block(message.content_block)
        if block is None:
            return []
        events = self._begin() + self._feed_block_stop(message)
        key, self._next_key = self._next_key, self._next_key + 1
        opened = _OpenBlock(key, "input_json_delta")
        match block:
            case Text(text=text, citations=citations):
                opened.takes = "text_delta"
                events.append(BlockStart(0, key, Text("")))
                events += [Delta(0, key, text)] if text else []
                events += [CitationAdded(0, key, citation) for citation in citations]
            case Reasoning(text=text, seal=seal):
                opened.takes = "thinking_delta"
                opened.seal = seal
                events.append(BlockStart(0, key, Reasoning()))
                events += [Delta(0, key, text)] if text else []
            case ToolCall(arguments=arguments):
                opened.arguments = arguments
                events.append(BlockStart(0, key, replace(block, arguments="")))
            case _:
                opened.held = block
        self._open[message.index] = opened
        return events

    def _feed_block_stop(self, message: _Event) -> list[Event]:
        block = self._open.pop(message.index, None)
        return [] if block is None else _close(block)

    def _feed_message_delta(self, message: _Event) -> list[Event]:
        delta = message.delta
        if delta is not None and delta.stop_reason != NULL:
            self._stop, self._stop_sequence = delta.stop_reason, delta.stop_sequence
            self._stop_details = delta.stop_details
        return self._begin() + self._see_usage(message.usage)

    def _feed_message_stop(self, _: _Event) -> list[Event]:
        self.is_over = True
        events = self._begin()
        for block in self._open.values():
            events += _close(block)
        stop, detail = answers.read_stop(self._stop, self._stop_details)
        return [*events, Finish(0, stop, read_string(self._stop_sequence) or None, detail), End()]

    def _feed_ping(self, _: _Event) -> list[Event]:
        return [Ping()]


_HANDLERS: Final[dict[str, Callable[[EventDecoder, _Event], list[Event]]]] = {
    "content_block_start": EventDecoder._feed_block_start,
    "content_block_stop": EventDecoder._feed_block_stop,
    "message_start": EventDecoder._feed_message_start,
    "message_delta": EventDecoder._feed_message_delta,
    "message_stop": EventDecoder._feed_message_stop,
    "ping": EventDecoder._feed_ping,
}


def _close(block: _OpenBlock) -> list[Event]:
    """Return the events that complete *block*."""
    if block.held is not None:
        return [BlockStart(0, block.key, _complete(block.held, block.pieces)), BlockStop(0, block.key)]
    if block.seal is not None:
        return [SealSet(0, block.key, block.seal), BlockStop(0, block.key)]
    if block.arguments is not None:
        return [Delta(0, block.key, block.arguments), BlockStop(0, block.key)]
    return [BlockStop(0, block.key)]


def _complete(held: Block, pieces: list[str]) -> Block:
    """Return *held* with the input that its deltas made."""
    if not isinstance(held, Opaque) or not pieces:
        return held
    made = Raw("".join(pieces).encode())
    members = decode_view(_members, held.raw)
    if members is None or decode_view(_members, made) is None:
        return held
    return replace(held, raw=Raw(encode(members | {"input": made})))
