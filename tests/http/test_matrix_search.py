"""The search in the web that several vendors run themselves, and what it has found, in every pair of formats."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests import vendors
from tests.http.callers import Ask, Result, Tool
from tests.http.matrix import (
    BAD_REQUESTS,
    CITY,
    FLASH,
    GEMINI_3,
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
from tests.support import Reply
from tests.vendors import Prompt, decide

SEARCHES: Mapping[str, Any] = {
    "openai-chat": {"web_search_options": {}},
    "openai-responses": {"tools": [{"type": "web_search"}]},
    "anthropic": {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]},
    "gemini": {"tools": [{"googleSearch": {}}]},
}


@pairs(GPT_5, OPUS, SONNET, FLASH, GEMINI_3, without=is_own)
def test_a_search_is_one_everywhere(stage: Stage, name: str, cell: Cell) -> None:
    answer = Talk(stage, name, cell.model, Ask(fields=SEARCHES[name])).say("Hi")

    search = {GPT_5: '"web_search"', OPUS: '"web_search_20', SONNET: '"web_search_20'}.get(cell, '"googleSearch"')
    assert search in json.dumps(stage.body(cell)["tools"])
    assert answer.text == "You said: Hi"


@pairs(LOCAL, without=is_own)
def test_a_search_is_refused_where_there_is_none(stage: Stage, name: str, cell: Cell) -> None:
    problem = Talk(stage, name, cell.model, Ask(fields=SEARCHES[name])).fail("Hi")

    assert problem[:2] == (BAD_REQUESTS[name], 400)
    assert "web_search" in problem.message


@pytest.mark.parametrize("cell", [OPUS, SONNET], ids=str)
@STREAM
def test_a_search_of_the_callers_own_stands_beside_that_of_the_vendor(
    stage: Stage, cell: Cell, is_stream: bool
) -> None:
    ask = Ask(tools=[Tool("web_search", CITY)], fields=SEARCHES["openai-chat"])
    talk = Talk(stage, "openai-chat", cell.model, ask, is_stream=is_stream)
    stage.vendors["anthropic"].decide = call_own_search

    answer = talk.say("Search")
    talk.turns += answer.turn + talk.caller.answer_calls(answer.calls, [Result("rain")])
    stage.vendors["anthropic"].decide = decide

    assert [call.name for call in answer.calls] == ["web_search"]
    assert talk.go_on().text == "The tools said: rain"
    assert len({tool["name"] for tool in stage.body(cell)["tools"]}) == 2
    assert stage.refusals == []


def call_own_search(prompt: Prompt) -> vendors.Answer:
    name = next(name for name in prompt.tools if name.startswith("web_search_"))
    return vendors.Answer(calls=(vendors.Call(name, '{"city":"Oslo"}'),))


CITED = "https://weather.example/łódź"
ANNOTATION = {"type": "url_citation", "url": CITED, "title": "Weather", "start_index": 5, "end_index": 8}
SOURCE = {"type": "web_search_result_location", "url": CITED, "title": "Weather", "cited_text": "wet"}
CITING_ANSWERS: Mapping[Cell, Any] = {
    LOCAL: {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {
                    "role": "assistant",
                    "content": "Ł is wet",
                    "annotations": [{"type": "url_citation", "url_citation": ANNOTATION}],
                },
            }
        ],
    },
    GPT_5: {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": "completed",
        "output": [
            {
                "type": "web_search_call",
                "id": "ws_1",
                "status": "completed",
                "action": {"type": "search", "query": "q"},
            },
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Ł is wet", "annotations": [ANNOTATION]}],
            },
        ],
    },
    OPUS: {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
        "content": [
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
            {"type": "text", "text": "Ł is "},
            {"type": "text", "text": "wet", "citations": [{**SOURCE, "encrypted_index": "e"}]},
        ],
    },
    FLASH: {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": "Ł is wet"}]},
                "finishReason": "STOP",
                "groundingMetadata": {
                    "groundingChunks": [{"web": {"uri": CITED, "title": "Weather"}}],
                    "groundingSupports": [
                        {"segment": {"startIndex": 6, "endIndex": 9, "text": "wet"}, "groundingChunkIndices": [0]}
                    ],
                },
            }
        ]
    },
}


@pairs(LOCAL, GPT_5, FLASH, without=lambda name, cell: name != "anthropic")
def test_anthropic_is_not_shown_what_others_have_cited(stage: Stage, name: str, cell: Cell) -> None:
    """Anthropic refuses results of a search that it has not made itself."""
    talk = Talk(stage, name, cell.model)
    stage.upstreams[cell.upstream].respond(lambda received: Reply(json.dumps(CITING_ANSWERS[cell]).encode()))
    cited = talk.say("Hi")
    assert [each.url for each in cited.raw.content[-1].citations or []] == [CITED]
    talk.turns += cited.turn

    talk.model = OPUS.model
    answer = talk.say("And now?")

    assert answer.text == "You said: And now?"
    assert stage.body(OPUS)["messages"][1] == {"role": "assistant", "content": "Ł is wet"}


def read_citations(name: str, raw: Any) -> list[tuple[str, str]]:
    """Return the addresses that an answer cites, and the words that they stand for."""
    match name:
        case "openai-chat":
            message = raw.choices[0].message
            cited = [each.url_citation for each in message.annotations]
            return [(each.url, message.content[each.start_index : each.end_index]) for each in cited]
        case "openai-responses":
            part = raw.output[-1].content[0]
            return [(each.url, part.text[each.start_index : each.end_index]) for each in part.annotations]
        case "anthropic":
            return [(each.url, block.text) for block in raw.content for each in block.citations or []]
        case _:
            found = raw[0].candidates[0].grounding_metadata
            parts = [part.text.encode() for part in raw[0].candidates[0].content.parts]
            segments = [each.segment for each in found.grounding_supports]
            words = [parts[each.part_index or 0][each.start_index or 0 : each.end_index] for each in segments]
            return [(each.web.uri, word.decode()) for each, word in zip(found.grounding_chunks, words, strict=True)]


@pairs(*CITING_ANSWERS, without=is_own)
def test_what_is_cited_is_told(stage: Stage, name: str, cell: Cell) -> None:
    stage.upstreams[cell.upstream].respond(lambda received: Reply(json.dumps(CITING_ANSWERS[cell]).encode()))

    answer = Talk(stage, name, cell.model).say("Hi")

    assert answer.text == "Ł is wet"
    assert answer.calls == []
    # A whole block of Anthropic's is cited, not some of its words.
    is_whole = name == "anthropic" and answer.raw.content[0].text == "Ł is wet"
    assert read_citations(name, answer.raw) == [(CITED, "Ł is wet" if is_whole else "wet")]
