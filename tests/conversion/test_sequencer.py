"""Blocks come one after the other, and nothing of them is lost."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from aiproxyd import hub
from aiproxyd.conversion.sequencer import MAX_WAITING_BYTES, Sequencer
from aiproxyd.errors import UpstreamCut, UpstreamGarbage
from aiproxyd.hub import BlockStart, BlockStop, Delta, End, Failed, Finish, Ping, Start, Text, UsageSeen
from tests.conversion.stand_in import cut, streams

EMPTY = Text("")


def feed(*events: hub.Event) -> list[hub.Event]:
    """Feed *events* one by one."""
    sequencer = Sequencer()
    return [told for event in events for told in sequencer.feed([event])]


def test_blocks_that_do_not_overlap_pass_as_they_are() -> None:
    events = (Start(), BlockStart(0, 0, EMPTY), Delta(0, 0, "a"), BlockStop(0, 0), BlockStart(0, 1, EMPTY))

    assert feed(*events) == list(events)


def test_a_block_that_begins_too_early_waits() -> None:
    told = feed(
        BlockStart(0, 0, EMPTY),
        BlockStart(0, 1, EMPTY),
        Delta(0, 1, "b"),
        Delta(0, 0, "a"),
        BlockStart(0, 2, EMPTY),
        BlockStop(0, 2),
        Delta(0, 0, "a"),
        BlockStop(0, 0),
        Delta(0, 1, "b"),
        BlockStop(0, 1),
    )

    assert told == [
        BlockStart(0, 0, EMPTY),
        Delta(0, 0, "a"),
        Delta(0, 0, "a"),
        BlockStop(0, 0),
        BlockStart(0, 1, EMPTY),
        Delta(0, 1, "b"),
        Delta(0, 1, "b"),
        BlockStop(0, 1),
        BlockStart(0, 2, EMPTY),
        BlockStop(0, 2),
    ]


def test_a_finish_waits_for_the_blocks_of_its_candidate() -> None:
    told = feed(
        BlockStart(0, 0, EMPTY),
        BlockStart(1, 0, EMPTY),
        BlockStop(1, 0),
        Finish(1, "end"),
        BlockStop(0, 0),
        Finish(0, "end"),
        End(),
    )

    assert told == [
        BlockStart(0, 0, EMPTY),
        BlockStop(0, 0),
        BlockStart(1, 0, EMPTY),
        BlockStop(1, 0),
        Finish(1, "end"),
        Finish(0, "end"),
        End(),
    ]


def test_what_is_of_no_block_passes_at_once() -> None:
    failure = Failed(UpstreamCut("gone"))

    told = feed(BlockStart(0, 0, EMPTY), BlockStart(0, 1, EMPTY), Ping(), UsageSeen(hub.Usage()), failure)

    assert told == [BlockStart(0, 0, EMPTY), Ping(), UsageSeen(hub.Usage()), failure]


MIB = "x" * 2**20


def test_an_answer_of_which_too_much_waits_fails() -> None:
    sequencer = Sequencer()
    sequencer.feed([BlockStart(0, 0, EMPTY), BlockStart(0, 1, EMPTY)])
    assert sequencer.feed([Delta(0, 1, MIB)] * (MAX_WAITING_BYTES // 2**20 - 1)) == []

    (failed,) = sequencer.feed([hub.SealSet(0, 1, hub.Seal("up", "signature", MIB)), BlockStop(0, 1), End()])

    assert isinstance(failed, Failed)
    assert isinstance(failed.error, UpstreamGarbage)
    assert str(failed.error) == "the upstream's answer has too much in blocks that overlap"
    assert sequencer.feed([BlockStop(0, 0), End()]) == []


def test_pieces_without_text_count_as_well() -> None:
    sequencer = Sequencer()
    sequencer.feed([BlockStart(0, 0, EMPTY), BlockStart(0, 1, EMPTY)])

    told = sequencer.feed([Delta(0, 1, "")] * (MAX_WAITING_BYTES // 100))

    assert [type(event) for event in told] == [Failed]


def test_what_has_been_told_does_not_count_any_more() -> None:
    sequencer = Sequencer()
    half = [Delta(0, 1, MIB)] * (MAX_WAITING_BYTES // 2**20 // 2)

    for _ in range(3):
        assert sequencer.feed([BlockStart(0, 0, EMPTY), BlockStart(0, 1, EMPTY), *half, BlockStop(0, 1)])[1:] == []
        assert len(sequencer.feed([BlockStop(0, 0)])) == 3 + len(half)


def events_by_block(events: list[hub.Event]) -> dict[tuple[int, int], list[hub.Event]]:
    found: dict[tuple[int, int], list[hub.Event]] = defaultdict(list)
    for event in events:
        if isinstance(event, Delta | BlockStart | BlockStop | hub.SealSet | hub.CitationAdded):
            found[event.candidate, event.key].append(event)
    return found


@given(events=streams(), data=st.data())
def test_any_stream_is_told_whole_and_in_sequence(events: list[hub.Event], data: st.DataObject) -> None:
    sequencer = Sequencer()

    told = [event for batch in cut(data.draw, events) for event in sequencer.feed(batch)]

    assert len(told) == len(events)
    assert events_by_block(told) == events_by_block(events)
    in_sequence = [event for events in events_by_block(told).values() for event in events]
    assert [event for event in told if event in in_sequence] == in_sequence
    after, before = hub.fold(told), hub.fold(events)
    assert [sorted(map(repr, candidate.blocks)) for candidate in after.candidates] == [
        sorted(map(repr, candidate.blocks)) for candidate in before.candidates
    ]
    assert [candidate.stop for candidate in after.candidates] == [candidate.stop for candidate in before.candidates]
