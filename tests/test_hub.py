"""The neutral vocabulary: what is unfolded folds back, and nothing else does."""

import contextlib
import gc
import time
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.errors import InvalidRequest, UpstreamCut, UpstreamGarbage
from aiproxyd.hub import ModelCard, Usage


def test_the_input_is_the_sum_of_its_disjoint_buckets() -> None:
    usage = Usage(input_tokens=1, cache_read_tokens=20, cache_write_tokens=300, output_tokens=4000, reasoning_tokens=50)

    assert usage.total_input_tokens == 321


def test_what_the_upstream_did_not_say_counts_as_nothing() -> None:
    assert Usage().total_input_tokens == 0
    assert Usage(cache_read_tokens=5).total_input_tokens == 5
    assert Usage() != Usage(input_tokens=0)


def test_a_card_that_we_made_has_no_words_of_an_upstream() -> None:
    card = ModelCard(name="fast")

    assert (card.created, card.owner, card.origin, bytes(card.raw)) == (None, "", "", b"")


# --- Turns, folding and unfolding

IDS = st.text(max_size=8)
SEALS = st.none() | st.builds(hub.Seal, st.sampled_from(["anthropic", "gemini"]), st.just("signature"), IDS, IDS)
CITATIONS = st.lists(st.builds(hub.Citation, url=IDS, start=st.none() | st.integers(0, 9)), max_size=2).map(tuple)
MEDIA = st.builds(hub.Media, kind=st.sampled_from(["image", "document"]), data=IDS, name=IDS)
BLOCKS = st.one_of(
    st.builds(hub.Text, IDS, citations=CITATIONS, seal=SEALS),
    st.builds(hub.Refusal, IDS),
    st.builds(hub.Reasoning, IDS, SEALS),
    st.builds(hub.ToolCall, id=IDS, name=IDS, arguments=IDS, seal=SEALS, is_custom=st.booleans()),
    MEDIA,
    st.builds(hub.Opaque, st.just("anthropic"), IDS, st.just(Raw(b"{}"))),
)
LOGPROBS = st.lists(st.builds(hub.TokenLogprob, IDS, st.floats(-9, 0)), max_size=2).map(tuple)
CANDIDATES = st.builds(
    hub.Candidate,
    blocks=st.lists(BLOCKS, max_size=4).map(tuple),
    stop=st.sampled_from(["end", "tool", "refusal"]),
    stop_sequence=st.none() | IDS,
    detail=IDS,
    logprobs=LOGPROBS,
)
USAGES = st.none() | st.builds(Usage, input_tokens=st.none() | st.integers(0, 9), output_tokens=st.integers(0, 9))
RESPONSES = st.builds(
    hub.Response,
    id=IDS,
    model=IDS,
    created=st.none() | st.integers(0, 9),
    candidates=st.lists(CANDIDATES, max_size=3).map(tuple),
    usage=USAGES,
    service_tier=IDS,
)

ROLES = st.sampled_from(["user", "assistant", "system"])
RESULTS = st.builds(hub.ToolResult, call_id=IDS)

CALL = hub.ToolCall(id="c", name="f", arguments="{}")
START, END = hub.Start(), hub.End()


def text(words: str) -> hub.Text:
    return hub.Text(words)


def result(call_id: str) -> hub.ToolResult:
    return hub.ToolResult(call_id=call_id)


def call(call_id: str) -> hub.ToolCall:
    return hub.ToolCall(id=call_id, name="f", arguments="{}")


@given(response=RESPONSES)
def test_what_is_unfolded_folds_to_what_it_was(response: hub.Response) -> None:
    assert hub.fold(hub.unfold(response)) == response


@given(response=RESPONSES, data=st.data())
def test_a_stream_that_is_cut_anywhere_is_never_taken_for_complete(response: hub.Response, data: st.DataObject) -> None:
    events = list(hub.unfold(response))
    size = data.draw(st.integers(0, len(events) - 1))

    with pytest.raises(UpstreamCut):
        hub.fold(events[:size])


def test_blocks_may_overlap_and_come_in_pieces() -> None:
    events: list[hub.Event] = [
        hub.Ping(),
        START,
        hub.BlockStart(0, 7, text("He")),
        hub.BlockStart(0, 3, CALL),
        hub.Delta(0, 7, "l"),
        hub.Ping(),
        hub.Delta(0, 7, "lo"),
        hub.BlockStop(0, 3),
        hub.UsageSeen(Usage(output_tokens=1)),
        hub.BlockStop(0, 7),
        hub.Finish(0, "tool"),
        hub.UsageSeen(Usage(output_tokens=2)),
        END,
    ]

    response = hub.fold(events)

    assert response.candidates == (hub.Candidate(blocks=(text("Hello"), CALL), stop="tool"),)
    assert response.usage == Usage(output_tokens=2)


