import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd import hub
from aiproxyd.errors import UpstreamCut, UpstreamGarbage, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats import OPENAI_CHAT
from aiproxyd.sse import SSEDecoder, SSEvent
from tests.formats.openai_chat.strategies import responses

RECORDINGS = Path(__file__).parents[2] / "recordings" / "openai-chat"
ASKED = hub.Request(model="asked", turns=[], stream=True, wants_usage=True)
START = hub.Start(id="c", model="m", created=7)
CUT = "the upstream's stream ended before it was complete"


def decode(*payloads: object, candidates: int = 1) -> list[hub.Event]:
    """Decode chunks, as objects or as the bytes that stand in their place, up to the end of the connection."""
    decoder = OPENAI_CHAT.stream_decoder(candidates)
    events: list[hub.Event] = []
    for payload in payloads:
        data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        events += decoder.feed(SSEvent(b"", data))
    return events + decoder.feed_eof()


def chunk(delta: object = None, finish: str | None = None, index: int = 0, **more: object) -> dict[str, Any]:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish, **more}
    return {"id": "c", "model": "m", "created": 7, "choices": [choice]}


def blocks_of(*deltas: object, finish: str = "stop") -> tuple[hub.Block, ...]:
    """Return the blocks that *deltas* make."""
    return hub.fold(decode(*map(chunk, deltas), chunk({}, finish))).candidates[0].blocks


def tool(arguments: str = "", index: int | None = 0, **more: object) -> dict[str, Any]:
    piece: dict[str, Any] = {"function": {"arguments": arguments}} | more
    return {"tool_calls": [piece if index is None else {"index": index} | piece]}


def begin(call_id: str | None, name: str, arguments: str = "", index: int | None = 0) -> dict[str, Any]:
    return tool(index=index, id=call_id, function={"name": name, "arguments": arguments})


def call(call_id: str, name: str, arguments: str) -> hub.ToolCall:
    return hub.ToolCall(id=call_id, name=name, arguments=arguments)


def decode_stream(stream: bytes, chunks: list[bytes] | None = None) -> list[hub.Event]:
    sse, decoder = SSEDecoder(), OPENAI_CHAT.stream_decoder(3)
    events = [event for piece in chunks or [stream] for event in sse.feed(piece)] + sse.feed_eof()
    return [out for event in events for out in decoder.feed(event)] + decoder.feed_eof()


def folded(events: list[hub.Event]) -> hub.Folder:
    """Fold *events*; fails where their order is illegal, or where they do not end just once."""
    folder = hub.Folder()
    for event in events:
        folder.feed(event)
    assert [type(event) for event in events if isinstance(event, hub.End | hub.Failed)] == [type(events[-1])]
    return folder


def test_a_text_is_read_as_it_comes() -> None:
    assert decode(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hé"}),
        chunk({"content": "!"}, "stop"),
        b"[DONE]",
    ) == [
        START,
        hub.BlockStart(0, 0, hub.Text("")),
        hub.Delta(0, 0, "Hé"),
        hub.Delta(0, 0, "!"),
        hub.BlockStop(0, 0),
        hub.Finish(0, "end"),
        hub.End(),
    ]


@pytest.mark.parametrize("choice", [{"finish_reason": "stop"}, {"index": 0, "delta": None, "finish_reason": "stop"}])
def test_the_last_chunk_may_lack_a_delta(choice: dict[str, Any]) -> None:
    response = hub.fold(decode(chunk({"content": "a"}), chunk() | {"choices": [choice]}))

    assert response.candidates == (hub.Candidate(blocks=(hub.Text("a"),)),)


