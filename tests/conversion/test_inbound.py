"""An answer is told in its caller's own terms."""

import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd import hub
from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion.inbound import Inbound
from aiproxyd.conversion.memory import MAX_ENTRY_BYTES, Memory, Remembered, find_context
from aiproxyd.conversion.names import Called, ToolNames
from aiproxyd.conversion.state import OpaqueState
from aiproxyd.formats.codec import Losses
from aiproxyd.hub import (
    BlockStart,
    BlockStop,
    Citation,
    CitationAdded,
    Delta,
    End,
    Finish,
    Opaque,
    Ping,
    Reasoning,
    Request,
    Seal,
    SealSet,
    Start,
    Text,
    ToolCall,
    Turn,
)
from tests.conversion.stand_in import BLOCKS, StandIn, cut, make_format, streams

ORIGIN = "up@here/model"
ASKED = Request(model="alias", turns=[Turn("user", (Text("So?"),))], candidates=2)
CALL = ToolCall(id="c", name="f", arguments="")
TOLD_CALL = replace(CALL, id="c_gw1")
"""The same, as its caller gets it."""
SEAL = Seal("up", "signature", "s")
SEALED = replace(SEAL, origin=ORIGIN)
"""The same, as its caller gets it."""
CONTEXT = find_context(ASKED.turns)
UPSTREAM = make_format("up", seals_on=frozenset(("reasoning", "call", "text")))
CALLER = make_format("caller")
ABLE = make_format("caller", seals_on=frozenset(("reasoning", "call", "text")))


def make(caller: StandIn = CALLER, upstream: StandIn = UPSTREAM, *tools: Called, **changes: Any) -> Inbound:
    names = ToolNames(upstream.traits)
    for tool in tools:
        names.fit(tool)
    parts: dict[str, Any] = {
        "origin": ORIGIN,
        "principal": "me",
        "memory": Memory(),
        "losses": Losses(),
        "wants_thoughts_back": False,
    }
    return Inbound(ASKED, caller, upstream, names, **(parts | changes))


def tell(*events: hub.Event, caller: StandIn = CALLER, **changes: Any) -> list[hub.Event]:
    """Return what the caller is told of *events*, fed one by one."""
    inbound = make(caller, **changes)
    return [told for event in events for told in inbound.feed([event])]


def block(key: int, skeleton: hub.Block, *events: Callable[[int, int], hub.Event]) -> list[hub.Event]:
    """Return the events of a block of the first candidate."""
    return [BlockStart(0, key, skeleton), *(make(0, key) for make in events), BlockStop(0, key)]


def says(text: str) -> Callable[[int, int], hub.Event]:
    return lambda candidate, key: Delta(candidate, key, text)


def seals(seal: Seal) -> Callable[[int, int], hub.Event]:
    return lambda candidate, key: SealSet(candidate, key, seal)


# --- What passes


@pytest.mark.parametrize(
    ("detail", "names"),
    [
        ("", []),
        ("MALFORMED_FUNCTION_CALL", ["finish_reason:MALFORMED_FUNCTION_CALL"]),
        ("eos", ["finish_reason:eos"]),
        # What is no word may be the model's, and is nothing for a log.
        ("I called f(1) wrongly.", ["finish_reason"]),
    ],
)
def test_an_odd_end_that_the_caller_is_not_told_of_is_named(detail: str, names: list[str]) -> None:
    losses, told = Losses(), Losses()
    finish = Finish(0, "end", detail=detail)

    assert tell(Start(model="m"), finish, losses=losses)[-1] == finish
    tell(Start(model="m"), finish, caller=make_format("caller", has_finish_details=True), losses=told)
    tell(Start(model="m"), replace(finish, stop="refusal"), losses=told)

    assert losses.names == names
    assert told.names == []


def test_words_pass_as_they_are() -> None:
    events: list[hub.Event] = [
        Start(id="1", model="m"),
        Ping(),
        *block(0, Text(""), says("a"), says("b")),
        Finish(0, "end"),
        End(),
    ]

    assert tell(*events) == events
    assert tell(*events, upstream=make_format("up")) == events


