from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd import hub
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import OPENAI_CHAT
from aiproxyd.sse import SSEDecoder
from tests.formats.openai_chat.strategies import responses

ASKED = hub.Request(model="asked", turns=[], stream=True, wants_usage=False)
WANTING = hub.Request(model="asked", turns=[], stream=True, wants_usage=True)
START = hub.Start(id="chatcmpl-1", model="m", created=7)
HEAD = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m",'
ROLE = HEAD + (
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
)
ANTHROPIC = hub.Seal("anthropic@up/claude", "signature", "EqQB")
WRAPPED = "gw1.s.anthropic@up/claude..EqQB"


def encode(*events: hub.Event, asked: hub.Request = ASKED) -> list[bytes]:
    encoder = OPENAI_CHAT.stream_encoder(asked, "req_1")
    return [encoder.feed(event) for event in events]


def deltas(*events: hub.Event) -> list[Any]:
    """Return the deltas of the chunks that say *events*, without the one that every choice begins with."""
    chunks = [msgspec.json.decode(event.data) for event in SSEDecoder().feed(b"".join(encode(START, *events)))]
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]][1:]


def accumulate(total: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """Add *delta* to *total* as the SDK does: strings are joined, elements of lists put together by their index."""
    for key, value in delta.items():
        known = total.get(key)
        if known is None or key in ("index", "type"):
            total[key] = value
        elif isinstance(known, str):
            total[key] = known + value
        elif isinstance(known, dict):
            accumulate(known, value)
        else:
            for element in value:
                if element["index"] < len(known):
                    accumulate(known[element["index"]], element)
                else:
                    known.insert(element["index"], element)
    return total


def test_a_text_is_a_role_pieces_a_finish_and_done() -> None:
    assert encode(
        START,
        hub.BlockStart(0, 5, hub.Text("")),
        hub.Delta(0, 5, 'Hé "'),
        hub.BlockStop(0, 5),
        hub.UsageSeen(hub.Usage(input_tokens=3, output_tokens=2)),
        hub.Finish(0, "end"),
        hub.End(),
    ) == [
        ROLE,
        b"",
        HEAD
        + '"choices":[{"index":0,"delta":{"content":"Hé \\""},"logprobs":null,"finish_reason":null}]}\n\n'.encode(),
        b"",
        b"",
        HEAD + b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n',
        b"data: [DONE]\n\n",
    ]


def test_usage_has_a_chunk_of_its_own_where_the_caller_asked_for_it() -> None:
    usage = hub.Usage(input_tokens=3, cache_read_tokens=4, cache_write_tokens=5, output_tokens=6, reasoning_tokens=1)

    blocks = encode(START, hub.UsageSeen(usage), hub.Finish(0, "end"), hub.End(), asked=WANTING)

    assert blocks[0].endswith(b'"finish_reason":null}],"usage":null}\n\n')
    assert blocks[2].endswith(b'"finish_reason":"stop"}],"usage":null}\n\n')
    assert blocks[3] == HEAD + (
        b'"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":6,"total_tokens":18,'
        b'"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":5},'
        b'"completion_tokens_details":{"reasoning_tokens":1}}}\n\ndata: [DONE]\n\n'
    )


def test_usage_that_nobody_told_is_zero() -> None:
    end = encode(START, hub.Finish(0, "end"), hub.End(), asked=WANTING)[2]

    assert b'"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}' in end


def test_what_the_upstream_did_not_say_of_itself_is_made_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1234.5)

    first, finish = map(
        msgspec.json.decode, (block.removeprefix(b"data: ") for block in encode(hub.Start(), hub.Finish(0, "end")))
    )

    assert (first["created"], first["model"]) == (1234, "asked")
    assert first["id"].startswith("chatcmpl-")
    assert len(first["id"]) == len("chatcmpl-") + 24
    assert (finish["id"], finish["created"], finish["model"]) == (first["id"], 1234, "asked")


def test_the_service_tier_stands_in_every_chunk() -> None:
    blocks = encode(hub.Start(id="c", model="m", created=7, service_tier="flex"), hub.Finish(0, "end"))

    assert all(b'"model":"m","service_tier":"flex","choices"' in block for block in blocks)


