from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aiproxyd import hub
from aiproxyd.providers import demo_script as script

Json = dict[str, Any]

HELLO = "Hello from the aiproxyd demo. You said: hi"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def user(*texts: str) -> hub.Turn:
    return hub.Turn("user", tuple(map(hub.Text, texts)))


def tool(name: str = "get_weather", schema: object = CITY, **fields: Any) -> hub.Tool:
    return hub.Tool(name=name, schema=Raw(msgspec.json.encode(schema)), **fields)


def ask(*turns: hub.Turn, **fields: Any) -> hub.Response:
    asked = hub.Request(model="m", turns=list(turns) or [user("hi")], **fields)
    return script.answer(asked, "answer_1", "call_1")


def said(response: hub.Response) -> str:
    (block,) = response.candidates[0].blocks
    assert isinstance(block, hub.Text)
    return block.text


def calls(response: hub.Response) -> list[hub.ToolCall]:
    return [block for block in response.candidates[0].blocks if isinstance(block, hub.ToolCall)]


# What is said


def test_an_answer_is_the_same_at_any_time() -> None:
    assert ask() == hub.Response(
        id="answer_1",
        model="m",
        created=1767225600,
        candidates=(hub.Candidate(blocks=(hub.Text(HELLO),)),),
        usage=hub.Usage(
            input_tokens=1, cache_read_tokens=0, cache_write_tokens=0, output_tokens=10, reasoning_tokens=0
        ),
        service_tier="default",
    )


def test_nobody_has_said_anything() -> None:
    assert said(ask(hub.Turn("system", (hub.Text("s"),)))) == "Hello from the aiproxyd demo. You said: "


def test_what_a_program_puts_before_the_prompt_is_echoed_but_no_wish() -> None:
    turn = user("<shell>bash</shell> city=Rome", "get_weather for city=Oslo")

    response = ask(turn, tools=[tool("shell"), tool()])
    echo = said(ask(turn))

    assert [(call.name, call.arguments) for call in calls(response)] == [("get_weather", '{"city":"Oslo"}')]
    assert echo.endswith("You said: <shell>bash</shell> city=Rome\nget_weather for city=Oslo")


def test_calls_have_ids_of_their_own_and_keep_the_namespace() -> None:
    offered = [tool("a"), tool("b", namespace="n"), tool("c", is_custom=True), tool("", CITY)]

    found = calls(ask(user("a b c"), tools=offered))

    assert [(call.id, call.name, call.namespace) for call in found] == [("call_10", "a", ""), ("call_11", "b", "n")]


def test_results_are_read_out_before_anything_else_is_looked_at() -> None:
    result = hub.ToolResult(call_id="1", content=(hub.Text("a"), hub.Media(kind="image", url="u"), hub.Text("b")))
    turns = [user("x"), hub.Turn("user", (result, hub.Text("get_weather"))), hub.Turn("system", (hub.Text("s"),))]

    assert said(ask(*turns, tools=[tool()])) == "The tool answered: a\nb"


@pytest.mark.parametrize(
    ("control", "is_shown"),
    [
        (hub.ReasoningControl(), False),
        (hub.ReasoningControl(show=True), False),
        (hub.ReasoningControl(mode="off", show=True), False),
        (hub.ReasoningControl(mode="on", show=False), False),
        (hub.ReasoningControl(mode="on"), True),
        (hub.ReasoningControl(mode="on", effort="low", show=True), True),
    ],
)
def test_thoughts_are_shown_where_they_are_asked_for(control: hub.ReasoningControl, is_shown: bool) -> None:
    response = ask(reasoning=control, candidates=2)
    usage = response.usage

    assert usage
    assert [type(block) for block in response.candidates[1].blocks] == [hub.Reasoning, hub.Text][not is_shown :]
    assert (usage.output_tokens, usage.reasoning_tokens) == ((42, 22) if is_shown else (20, 0))


# Tokens and pieces


@given(st.text())
def test_pieces_joined_give_the_text_back(text: str) -> None:
    assert "".join(script._cut_pieces(text)) == text


