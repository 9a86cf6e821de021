"""Streams of the Messages API, read."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.errors import ProxyError, UpstreamCut, UpstreamGarbage, UpstreamRefusal
from aiproxyd.formats import ANTHROPIC
from aiproxyd.sse import SSEDecoder, SSEvent

RECORDINGS = Path(__file__).parents[2] / "recordings/anthropic"
CASES = sorted(path.parent.name for path in RECORDINGS.glob("*/stream.sse"))
WHOLE = sorted(path.parent.name for path in RECORDINGS.glob("*/response.json"))
TYPES = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "ping",
    "error",
    "new",
]
BLOCKS = ["text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "new"]
DELTAS = ["text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta", "new"]
VALUES = st.none() | st.integers() | st.sampled_from(["", " ", "a", "{}", '{"a":', "tool_use"])
MEMBERS = st.dictionaries(
    st.sampled_from(
        ["text", "thinking", "signature", "data", "id", "name", "input", "partial_json", "citations", "citation"]
    ),
    VALUES | st.dictionaries(st.text(max_size=2), VALUES, max_size=2) | st.lists(VALUES, max_size=2),
    max_size=5,
)
EVENTS = st.builds(
    lambda type_, index, block, delta, members, usage: {
        "type": type_,
        "index": index,
        "content_block": members | {"type": block},
        "delta": members | {"type": delta, "stop_reason": block},
        "message": members | {"usage": usage},
        "usage": usage,
    },
    st.sampled_from(TYPES[:7]) | st.sampled_from(TYPES),
    st.integers(0, 2) | VALUES,
    st.sampled_from(BLOCKS),
    st.sampled_from(DELTAS),
    MEMBERS,
    st.none() | st.dictionaries(st.sampled_from(["input_tokens", "output_tokens", "service_tier"]), VALUES),
)
BYTES = EVENTS.map(msgspec.json.encode) | st.sampled_from([b"[DONE]", b"", b"{", b"5", b"[]", b"\xff", b"[" * 9999])


def decode(*payloads: dict[str, object]) -> list[hub.Event]:
    decoder = ANTHROPIC.stream_decoder()
    return [
        event for payload in payloads for event in decoder.feed(SSEvent(b"", msgspec.json.encode(payload)))
    ] + decoder.feed_eof()


def decode_chunks(*chunks: bytes) -> list[hub.Event]:
    sse, decoder = SSEDecoder(), ANTHROPIC.stream_decoder()
    fed = [event for chunk in chunks for event in sse.feed(chunk)] + sse.feed_eof()
    return [event for given in fed for event in decoder.feed(given)] + decoder.feed_eof()


def fold_blocks(*payloads: dict[str, object]) -> tuple[hub.Block, ...]:
    return hub.fold(decode({"type": "message_start", "message": {}}, *payloads, STOP)).candidates[0].blocks


def begin(index: int = 0, **block: object) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int = 0, **delta: object) -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def end(index: int = 0) -> dict[str, object]:
    return {"type": "content_block_stop", "index": index}


STOP: dict[str, object] = {"type": "message_stop"}


def alike(response: hub.Response) -> hub.Response:
    """Return *response* with arguments and foreign blocks laid out alike."""

    def compact(raw: bytes) -> bytes:
        return msgspec.json.encode(msgspec.json.decode(raw))

    blocks: list[hub.Block] = []
    for block in response.candidates[0].blocks:
        match block:
            case hub.ToolCall(arguments=arguments):
                blocks.append(msgspec.structs.replace(block, arguments=compact(arguments.encode()).decode()))
            case hub.Opaque(raw=raw):
                blocks.append(msgspec.structs.replace(block, raw=Raw(compact(raw))))
            case hub.Text(citations=citations):
                cited = tuple(msgspec.structs.replace(c, raw=Raw(compact(c.raw))) for c in citations)
                blocks.append(msgspec.structs.replace(block, citations=cited))
            case _:
                blocks.append(block)
    candidate = msgspec.structs.replace(response.candidates[0], blocks=tuple(blocks))
    return msgspec.structs.replace(response, candidates=(candidate,))


@pytest.mark.parametrize("case", WHOLE)
def test_a_recorded_stream_says_what_the_recorded_answer_says(case: str) -> None:
    streamed = hub.fold(decode_chunks((RECORDINGS / case / "stream.sse").read_bytes()))

    assert alike(streamed) == alike(ANTHROPIC.decode_response((RECORDINGS / case / "response.json").read_bytes()))


@pytest.mark.parametrize("case", CASES)
@given(newline=st.sampled_from([b"\n", b"\r\n", b"\r"]), offsets=st.lists(st.integers(0, 8000), max_size=8))
def test_a_stream_means_the_same_however_it_is_cut(case: str, newline: bytes, offsets: list[int]) -> None:
    stream = (RECORDINGS / case / "stream.sse").read_bytes().replace(b"\n", newline)
    bounds = [0, *sorted(offset % (len(stream) + 1) for offset in offsets), len(stream)]

    events = decode_chunks(*(stream[start:stop] for start, stop in pairwise(bounds)))

    whole = decode_chunks(stream)
    assert [type(event) for event in events] == [type(event) for event in whole]
    assert [event for event in events if not isinstance(event, hub.Failed)] == [
        event for event in whole if not isinstance(event, hub.Failed)
    ]


@given(payloads=st.lists(BYTES, max_size=14))
def test_whatever_comes_the_order_is_legal_and_the_end_comes_once(payloads: list[bytes]) -> None:
    decoder, folder = ANTHROPIC.stream_decoder(), hub.Folder()

    events = [event for data in payloads for event in decoder.feed(SSEvent(b"", data))] + decoder.feed_eof()

    for event in events:
        folder.feed(event)
    assert [isinstance(event, hub.End | hub.Failed) for event in events].count(True) == 1
    assert isinstance(events[-1], hub.End | hub.Failed)
    assert decoder.is_over
    assert decoder.feed_eof() == []
    called = {
        event.key for event in events if isinstance(event, hub.BlockStart) and isinstance(event.block, hub.ToolCall)
    }
    closed = {event.key for event in events if isinstance(event, hub.BlockStop)}
    assert called & closed <= {event.key for event in events if isinstance(event, hub.Delta)}


@given(case=st.sampled_from(CASES), data=st.data())
def test_a_recording_with_any_part_replaced_is_legal(case: str, data: st.DataObject) -> None:
    stream = (RECORDINGS / case / "stream.sse").read_bytes()
    start = data.draw(st.integers(0, len(stream)))
    stop = data.draw(st.integers(start, min(start + 40, len(stream))))
    folder = hub.Folder()

    for event in decode_chunks(stream[:start] + data.draw(st.binary(max_size=9)) + stream[stop:]):
        folder.feed(event)


def test_a_stream_becomes_events_as_soon_as_they_are_known() -> None:
    decoder = ANTHROPIC.stream_decoder()

    def feed(payload: dict[str, Any]) -> list[hub.Event]:
        return decoder.feed(SSEvent(b"", msgspec.json.encode(payload)))

    usage = {"input_tokens": 3, "output_tokens": 1, "service_tier": "priority"}
    assert feed({"type": "message_start", "message": {"id": "msg_1", "model": "claude-5", "usage": usage}}) == [
        hub.Start(id="msg_1", model="claude-5", service_tier="priority"),
        hub.UsageSeen(hub.Usage(input_tokens=3, output_tokens=1)),
    ]
    assert feed({"type": "ping"}) == [hub.Ping()]
    assert feed(begin(type="tool_use", id="t", name="f", input={})) == [
        hub.BlockStart(0, 0, hub.ToolCall(id="t", name="f", arguments=""))
    ]
    assert feed(delta(type="input_json_delta", partial_json="")) == []
    assert feed(delta(type="input_json_delta", partial_json='{"a"')) == [hub.Delta(0, 0, '{"a"')]
    assert feed(end()) == [hub.BlockStop(0, 0)]
    assert feed({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}) == [
        hub.UsageSeen(hub.Usage(input_tokens=3, output_tokens=9))
    ]
    assert feed({"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 9}}) == []
    assert feed(STOP) == [hub.Finish(0, "tool"), hub.End()]
    assert feed(STOP) == []
    assert decoder.feed_eof() == []


@pytest.mark.parametrize(
    ("given", "pieces", "arguments"),
    [
        ({}, [], "{}"),
        ({}, ["", " "], " {}"),
        ({"a": 1}, [], '{"a":1}'),
        ({"a": 1}, ['{"b":', "2}"], '{"b":2}'),
        ({}, [" ", '{"b":2}'], ' {"b":2}'),
        ("text", [], "text"),
        (None, [], "{}"),
    ],
)
def test_a_call_always_ends_with_its_arguments(given: object, pieces: list[str], arguments: str) -> None:
    deltas = [delta(type="input_json_delta", partial_json=piece) for piece in pieces]

    (call,) = fold_blocks(begin(type="tool_use", id="t", name="f", input=given), *deltas, end())

    assert call == hub.ToolCall(id="t", name="f", arguments=arguments)


def test_the_last_signature_of_a_thought_is_its_seal() -> None:
    thought = fold_blocks(
        begin(type="thinking", thinking="So", signature="early"),
        delta(type="signature_delta", signature="first"),
        delta(type="thinking_delta", thinking=" be it."),
        delta(type="signature_delta", signature="last"),
        delta(type="signature_delta", signature=""),
        end(),
    )

    assert thought == (hub.Reasoning("So be it.", hub.Seal("anthropic", "signature", "last")),)


def test_a_thought_that_is_not_shown_has_its_seal() -> None:
    assert fold_blocks(
        begin(type="redacted_thinking", data="EmwK"),
        end(),
        begin(1, type="thinking", thinking=""),
        delta(1, type="signature_delta", signature="EqQB"),
        end(1),
    ) == (
        hub.Reasoning("", hub.Seal("anthropic", "redacted", "EmwK")),
        hub.Reasoning("", hub.Seal("anthropic", "signature", "EqQB")),
    )


def test_text_comes_with_its_citations_wherever_they_stand() -> None:
    cited = {"type": "web_search_result_location", "url": "https://a", "cited_text": "c"}

    (text,) = fold_blocks(
        begin(type="text", text="It is", citations=[cited]),
        delta(type="text_delta", text=" so."),
        delta(type="citations_delta", citation=cited),
        delta(type="citations_delta"),
        end(),
    )

    citation = hub.Citation(url="https://a", cited_text="c", origin="anthropic", raw=Raw(msgspec.json.encode(cited)))
    assert text == hub.Text("It is so.", citations=(citation, citation))


@pytest.mark.parametrize(
    ("pieces", "made"),
    [
        (['{"query":', '"x"}'], b'{"type":"server_tool_use","input":{"query":"x"}}'),
        ([], b'{"type":"server_tool_use","input":{}}'),
        (['{"query":'], b'{"type":"server_tool_use","input":{}}'),
    ],
)
def test_the_call_of_a_server_tool_is_one_whole(pieces: list[str], made: bytes) -> None:
    deltas = [delta(type="input_json_delta", partial_json=piece) for piece in pieces]

    blocks = fold_blocks(begin(type="server_tool_use", input={}), *deltas, end())

    assert blocks == (hub.Opaque("anthropic", "server_tool_use", Raw(made)),)


def test_what_belongs_to_no_open_block_or_to_another_kind_is_passed_over() -> None:
    blocks = fold_blocks(
        delta(type="text_delta", text="lost"),
        begin(type="text", text=""),
        delta(type="thinking_delta", thinking="lost"),
        delta(type="signature_delta", signature="lost"),
        delta(type="text_delta", text=None),
        delta(7, type="text_delta", text="lost"),
        {"type": "content_block_delta", "index": 0},
        {"type": "content_block_delta", "index": "x", "delta": {}},
        {"type": "content_block_start", "index": 5},
        {"type": "content_block_start", "index": 5, "content_block": {"no": "type"}},
        {"type": "content_block_new", "index": 0},
        delta(type="text_delta", text="kept"),
        end(),
        end(),
    )

    assert blocks == (hub.Text("kept"),)


def test_blocks_that_are_never_closed_are_closed_by_what_follows() -> None:
    assert fold_blocks(
        begin(type="text", text="a"), begin(type="text", text="b"), begin(1, type="tool_use", id="t", name="f")
    ) == (hub.Text("a"), hub.Text("b"), hub.ToolCall(id="t", name="f", arguments="{}"))


@pytest.mark.parametrize("first", [begin(type="text"), {"type": "message_delta", "delta": {}}, STOP])
def test_a_start_that_the_upstream_has_left_out_is_made(first: dict[str, object]) -> None:
    assert decode({"type": "ping"}, first)[:2] == [hub.Ping(), hub.Start()]


def test_a_second_start_is_none() -> None:
    events = decode({"type": "message_start", "message": {}}, {"type": "message_start", "message": 5}, STOP)

    assert events == [hub.Start(), hub.Finish(0, "end"), hub.End()]


def test_a_refusal_is_explained() -> None:
    details = {"type": "refusal", "category": None, "explanation": "No."}

    events = decode({"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": details}}, STOP)

    assert events == [hub.Start(), hub.Finish(0, "refusal", None, "No."), hub.End()]


def test_a_stop_sequence_is_told() -> None:
    delta = {"stop_reason": "stop_sequence", "stop_sequence": "END"}

    assert decode({"type": "message_delta", "delta": delta}, STOP)[1] == hub.Finish(0, "stop_sequence", "END")


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"error": {"type": "overloaded_error", "message": "Overloaded"}},
    ],
)
def test_an_error_in_band_ends_the_stream(payload: dict[str, object]) -> None:
    *_, failed = events = decode({"type": "message_start", "message": {}}, begin(type="text"), payload, STOP)

    assert isinstance(failed, hub.Failed)
    assert isinstance(failed.error, UpstreamRefusal)
    assert (failed.error.status, failed.error.message) == (529, "Overloaded")
    assert len(events) == 3


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (b"", UpstreamCut),
        (b'data: {"type":"message_start","message":{}}\n\n', UpstreamCut),
        (b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n', UpstreamCut),
        (b"data: [DONE]\n\n", UpstreamCut),
        (b"data: \n\n", UpstreamCut),
        (b"data: {\n\n", UpstreamGarbage),
        (b"data: <html>\n\n", UpstreamGarbage),
        (b'data: {"type":"error"}\n\n', UpstreamRefusal),
    ],
)
def test_a_stream_without_its_end_has_failed(stream: bytes, error: type[ProxyError]) -> None:
    failed = decode_chunks(stream)[-1]

    assert isinstance(failed, hub.Failed)
    assert type(failed.error) is error


def test_what_a_relay_adds_behind_the_end_is_passed_over() -> None:
    stream = b'data: {"type":"message_stop"}\n\ndata: [DONE]\n\ndata: {\n\n'

    assert decode_chunks(stream) == [hub.Start(), hub.Finish(0, "end"), hub.End()]
