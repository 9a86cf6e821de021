"""Whole requests."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import OPENAI_RESPONSES
from aiproxyd.formats.codec import Losses
from aiproxyd.formats.openai_responses.requests import decode_request, encode_request
from aiproxyd.hub import OutputFormat, ReasoningControl, Request, ServerTool, Text, Tool, ToolCall, ToolResult, Turn
from tests.formats.openai_responses.strategies import requests

NAME = "openai-responses"
RECORDINGS = Path(__file__).parents[2] / "recordings" / NAME
HI = [Turn("user", (Text("Hi"),))]
REASONING = Capabilities(reasoning="effort")


def decode(**fields: object) -> Request:
    return decode_request(msgspec.json.encode({"model": "m", "input": "Hi", **fields}))


def encode(request: Request, capabilities: Capabilities = REASONING) -> Any:
    return msgspec.json.decode(encode_request(request, capabilities))


def test_a_text_is_what_the_user_says() -> None:
    assert decode() == Request(model="m", turns=HI)


def test_instructions_lead_the_conversation() -> None:
    request = decode(
        instructions="Be brief.",
        input=[{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
    )

    assert request.turns == [Turn("system", (Text("Be brief."), Text("Be kind."))), *HI]


def test_outputs_stand_behind_their_calls() -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    request = decode(
        input=[
            {**call, "call_id": "a"},
            {**call, "call_id": "b"},
            {"type": "function_call_output", "call_id": "b", "output": "2"},
            {"role": "user", "content": "so?"},
            {"type": "function_call_output", "call_id": "a", "output": "1"},
        ]
    )

    assert request.turns == [
        Turn("assistant", (ToolCall(id="a", name="f", arguments="{}"), ToolCall(id="b", name="f", arguments="{}"))),
        Turn(
            "user",
            (
                ToolResult(call_id="a", content=(Text("1"),)),
                ToolResult(call_id="b", content=(Text("2"),)),
                Text("so?"),
            ),
        ),
    ]


def test_every_field_that_others_understand_is_read() -> None:
    request = decode(
        max_output_tokens=100,
        temperature=0,
        top_p=0.5,
        top_logprobs=2,
        parallel_tool_calls=False,
        stream=True,
        metadata={"a": "b"},
        user="old",
        safety_identifier="new",
        service_tier="flex",
        prompt_cache_key="k",
        reasoning={"effort": "high", "summary": "detailed"},
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        tools=[{"type": "function", "name": "f"}, {"type": "web_search"}],
        tool_choice={"type": "function", "name": "f"},
    )

    assert replace(request, echo={}) == Request(
        model="m",
        turns=HI,
        tools=[Tool(name="f")],
        server_tools=[ServerTool("web_search", NAME, Raw(b'{"type":"web_search"}'))],
        tool_choice=request.tool_choice,
        parallel_tool_calls=False,
        max_output_tokens=100,
        temperature=0.0,
        top_p=0.5,
        logprobs=True,
        top_logprobs=2,
        reasoning=ReasoningControl(mode="on", effort="high", show=True),
        output=OutputFormat(),
        user="new",
        service_tier="flex",
        verbosity="low",
        cache_key="k",
        metadata={"a": "b"},
        stream=True,
    )


@pytest.mark.parametrize(
    ("said", "control"),
    [
        ({}, ReasoningControl()),
        ({"context": "all_turns"}, ReasoningControl()),
        ({"effort": "none"}, ReasoningControl(mode="off")),
        ({"effort": None, "summary": "auto"}, ReasoningControl(show=True)),
        ({"effort": "max", "generate_summary": "concise"}, ReasoningControl(mode="on", effort="max", show=True)),
    ],
)
def test_reasoning_is_read(said: dict[str, object], control: ReasoningControl) -> None:
    assert decode(reasoning=said).reasoning == control


def test_probabilities_are_asked_for_among_what_is_to_be_included() -> None:
    assert decode(include=["message.output_text.logprobs"]).logprobs
    assert not decode(include=["reasoning.encrypted_content"], top_logprobs=0).logprobs


def test_what_nobody_misses_is_no_extension_and_the_rest_is() -> None:
    request = decode(
        store=True,
        include=["web_search_call.action.sources"],
        client_metadata={"a": 1},
        background=False,
        truncation="disabled",
        max_tool_calls=None,
        context_management=[{"type": "compaction"}],
        x_new=1,
        reasoning={"mode": "standard"},
    )

    assert request.extensions == {"context_management": Raw(b'[{"type":"compaction"}]'), "x_new": Raw(b"1")}
    assert decode(truncation="auto", reasoning={"mode": "pro"}).extensions == {
        "truncation": Raw(b'"auto"'),
        "reasoning.mode": Raw(b'"pro"'),
    }


def test_what_is_said_in_words_that_others_lack_is_named() -> None:
    function = {"type": "function", "name": "f", "strict": False, "defer_loading": False, "async": True}

    assert decode(
        tools=[
            function | {"output_schema": {"type": "object"}},
            {"type": "custom", "name": "c", "defer_loading": True},
        ],
        tool_choice={"type": "web_search"},
        reasoning={"effort": "low", "context": "current_turn", "style": "brief"},
        text={"verbosity": "low", "tone": "dry", "format": None},
    ).extensions == {
        "tool_choice": Raw(b'{"type":"web_search"}'),
        "reasoning.context": Raw(b'"current_turn"'),
        "reasoning.style": Raw(b'"brief"'),
        "text.tone": Raw(b'"dry"'),
        "tools.async": Raw(b"true"),
        "tools.output_schema": Raw(b'{"type":"object"}'),
        "tools.defer_loading": Raw(b"true"),
    }


def test_what_nobody_else_knows_of_items_and_formats_is_named() -> None:
    text = {"type": "output_text", "text": "hi", "annotations": [], "logprobs": [{"token": "hi"}], "voice": "low"}
    said = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [text]}
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "async": True}
    output = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "", "x": 1}]}
    searched = {"type": "web_search_call", "id": "ws_1", "action": {"type": "search"}}

    extensions = decode(
        input=[
            {"role": "user", "content": "Hi", "mood": "good"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "", "y": 1}]},
            said,
            searched,
            call | {"caller": {"type": "direct"}},
            output | {"caller": {"type": "program", "caller_id": "p"}},
        ],
        tools=[
            {"type": "namespace", "name": "n", "description": "Mine.", "icon": "i", "tools": []},
            {"type": "namespace", "name": "m", "description": "", "tools": [{"type": "function", "name": "f", "z": 1}]},
            {"type": "web_search", "filters": {"a": 1}},
        ],
        tool_choice={"type": "function", "name": "f", "force": 1},
        text={"format": {"type": "json_schema", "name": "n", "schema": {"y": 1}, "grammar": "g"}},
    ).extensions

    assert {name: bytes(raw) for name, raw in extensions.items()} == {
        "input.mood": b"null",
        "input.summary.y": b"null",
        "input.content.voice": b"null",
        "input.async": b"null",
        "input.output.x": b"null",
        "input.caller": b"null",
        "tools.namespace.description": b'"Mine."',
        "tools.namespace.icon": b'"i"',
        "tools.z": b"1",
        "tool_choice.force": b"1",
        "text.format.grammar": b'"g"',
    }


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]}, []),
        ({"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}, {"type": "mcp"}]}, ["tool_choice"]),
        ({"type": "function", "name": "f"}, []),
        ({"type": "function"}, ["tool_choice"]),
        ("required", []),
    ],
)
def test_a_choice_of_a_hosted_tool_is_named(choice: object, names: list[str]) -> None:
    assert list(decode(tool_choice=choice).extensions) == names


@pytest.mark.parametrize("context", [None, "auto", "all_turns"])
def test_the_thoughts_of_all_turns_are_sent_anyway(context: str | None) -> None:
    assert decode(reasoning={"context": context}).extensions == {}


def test_what_the_answer_repeats_is_kept_in_the_callers_words() -> None:
    request = decode(instructions="Be brief.", temperature=0.50, tools=[], metadata=None, store=True, stream=False)

    assert request.echo == {"instructions": Raw(b'"Be brief."'), "temperature": Raw(b"0.5"), "tools": Raw(b"[]")}


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"previous_response_id": "resp_1"}, "$.previous_response_id", "send the earlier items in `input`"),
        ({"conversation": {"id": "conv_1"}}, "$.conversation", "nothing is stored here"),
        ({"prompt": {"id": "pmpt_1"}}, "$.prompt", "send its text in `instructions` or `input`"),
        ({"background": True}, "$.background", "answers are not stored here"),
        ({"input": None}, "$.input", "missing required field `input`"),
        ({"input": 7}, "$.input", "Expected `str | array | null`"),
        ({"reasoning": {"effort": "huge"}}, "$.reasoning.effort", "Invalid enum value 'huge'"),
        ({"tool_choice": "any"}, "$.tool_choice", "unknown tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "$.text.format.type", "Invalid enum value 'xml'"),
        ({"metadata": {"a": 1}}, "$.metadata[...]", "Expected `str`"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]}, None, "has no call"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_place(
    fields: dict[str, object], param: str | None, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        decode(**fields)

    assert caught.value.param == param


# --- And back


def test_a_small_request_says_what_the_api_would_otherwise_assume() -> None:
    assert encode(Request(model="m", turns=HI), Capabilities()) == {
        "model": "m",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        "store": False,
    }


def test_a_model_that_reasons_gives_its_thoughts_encrypted() -> None:
    assert encode(Request(model="m", turns=HI))["include"] == ["reasoning.encrypted_content"]
    assert encode(Request(model="m", turns=HI, logprobs=True, top_logprobs=3))["include"] == [
        "reasoning.encrypted_content",
        "message.output_text.logprobs",
    ]
    assert encode(Request(model="m", turns=HI, logprobs=True), Capabilities())["include"] == [
        "message.output_text.logprobs"
    ]


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (ReasoningControl(), None),
        (ReasoningControl(show=True), {"summary": "auto"}),
        (ReasoningControl(mode="off", show=True), {"effort": "none"}),
        (ReasoningControl(mode="on", effort="xhigh", show=False), {"effort": "xhigh"}),
        (ReasoningControl(mode="on", effort="low", show=True), {"effort": "low", "summary": "auto"}),
    ],
)
def test_reasoning_is_written(control: ReasoningControl, said: object) -> None:
    request = Request(model="m", turns=HI, reasoning=control)

    assert encode(request).get("reasoning") == said
    assert "reasoning" not in encode(request, Capabilities())


def test_an_output_limit_is_not_below_what_the_api_takes() -> None:
    assert encode(Request(model="m", turns=HI, max_output_tokens=1))["max_output_tokens"] == 16
    assert encode(Request(model="m", turns=HI, max_output_tokens=17))["max_output_tokens"] == 17


def test_labels_that_are_too_long_are_told_apart_all_the_same() -> None:
    long = encode(Request(model="m", turns=HI, user="u" * 129, cache_key="k" * 65))
    fit = encode(Request(model="m", turns=HI, user="u" * 128, cache_key="k" * 64))

    assert long["safety_identifier"] == "4d9221bd88fe7fa3f1cdc7d81c70b9484f37615f92178eafa3f6c525e6fa786f"
    assert len(long["prompt_cache_key"]) == 64
    assert (fit["safety_identifier"], fit["prompt_cache_key"]) == ("u" * 128, "k" * 64)


def test_a_full_request_is_written() -> None:
    request = Request(
        model="m",
        turns=[Turn("system", (Text("Be brief."),)), *HI, Turn("system", (Text("Now."),))],
        tools=[Tool(name="f", is_custom=True)],
        tool_choice=decode(tool_choice="required").tool_choice,
        parallel_tool_calls=False,
        temperature=0.0,
        top_p=1.0,
        output=OutputFormat(),
        user="u",
        service_tier="flex",
        verbosity="low",
        metadata={"a": "b"},
        stream=True,
    )

    assert encode(request, Capabilities()) == {
        "model": "m",
        "instructions": "Be brief.",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Now."}]},
        ],
        "tools": [{"type": "custom", "name": "f"}],
        "tool_choice": "required",
        "store": False,
        "temperature": 0.0,
        "top_p": 1.0,
        "parallel_tool_calls": False,
        "metadata": {"a": "b"},
        "safety_identifier": "u",
        "service_tier": "flex",
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "stream": True,
    }


def test_a_request_goes_to_its_path() -> None:
    assert OPENAI_RESPONSES.request_path(Request(model="m", turns=[])) == ("/v1/responses", "")


@pytest.mark.parametrize("case", sorted(path.parent.name for path in RECORDINGS.glob("*/request.json")))
def test_a_recorded_request_is_written_so_that_it_is_read_again_as_the_same(case: str) -> None:
    asked = decode_request((RECORDINGS / case / "request.json").read_bytes())

    read = decode_request(encode_request(asked, REASONING))

    assert (read.turns, read.server_tools, read.output) == (asked.turns, asked.server_tools, asked.output)
    assert [(tool.name, tool.namespace) for tool in read.tools] == [(tool.name, tool.namespace) for tool in asked.tools]


@given(request=requests())
def test_what_is_written_is_read_back(request: Request) -> None:
    losses = Losses()

    body = OPENAI_RESPONSES.encode_request(request, REASONING, losses)

    assert replace(OPENAI_RESPONSES.decode_request(body), echo={}) == request
    assert losses.names == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["message", "user", "function_call", "{}", "c"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "call_id", "name", "arguments", "output", "summary", "tools"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(request=requests(), name=st.sampled_from(["input", "tools", "reasoning", "text", "tool_choice"]), value=JSON)
def test_any_request_is_read_or_refused(request: Request, name: str, value: object) -> None:
    body = msgspec.json.decode(OPENAI_RESPONSES.encode_request(request, REASONING, Losses())) | {name: value}

    try:
        read = OPENAI_RESPONSES.decode_request(msgspec.json.encode(body))
    except InvalidRequest as exc:
        assert exc.message  # noqa: PT017  # not raising is as good
        return
    assert read.model == request.model
