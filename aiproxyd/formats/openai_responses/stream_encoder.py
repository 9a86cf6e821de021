"""The machine that writes the stream for a caller. Sans-I/O.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Callable
from typing import Any, ClassVar, Final, assert_never

import msgspec
from msgspec import Raw
from msgspec.structs import replace
from typing_extensions import override

from aiproxyd.formats.codec import StreamEncoder, put_on_one_line
from aiproxyd.formats.openai_responses.answers import Envelope, explain_stop
from aiproxyd.formats.openai_responses.errors import write_failure, write_stream_error
from aiproxyd.formats.openai_responses.items import (
    ItemIds,
    Shown,
    show,
    text_of,
    write_item,
    write_message,
    write_refusal,
    write_text,
)
from aiproxyd.formats.openai_responses.wire import write_citation, write_logprobs
from aiproxyd.hub import (
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
    Request,
    Seal,
    SealSet,
    Start,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
    UsageSeen,
)

_encode: Final = msgspec.json.Encoder().encode

_PING: Final = b": ping\n\n"
"""What a caller or an upstream has spread over lines, and is shown as it is, has to stand in one. Inside of JSON
strings there are no line ends."""


class _Item:
    """An output item while its pieces come. It shows one block."""

    __slots__ = (
        "block",
        "chars",
        "citations",
        "head",
        "id",
        "index",
        "is_open",
        "logprobs",
        "measured",
        "pieces",
        "seal",
    )

    def __init__(self, block: Shown, item_id: str, index: int) -> None:
        self.block = block
        """As it was started."""
        self.id = item_id
        self.index = index
        self.is_open = True
        self.head = b""
        """How the event of one piece begins; empty before the part is begun."""
        self.pieces: list[str] = []
        self.citations: list[Citation] = []
        self.logprobs: list[TokenLogprob] = []
        self.seal: Seal | None = None
        self.chars = 0
        """Length of the first *measured* pieces."""
        self.measured = 0

    @property
    def place(self) -> dict[str, Any]:
        """How the events of an item say which one they mean."""
        return {"item_id": self.id, "output_index": self.index}

    def measure(self) -> int:
        """Return how many characters the text has so far."""
        self.chars += sum(map(len, self.pieces[self.measured :]))
        self.measured = len(self.pieces)
        return self.chars

    def text(self) -> str:
        return "".join(self.pieces)

    def fold(self) -> Shown:
        """Return the block as it stands."""
        match self.block:
            case Text() as block:
                return replace(block, text=self.text(), citations=tuple(self.citations))
            case Refusal():
                return Refusal(self.text())
            case Reasoning() as block:
                return Reasoning(self.text(), self.seal or block.seal)
            case ToolCall() as block:
                return replace(block, arguments=self.text())
            case _ as block:
                return block


class ResponsesEncoder(StreamEncoder):
    """Writes one stream.

    In this order::

        response.created  response.in_progress
        ( output_item.added
            ( content_part.added output_text.delta* output_text.done content_part.done
            | reasoning_summary_part.added reasoning_summary_text.delta* ...text.done ...part.done
            | function_call_arguments.delta* function_call_arguments.done )
          output_item.done )*                                                       one block each; they may overlap
        response.completed | response.incomplete | response.failed

    The official accumulator wants every item done, and the terminal response to hold it with the same id.
    """

    def __init__(self, asked: Request) -> None:
        self._asked = asked
        self._envelope: Envelope | None = None
        self._ids = ItemIds("")
        self._sequence = 0
        self._items: list[_Item] = []
        """By their index in the output."""
        self._by_key: dict[int, _Item] = {}
        self._output: list[Any] = []
        """The complete items, by index."""
        self._usage: Usage | None = None
        self._finish = Finish(0, "end")
        self._logprobs: list[TokenLogprob] = []
        """Those that no text was open for."""
        self._text: _Item | None = None
        """The text that was begun last."""

    @override
    def feed(self, event: Event) -> bytes:
        return self._HANDLERS[type(event)](self, event)

    def _event(self, kind: str, **fields: Any) -> bytes:
        number = self._sequence
        self._sequence = number + 1
        data = put_on_one_line(_encode({"type": kind, "sequence_number": number, **fields}))
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _feed_start(self, event: Start) -> bytes:
        self._envelope = Envelope(event, self._asked)
        self._ids = ItemIds(self._envelope.id)
        response = Raw(_encode(self._envelope.write("in_progress")))
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _feed_ping(self, event: Ping) -> bytes:
        del event
        # The SDK refuses a stream that does not begin with response.created; behind it, comments are safe.
        return _PING if self._envelope else b""

    # --- Pieces

    def _feed_delta(self, event: Delta) -> bytes:
        item = self._by_key.get(event.key)
        return b"" if item is None else self._write_piece(item, event.text)

    def _write_piece(self, item: _Item, text: str) -> bytes:
        item.pieces.append(text)
        if not item.head:
            return self._begin_summary(item) + self._write_delta(item, text)
        return self._write_delta(item, text)

    def _write_delta(self, item: _Item, text: str) -> bytes:
        number = self._sequence
        self._sequence = number + 1
        return b'%b%b,"sequence_number":%d}\n\n' % (item.head, _encode(text), number)

    def _begin_summary(self, item: _Item) -> bytes:
        item.head = _head("response.reasoning_summary_text.delta", item, summary_index=0)
        part = {"type": "summary_text", "text": ""}
        return self._event("response.reasoning_summary_part.added", **item.place, summary_index=0, part=part)

    def _feed_citation(self, event: CitationAdded) -> bytes:
        item = self._by_key.get(event.key)
        return b"" if item is None else self._add_citation(item, event.citation)

    def _add_citation(self, item: _Item, citation: Citation) -> bytes:
        chars = item.measure()
        annotation = write_citation(citation, chars)
        if annotation is None:
            return b""
        index = len(item.citations)
        item.citations.append(replace(citation, end=chars) if citation.end is None else citation)
        return self._event(
            "response.output_text.annotation.added",
            **item.place,
            content_index=0,
            annotation_index=index,
            annotation=annotation,
        )

    def _feed_logprobs(self, event: LogprobsAdded) -> bytes:
        self._logprobs += event.logprobs
        return self._write_logprobs(self._text) if self._text is not None and self._text.is_open else b""

    def _write_logprobs(self, item: _Item) -> bytes:
        """Return a piece without text that has the probabilities which no text was open for."""
        if not self._logprobs:
            return b""
        item.logprobs += self._logprobs
        logprobs, self._logprobs = write_logprobs(self._logprobs), []
        return self._event("response.output_text.delta", **item.place, content_index=0, delta="", logprobs=logprobs)

    def _feed_seal(self, event: SealSet) -> bytes:
        item = self._by_key.get(event.key)
        if item is not None:
            item.seal = event.seal
        return b""

    # --- Items

    def _feed_block_start(self, event: BlockStart) -> bytes:
        block = show(event.block)
        if block is None:
            return b""
        item = self._by_key[event.key] = _Item(block, self._ids.make(block), len(self._items))
        self._items.append(item)
        self._output.append(None)
        added = self._event("response.output_item.added", output_index=item.index, item=_begin(block, item.id))
        return added + self._begin_part(item) + self._write_beginning(item)

    def _begin_part(self, item: _Item) -> bytes:
        match item.block:
            case Text():
                self._text = item
                item.head = _head("response.output_text.delta", item, content_index=0, logprobs=[])
                return self._write_part_added(item, write_text(Text(""))) + self._write_logprobs(item)
            case Refusal():
                item.head = _head("response.refusal.delta", item, content_index=0)
                return self._write_part_added(item, write_refusal(Refusal("")))
            case ToolCall(is_custom=is_custom):
                kind = "custom_tool_call_input" if is_custom else "function_call_arguments"
                item.head = _head(f"response.{kind}.delta", item)
                return b""
            case _:
                return b""

    def _write_part_added(self, item: _Item, part: dict[str, Any]) -> bytes:
        return self._event("response.content_part.added", **item.place, content_index=0, part=part)

    def _write_beginning(self, item: _Item) -> bytes:
        """Return the events for what the block of *item* had from its start."""
        text = text_of(item.block)
        written = self._write_piece(item, text) if text else b""
        if isinstance(item.block, Text):
            written += b"".join([self._add_citation(item, citation) for citation in item.block.citations])
        return written

    def _feed_block_stop(self, event: BlockStop) -> bytes:
        item = self._by_key.get(event.key)
        if item is None:
            return b""
        item.block = item.fold()
        item.is_open = False
        ended = self._end_part(item, item.block)
        whole = self._output[item.index] = self._write_item(item)
        return ended + self._event("response.output_item.done", output_index=item.index, item=whole)

    def _write_item(self, item: _Item, status: str = "completed") -> Raw:
        return Raw(_encode(write_item(item.block, item.id, item.logprobs, status=status)))

    def _end_part(self, item: _Item, block: Shown) -> bytes:
        match block:
            case Text(text=text):
                part = write_text(block, item.logprobs)
                said = self._event(
                    "response.output_text.done",
                    **item.place,
                    content_index=0,
                    text=text,
                    logprobs=part["logprobs"],
                )
                return said + self._write_part_done(item, part)
            case Refusal(text=text):
                said = self._event("response.refusal.done", **item.place, content_index=0, refusal=text)
                return said + self._write_part_done(item, write_refusal(block))
            case Reasoning(text=text) if item.head:
                return self._end_summary(item, text)
            case ToolCall(is_custom=True, arguments=text):
                return self._event("response.custom_tool_call_input.done", **item.place, input=text)
            case ToolCall(arguments=text, name=name):
                return self._event("response.function_call_arguments.done", **item.place, name=name, arguments=text)
            case _:
                return b""

    def _write_part_done(self, item: _Item, part: dict[str, Any]) -> bytes:
        return self._event("response.content_part.done", **item.place, content_index=0, part=part)

    def _end_summary(self, item: _Item, text: str) -> bytes:
        said = self._event("response.reasoning_summary_text.done", **item.place, summary_index=0, text=text)
        part = {"type": "summary_text", "text": text}
        return said + self._event("response.reasoning_summary_part.done", **item.place, summary_index=0, part=part)

    # --- The end

    def _feed_usage(self, event: UsageSeen) -> bytes:
        self._usage = event.usage
        return b""

    def _feed_finish(self, event: Finish) -> bytes:
        self._finish = event
        if self._items:
            return b""
        reasons = explain_stop(event.stop, event.detail)
        return b"".join(
            [self._feed_block_start(BlockStart(0, -1, reason)) for reason in reasons]
        ) + self._feed_block_stop(BlockStop(0, -1))

    def _feed_end(self, event: End) -> bytes:
        del event
        assert self._envelope is not None  # noqa: S101  # hub.Event: nothing ends that has not started
        if self._logprobs and self._text is not None:
            # They came behind their text: nothing but the response at the end can show them.
            self._text.logprobs += self._logprobs
            self._output[self._text.index] = self._write_item(self._text)
        is_refused = any(isinstance(item.block, Refusal) for item in self._items)
        response = self._envelope.write_end(self._finish.stop, self._output, self._usage, is_refused=is_refused)
        return self._event(f"response.{response['status']}", response=response)

    def _feed_failed(self, event: Failed) -> bytes:
        if self._envelope is None:
            return write_stream_error(event.error)
        for item in self._items:
            if item.is_open:
                item.block = item.fold()
                self._output[item.index] = self._write_item(item, "incomplete")
        error = write_failure(event.error)
        return self._event(
            "response.failed", response=self._envelope.write("failed", self._output, self._usage, error=error)
        )

    _HANDLERS: ClassVar[dict[type, Callable[["ResponsesEncoder", Any], bytes]]] = {
        Delta: _feed_delta,
        Start: _feed_start,
        Ping: _feed_ping,
        CitationAdded: _feed_citation,
        LogprobsAdded: _feed_logprobs,
        SealSet: _feed_seal,
        BlockStart: _feed_block_start,
        BlockStop: _feed_block_stop,
        UsageSeen: _feed_usage,
        Finish: _feed_finish,
        End: _feed_end,
        Failed: _feed_failed,
    }


def _head(kind: str, item: _Item, **fields: Any) -> bytes:
    """Return how the event of one piece begins."""
    start = _encode({"type": kind, **item.place, **fields})
    return b'event: %b\ndata: %b,"delta":' % (kind.encode(), start[:-1])


def _begin(block: Shown, item_id: str) -> Any:
    """Return the item for *block* as it stands before its first piece."""
    match block:
        case Text() | Refusal():
            return write_message(item_id, [], "in_progress")
        case Reasoning():
            return write_item(Reasoning(), item_id)
        case ToolCall():
            return write_item(replace(block, arguments=""), item_id, status="in_progress")
        case Media():
            return {"id": item_id, "type": "image_generation_call", "status": "in_progress", "result": None}
        case Opaque(raw=raw):
            return raw
        case _ as never:
            assert_never(never)
