"""An upstream's answer, put back into the terms of its caller: names, ids, custom tools, seals, order. Sans-I/O.

An encoder can rely on this: calls have the caller's own names and natures and ids that its format allows, each once;
seals say which upstream's model made them, and stand where the format has a place for them, else as thoughts of their
own; opaque blocks are the format's own; where a tool is called, the stop says so; blocks do not overlap where the
format's must not.
"""

import re
from collections.abc import Iterable
from typing import Final, TypeAlias, assert_never

from msgspec.structs import replace

from aiproxyd.conversion.memory import MAX_ENTRY_BYTES, Memory, Remembered, find_context
from aiproxyd.conversion.names import AnswerIds, ToolNames
from aiproxyd.conversion.sequencer import Sequencer
from aiproxyd.conversion.tools import unwrap_input
from aiproxyd.formats.base import Format
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import (
    BlockStart,
    BlockStop,
    CitationAdded,
    Delta,
    Event,
    Finish,
    Opaque,
    Reasoning,
    Request,
    Response,
    Seal,
    SealSet,
    Start,
    Text,
    ToolCall,
)

_WORD: Final = re.compile(r"\w{1,40}", re.ASCII)

_Place: TypeAlias = tuple[int, int]
"""Candidate and key of a block."""
_Thoughts: TypeAlias = tuple[Reasoning, ...] | None
"""Sealed thoughts; None: more than may be remembered."""


class _Open:
    """An open block of which something is kept."""

    __slots__ = ("before", "behind", "block", "is_held", "pieces", "seal", "size")

    def __init__(self, block: Reasoning | ToolCall | Text, *, before: _Thoughts = ()) -> None:
        self.block = block
        """As the caller gets to see it."""
        self.before = before
        """The sealed thoughts that it follows from."""
        self.behind: list[Event] = []
        """What is to be told behind its end."""
        self.is_held = False
        """Its deltas wait until it is whole."""
        self.pieces: list[str] = []
        self.size = 0
        """Of what has come of its text, or arguments, in characters."""
        self.seal: Seal | None = None

    def add(self, text: str) -> None:
        """Take a piece of its text, or arguments."""
        self.size += len(text)
        if self.is_held or self.size <= MAX_ENTRY_BYTES:  # is_whole, without a call for each delta
            self.pieces.append(text)
        else:
            self.pieces.clear()

    @property
    def is_whole(self) -> bool:
        """Whether all of its text is there; what nobody waits for is kept no longer than it may be remembered."""
        return self.is_held or self.size <= MAX_ENTRY_BYTES

    @property
    def text(self) -> str:
        """What has come of its text, or arguments, if that is there."""
        return "".join(self.pieces)


