"""Opaque state of models in a conversation: what may go to this upstream, and where it belongs. Sans-I/O.

A seal whose place the caller's format does not have comes back as a thought of its own. Its holder says whose it is:
that of a call names the call in its ``item``, that of a text stands behind it, or before it where a caller puts all
thoughts first.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Final

from msgspec.structs import replace

from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion.memory import Memory, find_contexts
from aiproxyd.conversion.names import is_marked
from aiproxyd.formats.base import Format
from aiproxyd.hub import Block, Reasoning, Seal, Text, ToolCall, Turn

_SEALED: Final = (Reasoning, ToolCall, Text)
"""Blocks that may have a seal."""


class OpaqueState:
    """What in one conversation only an upstream's model understands. One per attempt."""

    def __init__(self, fmt: Format, capabilities: Capabilities, *, origin: str, principal: str, memory: Memory) -> None:
        """Take the upstream's format *fmt*; *origin* is what its seals are known by."""
        self._format_name = fmt.name
        self._wants_thoughts_back = capabilities.wants_thoughts_back
        self._origin = origin
        self._principal = principal
        self._memory = memory

    def carry(self, turns: Sequence[Turn]) -> list[Turn]:
        """Return *turns* with the seals that this upstream made in their places, with no other, and no thought without.

        What the caller has lost is put back; the text of a thought only where the model wants it.
        """
        contexts = find_contexts(turns) if self._memory.size_bytes else repeat(b"")
        return [self._carry_turn(turn, context) for turn, context in zip(turns, contexts, strict=False)]

    def _carry_turn(self, turn: Turn, context: bytes) -> Turn:
        blocks: Sequence[Block] = turn.blocks
        is_opaque = _has_opaque(blocks)
        if not is_opaque and turn.role != "assistant":
            return turn
        wants_plain = self._wants_thoughts_back and any(isinstance(block, ToolCall) for block in blocks)
        if is_opaque:
            blocks = self._keep_own(blocks, wants_plain=wants_plain)
        if turn.role == "assistant" and not (is_opaque and _has_opaque(blocks)) and self._memory.size_bytes:
            blocks = self._recall(blocks, context, wants_plain=wants_plain)
        if blocks is turn.blocks:
            return turn
        return replace(turn, blocks=tuple(place_seals(blocks)))

    def _keep_own(self, blocks: Iterable[Block], *, wants_plain: bool) -> list[Block]:
        """Return *blocks* without those seals, and thoughts, that may not go to this upstream."""
        owned = (self._own(block, wants_plain=wants_plain) for block in blocks)
        return [block for block in owned if not _is_bare_thought(block)]

    def _own(self, block: Block, *, wants_plain: bool) -> Block:
        """Return *block* without its seal, unless that may go to this upstream; then named as the format knows it."""
        seal = _seal_of(block)
        if seal is None or not isinstance(block, _SEALED):
            return block
        is_unwanted = seal.kind == "plain" and seal.origin == self._origin and not wants_plain
        if is_unwanted or seal.origin not in (self._origin, self._format_name):
            return replace(block, seal=None)
        return replace(block, seal=replace(seal, origin=self._format_name))

    def _recall(self, blocks: Sequence[Block], context: bytes, *, wants_plain: bool) -> Sequence[Block]:
        """Return *blocks*, an answer, with what the caller has lost of them; themselves if nothing."""
        recalled: list[Block] = []
        told: set[Block] = set()  # the thoughts among them: the caller has sent none
        has_lost = False
        for block in blocks:
            remembered = self._memory.recall(self._principal, block, context)
            if remembered is not None and isinstance(block, Text | ToolCall):
                has_lost = True
                # Every block of an answer is remembered with all thoughts before it.
                thoughts = self._keep_own(remembered.before, wants_plain=wants_plain)
                recalled += [thought for thought in thoughts if thought not in told]
                told.update(thoughts)
                block = self._own(replace(block, seal=remembered.seal), wants_plain=wants_plain)
            recalled.append(block)
        return recalled if has_lost else blocks