def test_a_model_that_the_upstream_does_not_name_is_the_one_that_was_asked() -> None:
    assert tell(Start(id="1")) == [Start(id="1", model="alias")]


def test_opaque_blocks_of_others_are_hidden_and_named() -> None:
    losses = Losses()
    events: list[hub.Event] = [
        BlockStart(0, 0, Opaque("up", "server_tool_use", Raw(b"{}"))),
        BlockStart(0, 1, Text("")),
        Delta(0, 0, "x"),
        SealSet(0, 0, SEAL),
        CitationAdded(0, 0, Citation()),
        Delta(0, 1, "a"),
        CitationAdded(0, 1, Citation()),
        BlockStop(0, 0),
        BlockStop(0, 1),
    ]

    assert tell(*events, upstream=make_format("up"), losses=losses) == [events[1], events[5], events[6], events[8]]
    assert losses.names == ["server_tool_use"]


def test_opaque_blocks_of_the_callers_own_format_pass() -> None:
    events = block(0, Opaque("caller", "x", Raw(b"{}")))

    assert tell(*events) == events


def test_blocks_are_told_in_sequence_where_the_caller_wants_that() -> None:
    events: list[hub.Event] = [BlockStart(0, 0, CALL), BlockStart(0, 1, CALL), BlockStop(0, 1), BlockStop(0, 0)]

    told = tell(*events, caller=make_format("caller", is_sequential=True))

    assert [(type(event), event.key) for event in told if isinstance(event, BlockStart | BlockStop)] == [
        (BlockStart, 0),
        (BlockStop, 0),
        (BlockStart, 1),
        (BlockStop, 1),
    ]


# --- Calls


def test_a_call_gets_back_its_name_and_namespace_and_an_id_that_the_caller_can_say() -> None:
    inbound = make(CALLER, UPSTREAM, Called("click", "browser"))

    told = inbound.feed([BlockStart(0, 0, ToolCall(id="f:0", name="browser__click", arguments=""))])

    assert told == [BlockStart(0, 0, ToolCall(id="gw1_Zjow", name="click", arguments="", namespace="browser"))]


def test_calls_of_one_id_are_told_apart() -> None:
    told = tell(*block(0, CALL), *block(1, CALL))

    begun = [event.block.id for event in told if isinstance(event, BlockStart) and isinstance(event.block, ToolCall)]
    assert begun == ["c_gw1", "call_be086d93a260844f7a75113e_gw1"]


def test_a_call_of_the_function_that_stands_for_a_custom_tool_is_one_of_that_tool() -> None:
    inbound = make(CALLER, UPSTREAM, Called("patch", is_custom=True))
    call = ToolCall(id="c", name="patch", arguments='{"inp')

    told = [inbound.feed([event]) for event in block(0, call, says('ut":"+ '), says('x"}'))]

    assert told == [
        [BlockStart(0, 0, ToolCall(id="c_gw1", name="patch", arguments="", is_custom=True))],
        [],
        [],
        [Delta(0, 0, "+ x"), BlockStop(0, 0)],
    ]


def test_an_empty_text_for_a_custom_tool_is_no_delta() -> None:
    inbound = make(CALLER, UPSTREAM, Called("patch", is_custom=True))

    told = inbound.feed(block(0, replace(CALL, name="patch"), says('{"input":""}')))

    assert told == block(0, replace(TOLD_CALL, name="patch", is_custom=True))


def test_a_custom_call_of_a_custom_tool_passes() -> None:
    inbound = make(CALLER, UPSTREAM, Called("patch", is_custom=True))

    told = inbound.feed(block(0, replace(CALL, name="patch", is_custom=True), says("+ x")))

    assert told == block(0, replace(TOLD_CALL, name="patch", is_custom=True), says("+ x"))


