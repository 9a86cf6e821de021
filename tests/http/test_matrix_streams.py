"""The bytes of every converted stream: whatever a strict client needs is in it, and nothing that one cannot bear."""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import pytest

from tests.http.callers import Ask, Tool
from tests.http.matrix import (
    CELLS,
    CITY,
    FLASH,
    GEMINI_3,
    GPT_4O,
    GPT_5,
    LOCAL,
    OPUS,
    Cell,
    Stage,
    Talk,
    is_own,
    pairs,
)
from tests.http.raw import CHECKS, Body, Event, check_chat, check_stream, read_events, send, write_request
from tests.support import Received, Reply

ASKS = {
    "words": ("Hi there, all of you", Ask(system="Be brief.")),
    "nothing": ("", Ask()),
    "a thought": ("think", Ask(effort="high")),
    "a hidden thought": ("think, redacted", Ask(effort="high")),
    "a call": ('call get_weather with {"city":"Łódź"}', Ask(tools=[Tool("get_weather", CITY)])),
    "a thoughtful call": (
        'call get_weather with {"city":"Rome"}',
        Ask(tools=[Tool("get_weather", CITY)], effort="high"),
    ),
    "two calls": (
        'call get_weather with {"city":"Oslo in Norway"} and call get_weather with {"city":"Rome in Italy"}',
        Ask(tools=[Tool("get_weather", CITY)]),
    ),
    "a call without arguments": ("call get_time", Ask(tools=[Tool("get_time")])),
    "JSON": ("json, please", Ask(schema=CITY)),
    "half an answer": ("long", Ask(max_tokens=2000)),
    "a refusal": ("refuse", Ask()),
}


def thinks(cell: Cell) -> bool:
    return cell not in (GPT_4O, LOCAL)


@pairs(*CELLS, without=is_own)
@pytest.mark.parametrize("what", ASKS)
def test_a_stream_has_what_strict_clients_need(stage: Stage, name: str, cell: Cell, what: str) -> None:
    text, ask = ASKS[what]
    if not thinks(cell):
        ask = ask.but(effort="")
    talk = Talk(stage, name, cell.model, ask, is_stream=True)

    talk.say(text or "  .")

    check_stream(name, talk.caller.received)
    assert talk.caller.headers["content-type"].startswith("text/event-stream")


# --- The checks themselves

Mutate = Callable[[list[Event]], list[Event]]


def without(kind: str) -> Mutate:
    """Leave out all events of a *kind*."""
    return lambda events: [event for event in events if event.name != kind]


def without_field(path: str) -> Mutate:
    """Leave out the field at *path*, wherever it is."""
    *way, last = path.split(".")

    def mutate(events: list[Event]) -> list[Event]:
        events = deepcopy(events)
        for event in events:
            _pop(event.data, way, last)
        return events

    return mutate


def _pop(value: Any, way: Sequence[str], last: str) -> None:
    if isinstance(value, list):
        for each in value:
            _pop(each, way, last)
    elif isinstance(value, dict):
        if way:
            _pop(value.get(way[0]), way[1:], last)
        else:
            value.pop(last, None)


def without_names(events: list[Event]) -> list[Event]:
    return [Event("", event.data) for event in events]


def without_last(events: list[Event]) -> list[Event]:
    return events[:-1]


def with_stranger(events: list[Event]) -> list[Event]:
    return [*events[:1], Event("news", {"type": "news"}), *events[1:]]


def with_done(events: list[Event]) -> list[Event]:
    return [*events, Event("", None)]


SPOILED: dict[str, list[Mutate]] = {
    "openai-chat": [
        without_last,
        without_field("object"),
        without_field("id"),
        without_field("choices.index"),
        without_field("choices.finish_reason"),
        without_field("choices.delta.tool_calls.index"),
        without_field("choices.delta.tool_calls.id"),
        without_field("choices.delta.tool_calls.type"),
        without_field("usage"),
        with_stranger,
    ],
    "openai-responses": [
        without_names,
        without("response.created"),
        without("response.output_item.added"),
        without("response.output_item.done"),
        without("response.function_call_arguments.done"),
        without("response.completed"),
        without_field("response.output"),
        without_field("response.usage"),
        without_field("response.id"),
        without_field("item.id"),
        without_field("item.status"),
        without_field("item.call_id"),
        without_field("sequence_number"),
        with_stranger,
        with_done,
    ],
    "anthropic": [
        without_names,
        without("message_start"),
        without("message_delta"),
        without("message_stop"),
        without("content_block_start"),
        without("content_block_stop"),
        without_field("message.content"),
        without_field("message.usage"),
        without_field("usage"),
        without_field("delta.stop_reason"),
        without_field("content_block.id"),
        without_field("index"),
        with_stranger,
        with_done,
    ],
    "gemini": [
        without_field("candidates.finishReason"),
        without_field("usageMetadata"),
        without_field("candidates.content.parts.functionCall.name"),
        with_stranger,
        with_done,
    ],
}


