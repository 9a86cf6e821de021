"""Reads the stream of an answer: https://platform.openai.com/docs/api-reference/chat-streaming. Sans-I/O."""

from collections.abc import Sequence
from typing import Final, Literal, assert_never

import msgspec
from msgspec import Raw
from typing_extensions import override

from aiproxyd.errors import UpstreamGarbage
from aiproxyd.formats.base import MAX_MESSAGE_CHARS, decode_view
from aiproxyd.formats.codec import StreamDecoder, make_call_id
from aiproxyd.formats.openai_chat.answers import (
    read_call_seal,
    read_citations,
    read_content_list,
    read_images,
    read_logprobs,
    read_stop,
    read_thought_seal,
)
from aiproxyd.formats.openai_chat.taps import MAX_CHOICES
from aiproxyd.formats.openai_chat.views import (
    CallPiece,
    Chunk,
    FirstChunk,
    MessageView,
    StreamChoice,
    ThinkingPiece,
    UsageView,
    chunk_decoder,
    decode_loosely,
    first_chunk_decoder,
    read_usage,
)
from aiproxyd.formats.openai_shared import decode_band_error, read_time
from aiproxyd.hub import (
    Block,
    BlockStart,
    BlockStop,
    CitationAdded,
    Delta,
    End,
    Event,
    Finish,
    LogprobsAdded,
    Ping,
    Reasoning,
    Refusal,
    Seal,
    SealSet,
    Start,
    Text,
    ToolCall,
    UsageSeen,
)
from aiproxyd.splice import JSON_ERRORS
from aiproxyd.sse import SSEvent

_LEGACY_CALL: Final = -1
"""Index of the one call that the deprecated field ``function_call`` has."""
_any_json: Final = msgspec.json.Decoder()
_object: Final = msgspec.json.Decoder(dict[str, Raw])

_Kind = Literal["", "text", "reasoning", "refusal"]


