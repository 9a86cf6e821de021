"""Tool loops with reasoning, in every pair of formats: opaque state finds back to its origin, and to nobody else."""

import json
from itertools import pairwise
from typing import Any

import pytest

from tests.http.callers import Answer, Ask, Result, Tool
from tests.http.matrix import (
    CALLER,
    CELLS,
    CITY,
    FLASH,
    GEMINI_3,
    GPT_4O,
    GPT_5,
    LOCAL,
    NAMES,
    OPUS,
    SONNET,
    STREAM,
    THINKING_CELLS,
    Cell,
    Stage,
    Talk,
    count_seals,
    is_relayed,
    pairs,
)
from tests.vendors.scene import Answer as Said
from tests.vendors.scene import Call, Prompt

TOOLS = (Tool("get_weather", CITY), Tool("get_time"))
ASK = Ask(system="Be brief.", tools=TOOLS, effort="high")
PLACEHOLDER = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
SEALS = {
    # Behind two rounds of calls, and behind the words after them.
    GPT_5: (2, 3),
    OPUS: (2, 3),
    SONNET: (2, 3),
    FLASH: (0, 1),  # signs only words
    GEMINI_3: (2, 3),
}


def decide(prompt: Prompt) -> Said:
    """Call two tools, then one, then speak; think each time."""
    thought = f"Thinking of {prompt.results or prompt.text}" if prompt.thinks else ""
    if prompt.results and prompt.results[0].startswith("noon"):
        return Said(f"The tools said: {', '.join(prompt.results)}", thought=thought)
    if prompt.results:
        return Said(calls=(Call("get_time", "{}"),), thought=thought)
    if "Bye" in prompt.text:
        return Said("Good bye")
    return Said(calls=(Call("get_weather", '{"city":"Oslo"}'), Call("get_time", "{}")), thought=thought)


def sent_back(answer: Answer, *, is_bare: bool) -> list[Any]:
    return answer.bare if is_bare else answer.turn


def run_loop(stage: Stage, talk: Talk, cell: Cell, *, is_bare: bool) -> tuple[list[Answer], list[Any]]:
    """Go through both rounds, the words behind them, and one more question; return what was said and sent."""
    for vendor in stage.vendors.values():
        vendor.decide = decide
    answers = [talk.say("What is it like in Oslo?")]
    for results in ((Result("rain"), Result("one")), (Result("noon"),)):
        talk.turns += sent_back(answers[-1], is_bare=is_bare)
        talk.turns += talk.caller.answer_calls(answers[-1].calls, results)
        if not is_bare:
            talk.url = stage.other_url  # which remembers nothing
        answers.append(talk.go_on())
    talk.turns += sent_back(answers[-1], is_bare=is_bare)
    answers.append(talk.say("Bye"))
    return answers, stage.bodies(cell)


@pairs(*THINKING_CELLS)
@STREAM
def test_a_loop_keeps_its_state_in_what_the_sdk_sends_back(
    stage: Stage, name: str, cell: Cell, is_stream: bool
) -> None:
    talk = Talk(stage, name, cell.model, ASK, is_stream=is_stream)

    answers, bodies = run_loop(stage, talk, cell, is_bare=False)

    assert [len(answer.calls) for answer in answers] == [2, 1, 0, 0]
    assert [answer.text for answer in answers] == ["", "", "The tools said: noon", "Good bye"]
    assert [answer.dropped for answer in answers] == [set()] * 4
    assert [count_seals(body, cell.vendor) for body in bodies] == [0, min(1, SEALS[cell][0]), *SEALS[cell]]
    assert PLACEHOLDER not in json.dumps(bodies)


