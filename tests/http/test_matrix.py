"""Every caller's format with every upstream's, whole and streamed: words, tools, schemas, stops, usage."""

import json

from tests.http.callers import Ask, Result, Tool
from tests.http.matrix import (
    CELLS,
    CITY,
    FLASH,
    GPT_4O,
    GPT_5,
    LOCAL,
    OPUS,
    SONNET,
    STREAM,
    THINKING_CELLS,
    Cell,
    Stage,
    Talk,
    is_relayed,
    pairs,
)
from tests.vendors.vendor import walk

WEATHER, TIME, ARGLESS = Tool("get_weather", CITY), Tool("get_time", CITY), Tool("get_time")
LONG = "look_up_the_weather_of_tomorrow_in_any_city_of_the_whole_world_by_its_name"
LONGER = f"{LONG}_or_by_its_number"

STOPS = {
    "openai-chat": {"end": "stop", "tool": "tool_calls", "length": "length", "stop sequence": "stop"},
    "openai-responses": {"end": "completed", "tool": "completed", "length": "incomplete/max_output_tokens"},
    "anthropic": {"end": "end_turn", "tool": "tool_use", "length": "max_tokens", "stop sequence": "stop_sequence"},
    "gemini": {"end": "STOP", "tool": "STOP", "length": "MAX_TOKENS", "stop sequence": "STOP"},
}
USAGES = {
    "openai-chat": (100, 40, 20, 0),
    "openai-responses": (100, 40, 20, 0),
    "anthropic": (60, 40, 20, 0),
    "gemini": (100, 40, 20, 0),
}
THINKING_USAGES = {
    "openai-chat": (100, 40, 20, 5),
    "openai-responses": (100, 40, 20, 5),
    "anthropic": (60, 40, 20, 5),
    "gemini": (100, 40, 15, 5),
}