def test_the_input_is_all_that_was_said_and_offered() -> None:
    call = hub.ToolCall(id="1", name="get_weather", arguments='{"a":1}')
    blocks = (hub.Text("a b"), hub.Refusal("c"), hub.Reasoning("d"), call, hub.Media(kind="image", url="a b c"))
    result = hub.ToolResult(call_id="1", content=(hub.Text("sunny day"),))
    turns = [hub.Turn("assistant", blocks), hub.Turn("user", (result,))]

    asked = hub.Request(model="m", turns=turns, tools=[tool("f", True), hub.Tool(name="g")])

    assert script.count_input(asked) == (2 + 1 + 1 + 1 + 7) + 2 + 1 + 1 + 1


def test_a_stream_is_the_answer_in_pieces_with_the_input_counted_first() -> None:
    response = ask(user("get_weather city=Oslo"), tools=[tool()], candidates=2)
    assert response.usage

    start, usage, *events = script.unfold_in_pieces(response)
    deltas = [event.text for event in events if isinstance(event, hub.Delta) and event.candidate == 1]

    assert isinstance(start, hub.Start)
    assert usage == hub.UsageSeen(msgspec.structs.replace(response.usage, output_tokens=0))
    assert deltas == ['{"city', '":"', 'Oslo"}']
    assert hub.fold([start, usage, *events]) == response


def test_an_answer_without_usage_can_be_streamed() -> None:
    response = hub.Response(id="1")

    assert list(script.unfold_in_pieces(response)) == list(hub.unfold(response))


# Samples


REF = {"$defs": {"a/b": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/a~1b"}, "y": {"$ref": "#/no/way"}}}


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        (True, "{}"),
        ({"type": "string"}, "{}"),
        ({"type": "object", "properties": {"n": {"type": "integer"}}}, '{"n":1}'),
        ({"properties": {"a": {"type": "number"}, "b": {"type": "boolean"}}}, '{"a":1.5,"b":true}'),
        ({"type": "object", "required": ["r"], "properties": []}, '{"r":"demo"}'),
        ({"properties": {"a": {"type": "null"}, "b": {"type": ["null", "integer"]}}}, '{"a":null,"b":1}'),
        ({"properties": {"a": {"enum": ["x", "y"]}, "city": {"enum": ["Rome", "Oslo"]}}}, '{"a":"x","city":"Oslo"}'),
        ({"properties": {"a": {"const": 5}, "b": {"default": [7]}, "c": {"enum": []}}}, '{"a":5,"b":[7],"c":"demo"}'),
        ({"properties": {"city": {"default": "Rome"}, "days": {"default": 2}}}, '{"city":"Oslo","days":2}'),
        ({"properties": {"a": {"type": "array", "items": {"type": "integer"}}}}, '{"a":[1]}'),
        ({"properties": {"a": {"items": {}}}}, '{"a":["demo"]}'),
        ({"properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}, '{"a":1}'),
        ({"properties": {"a": {"anyOf": []}}}, '{"a":"demo"}'),
        ({"properties": {"a": {"allOf": [{"type": "integer"}]}, "b": {"oneOf": [True]}}}, '{"a":1,"b":"demo"}'),
        ({"properties": {"a": {"type": "string", "format": "date"}}}, '{"a":"2026-01-01"}'),
        (REF, '{"x":1,"y":"demo"}'),
    ],
)
def test_arguments_are_a_sample_of_the_schema(schema: object, arguments: str) -> None:
    choice = hub.ToolChoice("required")

    (call,) = calls(ask(user("city=Oslo, please"), tools=[tool(schema=schema)], tool_choice=choice))

    assert call.arguments == arguments


def test_a_tool_without_a_schema_takes_no_arguments() -> None:
    (call,) = calls(ask(user("f"), tools=[hub.Tool(name="f")]))

    assert call.arguments == "{}"


def test_a_sample_of_a_recursive_schema_is_valid_and_ends() -> None:
    node = {
        "type": "object",
        "required": ["value", "next"],
        "properties": {
            "value": {"type": "integer"},
            "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
            "children": {"type": "array", "items": {"$ref": "#"}},
        },
    }

    text = said(ask(output=hub.OutputFormat(schema=Raw(msgspec.json.encode(node)))))

    assert text == '{"value":1,"next":{"value":1,"next":{"value":1,"next":null}}}'


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}]},
        {"properties": {str(number): {"$ref": "#"} for number in range(50)}},
        {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    ],
)
def test_a_sample_is_bounded_in_depth_and_nodes(schema: Json) -> None:
    (call,) = calls(ask(tools=[tool(schema=schema)], tool_choice=hub.ToolChoice("required")))

    assert len(call.arguments) < 30_000