def test_one_chunk_may_hold_everything() -> None:
    delta = {
        "reasoning_content": "hm",
        "content": "a",
        "tool_calls": [
            {"index": 0, "id": "x", "function": {"name": "f", "arguments": "{}"}},
            {"index": 1, "id": "y", "function": {"name": "g", "arguments": ""}},
        ],
    }
    logprobs = {"content": [{"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": []}]}
    all_of_it = chunk(delta, "tool_calls", logprobs=logprobs) | {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    response = hub.fold(decode(all_of_it | {"service_tier": "flex"}))

    assert response == hub.Response(
        id="c",
        model="m",
        created=7,
        candidates=(
            hub.Candidate(
                blocks=(hub.Reasoning("hm"), hub.Text("a"), call("x", "f", "{}"), call("y", "g", "{}")),
                stop="tool",
                logprobs=(hub.TokenLogprob("a", -1.0, (97,)),),
            ),
        ),
        usage=hub.Usage(input_tokens=3, output_tokens=2),
        service_tier="flex",
    )


def test_usage_may_come_in_every_chunk_behind_the_finish_or_never() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    seen = hub.UsageSeen(hub.Usage(input_tokens=3, output_tokens=1))

    def usages(*payloads: object) -> list[hub.Event]:
        return [event for event in decode(*payloads) if isinstance(event, hub.UsageSeen)]

    assert usages(chunk({"content": "a"}) | {"usage": usage}, chunk({}, "stop") | {"usage": usage}) == [seen]
    assert usages(chunk({}, "stop"), {"choices": [], "usage": usage}, b"[DONE]") == [seen]
    assert usages({"usage": usage}, chunk({}, "stop"), {"usage": {"prompt_tokens": 4}}) == [
        seen,
        hub.UsageSeen(hub.Usage(input_tokens=4)),
    ]
    assert usages(chunk({}, "stop")) == []


def test_azure_begins_with_what_its_filter_found() -> None:
    first = {"id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}

    events = decode(first, chunk({"content": "a"}, "stop"))

    assert events[:2] == [hub.Ping(), START]


def test_parallel_calls_may_mix_their_pieces() -> None:
    assert blocks_of(begin("x", "f"), begin("y", "g", index=1), tool('{"a":'), tool("{}", 1), tool("1}")) == (
        call("x", "f", '{"a":1}'),
        call("y", "g", "{}"),
    )


def test_calls_end_with_the_choice_or_where_their_index_is_taken() -> None:
    events = decode(chunk(begin("x", "f", "{}")), chunk(begin("y", "g", "{}")), chunk({}, "tool_calls"))

    assert events[1:] == [
        hub.BlockStart(0, 0, call("x", "f", "")),
        hub.Delta(0, 0, "{}"),
        hub.BlockStop(0, 0),
        hub.BlockStart(0, 1, call("y", "g", "")),
        hub.Delta(0, 1, "{}"),
        hub.BlockStop(0, 1),
        hub.Finish(0, "tool"),
        hub.End(),
    ]


@pytest.mark.parametrize("index", [0, None])
def test_a_new_id_begins_a_new_call_whatever_its_index(index: int | None) -> None:
    assert blocks_of(
        begin("x", "f", index=index),
        tool("{}", index),
        begin("y", "f", index=index),
        begin("y", "f", '{"b"', index=index),  # id and name once more
        begin("y", "f", ":2}", index=index),
        tool(" ", index, id="z"),  # another id without a name is noise
    ) == (call("x", "f", "{}"), call("y", "f", '{"b":2} '))


@pytest.mark.parametrize("index", [0, None])
def test_calls_with_the_same_id_begin_with_their_name_where_the_one_before_is_whole(index: int | None) -> None:
    first, second = call("x", "f", '{"a":1}'), call("x", "f", '{"b":2}')

    assert blocks_of(begin("x", "f", '{"a":1}', index), begin("x", "f", '{"b":2}', index)) == (first, second)
    assert blocks_of(
        begin("x", "f", "", index),
        tool('{"a"', index),
        tool(":1}", index),
        begin("x", "f", "", index),
        tool('{"b":2}', index),
    ) == (first, second)
    # A name with every piece, also with those that add nothing, or stand in the middle.
    assert blocks_of(begin("x", "f", '{"a"', index), begin("x", "f", ":1}", index), begin("x", "f", "", index)) == (
        first,
    )
    assert blocks_of(begin("x", "f", '{"a":"}', index), begin("x", "f", '{"}', index)) == (
        call("x", "f", '{"a":"}{"}'),
    )


def test_calls_without_ids_are_told_apart_by_their_names_and_arguments() -> None:
    blocks = blocks_of(
        begin(None, "f", "{}"), begin("", "g", "{"), begin("", "g", "}"), begin(None, "g", '{"second":1}')
    )

    calls = [block for block in blocks if isinstance(block, hub.ToolCall)]
    assert [(call.name, call.arguments) for call in calls] == [("f", "{}"), ("g", "{}"), ("g", '{"second":1}')]
    assert len({call.id for call in calls}) == 3
    assert all(re.fullmatch("call_[0-9a-f]{24}", call.id) for call in calls)


@pytest.mark.parametrize("pieces", [[], [""], [" ", "\n"], ["null"], [None]])
def test_a_call_without_arguments_has_an_empty_object(pieces: list[str]) -> None:
    assert blocks_of(begin("x", "f"), *map(tool, pieces)) == (call("x", "f", "{}"),)


def test_a_call_waits_for_its_name() -> None:
    assert blocks_of(tool('{"a"', id="x"), tool(":1}"), begin(None, "f")) == (call("x", "f", '{"a":1}'),)
    assert blocks_of(tool('{"a":1}', id="x")) == (call("x", "", '{"a":1}'),)
    assert blocks_of({"tool_calls": [{"id": "x"}]}) == (call("x", "", "{}"),)


def test_arguments_may_be_an_object() -> None:
    whole = tool(id="x", function={"name": "f", "arguments": {"a": [1.5]}})

    assert blocks_of(whole) == (call("x", "f", '{"a":[1.5]}'),)


def test_a_custom_call_takes_any_text_also_none() -> None:
    custom = {"index": 0, "id": "x", "type": "custom", "custom": {"name": "f", "input": ""}}

    assert blocks_of({"tool_calls": [custom]}, {"tool_calls": [{"index": 0, "custom": {"input": " "}}]}) == (
        hub.ToolCall(id="x", name="f", arguments=" ", is_custom=True),
    )
    assert blocks_of({"tool_calls": [custom]}) == (hub.ToolCall(id="x", name="f", arguments="", is_custom=True),)


def test_the_deprecated_field_holds_one_call() -> None:
    (block,) = blocks_of(
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
        finish="function_call",
    )

    assert isinstance(block, hub.ToolCall)
    assert (block.name, block.arguments) == ("f", "{}")


def test_a_call_keeps_googles_signature() -> None:
    signed = begin("x", "f", "{}")
    signed["tool_calls"][0]["extra_content"] = {"google": {"thought_signature": "c2ln"}}
    (block,) = blocks_of(signed)

    assert block == msgspec.structs.replace(call("x", "f", "{}"), seal=hub.Seal("openai-chat", "signature", "c2ln"))


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_are_blocks_in_either_spelling(field: str) -> None:
    assert blocks_of({field: "h"}, {field: "m"}, {"content": "a"}, {field: "again"}) == (
        hub.Reasoning("hm"),
        hub.Text("a"),
        hub.Reasoning("again"),
    )


def test_thoughts_that_come_in_both_spellings_are_read_once() -> None:
    assert blocks_of({"reasoning_content": "hm", "reasoning": "hm"}) == (hub.Reasoning("hm"),)


def test_a_signature_ends_its_thought() -> None:
    def thinking(text: str, signature: str = "") -> dict[str, Any]:
        return {"thinking_blocks": [{"type": "thinking", "thinking": text, "signature": signature}]}

    redacted = {"thinking_blocks": [{"type": "redacted_thinking", "data": "r"}]}

    assert blocks_of(
        {"reasoning_content": "a"} | thinking("a"),
        {"reasoning_content": "b"} | thinking("b"),
        thinking("", "s1"),
        redacted,
        thinking("whole", "s2"),
        {"reasoning_content": "open"},
        redacted,
        thinking("only here"),
        thinking("", "s3"),
    ) == (
        hub.Reasoning("ab", hub.Seal("openai-chat", "signature", "s1")),
        hub.Reasoning("", hub.Seal("openai-chat", "redacted", "r")),
        hub.Reasoning("whole", hub.Seal("openai-chat", "signature", "s2")),
        hub.Reasoning("open"),
        hub.Reasoning("", hub.Seal("openai-chat", "redacted", "r")),
        hub.Reasoning("only here", hub.Seal("openai-chat", "signature", "s3")),
    )


def test_a_native_refusal_is_a_block_and_a_stop() -> None:
    response = hub.fold(decode(chunk({"refusal": "I "}), chunk({"refusal": "can't"}), chunk({}, "stop")))

    assert response.candidates == (hub.Candidate(blocks=(hub.Refusal("I can't"),), stop="refusal"),)


def test_content_may_be_a_list() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]}
    reference = {"type": "reference", "reference_ids": [1]}

    assert blocks_of(
        {"content": [thinking, {"type": "text", "text": "a"}]},
        {"content": [{"type": "text", "text": ""}, {"type": "thinking", "thinking": []}, {"no": "type"}, 7]},
        {"content": [{"type": "text", "text": "b"}, reference]},
    ) == (
        hub.Reasoning("hm"),
        hub.Text("ab"),
        hub.Opaque("openai-chat", "reference", msgspec.Raw(b'{"type":"reference","reference_ids":[1]}')),
    )


