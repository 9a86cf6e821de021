"""Streams of the Messages API, written: https://docs.anthropic.com/en/api/messages-streaming. Sans-I/O."""

from collections.abc import Callable
from typing import Any, Final, assert_never

import msgspec
from msgspec import Raw
from typing_extensions import override

from aiproxyd.formats.anthropic import answers, wire
from aiproxyd.formats.anthropic.errors import encode_stream_error
from aiproxyd.formats.anthropic.wire import NAME, encode
from aiproxyd.formats.base import NULL, decode_view
from aiproxyd.formats.codec import StreamEncoder, put_on_one_line
from aiproxyd.hub import (
    Block,
    BlockStart,
    BlockStop,
    Citation,
    CitationAdded,
    Delta,
    End,
    Event,
    Failed,
    Finish,
    LogprobsAdded,
    Media,
    Opaque,
    Ping,
    Reasoning,
    Refusal,
    Seal,
    SealSet,
    Start,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UsageSeen,
)

_members: Final = msgspec.json.Decoder(dict[str, Raw])


_START: Final = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
_DELTA: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":'
_STOP: Final = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
_EARLY_PING: Final = b": ping\n\n"
"""Before message_start, which several clients want to be the first event."""
_MESSAGE_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

_TEXT: Final = b'"text_delta","text":'
_INPUT: Final = b'"input_json_delta","partial_json":'
_THOUGHT: Final = b'"thinking_delta","thinking":'
_SIGNATURE: Final = b'"signature_delta","signature":'
_CITATION: Final = b'"citations_delta","citation":'
_PLAIN_TEXT: Final = b'{"type":"text","text":""}'
_PLAIN_THOUGHT: Final = b'{"type":"thinking","thinking":"","signature":""}'


