"""Every caller's format with every upstream's: what is left out is named, in a strict gateway refused, and no more."""

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.http.callers import Ask, Result, Tool
from tests.http.matrix import (
    BAD_REQUESTS,
    CELLS,
    CITY,
    FLASH,
    GEMINI_3,
    GPT_4O,
    GPT_5,
    LOCAL,
    OPUS,
    SONNET,
    STREAM,
    Cell,
    Stage,
    Talk,
    is_own,
    pairs,
)
from tests.support import Reply, upstream_section

CHAT: Mapping[str, Any] = {
    "seed": 7,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"50256": -100},
    "temperature": 0.5,
    "top_p": 0.5,
    "verbosity": "low",
    "metadata": {"k": "v"},
    "safety_identifier": "u-1",
    "store": False,
}
RESPONSES: Mapping[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "text": {"verbosity": "low"},
    "metadata": {"k": "v"},
    "safety_identifier": "u-1",
    "client_metadata": {"k": "v"},
    "truncation": "disabled",
}
ANTHROPIC: Mapping[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 40,
    "metadata": {"user_id": "u-1"},
    "service_tier": "auto",
}
GEMINI: Mapping[str, Any] = {
    "generationConfig": {
        "temperature": 0.5,
        "topP": 0.5,
        "topK": 40,
        "seed": 7,
        "presencePenalty": 0.5,
        "frequencyPenalty": 0.5,
    }
}
TURNED = {"openai-chat": CHAT, "openai-responses": RESPONSES, "anthropic": ANTHROPIC, "gemini": GEMINI}
SAMPLING = {"temperature", "top_p"}
PENALTIES = {"presence_penalty", "frequency_penalty"}
DROPPED: Mapping[str, Mapping[Cell, set[str]]] = {
    "openai-chat": {
        OPUS: {"seed", *PENALTIES, "logit_bias", "top_p"},
        SONNET: {"seed", *PENALTIES, "logit_bias", *SAMPLING},
        FLASH: {"logit_bias"},
        GEMINI_3: {"logit_bias", *PENALTIES},
        LOCAL: set(),
    },
    "openai-responses": {OPUS: {"top_p"}, SONNET: SAMPLING, FLASH: set(), GEMINI_3: set(), LOCAL: set()},
    "anthropic": {GPT_4O: {"top_k"}, GPT_5: {"top_k", *SAMPLING}, LOCAL: {"top_k"}, FLASH: set(), GEMINI_3: set()},
    "gemini": {
        GPT_4O: {"top_k"},
        GPT_5: {"top_k", *SAMPLING, *PENALTIES},
        LOCAL: {"top_k"},
        OPUS: {"top_p", "seed", *PENALTIES},
        SONNET: {"top_k", "seed", *SAMPLING, *PENALTIES},
    },
}