def test_annotations_cite_the_open_text() -> None:
    source = {"url": "u", "title": "t", "start_index": 0, "end_index": 1}

    assert blocks_of({"content": "a"}, {"annotations": [{"type": "url_citation", "url_citation": source}, {}]}) == (
        hub.Text("a", citations=(hub.Citation(url="u", title="t", start=0, end=1),)),
    )


def test_empty_logprobs_are_none() -> None:
    events = decode(chunk({"content": "a"}, "stop", logprobs={"content": []}))

    assert not any(isinstance(event, hub.LogprobsAdded) for event in events)


def test_images_are_blocks() -> None:
    images = [{"image_url": {"url": "data:image/png;base64,AAAA"}}, {"image_url": {"url": "http://x"}}, {}]

    assert blocks_of({"content": "a"}, {"images": images}) == (
        hub.Text("a"),
        hub.Media(kind="image", media_type="image/png", data="AAAA"),
        hub.Media(kind="image", url="http://x"),
    )


@pytest.mark.parametrize(
    ("finish", "stop", "detail"),
    [
        ("stop", "end", ""),
        ("length", "length", ""),
        ("model_length", "length", ""),
        ("tool_calls", "tool", ""),
        ("function_call", "tool", ""),
        ("content_filter", "refusal", ""),
        ("abort", "end", "abort"),
    ],
)
def test_a_finish_reason_is_read_and_one_that_is_not_known_is_kept(finish: str, stop: hub.Stop, detail: str) -> None:
    assert hub.Finish(0, stop, detail=detail) in decode(chunk({"content": "a"}, finish))


