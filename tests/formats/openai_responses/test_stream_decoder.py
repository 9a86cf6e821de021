"""The machine that reads the stream of an upstream."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd import hub
from aiproxyd.errors import UpstreamCut, UpstreamGarbage, UpstreamKeyRefused, UpstreamRefusal
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
    Opaque,
    Ping,
    Reasoning,
    Refusal,
    Seal,
    SealSet,
    Start,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
    UsageSeen,
)
from aiproxyd.sse import SSEDecoder, SSEvent

NAME = "openai-responses"
RECORDINGS = Path(__file__).parents[2] / "recordings" / NAME
WHOLE = ["tools", "incomplete", "reasoning", "parallel-tools", "refusal", "structured", "media"]
CREATED: dict[str, Any] = {
    "type": "response.created",
    "response": {"id": "resp_1", "model": "gpt", "created_at": 7.0, "service_tier": "default"},
}
START = Start(id="resp_1", model="gpt", created=7, service_tier="default")
COMPLETED: dict[str, Any] = {"type": "response.completed", "response": {"status": "completed"}}
END = [Finish(0, "end"), End()]
MESSAGE: dict[str, Any] = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}}


def feed(*events: dict[str, Any]) -> list[hub.Event]:
    """Return what *events* mean between a start and an end, once it is sure that their order is legal."""
    decoder = OPENAI_RESPONSES.stream_decoder()
    fed = [out for event in events for out in decoder.feed(SSEvent(b"", msgspec.json.encode(event)))]
    fed += decoder.feed_eof()
    folder = hub.Folder()
    for event in fed:
        folder.feed(event)
    return fed


def between(*events: dict[str, Any]) -> list[hub.Event]:
    fed = feed(CREATED, *events, COMPLETED)
    assert fed[0] == START
    assert fed[-2:] == END
    return fed[1:-2]


def delta(text: object, **place: object) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text, **place}


def item_added(index: int = 0, /, **item: object) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def item_done(index: int = 0, /, **item: object) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def test_an_empty_answer_begins_and_ends() -> None:
    assert feed(CREATED, {"type": "response.in_progress", "response": {}}, COMPLETED) == [START, *END]


def test_text_comes_in_pieces() -> None:
    part = {
        "type": "response.content_part.added",
        "output_index": 0,
        "content_index": 0,
        "part": {"type": "output_text"},
    }
    done = {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hello"}
    part_done = {**part, "type": "response.content_part.done", "part": {"type": "output_text", "text": "Hello"}}
    item = item_done(type="message", content=[{"type": "output_text", "text": "Hello"}])

    assert between(MESSAGE, part, delta("Hel"), delta(""), delta("lo"), done, part_done, item) == [
        BlockStart(0, 0, Text("")),
        Delta(0, 0, "Hel"),
        Delta(0, 0, "lo"),
        BlockStop(0, 0),
    ]


def test_what_no_piece_came_for_is_taken_from_what_ends_it() -> None:
    done = {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hello"}
    part = {
        "type": "response.content_part.added",
        "output_index": 0,
        "content_index": 0,
        "part": {"type": "output_text"},
    }
    part_done = {**part, "type": "response.content_part.done", "part": {"type": "output_text", "text": "Hello"}}
    item = item_done(type="message", content=[{"type": "output_text", "text": "Hello"}])
    said = [BlockStart(0, 0, Text("")), Delta(0, 0, "Hello"), BlockStop(0, 0)]

    assert between(MESSAGE, part, done) == said
    assert between(MESSAGE, part, part_done) == said
    assert between(MESSAGE, part, item) == said
    assert between(MESSAGE, item) == said
    assert between(item) == said
    assert feed(CREATED, {"type": "response.completed", "response": {"output": [item["item"]]}})[1:-2] == said


def test_a_message_may_have_several_parts() -> None:
    item = item_done(
        type="message",
        content=[{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}, {"type": "output_audio"}],
    )

    assert feed(CREATED, delta("a"), item, COMPLETED)[1:-2] == [
        BlockStart(0, 0, Text("")),
        Delta(0, 0, "a"),
        BlockStop(0, 0),
        BlockStart(0, 1, Refusal("")),
        Delta(0, 1, "b"),
        BlockStop(0, 1),
    ]


def test_a_refusal_comes_in_pieces_and_is_why_the_answer_ended() -> None:
    place = {"output_index": 0, "content_index": 0}
    part = {"type": "response.content_part.added", **place, "part": {"type": "refusal", "refusal": ""}}
    piece = {"type": "response.refusal.delta", **place, "delta": "No."}
    done = {"type": "response.refusal.done", **place, "refusal": "No."}
    said = [BlockStart(0, 0, Refusal("")), Delta(0, 0, "No."), BlockStop(0, 0), Finish(0, "refusal"), End()]

    assert feed(CREATED, MESSAGE, part, piece, done, COMPLETED)[1:] == said
    assert feed(CREATED, MESSAGE, part, done, COMPLETED)[1:] == said


def test_citations_are_told_once() -> None:
    link = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    added = {
        "type": "response.output_text.annotation.added",
        "output_index": 0,
        "content_index": 0,
        "annotation": link,
    }
    item = item_done(type="message", content=[{"type": "output_text", "text": "a", "annotations": [link]}])
    citation = Citation("u", "t", "", 0, 1, NAME, Raw(msgspec.json.encode(link)))
    said = [BlockStart(0, 0, Text("")), Delta(0, 0, "a"), CitationAdded(0, 0, citation), BlockStop(0, 0)]

    assert between(delta("a"), added, item) == said
    assert between(delta("a"), item) == said
    assert between(added, delta("a"), {**added, "annotation": 7}) == [said[0], said[1], said[3]]


def test_a_citation_of_what_is_no_text_is_passed_over() -> None:
    piece = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "No."}
    added = {"type": "response.output_text.annotation.added", "annotation": {"type": "url_citation", "url": "u"}}

    assert not any(isinstance(event, CitationAdded) for event in feed(CREATED, piece, added, COMPLETED))


def test_probabilities_come_with_their_pieces_or_at_the_end() -> None:
    logprobs = [{"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}]
    added = LogprobsAdded(0, (TokenLogprob("a", -1.0, (97,)),))
    output = [{"type": "message", "content": [{"type": "output_text", "text": "a", "logprobs": logprobs}]}]
    completed = {"type": "response.completed", "response": {"output": output}}

    assert feed(CREATED, delta("a", logprobs=logprobs), completed)[2:-2] == [Delta(0, 0, "a"), added, BlockStop(0, 0)]
    assert feed(CREATED, delta("a", logprobs=[7]), completed)[2:-2] == [Delta(0, 0, "a"), BlockStop(0, 0), added]


# --- Thoughts


def summary(text: str, index: int = 0, kind: str = "delta") -> dict[str, Any]:
    field = "delta" if kind == "delta" else "text"
    event_type = f"response.reasoning_summary_text.{kind}"
    return {"type": event_type, "output_index": 0, "summary_index": index, field: text}


def content(text: str, index: int = 0, kind: str = "delta") -> dict[str, Any]:
    field = "delta" if kind == "delta" else "text"
    return {"type": f"response.reasoning_text.{kind}", "output_index": 0, "content_index": index, field: text}


def test_several_summaries_are_one_thought_whose_seal_is_only_known_at_its_end() -> None:
    done = item_done(
        type="reasoning",
        id="rs_1",
        summary=[{"type": "summary_text", "text": "AB"}, {"type": "summary_text", "text": "C"}],
        encrypted_content="gAAAxyz",
    )
    added = item_added(type="reasoning", id="rs_1", encrypted_content="gAAA")

    assert between(
        added, summary("A"), summary("B"), summary("AB", kind="done"), summary("C", 1), summary("C", 1, "done"), done
    ) == [
        BlockStart(0, 0, Reasoning()),
        Delta(0, 0, "A"),
        Delta(0, 0, "B"),
        Delta(0, 0, "\n\nC"),
        SealSet(0, 0, Seal(NAME, "encrypted", "gAAAxyz", "rs_1")),
        BlockStop(0, 0),
    ]


def test_a_summary_of_which_no_piece_came_is_told_whole() -> None:
    assert between(summary("A", kind="done"), summary("", 1, "done"), summary("B", 2, "done")) == [
        BlockStart(0, 0, Reasoning()),
        Delta(0, 0, "A"),
        Delta(0, 0, "\n\nB"),
        BlockStop(0, 0),
    ]


def test_a_thought_as_it_is_is_told_and_not_its_summary_again() -> None:
    done = item_done(type="reasoning", id="rs_1", summary=[], content=[{"type": "reasoning_text", "text": "hm"}])

    assert between(content("h"), content("m"), summary("Thinking"), content("hm", kind="done"), done) == [
        BlockStart(0, 0, Reasoning()),
        Delta(0, 0, "h"),
        Delta(0, 0, "m"),
        SealSet(0, 0, Seal(NAME, "plain", "", "rs_1")),
        BlockStop(0, 0),
    ]


def test_a_thought_that_is_not_shown_is_a_seal() -> None:
    done = item_done(type="reasoning", id="rs_1", summary=[], encrypted_content="gAAA")

    said = [
        BlockStart(0, 0, Reasoning()),
        SealSet(0, 0, Seal(NAME, "encrypted", "gAAA", "rs_1")),
        BlockStop(0, 0),
    ]
    assert between(item_added(type="reasoning"), done) == said
    assert between(done) == said


# --- Calls

CALL = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f"}
CUSTOM = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "f"}
BEGUN = BlockStart(0, 0, ToolCall(id="c", name="f", arguments=""))


def arguments(text: object, index: int = 0) -> dict[str, Any]:
    return {"type": "response.function_call_arguments.delta", "output_index": index, "delta": text}


def test_calls_may_overlap() -> None:
    assert between(
        item_added(0, **CALL, arguments=""),
        item_added(1, **{**CALL, "call_id": "d"}, namespace="crm"),
        arguments('{"a"', 0),
        arguments("{}", 1),
        arguments(":1}", 0),
        item_done(1, **{**CALL, "call_id": "d"}, arguments="{}"),
        item_done(0, **CALL, arguments='{"a":1}'),
    ) == [
        BEGUN,
        BlockStart(0, 1, ToolCall(id="d", name="f", arguments="", namespace="crm")),
        Delta(0, 0, '{"a"'),
        Delta(0, 1, "{}"),
        Delta(0, 0, ":1}"),
        BlockStop(0, 1),
        BlockStop(0, 0),
    ]


@pytest.mark.parametrize(
    "events",
    [
        [],
        [arguments("")],
        [arguments(7)],
        [arguments(" \n")],
        [{"type": "response.function_call_arguments.done", "output_index": 0, "arguments": ""}],
        [{"type": "response.function_call_arguments.done", "output_index": 0, "arguments": " "}],
        [item_done(0, **CALL, arguments="")],
        [arguments(" "), item_done(0, **CALL, arguments=" ")],
    ],
)
def test_a_call_without_arguments_has_an_empty_object(events: list[dict[str, Any]]) -> None:
    assert between(item_added(**CALL), *events) == [BEGUN, Delta(0, 0, "{}"), BlockStop(0, 0)]


def test_arguments_of_which_no_piece_came_are_told_whole() -> None:
    done = {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": '{"a":1}'}
    item = item_done(**CALL, arguments='{"a":1}')
    said = [BEGUN, Delta(0, 0, '{"a":1}'), BlockStop(0, 0)]

    assert between(item_added(**CALL), done, item) == said
    assert between(item_added(**CALL), item) == said
    assert between(item) == said


def test_a_custom_tool_is_called_with_free_text() -> None:
    piece = {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": " "}
    done = {"type": "response.custom_tool_call_input.done", "output_index": 0, "input": " x"}
    begun = BlockStart(0, 0, ToolCall(id="c", name="f", arguments="", is_custom=True))

    assert between(item_added(**CUSTOM), piece, done) == [begun, Delta(0, 0, " "), BlockStop(0, 0)]
    assert between(item_added(**CUSTOM), done) == [begun, Delta(0, 0, " x"), BlockStop(0, 0)]
    assert between(item_done(**CUSTOM, input="")) == [begun, BlockStop(0, 0)]


def test_a_call_begins_as_soon_as_its_name_is_known() -> None:
    assert between(
        item_added(type="function_call", call_id="c"), arguments("{}"), item_done(**CALL, arguments="{}")
    ) == [
        BEGUN,
        Delta(0, 0, "{}"),
        BlockStop(0, 0),
    ]


# --- Other items


def test_an_item_of_the_vendors_own_is_kept_whole() -> None:
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed"}

    assert between(
        item_added(type="web_search_call", id="ws_1"),
        {"type": "response.web_search_call.searching", "output_index": 0},
        item_done(**item),
    ) == [BlockStart(0, 0, Opaque(NAME, "web_search_call", Raw(msgspec.json.encode(item)))), BlockStop(0, 0)]


def test_items_that_all_have_the_same_index_are_told_apart_by_their_beginnings() -> None:
    assert between(item_added(**CALL), item_added(**{**CALL, "call_id": "d"}), arguments('{"a":1}')) == [
        BEGUN,
        Delta(0, 0, "{}"),
        BlockStop(0, 0),
        BlockStart(0, 1, ToolCall(id="d", name="f", arguments="")),
        Delta(0, 1, '{"a":1}'),
        BlockStop(0, 1),
    ]


def test_what_comes_behind_the_end_of_an_item_is_passed_over() -> None:
    item = item_done(type="message", content=[{"type": "output_text", "text": "a"}])
    part = {"type": "response.content_part.added", "content_index": 1, "part": {"type": "output_text"}}
    late = [
        delta("b"),
        delta("b", content_index=1),
        part,
        {"type": "response.content_part.done", "part": {"type": "output_text", "text": "b"}},
        summary("b"),
        item,
    ]

    assert between(item, *late) == [BlockStart(0, 0, Text("")), Delta(0, 0, "a"), BlockStop(0, 0)]


def test_what_is_not_understood_is_passed_over() -> None:
    assert (
        between(
            {"type": "response.new"},
            {"type": 7},
            {"type": "response.output_text.delta", "output_index": "0", "delta": "a"},
            {"type": "response.content_part.added", "part": {"type": "new"}},
            {"type": "response.content_part.done", "part": {"type": "new"}},
            {"type": "response.output_text.done", "text": "a", "output_index": 4},
            {"type": "response.output_item.added", "output_index": 1, "item": 7},
        )
        == []
    )


def test_a_sign_of_life_is_passed_on() -> None:
    assert feed({"type": "keepalive", "sequence_number": 1}, CREATED, COMPLETED) == [Ping(), START, *END]
    assert feed(CREATED, {"type": "ping"}, {"type": "ping"}, COMPLETED) == [START, Ping(), Ping(), *END]


def test_a_stream_may_begin_without_its_first_event() -> None:
    assert feed(delta("a"), COMPLETED) == [
        Start(),
        BlockStart(0, 0, Text("")),
        Delta(0, 0, "a"),
        BlockStop(0, 0),
        *END,
    ]


# --- The end


@pytest.mark.parametrize(
    ("event", "finish"),
    [
        ({"type": "response.completed"}, Finish(0, "end")),
        ({"type": "response.incomplete", "response": {}}, Finish(0, "length")),
        (
            {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}},
            Finish(0, "refusal"),
        ),
        (
            {
                "type": "response.incomplete",
                "response": {"status": "incomplete", "incomplete_details": {"reason": "steered"}},
            },
            Finish(0, "end", None, "steered"),
        ),
    ],
)
def test_a_stream_ends_for_a_reason(event: dict[str, Any], finish: Finish) -> None:
    assert feed(CREATED, event) == [START, finish, End()]


def test_usage_is_told_before_the_end() -> None:
    completed = {"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 2}}}

    assert feed(CREATED, completed) == [START, UsageSeen(Usage(input_tokens=1, output_tokens=2)), *END]


def test_nothing_is_told_behind_the_end() -> None:
    assert feed(CREATED, COMPLETED, delta("a"), COMPLETED) == [START, *END]


@pytest.mark.parametrize(
    ("event", "status", "message"),
    [
        (
            {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "slow"}}},
            429,
            "slow",
        ),
        ({"type": "response.failed"}, 502, "the upstream reported an error"),
        ({"type": "response.completed", "response": {"error": {"message": "no"}}}, 502, "no"),
        ({"type": "error", "code": 503, "message": "busy"}, 503, "busy"),
        ({"error": {"message": "no", "code": 400}}, 400, "no"),
    ],
)
def test_a_failure_ends_the_stream(event: dict[str, Any], status: int, message: str) -> None:
    with pytest.raises(UpstreamRefusal, match=message) as caught:
        hub.fold(feed(CREATED, delta("a"), event, COMPLETED))

    assert caught.value.status == status


@pytest.mark.parametrize(
    "events",
    [
        [],
        [CREATED],
        [CREATED, {"type": "response.in_progress", "response": {}}],
        [CREATED, MESSAGE],
    ],
)
@pytest.mark.parametrize(
    "failure",
    [
        {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "slow"}}},
        {"type": "error", "code": "rate_limit_exceeded", "message": "slow"},
    ],
)
def test_what_fails_before_it_says_anything_never_started(
    events: list[dict[str, Any]], failure: dict[str, Any]
) -> None:
    [failed] = feed(*events, failure)

    assert isinstance(failed, Failed)
    assert failed.error.status == 429


def test_a_stream_that_is_cut_before_it_says_anything_never_started() -> None:
    [failed] = feed(CREATED)

    assert isinstance(failed, Failed)
    assert isinstance(failed.error, UpstreamCut)


def test_a_refused_key_is_not_quoted() -> None:
    with pytest.raises(UpstreamKeyRefused):
        hub.fold(feed({"type": "error", "code": "invalid_api_key", "message": "sk-up***am"}))


def test_a_stream_that_just_ends_was_cut() -> None:
    *_, last = feed(CREATED, delta("a"))

    assert isinstance(last, Failed)
    assert isinstance(last.error, UpstreamCut)
    assert last.error.message == "the upstream's stream ended before it was complete"


def test_garbage_ends_the_stream_and_the_end_mark_of_chat_completions_does_not() -> None:
    decoder = OPENAI_RESPONSES.stream_decoder()

    assert decoder.feed(SSEvent(b"", b"[DONE]")) == []
    [failed] = decoder.feed(SSEvent(b"", b"<html>"))
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, UpstreamGarbage)
    assert decoder.is_over
    assert decoder.feed_eof() == []


@pytest.mark.parametrize("case", WHOLE)
def test_a_recorded_stream_says_the_same_as_the_whole_answer(case: str) -> None:
    decoder = OPENAI_RESPONSES.stream_decoder()
    stream = SSEDecoder().feed((RECORDINGS / case / "stream.sse").read_bytes())

    streamed = hub.fold(out for event in stream for out in decoder.feed(event))

    # The API spreads a whole answer over lines, and the raw parts of it as well.
    body = msgspec.json.format((RECORDINGS / case / "response.json").read_bytes(), indent=-1)
    whole = OPENAI_RESPONSES.decode_response(body)
    assert replace(streamed, service_tier="") == replace(whole, service_tier="")


def test_a_recorded_thought_has_all_of_its_summaries_and_its_whole_seal() -> None:
    whole = OPENAI_RESPONSES.decode_response((RECORDINGS / "reasoning" / "response.json").read_bytes())

    assert whole.candidates[0].blocks == (
        Reasoning(
            "**Recalling the capital**\n\nThe user asks about Norway.\n\n**Answering**",
            Seal(NAME, "encrypted", "gAAAAABpQ7t1Zk0xV3c=", "rs_0c41"),
        ),
        Text("The capital of Norway is Oslo."),
    )


# --- Any stream

TYPES = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.output_item.done",
    "response.content_part.added",
    "response.content_part.done",
    "response.output_text.delta",
    "response.output_text.done",
    "response.output_text.annotation.added",
    "response.refusal.delta",
    "response.refusal.done",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.custom_tool_call_input.delta",
    "response.custom_tool_call_input.done",
    "keepalive",
]
TEXT = st.text(max_size=4) | st.just(None) | st.integers(0, 1)
INDEX = st.integers(0, 2) | st.just(None) | st.just("x")
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["output_text", "refusal", "new"])},
    optional={"text": TEXT, "refusal": TEXT, "annotations": st.lists(st.just({"url": "u"}), max_size=1) | TEXT},
)
ITEM = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "reasoning", "function_call", "custom_tool_call", "web_search_call", 7])},
    optional={
        "id": TEXT,
        "call_id": TEXT,
        "name": st.sampled_from(["f", "", None]),
        "arguments": TEXT,
        "input": TEXT,
        "content": st.lists(PART, max_size=2) | TEXT,
        "summary": st.lists(st.just({"text": "s"}), max_size=2) | TEXT,
        "encrypted_content": TEXT,
    },
)
EVENT = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES)},
    optional={
        "output_index": INDEX,
        "content_index": INDEX,
        "summary_index": INDEX,
        "delta": TEXT,
        "text": TEXT,
        "refusal": TEXT,
        "arguments": TEXT,
        "input": TEXT,
        "logprobs": st.just([{"token": "a", "logprob": -1}]) | TEXT,
        "annotation": st.just({"url": "u"}) | TEXT,
        "part": PART | TEXT,
        "item": ITEM | TEXT,
    },
)
LAST = st.fixed_dictionaries(
    {"type": st.sampled_from(["response.completed", "response.incomplete", "response.failed", "error"])},
    optional={
        "response": TEXT
        | st.fixed_dictionaries(
            {}, optional={"output": st.lists(ITEM, max_size=2) | TEXT, "error": TEXT, "usage": TEXT}
        )
    },
)


@given(events=st.lists(EVENT, max_size=12), last=st.lists(LAST, max_size=1), rest=st.lists(EVENT, max_size=2))
def test_any_stream_is_told_in_a_legal_order_and_ends_once(
    events: list[dict[str, Any]], last: list[dict[str, Any]], rest: list[dict[str, Any]]
) -> None:
    fed = feed(*events, *last, *rest)

    assert [isinstance(event, End | Failed) for event in fed].count(True) == 1
    assert isinstance(fed[-1], End | Failed)


@given(data=st.lists(st.binary(max_size=20) | EVENT.map(msgspec.json.encode).map(lambda data: data[:-3]), max_size=3))
def test_any_bytes_are_told_in_a_legal_order(data: list[bytes]) -> None:
    decoder, folder = OPENAI_RESPONSES.stream_decoder(), hub.Folder()

    for event in [out for piece in data for out in decoder.feed(SSEvent(b"x", piece))] + decoder.feed_eof():
        folder.feed(event)

    assert decoder.is_over