@pairs(*CELLS, without=is_own)
@STREAM
def test_the_knobs_that_an_upstream_lacks_are_named(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    answer = Talk(stage, name, cell.model, Ask(fields=TURNED[name]), is_stream=is_stream).say("Hi")

    expected = DROPPED[name][cell]
    assert answer.dropped == expected
    found = re.search(r" dropped=(\S+)", stage.log().splitlines()[-1])
    assert set(found[1].strip('"').split(",") if found else ()) == expected
    halves = json.dumps(TURNED[name]).count("0.5")
    assert json.dumps(stage.body(cell)).count("0.5") == halves - len(expected & (SAMPLING | PENALTIES))


@pairs(*CELLS, without=is_own)
def test_a_strict_gateway_refuses_what_it_would_leave_out(stage: Stage, name: str, cell: Cell) -> None:
    talk = Talk(stage, name, cell.model, Ask(fields=TURNED[name]))
    talk.url = stage.strict_url
    expected = DROPPED[name][cell]

    if expected:
        problem = talk.fail("Hi")
        assert problem[:2] == (BAD_REQUESTS[name], 400)
        assert [word for word in expected if word not in problem.message] == []
        assert stage.bodies(cell) == []
    else:
        assert talk.say("Hi").text == "You said: Hi"


@pairs(*CELLS, without=is_own)
@pytest.mark.parametrize("is_strict", [False, True], ids=["lenient", "strict"])
def test_a_field_that_nobody_knows_is_named(stage: Stage, name: str, cell: Cell, is_strict: bool) -> None:
    talk = Talk(stage, name, cell.model, Ask(fields={"brandNew": {"a": [1]}}))

    if is_strict:
        talk.url = stage.strict_url
        assert "brandNew" in talk.fail("Hi").message
        assert stage.bodies(cell) == []
    else:
        assert talk.say("Hi").dropped == {"brandNew"}
        assert "brandNew" not in json.dumps(stage.body(cell))


@pairs(*CELLS, without=is_own)
@STREAM
def test_a_strict_gateway_takes_what_can_be_said(stage: Stage, name: str, cell: Cell, is_stream: bool) -> None:
    ask = Ask(system="Be brief.", tools=[Tool("get_weather", CITY)], max_tokens=100)
    talk = Talk(stage, name, cell.model, ask, is_stream=is_stream)
    talk.url = stage.strict_url

    answer = talk.say('call get_weather with {"city":"Oslo"}')
    talk.turns += answer.turn + talk.caller.answer_calls(answer.calls, [Result("rain")])

    assert talk.go_on().text == "The tools said: rain"


KNOWN_ELSEWHERE: Mapping[str, Mapping[str, Any]] = {
    "openai-chat": {"prediction": {"type": "content", "content": "x"}, "moderation": {"model": "m"}},
    "openai-responses": {"max_tool_calls": 3, "truncation": "auto", "context_management": [{"type": "compaction"}]},
    "anthropic": {
        "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
        "safeguards": [{"type": "x"}],
        "inference_geo": "eu",
        "diagnostics": {"a": 1},
    },
    "gemini": {
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "labels": {"a": "b"},
    },
}


@pairs(*CELLS, without=is_own)
def test_what_only_the_callers_vendor_has_is_named(stage: Stage, name: str, cell: Cell) -> None:
    fields = KNOWN_ELSEWHERE[name]

    assert Talk(stage, name, cell.model, Ask(fields=fields)).say("Hi").dropped == set(fields)


MANY_TOKENS: Mapping[str, Any] = {
    "openai-chat": {"max_completion_tokens": 200_000},
    "openai-responses": {"max_output_tokens": 200_000},
    "anthropic": {"max_tokens": 200_000},
    "gemini": {"generationConfig": {"maxOutputTokens": 200_000}},
}


@pairs(*CELLS, without=is_own)
def test_an_output_limit_that_is_lowered_is_named(stage: Stage, name: str, cell: Cell) -> None:
    talk = Talk(stage, name, cell.model, Ask(fields=MANY_TOKENS[name]))

    assert talk.say("Hi").dropped == {"max_output_tokens"}

    talk.url = stage.strict_url
    assert "max_output_tokens" in talk.fail("Hi").message


SCHEMAS: Mapping[str, tuple[str, Any]] = {
    "openai-responses": ("$.text.format.schema", {"text": {"format": {"type": "json_schema", "name": "n"}}}),
    "anthropic": ("$.output_config.format.schema", {"output_config": {"format": {"type": "json_schema"}}}),
    "gemini": ("$.generationConfig", {"generationConfig": {"responseMimeType": "application/json"}}),
}
LIST = {"type": "array", "items": {"type": "string"}}


def ask_for_list(name: str) -> Ask:
    fields = copy.deepcopy(SCHEMAS[name][1])
    match name:
        case "gemini":
            fields["generationConfig"]["responseJsonSchema"] = LIST
        case "anthropic":
            fields["output_config"]["format"]["schema"] = LIST
        case _:
            fields["text"]["format"]["schema"] = LIST
    return Ask(fields=fields)


@pairs(GPT_4O, GPT_5, without=lambda name, cell: name not in SCHEMAS or is_own(name, cell))
@STREAM
def test_a_list_is_no_answer_of_openais_and_it_is_said_what_is(
    stage: Stage, name: str, cell: Cell, is_stream: bool
) -> None:
    problem = Talk(stage, name, cell.model, ask_for_list(name), is_stream=is_stream).fail("json")

    assert problem[:2] == (BAD_REQUESTS[name], 400)
    assert "property of an object" in problem.message
    assert SCHEMAS[name][0].removeprefix("$.") in problem.message
    assert stage.bodies(cell) == []


@pairs(LOCAL, OPUS, FLASH, GEMINI_3, without=lambda name, cell: name not in SCHEMAS or is_own(name, cell))
def test_a_list_is_an_answer_elsewhere(stage: Stage, name: str, cell: Cell) -> None:
    answer = Talk(stage, name, cell.model, ask_for_list(name)).say("json")

    assert (json.loads(answer.text), answer.dropped) == (["text"], set())


def test_what_is_only_stored_with_an_answer_is_named_where_none_is(stage: Stage) -> None:
    section = upstream_section(stage.upstreams["openai"], "openai", "openai", "api = chat\nflavour = first-party")
    url = stage.start_gateway(section)
    talk = Talk(stage, "openai-responses", "gpt-4o", Ask(fields={"metadata": {"k": "v"}}))
    talk.url = url

    answer = talk.say("Hi")

    assert (answer.text, answer.dropped) == ("You said: Hi", {"metadata"})
    assert stage.refusals == []


# --- What is stored at a vendor


STORED: list[tuple[str, dict[str, Any], str]] = [
    ("openai-responses", {"previous_response_id": "resp_1"}, "previous_response_id"),
    ("openai-responses", {"conversation": "conv_1"}, "conversation"),
    ("openai-responses", {"prompt": {"id": "pmpt_1"}}, "prompt"),
    ("openai-responses", {"background": True}, "background"),
    ("openai-responses", {"input": [{"type": "item_reference", "id": "rs_1"}]}, "no items are stored"),
    ("anthropic", {"thread": {"type": "create"}}, "thread"),
    ("anthropic", {"container": "container_1"}, "container"),
    ("anthropic", {"mcp_servers": [{"type": "url", "url": "https://x.example", "name": "x"}]}, "MCP"),
    ("gemini", {"cachedContent": "cachedContents/1"}, "cachedContent"),
    ("gemini", {"continuationToken": "abc"}, "continuationToken"),
]


@pytest.mark.parametrize(
    ("name", "cell", "fields", "word"),
    [
        pytest.param(name, cell, fields, word, id=f"{word}-{cell}")
        for name, fields, word in STORED
        for cell in CELLS
        if not is_own(name, cell)
    ],
)
@STREAM
def test_what_is_stored_at_a_vendor_is_not_gone_on_from(
    stage: Stage, name: str, cell: Cell, fields: dict[str, Any], word: str, is_stream: bool
) -> None:
    problem = Talk(stage, name, cell.model, Ask(fields=fields), is_stream=is_stream).fail("Hi")

    kind = "ThreadUnsupportedRequestError" if word == "thread" else BAD_REQUESTS[name]
    assert problem[:2] == (kind, 400)
    assert word in problem.message
    assert stage.bodies(cell) == []
    error = json.loads(stage.callers[name].received)["error"]
    if word == "thread":
        assert error["details"] == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    if name == "openai-responses":
        assert error["param"].startswith(("input[", word))


FILES: Mapping[str, Any] = {
    "openai-chat": {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]},
    "openai-responses": {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
    "anthropic": {
        "role": "user",
        "content": [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}],
    },
    "gemini": {
        "role": "user",
        "parts": [
            {
                "file_data": {
                    "file_uri": "https://generativelanguage.googleapis.com/v1beta/files/1",
                    "mime_type": "application/pdf",
                }
            }
        ],
    },
}