@pairs(*CELLS)
@STREAM
def test_words_are_answered(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    answer = Talk(stage, name, cell.model, Ask(system="Be brief."), is_stream=is_stream).say("Hi there, all of you")

    assert answer.text == "You said: Hi there, all of you"
    assert answer.stop == STOPS[name]["end"]
    assert answer.dropped == set()
    assert "Be brief." in json.dumps(stage.body(cell))


@pairs(*CELLS)
@STREAM
def test_words_that_are_sent_back_keep_every_blank(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, is_stream=is_stream)

    answer = talk.say("one                    two\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nthree")
    talk.turns += answer.turn
    talk.say("Bye")

    said = [value for _, key, value in walk(stage.body(cell), "$") if key in ("text", "content")]
    assert answer.text in "".join(value for value in said if isinstance(value, str))


@pairs(*CELLS)
@STREAM
def test_the_usage_is_counted_as_the_callers_format_counts(
    stage: Stage, name: str, cell: Cell, is_stream: bool
) -> None:
    answer = Talk(stage, name, cell.model, is_stream=is_stream).say("Hi")

    usage = answer.usage
    assert (usage.input, usage.cached, usage.output, usage.reasoning or 0) == USAGES[name]


@pairs(*THINKING_CELLS)
@STREAM
def test_thoughts_are_shown_and_counted(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    answer = Talk(stage, name, cell.model, Ask(effort="high"), is_stream=is_stream).say("think")

    assert answer.text == "You said: think"
    is_shown = (name, cell) != ("openai-chat", GPT_5)  # OpenAI's own chat completions do not show any
    assert answer.thoughts == ("Thinking about: think" if is_shown else "")
    assert answer.usage == THINKING_USAGES[name]
    assert answer.dropped == set()


@pairs(*CELLS)
@STREAM
def test_a_tool_is_called_and_used(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, Ask(tools=[WEATHER]), is_stream=is_stream)

    answer = talk.say('call get_weather with {"city":"Łódź, \\"centre\\""}')
    talk.turns += answer.turn + talk.caller.answer_calls(answer.calls, [Result("rain")])
    second = talk.go_on()

    assert [call[:2] for call in answer.calls] == [("get_weather", {"city": 'Łódź, "centre"'})]
    assert answer.text == ""
    assert answer.stop == STOPS[name]["tool"]
    assert second.text == "The tools said: rain"


@pairs(*CELLS)
@STREAM
def test_two_tools_are_called_at_once(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, Ask(tools=[WEATHER, TIME]), is_stream=is_stream)

    answer = talk.say('call get_weather with {"city":"Oslo in Norway"} and call get_time with {"city":"Rome in Italy"}')
    talk.turns += answer.turn + talk.caller.answer_calls(answer.calls, [Result("rain"), Result("noon")])
    second = talk.go_on()

    assert [call[:2] for call in answer.calls] == [
        ("get_weather", {"city": "Oslo in Norway"}),
        ("get_time", {"city": "Rome in Italy"}),
    ]
    assert second.text == "The tools said: rain, noon"


@pairs(*CELLS, without=lambda name, cell: (name, cell) == ("gemini", FLASH))  # has no ids, but the order
@STREAM
def test_one_tool_is_called_twice_and_answered_in_another_order(
    stage: Stage, name: str, cell: Cell, is_stream: bool
) -> None:
    talk = Talk(stage, name, cell.model, Ask(tools=[TIME]), is_stream=is_stream)

    answer = talk.say('call get_time with {"city":"Oslo"} and call get_time with {"city":"Rome"}')
    talk.turns += answer.turn
    talk.turns += talk.caller.answer_calls(answer.calls[::-1], [Result("one in Rome"), Result("noon in Oslo")])
    second = talk.go_on()

    assert len({call.id for call in answer.calls}) == 2
    assert "noon in Oslo" in second.text
    assert "one in Rome" in second.text


@pairs(*CELLS)
@STREAM
def test_a_tool_without_arguments_is_called(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, Ask(tools=[ARGLESS]), is_stream=is_stream)

    answer = talk.say("call get_time")
    talk.turns += answer.turn + talk.caller.answer_calls(answer.calls, [Result("noon")])
    second = talk.go_on()

    assert [call[:2] for call in answer.calls] == [("get_time", {})]
    assert second.text == "The tools said: noon"


@pairs(*CELLS)
def test_a_tool_that_fails_says_so(stage: Stage, name: str, cell: Cell) -> None:
    talk = Talk(stage, name, cell.model, Ask(tools=[WEATHER]))

    answer = talk.say('call get_weather with {"city":"Oslo"}')
    talk.turns += answer.turn + talk.caller.answer_calls(answer.calls, [Result("no such city", is_error=True)])
    second = talk.go_on()

    # The formats of OpenAI have no field for it.
    is_told = name in ("anthropic", "gemini")
    assert second.text == ("The tools said: Error: no such city" if is_told else "The tools said: no such city")


@pairs(*CELLS, without=lambda name, cell: (name, cell) == ("anthropic", SONNET))
@STREAM
def test_a_tool_can_be_demanded(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, Ask(tools=[WEATHER, TIME]), is_stream=is_stream)

    named = talk.say("Hi", must_call="get_time")
    talk.turns.clear()
    anyone = talk.say("Hi", must_call="any")

    if cell is SONNET:
        assert named.dropped == anyone.dropped == {"tool_choice"}
    else:
        assert [call.name for call in named.calls] == ["get_time"]
        assert [call.name for call in anyone.calls] == ["get_weather"]


@pairs(*CELLS, without=lambda name, cell: is_relayed(name, cell) and cell.vendor == "openai")
@STREAM
def test_long_names_that_begin_alike_stay_apart(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, Ask(tools=[Tool(LONG, CITY), Tool(LONGER, CITY)]), is_stream=is_stream)

    answer = talk.say(f"call {LONGER}") if cell is SONNET else talk.say("Hi", must_call=LONGER)
    talk.turns += answer.turn + talk.caller.answer_calls(answer.calls, [Result("rain")])
    second = talk.go_on()

    assert [call[:2] for call in answer.calls] == [(LONGER, {"city": "text"})]
    assert second.text == "The tools said: rain"


@pairs(*CELLS)
@STREAM
def test_an_answer_keeps_to_a_schema(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    schema = {**CITY, "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}}}
    schema["required"] = ["city", "degrees"]

    answer = Talk(stage, name, cell.model, Ask(schema=schema), is_stream=is_stream).say("json, please")

    assert json.loads(answer.text) == {"city": "text", "degrees": 1}
    assert answer.dropped == set()


@pairs(*CELLS)
@STREAM
def test_an_answer_that_gets_too_long_says_so(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    answer = Talk(stage, name, cell.model, Ask(max_tokens=64), is_stream=is_stream).say("long")

    assert answer.text == "You said: long"
    assert answer.stop == STOPS[name]["length"]
    assert "64" in json.dumps(stage.body(cell))


@pairs(*CELLS, without=lambda name, cell: name == "openai-responses" or (name, cell) == ("openai-chat", GPT_5))
@STREAM
def test_stop_sequences_stop(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    answer = Talk(stage, name, cell.model, Ask(stop=["END"]), is_stream=is_stream).say("a stop sequence")

    if cell is GPT_5:
        assert answer.dropped == {"stop"}
    else:
        assert "END" in json.dumps(stage.body(cell))
        assert answer.dropped == set()
    # Only Anthropic tells a stop sequence from an end.
    is_told = cell in (OPUS, SONNET)
    assert answer.stop == STOPS[name]["stop sequence" if is_told else "end"]


@pairs(*CELLS)
@STREAM
def test_a_refusal_is_one(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, is_stream=is_stream)

    answer = talk.say("refuse")

    is_openai = cell in (GPT_4O, GPT_5, LOCAL)
    stops = {
        "openai-chat": "stop" if is_openai else "content_filter",
        "openai-responses": "completed",
        "anthropic": "refusal",
        "gemini": "SAFETY",
    }
    assert answer.stop == stops[name]
    if name == "gemini" and not is_openai:
        assert b'"I cannot help with that."' in talk.caller.received  # the SDK does not show a finishMessage
    else:
        assert answer.text + answer.refusal == "I cannot help with that."