def test_calls_are_counted_and_named_once() -> None:
    call, custom = (
        hub.ToolCall(id="a", name="f", arguments=""),
        hub.ToolCall(id="b", name="g", arguments="", is_custom=True),
    )

    assert deltas(
        hub.BlockStart(0, 0, call),
        hub.BlockStart(0, 1, custom),
        hub.Delta(0, 1, "x"),
        hub.Delta(0, 0, '{"a":'),
        hub.Delta(0, 0, "1}"),
        hub.BlockStop(0, 0),
        hub.BlockStop(0, 1),
    ) == [
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "id": "b", "type": "custom", "custom": {"name": "g", "input": ""}}]},
        {"tool_calls": [{"index": 1, "custom": {"input": "x"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ]


def test_calls_and_roles_are_counted_for_each_choice() -> None:
    call = hub.ToolCall(id="a", name="f", arguments="{}")

    stream = b"".join(encode(START, hub.BlockStart(0, 0, call), hub.BlockStart(1, 0, call), hub.BlockStop(1, 0)))

    chunks = [msgspec.json.decode(event.data)["choices"][0] for event in SSEDecoder().feed(stream)]
    begun = {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    whole = {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}
    role = {"role": "assistant", "content": ""}
    assert [(chunk["index"], chunk["delta"]) for chunk in chunks] == [
        (0, role),
        (0, begun),
        (0, whole),
        (1, role),
        (1, begun),
        (1, whole),
    ]


def test_the_seal_of_a_call_goes_where_googles_own_stands() -> None:
    call = hub.ToolCall(id="a", name="f", arguments="")
    foreign = hub.Seal("gemini@g/pro", "signature", "c2ln")

    begun, sealed, own = deltas(
        hub.BlockStart(0, 0, msgspec.structs.replace(call, seal=foreign)),
        hub.SealSet(0, 0, foreign),
        hub.SealSet(0, 0, hub.Seal("openai-chat", "signature", "c2ln")),
    )

    wrapped = {"google": {"thought_signature": "gw1.s.gemini@g/pro..c2ln"}}
    assert begun["tool_calls"][0]["extra_content"] == wrapped
    assert sealed == {"tool_calls": [{"index": 0, "function": {"arguments": ""}, "extra_content": wrapped}]}
    assert own["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}


def test_a_thought_is_shown_at_once_and_its_seal_with_all_of_it() -> None:
    assert deltas(
        hub.BlockStart(0, 0, hub.Reasoning()),
        hub.Delta(0, 0, "hm"),
        hub.Delta(0, 0, "m"),
        hub.SealSet(0, 0, ANTHROPIC),
        hub.BlockStop(0, 0),
        hub.BlockStart(0, 1, hub.Reasoning("", hub.Seal("anthropic@up/claude", "redacted", "data"))),
        hub.BlockStop(0, 1),
        hub.BlockStart(0, 2, hub.Reasoning("un")),
        hub.Delta(0, 2, "sealed"),
        hub.BlockStop(0, 2),
    ) == [
        {"reasoning_content": "hm"},
        {"reasoning_content": "m"},
        {"thinking_blocks": [{"index": 0, "type": "thinking", "thinking": "hmm", "signature": WRAPPED}]},
        {"thinking_blocks": [{"index": 1, "type": "redacted_thinking", "data": "gw1.r.anthropic@up/claude..data"}]},
        {"reasoning_content": "un"},
        {"reasoning_content": "sealed"},
    ]


def test_a_refusal_of_the_model_ends_like_any_answer() -> None:
    stream = b"".join(
        encode(START, hub.BlockStart(0, 0, hub.Refusal("I ")), hub.Delta(0, 0, "can't"), hub.BlockStop(0, 0))
        + encode(START, hub.BlockStart(0, 0, hub.Refusal("")), hub.BlockStop(0, 0), hub.Finish(0, "refusal"))[3:]
    )

    assert b'"delta":{"refusal":"I "}' in stream
    assert b'"delta":{"refusal":"can\'t"}' in stream
    assert stream.endswith(b'"finish_reason":"stop"}]}\n\n')


@pytest.mark.parametrize(
    ("stop", "finish_reason"),
    [
        ("end", b"stop"),
        ("stop_sequence", b"stop"),
        ("length", b"length"),
        ("context", b"length"),
        ("pause", b"length"),
        ("tool", b"tool_calls"),
        ("refusal", b"content_filter"),
        ("blocked", b"content_filter"),
    ],
)
def test_every_stop_has_a_legal_word(stop: hub.Stop, finish_reason: bytes) -> None:
    assert b'"finish_reason":"' + finish_reason + b'"' in encode(START, hub.Finish(0, stop))[1]


def test_why_nothing_was_said_is_told_as_a_refusal() -> None:
    finish = hub.Finish(0, "blocked", detail="PROHIBITED_CONTENT")

    assert deltas(finish) == [{"refusal": "PROHIBITED_CONTENT"}, {}]
    assert deltas(hub.BlockStart(0, 0, hub.Text("a")), hub.BlockStop(0, 0), finish) == [{"content": "a"}, {}]
    assert deltas(hub.BlockStart(0, 0, hub.Refusal("no")), hub.BlockStop(0, 0), finish) == [{"refusal": "no"}, {}]


def test_what_is_said_after_a_call_is_set_apart() -> None:
    text, call = hub.Text(""), hub.ToolCall(id="a", name="f", arguments="")

    written = deltas(
        hub.BlockStart(0, 0, call),
        hub.BlockStop(0, 0),
        hub.BlockStart(0, 1, text),
        hub.Delta(0, 1, "a"),
        hub.BlockStop(0, 1),
        hub.BlockStart(0, 2, hub.Text("b")),
        hub.BlockStop(0, 2),
        hub.BlockStart(0, 3, call),
        hub.BlockStop(0, 3),
        hub.BlockStart(0, 4, text),
        hub.Delta(0, 4, "c"),
        hub.CitationAdded(0, 4, hub.Citation(url="u", start=0, end=1)),
        hub.BlockStop(0, 4),
    )

    assert [delta["content"] for delta in written if "content" in delta] == ["a", "b", "\n\n", "c"]
    assert written[-1]["annotations"][0]["url_citation"] == {"url": "u", "title": "", "start_index": 4, "end_index": 5}


def test_citations_are_annotations_that_count_from_the_beginning_of_the_message() -> None:
    whole, part = hub.Citation(url="u", title="t"), hub.Citation(url="v", start=1, end=2)

    written = deltas(
        hub.BlockStart(0, 0, hub.Text("ab")),
        hub.BlockStop(0, 0),
        hub.BlockStart(0, 1, hub.Text("cd", citations=(part,))),
        hub.Delta(0, 1, "é"),
        hub.CitationAdded(0, 1, whole),
        hub.CitationAdded(0, 1, hub.Citation(cited_text="no url")),
        hub.BlockStop(0, 1),
    )

    assert [delta["annotations"] for delta in written if "annotations" in delta] == [
        [
            {
                "index": 0,
                "type": "url_citation",
                "url_citation": {"url": "v", "title": "", "start_index": 3, "end_index": 4},
            }
        ],
        [
            {
                "index": 1,
                "type": "url_citation",
                "url_citation": {"url": "u", "title": "t", "start_index": 2, "end_index": 5},
            }
        ],
    ]


def test_an_image_is_a_data_url_and_other_media_are_words() -> None:
    image = hub.Media(kind="image", media_type="image/png", data="AAAA")
    sound = hub.Media(kind="audio", media_type="audio/wav", data="AAAA")

    assert deltas(
        hub.BlockStart(0, 0, image), hub.BlockStop(0, 0), hub.BlockStart(0, 1, sound), hub.BlockStop(0, 1)
    ) == [
        {"images": [{"index": 0, "type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
        {"content": "[audio audio/wav]"},
    ]


def test_blocks_that_have_no_place_are_passed_over() -> None:
    opaque = hub.Opaque("openai-chat", "x", msgspec.Raw(b"{}"))
    result = hub.ToolResult(call_id="a")
    seal = hub.SealSet(0, 1, ANTHROPIC)

    assert deltas(hub.BlockStart(0, 0, opaque), hub.Delta(0, 0, "x"), hub.BlockStop(0, 0)) == []
    assert deltas(hub.BlockStart(0, 1, result), seal, hub.BlockStop(0, 1)) == []
    assert deltas(hub.BlockStart(0, 1, hub.Text("")), seal, hub.BlockStop(0, 1)) == []


def test_logprobs_have_a_chunk_of_their_own() -> None:
    token = hub.TokenLogprob("a", -0.5, (97,), (hub.TokenLogprob("b", -2.0),))

    assert encode(START, hub.LogprobsAdded(0, (token,)))[1] == HEAD + (
        b'"choices":[{"index":0,"delta":{},"logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],'
        b'"top_logprobs":[{"token":"b","logprob":-2.0,"bytes":null}]}],"refusal":null},"finish_reason":null}]}\n\n'
    )


def test_a_keep_alive_is_a_comment_also_before_the_start() -> None:
    assert encode(hub.Ping(), START, hub.Ping()) == [b": ping\n\n", ROLE, b": ping\n\n"]


def test_an_error_in_band_is_an_object_that_the_sdk_raises_on_without_done() -> None:
    error = b'data: {"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}\n\n'

    assert OPENAI_CHAT.encode_stream_error(InvalidRequest("no"), "req_1") == error
    assert encode(START, hub.Failed(InvalidRequest("no"))) == [ROLE, error]
    assert encode(hub.Failed(InvalidRequest("no"))) == [error]


def test_an_answer_without_any_candidate_is_an_empty_one() -> None:
    assert encode(START, hub.End())[1] == (
        HEAD + b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )


def test_a_candidate_that_never_came_does_not_end_where_another_answered() -> None:
    ends = encode(START, hub.Finish(1, "length"), hub.End())

    assert b"".join(ends).count(b'"finish_reason":"') == 1
    assert b'"finish_reason":"length"' in ends[1]


@given(response=responses())
def test_what_the_sdk_puts_together_is_the_whole_answer(response: hub.Response) -> None:
    whole = msgspec.json.decode(OPENAI_CHAT.encode_response(response, WANTING))
    stream = b"".join(map(OPENAI_CHAT.stream_encoder(WANTING, "req_1").feed, hub.unfold(response)))

    chunks = [msgspec.json.decode(event.data) for event in SSEDecoder().feed(stream) if event.data != b"[DONE]"]

    for choice in whole["choices"]:
        mine = [part for chunk in chunks for part in chunk["choices"] if part["index"] == choice["index"]]
        message: dict[str, Any] = {}
        for part in mine:
            accumulate(message, part["delta"])
        for name in ("tool_calls", "annotations", "images", "thinking_blocks"):
            for element in message.get(name, ()):
                del element["index"]
        expected = {name: value for name, value in choice["message"].items() if value is not None}
        assert message == {"content": ""} | expected
        assert [part["finish_reason"] for part in mine if part["finish_reason"]] == [choice["finish_reason"]]
        assert [part["delta"].get("role") for part in mine].count("assistant") == 1
        logprobs = [token for part in mine if part["logprobs"] for token in part["logprobs"]["content"]]
        assert logprobs == ((choice["logprobs"] or {}).get("content") or [])
    assert chunks[-1]["usage"] == whole["usage"]
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks} == {
        (whole["id"], whole["created"], whole["model"])
    }


@given(response=responses(), data=st.data())
def test_pings_and_usage_may_come_anywhere(response: hub.Response, data: st.DataObject) -> None:
    events = list(hub.unfold(response))
    plain = b"".join(map(OPENAI_CHAT.stream_encoder(ASKED, "req_1").feed, events))
    at = data.draw(st.integers(1, len(events) - 1))

    events[at:at] = [hub.Ping(), hub.UsageSeen(hub.Usage(output_tokens=1))]
    mixed = b"".join(map(OPENAI_CHAT.stream_encoder(ASKED, "req_1").feed, events))

    assert mixed.replace(b": ping\n\n", b"") == plain
