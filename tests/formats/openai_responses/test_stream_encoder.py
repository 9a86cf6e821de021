"""The machine that writes the stream for a caller."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd import hub
from aiproxyd.errors import UpstreamCut, UpstreamRefusal
from aiproxyd.formats import OPENAI_RESPONSES
from aiproxyd.hub import (
    BlockStart,
    BlockStop,
    Citation,
    CitationAdded,
    Delta,
    End,
    Failed,
    Finish,
    LogprobsAdded,
    Media,
    Opaque,
    Ping,
    Reasoning,
    Refusal,
    Request,
    Seal,
    SealSet,
    Start,
    Text,
    TokenLogprob,
    ToolCall,
    ToolResult,
    Usage,
    UsageSeen,
)
from aiproxyd.sse import SSEDecoder
from tests.formats.openai_responses.strategies import responses

NAME = "openai-responses"
RECORDINGS = Path(__file__).parents[2] / "recordings" / NAME
ASKED = Request(model="asked", turns=[])
START = Start(id="resp_1", model="claude", created=7)
END: list[hub.Event] = [Finish(0, "end"), End()]


def encode(events: Iterable[hub.Event], asked: Request = ASKED) -> bytes:
    encoder = OPENAI_RESPONSES.stream_encoder(asked, "req_1")
    return b"".join(map(encoder.feed, events))


def decode(wire: bytes) -> hub.Response:
    decoder = OPENAI_RESPONSES.stream_decoder()
    return hub.fold(out for event in SSEDecoder().feed(wire) for out in decoder.feed(event))


def write(*events: hub.Event) -> list[dict[str, Any]]:
    """Return the events between the beginning and the end, with a short id for each item."""
    data = parse(encode([START, *events, *END]))
    assert [event["type"] for event in data[:2]] == ["response.created", "response.in_progress"]
    assert data[-1]["type"] == "response.completed"
    return [{key: value for key, value in event.items() if key != "sequence_number"} for event in data[2:-1]]


def parse(wire: bytes) -> list[dict[str, Any]]:
    events = SSEDecoder().feed(wire)
    data: list[dict[str, Any]] = [msgspec.json.decode(event.data) for event in events]
    assert [event["type"] for event in data] == [event.name.decode() for event in events]
    assert [event["sequence_number"] for event in data] == list(range(len(data)))
    ids: dict[str, str] = {}
    for event in data:
        for holder in (event.get("item", {}), *event.get("response", {}).get("output", ())):
            if holder.get("id", "").startswith(("msg_", "rs_", "fc_", "ctc_", "ig_")):
                holder["id"] = ids.setdefault(holder["id"], f"{holder['id'].partition('_')[0]}_{len(ids)}")
        if "item_id" in event:
            event["item_id"] = ids[event["item_id"]]
    return data


def test_an_empty_answer_is_created_and_completed() -> None:
    created, in_progress, completed = parse(encode([START, UsageSeen(Usage(output_tokens=1)), *END]))

    assert created["response"] == in_progress["response"]
    assert (created["response"]["status"], created["response"]["usage"]) == ("in_progress", None)
    assert (
        created["response"] | {"status": "completed", "usage": completed["response"]["usage"]} == completed["response"]
    )
    assert completed["response"]["usage"]["total_tokens"] == 1


def test_a_text_is_an_item_with_a_part() -> None:
    message = {"id": "msg_0", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    place = {"item_id": "msg_0", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    whole = part | {"text": "Hello"}

    assert write(BlockStart(0, 5, Text("")), Delta(0, 5, "Hel"), Delta(0, 5, "lo"), BlockStop(0, 5)) == [
        {"type": "response.output_item.added", "output_index": 0, "item": message},
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_text.delta", **place, "logprobs": [], "delta": "Hel"},
        {"type": "response.output_text.delta", **place, "logprobs": [], "delta": "lo"},
        {"type": "response.output_text.done", **place, "text": "Hello", "logprobs": []},
        {"type": "response.content_part.done", **place, "part": whole},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": message | {"status": "completed", "content": [whole]},
        },
    ]


def test_a_refusal_is_an_item_with_a_part() -> None:
    place = {"item_id": "msg_0", "output_index": 0, "content_index": 0}

    _, *events, done = write(BlockStart(0, 0, Refusal("")), Delta(0, 0, "No."), BlockStop(0, 0))

    assert events == [
        {"type": "response.content_part.added", **place, "part": {"type": "refusal", "refusal": ""}},
        {"type": "response.refusal.delta", **place, "delta": "No."},
        {"type": "response.refusal.done", **place, "refusal": "No."},
        {"type": "response.content_part.done", **place, "part": {"type": "refusal", "refusal": "No."}},
    ]
    assert done["item"]["content"] == [{"type": "refusal", "refusal": "No."}]


def test_a_thought_is_an_item_with_a_summary_and_its_seal_comes_last() -> None:
    place = {"item_id": "rs_0", "output_index": 0, "summary_index": 0}
    part = {"type": "summary_text", "text": "hm"}

    assert write(
        BlockStart(0, 0, Reasoning()),
        Delta(0, 0, "hm"),
        SealSet(0, 0, Seal("anthropic@up/m", "signature", "c2ln")),
        BlockStop(0, 0),
    ) == [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {"type": "reasoning", "id": "rs_0", "summary": []},
        },
        {"type": "response.reasoning_summary_part.added", **place, "part": {"type": "summary_text", "text": ""}},
        {"type": "response.reasoning_summary_text.delta", **place, "delta": "hm"},
        {"type": "response.reasoning_summary_text.done", **place, "text": "hm"},
        {"type": "response.reasoning_summary_part.done", **place, "part": part},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {
                "type": "reasoning",
                "id": "rs_0",
                "summary": [part],
                "encrypted_content": "gw1.s.anthropic@up/m..c2ln",
            },
        },
    ]


def test_a_thought_that_is_not_shown_has_no_summary() -> None:
    events = write(
        BlockStart(0, 0, Reasoning()), SealSet(0, 0, Seal("gemini@up/m", "signature", "c2ln")), BlockStop(0, 0)
    )

    assert [event["type"] for event in events] == ["response.output_item.added", "response.output_item.done"]
    assert events[1]["item"]["encrypted_content"] == "gw1.s.gemini@up/m..c2ln"


def test_a_call_is_an_item_with_arguments() -> None:
    item = {
        "id": "fc_0",
        "type": "function_call",
        "status": "in_progress",
        "arguments": "",
        "call_id": "c",
        "name": "f",
        "namespace": "crm",
    }
    place = {"item_id": "fc_0", "output_index": 0}
    block = ToolCall(id="c", name="f", arguments="", namespace="crm")

    assert write(BlockStart(0, 0, block), Delta(0, 0, "{}"), BlockStop(0, 0)) == [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.function_call_arguments.delta", **place, "delta": "{}"},
        {"type": "response.function_call_arguments.done", **place, "name": "f", "arguments": "{}"},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": item | {"status": "completed", "arguments": "{}"},
        },
    ]


def test_a_call_of_a_custom_tool_is_an_item_with_its_input() -> None:
    place = {"item_id": "ctc_0", "output_index": 0}
    block = ToolCall(id="c", name="f", arguments="", is_custom=True)

    _, *events, done = write(BlockStart(0, 0, block), Delta(0, 0, "free"), BlockStop(0, 0))

    assert events == [
        {"type": "response.custom_tool_call_input.delta", **place, "delta": "free"},
        {"type": "response.custom_tool_call_input.done", **place, "input": "free"},
    ]
    assert (done["item"]["type"], done["item"]["input"]) == ("custom_tool_call", "free")


def test_items_may_overlap() -> None:
    events = write(
        BlockStart(0, 3, ToolCall(id="c", name="f", arguments="")),
        BlockStart(0, 1, ToolCall(id="d", name="f", arguments="")),
        Delta(0, 1, "{}"),
        Delta(0, 3, "{}"),
        BlockStop(0, 1),
        BlockStop(0, 3),
    )

    assert [event["output_index"] for event in events] == [0, 1, 1, 0, 1, 1, 0, 0]


def test_an_item_of_the_vendors_own_stands_in_one_line() -> None:
    raw = Raw(b'{\r\n  "id": "ws_1",\n  "type": "web_search_call"\n}')

    events = write(BlockStart(0, 0, Opaque(NAME, "web_search_call", raw)), BlockStop(0, 0))

    assert [(event["type"], event["item"]["id"]) for event in events] == [
        ("response.output_item.added", "ws_1"),
        ("response.output_item.done", "ws_1"),
    ]


def test_what_the_caller_has_spread_over_lines_stands_in_one() -> None:
    asked = Request(model="asked", turns=[], echo={"tools": Raw(b'[\n  {"type": "x"}\r\n]')})

    created, *_ = SSEDecoder().feed(encode([START, *END], asked))

    assert msgspec.json.decode(created.data)["response"]["tools"] == [{"type": "x"}]


def test_a_picture_is_an_item_and_other_media_are_text() -> None:
    image = Media(kind="image", media_type="image/png", data="iVBO")
    page = Media(kind="document", url="https://a.org/b.pdf")

    events = write(BlockStart(0, 0, image), BlockStop(0, 0), BlockStart(0, 1, page), BlockStop(0, 1))

    assert events[0]["item"] == {
        "id": "ig_0",
        "type": "image_generation_call",
        "status": "in_progress",
        "result": None,
    }
    assert (events[1]["item"]["status"], events[1]["item"]["result"]) == ("completed", "iVBO")
    assert [event["delta"] for event in events if "delta" in event] == ["https://a.org/b.pdf"]


def test_blocks_without_an_item_are_passed_over() -> None:
    assert (
        write(
            BlockStart(0, 0, ToolResult(call_id="c")),
            Delta(0, 0, "x"),
            SealSet(0, 0, Seal("gemini", "signature", "c2ln")),
            CitationAdded(0, 0, Citation("u")),
            BlockStop(0, 0),
        )
        == []
    )


def test_a_block_may_begin_with_what_others_say_later() -> None:
    events = write(BlockStart(0, 0, Text("Hi", citations=(Citation("u", "t"),))), BlockStop(0, 0))

    assert [event["delta"] for event in events if "delta" in event] == ["Hi"]
    assert events[-1]["item"]["content"][0]["annotations"] == [
        {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 2}
    ]


def test_citations_are_added_to_the_text_so_far() -> None:
    link = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 9}

    events = write(
        BlockStart(0, 0, Text("")),
        Delta(0, 0, "Hello "),
        CitationAdded(0, 0, Citation("u", "t")),
        CitationAdded(0, 0, Citation(title="no URL")),
        Delta(0, 0, "you"),
        CitationAdded(0, 0, Citation("u", "t", "", 0, 9, NAME, Raw(msgspec.json.encode(link)))),
        BlockStop(0, 0),
    )

    place = {"item_id": "msg_0", "output_index": 0, "content_index": 0}
    first = link | {"end_index": 6}
    assert [event for event in events if event["type"] == "response.output_text.annotation.added"] == [
        {"type": "response.output_text.annotation.added", **place, "annotation_index": 0, "annotation": first},
        {"type": "response.output_text.annotation.added", **place, "annotation_index": 1, "annotation": link},
    ]
    assert events[-1]["item"]["content"][0]["annotations"] == [first, link]


# --- Probabilities

TOKENS = (TokenLogprob("a", -1.0, (97,)), TokenLogprob("b", -2.0, (98,)))
WRITTEN = [
    {"token": "a", "bytes": [97], "logprob": -1.0, "top_logprobs": []},
    {"token": "b", "bytes": [98], "logprob": -2.0, "top_logprobs": []},
]


def test_probabilities_come_with_the_text_that_is_open() -> None:
    events = write(
        BlockStart(0, 0, Text("")),
        Delta(0, 0, "a"),
        LogprobsAdded(0, TOKENS[:1]),
        Delta(0, 0, "b"),
        LogprobsAdded(0, TOKENS[1:]),
        BlockStop(0, 0),
    )

    deltas = [(event["delta"], event["logprobs"]) for event in events if "delta" in event]
    assert deltas == [("a", []), ("", WRITTEN[:1]), ("b", []), ("", WRITTEN[1:])]
    assert events[-3]["logprobs"] == events[-1]["item"]["content"][0]["logprobs"] == WRITTEN


def test_probabilities_that_come_early_wait_for_their_text() -> None:
    events = write(LogprobsAdded(0, TOKENS), BlockStart(0, 0, Text("")), Delta(0, 0, "ab"), BlockStop(0, 0))

    assert [event["logprobs"] for event in events if "delta" in event] == [WRITTEN, []]


def test_probabilities_that_come_late_stand_in_the_answer_at_the_end() -> None:
    events = [START, BlockStart(0, 0, Text("")), Delta(0, 0, "ab"), BlockStop(0, 0), LogprobsAdded(0, TOKENS), *END]

    completed = parse(encode(events))[-1]["response"]

    assert completed["output"][0]["content"][0]["logprobs"] == WRITTEN


def test_probabilities_of_no_text_are_left_out() -> None:
    assert write(LogprobsAdded(0, TOKENS)) == []


# --- The end


@pytest.mark.parametrize(
    ("finish", "kind", "status"),
    [
        (Finish(0, "tool"), "response.completed", "completed"),
        (Finish(0, "length"), "response.incomplete", "incomplete"),
        (Finish(0, "pause"), "response.incomplete", "incomplete"),
        (Finish(0, "refusal"), "response.incomplete", "incomplete"),
    ],
)
def test_the_last_event_tells_why_the_answer_ended(finish: Finish, kind: str, status: str) -> None:
    last = parse(encode([START, finish, End()]))[-1]

    assert (last["type"], last["response"]["status"]) == (kind, status)


def test_an_answer_that_was_not_given_says_why_where_the_vendor_tells() -> None:
    events = parse(encode([START, Finish(0, "refusal", None, "This is about weapons."), End()]))

    assert [event["delta"] for event in events if "delta" in event] == ["This is about weapons."]
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "This is about weapons."}]


def test_a_failed_answer_has_the_items_so_far() -> None:
    events: list[hub.Event] = [
        START,
        BlockStart(0, 0, Text("")),
        Delta(0, 0, "One moment."),
        BlockStop(0, 0),
        BlockStart(0, 1, ToolCall(id="c", name="f", arguments="")),
        Delta(0, 1, '{"a'),
        UsageSeen(Usage(output_tokens=1)),
        Failed(UpstreamRefusal("slow down", status=429)),
    ]

    last = parse(encode(events))[-1]

    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "rate_limit_exceeded", "message": "slow down"}
    assert [(item["type"], item["status"]) for item in last["response"]["output"]] == [
        ("message", "completed"),
        ("function_call", "incomplete"),
    ]
    assert last["response"]["output"][1]["arguments"] == '{"a'
    assert last["response"]["usage"]["output_tokens"] == 1


def test_a_failure_before_anything_began_is_an_error() -> None:
    error = UpstreamCut("cut")

    assert encode([Failed(error)]) == OPENAI_RESPONSES.encode_stream_error(error, "req_1")


def test_a_sign_of_life_is_a_comment_but_never_before_the_first_event() -> None:
    encoder = OPENAI_RESPONSES.stream_encoder(ASKED, "req_1")

    assert encoder.feed(Ping()) == b""
    encoder.feed(START)
    assert encoder.feed(Ping()) == b": ping\n\n"


# --- Laws


@given(response=responses())
def test_streamed_equals_whole(response: hub.Response) -> None:
    assert decode(encode(hub.unfold(response))) == response


SEALED = st.builds(
    Reasoning, st.text(max_size=9), st.builds(Seal, st.just(NAME), st.just("encrypted"), st.text("aé", min_size=1))
)


@given(response=responses(SEALED))
def test_a_thought_keeps_its_seal_and_gets_the_id_of_its_item(response: hub.Response) -> None:
    [candidate] = decode(encode(hub.unfold(response))).candidates

    for block, sent in zip(candidate.blocks, response.candidates[0].blocks, strict=True):
        if isinstance(block, Reasoning) and block.seal is not None:
            assert block.seal.item.startswith("rs_")
            block = replace(block, seal=replace(block.seal, item=""))
        assert block == sent


def ask_sdk(wire: bytes) -> Any:
    """Return the answer as the official accumulator sees it at the end of the stream."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=wire, headers={"content-type": "text/event-stream"})

    with (
        httpx2.Client(transport=httpx2.MockTransport(answer), trust_env=False, verify=False) as http,
        openai.OpenAI(api_key="k", base_url="http://mock/v1", http_client=http, max_retries=0) as client,
        client.responses.stream(model="asked", input="Hi") as stream,
    ):
        return [*stream][-1]


