"""A caller's request, made fit for an upstream's format and model: what is left to an encoder is spelling. Sans-I/O.

Each step is one rule, and a rule holds for all pairs of formats. An encoder can rely on this:

- Turns are arranged, the last is the user's unless the model goes on from a prefill, and the first too where the format
  wants that; system turns in the middle stand where the format and the model have them, else as notes of the user's.
- Names of tools and ids of calls are legal and unique, each result has the id and the name of its call; custom tools
  are functions where there are no others.
- Only the format's own seals are left, in the format's own places, and only the format's own opaque blocks.
- Every knob that is turned is one that the format and the model know; reasoning and the tool choice are settled.
- Media stand in tool results only where they can.
- There is an output limit where the format wants one, never above the model's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion.knobs import set_knobs
from aiproxyd.conversion.memory import Memory
from aiproxyd.conversion.names import CallIds
from aiproxyd.conversion.reasoning import is_thinking, room_for, settle_reasoning
from aiproxyd.conversion.state import OpaqueState, begins_signed, claim, drop_thoughts
from aiproxyd.conversion.tools import Toolbox
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL, Format, decode_view
from aiproxyd.formats.codec import Losses, describe_media, refuse
from aiproxyd.hub import (
    Block,
    Media,
    Opaque,
    OutputFormat,
    Refusal,
    Request,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    merge_turns,
)

_INDISPENSABLE: Final = frozenset(("compaction", "container_upload"))
"""Blocks that stand for what was said before, or for a file: without them, the question is another."""
NOTE: Final = "[system note] "
"""Stands before a system turn where the upstream's format has none in the middle of a conversation."""
JSON_HINT: Final = Text("Answer with a single JSON object.")
"""Said where JSON is asked for by a setting alone."""
OPENING: Final = Text("(The conversation begins.)")
"""Said for the user where a format wants the user to begin, and somebody else does."""

_TYPELESS: Final = frozenset(("anyOf", "const", "enum", "items", "oneOf"))
"""Keywords that stand for something beside an object where a schema has no type."""

_members: Final = msgspec.json.Decoder(dict[str, Raw])

_WITH_MEDIA: Final[frozenset[type[Block]]] = frozenset((Media, ToolResult))
"""Blocks that are, or may hold, images and documents."""
_UNFIT: Final[frozenset[type[Block]]] = frozenset((Opaque, Refusal))
"""Blocks that not every format has."""

_Kinds: TypeAlias = AbstractSet[type[Block]]
_FitCall: TypeAlias = Callable[[ToolCall, str], ToolCall]
"""Makes a call fit, with the id that it is to have."""


