"""The machine that reads the stream of an upstream. Sans-I/O.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Final, Literal

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace
from typing_extensions import override

from aiproxyd.errors import UpstreamGarbage
from aiproxyd.formats.base import NULL, decode_view
from aiproxyd.formats.codec import StreamDecoder
from aiproxyd.formats.openai_responses.answers import AnswerView, read_failure, read_start, read_stop, read_usage
from aiproxyd.formats.openai_responses.items import (
    Said,
    begin_call,
    read_item,
    read_items,
    read_part,
    text_of,
    view_item,
)
from aiproxyd.formats.openai_responses.wire import BLANK_LINE, read_citation, read_logprobs
from aiproxyd.formats.openai_shared import decode_band_error
from aiproxyd.hub import (
    Block,
    BlockStart,
    BlockStop,
    CitationAdded,
    Delta,
    End,
    Event,
    Failed,
    Finish,
    LogprobsAdded,
    Ping,
    Reasoning,
    Refusal,
    SealSet,
    Start,
    Text,
    ToolCall,
    UsageSeen,
)
from aiproxyd.splice import JSON_ERRORS
from aiproxyd.sse import SSEvent


class _Event(Struct):
    """An event of any type; what is not needed to find its place may have any shape."""

    type: str = ""
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    delta: Any = None
    logprobs: Raw = NULL
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    annotation: Raw = NULL
    item: Raw = NULL
    part: Raw = NULL
    response: Raw = NULL
    error: Any = None
    message: Any = None
    code: Any = None


_event: Final = msgspec.json.Decoder(_Event)
_answer: Final = msgspec.json.Decoder(AnswerView)

_NO_TEXT: Final = Text("")
_NO_REFUSAL: Final = Refusal("")
_NO_LOGPROBS: Final = (NULL, Raw(b"[]"))


class _OpenBlock:
    """A block while its pieces come."""

    __slots__ = ("block", "has_citations", "has_text", "is_open", "key", "part", "source")

    def __init__(self, key: int, block: Block) -> None:
        self.key = key
        self.block = block
        """As it was started."""
        self.is_open = True
        self.has_text = False
        self.has_citations = False
        self.source: Literal["", "summary", "content"] = ""
        """Which of the two ways to show a thought came first; the other would say it again."""
        self.part = 0
        """The part of a thought that its text has come to."""


class _Item:
    """An output item while its events come: its blocks by the index of their part."""

    __slots__ = ("blocks", "is_open")

    def __init__(self) -> None:
        self.blocks: dict[int, _OpenBlock] = {}
        self.is_open = True


class ResponsesDecoder(StreamDecoder):
    """Reads one stream.

    In this order::

        response.created
        ( output_item.added
            ( content_part.added output_text.delta* output_text.done content_part.done )*     a message
            | reasoning_summary_text.delta* | function_call_arguments.delta* | ...
          output_item.done )*                                                                  items may overlap
        response.completed | response.incomplete | response.failed | error

    Imitations leave out much of it: what was not begun is begun by its first piece, what no piece came for is taken
    from the ``done`` event, and what has no event at all from the response at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._start: Start | None = None
        """What the response said of itself, which is told together with the first that it says of anything else: a
        response that fails before that has answered nothing."""
        self._has_started = False
        self._items: dict[int, _Item] = {}
        self._next_key = 0
        self._is_refused = False
        self._has_logprobs = False

    @override
    def feed(self, event: SSEvent) -> list[Event]:
        if self.is_over:
            return []
        try:
            view = _event.decode(event.data)
        except msgspec.ValidationError:
            return []
        except JSON_ERRORS:
            # Relays put the end mark of chat completions behind any stream.
            return [] if event.data == b"[DONE]" else self._fail(UpstreamGarbage("the upstream's stream is not JSON"))
        handler = self._HANDLERS.get(view.type)
        if handler is None:
            return self._feed_other(view)
        if self._has_started:
            return handler(self, view)
        if self._start is None:
            self._start = read_start(_view_answer(view))
        return self._begin(self._start, handler(self, view))

    def _begin(self, start: Start, events: list[Event]) -> list[Event]:
        if not events or isinstance(events[0], Failed):
            return events
        self._has_started = True
        return [start, *events]

    @override
    def feed_eof(self) -> list[Event]:
        return [] if self.is_over else self._fail_cut()

    def _feed_other(self, view: _Event) -> list[Event]:
        if view.type == "error" or view.error:
            return self._fail(decode_band_error(view.error or {"message": view.message, "code": view.code}))
        if view.type not in ("keepalive", "ping"):
            return []
        return [Ping()] if self._has_started or self._start is None else self._begin(self._start, [Ping()])

    def _feed_lifecycle(self, view: _Event) -> list[Event]:
        del view  # what it says of the response was all
        return []

    # --- Pieces

    def _feed_text(self, view: _Event) -> list[Event]:
        return self._feed_piece(view, _NO_TEXT, view.delta)

    def _feed_refusal(self, view: _Event) -> list[Event]:
        return self._feed_piece(view, _NO_REFUSAL, view.delta)

    def _feed_piece(self, view: _Event, skeleton: Text | Refusal, text: object) -> list[Event]:
        item = self._items.get(view.output_index or 0)
        block = item.blocks.get(view.content_index or 0) if item is not None else None
        events: list[Event] = []
        if block is None:
            block = self._open_in(self._find_item(view), view.content_index or 0, skeleton, events)
        if not block.is_open:
            return events
        if isinstance(text, str) and text:
            block.has_text = True
            events.append(Delta(0, block.key, text))
        if view.logprobs not in _NO_LOGPROBS:
            events += self._add_logprobs(read_logprobs(view.logprobs))
        return events

    def _feed_text_done(self, view: _Event) -> list[Event]:
        return self._feed_missed(view, view.text)

    def _feed_refusal_done(self, view: _Event) -> list[Event]:
        return self._feed_missed(view, view.refusal)

    def _feed_missed(self, view: _Event, text: object) -> list[Event]:
        """Take the whole text of a part, where no piece of it came."""
        block = self._find_block(view)
        if block is None or block.has_text or not isinstance(text, str) or _is_blank(block.block, text):
            return []
        block.has_text = True
        return [Delta(0, block.key, text)]

    def _feed_annotation(self, view: _Event) -> list[Event]:
        block, citation = self._find_block(view), read_citation(view.annotation)
        if block is None or citation is None or not isinstance(block.block, Text):
            return []
        block.has_citations = True
        return [CitationAdded(0, block.key, citation)]

    def _feed_summary(self, view: _Event) -> list[Event]:
        return self._feed_thought(view, "summary", view.summary_index or 0, view.delta)

    def _feed_summary_done(self, view: _Event) -> list[Event]:
        return self._feed_thought(view, "summary", view.summary_index or 0, view.text, is_whole=True)

    def _feed_content(self, view: _Event) -> list[Event]:
        return self._feed_thought(view, "content", view.content_index or 0, view.delta)

    def _feed_content_done(self, view: _Event) -> list[Event]:
        return self._feed_thought(view, "content", view.content_index or 0, view.text, is_whole=True)

    def _feed_thought(
        self, view: _Event, source: Literal["summary", "content"], part: int, text: object, *, is_whole: bool = False
    ) -> list[Event]:
        events: list[Event] = []
        item = self._find_item(view)
        block = item.blocks.get(0) or self._open_in(item, 0, Reasoning(), events)
        if not block.is_open or block.source not in ("", source) or not isinstance(text, str) or not text:
            return events
        is_next = block.has_text and block.part != part
        if is_whole and block.has_text and not is_next:
            return events
        block.has_text, block.source, block.part = True, source, part
        events.append(Delta(0, block.key, BLANK_LINE + text if is_next else text))
        return events

    def _feed_arguments(self, view: _Event) -> list[Event]:
        block = self._find_block(view)
        if block is None or not isinstance(view.delta, str) or not view.delta:
            return []
        if not block.has_text and _is_blank(block.block, view.delta):
            return []
        block.has_text = True
        return [Delta(0, block.key, view.delta)]

    def _feed_arguments_done(self, view: _Event) -> list[Event]:
        return self._feed_missed(view, view.arguments if isinstance(view.arguments, str) else view.input)

    # --- Items and parts

    def _feed_part_added(self, view: _Event) -> list[Event]:
        events: list[Event] = []
        said, item = read_part(view.part), self._find_item(view)
        if said is not None and (view.content_index or 0) not in item.blocks:
            self._open_in(item, view.content_index or 0, _skeleton(said.block), events)
        return events

    def _feed_part_done(self, view: _Event) -> list[Event]:
        block, said = self._find_block(view), read_part(view.part)
        if block is None or said is None:
            return []
        return list(_fill(block, said.block))

    def _feed_item_added(self, view: _Event) -> list[Event]:
        index = view.output_index or 0
        # Some imitations give every item the same index.
        events = list(_close(self._items[index])) if index in self._items else []
        item = self._items[index] = _Item()
        head = view_item(view.item)
        if head.type == "reasoning":
            self._open_in(item, 0, Reasoning(), events)
        elif head.type in ("function_call", "custom_tool_call"):
            call = begin_call(head)
            if call is not None:
                self._open_in(item, 0, call, events)
        return events

    def _feed_item_done(self, view: _Event) -> list[Event]:
        item = self._find_item(view)
        return self._complete(item, read_item(view.item)) if item.is_open else []

    def _complete(self, item: _Item, saids: Iterable[Said]) -> list[Event]:
        """Return what is still to be told of *item*, which says *saids*."""
        events: list[Event] = []
        begun = list(item.blocks.values())
        for position, said in enumerate(saids):
            if position < len(begun):
                events += _fill(begun[position], said.block)
            else:
                block = self._open_in(item, len(item.blocks), _skeleton(said.block), events)
                events += _fill(block, said.block)
        events += _close(item)
        return events

    def _find_item(self, view: _Event) -> _Item:
        """Return the item that *view* belongs to; a new one where it was not begun."""
        return self._items.setdefault(view.output_index or 0, _Item())

    def _find_block(self, view: _Event) -> _OpenBlock | None:
        """Return the open block that *view* belongs to."""
        item = self._items.get(view.output_index or 0)
        block = item.blocks.get(view.content_index or 0) if item is not None else None
        return block if block is not None and block.is_open else None

    def _open_in(self, item: _Item, part: int, skeleton: Block, events: list[Event]) -> _OpenBlock:
        block = _OpenBlock(self._next_key, skeleton)
        self._next_key += 1
        self._is_refused = self._is_refused or isinstance(skeleton, Refusal)
        # An item that is complete has told everything.
        block.is_open = item.is_open
        item.blocks[part] = block
        if block.is_open:
            events.append(BlockStart(0, block.key, skeleton))
        return block

    # --- The end

    def _feed_end(self, view: _Event) -> list[Event]:
        answer = _view_answer(view)
        failure = read_failure(answer)
        if failure is None and view.type == "response.failed":
            failure = decode_band_error(view.error)
        if failure is not None:
            return self._fail(failure)
        self.is_over = True
        if not isinstance(answer.status, str):
            answer.status = view.type.removeprefix("response.")
        events = self._finish_items(answer)
        usage = read_usage(answer.usage)
        if usage is not None:
            events.append(UsageSeen(usage))
        stop, detail = read_stop(answer, is_refused=self._is_refused)
        return [*events, Finish(0, stop, None, detail), End()]

    def _finish_items(self, answer: AnswerView) -> list[Event]:
        events: list[Event] = []
        items = read_items(answer.output) or []
        if not self._items:
            for index, raw in enumerate(items):
                events += self._complete(self._items.setdefault(index, _Item()), read_item(raw))
        for item in self._items.values():
            events += _close(item)
        if not self._has_logprobs:
            for raw in items:
                for said in read_item(raw):
                    events += self._add_logprobs(said.logprobs)
        return events

    def _add_logprobs(self, logprobs: tuple[Any, ...]) -> list[Event]:
        if not logprobs:
            return []
        self._has_logprobs = True
        return [LogprobsAdded(0, logprobs)]

    _HANDLERS: ClassVar[dict[str, Callable[["ResponsesDecoder", _Event], list[Event]]]] = {
        "response.output_text.delta": _feed_text,
        "response.function_call_arguments.delta": _feed_arguments,
        "response.reasoning_summary_text.delta": _feed_summary,
        "response.reasoning_text.delta": _feed_content,
        "response.custom_tool_call_input.delta": _feed_arguments,
        "response.refusal.delta": _feed_refusal,
        "response.output_text.done": _feed_text_done,
        "response.output_text.annotation.added": _feed_annotation,
        "response.refusal.done": _feed_refusal_done,
        "response.function_call_arguments.done": _feed_arguments_done,
        "response.custom_tool_call_input.done": _feed_arguments_done,
        "response.reasoning_summary_text.done": _feed_summary_done,
        "response.reasoning_text.done": _feed_content_done,
        "response.content_part.added": _feed_part_added,
        "response.content_part.done": _feed_part_done,
        "response.output_item.added": _feed_item_added,
        "response.output_item.done": _feed_item_done,
        "response.created": _feed_lifecycle,
        "response.queued": _feed_lifecycle,
        "response.in_progress": _feed_lifecycle,
        "response.completed": _feed_end,
        "response.incomplete": _feed_end,
        "response.failed": _feed_end,
    }