@pairs(OPUS, FLASH, GPT_5, LOCAL, without=lambda name, cell: is_own(name, cell) or (cell is LOCAL and "openai" in name))
def test_a_file_that_is_stored_at_another_vendor_is_refused(stage: Stage, name: str, cell: Cell) -> None:
    talk = Talk(stage, name, cell.model)
    talk.turns.append(FILES[name])

    problem = talk.fail("What is it?")

    assert problem[:2] == (BAD_REQUESTS[name], 400)
    assert re.search("document|file", problem.message)
    assert stage.bodies(cell) == []


# --- What would lose its meaning


MANY_STOPS: Mapping[str, Any] = {
    "openai-chat": {"stop": list("abcdef")},
    "anthropic": {"stop_sequences": list("abcdef")},
    "gemini": {"generationConfig": {"stopSequences": list("abcdef")}},
}


@pairs(GPT_4O, LOCAL, FLASH, GEMINI_3, without=lambda name, cell: name not in MANY_STOPS or is_own(name, cell))
def test_more_stop_sequences_than_there_can_be_are_refused(stage: Stage, name: str, cell: Cell) -> None:
    problem = Talk(stage, name, cell.model, Ask(fields=MANY_STOPS[name])).fail("Hi")

    assert problem[:2] == (BAD_REQUESTS[name], 400)
    assert "stop" in problem.message
    assert stage.bodies(cell) == []


