"""Whole answers."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from openai.types.responses import Response as SDKResponse

from aiproxyd.errors import UpstreamCut, UpstreamError, UpstreamGarbage, UpstreamKeyRefused, UpstreamRefusal
from aiproxyd.formats import OPENAI_RESPONSES
from aiproxyd.formats.openai_responses.answers import decode_response, encode_response, read_usage
from aiproxyd.hub import (
    Candidate,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    Response,
    Seal,
    Text,
    TokenLogprob,
    ToolCall,
    ToolResult,
    Usage,
)
from tests.formats.openai_responses.strategies import responses

NAME = "openai-responses"
ASKED = Request(model="asked", turns=[])


def decode(**fields: object) -> Response:
    return decode_response(msgspec.json.encode({"object": "response", "output": [], **fields}))


def encode(candidate: Candidate, asked: Request = ASKED, **fields: Any) -> Any:
    return msgspec.json.decode(encode_response(Response(candidates=(candidate,), **fields), asked))


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (b"null", None),
        (b"{}", Usage()),
        (b'{"input_tokens":5,"output_tokens":0}', Usage(input_tokens=5, output_tokens=0)),
        (
            b'{"input_tokens":50,"input_tokens_details":{"cached_tokens":20,"cache_write_tokens":10}}',
            Usage(input_tokens=20, cache_read_tokens=20, cache_write_tokens=10),
        ),
        (
            b'{"input_tokens":5,"input_tokens_details":{"cached_tokens":20}}',
            Usage(input_tokens=0, cache_read_tokens=20),
        ),
        (b'{"input_tokens_details":{"cached_tokens":20}}', Usage(cache_read_tokens=20)),
        (
            b'{"output_tokens":7,"output_tokens_details":{"reasoning_tokens":3}}',
            Usage(output_tokens=7, reasoning_tokens=3),
        ),
        (b'{"input_tokens":5.5}', None),
        (b'"5"', None),
    ],
)
def test_usage_is_read_into_disjoint_buckets(usage: bytes, read: Usage | None) -> None:
    assert read_usage(Raw(usage)) == read


def test_an_answer_is_read() -> None:
    response = decode(
        id="resp_1",
        model="gpt",
        created_at=1763856002.0,
        status="completed",
        service_tier="default",
        output=[
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
            {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        ],
        usage={"input_tokens": 1, "output_tokens": 2},
    )

    assert response == Response(
        id="resp_1",
        model="gpt",
        created=1763856002,
        candidates=(
            Candidate(
                blocks=(
                    Reasoning("", Seal(NAME, "encrypted", "gAAA", "rs_1")),
                    Text("Hi"),
                    ToolCall(id="c", name="f", arguments="{}"),
                )
            ),
        ),
        usage=Usage(input_tokens=1, output_tokens=2),
        service_tier="default",
    )


def test_the_probabilities_of_all_texts_are_those_of_the_answer() -> None:
    def message(token: str) -> dict[str, object]:
        part = {"type": "output_text", "text": token, "logprobs": [{"token": token, "logprob": -1.0}]}
        return {"type": "message", "content": [part]}

    assert decode(output=[message("a"), message("b")]).candidates[0].logprobs == (
        TokenLogprob("a", -1.0),
        TokenLogprob("b", -1.0),
    )


def test_what_does_not_matter_may_be_misshapen() -> None:
    assert decode(id=7, model=None, created_at="now", service_tier=[], usage="many", incomplete_details=7) == Response()


@pytest.mark.parametrize(
    ("fields", "stop", "detail"),
    [
        ({"status": "completed"}, "end", ""),
        ({"status": 7}, "end", ""),
        ({"status": "incomplete"}, "length", ""),
        ({"status": "incomplete", "incomplete_details": {"reason": None}}, "length", ""),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length", ""),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "refusal", ""),
        ({"status": "incomplete", "incomplete_details": {"reason": "steered"}}, "end", "steered"),
        (
            {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]},
            "refusal",
            "",
        ),
    ],
)
def test_an_answer_ends_for_a_reason(fields: dict[str, object], stop: str, detail: str) -> None:
    [candidate] = decode(**fields).candidates

    assert (candidate.stop, candidate.detail) == (stop, detail)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow"}}, UpstreamRefusal, "slow"),
        ({"status": "failed"}, UpstreamRefusal, "the upstream reported an error"),
        ({"status": "completed", "error": {"message": "no"}}, UpstreamRefusal, "no"),
        ({"error": {"code": "invalid_api_key", "message": "sk-up"}}, UpstreamKeyRefused, "credential"),
        ({"status": "cancelled"}, UpstreamCut, "cancelled"),
        ({"output": "Hi"}, UpstreamGarbage, "has no output"),
        ({"output": None}, UpstreamGarbage, "has no output"),
    ],
)
def test_an_answer_that_is_none_is_an_error(
    fields: dict[str, object], error: type[UpstreamError], message: str
) -> None:
    with pytest.raises(error, match=message):
        decode(**fields)


def test_an_answer_that_failed_is_gone_once_it_was_told() -> None:
    with pytest.raises(UpstreamRefusal) as caught:
        decode(status="failed")

    innermost = caught.traceback[-1].frame
    assert innermost.code.name == "decode_response"
    assert "failure" not in innermost.f_locals


@pytest.mark.parametrize(
    ("body", "message"), [(b"[]", "is no response"), (b"<html>", "is not JSON"), (b"", "is not JSON")]
)
def test_garbage_is_said_to_be_such(body: bytes, message: str) -> None:
    with pytest.raises(UpstreamGarbage, match=message):
        decode_response(body)


# --- And back


def test_an_answer_has_every_field_that_its_type_demands() -> None:
    written = encode(
        Candidate(blocks=(Text("Hi"),)),
        id="resp_1",
        model="claude",
        created=7,
        usage=Usage(input_tokens=1, cache_read_tokens=20, output_tokens=5, reasoning_tokens=2),
    )

    item_id = written["output"][0].pop("id")
    assert item_id.startswith("msg_")
    assert written == {
        "id": "resp_1",
        "object": "response",
        "created_at": 7,
        "model": "claude",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": [
            {
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hi"}],
            }
        ],
        "usage": {
            "input_tokens": 21,
            "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 26,
        },
        "background": False,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "user": None,
        "service_tier": None,
    }
    assert SDKResponse.model_validate({**written, "output": []}, strict=True).id == "resp_1"


def test_an_answer_repeats_what_was_asked() -> None:
    asked = Request(model="asked", turns=[], echo={"temperature": Raw(b"0.50"), "tools": Raw(b'[{"type":"x"}]')})

    body = encode_response(Response(), asked)

    assert b'"temperature":0.50' in body
    assert b'"tools":[{"type":"x"}]' in body


def test_what_the_upstream_does_not_say_is_made_up() -> None:
    written = encode(Candidate())

    assert written["id"].startswith("resp_")
    assert written["model"] == "asked"
    assert written["created_at"] > 1_700_000_000
    assert written["usage"]["total_tokens"] == 0
    assert written["output"] == []


@pytest.mark.parametrize(
    ("candidate", "status", "reason"),
    [
        (Candidate(stop="end"), "completed", None),
        (Candidate(stop="tool"), "completed", None),
        (Candidate(stop="stop_sequence", stop_sequence="X"), "completed", None),
        (Candidate(stop="length"), "incomplete", "max_output_tokens"),
        (Candidate(stop="pause"), "incomplete", "max_output_tokens"),
        (Candidate(stop="context"), "incomplete", "max_output_tokens"),
        (Candidate(stop="refusal"), "incomplete", "content_filter"),
        (Candidate(stop="blocked"), "incomplete", "content_filter"),
        (Candidate(stop="refusal", blocks=(Refusal("No."),)), "completed", None),
        (Candidate(stop="refusal", blocks=(Text("I can"),)), "incomplete", "content_filter"),
    ],
)
def test_the_status_tells_why_an_answer_ended(candidate: Candidate, status: str, reason: str | None) -> None:
    written = encode(candidate)

    assert written["status"] == status
    assert written["incomplete_details"] == (reason and {"reason": reason})


def test_an_answer_that_was_not_given_says_why_where_the_vendor_tells() -> None:
    told = encode(Candidate(stop="refusal", detail="This is about weapons."))

    assert told["output"][0]["content"] == [{"type": "refusal", "refusal": "This is about weapons."}]
    assert told["status"] == "completed"
    assert encode(Candidate(stop="blocked", detail="SAFETY"))["output"][0]["content"][0]["refusal"] == "SAFETY"
    assert encode(Candidate(stop="end", detail="MALFORMED"))["output"] == []


def test_blocks_without_an_item_are_left_out() -> None:
    blocks = (
        ToolResult(call_id="c"),
        Opaque("anthropic", "x", Raw(b"{}")),
        Text("a"),
        Media(kind="image", media_type="image/png", data="iVBO"),
    )

    assert [item["type"] for item in encode(Candidate(blocks=blocks))["output"]] == ["message", "image_generation_call"]


def test_probabilities_are_those_of_the_last_text() -> None:
    candidate = Candidate(
        blocks=(Text("a"), Text("b"), ToolCall(id="c", name="f", arguments="{}")),
        logprobs=(TokenLogprob("a", -1.0, (97,)),),
    )

    first, second, _ = encode(candidate)["output"]

    assert first["content"][0]["logprobs"] == []
    assert [logprob["token"] for logprob in second["content"][0]["logprobs"]] == ["a"]


def test_an_answer_without_candidates_is_empty() -> None:
    assert msgspec.json.decode(encode_response(Response(candidates=()), ASKED))["output"] == []


@given(response=responses())
def test_what_is_written_is_read_back(response: Response) -> None:
    assert OPENAI_RESPONSES.decode_response(OPENAI_RESPONSES.encode_response(response, ASKED)) == response


SEALED = st.builds(
    Reasoning,
    st.text(max_size=9),
    st.builds(Seal, st.just(NAME), st.just("encrypted"), st.text("aé", min_size=1), st.just("rs_1")),
)


@given(response=responses(SEALED))
def test_a_thought_keeps_its_seal(response: Response) -> None:
    assert OPENAI_RESPONSES.decode_response(OPENAI_RESPONSES.encode_response(response, ASKED)) == response


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["message", "function_call", "failed"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "content", "text", "output", "status", "error", "usage", "name", "arguments", "summary"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(
    body=st.binary(max_size=40)
    | JSON.map(msgspec.json.encode)
    | JSON.map(lambda o: msgspec.json.encode({"output": [o]}))
)
def test_any_answer_is_read_or_said_to_be_none(body: bytes) -> None:
    try:
        response = OPENAI_RESPONSES.decode_response(body)
    except UpstreamError:
        return
    assert msgspec.json.decode(OPENAI_RESPONSES.encode_response(response, ASKED))
