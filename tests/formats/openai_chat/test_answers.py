import contextlib
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd import hub
from aiproxyd.errors import UpstreamError, UpstreamGarbage, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats import OPENAI_CHAT
from tests.formats.openai_chat.strategies import responses

ASKED = hub.Request(model="asked", turns=[])
FOREIGN = hub.Seal("anthropic@up/claude", "signature", "EqQB")


def decode(message: object, finish: object = "stop", **more: object) -> hub.Candidate:
    """Decode an answer with one choice."""
    choice = {"index": 0, "message": message, "finish_reason": finish, **more}
    return OPENAI_CHAT.decode_response(msgspec.json.encode({"choices": [choice]})).candidates[0]


def encode(*blocks: hub.Block, stop: hub.Stop = "end", detail: str = "") -> dict[str, Any]:
    """Encode an answer with one choice, and return that."""
    candidate = hub.Candidate(blocks=blocks, stop=stop, detail=detail)
    answer = msgspec.json.decode(OPENAI_CHAT.encode_response(hub.Response(candidates=(candidate,)), ASKED))
    choice = answer["choices"][0]
    assert isinstance(choice, dict)
    return choice


def test_an_answer_is_read() -> None:
    body = b"""{"id":"c","object":"chat.completion","created":7,"model":"m","service_tier":"flex","choices":[
        {"index":0,"message":{"role":"assistant","content":"Hi","refusal":null,"annotations":[]},"logprobs":null,
         "finish_reason":"stop"}],
        "usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}"""

    assert OPENAI_CHAT.decode_response(body) == hub.Response(
        id="c",
        model="m",
        created=7,
        candidates=(hub.Candidate(blocks=(hub.Text("Hi"),)),),
        usage=hub.Usage(input_tokens=5, cache_read_tokens=4, output_tokens=2),
        service_tier="flex",
    )


def test_the_least_of_an_answer_is_enough() -> None:
    assert OPENAI_CHAT.decode_response(b'{"choices":[{}]}') == hub.Response(candidates=(hub.Candidate(),))


@pytest.mark.parametrize(
    ("finish", "stop", "detail"),
    [
        (None, "end", ""),
        ("", "end", ""),
        ("length", "length", ""),
        ("content_filter", "refusal", ""),
        ("x", "end", "x"),
    ],
)
def test_a_finish_reason_is_a_stop(finish: object, stop: hub.Stop, detail: str) -> None:
    candidate = decode({"content": "a"}, finish)

    assert (candidate.stop, candidate.detail) == (stop, detail)


def test_choices_stand_in_the_order_of_their_index() -> None:
    body = b'{"choices":[{"index":1,"message":{"content":"b"}},{"index":0,"message":{"content":"a"}}]}'

    blocks = [candidate.blocks for candidate in OPENAI_CHAT.decode_response(body).candidates]
    assert blocks == [(hub.Text("a"),), (hub.Text("b"),)]


def test_everything_that_a_message_holds_is_a_block_in_order() -> None:
    message = {
        "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        "function_call": {"name": "h", "arguments": '{"b":2}'},
        "tool_calls": [
            {"id": "x", "function": {"name": "f", "arguments": ""}},
            {"id": "y", "type": "custom", "custom": {"name": "g", "input": "any"}},
            {"function": {"name": "k", "arguments": "not json"}},
            {"custom": {}},
            {},
        ],
        "refusal": "no",
        "content": "a",
        "reasoning": "hm",
    }

    blocks = decode(message, "tool_calls").blocks

    assert blocks[:5] == (
        hub.Reasoning("hm"),
        hub.Text("a"),
        hub.Refusal("no"),
        hub.ToolCall(id="x", name="f", arguments="{}"),
        hub.ToolCall(id="y", name="g", arguments="any", is_custom=True),
    )
    calls = [block for block in blocks[5:] if isinstance(block, hub.ToolCall)]
    said = [(call.name, call.arguments) for call in calls]
    assert said == [("k", "not json"), ("", ""), ("", "{}"), ("h", '{"b":2}')]
    assert all(re.fullmatch("call_[0-9a-f]{24}", call.id) for call in calls)
    assert len({call.id for call in calls}) == 4
    assert blocks[-1] == hub.Media(kind="image", media_type="image/png", data="AAAA")