@pytest.mark.parametrize(
    ("events", "stop", "told"),
    [
        (block(0, CALL), "end", "tool"),
        (block(0, CALL), "tool", "tool"),
        (block(0, CALL), "length", "length"),
        (block(0, Text("")), "end", "end"),
        (block(0, Text("")), "tool", "end"),
        (block(0, Opaque("up", "x", Raw(b"{}"))), "tool", "end"),
    ],
)
def test_an_answer_stops_for_tools_where_it_calls_some(events: list[hub.Event], stop: hub.Stop, told: hub.Stop) -> None:
    assert tell(*events, Finish(0, stop))[-1] == Finish(0, told)


def test_an_answer_stops_for_tools_only_where_it_calls_them_itself() -> None:
    assert tell(*block(0, CALL), Finish(1, "end"))[-1] == Finish(1, "end")


# --- Seals


def test_the_seal_of_a_thought_says_who_made_it() -> None:
    assert tell(*block(0, Reasoning("h"), says("m"), seals(SEAL))) == block(0, Reasoning("h"), says("m"), seals(SEALED))
    assert tell(*block(0, Reasoning("hm", SEAL))) == block(0, Reasoning("hm"), seals(SEALED))


def test_seals_stay_where_the_caller_has_a_place_for_them() -> None:
    events = [*block(0, Text("a", seal=SEAL)), *block(1, CALL, says("{}"), seals(SEAL))]

    assert tell(*events, caller=ABLE) == [
        *block(0, Text("a"), seals(SEALED)),
        *block(1, TOLD_CALL, says("{}"), seals(SEALED)),
    ]


OF_CALL = block(-1, Reasoning(), seals(replace(SEALED, holder="call", item="c_gw1")))
OF_TEXT = block(-1, Reasoning(), seals(replace(SEALED, holder="text")))


def test_the_seal_of_a_call_is_else_a_thought_before_it() -> None:
    assert make().feed(block(0, replace(CALL, seal=SEAL))) == [*OF_CALL, *block(0, TOLD_CALL)]
    assert make().feed(block(0, CALL, says("{}"), seals(SEAL))) == [*OF_CALL, *block(0, TOLD_CALL, says("{}"))]


def test_the_seal_of_a_call_that_was_told_already_is_a_thought_behind_it() -> None:
    assert tell(*block(0, CALL, says("{}"), seals(SEAL))) == [*block(0, TOLD_CALL, says("{}")), *OF_CALL]


def test_calls_that_overlap_have_their_seals_before_them() -> None:
    other = replace(CALL, id="d")
    events: list[hub.Event] = [
        Start(model="m"),
        BlockStart(0, 0, CALL),
        BlockStart(0, 1, other),
        SealSet(0, 1, SEAL),
        SealSet(0, 0, SEAL),
        BlockStop(0, 0),
        BlockStop(0, 1),
    ]

    told = make().feed(events)

    assert [event.key for event in told if isinstance(event, BlockStart)] == [-2, 0, -1, 1]


def test_many_sealed_calls_that_come_together_take_linear_time() -> None:
    inbound = make()
    events = [event for key in range(10_000) for event in block(key, CALL, says("{}"), seals(SEAL))]
    start_s = time.process_time()

    told = inbound.feed(events)

    assert time.process_time() - start_s < 5  # several minutes, were it not linear
    assert [event.key for event in told if isinstance(event, BlockStart)][-2:] == [-10_000, 9_999]


def test_the_seal_of_a_text_is_else_a_thought_behind_it() -> None:
    assert tell(*block(0, Text(""), says("a"), seals(SEAL))) == [*block(0, Text(""), says("a")), *OF_TEXT]


def test_thoughts_of_our_own_never_share_a_key() -> None:
    told = tell(*block(0, Text("a", seal=SEAL)), *block(1, Text("b", seal=SEAL)))

    assert [event.key for event in told if isinstance(event, BlockStart)] == [0, -1, 1, -2]