class Outbound:
    """One attempt to carry a request to a model."""

    def __init__(
        self,
        fmt: Format,
        capabilities: Capabilities,
        *,
        origin: str,
        principal: str,
        memory: Memory,
        losses: Losses,
    ) -> None:
        """Take the upstream's format *fmt*; *origin* is what its seals are known by."""
        self._format_name = fmt.name
        self._traits = fmt.traits
        self._capabilities = capabilities
        self._losses = losses
        self._toolbox = Toolbox(fmt, capabilities, losses)
        self._state = OpaqueState(fmt, capabilities, origin=origin, principal=principal, memory=memory)
        self.names = self._toolbox.names

    def prepare(self, asked: Request, model: str) -> Request:
        """Return *asked*, of a caller who speaks another format, as it is to be encoded for *model*.

        Raises:
            InvalidRequest: its meaning would be lost.
        """
        for name in asked.extensions:
            self._losses.drop(name)
        request = replace(asked, model=model, extensions={}, echo={})
        kinds = _find_kinds(request.turns)
        if not kinds.isdisjoint(_WITH_MEDIA):
            request.turns = list(map(self._strip, request.turns))
        self._limit_output(request)
        self._toolbox.fit(request)
        settle_reasoning(request, self._capabilities, self._losses)
        request.turns = self._state.carry(request.turns)
        self._leave_out_thoughts(request)
        set_knobs(request, self._traits, self._capabilities, self._losses)
        if request.max_output_tokens is None and self._traits.needs_output_limit:
            request.max_output_tokens = room_for(request, self._capabilities)
        turns = self._fit_turns(request.turns, kinds, self._toolbox.fit_call)
        self._check_end(turns)
        if self._traits.needs_json_word and _is_plain_json(request) and not _speaks_of_json(turns):
            turns = merge_turns([Turn("system", (JSON_HINT,)), *turns])
        request.turns = self._fit_beginning(turns)
        return request

    def clean(self, asked: Request, model: str) -> Request:
        """Return the conversation of *asked*, whose caller speaks *model*'s own format, without what others left in it.

        The reasoning is another where the model could not go on with the caller's; tools are there where those that
        were called have to be offered still. All else that the caller says in the format's own words may stay so.
        """
        request = Request(model=model, turns=asked.turns, reasoning=asked.reasoning)
        if self._traits.needs_called_tools and not (asked.tools or asked.server_tools):
            self._toolbox.offer_called(request)
        wants_thoughts_back = self._capabilities.wants_thoughts_back
        turns = claim(request.turns, self._format_name, wants_thoughts_back=wants_thoughts_back)
        request.turns = self._state.carry(turns)
        self._leave_out_thoughts(request)
        request.turns = self._fit_turns(request.turns, _find_kinds(request.turns), _rename)
        for name, raw in asked.extensions.items():
            if raw == NULL:
                self._losses.drop(name)
        return request

    def _strip(self, turn: Turn) -> Turn:
        """Return *turn* without what only its caller's format can say of media."""
        if not _has_any(turn, _WITH_MEDIA):
            return turn
        blocks: list[Block] = []
        for block in turn.blocks:
            match block:
                case ToolResult(content=content):
                    blocks.append(replace(block, content=tuple(map(self._strip_part, content))))
                case Media():
                    blocks.append(self._strip_part(block))
                case _:
                    blocks.append(block)
        return replace(turn, blocks=tuple(blocks))

    def _strip_part(self, part: Text | Media) -> Text | Media:
        if not isinstance(part, Media) or not part.extensions:
            return part
        for name in part.extensions:
            self._losses.drop(f"{part.kind}.{name}")
        return replace(part, extensions={})

    def _limit_output(self, request: Request) -> None:
        if request.max_output_tokens == 0:
            raise InvalidRequest(
                "an output limit of 0 warms Anthropic's prompt cache; this model's API has nothing like it",
                param="$.max_tokens",
            )
        if request.candidates > 1 and not self._traits.has_candidates:
            raise refuse("more than one candidate (n)", self._format_name, "$.n")
        limit = self._capabilities.max_output_tokens
        if limit is not None and request.max_output_tokens is not None and request.max_output_tokens > limit:
            # 128000 is what several SDKs send to everyone.
            request.max_output_tokens = limit
            self._losses.drop("max_output_tokens")

    def _leave_out_thoughts(self, request: Request) -> None:
        """Switch thinking off where the model would refuse to go on from here, and leave out what it refuses then."""
        capabilities = self._capabilities
        thinks = is_thinking(request.reasoning, capabilities)
        if thinks and capabilities.needs_signed_turns and not begins_signed(request.turns):
            self._losses.drop("reasoning")
            request.reasoning = replace(request.reasoning, mode="off", budget_tokens=None)
            thinks = False
        if capabilities.refuses_thoughts_when_off and not thinks:
            request.turns = drop_thoughts(request.turns)

    # --- The conversation

    def _fit_turns(self, turns: Sequence[Turn], kinds: _Kinds, fit_call: _FitCall) -> list[Turn]:
        """Make *turns*, whose blocks were of these *kinds* at first, fit; what is not there needs no look at each."""
        if ToolCall in kinds:
            turns = self._fit_calls(turns, fit_call)
        turns = [self._fit_blocks(turn) for turn in turns]
        if not kinds.isdisjoint(_WITH_MEDIA):
            turns = self._move_media(turns)
        if self._traits.refuses_blank_texts:
            turns = [_drop_blanks(turn) for turn in turns]
        return merge_turns(self._place_system(turns))

    def _move_media(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        if not (self._traits.has_result_media and self._capabilities.has_result_media):
            turns = [_lift_media(turn) for turn in turns]
        return turns if self._traits.has_assistant_media else _hand_over_media(turns)

    def _fit_calls(self, turns: Sequence[Turn], fit_call: _FitCall) -> list[Turn]:
        """Give calls and their results names and ids that the format allows."""
        ids = CallIds(self._traits)
        sent: dict[str, ToolCall] = {}
        fitted: list[Turn] = []
        for turn in turns:
            calls = [block for block in turn.blocks if isinstance(block, ToolCall)]
            if calls:
                fitted_ids = ids.fit(call.id for call in calls)
                sent = {call.id: fit_call(call, fitted_ids[call.id]) for call in calls}
            fitted.append(self._replace_calls(turn, sent) if sent else turn)
        return fitted

    def _replace_calls(self, turn: Turn, sent: Mapping[str, ToolCall]) -> Turn:
        """Return *turn* with its calls, and the results of the latest, as they are *sent*."""
        blocks: list[Block] = []
        for block in turn.blocks:
            match block:
                case ToolCall(id=call_id):
                    blocks.append(sent[call_id])
                case ToolResult(call_id=call_id):
                    blocks.append(self._toolbox.fit_result(block, sent[call_id]))
                case _:
                    blocks.append(block)
        return replace(turn, blocks=tuple(blocks))

    def _fit_blocks(self, turn: Turn) -> Turn:
        """Drop the opaque blocks of other formats, and say in plain words what the format has no block for."""
        has_phase = not turn.phase or self._traits.has_phases
        if has_phase and not _has_any(turn, _UNFIT):
            return turn
        blocks: list[Block] = []
        for block in turn.blocks:
            match block:
                case Opaque(origin=origin, kind=kind) if origin != self._format_name:
                    if kind in _INDISPENSABLE:
                        raise refuse(f"a block of type {kind!r}", self._format_name)
                    self._losses.drop(kind)
                case Refusal(text=text) if not self._traits.has_refusals:
                    blocks.append(Text(text))
                case _:
                    blocks.append(block)
        return replace(turn, blocks=tuple(blocks), phase=turn.phase if has_phase else "")

    def _place_system(self, turns: Sequence[Turn]) -> list[Turn]:
        """Turn system turns in the middle of a conversation into notes to the user's side, where they cannot stand."""
        placed: list[Turn] = []
        is_leading = True
        for index, turn in enumerate(turns):
            is_leading = is_leading and turn.role == "system"
            if turn.role == "system" and not is_leading and not self._may_stand(turns, index):
                placed.append(replace(turn, role="user", blocks=tuple(map(_to_note, turn.blocks))))
            else:
                placed.append(turn)
        return placed

    def _may_stand(self, turns: Sequence[Turn], index: int) -> bool:
        if not (self._traits.has_system_turns and self._capabilities.has_late_system):
            return False
        if not self._traits.has_system_behind_user:
            return True
        # https://docs.anthropic.com/en/api/messages: behind the user, and last or before the assistant.
        is_behind_user = turns[index - 1].role == "user"
        return is_behind_user and (index + 1 == len(turns) or turns[index + 1].role == "assistant")

    def _check_end(self, turns: Sequence[Turn]) -> None:
        if not turns:
            raise InvalidRequest("there is nothing to answer: the conversation is empty", param="$.messages")
        if turns[-1].role != "assistant":
            return
        if not self._capabilities.has_prefill:
            raise InvalidRequest(
                "this model cannot go on from words put into its mouth: end the conversation with a user message",
                param="$.messages",
            )
        if not self._traits.has_exact_prefill:
            self._losses.drop("prefill")

    def _fit_beginning(self, turns: list[Turn]) -> list[Turn]:
        """Let the user begin where the format wants that; behind what the system says."""
        first = next((index for index, turn in enumerate(turns) if turn.role != "system"), len(turns))
        if not self._traits.wants_user_first or (first < len(turns) and turns[first].role == "user"):
            return turns
        self._losses.drop("order of turns")
        return [*turns[:first], Turn("user", (OPENING,)), *turns[first:]]


def _lift_media(turn: Turn) -> Turn:
    """Move images and documents out of tool results: behind all of these, still the user's words."""
    blocks: list[Block] = []
    lifted: list[Block] = []
    for block in turn.blocks:
        media = [part for part in block.content if isinstance(part, Media)] if isinstance(block, ToolResult) else []
        if media and isinstance(block, ToolResult):
            lifted += [Text(f"From the tool {block.name}:"), *media]
            block = replace(block, content=tuple(map(_point_to, block.content)))
        blocks.append(block)
    if not lifted:
        return turn
    results = sum(isinstance(block, ToolResult) for block in blocks)
    return replace(turn, blocks=(*blocks[:results], *lifted, *blocks[results:]))


def _hand_over_media(turns: Sequence[Turn]) -> list[Turn]:
    """Move what the assistant has drawn or said into the user's next turn, behind the results in it."""
    handed: list[Turn] = []
    media: list[Block] = []
    for turn in turns:
        if turn.role == "assistant":
            drawn = [block for block in turn.blocks if isinstance(block, Media)]
            if drawn:
                blocks = (_point_to(block) if isinstance(block, Media) else block for block in turn.blocks)
                turn = replace(turn, blocks=tuple(blocks))
                media += drawn
        elif turn.role == "user" and media:
            results = sum(isinstance(block, ToolResult) for block in turn.blocks)
            moved = (Text("From your last turn:"), *media)
            turn = replace(turn, blocks=(*turn.blocks[:results], *moved, *turn.blocks[results:]))
            media = []
        handed.append(turn)
    return handed


def _find_kinds(turns: Iterable[Turn]) -> _Kinds:
    """Return the types of all blocks in *turns*."""
    return {type(block) for turn in turns for block in turn.blocks}


def _has_any(turn: Turn, kinds: frozenset[type[Block]]) -> bool:
    for block in turn.blocks:  # noqa: SIM110  # a generator takes three times as long
        if type(block) in kinds:
            return True
    return False


def _drop_blanks(turn: Turn) -> Turn:
    if not any([type(block) is Text and not block.text.strip() for block in turn.blocks]):  # as above
        return turn
    kept = (block for block in turn.blocks if not isinstance(block, Text) or block.text.strip())
    return replace(turn, blocks=tuple(kept))


def _point_to(part: Text | Media) -> Text:
    return Text(f"[{describe_media(part)}: see below]") if isinstance(part, Media) else part


def _rename(call: ToolCall, call_id: str) -> ToolCall:
    return call if call.id == call_id else replace(call, id=call_id)


def _is_plain_json(request: Request) -> bool:
    return request.output is not None and request.output.schema is None


def _speaks_of_json(turns: Sequence[Turn]) -> bool:
    return any("json" in block.text.casefold() for turn in turns for block in turn.blocks if isinstance(block, Text))


def _to_note(block: Block) -> Block:
    return replace(block, text=NOTE + block.text) if isinstance(block, Text) else block


def describes_object(output: OutputFormat) -> bool:
    """Tell whether *output* can only be an object, or does not say what it is."""
    if output.schema is None:
        return True
    members = decode_view(_members, output.schema)
    if members is None or "type" not in members:
        return members is not None and _TYPELESS.isdisjoint(members)
    return bytes(members["type"]) == b'"object"'
