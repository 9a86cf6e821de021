"""Requests of the Messages API."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import ANTHROPIC
from aiproxyd.formats.codec import Losses
from tests.formats.anthropic.strategies import requests

RECORDINGS = Path(__file__).parents[2] / "recordings/anthropic"
CASES = sorted(path.parent.name for path in RECORDINGS.glob("*/request.json"))
ADAPTIVE = Capabilities(reasoning="adaptive", default_output_tokens=500)
BUDGET = Capabilities(reasoning="budget")
HI = [{"role": "user", "content": "hi"}]
SCHEMA = Raw(b'{"type":"object","properties":{},"additionalProperties":false}')
SCHEMA_TOLD = {"type": "object", "properties": {}, "additionalProperties": False}
USER = hub.Turn("user", (hub.Text("hi"),))


def decode(**members: object) -> hub.Request:
    return ANTHROPIC.decode_request(
        msgspec.json.encode({"model": "claude-5", "max_tokens": 64, "messages": HI} | members)
    )


def encode(capabilities: Capabilities = ADAPTIVE, **members: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the body of a request without its model and messages, and what was lost."""
    losses = Losses()
    made: dict[str, Any] = {"model": "claude-5", "turns": [USER], "max_output_tokens": 64} | members
    request = hub.Request(**made)
    body = msgspec.json.decode(ANTHROPIC.encode_request(request, capabilities, losses))
    return {key: value for key, value in body.items() if key not in ("model", "messages", "max_tokens")}, losses.names


# --- There and back


@given(request=requests())
def test_what_is_encoded_is_decoded_to_what_it_was(request: hub.Request) -> None:
    losses = Losses()

    body = ANTHROPIC.encode_request(request, ADAPTIVE, losses)

    assert ANTHROPIC.decode_request(body) == request
    assert losses.names == []


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_request_comes_back_as_it_was(case: str) -> None:
    body = msgspec.json.format((RECORDINGS / case / "request.json").read_bytes(), indent=-1)
    request = ANTHROPIC.decode_request(body)
    losses = Losses()

    again = ANTHROPIC.decode_request(ANTHROPIC.encode_request(request, ADAPTIVE, losses))

    assert (again, losses.names) == (request, [])


def test_a_budget_comes_back_where_the_model_has_budgets() -> None:
    request = decode(thinking={"type": "enabled", "budget_tokens": 2048})

    assert ANTHROPIC.decode_request(ANTHROPIC.encode_request(request, BUDGET, Losses())) == request


# --- Decoding


def test_the_simplest_request_is_decoded() -> None:
    assert decode() == hub.Request(model="claude-5", turns=[USER], max_output_tokens=64)