def test_a_thought_that_its_model_wants_back_is_sealed_as_it_is() -> None:
    events = [*block(0, Reasoning(), says("hm")), *block(1, Reasoning())]

    assert tell(*events, wants_thoughts_back=True) == [
        *block(0, Reasoning(), says("hm"), seals(Seal(ORIGIN, "plain", ""))),
        *block(1, Reasoning()),
    ]


def test_every_thought_is_sealed_where_the_vendor_refuses_those_of_others() -> None:
    memory = Memory()
    caller = make_format("caller", seals_all_thoughts=True)
    events = [*block(0, Reasoning(), says("hm")), *block(1, Reasoning()), *block(2, CALL)]

    assert tell(*events, caller=caller, memory=memory) == [
        *block(0, Reasoning(), says("hm"), seals(Seal(ORIGIN, "plain", ""))),
        *block(1, Reasoning()),
        *block(2, TOLD_CALL),
    ]
    # Its own model does not want it back.
    assert memory.recall("me", TOLD_CALL, CONTEXT) is None


# --- What is remembered


THOUGHT = block(0, Reasoning(), says("h"), says("m"), seals(SEAL))
LOST = (Reasoning("hm", SEALED),)


def remember(*events: hub.Event) -> Callable[[hub.Block], Remembered | None]:
    memory = Memory()
    tell(*events, memory=memory)
    return lambda block: memory.recall("me", block, CONTEXT)


def test_a_thought_is_remembered_by_the_text_and_the_call_behind_it() -> None:
    recall = remember(
        *THOUGHT,
        *block(1, Text("S"), says("ure")),
        *block(2, CALL, says("{}")),
        *block(3, replace(CALL, id="d"), says("{}")),
    )

    assert recall(Text("Sure")) == Remembered(LOST, None)
    assert recall(replace(TOLD_CALL, arguments="{}")) == Remembered(LOST, None)
    assert recall(replace(CALL, id="d_gw1", arguments="{}")) is None


def test_blank_text_does_not_hide_a_thought_from_its_call() -> None:
    recall = remember(*THOUGHT, *block(1, Text("\n\n")), *block(2, CALL, says("{}")))

    assert recall(replace(TOLD_CALL, arguments="{}")) == Remembered(LOST, None)


def test_the_calls_of_one_answer_remember_their_own_seals() -> None:
    other = replace(SEAL, data="t")
    recall = remember(
        *THOUGHT,
        BlockStart(0, 1, CALL),
        BlockStart(0, 2, replace(CALL, id="d")),
        SealSet(0, 2, other),
        SealSet(0, 1, SEAL),
        BlockStop(0, 2),
        BlockStop(0, 1),
    )

    assert recall(TOLD_CALL) == Remembered(LOST, SEALED)
    assert recall(replace(CALL, id="d_gw1")) == Remembered((), replace(other, origin=ORIGIN))


def test_a_custom_call_is_remembered_as_the_caller_knows_it() -> None:
    memory = Memory()
    inbound = make(CALLER, UPSTREAM, Called("patch", is_custom=True), memory=memory)

    inbound.feed([*THOUGHT, *block(1, replace(CALL, name="patch"), says('{"input":"+ x"}'))])

    known = ToolCall(id="c_gw1", name="patch", arguments="+ x", is_custom=True)
    assert memory.recall("me", known, CONTEXT) == Remembered(LOST, None)


def test_only_the_first_answer_is_remembered() -> None:
    events = [replace(event, candidate=1) for event in (*THOUGHT, *block(1, replace(CALL, seal=SEAL)))]

    assert remember(*events)(TOLD_CALL) is None


