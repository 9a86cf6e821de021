import itertools
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiproxyd.errors import UpstreamGarbage
from aiproxyd.sse import (
    FIRST_EVENTS,
    LAST_EVENTS,
    MAX_EVENT_BYTES,
    EventCutter,
    SSEDecoder,
    SSEvent,
    decode_event,
    drop_event,
    edge_events,
    first_event,
    split_events,
)

LINES = (
    b"",
    b"data: a",
    b"data:b",
    b"data:  two",
    b"data",
    b"data: x: y",
    b"event: e",
    b"event",
    b": note",
    b"id: 1",
    b"a",
)
EDGES = FIRST_EVENTS + LAST_EVENTS
NEWLINES = (b"\n", b"\r\n", b"\r")
PIECE_BYTES = 16 * 1024


def mixed_streams() -> st.SearchStrategy[bytes]:
    line = st.tuples(st.sampled_from(LINES), st.sampled_from(NEWLINES)).map(b"".join)
    lines = st.lists(line, max_size=12).map(b"".join)
    bom = st.sampled_from([b"", b"\xef\xbb\xbf"])
    return st.tuples(bom, lines, st.sampled_from([b"", b"data: end", b"\xff\x00"])).map(b"".join)


def cut(stream: bytes, offsets: list[int]) -> list[bytes]:
    bounds = [0, *sorted(offset % (len(stream) + 1) for offset in offsets), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(bounds)]