def test_every_field_is_decoded() -> None:
    request = decode(
        max_tokens=0,
        temperature=1,
        top_p=0.5,
        top_k=7,
        stop_sequences=["END"],
        stream=True,
        service_tier="standard_only",
        metadata={"user_id": "user_7"},
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        tools=[
            {"name": "f", "type": "custom", "strict": True, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {"name": "g", "description": "G", "input_schema": SCHEMA_TOLD, "defer_loading": True, "type": None},
        ],
    )

    assert request == hub.Request(
        model="claude-5",
        turns=[USER],
        tools=[
            hub.Tool(name="f", is_strict=True, cache=hub.CacheMark("1h")),
            hub.Tool(name="g", description="G", schema=SCHEMA),
        ],
        tool_choice=hub.ToolChoice("required", ("f",)),
        parallel_tool_calls=False,
        max_output_tokens=0,
        temperature=1,
        top_p=0.5,
        top_k=7,
        stop=["END"],
        user="user_7",
        service_tier="default",
        stream=True,
    )


def test_fields_that_are_null_are_not_there() -> None:
    names = ["max_tokens", "system", "tools", "tool_choice", "thinking", "output_config", "metadata", "stop_sequences"]
    more = ["stream", "service_tier", "temperature", "container", "mcp_servers", "thread", "cache_control", "betas"]

    assert decode(**dict.fromkeys(names + more)) == hub.Request(model="claude-5", turns=[USER])


def test_the_body_of_count_tokens_is_decoded() -> None:
    request = ANTHROPIC.decode_request(b'{"model":"claude-5","messages":[{"role":"user","content":"hi"}]}')

    assert request == hub.Request(model="claude-5", turns=[USER])


@pytest.mark.parametrize(
    ("system", "turns"),
    [
        ("Be brief.", [hub.Turn("system", (hub.Text("Be brief."),)), USER]),
        ("", [USER]),
        ([], [USER]),
        (
            [
                {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330.abc"},
                {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "Be brief."},
            ],
            [
                hub.Turn(
                    "system",
                    (hub.Text("You are Claude Code.", cache=hub.CacheMark("5m")), hub.Text("Be brief.")),
                ),
                USER,
            ],
        ),
        ("x-anthropic-billing-header: cc_version=2.1.330.abc", [USER]),
    ],
)
def test_the_system_prompt_is_the_first_turn(system: object, turns: list[hub.Turn]) -> None:
    assert decode(system=system).turns == turns


def test_a_conversation_is_arranged() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "content": "b"},
        {"role": "system", "content": "Note."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "c"}, {"type": "tool_result", "tool_use_id": "t", "content": "ok"}],
        },
    ]

    assert decode(messages=messages).turns == [
        hub.Turn("user", (hub.Text("a"), hub.Text("b"))),
        hub.Turn("system", (hub.Text("Note."),)),
        hub.Turn("assistant", (hub.ToolCall(id="t", name="f", arguments="{}"),)),
        hub.Turn("user", (hub.ToolResult(call_id="t", content=(hub.Text("ok"),)), hub.Text("c"))),
    ]


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("web_search_20260318", "web_search"),
        ("web_fetch_20250910", "web_fetch"),
        ("bash_20250124", "bash"),
        ("tool_search_tool_bm25_20251119", "tool_search"),
        ("tool_search_tool_regex", "tool_search"),
        ("mcp_toolset", "mcp_toolset"),
    ],
)
def test_tools_that_anthropic_runs_are_known_by_their_kind(type_: str, kind: str) -> None:
    tool = {"type": type_, "name": "x", "max_uses": 3, "cache_control": {"type": "ephemeral"}, "user_location": None}

    request = decode(tools=[tool])

    raw = Raw(msgspec.json.encode(tool))
    assert request.server_tools == [hub.ServerTool(kind, "anthropic", raw, ("max_uses",))]
    assert request.extensions == {}


@pytest.mark.parametrize(
    ("choice", "read", "parallel"),
    [
        ({"type": "auto"}, hub.ToolChoice("auto"), None),
        ({"type": "auto", "disable_parallel_tool_use": True}, hub.ToolChoice("auto"), False),
        ({"type": "any", "disable_parallel_tool_use": False}, hub.ToolChoice("required"), None),
        ({"type": "none"}, hub.ToolChoice("none"), None),
    ],
)
def test_the_choice_of_tools_is_decoded(choice: object, read: hub.ToolChoice, parallel: bool | None) -> None:
    request = decode(tool_choice=choice)

    assert (request.tool_choice, request.parallel_tool_calls) == (read, parallel)


@pytest.mark.parametrize(
    ("members", "control"),
    [
        ({"thinking": {"type": "disabled"}}, hub.ReasoningControl(mode="off")),
        ({"thinking": {"type": "between_tools"}}, hub.ReasoningControl(mode="on", show=True)),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            hub.ReasoningControl(mode="on", budget_tokens=2048, show=True),
        ),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max"}},
            hub.ReasoningControl(mode="on", effort="max", show=False),
        ),
        ({"thinking": {"type": "adaptive", "display": "updates"}}, hub.ReasoningControl(mode="on", show=True)),
        ({"output_config": {"effort": "low"}}, hub.ReasoningControl(effort="low")),
    ],
)
def test_how_much_to_think_is_decoded(members: dict[str, object], control: hub.ReasoningControl) -> None:
    assert decode(**members).reasoning == control


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_the_shape_of_the_answer_is_decoded(name: str) -> None:
    wanted = {"type": "json_schema", "schema": SCHEMA_TOLD}

    request = decode(**{name: {"format": wanted} if name == "output_config" else wanted})

    assert request.output == hub.OutputFormat(schema=SCHEMA, is_strict=True)


def test_fields_that_nothing_stands_for_are_named() -> None:
    request = decode(
        context_management={"edits": []},
        safeguards=[],
        diagnostics=None,
        # Nobody misses where it is to be cached.
        cache_control={"type": "ephemeral"},
        mcp_servers=[],
        metadata={"user_id": None},
        service_tier="new",
    )

    assert request.extensions == {
        "context_management": Raw(b'{"edits":[]}'),
        "safeguards": Raw(b"[]"),
    }
    assert (request.user, request.service_tier) == ("", "new")


