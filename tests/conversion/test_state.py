"""Seals go back to the model that made them, to the place where they were, and nowhere else."""

import time

import pytest
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion.memory import Memory, Remembered, find_context
from aiproxyd.conversion.state import (
    OpaqueState,
    begins_signed,
    claim,
    drop_thoughts,
    has_foreign_state,
    place_seals,
)
from aiproxyd.hub import Block, Citation, Reasoning, Refusal, Seal, Text, ToolCall, ToolResult, Turn
from tests.conversion.stand_in import make_format

ORIGIN = "up@here/model"
MADE_HERE = Seal(ORIGIN, "signature", "s")
NATIVE = Seal("up", "signature", "s")
"""The same, as the upstream's format has it."""
FOREIGN = Seal("up@there/model", "signature", "s")
PLAIN = Seal(ORIGIN, "plain", "")
CALL = ToolCall(id="c", name="f", arguments="{}")
ASKED = Turn("user", (Text("So?"),))


def carry(
    *blocks: Block, memory: Memory | None = None, wants_thoughts_back: bool = False, principal: str = "me"
) -> tuple[Block, ...]:
    """Return what is carried of an assistant's turn."""
    capabilities = Capabilities(wants_thoughts_back=wants_thoughts_back)
    state = OpaqueState(make_format("up"), capabilities, origin=ORIGIN, principal=principal, memory=memory or Memory())
    carried = state.carry([ASKED, Turn("assistant", blocks)])
    assert carried[0] is ASKED
    return carried[1].blocks


def remember(block: Block, remembered: Remembered, memory: Memory | None = None) -> Memory:
    memory = memory or Memory()
    memory.keep("me", block, remembered, find_context([ASKED]))
    return memory


# --- Whose seals


@pytest.mark.parametrize("seal", [MADE_HERE, NATIVE])
def test_a_seal_goes_back_to_the_model_that_made_it(seal: Seal) -> None:
    assert carry(Reasoning("hm", seal), Text("a", seal=seal), replace(CALL, seal=seal)) == (
        Reasoning("hm", NATIVE),
        Text("a", seal=NATIVE),
        replace(CALL, seal=NATIVE),
    )


def test_nobody_else_gets_it() -> None:
    assert carry(Reasoning("hm", FOREIGN), Text("a", seal=FOREIGN), replace(CALL, seal=FOREIGN)) == (Text("a"), CALL)


def test_a_thought_without_a_seal_goes_nowhere() -> None:
    assert carry(Reasoning("hm"), Text("a"), wants_thoughts_back=True) == (Text("a"),)


def test_what_is_not_opaque_is_not_touched() -> None:
    turns = [ASKED, Turn("assistant", (Text("a"), CALL, Refusal("no"))), Turn("user", (ToolResult(call_id="c"),))]
    state = OpaqueState(make_format("up"), Capabilities(), origin=ORIGIN, principal="me", memory=Memory())

    carried = state.carry(turns)

    assert all(after is before for after, before in zip(carried, turns, strict=True))


@pytest.mark.parametrize(
    ("wants_thoughts_back", "blocks", "carried"),
    [
        (True, (Reasoning("hm", PLAIN), CALL), (Reasoning("hm", replace(PLAIN, origin="up")), CALL)),
        (True, (Reasoning("hm", PLAIN), Text("a")), (Text("a"),)),
        (False, (Reasoning("hm", PLAIN), CALL), (CALL,)),
        # What its caller brings in the upstream's own words is for the upstream to judge.
        (
            False,
            (Reasoning("hm", replace(PLAIN, origin="up")), CALL),
            (Reasoning("hm", replace(PLAIN, origin="up")), CALL),
        ),
    ],
)
def test_the_text_of_a_thought_goes_back_with_calls_where_the_model_wants_it(
    wants_thoughts_back: bool, blocks: tuple[Block, ...], carried: tuple[Block, ...]
) -> None:
    assert carry(*blocks, wants_thoughts_back=wants_thoughts_back) == carried


# --- Where they belong


def of_call(call_id: str, data: str = "s") -> Reasoning:
    return Reasoning("", Seal("up", "signature", data, call_id, "call"))


def of_text(data: str = "s") -> Reasoning:
    return Reasoning("", Seal("up", "signature", data, "i", "text"))


def sealed_text(text: str, data: str = "s") -> Text:
    return Text(text, seal=Seal("up", "signature", data, "i"))


SEALED = replace(CALL, seal=NATIVE)
THOUGHT = Reasoning("", NATIVE)