@pytest.mark.parametrize(
    ("name", "mutate"),
    [
        pytest.param(name, each, id=f"{name}-{index}")
        for name, all_ in SPOILED.items()
        for index, each in enumerate(all_)
    ],
)
def test_a_check_fails_where_something_is_missing(stage: Stage, name: str, mutate: Mutate) -> None:
    cell = OPUS if name != "anthropic" else GEMINI_3
    talk = Talk(stage, name, cell.model, Ask(tools=[Tool("get_weather", CITY)]), is_stream=True)
    talk.say('call get_weather with {"city":"Oslo"}')
    events = read_events(talk.caller.received)
    CHECKS[name](events)

    with pytest.raises((AssertionError, KeyError, IndexError, TypeError)):
        CHECKS[name](mutate(events))


# --- What keeps a line alive, and usage that nobody asked for

KEEP_ALIVES = {
    LOCAL: (b": OPENROUTER PROCESSING\n\n", b": ping\r\n\r\n", b"\n", b"event: ping\ndata: {}\n\n"),
    GPT_5: (b": ping\n\n", b'event: keepalive\ndata: {"type":"keepalive","sequence_number":0}\n\n'),
    OPUS: (b": ping\n\n", b'event: ping\ndata: {"type":"ping"}\n\n', b'event: news\ndata: {"type":"news"}\n\n'),
    FLASH: (b"\r\n", b": ping\n\n", b"data: {}\r\n\r\n"),
}


@pairs(*KEEP_ALIVES, without=is_own)
def test_what_keeps_the_line_alive_breaks_no_client(stage: Stage, name: str, cell: Cell) -> None:
    vendor = stage.vendors[cell.upstream]

    def respond(received: Received) -> Reply:
        reply = vendor(received)
        assert reply.chunks is not None
        ends = b"\r\n\r\n" if cell is FLASH else b"\n\n"
        events = b"".join(reply.chunks).split(ends)[:-1]
        alive = KEEP_ALIVES[cell]
        # Not before the first event, where several SDKs have their own rules.
        pieces = [event + ends + alive[index % len(alive)] for index, event in enumerate(events)]
        reply.chunks = [*alive, *pieces] if cell is not GPT_5 else pieces
        return reply

    stage.upstreams[cell.upstream].respond(respond)
    talk = Talk(stage, name, cell.model, is_stream=True)

    answer = talk.say("Hi there, all of you")

    assert answer.text == "You said: Hi there, all of you"
    check_stream(name, talk.caller.received)


@pairs(*CELLS, without=lambda name, cell: name != "openai-chat" or is_own(name, cell))
@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}], ids=["unsaid", "no"])
def test_usage_that_nobody_asked_for_is_not_told(stage: Stage, name: str, cell: Cell, options: Body) -> None:
    path, body = write_request(name, cell.model, "Hi", is_stream=True)

    response = send(stage, name, path, body | options)

    check_chat(read_events(response.content), wants_usage=False)
    assert " tokens=100+20" in stage.log().splitlines()[-1]


@pairs(*CELLS, without=lambda name, cell: name != "gemini" or is_own(name, cell))
@pytest.mark.parametrize("query", ["", "?alt=json", "?key=sk-caller"])
def test_a_stream_that_is_not_asked_for_as_events_is_an_array(stage: Stage, name: str, cell: Cell, query: str) -> None:
    path, body = write_request(name, cell.model, "Hi there, all of you", is_stream=True)

    response = send(stage, name, path.partition("?")[0] + query, body)

    assert response.headers["content-type"].startswith("application/json")
    chunks = json.loads(response.content)
    CHECKS[name]([Event("", chunk) for chunk in chunks])
