"""Tools, the choice among them, and the shape of the output."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.openai_responses.tools import (
    Choice,
    Format,
    Tools,
    decode_choice,
    decode_format,
    encode_choice,
    encode_format,
    encode_tools,
)
from aiproxyd.hub import OutputFormat, ServerTool, Tool, ToolChoice

NAME = "openai-responses"
CLOSED = Raw(b'{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}')
OPEN = Raw(b'{"type":"object","properties":{"a":{"type":"string"}}}')
GRAMMAR = Raw(b'{"type":"grammar","syntax":"lark","definition":"start: \\"a\\""}')


def decode(tools: str) -> Tools:
    found = Tools()
    found.decode(msgspec.json.decode(tools, type=list[Raw]), "$.tools")
    return found


def encode(*tools: Tool, hosted: tuple[ServerTool, ...] = ()) -> Any:
    return msgspec.json.decode(msgspec.json.encode(encode_tools(tools, hosted)))


def test_a_function_is_read_flat() -> None:
    tools = decode('[{"type":"function","name":"f","description":"d","parameters":{"type":"object"},"strict":true}]')

    assert tools.own == [Tool(name="f", description="d", schema=Raw(b'{"type":"object"}'), is_strict=True)]


def test_a_function_may_take_nothing_and_leave_open_whether_it_is_strict() -> None:
    assert decode('[{"type":"function","name":"f","parameters":null,"description":null}]').own == [Tool(name="f")]


def test_a_custom_tool_is_read_with_its_grammar() -> None:
    tools = decode(
        '[{"type":"custom","name":"f","description":"d","format":' + bytes(GRAMMAR).decode() + "},"
        '{"type":"custom","name":"g","format":{"type":"text"}},{"type":"custom","name":"h"}]'
    )

    assert tools.own == [
        Tool(name="f", description="d", is_custom=True, grammar=GRAMMAR),
        Tool(name="g", is_custom=True),
        Tool(name="h", is_custom=True),
    ]


def test_the_tools_of_a_namespace_are_known_by_it() -> None:
    tools = decode(
        '[{"type":"namespace","name":"crm","description":"d","tools":'
        '[{"type":"function","name":"f"},{"type":"custom","name":"g"}]}]'
    )

    assert tools.own == [Tool(name="f", namespace="crm"), Tool(name="g", is_custom=True, namespace="crm")]


def test_tools_that_the_vendor_runs_are_kept_as_they_are() -> None:
    tools = decode('[{"type":"web_search_preview_2025_03_11","x":1},{"type":"tool_search","execution":"client"}]')

    assert tools.hosted == [
        ServerTool("web_search", NAME, Raw(b'{"type":"web_search_preview_2025_03_11","x":1}'), ("x",)),
        ServerTool("tool_search", NAME, Raw(b'{"type":"tool_search","execution":"client"}'), ("execution",)),
    ]


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ('[{"name":"f"}]', "$.tools[0]"),
        ('[{"type":"function"}]', "$.tools[0]"),
        ('[{"type":"function","function":{"name":"f"}}]', "$.tools[0]"),
        ('[{"type":"custom","name":"f","format":{"type":"lark"}}]', "$.tools[0].format.type"),
        ('[{"type":"namespace","name":"n","tools":[{"type":"function","name":7}]}]', "$.tools[0].tools[0].name"),
    ],
)
def test_misshapen_tools_are_refused_with_their_place(tools: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(tools)

    assert caught.value.param == param


def test_a_function_always_says_whether_it_is_strict_and_has_parameters() -> None:
    assert encode(Tool(name="f"), Tool(name="g", description="d", schema=OPEN, is_strict=None)) == [
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False},
        {
            "type": "function",
            "name": "g",
            "description": "d",
            "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
            "strict": False,
        },
    ]


def test_a_function_is_strict_only_where_its_schema_is_fit_for_it() -> None:
    tools = encode(
        Tool(name="f", schema=CLOSED, is_strict=True),
        Tool(name="g", schema=OPEN, is_strict=True),
        Tool(name="h", schema=CLOSED, is_strict=False),
    )

    assert [tool["strict"] for tool in tools] == [True, False, False]


def test_the_schema_of_a_function_is_that_of_an_object() -> None:
    assert encode(Tool(name="f", schema=Raw(b'{"properties":{}}')))[0]["parameters"] == {
        "type": "object",
        "properties": {},
    }


def test_custom_tools_and_those_of_namespaces_are_written_natively() -> None:
    tools = (
        Tool(name="a", is_custom=True, grammar=GRAMMAR, description="d"),
        Tool(name="b", is_custom=True, namespace="crm"),
        Tool(name="c", is_custom=True),
        Tool(name="d", is_custom=True, namespace="crm"),
    )

    assert encode(*tools) == [
        {
            "type": "custom",
            "name": "a",
            "description": "d",
            "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'},
        },
        {
            "type": "namespace",
            "name": "crm",
            "description": "The tools of crm.",
            "tools": [{"type": "custom", "name": "b"}, {"type": "custom", "name": "d"}],
        },
        {"type": "custom", "name": "c"},
    ]


def test_a_web_search_of_another_vendor_is_asked_for_without_its_options() -> None:
    hosted = (
        ServerTool("web_search", "anthropic", Raw(b'{"type":"web_search_20260318","max_uses":2}')),
        ServerTool("mcp", NAME, Raw(b'{"type":"mcp","server_label":"a"}')),
    )

    assert encode(hosted=hosted) == [{"type": "web_search"}, {"type": "mcp", "server_label": "a"}]


# --- The choice


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        (Choice("function", "f"), ToolChoice("required", ("f",))),
        (Choice("custom", "f"), ToolChoice("required", ("f",))),
        (Choice("function"), ToolChoice("auto")),
        (Choice("web_search_preview"), ToolChoice("auto")),
        (Choice("mcp", "a tool of the server's"), ToolChoice("auto")),
        (
            Choice(
                "allowed_tools", mode="required", tools=[Choice("function", "f"), Choice("mcp"), Choice("custom", "g")]
            ),
            ToolChoice("required", ("f", "g")),
        ),
        (Choice("allowed_tools", tools=[Choice("image_generation")]), ToolChoice("auto")),
    ],
)
def test_a_choice_is_read(said: str | Choice, choice: ToolChoice) -> None:
    assert decode_choice(said) == choice


def test_a_choice_among_no_tools_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="say none"):
        decode_choice(Choice("allowed_tools", tools=[]))


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="unknown tool_choice 'any'") as caught:
        decode_choice("any")

    assert caught.value.param == "$.tool_choice"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (ToolChoice("auto"), "auto"),
        (ToolChoice("none", ("f",)), "none"),
        (ToolChoice("required", ("f",)), {"type": "function", "name": "f"}),
        (ToolChoice("required", ("g",)), {"type": "custom", "name": "g"}),
        (
            ToolChoice("auto", ("f",)),
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        ),
        (
            ToolChoice("required", ("f", "g")),
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}],
            },
        ),
    ],
)
def test_a_choice_is_written(choice: ToolChoice, said: object) -> None:
    assert encode_choice(choice, [Tool(name="f"), Tool(name="g", is_custom=True)]) == said


# --- The shape of the output


@pytest.mark.parametrize(
    ("view", "output"),
    [
        (Format("text"), None),
        (Format("json_object"), OutputFormat()),
        (Format("json_schema", schema=OPEN), OutputFormat(schema=OPEN)),
        (
            Format("json_schema", "n", "d", OPEN, True),
            OutputFormat(schema=OPEN, name="n", description="d", is_strict=True),
        ),
    ],
)
def test_a_format_is_read(view: Format, output: OutputFormat | None) -> None:
    assert decode_format(view) == output


def test_a_format_without_its_schema_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="needs a schema") as caught:
        decode_format(Format("json_schema", "n"))

    assert caught.value.param == "$.text.format.schema"


@pytest.mark.parametrize(
    ("output", "written"),
    [
        (OutputFormat(), {"type": "json_object"}),
        (OutputFormat(schema=OPEN), {"type": "json_schema", "name": "response", "schema": OPEN}),
        (
            OutputFormat(schema=CLOSED, name="a city!", description="d", is_strict=True),
            {"type": "json_schema", "name": "a_city_", "schema": CLOSED, "description": "d", "strict": True},
        ),
        (
            OutputFormat(schema=OPEN, name="n", is_strict=True),
            {"type": "json_schema", "name": "n", "schema": OPEN, "strict": False},
        ),
        (
            OutputFormat(schema=CLOSED, name="n", is_strict=False),
            {"type": "json_schema", "name": "n", "schema": CLOSED, "strict": False},
        ),
    ],
)
def test_a_format_is_written(output: OutputFormat, written: dict[str, object]) -> None:
    assert encode_format(output) == written