def test_thoughts_with_seals_are_read_instead_of_their_text() -> None:
    thinking = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "r"},
        {"type": "thinking", "thinking": "unsigned"},
        {"type": "thinking"},
    ]

    assert decode({"reasoning_content": "hm", "thinking_blocks": thinking}).blocks == (
        hub.Reasoning("hm", hub.Seal("openai-chat", "signature", "s")),
        hub.Reasoning("", hub.Seal("openai-chat", "redacted", "r")),
        hub.Reasoning("unsigned"),
        hub.Reasoning(""),
    )


def test_content_may_be_a_list() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}, 7]}

    assert decode({"content": [thinking, {"type": "text", "text": "a"}, 7, {"type": "x"}]}).blocks == (
        hub.Reasoning("hm"),
        hub.Text("a"),
        hub.Opaque("openai-chat", "x", msgspec.Raw(b'{"type":"x"}')),
    )


def test_annotations_are_citations_also_of_nothing() -> None:
    annotations = [{"type": "url_citation", "url_citation": {"url": "u", "title": None}}]

    assert decode({"content": None, "annotations": annotations}).blocks == (
        hub.Text("", citations=(hub.Citation(url="u"),)),
    )


def test_logprobs_are_read() -> None:
    token = {"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -2, "bytes": None}]}

    assert decode({}, logprobs={"content": [token], "refusal": [{"token": "c"}]}).logprobs == (
        hub.TokenLogprob("a", -1.0, (97,), (hub.TokenLogprob("b", -2.0),)),
        hub.TokenLogprob("c", 0.0),
    )


def test_a_wrong_type_where_it_does_not_matter_is_passed_over() -> None:
    body = b"""{"id":7,"created":1e99,"model":"m","usage":{"prompt_tokens":"?","completion_tokens":2},"choices":[
        {"index":"0","message":{"content":"a","tool_calls":"none","annotations":[{"url_citation":5},6]}}, null]}"""

    assert OPENAI_CHAT.decode_response(body) == hub.Response(
        model="m", candidates=(hub.Candidate(blocks=(hub.Text("a"),)),), usage=hub.Usage(output_tokens=2)
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"error":{"message":"busy","code":503},"choices":[]}', 503, "busy"),
        (b'{"error":"busy","choices":7}', 502, "busy"),
    ],
)
def test_an_answer_with_an_error_in_it_is_an_error(body: bytes, status: int, message: str) -> None:
    with pytest.raises(UpstreamRefusal) as caught:
        OPENAI_CHAT.decode_response(body)

    assert (caught.value.status, caught.value.message) == (status, message)


def test_a_refused_key_is_not_quoted() -> None:
    with pytest.raises(UpstreamKeyRefused):
        OPENAI_CHAT.decode_response(b'{"error":{"message":"sk-1","code":"invalid_api_key"}}')


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"choices":[]}', b'{"choices":[1]}', b'{"object":"list"}'])
def test_an_answer_of_another_shape_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamGarbage, match="the upstream's answer is no chat completion"):
        OPENAI_CHAT.decode_response(body)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"id":"\xff"}', b"[" * 100_000, b'{"x":' * 100_000])
def test_an_answer_that_is_no_json_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamGarbage, match="the upstream's answer is no JSON"):
        OPENAI_CHAT.decode_response(body)


@given(body=st.binary(max_size=40) | st.text('{}[]":,0 choiesmagntl', max_size=40).map(str.encode))
def test_any_bytes_are_an_answer_or_an_error_of_the_upstream(body: bytes) -> None:
    with contextlib.suppress(UpstreamError):
        OPENAI_CHAT.decode_response(body)


def test_an_answer_is_written() -> None:
    response = hub.Response(
        id="c",
        model="m",
        created=7,
        candidates=(hub.Candidate(blocks=(hub.Text("Hé"),)),),
        usage=hub.Usage(input_tokens=3, output_tokens=2),
    )

    assert OPENAI_CHAT.encode_response(response, ASKED) == (
        '{"id":"c","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,"message":'
        '{"role":"assistant","content":"Hé","refusal":null},"logprobs":null,"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'.encode()
    )


