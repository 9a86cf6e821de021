"""What callers lost is remembered: by caller, for a while, and never more than a certain amount."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aiproxyd import hub
from aiproxyd.conversion.memory import MAX_ENTRY_BYTES, Memory, Remembered, find_context, find_contexts
from aiproxyd.hub import Reasoning, Seal, Text, ToolCall, ToolResult, Turn

SEAL = Seal("up", "signature", "s")
CALL = ToolCall(id="c", name="f", arguments='{"a":1,"b":2}')
HERE = b"all that was said"
REMEMBERED = Remembered((Reasoning("hm", SEAL),), None)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_call_is_found_by_its_id_and_what_it_says() -> None:
    memory = Memory()
    memory.keep("me", CALL, REMEMBERED, HERE)

    assert memory.recall("me", CALL, HERE) == REMEMBERED
    assert memory.recall("me", replace(CALL, arguments='{ "b": 2, "a": 1 }'), HERE) == REMEMBERED
    assert memory.recall("me", replace(CALL, arguments="{}"), HERE) is None
    assert memory.recall("me", replace(CALL, id="d"), HERE) is None


@pytest.mark.parametrize("arguments", ["free text", "{", '{"a":' + "1" * 40 + "}", "[" * 5000])
def test_a_call_is_found_whatever_its_arguments_are(arguments: str) -> None:
    memory = Memory()
    memory.keep("me", replace(CALL, arguments=arguments), REMEMBERED, HERE)

    assert memory.recall("me", replace(CALL, arguments=arguments), HERE) == REMEMBERED


def test_a_text_is_found_by_its_words() -> None:
    memory = Memory()
    memory.keep("me", Text("Sure.\n"), REMEMBERED, HERE)

    assert memory.recall("me", Text("Sure."), HERE) == REMEMBERED
    assert memory.recall("me", Text("No."), HERE) is None


@pytest.mark.parametrize("block", [CALL, Text("Sure.")])
def test_conversations_do_not_share_what_is_remembered(block: hub.Block) -> None:
    memory = Memory()
    memory.keep("me", block, REMEMBERED, HERE)

    assert memory.recall("me", block, b"there") is None


def test_nobody_sees_what_another_was_told() -> None:
    memory = Memory()
    memory.keep("me", CALL, REMEMBERED, HERE)

    assert memory.recall("you", CALL, HERE) is None


def test_blocks_without_a_name_are_not_remembered() -> None:
    memory = Memory()
    memory.keep("me", Text(" \n"), REMEMBERED, HERE)
    memory.keep("me", hub.Refusal("no"), REMEMBERED, HERE)

    assert memory.size_bytes == 0


def test_what_is_kept_again_replaces_what_was_kept() -> None:
    memory = Memory()
    memory.keep("me", CALL, REMEMBERED, HERE)
    size_bytes = memory.size_bytes

    memory.keep("me", CALL, Remembered((Reasoning("ah", SEAL),), None), HERE)

    assert memory.recall("me", CALL, HERE) == Remembered((Reasoning("ah", SEAL),), None)
    assert memory.size_bytes == size_bytes


def test_what_nobody_asks_for_is_forgotten_in_time() -> None:
    clock = Clock()
    memory = Memory(ttl_s=10, clock=clock)
    memory.keep("me", CALL, REMEMBERED, HERE)

    clock.now_s = 9
    assert memory.recall("me", CALL, HERE) == REMEMBERED
    clock.now_s = 18
    assert memory.recall("me", CALL, HERE) == REMEMBERED
    clock.now_s = 29
    assert memory.recall("me", CALL, HERE) is None
    assert memory.size_bytes == 0


def test_what_is_too_old_makes_room_for_what_is_new() -> None:
    clock = Clock()
    memory = Memory(ttl_s=10, clock=clock)
    memory.keep("me", CALL, REMEMBERED, HERE)
    size_bytes = memory.size_bytes

    clock.now_s = 11
    memory.keep("me", replace(CALL, id="d"), REMEMBERED, HERE)

    assert memory.size_bytes == size_bytes


def test_what_was_asked_for_longest_ago_goes_first() -> None:
    first, second, third = (replace(CALL, id=call_id) for call_id in "abc")
    memory = Memory(max_bytes=2 * REMEMBERED.size_bytes)
    memory.keep("me", first, REMEMBERED, HERE)
    memory.keep("me", second, REMEMBERED, HERE)
    memory.recall("me", first, HERE)

    memory.keep("me", third, REMEMBERED, HERE)

    assert memory.recall("me", second, HERE) is None
    assert memory.recall("me", first, HERE) == memory.recall("me", third, HERE) == REMEMBERED


def test_a_huge_thought_is_not_remembered() -> None:
    memory = Memory()

    memory.keep("me", CALL, Remembered((), replace(SEAL, data="s" * MAX_ENTRY_BYTES)), HERE)

    assert memory.recall("me", CALL, HERE) is None


@given(
    kept=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3000), st.booleans())),
    max_bytes=st.integers(0, 9000),
)
def test_memory_never_exceeds_its_bound(kept: list[tuple[str, int, bool]], max_bytes: int) -> None:
    memory = Memory(max_bytes=max_bytes)

    for call_id, size, is_recalled in kept:
        memory.keep("me", replace(CALL, id=call_id), Remembered((Reasoning("x" * size, SEAL),), SEAL), HERE)
        if is_recalled:
            memory.recall("me", replace(CALL, id=call_id), HERE)

        assert 0 <= memory.size_bytes <= max_bytes


ASKED = Turn("user", (Text("So?"),))
ANSWERED = Turn("assistant", (Text("Sure."), CALL))
TOLD = Turn("user", (ToolResult(call_id="c", content=(Text("ok"),)), Text("And?")))
IMAGE = Turn("user", (hub.Media(kind="image", data="AAAA"),))


@pytest.mark.parametrize(
    "changed",
    [
        # What clients lose, move, or split
        [replace(ASKED, blocks=(Text("So?", cache=hub.CacheMark()),)), ANSWERED, TOLD],
        [ASKED, replace(ANSWERED, blocks=(Reasoning("hm", SEAL), Text("Sure.", seal=SEAL), CALL)), TOLD],
        [ASKED, Turn("assistant", (Text("Sure."),)), Turn("assistant", (CALL,)), TOLD],
    ],
)
def test_the_context_of_an_answer_is_what_was_said_before(changed: list[Turn]) -> None:
    assert find_context(changed) == find_context([ASKED, ANSWERED, TOLD])


@pytest.mark.parametrize(
    "changed",
    [
        [],
        [ASKED],
        [TOLD, ANSWERED, ASKED],
        [replace(ASKED, role="system"), ANSWERED, TOLD],
        [replace(ASKED, blocks=(Text("So!"),)), ANSWERED, TOLD],
        [replace(ASKED, blocks=(Text("S"), Text("o?"))), ANSWERED, TOLD],
        [ASKED, replace(ANSWERED, blocks=(Text("Sure."), replace(CALL, arguments="{}"))), TOLD],
        [ASKED, replace(ANSWERED, blocks=(hub.Refusal("Never."), CALL)), TOLD],
        [ASKED, ANSWERED, replace(TOLD, blocks=(ToolResult(call_id="c", content=(Text("no"),)), Text("And?")))],
        [ASKED, ANSWERED, TOLD, IMAGE],
    ],
)
def test_what_was_said_otherwise_is_another_context(changed: list[Turn]) -> None:
    assert find_context(changed) != find_context([ASKED, ANSWERED, TOLD])


def test_an_image_is_told_by_its_size() -> None:
    longer = Turn("user", (hub.Media(kind="image", data="AAAAAAAA"),))

    assert find_context([IMAGE]) != find_context([longer])
    assert find_context([IMAGE]) != find_context([Turn("user", (hub.Media(kind="image", url="AAAA"),))])


def test_each_answer_has_the_context_that_it_was_given_in() -> None:
    more = Turn("assistant", (Text("More."),))
    contexts = list(find_contexts([ASKED, ANSWERED, more, TOLD, ANSWERED]))

    assert contexts[1] == contexts[2] == find_context([ASKED])
    assert contexts[4] == find_context([ASKED, ANSWERED, more, TOLD])


def test_a_text_that_cannot_be_encoded_has_a_context() -> None:
    assert find_context([Turn("user", (Text("\ud800"),))]) != find_context([])


def test_the_contexts_of_a_long_conversation_take_linear_time() -> None:
    turns = [turn for number in range(20_000) for turn in (Turn("user", (Text(str(number)),)), ANSWERED)]
    start_s = time.process_time()

    contexts = set(find_contexts(turns))

    assert time.process_time() - start_s < 1
    assert len(contexts) == 20_001  # of the answers; the first turn has none