def test_an_empty_finish_reason_is_none() -> None:
    events = decode(chunk({"content": "a"}, ""), chunk({"content": "b"}, ""), chunk({}, "stop"))

    assert [event for event in events if isinstance(event, hub.Finish)] == [hub.Finish(0, "end")]


def test_what_comes_behind_the_finish_of_its_choice_is_passed_over() -> None:
    events = decode(
        chunk({"content": "a"}, "stop"), chunk({"content": "b"}, "stop"), b"[DONE]", chunk({"content": "c"})
    )

    assert [event for event in events if isinstance(event, hub.Delta)] == [hub.Delta(0, 0, "a")]
    assert events[-1] == hub.End()


def test_choices_may_interleave() -> None:
    response = hub.fold(
        decode(
            chunk({"content": "a"}),
            chunk({"content": "b"}, index=1),
            chunk({"content": "A"}, "stop"),
            chunk({"content": "B"}, "length", 1),
            chunk({"content": "far"}, index=128),
            chunk({"content": "below"}, index=-1),
            candidates=2,
        )
    )

    assert response.candidates == (
        hub.Candidate(blocks=(hub.Text("aA"),)),
        hub.Candidate(blocks=(hub.Text("bB"),), stop="length"),
    )


def test_done_ends_what_was_said_and_not_finished() -> None:
    assert decode(chunk({"content": "a"}), b"[DONE]")[-3:] == [
        hub.BlockStop(0, 0),
        hub.Finish(0, "end"),
        hub.End(),
    ]
    assert decode(chunk(tool("{}", id="x")), b"[DONE]")[-3:] == [
        hub.BlockStop(0, 0),
        hub.Finish(0, "end"),
        hub.End(),
    ]
    one_of_two = decode(chunk({}, "stop"), chunk({"role": "assistant"}, index=1), b"[DONE]", candidates=3)
    assert one_of_two[1:] == [hub.Finish(0, "end"), hub.Finish(1, "end"), hub.End()]