@pairs(*THINKING_CELLS, without=is_relayed)
@STREAM
def test_a_loop_keeps_its_state_where_the_client_drops_it(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    talk = Talk(stage, name, cell.model, ASK, is_stream=is_stream)

    answers, bodies = run_loop(stage, talk, cell, is_bare=True)

    assert [answer.text for answer in answers] == ["", "", "The tools said: noon", "Good bye"]
    assert [answer.dropped for answer in answers] == [set()] * 4
    assert [count_seals(body, cell.vendor) for body in bodies] == [0, min(1, SEALS[cell][0]), *SEALS[cell]]
    assert PLACEHOLDER not in json.dumps(bodies)


@pairs(*THINKING_CELLS, without=is_relayed)
@STREAM
def test_a_loop_goes_on_where_all_state_is_lost(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    for vendor in stage.vendors.values():
        vendor.decide = decide
    talk = Talk(stage, name, cell.model, ASK, is_stream=is_stream)

    first = talk.say("What is it like in Oslo?")
    talk.turns += first.bare + talk.caller.answer_calls(first.calls, [Result("rain"), Result("one")])
    talk.url = stage.other_url
    second = talk.go_on()

    assert [call.name for call in second.calls] == ["get_time"]
    assert second.dropped == ({"reasoning"} if cell is OPUS else set())


SWITCHES = {
    "there and back": (OPUS, GEMINI_3, GPT_5, OPUS),
    "all around": (SONNET, FLASH, GPT_4O, OPUS, GEMINI_3, LOCAL, GPT_5, SONNET, GEMINI_3),
    "gemini first": (GEMINI_3, GPT_5, GEMINI_3, SONNET, GEMINI_3),
    "openai first": (GPT_5, OPUS, GPT_5, GEMINI_3, GPT_5),
    "no-thoughts-first": (GPT_4O, OPUS, GPT_4O, GEMINI_3, LOCAL, FLASH, SONNET, GPT_5),
}
SWITCH = pytest.mark.parametrize(
    ("name", "cells", "is_bare"),
    [
        pytest.param(name, cells, is_bare, id=f"{name}-{switch}-{'bare' if is_bare else 'verbatim'}")
        for switch, cells in SWITCHES.items()
        for name in NAMES
        for is_bare in (False, True)
        # Where bytes are relayed, those that are missing are missing.
        if not (is_bare and any(is_relayed(name, cell) for cell in cells))
    ],
)


def effort_of(cell: Cell) -> str:
    return "" if cell in (GPT_4O, LOCAL) else "high"


@SWITCH
@STREAM
def test_the_vendor_may_change_in_mid_loop(
    stage: Stage, name: str, cells: tuple[Cell, ...], is_bare: bool, is_stream: bool
) -> None:
    def call_again(prompt: Prompt) -> Said:
        return Said(calls=(Call("get_weather", '{"city":"Oslo"}'),), thought="Again." if prompt.thinks else "")

    for vendor in stage.vendors.values():
        vendor.decide = call_again
    talk = Talk(stage, name, cells[0].model, ASK, is_stream=is_stream)
    talk.turns += talk.caller.say("What is it like in Oslo?")

    for cell in cells:
        talk.model = cell.model
        answer = talk.go_on(effort=effort_of(cell))
        assert [call[:2] for call in answer.calls] == [("get_weather", {"city": "Oslo"})]
        talk.turns += sent_back(answer, is_bare=is_bare) + talk.caller.answer_calls(answer.calls, [Result("rain")])


@SWITCH
@STREAM
def test_the_vendor_may_change_between_questions(
    stage: Stage, name: str, cells: tuple[Cell, ...], is_bare: bool, is_stream: bool
) -> None:
    talk = Talk(stage, name, cells[0].model, ASK, is_stream=is_stream)

    for cell in cells:
        talk.model = cell.model
        answer = talk.say('think, then call get_weather with {"city":"Oslo"}', effort=effort_of(cell))
        talk.turns += sent_back(answer, is_bare=is_bare) + talk.caller.answer_calls(answer.calls, [Result("rain")])
        answer = talk.go_on(effort=effort_of(cell))
        assert answer.text == "The tools said: rain"
        talk.turns += sent_back(answer, is_bare=is_bare)
    if not is_bare and cells[0] is cells[-1] and cells[0] is not GEMINI_3:
        # Its own thought of the first turn has come back, beside that of the last.
        assert count_seals(stage.body(cells[0]), cells[0].vendor) >= 2


RING = (GPT_4O, OPUS, GPT_5, GEMINI_3, LOCAL, SONNET, FLASH, GPT_4O)


@CALLER
@pytest.mark.parametrize(("first", "second"), list(pairwise(RING)), ids=str)
@STREAM
@pytest.mark.parametrize("status", [500, 429, 529])
def test_another_upstream_answers_where_the_first_fails(
    stage: Stage, name: str, first: Cell, second: Cell, is_stream: bool, status: int
) -> None:
    stage.vendors[first.upstream].decide = lambda prompt: Said(status=status)
    talk = Talk(stage, name, f"{first}-or-{second}", Ask(tools=TOOLS), is_stream=is_stream)

    answer = talk.say('call get_weather with {"city":"Oslo"}')

    assert [call[:2] for call in answer.calls] == [("get_weather", {"city": "Oslo"})]
    assert len(stage.bodies(first)) == len(stage.bodies(second)) == 1


@pairs(*CELLS, without=lambda name, cell: name == cell.vendor == "anthropic")
@STREAM
def test_tools_that_are_not_offered_any_more_may_stand_in_the_history(
    stage: Stage, name: str, cell: Cell, is_stream: bool
) -> None:
    talk = Talk(stage, name, cell.model, Ask(tools=TOOLS), is_stream=is_stream)
    answer = talk.say('call get_weather with {"city":"Oslo"}')
    talk.turns += answer.turn + talk.caller.answer_calls(answer.calls, [Result("rain")])

    second = talk.go_on(tools=())

    assert second.text == "The tools said: rain"
