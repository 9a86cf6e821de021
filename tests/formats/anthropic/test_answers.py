"""Whole answers of the Messages API."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.errors import ProxyError, UpstreamGarbage, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats import ANTHROPIC
from tests.formats.anthropic.strategies import responses

RECORDINGS = Path(__file__).parents[2] / "recordings/anthropic"
ASKED = hub.Request(model="claude-5", turns=[])
FOREIGN = hub.Seal("gemini@google/gemini-3", "signature", "CgQ=")
FOREIGN_WRAPPED = "gw1.s.gemini@google/gemini-3..CgQ="


def decode(**members: object) -> hub.Response:
    return ANTHROPIC.decode_response(msgspec.json.encode({"type": "message", "content": []} | members))


def decode_blocks(*content: object) -> tuple[hub.Block, ...]:
    return decode(content=content).candidates[0].blocks


def encode(*blocks: hub.Block, **members: Any) -> Any:
    candidate = hub.Candidate(blocks=blocks, **members)
    return msgspec.json.decode(ANTHROPIC.encode_response(hub.Response(candidates=(candidate,)), ASKED))


@given(response=responses())
def test_what_is_encoded_is_decoded_to_what_it_was(response: hub.Response) -> None:
    assert ANTHROPIC.decode_response(ANTHROPIC.encode_response(response, ASKED)) == response


def test_a_recorded_answer_is_all_there() -> None:
    response = ANTHROPIC.decode_response((RECORDINGS / "tools/response.json").read_bytes())

    thought, text, call = response.candidates[0].blocks
    assert thought == hub.Reasoning(
        'The user asks for "message_stop" and for event: error, both are words.',
        hub.Seal("anthropic", "signature", "EqQBCkYIBxgCKkDR3mZ0pQyV9w=="),
    )
    assert text == hub.Text('I\'ll look it up: {"type":"message_stop"}')
    assert isinstance(call, hub.ToolCall)
    assert (call.id, call.name) == ("toolu_01A09q90qw90lq917835lq9", "get_weather")
    assert msgspec.json.decode(call.arguments)["city"] == "Zürich"
    assert (response.id, response.model, response.service_tier) == (
        "msg_01XFDUDYJgAACzvnptvVoYEL",
        "claude-opus-5-20260801",
        "default",
    )
    assert response.candidates[0].stop == "tool"
    assert response.usage == hub.Usage(
        input_tokens=12, cache_read_tokens=3072, cache_write_tokens=420, output_tokens=211, reasoning_tokens=97
    )


@pytest.mark.parametrize(
    ("members", "stop", "detail"),
    [
        ({"stop_reason": "end_turn"}, "end", ""),
        ({"stop_reason": None}, "end", ""),
        ({"stop_reason": 5}, "end", ""),
        ({}, "end", ""),
        ({"stop_reason": "max_tokens"}, "length", ""),
        ({"stop_reason": "tool_use"}, "tool", ""),
        ({"stop_reason": "pause_turn"}, "pause", ""),
        ({"stop_reason": "model_context_window_exceeded"}, "context", ""),
        ({"stop_reason": "refusal"}, "refusal", ""),
        ({"stop_reason": "refusal", "stop_details": {"category": "bio", "explanation": "No."}}, "refusal", "No."),
        ({"stop_reason": "refusal", "stop_details": {"category": "bio", "explanation": None}}, "refusal", "bio"),
        ({"stop_reason": "refusal", "stop_details": "No."}, "refusal", ""),
        ({"stop_reason": "compaction"}, "end", "compaction"),
    ],
)
def test_why_an_answer_ended_is_read(members: dict[str, object], stop: str, detail: str) -> None:
    candidate = decode(**members).candidates[0]

    assert (candidate.stop, candidate.detail, candidate.stop_sequence) == (stop, detail, None)


def test_the_stop_sequence_that_was_met_is_read() -> None:
    candidate = decode(stop_reason="stop_sequence", stop_sequence="END").candidates[0]

    assert (candidate.stop, candidate.stop_sequence) == ("stop_sequence", "END")


def test_members_of_a_wrong_type_do_not_kill_the_answer() -> None:
    response = decode(
        id=5, model=None, stop_reason=[], stop_sequence={}, stop_details=7, usage="x", content=[{"type": "text"}]
    )

    assert response == hub.Response(candidates=(hub.Candidate(blocks=(hub.Text(""),)),))


@pytest.mark.parametrize(
    ("given_input", "arguments"),
    [
        (b'{"n": 1.50, "big": 12345678901234567890123}', '{"n": 1.50, "big": 12345678901234567890123}'),
        (b"{}", "{}"),
        (b"null", "{}"),
        (b'"text"', "text"),
        (b'"{\\"a\\":1}"', '{"a":1}'),
        (b'""', "{}"),
        (b"[1]", "[1]"),
    ],
)
def test_the_input_of_a_call_is_read_with_its_numbers_as_they_were(given_input: bytes, arguments: str) -> None:
    body = b'{"content":[{"type":"tool_use","id":"t","name":"f","input":' + given_input + b"}]}"

    blocks = ANTHROPIC.decode_response(body).candidates[0].blocks

    assert blocks == (hub.ToolCall(id="t", name="f", arguments=arguments),)


def test_calls_without_ids_get_some() -> None:
    first, second = decode_blocks({"type": "tool_use", "name": "f"}, {"type": "tool_use", "id": None, "name": "f"})

    assert isinstance(first, hub.ToolCall)
    assert isinstance(second, hub.ToolCall)
    assert first.id.startswith("call_")
    assert first.id != second.id


def test_unknown_and_misshapen_blocks_are_kept_and_what_is_none_is_not() -> None:
    blocks = decode_blocks(
        {"type": "server_tool_use", "id": "s", "input": {}}, {"type": "text", "text": 5}, {"type": 5}, {}, 7, None
    )

    assert blocks == (
        hub.Opaque("anthropic", "server_tool_use", Raw(b'{"type":"server_tool_use","id":"s","input":{}}')),
        hub.Opaque("anthropic", "text", Raw(b'{"type":"text","text":5}')),
    )


def test_thoughts_without_a_signature_have_no_seal() -> None:
    assert decode_blocks({"type": "thinking", "thinking": "Hm.", "signature": None}, {"type": "thinking"}) == (
        hub.Reasoning("Hm."),
        hub.Reasoning(""),
    )


def test_a_citation_that_was_written_here_is_not_anthropics() -> None:
    cited = hub.Text("So.", citations=(hub.Citation(url="https://a", title="A", cited_text="c"),))
    response = hub.Response(candidates=(hub.Candidate(blocks=(cited,)),))

    assert ANTHROPIC.decode_response(ANTHROPIC.encode_response(response, ASKED)).candidates[0].blocks == (cited,)


def test_citations_of_any_kind_are_read_and_kept() -> None:
    content = {
        "type": "text",
        "text": "So.",
        "citations": [
            {"type": "search_result_location", "source": "https://a", "title": "A", "cited_text": "c"},
            {"type": "char_location", "document_title": "D", "start_char_index": 0},
            {"type": "new", "url": 5},
        ],
    }

    text = decode_blocks(content)[0]

    assert isinstance(text, hub.Text)
    assert [(cited.url, cited.title, cited.cited_text) for cited in text.citations] == [
        ("https://a", "A", "c"),
        ("", "D", ""),
        ("", "", ""),
    ]
    assert bytes(text.citations[2].raw) == b'{"type":"new","url":5}'


@pytest.mark.parametrize(
    "body",
    [b"no", b"", b"[]", b"{}", b'{"type":"message"}', b'{"content":"x"}', b'{"content":null}', b"\xff", b"[" * 9999],
)
def test_what_is_no_message_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamGarbage):
        ANTHROPIC.decode_response(body)


def test_an_error_with_a_success_status_is_one() -> None:
    with pytest.raises(UpstreamRefusal, match="Overloaded") as caught:
        ANTHROPIC.decode_response(b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
    with pytest.raises(UpstreamKeyRefused):
        ANTHROPIC.decode_response(b'{"error":{"type":"authentication_error","message":"sk-ant-up"}}')

    assert caught.value.status == 529


def test_an_answer_has_all_that_the_strictest_client_wants() -> None:
    response = hub.Response(
        id="chatcmpl-1",
        model="gpt-5",
        candidates=(hub.Candidate(blocks=(hub.Text("Hi"),)),),
        usage=hub.Usage(input_tokens=3, cache_read_tokens=2, cache_write_tokens=1, output_tokens=5, reasoning_tokens=4),
        service_tier="flex",
    )

    assert msgspec.json.decode(ANTHROPIC.encode_response(response, ASKED)) == {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "gpt-5",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 1,
            "cache_read_input_tokens": 2,
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 4},
        },
    }


def test_what_the_upstream_did_not_say_is_made_up_or_nought() -> None:
    answer = msgspec.json.decode(ANTHROPIC.encode_response(hub.Response(candidates=()), ASKED))

    assert answer["id"].startswith("msg_")
    assert answer["model"] == "claude-5"
    assert answer["content"] == []
    assert answer["usage"] == {"input_tokens": 0, "output_tokens": 0}


@pytest.mark.parametrize(
    ("stop", "detail", "reason", "explanation"),
    [
        ("blocked", "SAFETY", "refusal", "SAFETY"),
        ("refusal", "", "refusal", None),
        ("tool", "x", "tool_use", None),
        ("length", "", "max_tokens", None),
        ("context", "", "model_context_window_exceeded", None),
        ("pause", "", "pause_turn", None),
        ("end", "OTHER", "end_turn", None),
    ],
)
def test_why_an_answer_ended_is_written(stop: str, detail: str, reason: str, explanation: str | None) -> None:
    answer = encode(stop=stop, detail=detail)

    assert answer["stop_reason"] == reason
    assert answer["stop_details"] == (
        {"type": "refusal", "category": None, "explanation": explanation} if explanation else None
    )


@pytest.mark.parametrize(
    ("block", "written"),
    [
        (hub.Refusal("No."), [{"type": "text", "text": "No."}]),
        (
            hub.Media(kind="image", media_type="image/png", data="iVBORw0KGgo="),
            [{"type": "text", "text": "[image image/png, which this API cannot carry]"}],
        ),
        (hub.ToolResult(call_id="t"), []),
        (hub.Opaque("gemini", "executableCode", Raw(b"{}")), []),
        (hub.Opaque("anthropic", "new", Raw(b'{"type":"new","n":1e3}')), [{"type": "new", "n": 1000.0}]),
        (hub.Reasoning("Hm."), [{"type": "thinking", "thinking": "Hm.", "signature": ""}]),
        (hub.Reasoning("Hm.", FOREIGN), [{"type": "thinking", "thinking": "Hm.", "signature": FOREIGN_WRAPPED}]),
        (hub.Reasoning("", FOREIGN), [{"type": "redacted_thinking", "data": FOREIGN_WRAPPED}]),
        (
            hub.ToolCall(id="t", name="f", arguments='{"a": 1.50}'),
            [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1.5}}],
        ),
        (
            hub.ToolCall(id="t", name="f", arguments='{"a": '),
            [{"type": "tool_use", "id": "t", "name": "f", "input": {"INVALID_JSON": '{"a": '}}],
        ),
        (
            hub.Text("So.", citations=(hub.Citation(url="https://a", cited_text="c", origin="gemini"),)),
            [
                {
                    "type": "text",
                    "text": "So.",
                    "citations": [
                        {
                            "type": "web_search_result_location",
                            "url": "https://a",
                            "title": None,
                            "cited_text": "c",
                            "encrypted_index": "gw1.c",
                        }
                    ],
                }
            ],
        ),
        (hub.Text("So.", citations=(hub.Citation(title="a file"),)), [{"type": "text", "text": "So."}]),
    ],
)
def test_each_block_is_written(block: hub.Block, written: list[object]) -> None:
    assert encode(block)["content"] == written


def test_the_numbers_of_a_call_are_written_as_they_were() -> None:
    call = hub.ToolCall(id="t", name="f", arguments='{"big": 12345678901234567890123, "n": 1.50}')
    response = hub.Response(candidates=(hub.Candidate(blocks=(call,)),))

    assert b'"input":{"big": 12345678901234567890123, "n": 1.50}' in ANTHROPIC.encode_response(response, ASKED)


@given(data=st.data())
def test_an_answer_with_any_part_replaced_is_read_or_refused(data: st.DataObject) -> None:
    body = (RECORDINGS / "tools/response.json").read_bytes()
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(start + 40, len(body))))
    junk = data.draw(st.binary(max_size=8) | st.sampled_from([b"null", b"5", b'"x"', b"[]", b"{}", b"true"]))

    try:
        response = ANTHROPIC.decode_response(body[:start] + junk + body[end:])
    except ProxyError:
        return

    assert ANTHROPIC.encode_response(response, ASKED)