@pytest.mark.parametrize(
    "payloads",
    [
        [],
        [b"[DONE]"],
        [chunk({"role": "assistant", "content": ""}), b"[DONE]"],
        [chunk({"content": "a"})],
        [chunk({"content": "a"}), chunk({"content": "b"}, "stop", 1)],
        [{"choices": []}, {"choices": [], "usage": {"prompt_tokens": 1}}],
    ],
)
def test_a_stream_that_just_ends_is_cut(payloads: list[object]) -> None:
    failed = decode(*payloads)[-1]

    assert isinstance(failed, hub.Failed)
    assert isinstance(failed.error, UpstreamCut)
    assert failed.error.message == CUT


def test_a_stream_is_not_complete_before_all_candidates_are() -> None:
    finished = chunk({"content": "a"}, "stop")

    assert decode(finished, candidates=1)[-1] == hub.End()
    assert isinstance(decode(finished, candidates=2)[-1], hub.Failed)
    assert decode(finished, b"[DONE]", candidates=2)[-1] == hub.End()


@pytest.mark.parametrize(
    ("name", "data", "status", "message"),
    [
        (b"", b'{"error":{"message":"busy","code":503}}', 503, "busy"),
        (b"", b'{"error":"busy","choices":[]}', 502, "busy"),
        (b"", b'{"error":{"message":"busy","code":429},"choices":7}', 429, "busy"),
        (b"error", b'{"error":{"message":"busy","code":400}}', 400, "busy"),
        (b"error", b'{"message":"busy","code":429}', 429, "busy"),
        (b"error", b'"busy"', 502, "busy"),
        (b"error", b"busy", 502, "busy"),
    ],
)
def test_an_error_in_band_fails_the_answer(name: bytes, data: bytes, status: int, message: str) -> None:
    decoder = OPENAI_CHAT.stream_decoder(1)

    (failed,) = decoder.feed(SSEvent(name, data))

    assert isinstance(failed, hub.Failed)
    assert isinstance(failed.error, UpstreamRefusal)
    assert (failed.error.status, failed.error.message) == (status, message)
    assert decoder.is_over
    assert decoder.feed(SSEvent(b"", b"[DONE]")) == decoder.feed_eof() == []


def test_a_refused_key_in_band_is_not_quoted() -> None:
    (failed,) = decode({"error": {"message": "sk-1 is wrong", "code": "invalid_api_key"}})

    assert isinstance(failed, hub.Failed)
    assert isinstance(failed.error, UpstreamKeyRefused)