def test_what_the_upstream_did_not_say_of_itself_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1234.5)

    answer = msgspec.json.decode(OPENAI_CHAT.encode_response(hub.Response(candidates=()), ASKED))

    assert re.fullmatch("chatcmpl-[0-9a-f]{24}", answer.pop("id"))
    assert answer == {
        "object": "chat.completion",
        "created": 1234,
        "model": "asked",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def test_calls_stand_beside_no_content() -> None:
    signed = hub.ToolCall(id="a", name="f", arguments="{}", seal=hub.Seal("gemini@g/pro", "signature", "c2ln"))
    custom = hub.ToolCall(id="b", name="g", arguments="any", is_custom=True)

    choice = encode(signed, custom, stop="tool")

    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "f", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "gw1.s.gemini@g/pro..c2ln"}},
            },
            {"id": "b", "type": "custom", "custom": {"name": "g", "input": "any"}},
        ],
    }


def test_thoughts_are_shown_in_one_text_and_each_seal_with_its_own() -> None:
    message = encode(
        hub.Reasoning("hm", FOREIGN),
        hub.Reasoning("", hub.Seal("anthropic@up/claude", "redacted", "r")),
        hub.Reasoning("!", hub.Seal("openai-chat", "signature", "own")),
        hub.Text("a"),
    )["message"]

    assert message["reasoning_content"] == "hm!"
    assert message["thinking_blocks"] == [
        {"type": "thinking", "thinking": "hm", "signature": "gw1.s.anthropic@up/claude..EqQB"},
        {"type": "redacted_thinking", "data": "gw1.r.anthropic@up/claude..r"},
        {"type": "thinking", "thinking": "!", "signature": "own"},
    ]


def test_a_refusal_of_the_model_ends_like_any_answer() -> None:
    choice = encode(hub.Refusal("I "), hub.Refusal("can't"), stop="refusal")

    assert (choice["message"]["content"], choice["message"]["refusal"]) == (None, "I can't")
    assert choice["finish_reason"] == "stop"


def test_why_nothing_was_said_is_told_as_a_refusal() -> None:
    choice = encode(stop="blocked", detail="PROHIBITED_CONTENT")

    assert (choice["message"]["content"], choice["message"]["refusal"]) == ("", "PROHIBITED_CONTENT")
    assert choice["finish_reason"] == "content_filter"
    assert encode(hub.Text("a"), stop="refusal", detail="x")["message"]["refusal"] is None
    assert encode(hub.Refusal("no"), stop="refusal", detail="x")["message"]["refusal"] == "no"
    assert encode(stop="end", detail="x")["message"]["refusal"] is None


def test_texts_are_one_and_their_citations_count_from_its_beginning() -> None:
    message = encode(
        hub.Text("ab"),
        hub.Text("cdé", citations=(hub.Citation(url="u", title="t"), hub.Citation(url="v", start=1, end=2))),
        hub.ToolCall(id="a", name="f", arguments="{}"),
        hub.Text("g", citations=(hub.Citation(url="w"), hub.Citation(cited_text="no url"))),
    )["message"]

    sources = [annotation["url_citation"] for annotation in message["annotations"]]
    assert message["content"] == "abcdé\n\ng"
    assert sources == [
        {"url": "u", "title": "t", "start_index": 2, "end_index": 5},
        {"url": "v", "title": "", "start_index": 3, "end_index": 4},
        {"url": "w", "title": "", "start_index": 7, "end_index": 8},
    ]


def test_media_and_blocks_without_a_place_do_no_harm() -> None:
    message = encode(
        hub.Media(kind="image", url="http://x"),
        hub.Media(kind="image", file_id="f", origin="gemini", name="a.png"),
        hub.Media(kind="video", media_type="video/mp4", data="AAAA"),
        hub.ToolResult(call_id="a"),
        hub.Opaque("openai-chat", "x", msgspec.Raw(b"{}")),
    )["message"]

    assert message["images"] == [{"type": "image_url", "image_url": {"url": "http://x"}}]
    assert message["content"] == "[image 'a.png'][video video/mp4]"


@given(response=responses())
def test_what_is_written_is_read_as_it_was(response: hub.Response) -> None:
    assert OPENAI_CHAT.decode_response(OPENAI_CHAT.encode_response(response, ASKED)) == response