class Inbound:
    """Turns the events of one answer into those that its caller gets to see. One per attempt."""

    def __init__(
        self,
        asked: Request,
        caller: Format,
        upstream: Format,
        names: ToolNames,
        *,
        origin: str,
        principal: str,
        memory: Memory,
        losses: Losses,
        wants_thoughts_back: bool,
    ) -> None:
        """Take the request that *caller*'s format has decoded, and the *names* that its tools have at the upstream.

        *origin* is what the upstream's seals are to be known by.
        """
        self._asked = asked
        self._format_name = caller.name
        self._seals_all_thoughts = caller.traits.seals_all_thoughts
        self._seals_on = caller.traits.seals_on
        self._may_seal_texts = "text" in upstream.traits.seals_on
        self._has_finish_details = caller.traits.has_finish_details
        self._names = names
        self._origin = origin
        self._principal = principal
        self._memory = memory
        self._losses = losses
        self._wants_thoughts_back = wants_thoughts_back
        self._ids = AnswerIds(caller.traits)
        self._open: dict[_Place, _Open | None] = {}
        """Blocks that are more than passed on; None: one that the caller does not get to see."""
        self._begun: dict[_Place, int] = {}
        """Of the calls that began in this batch: where the caller is told so."""
        self._early: dict[int, list[Event]] = {}
        """The thoughts that are to be told before those."""
        self._calling: set[int] = set()
        """Candidates that have called a tool of the caller's."""
        self._thoughts: _Thoughts = ()
        """Sealed thoughts of the first candidate since its last call; callers go on from no other."""
        self._context: bytes | None = None
        """What the answer is remembered by; not known until there is something to remember."""
        self._next_key = -1
        """Keys of blocks of our own; the decoders' are not negative."""
        self._sequencer = Sequencer() if caller.traits.is_sequential else None

    def is_plain(self, response: Response) -> bool:
        """Tell whether *response* is to the caller what it is, as most of them are: nothing but words."""
        if self._may_seal_texts or not response.model or len(response.candidates) != self._asked.candidates:
            return False
        for candidate in response.candidates:
            if candidate.detail or candidate.stop == "tool":
                return False
            for block in candidate.blocks:
                if type(block) is not Text or block.seal is not None:
                    return False
        return True

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """Return what *events*, which have come together, are to the caller."""
        return self.feed_batches((events,))

    def feed_batches(self, batches: Iterable[Iterable[Event]]) -> list[Event]:
        """Return what the events of *batches* are to the caller; those of one batch have come together."""
        fed: list[Event] = []
        candidates, opened = self._asked.candidates, self._open
        for events in batches:
            for event in events:
                if getattr(event, "candidate", 0) >= candidates:
                    continue  # nobody has asked for it
                if type(event) is not Delta:
                    self._feed(event, fed)
                elif opened:
                    self._feed_delta(event, fed)
                else:
                    fed.append(event)
            if self._begun:
                self._tell_early(fed)
        return fed if self._sequencer is None else self._sequencer.feed(fed)

    def _feed_delta(self, event: Delta, fed: list[Event]) -> None:
        place = (event.candidate, event.key)
        block = self._open.get(place)
        if block is None:
            is_told = place not in self._open
        else:
            block.add(event.text)
            is_told = not block.is_held
        if is_told:
            fed.append(event)

    def _feed(self, event: Event, fed: list[Event]) -> None:
        match event:
            case BlockStart():
                self._start_block(event, fed)
            case BlockStop():
                self._stop_block(event, fed)
            case SealSet():
                self._set_seal(event, fed)
            case CitationAdded(candidate=candidate, key=key) if self._is_hidden((candidate, key)):
                pass
            case Finish():
                fed.append(self._fit_finish(event))
            case Start(model=""):
                fed.append(replace(event, model=self._asked.model))
            case _:
                fed.append(event)

    def _is_hidden(self, place: _Place) -> bool:
        return place in self._open and self._open[place] is None

    def _fit_finish(self, finish: Finish) -> Finish:
        """Return *finish* such that the caller runs tools where one is called, and only there."""
        if finish.stop == "end" and finish.detail and not self._has_finish_details:
            # Only a word is named: what is more may quote the answer, which no log is to hold.
            self._losses.drop(f"finish_reason:{finish.detail}" if _WORD.fullmatch(finish.detail) else "finish_reason")
        is_calling = finish.candidate in self._calling
        if finish.stop == "end" and is_calling:
            return replace(finish, stop="tool")
        return replace(finish, stop="end") if finish.stop == "tool" and not is_calling else finish

    # --- Beginnings

    def _start_block(self, event: BlockStart, fed: list[Event]) -> None:
        match event.block:
            case Opaque(origin=origin, kind=kind) if origin != self._format_name:
                self._losses.drop(kind)
                self._open[event.candidate, event.key] = None
            case ToolCall() as call:
                self._start_call(event, call, fed)
            case Reasoning() as thought:
                self._start_words(event, thought, (), fed)
            case Text(seal=seal) as text:
                before = self._thoughts if event.candidate == 0 else ()
                if before != () or seal or self._may_seal_texts:
                    self._start_words(event, text, before, fed)
                else:
                    fed.append(event)
            case _:
                fed.append(event)

    def _start_words(self, event: BlockStart, block: Reasoning | Text, before: _Thoughts, fed: list[Event]) -> None:
        opened = self._open[event.candidate, event.key] = _Open(replace(block, seal=None), before=before)
        opened.add(block.text)
        opened.seal = block.seal and self._qualify(block.seal)
        fed.append(event if block.seal is None else replace(event, block=opened.block))

    def _start_call(self, event: BlockStart, call: ToolCall, fed: list[Event]) -> None:
        self._calling.add(event.candidate)
        called = self._names.find(call.name)
        is_held = called is not None and called.is_custom and not call.is_custom
        told = replace(
            call,
            id=self._ids.fit(call.id),
            name=called.name if called else call.name,
            namespace=called.namespace if called else call.namespace,
            arguments="" if is_held else call.arguments,
            is_custom=call.is_custom or is_held,
            seal=None,
        )
        opened = self._open[event.candidate, event.key] = _Open(told)
        opened.is_held = is_held
        opened.add(call.arguments)
        if event.candidate == 0:
            opened.before, self._thoughts = self._thoughts, ()
        self._begun[event.candidate, event.key] = len(fed)
        fed.append(replace(event, block=told))
        if call.seal is not None:
            self._seal_call(event, opened, call.seal, fed)

    # --- Seals

    def _set_seal(self, event: SealSet, fed: list[Event]) -> None:
        opened = self._open.get((event.candidate, event.key))
        if opened is None:
            return
        if isinstance(opened.block, ToolCall):
            self._seal_call(event, opened, event.seal, fed)
        else:
            opened.seal = self._qualify(event.seal)

    def _seal_call(self, event: BlockStart | SealSet, opened: _Open, seal: Seal, fed: list[Event]) -> None:
        opened.seal = self._qualify(seal)
        if "call" in self._seals_on:
            fed.append(SealSet(event.candidate, event.key, opened.seal))
            return
        assert isinstance(opened.block, ToolCall)  # noqa: S101  # the caller has looked
        thought = self._make_thought(event.candidate, replace(opened.seal, holder="call", item=opened.block.id))
        at = self._begun.get((event.candidate, event.key))
        if at is None:
            opened.behind = thought
        else:
            # Some clients drop a thought that ends a turn.
            self._early.setdefault(at, []).extend(thought)

    def _tell_early(self, fed: list[Event]) -> None:
        """Put what is to be told before the calls of a batch there; all at once, for a batch may have many."""
        early, self._early = self._early, {}
        self._begun.clear()
        if not early:
            return
        first = min(early)
        told = fed[first:]
        del fed[first:]
        for at, event in enumerate(told, first):
            fed += early.get(at, ())
            fed.append(event)

    def _qualify(self, seal: Seal) -> Seal:
        """Return *seal* with the upstream and the model that made it."""
        return replace(seal, origin=self._origin)

    def _make_thought(self, candidate: int, seal: Seal) -> list[Event]:
        """Return a thought of its own for *seal*, which has no place where it belongs."""
        key = self._next_key
        self._next_key -= 1
        return [BlockStart(candidate, key, Reasoning()), SealSet(candidate, key, seal), BlockStop(candidate, key)]

    # --- Ends

    def _stop_block(self, event: BlockStop, fed: list[Event]) -> None:
        place = (event.candidate, event.key)
        if place not in self._open:
            fed.append(event)
            return
        opened = self._open.pop(place)
        if opened is None:
            return
        match opened.block:
            case Reasoning():
                self._stop_thought(event, opened, fed)
            case Text() as text:
                self._stop_text(event, opened, text, fed)
            case ToolCall() as call:
                self._stop_call(event, opened, call, fed)
            case _ as never:
                assert_never(never)

    def _stop_thought(self, event: BlockStop, opened: _Open, fed: list[Event]) -> None:
        seal = opened.seal
        if seal is None and opened.size and (self._wants_thoughts_back or self._seals_all_thoughts):
            seal = Seal(self._origin, "plain", "")
        if seal is not None:
            fed.append(SealSet(event.candidate, event.key, seal))
            if event.candidate == 0 and (seal.kind != "plain" or self._wants_thoughts_back):
                self._keep_thought(opened, seal)
        fed.append(event)

    def _keep_thought(self, opened: _Open, seal: Seal) -> None:
        if self._thoughts is not None:
            thoughts = (*self._thoughts, Reasoning(opened.text, seal))
            is_small = opened.is_whole and Remembered(thoughts, None).size_bytes <= MAX_ENTRY_BYTES
            self._thoughts = thoughts if is_small else None

    def _stop_text(self, event: BlockStop, opened: _Open, text: Text, fed: list[Event]) -> None:
        seal = opened.seal
        if seal is None:
            fed.append(event)
        elif "text" in self._seals_on:
            fed += (SealSet(event.candidate, event.key, seal), event)
        else:
            fed += (event, *self._make_thought(event.candidate, replace(seal, holder="text")))
        self._keep(event, replace(text, text=opened.text), opened)

    def _stop_call(self, event: BlockStop, opened: _Open, call: ToolCall, fed: list[Event]) -> None:
        arguments = opened.text
        if opened.is_held:
            arguments = unwrap_input(arguments)
            if arguments:
                fed.append(Delta(event.candidate, event.key, arguments))
        fed += (event, *opened.behind)
        self._keep(event, replace(call, arguments=arguments), opened)

    def _keep(self, event: BlockStop, block: Text | ToolCall, opened: _Open) -> None:
        """Remember what the caller may lose of *block*."""
        if event.candidate > 0 or opened.before is None or not opened.is_whole:
            return
        if opened.before or opened.seal:
            if self._context is None:
                self._context = find_context(self._asked.turns)
            self._memory.keep(self._principal, block, Remembered(opened.before, opened.seal), self._context)
