"""Every caller's format with every upstream's: arguments of calls that a model did not get right, or not to the end."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.http.callers import Ask, Result, Tool
from tests.http.matrix import CITY, FLASH, GEMINI_3, GPT_4O, GPT_5, LOCAL, OPUS, SONNET, Cell, Stage, Talk, pairs
from tests.vendors.scene import Answer, Call

CUT = '{"city": "Os'
ASK = Ask(tools=(Tool("get_weather", CITY),))


# Streams in Anthropic's format tell arguments piece by piece, as Anthropic's own do.
@pytest.mark.parametrize(("name", "is_stream"), [("anthropic", False), ("gemini", False), ("gemini", True)])
@pytest.mark.parametrize("cell", [LOCAL, GPT_5], ids=str)
def test_callers_that_take_objects_get_bad_arguments_in_one(
    stage: Stage, name: str, cell: Cell, is_stream: bool
) -> None:
    stage.vendors[cell.upstream].decide = lambda prompt: Answer(calls=(Call("get_weather", CUT),))
    talk = Talk(stage, name, cell.model, ASK, is_stream=is_stream)

    answer = talk.say("Weather?")

    assert [call[:2] for call in answer.calls] == [("get_weather", {"INVALID_JSON": CUT})]
    stage.vendors[cell.upstream].decide = lambda prompt: Answer("Sorry.")
    talk.turns += answer.turn + talk.caller.answer_calls(answer.calls, [Result("what?")])
    assert talk.go_on().text == "Sorry."
    assert json.dumps(CUT) in json.dumps(stage.body(cell))


HISTORY: Mapping[str, list[Any]] = {
    "openai-chat": [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": CUT}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "what?"},
    ],
    "openai-responses": [
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": CUT},
        {"type": "function_call_output", "call_id": "call_1", "output": "what?"},
    ],
}


@pairs(GPT_4O, GPT_5, LOCAL, OPUS, SONNET, FLASH, GEMINI_3, without=lambda name, cell: name not in HISTORY)
def test_a_history_with_bad_arguments_can_be_gone_on_from(stage: Stage, name: str, cell: Cell) -> None:
    talk = Talk(stage, name, cell.model, ASK)
    talk.turns += [*talk.caller.say("Weather?"), *HISTORY[name]]

    answer = talk.go_on()

    assert answer.text == "The tools said: what?"
    sent = CUT if cell.format.startswith("openai-") else {"INVALID_JSON": CUT}
    assert json.dumps(sent) in json.dumps(stage.body(cell))
