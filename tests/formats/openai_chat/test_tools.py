from typing import Any

import msgspec
import pytest
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats import OPENAI_CHAT
from aiproxyd.formats.openai_chat.tools import encode_tool, encode_tool_choice
from tests.formats.openai_chat.strategies import GRAMMAR, LOOSE, STRICT


def decode(**fields: object) -> hub.Request:
    return OPENAI_CHAT.decode_request(msgspec.json.encode({"model": "m", "messages": [], **fields}))


def test_a_function_is_a_tool_with_its_schema_as_it_came() -> None:
    body = b"""{"model":"m","messages":[],"tools":[
        {"type":"function","function":
            {"name":"f","description":"d","parameters":{ "type" : "object", "x": 1.50},"strict":true}},
        {"type":"function","function":{"name":"g","description":null,"parameters":null,"strict":null}}]}"""

    assert OPENAI_CHAT.decode_request(body).tools == [
        hub.Tool(name="f", description="d", schema=Raw(b'{ "type" : "object", "x": 1.50}'), is_strict=True),
        hub.Tool(name="g"),
    ]


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "function": {"name": "f"}, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "function", "function": {"name": "f", "cache_control": {"type": "ephemeral", "ttl": "1h"}}},
        {"type": "function", "function": {"name": "f"}, "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}},
    ],
)
def test_a_tool_may_carry_a_cache_mark(tool: object) -> None:
    assert decode(tools=[tool]).tools == [hub.Tool(name="f", cache=hub.CacheMark("1h"))]


def test_a_custom_tool_takes_text_and_its_grammar_is_flat() -> None:
    nested = {"type": "grammar", "grammar": {"syntax": "lark", "definition": 'start: "a"'}}

    assert decode(
        tools=[
            {"type": "custom", "custom": {"name": "f", "description": "d", "format": nested}},
            {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}, "cache_control": {}},
        ]
    ).tools == [
        hub.Tool(name="f", description="d", is_custom=True, grammar=GRAMMAR),
        hub.Tool(name="g", is_custom=True, cache=hub.CacheMark()),
    ]


def test_functions_of_the_deprecated_field_are_tools() -> None:
    request = decode(functions=[{"name": "f", "description": "d"}], function_call={"name": "f"})

    assert request.tools == [hub.Tool(name="f", description="d")]
    assert request.tool_choice == hub.ToolChoice("required", ("f",))


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": None}, None),
        ({"tool_choice": "none"}, hub.ToolChoice("none")),
        ({"tool_choice": "auto"}, hub.ToolChoice("auto")),
        ({"tool_choice": "required"}, hub.ToolChoice("required")),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, hub.ToolChoice("required", ("f",))),
        ({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, hub.ToolChoice("required", ("f",))),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "auto",
                        "tools": [
                            {"type": "function", "function": {"name": "f"}},
                            {"type": "custom", "custom": {"name": "g"}},
                            {"type": "other"},
                        ],
                    },
                }
            },
            hub.ToolChoice("auto", ("f", "g")),
        ),
        ({"function_call": "none"}, hub.ToolChoice("none")),
        ({"function_call": "auto"}, hub.ToolChoice("auto")),
    ],
)
def test_a_choice_of_tools_is_read_in_every_spelling(fields: dict[str, Any], choice: hub.ToolChoice | None) -> None:
    assert decode(**fields).tool_choice == choice


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "$.tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "$.tools[0].function"),
        (
            {"tools": [{"type": "custom", "custom": {"name": "f", "format": {"type": "x"}}}]},
            "$.tools[0].custom.format.type",
        ),
        ({"tool_choice": "any"}, "$.tool_choice"),
        ({"tool_choice": {"type": "function"}}, "$.tool_choice"),
    ],
)
def test_what_is_no_tool_and_no_choice_is_refused_with_its_place(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(**fields)

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("tool", "encoded"),
    [
        (hub.Tool(name="f"), {"type": "function", "function": {"name": "f"}}),
        (
            hub.Tool(name="f", description="d", schema=Raw(b'{"properties":{}}'), is_strict=False),
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "parameters": Raw(b'{"type":"object","properties":{}}'),
                    "strict": False,
                },
            },
        ),
        (
            hub.Tool(name="f", schema=STRICT, is_strict=True),
            {"type": "function", "function": {"name": "f", "parameters": STRICT, "strict": True}},
        ),
        (
            hub.Tool(name="f", schema=LOOSE, is_strict=True),
            {"type": "function", "function": {"name": "f", "parameters": LOOSE, "strict": False}},
        ),
        (hub.Tool(name="f", is_strict=True), {"type": "function", "function": {"name": "f", "strict": False}}),
        (
            hub.Tool(name="f", is_custom=True, grammar=GRAMMAR),
            {
                "type": "custom",
                "custom": {
                    "name": "f",
                    "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": 'start: "a"'}},
                },
            },
        ),
        (hub.Tool(name="f", is_custom=True), {"type": "custom", "custom": {"name": "f"}}),
        (
            hub.Tool(name="f", is_custom=True, grammar=Raw(b'{"type":"text"}')),
            {"type": "custom", "custom": {"name": "f"}},
        ),
    ],
)
def test_a_tool_is_written(tool: hub.Tool, encoded: object) -> None:
    assert encode_tool(tool) == encoded


def test_a_choice_of_tools_is_written() -> None:
    tools = [hub.Tool(name="f"), hub.Tool(name="g", is_custom=True)]
    f, g = {"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}

    def allowed(mode: str, *named: object) -> object:
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(named)}}

    assert encode_tool_choice(hub.ToolChoice("auto"), tools) == "auto"
    assert encode_tool_choice(hub.ToolChoice("none", ("f",)), tools) == "none"
    assert encode_tool_choice(hub.ToolChoice("required"), tools) == "required"
    assert encode_tool_choice(hub.ToolChoice("required", ("f",)), tools) == f
    assert encode_tool_choice(hub.ToolChoice("required", ("g",)), tools) == g
    assert encode_tool_choice(hub.ToolChoice("auto", ("f",)), tools) == allowed("auto", f)
    assert encode_tool_choice(hub.ToolChoice("required", ("f", "g")), tools) == allowed("required", f, g)