def place_seals(blocks: Sequence[Block]) -> Sequence[Block]:
    """Return *blocks* with the seals that travelled as thoughts of their own back where they belong."""
    held = [
        seal for block in blocks if isinstance(block, Reasoning) and (seal := block.seal) is not None and seal.holder
    ]
    if not held:
        return blocks
    of_calls = {seal.item: replace(seal, holder="", item="") for seal in held if seal.holder == "call"}
    of_text: Seal | None = None
    placed: list[Block] = []
    for block in blocks:
        match block:
            case Reasoning(seal=Seal(holder="call")):
                pass
            case Reasoning(seal=Seal(holder="text") as seal):
                seal = replace(seal, holder="")
                of_text = None if _seal_last_text(placed, seal) else seal
            case ToolCall(id=call_id) if call_id in of_calls:
                placed.append(replace(block, seal=of_calls.pop(call_id)))
            case Text(seal=None) if of_text is not None:
                placed.append(replace(block, seal=of_text))
                of_text = None
            case _:
                placed.append(block)
    return placed


def begins_signed(turns: Sequence[Turn]) -> bool:
    """Tell whether the model's turn that goes on here, after its tools or from a prefill, begins with a signed thought.

    Also where none goes on. The seals of *turns* are the upstream's own.
    """
    last = next((turn for turn in reversed(turns) if turn.role == "assistant" and turn.blocks), None)
    if last is None or not (last is turns[-1] or any(isinstance(block, ToolCall) for block in last.blocks)):
        return True
    return isinstance(last.blocks[0], Reasoning)


def has_foreign_state(turns: Iterable[Turn]) -> bool:
    """Tell whether models of other formats than the caller's have had a part in *turns*, and left traces."""
    return any(map(_is_foreign, (block for turn in turns if turn.role == "assistant" for block in turn.blocks)))


def claim(turns: Iterable[Turn], origin: str, *, wants_thoughts_back: bool) -> list[Turn]:
    """Return *turns* with whatever did not come from others through here sealed as *origin*'s own.

    Also thoughts without a seal, where it wants them back and has made the calls beside them.
    """
    return [_claim_turn(turn, origin, wants_thoughts_back=wants_thoughts_back) for turn in turns]


def _claim_turn(turn: Turn, origin: str, *, wants_thoughts_back: bool) -> Turn:
    if not _has_opaque(turn.blocks):
        return turn
    calls = [block.id for block in turn.blocks if isinstance(block, ToolCall)]
    is_own = wants_thoughts_back and bool(calls) and not any(map(is_marked, calls))
    blocks: list[Block] = []
    for block in turn.blocks:
        seal = _seal_of(block)
        if is_own and _is_bare_thought(block):
            seal = Seal(origin, "plain", "")
        elif seal is not None and not _is_wrapped(seal):
            seal = replace(seal, origin=origin)
        blocks.append(replace(block, seal=seal) if isinstance(block, _SEALED) else block)
    return replace(turn, blocks=tuple(blocks))


def _is_wrapped(seal: Seal) -> bool:
    """Tell whether *seal* came through here, and is known with the upstream and the model that made it."""
    return "@" in seal.origin


def _is_foreign(block: Block) -> bool:
    seal = _seal_of(block)
    if isinstance(block, ToolCall) and is_marked(block.id):
        return True
    if isinstance(block, Text) and any(not citation.origin for citation in block.citations):
        return True  # written here, in the caller's format
    return _is_wrapped(seal) if seal is not None else isinstance(block, Reasoning)


def drop_thoughts(turns: Iterable[Turn]) -> list[Turn]:
    """Return *turns* without the thoughts in them; a turn may end up empty."""
    return [
        replace(turn, blocks=tuple(block for block in turn.blocks if not isinstance(block, Reasoning)))
        if any(isinstance(block, Reasoning) for block in turn.blocks)
        else turn
        for turn in turns
    ]


def _seal_last_text(blocks: list[Block], seal: Seal) -> bool:
    """Put *seal* on the last text in *blocks*, unless there is none or it has one; return whether that was done."""
    for index in range(len(blocks) - 1, -1, -1):
        block = blocks[index]
        if isinstance(block, Text):
            if block.seal is None:
                blocks[index] = replace(block, seal=seal)
            return block.seal is None
    return False


def _has_opaque(blocks: Iterable[Block]) -> bool:
    """Tell whether one of *blocks* is a thought, or sealed."""
    for block in blocks:  # a generator takes three times as long
        if isinstance(block, Reasoning) or (isinstance(block, _SEALED) and block.seal is not None):
            return True
    return False


def _is_bare_thought(block: Block) -> bool:
    return isinstance(block, Reasoning) and block.seal is None


def _seal_of(block: Block) -> Seal | None:
    return block.seal if isinstance(block, _SEALED) else None