@given(response=responses())
def test_the_official_accumulator_takes_every_stream(response: hub.Response) -> None:
    [candidate] = response.candidates
    blocks = [
        replace(block, id=f"call_{index}")
        if isinstance(block, ToolCall)
        else Opaque(NAME, "web_search_call", Raw(b'{"id":"ws_%d","type":"web_search_call"}' % index))
        if isinstance(block, Opaque)
        else block
        for index, block in enumerate(candidate.blocks)
    ]
    unique = replace(response, candidates=(replace(candidate, blocks=tuple(blocks)),))

    last = ask_sdk(encode(hub.unfold(unique)))

    assert last.type in ("response.completed", "response.incomplete")
    assert len(last.response.output) == len(blocks)
    assert last.response.output_text == "".join(block.text for block in blocks if isinstance(block, Text))


@pytest.mark.parametrize(
    ("case", "tokens"), [("tools", 2701), ("incomplete", 47), ("parallel-tools", 470), ("media", 1959)]
)
def test_the_official_accumulator_takes_what_was_recorded(case: str, tokens: int) -> None:
    response = OPENAI_RESPONSES.decode_response((RECORDINGS / case / "response.json").read_bytes())

    last = ask_sdk(encode(hub.unfold(response)))

    assert last.response.usage.total_tokens == tokens


def test_one_long_block_is_written_and_read_in_linear_time() -> None:
    pieces = ["x" * 16_384] * 384
    events: list[hub.Event] = [START, BlockStart(0, 0, Text("")), *(Delta(0, 0, piece) for piece in pieces)]

    began = time.process_time()
    [candidate] = decode(encode([*events, BlockStop(0, 0), *END])).candidates

    assert time.process_time() - began < 1
    assert candidate.blocks == (Text("x" * 16_384 * 384),)