@pytest.mark.parametrize(
    ("events", "where"),
    [
        ([hub.Delta(0, 0, "a")], "Delta before the start"),
        ([START, START], "Start twice"),
        ([START, hub.Delta(0, 0, "a")], "Delta outside of an open block"),
        (
            [START, hub.BlockStart(0, 0, CALL), hub.BlockStop(0, 0), hub.Delta(0, 0, "a")],
            "Delta outside of an open block",
        ),
        ([START, hub.BlockStart(0, 0, CALL), hub.BlockStop(0, 0), hub.BlockStart(0, 0, CALL)], "with a key"),
        ([START, hub.BlockStart(0, 0, CALL), hub.Finish(0, "end")], "Finish while a block is open"),
        ([START, hub.Finish(0, "end"), hub.Finish(0, "end")], "Finish behind the finish of its candidate"),
        ([START, hub.BlockStart(0, 0, CALL), hub.BlockStop(0, 0), END], "End while a candidate has not finished"),
        ([START, END, hub.Ping()], "Ping behind the end"),
    ],
)
def test_events_out_of_order_are_refused(events: list[hub.Event], where: str) -> None:
    with pytest.raises(UpstreamGarbage, match=where):
        hub.fold(events)


def test_a_failure_is_what_the_fold_of_a_failed_stream_raises() -> None:
    failure = UpstreamCut("gone")

    with pytest.raises(UpstreamCut) as caught:
        hub.fold([hub.Failed(failure)])

    assert caught.value is failure


def test_a_failure_that_was_raised_is_in_no_cycle() -> None:
    folder = hub.Folder()
    folder.feed(hub.Failed(failure := UpstreamCut("gone")))
    gone = weakref.ref(failure)
    del failure
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(UpstreamCut):
            folder.result()
        assert gone() is None
    finally:
        gc.enable()


def test_many_turns_of_one_role_are_merged_in_linear_time() -> None:
    turns = [hub.Turn("user", (text("a"),))] * 80_000
    start_s = time.process_time()

    (merged,) = hub.arrange(turns)

    assert time.process_time() - start_s < 1
    assert len(merged.blocks) == 80_000


def test_turns_of_one_role_are_merged_and_empty_ones_are_gone() -> None:
    turns = [
        hub.Turn("system", (text("be brief"),)),
        hub.Turn("user", (text("a"),)),
        hub.Turn("user", (text(""), text("b"))),
        hub.Turn("assistant", (text(""),)),
        hub.Turn("user", (text("c"),)),
    ]

    assert hub.arrange(turns) == [
        hub.Turn("system", (text("be brief"),)),
        hub.Turn("user", (text("a"), text("b"), text("c"))),
    ]


def test_the_phases_of_an_answer_stay_apart() -> None:
    turns = [hub.Turn("assistant", (text("hm"),), "commentary"), hub.Turn("assistant", (text("so"),), "final_answer")]

    assert hub.arrange(turns) == turns


def test_results_stand_behind_their_calls_and_before_what_was_said_with_them() -> None:
    turns = [
        hub.Turn("assistant", (call("a"), call("b"))),
        hub.Turn("system", (text("note"),)),
        hub.Turn("user", (text("well"), result("b"))),
        hub.Turn("assistant", (text("one moment"),)),
        hub.Turn("user", (result("a"),)),
    ]

    assert hub.arrange(turns) == [
        hub.Turn("assistant", (call("a"), call("b"))),
        hub.Turn("user", (result("a"), result("b"))),
        hub.Turn("system", (text("note"),)),
        hub.Turn("user", (text("well"),)),
        hub.Turn("assistant", (text("one moment"),)),
    ]


def test_an_id_that_comes_again_belongs_to_the_latest_call() -> None:
    turns = [
        hub.Turn("assistant", (call("0"),)),
        hub.Turn("user", (result("0"),)),
        hub.Turn("assistant", (call("0"),)),
        hub.Turn("user", (result("0"), text("go on"))),
    ]

    assert hub.arrange(turns) == turns


@pytest.mark.parametrize(
    "turns",
    [
        [hub.Turn("assistant", (call("a"), call("a")))],
        [hub.Turn("assistant", (call("a"), call("a"))), hub.Turn("user", (result("a"), result("a")))],
        [
            hub.Turn("assistant", (call("a"),)),
            hub.Turn("user", (text("well?"),)),
            hub.Turn("assistant", (call("a"),)),
            hub.Turn("user", (result("a"),)),
        ],
    ],
)
def test_an_id_that_comes_again_too_early_is_refused(turns: list[hub.Turn]) -> None:
    # Its result would go to the wrong call.
    with pytest.raises(InvalidRequest, match="the tool call 'a' comes again before it has a result"):
        hub.arrange(turns)


def test_the_last_turn_may_wait_for_its_results() -> None:
    turns = [hub.Turn("user", (text("go"),)), hub.Turn("assistant", (call("a"),))]

    assert hub.arrange(turns) == turns


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        ([hub.Turn("user", (result("a"),))], "the tool result 'a' has no call"),
        (
            [hub.Turn("assistant", (call("a"),)), hub.Turn("user", (result("a"), result("a")))],
            "'a' has no call that waits",
        ),
        ([hub.Turn("assistant", (call("a"),)), hub.Turn("user", (text("and?"),))], "the tool call 'a' has no result"),
    ],
)
def test_calls_and_results_that_do_not_pair_are_refused(turns: list[hub.Turn], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        hub.arrange(turns)


@given(
    turns=st.lists(st.builds(hub.Turn, st.sampled_from(["user", "assistant", "system"]), st.lists(BLOCKS).map(tuple)))
)
def test_arranged_turns_are_not_arranged_again(turns: list[hub.Turn]) -> None:
    try:
        arranged = hub.arrange(turns)
    except InvalidRequest:
        return

    assert hub.arrange(arranged) == arranged