@pytest.mark.parametrize("data", [b"<html>", b'{"choices":[{', b'{"error":"\xff', b"[" * 100_000, b"\xff"])
def test_what_is_no_json_fails_the_answer(data: bytes) -> None:
    failed = decode(chunk({"content": "a"}), data)[-1]

    assert isinstance(failed, hub.Failed)
    assert isinstance(failed.error, UpstreamGarbage)
    assert failed.error.message == "the upstream's stream holds what is no JSON"


@pytest.mark.parametrize("data", [b"", b"  ", b"null", b"[]", b'"hello"', b"7"])
def test_what_is_no_object_says_that_the_upstream_is_alive(data: bytes) -> None:
    decoder = OPENAI_CHAT.stream_decoder(1)

    assert decoder.feed(SSEvent(b"", data)) == [hub.Ping()]


@pytest.mark.parametrize(
    "odd",
    [
        {"created": "today"},
        {"id": 7, "created": None},
        {"usage": "none", "created": 1e300},
        {"service_tier": {}},
        {"choices": [{"index": 0, "delta": {"content": "a", "tool_calls": "none", "refusal": 7}}, None, 7]},
        {"choices": [{"index": "0", "delta": {"content": "a", "annotations": [1, {"url_citation": {"url": 7}}]}}]},
        {"choices": [{"delta": {"content": "a"}, "finish_reason": 7, "logprobs": []}]},
        {"choices": [{"delta": {"content": "a", "role": 7}, "logprobs": {"content": None}}]},
    ],
)
def test_a_wrong_type_where_it_does_not_matter_is_passed_over(odd: dict[str, Any]) -> None:
    first = chunk({"content": "a"}) | odd

    response = hub.fold(decode(first, {"created": "x"}, chunk({"content": "b"}, "stop") | {"usage": 5}))

    texts = [block.text for block in response.candidates[0].blocks if isinstance(block, hub.Text)]
    assert "".join(texts) == "ab"


@given(response=responses())
def test_what_is_written_as_a_stream_is_read_as_it_was(response: hub.Response) -> None:
    stream = b"".join(map(OPENAI_CHAT.stream_encoder(ASKED, "req_1").feed, hub.unfold(response)))

    assert hub.fold(decode_stream(stream)) == response


@given(
    response=responses(),
    newline=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    offsets=st.lists(st.integers(0, 4000), max_size=8),
)
def test_a_stream_is_read_the_same_however_it_is_cut(
    response: hub.Response, newline: bytes, offsets: list[int]
) -> None:
    stream = b"".join(map(OPENAI_CHAT.stream_encoder(ASKED, "req_1").feed, hub.unfold(response)))
    stream = stream.replace(b"\n", newline)
    bounds = [0, *sorted(offset % (len(stream) + 1) for offset in offsets), len(stream)]

    events = decode_stream(stream, [stream[start:end] for start, end in pairwise(bounds)])

    assert events == decode_stream(stream)
    assert hub.fold(events) == response