@pairs(*CELLS, without=lambda name, cell: name != "anthropic" or is_own(name, cell))
def test_a_cache_is_warmed_nowhere_else(stage: Stage, name: str, cell: Cell) -> None:
    problem = Talk(stage, name, cell.model, Ask(fields={"max_tokens": 0})).fail("Hi")

    assert problem[:2] == (BAD_REQUESTS[name], 400)
    assert "cache" in problem.message
    assert stage.bodies(cell) == []


STRANGE: Mapping[str, Any] = {
    "openai-chat": {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://x.example/v"}}]},
    "openai-responses": {"role": "user", "content": [{"type": "input_video", "video_url": "https://x.example/v"}]},
    "gemini": {
        "role": "user",
        "parts": [{"inline_data": {"mime_type": "video/mp4", "data": "AAAA"}}],
    },
}


@pairs(*CELLS, without=lambda name, cell: name not in STRANGE or is_own(name, cell))
def test_what_an_upstream_cannot_see_is_refused_by_its_name(stage: Stage, name: str, cell: Cell) -> None:
    talk = Talk(stage, name, cell.model)
    talk.turns.append(STRANGE[name])

    problem = talk.fail("What is it?")

    assert problem[:2] == (BAD_REQUESTS[name], 400)
    assert "video" in problem.message
    assert stage.bodies(cell) == []


@pairs(*CELLS, without=lambda name, cell: name != "anthropic" or is_own(name, cell))
def test_a_block_that_only_its_vendor_understands_is_named(stage: Stage, name: str, cell: Cell) -> None:
    talk = Talk(stage, name, cell.model)
    talk.turns.append({"role": "user", "content": [{"type": "novelty", "of": "tomorrow"}]})

    assert talk.say("Hi").dropped == {"novelty"}


@pairs(*CELLS, without=lambda name, cell: name != "anthropic" or is_own(name, cell))
def test_a_block_that_stands_for_a_file_is_refused(stage: Stage, name: str, cell: Cell) -> None:
    talk = Talk(stage, name, cell.model)
    talk.turns.append({"role": "user", "content": [{"type": "container_upload", "file_id": "file_1"}]})

    problem = talk.fail("What is in it?")

    assert problem[:2] == (BAD_REQUESTS[name], 400)
    assert "container_upload" in problem.message


@pairs(FLASH, without=is_own)
@STREAM
def test_an_odd_end_is_named_where_the_caller_has_no_word_for_it(
    stage: Stage, name: str, cell: Cell, is_stream: bool
) -> None:
    answer = {"candidates": [{"content": {"parts": [{"text": "Hm."}]}, "finishReason": "TOO_MANY_TOOL_CALLS"}]}
    data = json.dumps(answer).encode()
    reply = Reply(b"data: " + data + b"\n\n", content_type="text/event-stream") if is_stream else Reply(data)
    stage.upstreams[cell.upstream].respond(lambda received: reply)

    said = Talk(stage, name, cell.model, is_stream=is_stream).say("Hi")

    assert said.text == "Hm."
    assert " dropped=finish_reason:TOO_MANY_TOOL_CALLS" in stage.log().splitlines()[-1]
    # The headers of a stream are gone before its end is known.
    assert said.dropped == (set() if is_stream else {"finish_reason:TOO_MANY_TOOL_CALLS"})