def _view_answer(view: _Event) -> AnswerView:
    return decode_view(_answer, view.response) or AnswerView()


def _is_blank(block: Block, text: str) -> bool:
    """Tell whether *text* says nothing: the arguments of a function are still to come while there is only space."""
    return not text or (isinstance(block, ToolCall) and not block.is_custom and text.isspace())


def _skeleton(block: Block) -> Block:
    """Return *block* as it begins."""
    match block:
        case Text():
            return _NO_TEXT
        case Refusal():
            return _NO_REFUSAL
        case Reasoning():
            return Reasoning()
        case ToolCall():
            return replace(block, arguments="")
        case _:
            return block


def _fill(begun: _OpenBlock, whole: Block) -> Iterator[Event]:
    """Yield what no event has told yet of *whole*, the complete block, and its end."""
    if not begun.is_open:
        return
    key = begun.key
    text = text_of(whole)
    if text and not begun.has_text:
        begun.has_text = True
        yield Delta(0, key, text)
    if isinstance(whole, Text) and not begun.has_citations:
        for citation in whole.citations:
            yield CitationAdded(0, key, citation)
    if isinstance(whole, Reasoning) and whole.seal is not None:
        yield SealSet(0, key, whole.seal)
    yield from _close_block(begun)


def _close(item: _Item) -> Iterator[Event]:
    """Yield the ends of the blocks of *item* that are open still."""
    item.is_open = False
    for block in item.blocks.values():
        if block.is_open:
            yield from _close_block(block)


def _close_block(block: _OpenBlock) -> Iterator[Event]:
    block.is_open = False
    if isinstance(block.block, ToolCall) and not block.has_text and not block.block.is_custom:
        yield Delta(0, block.key, "{}")
    yield BlockStop(0, block.key)