class _Call:
    """A call while its pieces come."""

    __slots__ = ("call_id", "has_arguments", "has_nameless", "held", "is_custom", "key", "name", "seal", "told")

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.is_custom = False
        self.key = -1
        """Negative: it has not begun yet, because its name is not known."""
        self.held: list[str] = []
        """Arguments that came before it could begin."""
        self.has_arguments = False
        self.has_nameless = False
        """Some piece of it came without its name, and so the name stands in its first one only."""
        self.told: list[str] = []
        """The arguments so far."""
        self.seal: Seal | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the arguments so far are a whole object."""
        if not self.told or not self.told[-1].rstrip().endswith("}"):
            return False
        self.told = ["".join(self.told)]
        return decode_view(_object, self.told[0].encode(errors="replace")) is not None


class _Choice:
    """Reads one of the answers of a stream.

    ``(piece+)* finish``: a block begins with its first piece and ends where one of another kind begins; calls end with
    the choice, because imitations mix the pieces of several.
    """

    __slots__ = (
        "_calls",
        "_has_refusal",
        "_index",
        "_key",
        "_kind",
        "_last_call",
        "_next_key",
        "_open_calls",
        "is_finished",
    )

    def __init__(self, index: int) -> None:
        self.is_finished = False
        self._index = index
        self._kind: _Kind = ""
        self._key = 0
        self._next_key = 0
        self._has_refusal = False
        self._calls: dict[int, _Call] = {}
        """By index, the latest of each."""
        self._open_calls: list[_Call] = []
        self._last_call: _Call | None = None

    @property
    def has_content(self) -> bool:
        """Whether anything was said."""
        return self._next_key > 0 or bool(self._open_calls)

    def feed(self, choice: StreamChoice, events: list[Event]) -> None:
        """Append what *choice* means to *events*."""
        if self.is_finished:
            return
        delta = choice.delta
        if delta is not None:
            self._feed_delta(delta, events)
        if choice.logprobs is not None:
            logprobs = read_logprobs(choice.logprobs)
            if logprobs:
                events.append(LogprobsAdded(self._index, logprobs))
        if choice.finish_reason:
            self.finish(choice.finish_reason, events)

    def _feed_delta(self, delta: MessageView, events: list[Event]) -> None:
        # One chunk may hold several of these; what belongs together comes in this order.
        if delta.reasoning_content or delta.reasoning or delta.thinking_blocks:
            self._feed_thoughts(delta, events)
        content = delta.content
        if content:
            if isinstance(content, str):
                self._add_piece("text", content, events)
            else:
                self._feed_blocks(read_content_list(content), events)
        if delta.refusal:
            self._has_refusal = True
            self._add_piece("refusal", delta.refusal, events)
        if delta.tool_calls or delta.annotations or delta.images or delta.function_call:
            self._feed_rest(delta, events)

    def _feed_rest(self, delta: MessageView, events: list[Event]) -> None:
        for citation in read_citations(delta.annotations or ()):
            self._switch("text", events)
            events.append(CitationAdded(self._index, self._key, citation))
        for call in delta.tool_calls or ():
            self._feed_call(call, events)
        if delta.function_call is not None:
            self._feed_call(CallPiece(index=_LEGACY_CALL, function=delta.function_call), events)
        self._feed_blocks(read_images(delta.images or ()), events)

    # --- Text, thoughts, refusals

    def _add_piece(self, kind: _Kind, text: str, events: list[Event]) -> None:
        if self._kind != kind:
            self._switch(kind, events)
        events.append(Delta(self._index, self._key, text))

    def _switch(self, kind: _Kind, events: list[Event]) -> None:
        """Make a block of *kind* the open one."""
        if self._kind == kind:
            return
        if self._kind:
            events.append(BlockStop(self._index, self._key))
        self._kind = kind
        match kind:
            case "text":
                self._key = self._start_block(Text(""), events)
            case "reasoning":
                self._key = self._start_block(Reasoning(), events)
            case "refusal":
                self._key = self._start_block(Refusal(""), events)
            case "":
                pass
            case _ as never:
                assert_never(never)

    def _start_block(self, block: Block, events: list[Event]) -> int:
        key = self._next_key
        self._next_key += 1
        events.append(BlockStart(self._index, key, block))
        return key

    def _feed_blocks(self, blocks: Sequence[Block], events: list[Event]) -> None:
        for block in blocks:
            match block:
                case Text(text=text) if text:
                    self._add_piece("text", text, events)
                case Reasoning(text=text) if text:
                    self._add_piece("reasoning", text, events)
                case Text() | Reasoning():
                    pass
                case _:
                    self._switch("", events)
                    events.append(BlockStop(self._index, self._start_block(block, events)))

    def _feed_thoughts(self, delta: MessageView, events: list[Event]) -> None:
        text, pieces = delta.reasoning_content or delta.reasoning, delta.thinking_blocks or ()
        # Where both fields are there, they say the same.
        for piece in pieces:
            if not text and not read_thought_seal(piece):
                text = piece.thinking
        if text:
            self._add_piece("reasoning", text, events)
        for piece in pieces:
            seal = read_thought_seal(piece)
            if seal is not None:
                self._seal_thought(piece, seal, events)

    def _seal_thought(self, piece: ThinkingPiece, seal: Seal, events: list[Event]) -> None:
        """End the open thought with its seal; what was sealed before it was shown is a thought of its own."""
        if self._kind != "reasoning" or seal.kind == "redacted":
            self._switch("", events)
            self._switch("reasoning", events)
            if piece.thinking:
                events.append(Delta(self._index, self._key, piece.thinking))
        events.append(SealSet(self._index, self._key, seal))
        self._switch("", events)

    # --- Calls

    def _feed_call(self, piece: CallPiece, events: list[Event]) -> None:
        call = self._find_call(piece) or self._add_call(piece, events)
        function, custom = piece.function, piece.custom
        call.call_id = call.call_id or piece.id or ""
        call.name = call.name or (function and function.name) or (custom and custom.name) or ""
        call.is_custom = call.is_custom or custom is not None
        if call.key < 0 and call.name:
            self._start_call(call, events)
        arguments = (function and function.arguments) or (custom and custom.input)
        if arguments:
            self._add_arguments(call, arguments, events)
        call.seal = read_call_seal(piece) or call.seal

    def _find_call(self, piece: CallPiece) -> _Call | None:
        """Return the call that *piece* goes on with; None where it begins one."""
        call = self._last_call if piece.index is None else self._calls.get(piece.index)
        if call is None or not call.name:
            return call
        name = (piece.function and piece.function.name) or (piece.custom and piece.custom.name)
        if not name:
            call.has_nameless = True
            return call
        # Several servers give all calls the same index, or none; and several repeat id and name with every piece.
        if piece.id:
            # A few give all calls even the same id.
            begins = piece.id != call.call_id or (
                (call.has_nameless or _is_object_start(piece)) and not call.is_custom and call.is_complete
            )
            return None if begins else call
        begins = name != call.name or (call.has_arguments and _is_object_start(piece))
        return None if begins else call

    def _add_call(self, piece: CallPiece, events: list[Event]) -> _Call:
        call = self._last_call = _Call()
        if piece.index is not None:
            replaced = self._calls.get(piece.index)
            if replaced is not None:
                self._stop_call(replaced, events)
                self._open_calls.remove(replaced)
            self._calls[piece.index] = call
        self._open_calls.append(call)
        return call

    def _start_call(self, call: _Call, events: list[Event]) -> None:
        self._switch("", events)
        call_id = call.call_id = call.call_id or make_call_id()
        block = ToolCall(id=call_id, name=call.name, arguments="", is_custom=call.is_custom)
        call.key = self._start_block(block, events)
        for arguments in call.held:
            self._add_arguments(call, arguments, events)

    def _add_arguments(self, call: _Call, arguments: str, events: list[Event]) -> None:
        if call.key < 0:
            call.held.append(arguments)
            return
        if not call.has_arguments and not call.is_custom and (arguments.isspace() or arguments == "null"):
            return  # no beginning of an object: either that is still to come, or there are no arguments
        call.has_arguments = True
        call.told.append(arguments)
        events.append(Delta(self._index, call.key, arguments))

    def _stop_call(self, call: _Call, events: list[Event]) -> None:
        if call.key < 0:
            self._start_call(call, events)
        if not call.has_arguments and not call.is_custom:
            events.append(Delta(self._index, call.key, "{}"))
        if call.seal is not None:
            events.append(SealSet(self._index, call.key, call.seal))
        events.append(BlockStop(self._index, call.key))

    # --- The end

    def finish(self, reason: str, events: list[Event]) -> None:
        """Append the end of the choice, for *reason*, to *events*."""
        self._switch("", events)
        for call in self._open_calls:
            self._stop_call(call, events)
        stop, detail = read_stop(reason, has_refusal=self._has_refusal)
        events.append(Finish(self._index, stop, detail=detail))
        self.is_finished = True


def _is_object_start(piece: CallPiece) -> bool:
    return piece.function is not None and (piece.function.arguments or "").lstrip().startswith("{")


class ChatStreamDecoder(StreamDecoder):
    """Reads one stream: ``chunk* usage-chunk? [DONE]``.

    The end is [DONE], or that of the connection where all choices have finished by then: several imitations give
    no [DONE], and a few no finish.
    """

    def __init__(self, candidates: int) -> None:
        super().__init__()
        self._expected = min(candidates, MAX_CHOICES)
        self._choices: dict[int, _Choice] = {}
        self._usage: UsageView | None = None
        self._is_started = False

    @override
    def feed(self, event: SSEvent) -> list[Event]:
        if self.is_over:
            return []
        try:
            # What only the beginning tells is not read again with every piece.
            chunk = (chunk_decoder if self._is_started else first_chunk_decoder).decode(event.data)
        except JSON_ERRORS:
            return self._feed_odd(event)
        if chunk.error or event.name == b"error":
            return self._feed_error(event)
        return self._feed_chunk(chunk)

    def _feed_chunk(self, chunk: Chunk) -> list[Event]:
        events: list[Event] = []
        if isinstance(chunk, FirstChunk):
            if not chunk.choices and chunk.usage is None:
                return [Ping()]  # Azure begins with what its filter found in the prompt, and without an id
            self._start(chunk, events)
        for choice in chunk.choices or ():
            reader = self._choices.get(choice.index)
            if reader is None:
                if not 0 <= choice.index < MAX_CHOICES:
                    continue
                reader = self._choices[choice.index] = _Choice(choice.index)
            reader.feed(choice, events)
        if chunk.usage is not None and chunk.usage != self._usage:
            self._usage = chunk.usage
            events.append(UsageSeen(read_usage(chunk.usage)))
        return events

    def _start(self, chunk: FirstChunk, events: list[Event]) -> None:
        self._is_started = True
        created, tier = read_time(chunk.created) or None, chunk.service_tier or ""
        events.append(Start(id=chunk.id or "", model=chunk.model or "", created=created, service_tier=tier))

    def _feed_odd(self, event: SSEvent) -> list[Event]:
        """Read what is no chunk, or not quite."""
        if event.data.startswith(b"[DONE]"):
            return self._feed_done()
        if event.name == b"error":
            return self._feed_error(event)
        if not event.data.strip():
            return [Ping()]
        try:
            chunk = decode_loosely(event.data, Chunk if self._is_started else FirstChunk)
        except msgspec.DecodeError:
            return self._fail(UpstreamGarbage("the upstream's stream holds what is no JSON"))
        if chunk is None:
            return [Ping()]
        return self._feed_error(event) if chunk.error else self._feed_chunk(chunk)

    def _feed_error(self, event: SSEvent) -> list[Event]:
        answer = decode_view(_any_json, event.data)
        if answer is None:
            answer = event.data.decode("utf-8", "replace")[:MAX_MESSAGE_CHARS]
        return self._fail(decode_band_error((isinstance(answer, dict) and answer.get("error")) or answer))

    def _feed_done(self) -> list[Event]:
        if not any(choice.is_finished or choice.has_content for choice in self._choices.values()):
            return self.feed_eof()
        events: list[Event] = []
        for choice in self._choices.values():
            if not choice.is_finished:
                choice.finish("stop", events)
        self.is_over = True
        return [*events, End()]

    @override
    def feed_eof(self) -> list[Event]:
        if self.is_over:
            return []
        finished = [choice.is_finished for choice in self._choices.values()]
        if len(finished) < self._expected or not all(finished):
            return self._fail_cut()
        self.is_over = True
        return [End()]