HUGE = "x" * (MAX_ENTRY_BYTES // 2 + 1)


@pytest.mark.parametrize(
    "thoughts",
    [
        block(0, Reasoning(), says(HUGE), says(HUGE), seals(SEAL)),
        [*block(0, Reasoning(), says(HUGE), seals(SEAL)), *block(1, Reasoning(), says(HUGE), seals(SEAL))],
        [*block(0, Reasoning(), says(HUGE), says(HUGE), seals(SEAL)), *block(1, Reasoning(), says("hm"), seals(SEAL))],
    ],
)
def test_thoughts_that_are_too_much_are_told_and_not_remembered(thoughts: list[hub.Event]) -> None:
    memory = Memory()
    events = [*thoughts, *block(7, Text("a")), *block(8, CALL, says("{}"))]

    told = tell(*events, memory=memory)

    assert [event for event in told if isinstance(event, Delta)] == [
        event for event in events if isinstance(event, Delta)
    ]
    assert memory.size_bytes == 0


def test_what_comes_behind_the_call_that_they_led_to_is_remembered_again() -> None:
    memory = Memory()
    events = [*block(0, Reasoning(), says(HUGE), says(HUGE), seals(SEAL)), *block(1, CALL, says("{}"))]

    tell(*events, *block(2, replace(CALL, id="d"), seals(SEAL)), memory=memory)

    assert memory.recall("me", replace(TOLD_CALL, arguments="{}"), CONTEXT) is None
    assert memory.recall("me", replace(CALL, id="d_gw1"), CONTEXT) == Remembered((), SEALED)


def test_an_endless_text_is_told_and_not_remembered() -> None:
    memory = Memory()
    events = [*THOUGHT, *block(1, Text(""), says(HUGE), says(HUGE))]

    told = tell(*events, memory=memory)

    assert sum(len(event.text) for event in told if isinstance(event, Delta) and event.key == 1) == 2 * len(HUGE)
    assert memory.size_bytes == 0


def test_of_an_endless_text_nothing_is_kept() -> None:
    inbound = make()
    tracemalloc.start()

    inbound.feed(BlockStart(0, key, CALL) for key in range(10))
    for key in range(100):
        inbound.feed([Delta(0, key % 10, "x" * MAX_ENTRY_BYTES), Delta(0, key % 10, "x")])
    kept_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert kept_bytes < MAX_ENTRY_BYTES


def test_the_arguments_of_a_custom_tool_may_be_of_any_size() -> None:
    inbound = make(CALLER, UPSTREAM, Called("patch", is_custom=True))

    told = inbound.feed(block(0, replace(CALL, name="patch"), says('{"input":"'), says(HUGE), says(HUGE), says('"}')))

    assert [event.text for event in told if isinstance(event, Delta)] == [2 * HUGE]


def test_answers_that_nobody_asked_for_are_passed_over() -> None:
    events: list[hub.Event] = [BlockStart(2, 0, Text("")), Delta(2, 0, "a"), BlockStop(2, 0), Finish(2, "end"), Ping()]

    assert tell(*events) == [Ping()]


def test_an_answer_to_nothing_is_remembered_without_a_context() -> None:
    memory = Memory()
    names = ToolNames(UPSTREAM.traits)
    inbound = Inbound(
        Request(model="m", turns=[]),
        CALLER,
        UPSTREAM,
        names,
        origin=ORIGIN,
        principal="me",
        memory=memory,
        losses=Losses(),
        wants_thoughts_back=False,
    )

    inbound.feed([*THOUGHT, *block(1, Text("a"))])

    assert memory.recall("me", Text("a"), find_context([])) == Remembered(LOST, None)


# --- Whatever comes


def seal_of(block: hub.Block) -> Seal | None:
    return block.seal if isinstance(block, Reasoning | ToolCall | Text) else None


def sealed_of(blocks: Iterable[hub.Block]) -> list[tuple[str, str]]:
    """Return, of each sealed block, what it is and its seal."""
    return [(type(block).__name__, seal.data) for block in blocks if (seal := seal_of(block))]


CALLERS = st.builds(
    make_format,
    st.just("caller"),
    is_sequential=st.booleans(),
    seals_on=st.sets(st.sampled_from(["call", "text"])).map(lambda places: frozenset(("reasoning", *places))),
)


@given(events=streams(), caller=CALLERS, wants_thoughts_back=st.booleans(), data=st.data())
def test_whatever_folds_is_told_such_that_it_folds(
    events: list[hub.Event], caller: StandIn, wants_thoughts_back: bool, data: st.DataObject
) -> None:
    inbound = make(caller, UPSTREAM, Called("patch", is_custom=True), wants_thoughts_back=wants_thoughts_back)

    told = hub.fold(event for batch in cut(data.draw, events) for event in inbound.feed(batch))

    before = hub.fold(events)
    for told_candidate, candidate in zip(told.candidates, before.candidates, strict=True):
        assert [block.text for block in told_candidate.blocks if isinstance(block, Text)] == [
            block.text for block in candidate.blocks if isinstance(block, Text)
        ]
        sealed = [block for block in told_candidate.blocks if seal_of(block)]
        assert sorted(data for _, data in sealed_of(sealed) if data) == sorted(
            data for _, data in sealed_of(candidate.blocks) if data
        )
        assert {seal.origin for seal in map(seal_of, sealed) if seal} <= {ORIGIN}
        held = [block for block in sealed if (seal := seal_of(block)) and seal.holder]
        assert all(isinstance(block, Reasoning) for block in held)


@given(blocks=st.lists(BLOCKS, max_size=6), caller=CALLERS, data=st.data())
def test_whatever_was_sealed_comes_back_sealed_so(
    blocks: list[hub.Block], caller: StandIn, data: st.DataObject
) -> None:
    answer = hub.Response(candidates=(hub.Candidate(blocks=tuple(blocks)),))
    inbound = make(caller, UPSTREAM)
    told = hub.fold(event for batch in cut(data.draw, list(hub.unfold(answer))) for event in inbound.feed(batch))
    state = OpaqueState(UPSTREAM, Capabilities(), origin=ORIGIN, principal="me", memory=Memory())

    (carried,) = state.carry([Turn("assistant", told.candidates[0].blocks)])

    assert sealed_of(carried.blocks) == sealed_of(blocks)


# Answers in which there is nothing to do.

WORDS = hub.Response(
    id="r",
    model="m",
    created=1,
    candidates=(
        hub.Candidate(blocks=(Text("Hello"), Text("there")), stop="end"),
        hub.Candidate(blocks=(Text("Hi"),), stop="stop_sequence", stop_sequence="!"),
    ),
    usage=hub.Usage(input_tokens=1, output_tokens=2),
)
PLAIN_UPSTREAM = make_format("up", seals_on=frozenset(("reasoning",)))


def with_first(**changes: Any) -> hub.Response:
    return replace(WORDS, candidates=(replace(WORDS.candidates[0], **changes), *WORDS.candidates[1:]))


@given(st.lists(st.text(min_size=1), min_size=1), st.sampled_from(("end", "length", "stop_sequence", "refusal")))
def test_what_is_plain_is_what_the_events_would_make_of_it(texts: list[str], stop: hub.Stop) -> None:
    response = with_first(blocks=tuple(map(Text, texts)), stop=stop)
    inbound = make(upstream=PLAIN_UPSTREAM)

    assert inbound.is_plain(response)
    assert hub.fold(inbound.feed(hub.unfold(response))) == response


@pytest.mark.parametrize(
    "response",
    [
        with_first(blocks=(Reasoning("hm"), Text("Hello"))),
        with_first(blocks=(Text("Hello", seal=SEAL),)),
        with_first(blocks=(CALL,), stop="tool"),
        with_first(stop="tool"),
        with_first(detail="odd"),
        with_first(blocks=(Opaque("up", "kind", Raw(b"{}")),)),
        replace(WORDS, model=""),
        replace(WORDS, candidates=WORDS.candidates * 2),
    ],
)
def test_what_holds_more_than_words_is_told_event_by_event(response: hub.Response) -> None:
    assert not make(upstream=PLAIN_UPSTREAM).is_plain(response)


def test_words_of_an_upstream_that_may_seal_them_are_told_event_by_event() -> None:
    assert not make(upstream=UPSTREAM).is_plain(WORDS)