@pytest.mark.parametrize(
    ("blocks", "placed"),
    [
        # Before the call, behind it, behind another
        ((THOUGHT, of_call("c"), CALL), (THOUGHT, SEALED)),
        ((CALL, of_call("c")), (SEALED,)),
        ((CALL, of_call("c"), replace(CALL, id="d")), (SEALED, replace(CALL, id="d"))),
        ((of_call("c"), of_call("d", "t"), CALL, replace(CALL, id="d")),
         (SEALED, replace(CALL, id="d", seal=Seal("up", "signature", "t")))),
        # Not on two
        ((of_call("c"), CALL, CALL), (SEALED, CALL)),
        ((of_call("gone"), CALL), (CALL,)),
        # Behind the text, or before it
        ((Text("a"), of_text()), (sealed_text("a"),)),
        ((Text("a"), CALL, of_text()), (sealed_text("a"), CALL)),
        ((of_text(), Text("a")), (sealed_text("a"),)),
        ((of_text(), Text("a"), Text("b")), (sealed_text("a"), Text("b"))),
        ((Text("a"), of_text(), Text("b"), of_text("t")), (sealed_text("a"), sealed_text("b", "t"))),
        ((of_text(), Text("a"), of_text("t"), Text("b")), (sealed_text("a"), sealed_text("b", "t"))),
        ((of_text(), CALL), (CALL,)),
        ((of_text(), sealed_text("a", "t")), (sealed_text("a", "t"),)),
    ],
)  # fmt: skip
def test_a_seal_that_travelled_alone_is_put_where_it_belongs(
    blocks: tuple[Block, ...], placed: tuple[Block, ...]
) -> None:
    assert tuple(place_seals(blocks)) == placed
    assert carry(*blocks) == placed


def test_where_no_seal_travelled_alone_nothing_is_placed() -> None:
    blocks = (THOUGHT, Reasoning("hm"), SEALED)

    assert place_seals(blocks) is blocks


# --- What was lost


def test_a_lost_thought_and_a_lost_seal_are_put_back() -> None:
    memory = remember(CALL, Remembered((Reasoning("hm", MADE_HERE),), MADE_HERE))

    assert carry(Text("a"), CALL, memory=memory) == (Text("a"), Reasoning("hm", NATIVE), SEALED)


def test_a_thought_before_text_and_call_is_put_back_once() -> None:
    lost = Remembered((Reasoning("hm", MADE_HERE),), None)
    memory = remember(CALL, lost, remember(Text("a"), lost))

    assert carry(Text("a"), CALL, memory=memory) == (Reasoning("hm", NATIVE), Text("a"), CALL)


def test_a_lost_seal_that_was_to_travel_alone_is_put_where_it_belongs() -> None:
    lost = Remembered((replace(of_text(), seal=Seal(ORIGIN, "signature", "s", "i", "text")),), None)

    assert carry(Text("a"), CALL, memory=remember(CALL, lost)) == (sealed_text("a"), CALL)


def test_what_many_blocks_have_lost_is_put_back_in_linear_time() -> None:
    calls = [replace(CALL, id=str(number)) for number in range(20_000)]
    memory = Memory()
    for call in calls:
        remember(call, Remembered((Reasoning(call.id, MADE_HERE),), None), memory)
    start_s = time.process_time()

    carried = carry(*calls, memory=memory)

    assert time.process_time() - start_s < 1
    assert carried[-2:] == (Reasoning("19999", NATIVE), calls[-1])
    assert len(carried) == 40_000


def test_what_is_not_lost_is_not_put_back() -> None:
    memory = remember(CALL, Remembered((Reasoning("hm", MADE_HERE),), MADE_HERE))

    assert carry(Reasoning("ah", NATIVE), CALL, memory=memory) == (Reasoning("ah", NATIVE), CALL)


def test_what_another_model_thought_is_not_put_back() -> None:
    memory = remember(CALL, Remembered((Reasoning("hm", FOREIGN),), FOREIGN))

    assert carry(Reasoning("hm", FOREIGN), CALL, memory=memory) == (CALL,)


def test_what_another_caller_was_told_is_not_put_back() -> None:
    memory = remember(CALL, Remembered((Reasoning("hm", MADE_HERE),), None))

    assert carry(CALL, memory=memory, principal="you") == (CALL,)