def read_by_the_book(stream: bytes) -> list[SSEvent]:
    """Read a stream line by line, as the standard says; what the end leaves undispatched is dispatched too."""
    events: list[SSEvent] = []
    name = b""
    data: list[bytes] = []
    for line in [*re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf")), b""]:
        if not line:
            if data:
                events.append(SSEvent(name, b"\n".join(data)))
            name, data = b"", []
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            data.append(value)
        if field == b"event":
            name = value
    return events


@given(stream=mixed_streams(), offsets=st.lists(st.integers(0, 400), max_size=6))
@example(stream=b"data: a\r\n\r\ndata: b\r\n\r\n", offsets=[10])
@example(stream=b"data: a\r\n\r\n\ndata: b\r\r", offsets=[10, 11])
@example(stream=b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", offsets=[1])
def test_a_stream_decodes_to_the_same_events_however_it_is_cut(stream: bytes, offsets: list[int]) -> None:
    decoder = SSEDecoder()

    events = [event for chunk in cut(stream, offsets) for event in decoder.feed(chunk)] + decoder.feed_eof()

    assert events == read_by_the_book(stream)


@given(stream=mixed_streams() | st.binary(), offsets=st.lists(st.integers(0, 400), max_size=6))
def test_the_cutter_keeps_every_byte_and_holds_no_whole_event_back(stream: bytes, offsets: list[int]) -> None:
    cutter = EventCutter()

    blocks = [cutter.feed(chunk) for chunk in cut(stream, offsets)]
    rest = cutter.take_rest()

    assert b"".join(blocks) + rest == stream
    assert re.search(rb"(?:\r\n|\n|\r(?!\n)){2}", rest) is None
    assert cutter.take_rest() == b""


@pytest.mark.parametrize("newline", NEWLINES)
def test_the_cutter_hands_out_an_event_with_the_last_byte_of_its_blank_line(newline: bytes) -> None:
    event = b"event: e" + newline + b"data: a" + newline + newline
    cutter = EventCutter()

    blocks = [cutter.feed(event[at : at + 1]) for at in range(len(event))]

    # The LF of a last CRLF comes late: nobody can know that it will come at all.
    expected = event.removesuffix(b"\n") if newline == b"\r\n" else event
    assert [block for block in blocks if block] == [expected]


@pytest.mark.parametrize("newline", NEWLINES)
def test_the_cutter_hands_out_whole_events_and_holds_the_half_one(newline: bytes) -> None:
    first, second = b"data: a" + newline * 2, b"data: b" + newline * 2
    cutter = EventCutter()

    assert cutter.feed(first + second + b"data: c") == first + second
    assert cutter.feed(b"ont" + newline) == b""
    assert cutter.take_rest() == b"data: cont" + newline


def seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@pytest.mark.parametrize("newline", NEWLINES)
def test_a_long_event_takes_time_in_proportion_to_its_length(newline: bytes) -> None:
    def feed(size_bytes: int) -> None:
        decoder = SSEDecoder()
        assert decoder.feed(b"data: ") == []
        for _ in range(size_bytes // PIECE_BYTES):
            assert decoder.feed(b"x" * PIECE_BYTES) == []
        assert len(decoder.feed(newline * 2)) == 1

    short = min(seconds(lambda: feed(2 << 20)) for _ in range(3))
    long = min(seconds(lambda: feed(8 << 20)) for _ in range(3))

    assert long < 10 * short + 0.02  # quadratic: 16 times


def test_an_event_that_never_ends_is_given_up() -> None:
    cutter = EventCutter()

    assert cutter.feed(b"x" * MAX_EVENT_BYTES) == b""
    with pytest.raises(UpstreamGarbage, match="longer than 67108864 bytes"):
        cutter.feed(b"x")


def test_events_are_split_at_blank_lines_of_every_kind() -> None:
    assert split_events(b"data: a\n\ndata: b\n\n") == [b"data: a", b"data: b"]
    assert split_events(b"data: a\r\n\r\n\r\ndata: b\r\rdata: c\n\r\ndata: d\r\nid: 1\r\n\r\n") == [
        b"data: a",
        b"data: b",
        b"data: c",
        b"data: d\r\nid: 1",
    ]
    assert split_events(b"\n\n\n\n") == []
    assert split_events(b"") == []


@pytest.mark.parametrize("newline", NEWLINES)
@pytest.mark.parametrize("count", [0, 1, 2, EDGES - 1, EDGES, EDGES + 1, 100])
def test_of_many_events_the_first_and_the_last_few_are_looked_at(count: int, newline: bytes) -> None:
    events = [b"data: %d" % number for number in range(count)]
    block = b"".join(event + newline * 2 for event in events)

    edges = events if count <= EDGES else events[:FIRST_EVENTS] + events[-LAST_EVENTS:]

    assert edge_events(block) == edges
    assert edge_events(block + b"data: half")[-LAST_EVENTS:] == [*events, b"data: half"][-LAST_EVENTS:]


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\n\n"])
def test_a_dropped_event_takes_its_blank_line_along_and_nothing_else(blank: bytes) -> None:
    block = b"data: a" + blank + b"data: b" + blank + b"data: c" + blank

    assert drop_event(block, b"data: b") == b"data: a" + blank + b"data: c" + blank
    assert drop_event(block, b"data: c") == b"data: a" + blank + b"data: b" + blank


def test_an_event_without_a_blank_line_behind_it_can_be_dropped() -> None:
    assert drop_event(b"data: a\n\ndata: b", b"data: b") == b"data: a\n\n"


@pytest.mark.parametrize(
    ("piece", "event"),
    [
        (b"data: a", SSEvent(b"", b"a")),
        (b"data:a", SSEvent(b"", b"a")),
        (b"data:  a", SSEvent(b"", b" a")),
        (b"data", SSEvent(b"", b"")),
        (b"event: e\ndata: a", SSEvent(b"e", b"a")),
        (b"data: a\r\nevent:e", SSEvent(b"e", b"a")),
        (b"data: a\ndata\ndata: b", SSEvent(b"", b"a\n\nb")),
        (b"data: a\rdata: b", SSEvent(b"", b"a\nb")),
        ("data: {\u2028}".encode(), SSEvent(b"", "{\u2028}".encode())),
        (b"dataset: a\nid: 1\nretry: 5", None),
        (b"event: e", None),
        (b": data: a", None),
        (b" data: a", None),
        (b"", None),
    ],
)
def test_an_event_is_what_its_lines_say(piece: bytes, event: SSEvent | None) -> None:
    assert decode_event(piece) == event


@pytest.mark.parametrize("newline", NEWLINES)
def test_the_first_event_is_the_first_with_data(newline: bytes) -> None:
    blank = newline * 2
    before = b": ping" + blank + b"event: e" + blank

    assert first_event(before + b"data: a" + blank + b"data: b" + blank) == SSEvent(b"", b"a")
    assert first_event(b"event: e" + newline + b"data: a" + blank + b"data: b") == SSEvent(b"e", b"a")
    assert first_event(b"data: a") == SSEvent(b"", b"a")
    assert first_event(blank + b": ping" + blank + b"data: a") == SSEvent(b"", b"a")
    assert first_event(b": ping" + blank) is None
    assert first_event(b": ping") is None
    assert first_event(b"") is None


def test_a_byte_order_mark_counts_only_where_the_stream_begins() -> None:
    decoder = SSEDecoder()

    assert decoder.feed(b"\xef\xbb\xbfdata: a\n\n") == [SSEvent(b"", b"a")]
    assert decoder.feed(b"\xef\xbb\xbfdata: b\n\n") == []


@given(st.lists(st.lists(st.sampled_from((b"data: a", b"event: b", b"id: 1", b": c")), min_size=1)), st.data())
def test_line_ends_of_one_kind_split_as_any_others(events: list[list[bytes]], data: st.DataObject) -> None:
    blank_lines = [data.draw(st.integers(1, 3)) for _ in events]

    def write(end: bytes) -> bytes:
        parts = [end.join(lines) + end * (1 + count) for lines, count in zip(events, blank_lines, strict=True)]
        return b"".join(parts)

    expected = [b"\n".join(lines) for lines in events]
    for end in (b"\n", b"\r\n", b"\r"):
        block = write(end)
        pieces = [piece.strip(end).replace(end, b"\n") for piece in split_events(block)]
        assert [piece for piece in pieces if piece] == expected  # a third line end may be left over
        assert first_event(block) == first_event(write(b"\n"))