def test_what_nothing_stands_for_in_tools_and_output_is_named() -> None:
    plain = {"name": "f", "input_schema": {"type": "object"}}
    request = decode(
        output_config={"effort": "low", "task_budget": {"total": 5}, "x_new": None},
        tools=[
            plain | {"defer_loading": True, "eager_input_streaming": True, "allowed_callers": ["direct"]},
            plain | {"name": "g", "type": "custom", "input_examples": [{}], "cache_control": None},
            plain | {"name": "h", "type": None, "allowed_callers": ["code_execution_20260120"]},
        ],
    )

    assert request.extensions == {
        "output_config.task_budget": Raw(b'{"total":5}'),
        "tools.input_examples": Raw(b"[{}]"),
        "tools.allowed_callers": Raw(b'["code_execution_20260120"]'),
    }
    assert [tool.name for tool in request.tools] == ["f", "g", "h"]
    assert decode(output_config=None, tools=None).extensions == {}


@pytest.mark.parametrize("indent", [-1, 0, 2])
def test_tools_that_only_the_model_calls_lose_nothing_however_the_body_is_laid_out(indent: int) -> None:
    body = {
        "model": "claude-x",
        "max_tokens": 5,
        "messages": [
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}, "caller": {"type": "direct"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "ok"}]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}, "allowed_callers": ["direct"]}],
    }

    asked = ANTHROPIC.decode_request(msgspec.json.format(msgspec.json.encode(body), indent=indent))

    assert asked.extensions == {}


def test_what_nobody_else_knows_of_blocks_and_settings_is_named() -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "a", "tone": "dry"}]}
    call = {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}, "caller": {"type": "direct"}}
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a", "pages": 2}}

    extensions = decode(
        system=[{"type": "text", "text": "Be brief.", "weight": 2}],
        messages=[
            {"role": "user", "content": [document | {"icon": None}], "mood": "good"},
            {"role": "assistant", "content": [call | {"toolset_name": "t"}]},
            {"role": "user", "content": [result, {"type": "novelty", "of": "tomorrow"}]},
        ],
        tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}, {"name": "f", "mode": "fast"}],
        tool_choice={"type": "auto", "why": "so"},
        thinking={"type": "adaptive", "depth": 3},
        metadata={"user_id": "u", "team": "t"},
        output_config={"format": {"type": "json_schema", "schema": {"y": 1}, "name": "n"}},
    ).extensions

    assert {name: bytes(raw) for name, raw in extensions.items()} == {
        "system.weight": b"null",
        "messages.content.source.pages": b"null",
        "messages.mood": b"null",
        "messages.content.toolset_name": b"null",
        "messages.content.content.tone": b"null",
        "tools.mode": b'"fast"',
        "tool_choice.why": b'"so"',
        "thinking.depth": b"3",
        "metadata.team": b'"t"',
        "output_config.format.name": b'"n"',
    }


def test_a_thread_is_refused_in_the_words_that_make_sdks_go_on_without() -> None:
    with pytest.raises(InvalidRequest) as caught:
        ANTHROPIC.refuse_state(decode(thread={"type": "continue", "previous_message_id": "msg_1"}))

    assert caught.value.param == "$.thread"
    assert msgspec.json.decode(ANTHROPIC.encode_error(caught.value, "req_1"))["error"]["details"] == {
        "error_code": "thread_unsupported_request",
        "unsupported": ["thread"],
    }


def test_a_thread_is_refused_where_a_part_of_the_conversation_is_missing_too() -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}

    with pytest.raises(InvalidRequest) as caught:
        decode(thread={"type": "continue"}, messages=[{"role": "user", "content": [result]}])

    assert caught.value.param == "$.thread"


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"container": "container_1"}, "$.container"),
        ({"container": {"id": "container_1", "skills": []}}, "$.container"),
        ({"mcp_servers": [{"type": "url", "url": "https://a", "name": "a"}]}, "$.mcp_servers"),
    ],
)
def test_what_only_anthropic_has_is_read_and_refused_to_others(members: dict[str, object], param: str) -> None:
    request = decode(**members)

    assert set(request.extensions) == set(members)
    with pytest.raises(InvalidRequest) as caught:
        ANTHROPIC.refuse_state(request)
    assert caught.value.param == param


