"""Streams of the Messages API, written."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.errors import UpstreamTimeout
from aiproxyd.formats import ANTHROPIC
from aiproxyd.sse import SSEDecoder
from tests.formats.anthropic.strategies import responses

ASKED = hub.Request(model="claude-5", turns=[], stream=True)
FOREIGN = hub.Seal("gemini@google/gemini-3", "signature", "CgQ=")
FOREIGN_WRAPPED = "gw1.s.gemini@google/gemini-3..CgQ="
OWN = hub.Seal("anthropic", "signature", "EqQB")


def encode(events: Iterable[hub.Event]) -> bytes:
    encoder = ANTHROPIC.stream_encoder(ASKED, "req_1")
    return b"".join(map(encoder.feed, events))


def payloads(wire: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(event.data) for event in SSEDecoder().feed(wire)]


def encode_block(*events: hub.Event) -> list[dict[str, Any]]:
    """Return what is written of one block between message_start and message_delta."""
    return payloads(encode([hub.Start(), *events, hub.Finish(0, "end"), hub.End()]))[1:-2]


def begun(block: dict[str, object], index: int = 0) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int = 0, **members: object) -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": members}


STOPPED = {"type": "content_block_stop", "index": 0}


@given(response=responses())
def test_what_is_streamed_is_decoded_to_what_it_was(response: hub.Response) -> None:
    decoder = ANTHROPIC.stream_decoder()

    wire = encode(hub.unfold(response))

    events = [event for given in SSEDecoder().feed(wire) for event in decoder.feed(given)]
    assert hub.fold(events) == response


@given(response=responses())
def test_every_event_is_named_as_its_type(response: hub.Response) -> None:
    for event in SSEDecoder().feed(encode(hub.unfold(response))):
        assert event.name.decode() == msgspec.json.decode(event.data)["type"]


def test_a_stream_is_written_as_the_api_has_it() -> None:
    events: list[hub.Event] = [
        hub.Start(id="resp_1", model="gpt-5", created=1, service_tier="default"),
        hub.UsageSeen(hub.Usage(input_tokens=7)),
        hub.Ping(),
        hub.BlockStart(0, 4, hub.Text("")),
        hub.Delta(0, 4, "Grüezi\n\u2028"),
        hub.Ping(),
        hub.BlockStop(0, 4),
        hub.BlockStart(0, 9, hub.ToolCall(id="t", name="f", arguments="")),
        hub.Delta(0, 9, '{"a":'),
        hub.UsageSeen(hub.Usage(input_tokens=7, output_tokens=5)),
        hub.Delta(0, 9, "1}"),
        hub.BlockStop(0, 9),
        hub.LogprobsAdded(0, ()),
        hub.Finish(0, "tool"),
        hub.UsageSeen(hub.Usage(input_tokens=3, cache_read_tokens=4, output_tokens=9, reasoning_tokens=2)),
        hub.End(),
    ]

    assert encode(events).decode() == (
        ": ping\n\n"
        'event: message_start\ndata: {"type":"message_start","message":{"id":"resp_1","type":"message",'
        '"role":"assistant","model":"gpt-5","content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,'
        '"usage":{"input_tokens":7,"output_tokens":0,"service_tier":"standard"}}}\n\n'
        'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        '"content_block":{"type":"text","text":""}}\n\n'
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        '"delta":{"type":"text_delta","text":"Grüezi\\n\u2028"}}\n\n'
        'event: ping\ndata: {"type":"ping"}\n\n'
        'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        'event: content_block_start\ndata: {"type":"content_block_start","index":1,'
        '"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}\n\n'
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":1,'
        '"delta":{"type":"input_json_delta","partial_json":"{\\"a\\":"}}\n\n'
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":1,'
        '"delta":{"type":"input_json_delta","partial_json":"1}"}}\n\n'
        'event: content_block_stop\ndata: {"type":"content_block_stop","index":1}\n\n'
        'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null,'
        '"stop_details":null},"usage":{"input_tokens":3,"cache_read_input_tokens":4,"output_tokens":9,'
        '"output_tokens_details":{"thinking_tokens":2}}}\n\n'
        'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def test_an_empty_answer_is_whole() -> None:
    start, delta, stop = payloads(encode([hub.Start(), hub.Finish(0, "blocked", None, "SAFETY"), hub.End()]))

    assert start["message"]["id"].startswith("msg_")
    assert (start["message"]["model"], start["message"]["content"]) == ("claude-5", [])
    assert delta["delta"] == {
        "stop_reason": "refusal",
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": None, "explanation": "SAFETY"},
    }
    assert delta["usage"] == {"input_tokens": 0, "output_tokens": 0}
    assert stop == {"type": "message_stop"}


def test_an_answer_without_candidates_is_whole() -> None:
    assert [payload["type"] for payload in payloads(encode([hub.Start(), hub.End()]))] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]


@pytest.mark.parametrize(("seal", "signature"), [(OWN, "EqQB"), (FOREIGN, FOREIGN_WRAPPED)])
def test_a_thought_is_signed_at_its_end(seal: hub.Seal, signature: str) -> None:
    written = encode_block(
        hub.BlockStart(0, 0, hub.Reasoning()),
        hub.SealSet(0, 0, seal),
        hub.Delta(0, 0, "Hm"),
        hub.Delta(0, 0, "."),
        hub.BlockStop(0, 0),
    )

    assert written == [
        begun({"type": "thinking", "thinking": "", "signature": ""}),
        delta(type="thinking_delta", thinking="Hm"),
        delta(type="thinking_delta", thinking="."),
        delta(type="signature_delta", signature=signature),
        STOPPED,
    ]


def test_a_thought_without_a_seal_has_no_signature() -> None:
    assert encode_block(hub.BlockStart(0, 0, hub.Reasoning("Hm.")), hub.BlockStop(0, 0)) == [
        begun({"type": "thinking", "thinking": "", "signature": ""}),
        delta(type="thinking_delta", thinking="Hm."),
        STOPPED,
    ]


@pytest.mark.parametrize(
    ("seal", "data"), [(FOREIGN, FOREIGN_WRAPPED), (hub.Seal("anthropic", "redacted", "EmwK"), "EmwK")]
)
def test_a_thought_that_is_not_shown_is_a_redacted_one(seal: hub.Seal, data: str) -> None:
    written = [begun({"type": "redacted_thinking", "data": data}), STOPPED]

    assert encode_block(hub.BlockStart(0, 0, hub.Reasoning()), hub.SealSet(0, 0, seal), hub.BlockStop(0, 0)) == written
    assert encode_block(hub.BlockStart(0, 0, hub.Reasoning("", seal)), hub.BlockStop(0, 0)) == written


def test_a_delta_without_text_is_none() -> None:
    assert encode_block(
        hub.BlockStart(0, 0, hub.Reasoning()),
        hub.Delta(0, 0, ""),
        hub.SealSet(0, 0, FOREIGN),
        hub.BlockStop(0, 0),
        hub.BlockStart(0, 1, hub.Text("")),
        hub.Delta(0, 1, ""),
    ) == [
        begun({"type": "redacted_thinking", "data": FOREIGN_WRAPPED}),
        STOPPED,
        begun({"type": "text", "text": ""}, 1),
    ]


def test_an_own_thought_that_is_not_shown_keeps_its_signature() -> None:
    assert encode_block(hub.BlockStart(0, 0, hub.Reasoning()), hub.SealSet(0, 0, OWN), hub.BlockStop(0, 0)) == [
        begun({"type": "thinking", "thinking": "", "signature": ""}),
        delta(type="signature_delta", signature="EqQB"),
        STOPPED,
    ]


def test_the_call_of_a_server_tool_says_its_input_in_a_delta() -> None:
    block = hub.Opaque("anthropic", "server_tool_use", Raw(b'{"type":"server_tool_use",\n"input": {"q":\r\n1.50}}'))

    wire = encode([hub.Start(), hub.BlockStart(0, 0, block), hub.BlockStop(0, 0), hub.Finish(0, "end"), hub.End()])

    assert payloads(wire)[1:-2] == [
        begun({"type": "server_tool_use", "input": {}}),
        delta(type="input_json_delta", partial_json='{"q":\r\n1.50}'),
        STOPPED,
    ]


def test_an_own_block_is_written_on_one_line() -> None:
    block = hub.Opaque("anthropic", "new", Raw(b'{"type": "new",\n "n": 1.50}'))

    assert b'"content_block":{"type": "new",  "n": 1.50}}\n\n' in encode([hub.Start(), hub.BlockStart(0, 0, block)])


@pytest.mark.parametrize("block", [hub.Opaque("gemini", "new", Raw(b"{}")), hub.ToolResult(call_id="t")])
def test_a_block_that_cannot_be_shown_leaves_no_gap(block: hub.Block) -> None:
    written = encode_block(
        hub.BlockStart(0, 0, block),
        hub.Delta(0, 0, "lost"),
        hub.BlockStop(0, 0),
        hub.BlockStart(0, 1, hub.Text("")),
        hub.BlockStop(0, 1),
    )

    assert written == [begun({"type": "text", "text": ""}), STOPPED]


def test_an_image_is_told_of() -> None:
    media = hub.Media(kind="image", media_type="image/png", data="iVBORw0KGgo=")

    assert encode_block(hub.BlockStart(0, 0, media), hub.BlockStop(0, 0)) == [
        begun({"type": "text", "text": ""}),
        delta(type="text_delta", text="[image image/png, which this API cannot carry]"),
        STOPPED,
    ]


def test_a_refusal_is_text() -> None:
    assert encode_block(hub.BlockStart(0, 0, hub.Refusal("")), hub.Delta(0, 0, "No."), hub.BlockStop(0, 0)) == [
        begun({"type": "text", "text": ""}),
        delta(type="text_delta", text="No."),
        STOPPED,
    ]


def test_what_a_block_begins_with_is_written_too() -> None:
    citation = hub.Citation(url="https://a")
    written = {
        "type": "web_search_result_location",
        "url": "https://a",
        "title": None,
        "cited_text": "",
        "encrypted_index": "gw1.c",
    }

    assert encode_block(
        hub.BlockStart(0, 0, hub.Text("So.", citations=(citation, hub.Citation(title="no page")))),
        hub.CitationAdded(0, 0, citation),
        hub.BlockStop(0, 0),
    ) == [
        begun({"type": "text", "text": ""}),
        delta(type="text_delta", text="So."),
        delta(type="citations_delta", citation=written),
        delta(type="citations_delta", citation=written),
        STOPPED,
    ]
    assert encode_block(
        hub.BlockStart(0, 0, hub.ToolCall(id="t", name="f", arguments="{}")),
        hub.CitationAdded(0, 0, citation),
        hub.BlockStop(0, 0),
    ) == [
        begun({"type": "tool_use", "id": "t", "name": "f", "input": {}}),
        delta(type="input_json_delta", partial_json="{}"),
        STOPPED,
    ]


def test_a_failure_is_the_last_event_and_bears_the_id_of_the_request() -> None:
    wire = encode([hub.Start(), hub.BlockStart(0, 0, hub.Text("")), hub.Failed(UpstreamTimeout("silence"))])

    assert wire.endswith(
        b'event: error\ndata: {"type":"error","error":{"type":"timeout_error","message":"silence"},'
        b'"request_id":"req_1"}\n\n'
    )