@given(response=responses(), data=st.data())
def test_a_stream_that_is_cut_short_is_complete_only_with_all_that_was_said(
    response: hub.Response, data: st.DataObject
) -> None:
    stream = b"".join(map(OPENAI_CHAT.stream_encoder(ASKED, "req_1").feed, hub.unfold(response)))
    size = data.draw(st.integers(0, len(stream) - 1))

    events = decode_stream(stream[:size])

    folder = folded(events)
    if isinstance(events[-1], hub.End):
        assert folder.result().candidates == response.candidates


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["", "a", "f", "{", "stop", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "index",
                    "finish_reason",
                    "content",
                    "reasoning",
                    "reasoning_content",
                    "refusal",
                    "tool_calls",
                    "function",
                    "custom",
                    "name",
                    "arguments",
                    "input",
                    "id",
                    "thinking_blocks",
                    "thinking",
                    "signature",
                    "data",
                    "images",
                    "image_url",
                    "url",
                    "annotations",
                    "url_citation",
                    "type",
                    "text",
                    "usage",
                    "prompt_tokens",
                    "logprobs",
                    "token",
                    "bytes",
                    "error",
                    "function_call",
                    "extra_content",
                    "google",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
DELTAS = st.dictionaries(
    st.sampled_from(
        [
            "content",
            "reasoning",
            "reasoning_content",
            "refusal",
            "tool_calls",
            "thinking_blocks",
            "images",
            "annotations",
            "function_call",
        ]
    ),
    JSON,
    max_size=3,
) | st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.sampled_from([0, 1, None]),
            "id": st.sampled_from(["x", "y", "", None]),
            "function": st.fixed_dictionaries(
                {},
                optional={"name": st.sampled_from(["f", "g", ""]), "arguments": st.sampled_from(["{", "}", "", " "])},
            ),
            "custom": st.fixed_dictionaries({}, optional={"name": st.just("f"), "input": st.sampled_from(["", "a"])}),
        },
    ),
    max_size=3,
).map(lambda calls: {"tool_calls": calls})
CHUNKS = st.one_of(
    st.fixed_dictionaries(
        {
            "choices": st.lists(
                st.fixed_dictionaries(
                    {"delta": DELTAS},
                    optional={
                        "index": st.sampled_from([0, 1, 2]),
                        "finish_reason": st.sampled_from(["stop", "", None, "x", 5]),
                    },
                ),
                max_size=3,
            )
        },
        optional={"usage": JSON, "id": JSON},
    ).map(msgspec.json.encode),
    JSON.map(msgspec.json.encode),
    st.just(b"[DONE]"),
    st.binary(max_size=8),
)


@given(
    payloads=st.lists(st.tuples(st.sampled_from([b"", b"", b"", b"error"]), CHUNKS), max_size=6),
    candidates=st.integers(1, 3),
)
def test_whatever_is_read_is_told_in_order_and_ends_once(payloads: list[tuple[bytes, bytes]], candidates: int) -> None:
    decoder = OPENAI_CHAT.stream_decoder(candidates)

    events = [event for name, data in payloads for event in decoder.feed(SSEvent(name, data))]

    folded(events + decoder.feed_eof())
    assert decoder.is_over


@pytest.mark.parametrize("case", sorted(path.parent.name for path in RECORDINGS.glob("*/stream.sse")))
@given(data=st.data())
def test_a_damaged_recording_is_told_in_order_and_ends_once(case: str, data: st.DataObject) -> None:
    stream = (RECORDINGS / case / "stream.sse").read_bytes()
    start = data.draw(st.integers(0, len(stream)))
    end = data.draw(st.integers(start, min(start + 60, len(stream))))

    folded(decode_stream(stream[:start] + data.draw(st.binary(max_size=6) | CHUNKS) + stream[end:]))


@pytest.mark.parametrize("case", sorted(path.parent.name for path in RECORDINGS.glob("*/response.json")))
def test_a_recorded_stream_says_the_same_as_the_whole_answer(case: str) -> None:
    request = OPENAI_CHAT.decode_request((RECORDINGS / case / "request.json").read_bytes())
    whole = OPENAI_CHAT.decode_response((RECORDINGS / case / "response.json").read_bytes())
    decoder, sse = OPENAI_CHAT.stream_decoder(request.candidates), SSEDecoder()

    events = sse.feed((RECORDINGS / case / "stream.sse").read_bytes()) + sse.feed_eof()

    assert hub.fold([out for event in events for out in decoder.feed(event)] + decoder.feed_eof()) == whole


def test_time_is_linear_in_a_long_argument() -> None:
    pieces = [chunk(begin("x", "f", '{"a":"'))] + [chunk(tool("b" * 1000))] * 6000 + [chunk(tool('"}'), "tool_calls")]
    events = [SSEvent(b"", msgspec.json.encode(piece)) for piece in pieces]
    decoder = OPENAI_CHAT.stream_decoder(1)

    start = time.perf_counter()
    for event in events:
        decoder.feed(event)
    took_s = time.perf_counter() - start

    assert decoder.feed_eof() == [hub.End()]
    assert took_s < 0.3