class EventEncoder(StreamEncoder):
    """Writes one stream to a caller, in the grammar that the decoder reads.

    message_start waits for the first block, for the usage may come before that; message_delta waits for the end, for
    the usage may come behind the finish. A thought waits for its first word or its end: one that is not shown is a
    block of another type. Arguments go out as they come, also those that turn out to be no JSON, as Anthropic's own do:
    https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/fine-grained-tool-streaming.
    """

    def __init__(self, model: str, request_id: str) -> None:
        """Take the *model* that was asked for, told where the upstream tells none."""
        self._model = model
        self._request_id = request_id
        self._start: Start | None = None
        """While message_start waits."""
        self._has_begun = False
        """message_start is written."""
        self._usage: Usage | None = None
        self._finish = Finish(0, "end")
        self._index = -1
        """Of the open block, or of the last."""
        self._block: Block | None = None
        """The open block as it began; None where none is open, or the open one is not shown."""
        self._prefix = b""
        """What comes before the text of a delta of the open block; empty where there is to be none, or not yet."""
        self._seal: Seal | None = None

    @override
    def feed(self, event: Event) -> bytes:
        if type(event) is Delta:
            return self._write_delta(event)
        return _WRITERS[type(event)](self, event)

    def _write_delta(self, event: Delta) -> bytes:
        if not event.text:
            return b""
        if self._prefix:
            return b"%b%b}}\n\n" % (self._prefix, encode(event.text))
        return self._open_thought(event.text) if isinstance(self._block, Reasoning) else b""

    def _keep_start(self, event: Start) -> bytes:
        self._start = event
        return b""

    def _keep_usage(self, event: UsageSeen) -> bytes:
        self._usage = event.usage
        return b""

    def _keep_seal(self, event: SealSet) -> bytes:
        self._seal = event.seal
        return b""

    def _keep_finish(self, event: Finish) -> bytes:
        self._finish = event
        return self._begin()

    def _write_nothing(self, _: LogprobsAdded) -> bytes:
        return b""

    def _write_ping(self, _: Ping) -> bytes:
        return _PING if self._has_begun else _EARLY_PING

    def _begin(self) -> bytes:
        """Return message_start, where that has waited until now."""
        start, self._start = self._start, None
        if start is None:
            return b""
        self._has_begun = True
        message: dict[str, object] = {
            "id": start.id or answers.make_message_id(),
            "type": "message",
            "role": "assistant",
            "model": start.model or self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": answers.write_usage(self._usage, start.service_tier),
        }
        return _write_event("message_start", message=message)

    def _write_block_start(self, event: BlockStart) -> bytes:
        self._block = event.block
        self._seal = None
        self._prefix = b""
        begun = self._begin()
        match event.block:
            case Text(text=text, citations=citations):
                opened = self._open(_PLAIN_TEXT, _TEXT, text)
                return b"".join((begun, opened, *map(self._write_citation, citations)))
            case Refusal(text=text):
                return begun + self._open(_PLAIN_TEXT, _TEXT, text)
            case ToolCall(id=call_id, name=name, arguments=arguments):
                return begun + self._open(encode(wire.ToolUseBlock(call_id, name, Raw(b"{}"))), _INPUT, arguments)
            case Reasoning(text=text, seal=seal):
                self._seal = seal
                return begun + (self._open_thought(text) if text else b"")
            case Media():
                return begun + self._open(_PLAIN_TEXT, _TEXT, answers.write_note(event.block))
            case Opaque(origin=origin, raw=raw) if origin == NAME:
                return begun + self._open(*_split_input(raw))
            case Opaque() | ToolResult():
                self._block = None
                return begun
            case _ as never:
                assert_never(never)

    def _open(self, block: bytes, delta: bytes = b"", text: str = "") -> bytes:
        """Begin *block*, whose deltas begin with *delta*, with *text*."""
        self._index += 1
        self._prefix = _DELTA % self._index + delta
        opened = _START % (self._index, block)
        return b"%b%b%b}}\n\n" % (opened, self._prefix, encode(text)) if text else opened

    def _open_thought(self, text: str = "") -> bytes:
        return self._open(_PLAIN_THOUGHT, _THOUGHT, text)

    def _write_citation(self, citation: Citation) -> bytes:
        written = answers.write_citation(citation)
        if written is None:
            return b""
        return b"%b%b%b}}\n\n" % (_DELTA % self._index, _CITATION, put_on_one_line(encode(written)))

    def _write_citation_added(self, event: CitationAdded) -> bytes:
        return self._write_citation(event.citation) if isinstance(self._block, Text) else b""

    def _write_block_stop(self, _: BlockStop) -> bytes:
        if self._block is None:
            return b""
        rest = self._finish_thought() if isinstance(self._block, Reasoning) else b""
        self._block = None
        self._prefix = b""
        return rest + _STOP % self._index

    def _finish_thought(self) -> bytes:
        """Return what is left of a thought at its end: all of it, where nothing was shown."""
        is_open = bool(self._prefix)
        thought = answers.write_thought("", self._seal)
        if not is_open and isinstance(thought, wire.RedactedThinkingBlock):
            return self._open(encode(thought))
        opened = b"" if is_open else self._open_thought()
        if self._seal is None:
            return opened
        return b"%b%b%b%b}}\n\n" % (opened, _DELTA % self._index, _SIGNATURE, encode(answers.write_seal(self._seal)))

    def _write_end(self, _: End) -> bytes:
        finish = self._finish
        delta = answers.write_stop(finish.stop, finish.stop_sequence, finish.detail)
        usage = answers.write_usage(self._usage)
        return self._begin() + _write_event("message_delta", delta=delta, usage=usage) + _MESSAGE_STOP

    def _write_failure(self, event: Failed) -> bytes:
        return encode_stream_error(event.error, self._request_id)


_WRITERS: Final[dict[type[Event], Callable[[EventEncoder, Any], bytes]]] = {
    BlockStart: EventEncoder._write_block_start,
    BlockStop: EventEncoder._write_block_stop,
    CitationAdded: EventEncoder._write_citation_added,
    End: EventEncoder._write_end,
    Failed: EventEncoder._write_failure,
    Finish: EventEncoder._keep_finish,
    LogprobsAdded: EventEncoder._write_nothing,
    Ping: EventEncoder._write_ping,
    SealSet: EventEncoder._keep_seal,
    Start: EventEncoder._keep_start,
    UsageSeen: EventEncoder._keep_usage,
}


def _write_event(name: str, **members: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode({"type": name, **members}))


def _split_input(raw: Raw) -> tuple[bytes, bytes, str]:
    """Return a block of a server tool as it begins, and its input as the delta that clients await."""
    members = decode_view(_members, raw) or {}
    given = members.get("input", NULL)
    if not decode_view(_members, given):
        return put_on_one_line(bytes(raw)), b"", ""
    return put_on_one_line(encode(members | {"input": Raw(b"{}")})), _INPUT, str(given, "utf-8", "replace")