@pytest.mark.parametrize("members", [{}, {"container": None}, {"mcp_servers": []}, {"thread": None}])
def test_what_says_nothing_of_the_vendors_state_is_not_refused(members: dict[str, object]) -> None:
    request = decode(**members)
    ANTHROPIC.refuse_state(request)

    assert request.extensions == {}


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"max_tokens": -1}, "$.max_tokens"),
        ({"messages": "hi"}, "$.messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "$.messages[0].role"),
        ({"messages": [*HI, {"role": "user", "content": [{"type": "text"}]}]}, "$.messages[1].content[0]"),
        ({"messages": [{"role": "user", "content": None}]}, "$.messages[0].content"),
        ({"system": [{"type": "image"}]}, "$.system[0].type"),
        ({"tools": [{"name": "f"}, {"input_schema": {}}]}, "$.tools[1].name"),
        ({"tools": [{"name": "f", "input_schema": []}]}, "$.tools[0].input_schema"),
        ({"tools": [{"name": 5}]}, "$.tools[0].name"),
        ({"tool_choice": {"type": "tool"}}, "$.tool_choice.name"),
        ({"tool_choice": {"type": "maybe"}}, "$.tool_choice.type"),
        ({"output_config": {"effort": "minimal"}}, "$.output_config.effort"),
        ({"output_config": {"format": {"type": "json_schema", "schema": []}}}, "$.output_config.format.schema"),
        ({"output_format": {"type": "json_schema", "schema": 5}}, "$.output_format.schema"),
        ({"stop_sequences": "END"}, "$.stop_sequences"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_path(members: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(**members)

    assert caught.value.param == param


def test_the_path_stands_in_the_message_too_for_the_format_has_no_other_place() -> None:
    with pytest.raises(InvalidRequest, match=r"missing required field `text` - at `\$\.messages\[0\]\.content\[0\]`$"):
        decode(messages=[{"role": "user", "content": [{"type": "text"}]}])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"model":"m","messages":[],"\xff":1}',
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"\xff"}]}]}',
        b'{"model":"m","messages":[],"output_format":{"type":"json_schema","schema":{"a":"\xff"}}}',
        b'{"model":"m","messages":[],"tools":[{"name":"f","input_schema":{"a":"\xff"}}]}',
        b'{"model":"m","messages":' + b"[" * 9999,
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        ANTHROPIC.decode_request(body)


@given(case=st.sampled_from(CASES), data=st.data())
def test_a_request_with_any_part_replaced_is_read_or_refused(case: str, data: st.DataObject) -> None:
    body = (RECORDINGS / case / "request.json").read_bytes()
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(start + 40, len(body))))
    junk = data.draw(st.binary(max_size=8) | st.sampled_from([b"null", b"5", b'"x"', b"[]", b"{}", b"true"]))

    try:
        request = ANTHROPIC.decode_request(body[:start] + junk + body[end:])
        written = ANTHROPIC.encode_request(request, ADAPTIVE, Losses())
    except InvalidRequest:
        return

    assert written


# --- Encoding


def test_the_simplest_request_is_encoded() -> None:
    request = hub.Request(model="claude-5", turns=[USER])

    assert ANTHROPIC.encode_request(request, ADAPTIVE, Losses()) == (
        b'{"model":"claude-5","max_tokens":500,"messages":[{"role":"user","content":"hi"}]}'
    )


@pytest.mark.parametrize(
    ("members", "body"),
    [
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"top_p": 0.5, "top_k": 3}, {"top_p": 0.5, "top_k": 3}),
        ({"stream": True}, {"stream": True}),
        ({"stop": ["END"]}, {"stop_sequences": ["END"]}),
        ({"user": "user_7"}, {"metadata": {"user_id": "user_7"}}),
        ({"service_tier": "priority"}, {"service_tier": "auto"}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"reasoning": hub.ReasoningControl(mode="off")}, {"thinking": {"type": "disabled"}}),
        (
            {"reasoning": hub.ReasoningControl(mode="on", effort="minimal", show=True)},
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "low"}},
        ),
        (
            {
                "reasoning": hub.ReasoningControl(mode="on", effort="high", budget_tokens=2048, show=True),
                "capabilities": BUDGET,
            },
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        ),
        (
            {"output": hub.OutputFormat(schema=Raw(b'{"type":"object"}'), name="n")},
            {
                "output_config": {
                    "format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}}
                }
            },
        ),
        ({"tool_choice": hub.ToolChoice("auto"), "parallel_tool_calls": False}, {}),
    ],
)
def test_each_field_is_encoded(members: dict[str, Any], body: dict[str, object]) -> None:
    assert encode(**members) == (body, [])