@pytest.mark.parametrize("block", [Text("Hello!"), CALL])
def test_what_was_thought_in_another_conversation_is_not_put_back(block: Block) -> None:
    memory = remember(block, Remembered((Reasoning("SECRET of A", MADE_HERE),), MADE_HERE))
    state = OpaqueState(make_format("up"), Capabilities(), origin=ORIGIN, principal="me", memory=memory)
    answer = Turn("assistant", (block,))

    assert state.carry([Turn("system", (Text("B"),)), ASKED, answer])[2] is answer
    assert state.carry([ASKED, answer])[1].blocks[0] == Reasoning("SECRET of A", NATIVE)


# --- Going on


SIGNED = Turn("assistant", (Reasoning("hm", NATIVE), CALL))
UNSIGNED = Turn("assistant", (CALL,))
RESULT = Turn("user", (ToolResult(call_id="c"),))


@pytest.mark.parametrize(
    ("turns", "is_signed"),
    [
        ([], True),
        ([ASKED], True),
        ([ASKED, SIGNED, RESULT], True),
        ([ASKED, UNSIGNED, RESULT], False),
        ([ASKED, UNSIGNED, RESULT, Turn("system", (Text("note"),))], False),
        ([ASKED, UNSIGNED, RESULT, Turn("assistant", (Text("so"),)), ASKED], True),
        ([ASKED, Turn("assistant", (Text("so"),))], False),
        ([ASKED, Turn("assistant", ())], True),
    ],
)
def test_a_turn_that_goes_on_begins_with_a_signed_thought_or_not(turns: list[Turn], is_signed: bool) -> None:
    assert begins_signed(turns) is is_signed


OWN_CALL, OTHERS_CALL = replace(CALL, id="c_1"), replace(CALL, id="c_1_gw1")


@pytest.mark.parametrize(
    ("block", "is_foreign"),
    [
        (Text("a"), False),
        (Text("a", seal=NATIVE), False),
        (Text("a", seal=FOREIGN), True),
        (Reasoning("hm", NATIVE), False),
        (Reasoning("hm", MADE_HERE), True),
        (Reasoning("hm"), True),
        (OWN_CALL, False),
        (OTHERS_CALL, True),
        (replace(OWN_CALL, seal=NATIVE), False),
        (replace(OWN_CALL, seal=FOREIGN), True),
        (replace(OTHERS_CALL, seal=NATIVE), True),
        (Refusal("no"), False),
        (Text("a", citations=(Citation("u", origin="up", raw=Raw(b"{}")),)), False),
        (Text("a", citations=(Citation("u", origin="up", raw=Raw(b"{}")), Citation("u"))), True),
    ],
)
def test_what_models_of_other_formats_leave_is_known(block: Block, is_foreign: bool) -> None:
    assert has_foreign_state([ASKED, Turn("assistant", (Text("a"),)), Turn("assistant", (block,))]) is is_foreign


def test_what_the_user_says_is_nobodys_state() -> None:
    assert not has_foreign_state([ASKED, Turn("user", (ToolResult(call_id="c_gw1"),))])


def test_thoughts_beside_calls_of_ones_own_are_ones_own() -> None:
    turns = [
        ASKED,
        Turn("assistant", (Reasoning("hm"), Reasoning("so", NATIVE), OWN_CALL)),
        Turn("assistant", (Reasoning("hm"), OWN_CALL, OTHERS_CALL)),
        Turn("assistant", (Reasoning("hm"), Text("a"))),
    ]

    claimed = claim(turns, "up", wants_thoughts_back=True)

    assert claimed[1].blocks == (Reasoning("hm", Seal("up", "plain", "")), Reasoning("so", NATIVE), OWN_CALL)
    assert [claimed[0], *claimed[2:]] == [turns[0], *turns[2:]]
    assert claim(turns, "up", wants_thoughts_back=False) == turns


def test_whatever_did_not_come_through_here_is_ones_own() -> None:
    # Chat has fields of other vendors' making for seals, and those of servers that fill them mean themselves.
    lent = Seal("anthropic", "signature", "s")
    turns = [ASKED, Turn("assistant", (Reasoning("hm", lent), Text("a", seal=FOREIGN), replace(CALL, seal=lent)))]

    claimed = claim(turns, "up", wants_thoughts_back=False)

    assert claimed[0] is ASKED
    assert claimed[1].blocks == (Reasoning("hm", NATIVE), Text("a", seal=FOREIGN), replace(CALL, seal=NATIVE))


def test_thoughts_are_dropped_and_nothing_else() -> None:
    turns = drop_thoughts([ASKED, SIGNED, Turn("assistant", (Reasoning("hm", NATIVE),))])

    assert turns == [ASKED, UNSIGNED, Turn("assistant", ())]
    assert turns[0] is ASKED