@pytest.mark.parametrize(
    ("members", "body", "lost"),
    [
        ({"stop": [" ", "END", "\n"]}, {"stop_sequences": ["END"]}, "stop"),
        ({"stop": [""]}, {}, "stop"),
        ({"user": "jane@example.org"}, {}, "user"),
        ({"user": "+41 44 123 45 67"}, {}, "user"),
        ({"service_tier": "flex"}, {}, "service_tier"),
    ],
)
def test_what_the_api_refuses_is_lost(members: dict[str, Any], body: dict[str, object], lost: str) -> None:
    assert encode(**members) == (body, [lost])


@pytest.mark.parametrize(
    ("turns", "system"),
    [
        ([hub.Turn("system", (hub.Text("Write Json."),)), USER], "Write Json."),
        ([USER], None),
    ],
)
def test_that_the_answer_is_to_be_json_is_left_to_words(turns: list[hub.Turn], system: str | None) -> None:
    body, lost = encode(turns=turns, output=hub.OutputFormat())

    assert (body.get("system"), lost) == (system, ["output_format"])


@pytest.mark.parametrize(
    ("blocks", "system"),
    [
        ((hub.Text("a"), hub.Text("b")), "a\n\nb"),
        (
            (hub.Text("a", cache=hub.CacheMark("5m")), hub.Text("b")),
            [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}],
        ),
        ((hub.Text(" "),), None),
        ((hub.Opaque("anthropic", "new", Raw(b'{"type":"new"}')),), [{"type": "new"}]),
    ],
)
def test_the_system_prompt_is_text_unless_it_is_marked(blocks: tuple[hub.Block, ...], system: object) -> None:
    body, _ = encode(turns=[hub.Turn("system", blocks), USER])

    assert body.get("system") == system


def test_a_system_prompt_of_anything_but_text_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="anything but text in a system prompt"):
        encode(turns=[hub.Turn("system", (hub.Media(kind="image", url="https://a"),))])


def test_messages_of_which_nothing_is_left_are_left_out() -> None:
    turns = [hub.Turn("user", (hub.Text(" "),)), hub.Turn("system", (hub.Text("Note."),)), USER]

    body = ANTHROPIC.encode_request(hub.Request(model="m", turns=turns), ADAPTIVE, Losses())

    assert msgspec.json.decode(body)["messages"] == [
        {"role": "system", "content": "Note."},
        {"role": "user", "content": "hi"},
    ]


def test_tools_are_written_with_what_the_api_wants() -> None:
    tools = [
        hub.Tool(name="none"),
        hub.Tool(name="loose", description="L", schema=Raw(b'{"properties":{}}'), is_strict=False),
        hub.Tool(name="strict", schema=Raw(b'{"type":"object"}'), is_strict=True, cache=hub.CacheMark("5m")),
    ]
    searches = [
        hub.ServerTool("web_search", "gemini", Raw(b'{"googleSearch":{}}')),
        hub.ServerTool("web_fetch", "anthropic", Raw(b'{"type":"web_fetch_20250910","name":"web_fetch"}')),
    ]

    body, _ = encode(tools=tools, server_tools=searches)

    assert body["tools"] == [
        {"name": "none", "input_schema": {"type": "object", "properties": {}}},
        {"name": "loose", "description": "L", "input_schema": {"type": "object", "properties": {}}},
        {
            "name": "strict",
            "input_schema": {"type": "object", "additionalProperties": False},
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        },
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "web_fetch_20250910", "name": "web_fetch"},
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (hub.ToolChoice("auto"), True, {"type": "auto"}),
        (hub.ToolChoice("none"), False, {"type": "none"}),
        (hub.ToolChoice("required"), False, {"type": "any", "disable_parallel_tool_use": True}),
        (hub.ToolChoice("required", ("f",)), False, {"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
        (hub.ToolChoice("required", ("f", "g")), None, {"type": "any"}),
    ],
)
def test_the_choice_of_tools_is_written(choice: hub.ToolChoice | None, parallel: bool | None, written: object) -> None:
    body, lost = encode(tools=[hub.Tool(name="f")], tool_choice=choice, parallel_tool_calls=parallel)

    assert (body.get("tool_choice"), lost) == (written, [])


def test_cache_marks_count_from_the_tools_on() -> None:
    mark = hub.CacheMark("5m")
    turns = [hub.Turn("system", (hub.Text("s", cache=mark),))]
    turns += [hub.Turn("user", tuple(hub.Text(word, cache=mark) for word in "abcd"))]

    body, lost = encode(turns=turns, tools=[hub.Tool(name="f", cache=mark)])

    assert "cache_control" not in body["tools"][0]
    assert body["system"] == [{"type": "text", "text": "s"}]
    assert lost == ["cache_control"]
