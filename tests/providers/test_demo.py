import re
import struct
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxyd.providers import demo

Json = dict[str, Any]

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
GENERATE, STREAM = "/v1beta/models/m:generateContent", "/v1beta/models/m:streamGenerateContent"

HELLO = "Hello from the aiproxyd demo. You said: hi"
PIECES = ["Hello from the", " aiproxyd demo.", " You said:", " hi"]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NAMES = ("get_weather", "get_time")


def ask(path: str, body: object, query: str = "") -> demo.DemoReply:
    return demo.reply("POST", path, query, {}, msgspec.json.encode(body))


def whole(path: str, body: object) -> Any:
    reply = ask(path, body)

    assert (reply.status, reply.content_type) == (200, "application/json")
    return msgspec.json.decode(b"".join(reply.chunks))


def refusal(path: str, body: object) -> Any:
    reply = ask(path, body)

    assert (reply.status, reply.content_type) == (400, "application/json")
    return msgspec.json.decode(reply.chunks[0])["error"]


def stream(path: str, body: object, query: str = "") -> list[Json]:
    reply = ask(path, body, query)

    assert (reply.status, reply.content_type) == (200, "text/event-stream")
    return read_events(reply)


def read_events(reply: demo.DemoReply) -> list[Json]:
    """Decode the events of a stream, which stand whole in its chunks."""
    texts = [text for chunk in reply.chunks for text in re.split("\r?\n\r?\n", chunk.decode()) if text]
    assert all(chunk.endswith((b"\n\n", b"\r\n\r\n")) for chunk in reply.chunks)
    return [read_event(text) for text in texts if text != "data: [DONE]"]


def read_event(text: str) -> Json:
    """Decode one SSE event; its name, if any, must be the type in its data."""
    *name, data = text.split("\n")
    event: Json = msgspec.json.decode(data.removeprefix("data: "))
    assert data[:6] == "data: "
    assert name in ([], [f"event: {event.get('type')}"])
    return event


def without_item_ids(reply: demo.DemoReply) -> bytes:
    """Return what was answered, without the ids of output items: the format draws them by lot."""
    return re.sub(rb'"(?:msg|fc|rs)_[0-9a-f]{26}"', b'""', b"".join(reply.chunks))


def get(path: str, headers: Mapping[str, str] = {}) -> tuple[int, Any]:
    reply = demo.reply("GET", path, "", headers, b"")
    return reply.status, msgspec.json.decode(reply.chunks[0])


def user(text: str) -> list[Json]:
    return [{"role": "user", "content": text}]


def chat(**fields: object) -> Json:
    return {"model": "m", "messages": user("hi"), **fields}


def responses(**fields: object) -> Json:
    return {"model": "m", "input": "hi", **fields}


def messages(**fields: object) -> Json:
    return {"model": "m", "max_tokens": 100, "messages": user("hi"), **fields}


def gemini(text: str = "hi", **fields: object) -> Json:
    return {"contents": [{"parts": [{"text": text}]}], **fields}


def chat_tools(schema: object = CITY) -> list[Json]:
    return [{"type": "function", "function": {"name": name, "parameters": schema}} for name in NAMES]


def responses_tools() -> list[Json]:
    return [{"type": "function", "name": name, "parameters": CITY, "strict": True} for name in NAMES]


def messages_tools() -> list[Json]:
    return [{"name": name, "input_schema": CITY} for name in NAMES]


def gemini_tools(key: str = "parameters") -> list[Json]:
    return [{"functionDeclarations": [{"name": name, key: CITY} for name in NAMES]}]


# Text, whole and streamed


def test_chat_completion_has_every_field() -> None:
    assert whole(CHAT, chat()) == {
        "id": "chatcmpl-798d46639491d6c18f1779dd",
        "object": "chat.completion",
        "created": 1767225600,
        "model": "m",
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": HELLO, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 10,
            "total_tokens": 11,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_chat_stream_opens_with_the_role_and_ends_with_done() -> None:
    events = stream(CHAT, chat(stream=True))
    choices = [event["choices"][0] for event in events]

    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        *({"content": piece} for piece in PIECES),
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 5 + ["stop"]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert not any("usage" in event for event in events)
    assert ask(CHAT, chat(stream=True)).chunks[-1].endswith(b"data: [DONE]\n\n")


def test_chat_stream_tells_usage_last_where_it_is_wanted() -> None:
    *others, last = stream(CHAT, chat(stream=True, stream_options={"include_usage": True}))

    assert [event["usage"] for event in others] == [None] * 6
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (1, 10)


def test_response_has_every_field() -> None:
    body = responses(instructions="Be kind.", tools=[{"type": "web_search"}], metadata={"a": "b"})

    response = whole(RESPONSES, body)
    item_id = response["output"][0]["id"]

    assert item_id.startswith("msg_")
    assert response == {
        "instructions": "Be kind.",
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [{"type": "web_search"}],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "user": None,
        "id": "resp_66c076d932cdddc4684a61da",
        "object": "response",
        "created_at": 1767225600,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": "m",
        "output": [
            {
                "type": "message",
                "id": item_id,
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": HELLO, "annotations": [], "logprobs": []}],
            }
        ],
        "service_tier": "default",
        "store": False,
        "usage": {
            "input_tokens": 4,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 10,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 14,
        },
    }


def test_response_stream_has_the_whole_grammar() -> None:
    events = stream(RESPONSES, responses(stream=True))
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]

    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 4,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(12))
    assert deltas == PIECES
    assert (events[0]["response"]["status"], events[0]["response"]["output"]) == ("in_progress", [])
    assert events[2]["item"] | {"content": events[-2]["item"]["content"], "status": "completed"} == events[-2]["item"]
    assert events[-1]["response"]["output"] == [events[-2]["item"]]
    assert events[-1]["response"]["usage"]["output_tokens"] == 10


def test_message_has_every_field() -> None:
    assert whole(MESSAGES, messages(system="Be kind.")) == {
        "id": "msg_311571780b850c067a4a5d32",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": HELLO}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 10,
            "output_tokens_details": {"thinking_tokens": 0},
            "service_tier": "standard",
        },
    }


def test_message_stream_has_the_whole_grammar() -> None:
    start, *blocks, delta, stop = stream(MESSAGES, messages(stream=True))

    assert (start["type"], start["message"]["content"], start["message"]["stop_reason"]) == ("message_start", [], None)
    assert (start["message"]["usage"]["input_tokens"], start["message"]["usage"]["output_tokens"]) == (1, 0)
    assert blocks == [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in PIECES),
        {"type": "content_block_stop", "index": 0},
    ]
    assert delta["delta"] == {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None}
    assert delta["usage"]["output_tokens"] == 10
    assert stop == {"type": "message_stop"}


def test_generation_has_every_field() -> None:
    assert whole(GENERATE, gemini()) == {
        "candidates": [{"content": {"role": "model", "parts": [{"text": HELLO}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 1,
            "cachedContentTokenCount": 0,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 0,
            "totalTokenCount": 11,
        },
        "modelVersion": "m",
        "responseId": "5805a1f6bd0642600cb67704",
    }


def test_generation_stream_is_bare_data_events() -> None:
    reply = ask(STREAM, gemini(), "alt=sse")
    events = stream(STREAM, gemini(), "alt=sse")

    assert all(chunk.startswith(b"data: {") and chunk.endswith(b"}\r\n\r\n") for chunk in reply.chunks)
    assert [event["candidates"][0]["content"]["parts"] for event in events] == [
        [{"text": piece}] for piece in (*PIECES, "")
    ]
    assert [event["candidates"][0].get("finishReason") for event in events] == [None, None, None, None, "STOP"]
    assert events[-1]["usageMetadata"]["totalTokenCount"] == 11


def test_generation_stream_without_sse_is_an_array_in_elements() -> None:
    reply = ask(STREAM, gemini())
    starts = [chunk[:4] for chunk in reply.chunks]

    assert reply.content_type == "application/json"
    assert starts == [b'[{"c', b"\n,\n{", b"\n,\n{", b"\n,\n{", b"\n,\n{"]
    assert msgspec.json.decode(b"".join(reply.chunks)) == stream(STREAM, gemini(), "alt=sse")


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, chat()), (RESPONSES, responses()), (MESSAGES, messages()), (GENERATE, gemini()), (STREAM, gemini())],
)
def test_equal_requests_give_equal_bytes_and_others_other_ids(path: str, body: Json, is_stream: bool) -> None:
    one, same, other = (without_item_ids(ask(path, {**body, "stream": is_stream, "x": x})) for x in (1, 1, 2))

    assert one == same
    assert one != other


def test_long_text_streams_in_a_bounded_number_of_deltas() -> None:
    text = "word " * 30_000

    events = stream(CHAT, chat(messages=user(text), stream=True))

    assert len(events) < 1_003
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events).endswith(text)


# What a conversation says


def test_parts_are_joined_and_others_are_counted_as_attachments() -> None:
    url = "https://example.com/a.pdf"
    image = {"type": "image_url", "image_url": {"url": url}}
    parts = [{"type": "text", "text": "a"}, image, {"type": "text", "text": "b"}]
    files = [{"type": "input_image", "image_url": url}, {"type": "input_file", "file_url": url}]
    inline = {"parts": [{"text": "a"}, {"inlineData": {"mime_type": "image/png", "data": "AAAA"}}]}

    texts = [
        whole(CHAT, chat(messages=[{"role": "user", "content": parts}]))["choices"][0]["message"]["content"],
        whole(RESPONSES, responses(input=[{"role": "user", "content": files}]))["output"][0]["content"][0]["text"],
        whole(GENERATE, {"contents": [inline]})["candidates"][0]["content"]["parts"][0]["text"],
    ]

    assert texts == [
        "Hello from the aiproxyd demo. You said: a\nb (with 1 attachment)",
        "Hello from the aiproxyd demo. You said:  (with 2 attachments)",
        "Hello from the aiproxyd demo. You said: a (with 1 attachment)",
    ]


def test_the_last_user_message_is_answered() -> None:
    turns = [{"role": "system", "content": "s"}, *user("old"), {"role": "assistant", "content": "ok"}, *user("new")]
    items = [{"type": "reasoning", "summary": []}, *turns]
    thoughts = {"role": "model", "parts": [{"text": "thought", "thought": True}, {"text": "ok"}]}
    contents = [{"parts": [{"text": "old"}]}, thoughts, {"parts": [{"text": "new"}]}]

    texts = [
        whole(CHAT, chat(messages=turns))["choices"][0]["message"]["content"],
        whole(RESPONSES, responses(input=items))["output"][0]["content"][0]["text"],
        whole(MESSAGES, messages(messages=[*turns[1:], {"role": "system", "content": "x"}]))["content"][0]["text"],
        whole(GENERATE, {"contents": contents, "systemInstruction": {"parts": [{"text": "s"}]}})["candidates"][0][
            "content"
        ]["parts"][0]["text"],
    ]

    assert texts == ["Hello from the aiproxyd demo. You said: new"] * 4


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (responses(previous_response_id="resp_1"), "previous_response_id"),
        (responses(input=[{"type": "function_call_output", "call_id": "1", "output": "sunny"}]), None),
        ({"input": "hi"}, None),
    ],
)
def test_what_the_hub_has_no_words_for_is_refused(body: Json, param: str | None) -> None:
    error = refusal(RESPONSES, body)

    assert error == {"message": error["message"], "type": "invalid_request_error", "param": param, "code": None}


@pytest.mark.parametrize(
    ("path", "body", "shown"),
    [
        (CHAT, chat(reasoning_effort="low"), b'"reasoning_content":"Somebody'),
        (RESPONSES, responses(reasoning={"effort": "low", "summary": "auto"}), b'"type":"summary_text","text":"Some'),
        (MESSAGES, messages(thinking={"type": "enabled", "budget_tokens": 1024}), b'"thinking":"Somebody'),
        (GENERATE, gemini(generationConfig={"thinkingConfig": {"thinkingBudget": -1}}), b'"text":"Somebody'),
    ],
)
def test_thoughts_are_shown_in_every_format(path: str, body: Json, shown: bytes) -> None:
    assert shown in ask(path, body).chunks[0]


# Limits, stops, choices


def test_text_beyond_the_token_limit_is_cut_in_every_format() -> None:
    completion = whole(CHAT, chat(max_tokens=99, max_completion_tokens=3))["choices"][0]
    response = whole(RESPONSES, responses(max_output_tokens=3))
    message = whole(MESSAGES, messages(max_tokens=3))
    generation = whole(GENERATE, gemini(generationConfig={"maxOutputTokens": 3}))["candidates"][0]

    assert (completion["message"]["content"], completion["finish_reason"]) == ("Hello from the", "length")
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["content"][0]["text"] == "Hello from the"
    assert (message["content"][0]["text"], message["stop_reason"]) == ("Hello from the", "max_tokens")
    assert generation["content"]["parts"] == [{"text": "Hello from the"}]
    assert generation["finishReason"] == "MAX_TOKENS"


def test_a_cut_response_stream_ends_incomplete() -> None:
    assert stream(RESPONSES, responses(max_output_tokens=3, stream=True))[-1]["type"] == "response.incomplete"


def test_no_tokens_allowed_is_no_text() -> None:
    message = whole(MESSAGES, messages(max_tokens=0))
    response = whole(RESPONSES, responses(max_output_tokens=-5))
    events = stream(STREAM, gemini(generationConfig={"maxOutputTokens": -5}), "alt=sse")

    assert (response["status"], response["output"], response["usage"]["output_tokens"]) == ("incomplete", [], 0)
    assert (message["content"], message["stop_reason"], message["usage"]["output_tokens"]) == ([], "max_tokens", 0)
    assert [event["candidates"][0]["content"]["parts"] for event in events] == [[{"text": ""}]]


@pytest.mark.parametrize("stop", ["demo", ["You", "", "demo", "absent"]])
def test_text_ends_before_the_first_stop_sequence(stop: object) -> None:
    choice = whole(CHAT, chat(stop=stop))["choices"][0]

    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello from the aiproxyd ", "stop")


def test_a_message_tells_its_stop_sequence() -> None:
    message = whole(MESSAGES, messages(stop_sequences=["demo"]))

    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "demo")


def test_the_token_limit_wins_over_a_later_stop_sequence() -> None:
    assert whole(CHAT, chat(stop="demo", max_tokens=2))["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(("asked", "given"), [(None, 1), (0, 1), (3, 3), (99, 8)])
def test_choices_are_equal_and_at_most_eight(asked: int | None, given: int) -> None:
    completion = whole(CHAT, chat(n=asked))
    chunks = stream(CHAT, chat(n=asked, stream=True))
    candidates = whole(GENERATE, gemini(generationConfig={"candidateCount": asked}))["candidates"]

    assert [choice["index"] for choice in completion["choices"]] == list(range(given))
    assert {choice["message"]["content"] for choice in completion["choices"]} == {HELLO}
    assert completion["usage"]["completion_tokens"] == 10 * given
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [n for n in range(given) for _ in range(6)]
    assert [candidate["index"] for candidate in candidates] == list(range(given))


# Tools


BOTH = "get_weather and get_time, city=Oslo."
ARGUMENTS = ['{"city', '":"', 'Oslo"}']
"""In the pieces of a stream."""


def test_chat_calls_each_tool_that_the_user_names() -> None:
    choice = whole(CHAT, chat(messages=user(BOTH), tools=chat_tools()))["choices"][0]
    calls = choice["message"]["tool_calls"]

    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert [call["function"]["name"] for call in calls] == ["get_weather", "get_time"]
    assert calls[0]["function"]["arguments"] == '{"city":"Oslo"}'
    assert calls[0]["id"] != calls[1]["id"]
    assert calls[0]["id"].startswith("call_")


def test_chat_streams_a_call_as_header_and_fragments() -> None:
    events = stream(CHAT, chat(messages=user(BOTH), tools=chat_tools(), stream=True))
    deltas = [event["choices"][0]["delta"] for event in events]
    calls = [delta["tool_calls"][0] for delta in deltas[1:-1]]

    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [call["index"] for call in calls] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [sorted(call) for call in calls[:4]] == [["function", "id", "index", "type"], *[["function", "index"]] * 3]
    assert calls[0]["function"] == {"name": "get_weather", "arguments": ""}
    assert [call["function"]["arguments"] for call in calls[1:4]] == ARGUMENTS
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_responses_calls_are_items_whole_and_streamed() -> None:
    body = responses(input=BOTH, tools=[*responses_tools(), {"type": "custom", "name": "and"}])
    response = whole(RESPONSES, body)
    first = response["output"][0]
    events = stream(RESPONSES, {**body, "stream": True})
    calls = [event for event in events if event.get("output_index") == 0]

    assert response["status"] == "completed"
    assert [item["name"] for item in response["output"]] == ["get_weather", "get_time"]
    assert (first["type"], first["status"], first["arguments"]) == ("function_call", "completed", '{"city":"Oslo"}')
    assert (first["id"][:3], first["call_id"][:5]) == ("fc_", "call_")
    assert [event["type"].removeprefix("response.") for event in calls] == [
        "output_item.added",
        *["function_call_arguments.delta"] * 3,
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert (calls[0]["item"]["arguments"], calls[0]["item"]["status"]) == ("", "in_progress")
    assert [call["delta"] for call in calls[1:4]] == ARGUMENTS
    assert calls[4]["arguments"] == '{"city":"Oslo"}'
    assert events[-1]["response"]["output"][0] == calls[5]["item"]


def test_message_calls_are_blocks_whole_and_streamed() -> None:
    body = messages(messages=user(BOTH), tools=[*messages_tools(), {"type": "bash_20250124", "name": "and"}])
    message = whole(MESSAGES, body)
    events = stream(MESSAGES, {**body, "stream": True})
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta" and event["index"] == 1]

    assert message["stop_reason"] == "tool_use"
    assert [(block["name"], block["input"]) for block in message["content"]] == [
        ("get_weather", {"city": "Oslo"}),
        ("get_time", {"city": "Oslo"}),
    ]
    assert message["content"][0]["id"].startswith("toolu_")
    assert events[1]["content_block"]["input"] == {}
    assert deltas == [{"type": "input_json_delta", "partial_json": piece} for piece in ARGUMENTS]


@pytest.mark.parametrize("key", ["parameters", "parametersJsonSchema", "parameters_json_schema"])
def test_gemini_calls_are_parts_whole_and_streamed(key: str) -> None:
    body = gemini(BOTH, tools=gemini_tools(key))
    candidate = whole(GENERATE, body)["candidates"][0]
    parts = candidate["content"]["parts"]
    *events, end = stream(STREAM, body, "alt=sse")

    assert candidate["finishReason"] == end["candidates"][0]["finishReason"] == "STOP"
    assert [(part["functionCall"]["name"], part["functionCall"]["args"]) for part in parts] == [
        ("get_weather", {"city": "Oslo"}),
        ("get_time", {"city": "Oslo"}),
    ]
    assert [event["candidates"][0]["content"]["parts"][0]["functionCall"]["name"] for event in events] == list(NAMES)


@pytest.mark.parametrize("text", ["get_weathers", "my get_weather-er", "nothing"])
def test_a_tool_is_called_only_by_its_whole_name(text: str) -> None:
    assert whole(CHAT, chat(messages=user(text), tools=chat_tools()))["choices"][0]["finish_reason"] == "stop"


NAMED = {"type": "function", "function": {"name": "get_time"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}


@pytest.mark.parametrize(
    ("fields", "called"),
    [
        ({}, ["get_weather", "get_time"]),
        ({"tool_choice": "auto"}, ["get_weather", "get_time"]),
        ({"tool_choice": "none"}, []),
        ({"tool_choice": "required"}, ["get_weather"]),
        ({"tool_choice": NAMED}, ["get_time"]),
        ({"tool_choice": ALLOWED}, ["get_time"]),
        ({"tool_choice": {"type": "function", "function": {"name": "absent"}}}, []),
        ({"tool_choice": {"type": "custom", "custom": {"name": "x"}}}, []),
        ({"parallel_tool_calls": False}, ["get_weather"]),
        ({"tools": [{"type": "custom", "custom": {"name": "get_time"}}]}, []),
    ],
)
def test_chat_tool_choice(fields: Json, called: list[str]) -> None:
    message = whole(CHAT, chat(messages=user(BOTH), **{"tools": chat_tools(), **fields}))["choices"][0]["message"]

    assert [call["function"]["name"] for call in message.get("tool_calls", [])] == called


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("required", ["get_weather"]),
        ({"type": "function", "name": "get_time"}, ["get_time"]),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get_time"}]}, ["get_time"]),
        ({"type": "allowed_tools", "tools": [{"type": "function", "name": "absent"}]}, []),
    ],
)
def test_responses_tool_choice(choice: object, called: list[str]) -> None:
    response = whole(RESPONSES, responses(input=BOTH, tools=responses_tools(), tool_choice=choice))

    assert [item["name"] for item in response["output"] if item["type"] == "function_call"] == called
    assert response["tool_choice"] == choice


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ({"type": "auto"}, ["get_weather", "get_time"]),
        ({"type": "auto", "disable_parallel_tool_use": True}, ["get_weather"]),
        ({"type": "any"}, ["get_weather"]),
        ({"type": "tool", "name": "get_time"}, ["get_time"]),
        ({"type": "none"}, []),
    ],
)
def test_messages_tool_choice(choice: Json, called: list[str]) -> None:
    message = whole(MESSAGES, messages(messages=user(BOTH), tools=messages_tools(), tool_choice=choice))

    assert [block["name"] for block in message["content"] if block["type"] == "tool_use"] == called


@pytest.mark.parametrize(
    ("config", "called"),
    [
        (None, ["get_weather", "get_time"]),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["get_time"]}, ["get_time"]),
        ({"mode": "ANY"}, ["get_weather"]),
        ({"mode": "ANY", "allowed_function_names": ["get_time"]}, ["get_time"]),
        ({"mode": "NONE"}, []),
    ],
)
def test_gemini_tool_choice(config: Json | None, called: list[str]) -> None:
    body = gemini(BOTH, tools=gemini_tools(), tool_config={"functionCallingConfig": config})
    parts = whole(GENERATE, body)["candidates"][0]["content"]["parts"]

    assert [part["functionCall"]["name"] for part in parts if "functionCall" in part] == called


def test_tool_results_are_told_and_end_the_calling() -> None:
    required = "required"
    named = [("1", "get_weather"), ("2", "get_time")]
    chat_calls = [{"id": id_, "type": "function", "function": {"name": name}} for id_, name in named]
    uses = [{"type": "tool_use", "id": id_, "name": name, "input": {}} for id_, name in named]
    model_parts = [{"functionCall": {"name": name}} for _, name in named]
    chat_turns = [
        *user(BOTH),
        {"role": "assistant", "tool_calls": chat_calls},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "noon"}]},
    ]
    items = [
        *user(BOTH),
        *({"type": "function_call", "call_id": id_, "name": name, "arguments": "{}"} for id_, name in named),
        {"type": "function_call_output", "call_id": "1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "noon"}]},
    ]
    blocks = [
        {"type": "tool_result", "tool_use_id": "1", "content": "sunny"},
        {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "noon"}]},
        {"type": "text", "text": "a reminder"},
    ]
    given = zip(NAMES, ({"result": "sunny"}, {"t": 12}), strict=True)
    parts = [{"functionResponse": {"name": name, "response": response}} for name, response in given]
    message_turns = [*user(BOTH), {"role": "assistant", "content": uses}, {"role": "user", "content": blocks}]
    contents = [*gemini(BOTH)["contents"], {"role": "model", "parts": model_parts}, {"parts": parts}]

    texts = [
        whole(CHAT, chat(messages=chat_turns, tools=chat_tools(), tool_choice=required))["choices"][0]["message"][
            "content"
        ],
        whole(RESPONSES, responses(input=items, tools=responses_tools()))["output"][0]["content"][0]["text"],
        whole(MESSAGES, messages(messages=message_turns, tools=messages_tools()))["content"][0]["text"],
        whole(GENERATE, {"contents": contents, "tools": gemini_tools()})["candidates"][0]["content"]["parts"][0][
            "text"
        ],
    ]

    assert texts[:3] == ["The tool answered: sunny, noon"] * 3
    assert texts[3] == 'The tool answered: sunny, {"t":12}'


# Structured output


FORMAT = {"type": "json_schema", "schema": CITY}
GOOGLE_CITY = {"type": "OBJECT", "properties": {"city": {"any_of": [{"type": "STRING"}]}}}
OUTPUTS = [
    (CHAT, chat(response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": CITY}})),
    (RESPONSES, responses(text={"format": {**FORMAT, "name": "c"}})),
    (MESSAGES, messages(output_config={"format": FORMAT})),
    (GENERATE, gemini(generationConfig={"responseMimeType": "application/json", "responseJsonSchema": CITY})),
    (GENERATE, gemini(generation_config={"response_mime_type": "application/json", "response_schema": GOOGLE_CITY})),
]


@pytest.mark.parametrize(("path", "body"), OUTPUTS)
def test_an_output_schema_gives_its_sample(path: str, body: Json) -> None:
    assert b'{\\"city\\":\\"demo\\"}' in ask(path, body).chunks[0]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat(response_format={"type": "json_object"})),
        (RESPONSES, responses(text={"format": {"type": "json_object"}})),
        (GENERATE, gemini(generationConfig={"responseMimeType": "application/json"})),
    ],
)
def test_json_output_without_a_schema_wraps_the_answer(path: str, body: Json) -> None:
    assert b'{\\"answer\\":\\"' + HELLO.encode() in ask(path, body).chunks[0]


def test_text_formats_stay_plain() -> None:
    assert whole(CHAT, chat(response_format={"type": "text"}))["choices"][0]["message"]["content"] == HELLO
    assert whole(RESPONSES, responses(text={"verbosity": "low"}))["output"][0]["content"][0]["text"] == HELLO
    assert whole(MESSAGES, messages(output_config={"effort": "low"}))["content"][0]["text"] == HELLO


# Counting, embeddings, models


def test_tokens_are_counted_in_every_format() -> None:
    assert whole("/v1/responses/input_tokens", responses(input="one two")) == {
        "object": "response.input_tokens",
        "input_tokens": 2,
    }
    assert whole("/v1/messages/count_tokens", {"model": "m", "messages": user("one two!")}) == {"input_tokens": 3}
    assert whole("/v1/models/m:countTokens", gemini("one two")) == {"totalTokens": 2}


def test_tokens_of_a_whole_generate_content_request_are_counted() -> None:
    nested = {"generateContentRequest": {"model": "models/m", **gemini("one two")}}

    assert whole("/v1/models/m:countTokens", nested) == {"totalTokens": 2}


def test_offered_tools_count_as_input() -> None:
    plain, offered = (whole(CHAT, chat(tools=tools))["usage"]["prompt_tokens"] for tools in ([], chat_tools("x")))

    assert (plain, offered) == (1, 9)


@pytest.mark.parametrize(("value", "count"), [("a", 1), (["a", "b", "a"], 3), ([], 0)])
def test_embeddings_take_texts(value: object, count: int) -> None:
    answer = whole("/v1/embeddings", {"model": "m", "input": value})

    assert [row["index"] for row in answer["data"]] == list(range(count))
    assert all(len(row["embedding"]) == 8 for row in answer["data"])
    assert answer["usage"] == {"prompt_tokens": count, "total_tokens": count}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": [1, 2]}, "send the text itself"),
        ({"input": [[1, 2], [3]]}, "send the text itself"),
        ({"dimensions": 0}, "up to 2048 vectors of 1 to 4096 dimensions"),
        ({"dimensions": 4097}, "up to 2048 vectors of 1 to 4096 dimensions"),
        ({"input": ["a"] * 2049}, "up to 2048 vectors of 1 to 4096 dimensions"),
    ],
)
def test_embeddings_of_tokens_and_too_many_numbers_are_refused(fields: Json, message: str) -> None:
    assert message in refusal("/v1/embeddings", {"model": "m", "input": "a", **fields})["message"]


def test_embeddings_are_unit_vectors_and_equal_for_equal_texts() -> None:
    body = {"model": "m", "input": ["a", "b", "a"], "dimensions": 100}
    floats = [row["embedding"] for row in whole("/v1/embeddings", body)["data"]]
    coded = [row["embedding"] for row in whole("/v1/embeddings", {**body, "encoding_format": "base64"})["data"]]

    assert floats[0] == floats[2] != floats[1]
    assert sum(value * value for value in floats[0]) == pytest.approx(1)
    assert list(struct.unpack("<100f", msgspec.convert(coded[0], bytes))) == floats[0]


def test_gemini_embeddings_are_the_same_vectors() -> None:
    request = {"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 4}
    expected = whole("/v1/embeddings", {"model": "m", "input": "a", "dimensions": 4})["data"][0]["embedding"]

    assert whole("/v1/models/m:embedContent", request) == {"embedding": {"values": expected}}
    assert whole("/v1/models/m:batchEmbedContents", {"requests": [request, request]}) == {
        "embeddings": [{"values": expected}] * 2
    }


ANTHROPIC = {"anthropic-version": "2023-06-01"}
GOOGLE = {"x-goog-api-key": "k"}


def test_models_are_listed_in_the_format_that_the_headers_tell() -> None:
    openai = get("/v1/models")[1]
    anthropic = get("/v1/models", ANTHROPIC)[1]
    google = [get("/v1/models", headers)[1] for headers in (GOOGLE, {"x-goog-api-client": "x"})]
    by_path = [get(path)[1] for path in ("/v1beta/models", "/v1alpha/models", "/v1beta1/publishers/google/models")]

    assert openai == {
        "object": "list",
        "data": [{"id": "demo", "object": "model", "created": 1767225600, "owned_by": "aiproxyd"}],
    }
    assert anthropic == {
        "data": [
            {
                "type": "model",
                "id": "demo",
                "display_name": "demo",
                "created_at": "2026-01-01T00:00:00Z",
                "lifecycle": "active",
                "capabilities": None,
                "max_input_tokens": None,
                "max_tokens": None,
            }
        ],
        "has_more": False,
        "first_id": "demo",
        "last_id": "demo",
    }
    assert [answer["models"][0]["name"] for answer in google + by_path] == ["models/demo"] * 5


def test_one_model_is_told_in_the_same_formats() -> None:
    assert get("/v1/models/demo")[1]["object"] == "model"
    assert get("/v1/models/demo", ANTHROPIC)[1]["type"] == "model"
    assert get("/v1beta/models/demo")[1]["name"] == "models/demo"


# Paths and errors


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/m:generateContent", "m"),
        ("/v1alpha/models/m:generateContent", "m"),
        ("/v1beta1/publishers/google/models/m:generateContent", "m"),
        ("/v1beta/models/tuned/llama3:8b:generateContent", "tuned/llama3:8b"),
        ("/v1beta/models/a%2Fb%3Ac%20d:generateContent", "a/b:c d"),
    ],
)
def test_gemini_model_names_may_hold_anything(path: str, model: str) -> None:
    assert whole(path, gemini())["modelVersion"] == model


def test_threads_are_refused_so_that_the_tool_runners_go_on_without() -> None:
    reply = ask(MESSAGES, messages(thread={"type": "create"}))

    assert reply.status == 400
    assert msgspec.json.decode(reply.chunks[0]) == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "threads are kept by Anthropic, and this model is not theirs: "
            "send the whole conversation in messages",
            "details": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]},
        },
        "request_id": "req_b7edc6daac6031011ff425d1",
    }


def test_a_wrong_type_is_told_with_its_path_in_the_format_of_the_request() -> None:
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": 5}]}
    message = "invalid request body: Expected `str | array`, got `int` - at `$.messages[0].content`"

    chat_error, message_error = (refusal(path, body) for path in (CHAT, MESSAGES))
    gemini_error = refusal(GENERATE, {"contents": [{"parts": 5}]})

    assert chat_error == {
        "message": message,
        "type": "invalid_request_error",
        "param": "messages[0].content",
        "code": None,
    }
    assert message_error == {"type": "invalid_request_error", "message": message}
    assert gemini_error == {
        "code": 400,
        "message": "invalid request body: Expected `array | null`, got `int` - at `$.contents[0].parts`",
        "status": "INVALID_ARGUMENT",
    }


@pytest.mark.parametrize("schema", [b'"\xff"', b"[" * 10_000 + b"]" * 10_000])
def test_a_schema_that_cannot_be_read_is_refused(schema: bytes) -> None:
    tools = b'"tools":[{"type":"function","function":{"name":"f","parameters":{"default":%b}}}]' % schema
    body = b'{"model":"m","messages":[{"role":"user","content":"f"}],%b}' % tools

    reply = demo.reply("POST", CHAT, "", {}, body)

    assert reply.status == 400
    assert msgspec.json.decode(reply.chunks[0])["error"]["message"].startswith(("malformed JSON", "invalid request"))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'"\xff"', b"[" * 100_000, b'{"x":' * 100_000, b"[]", b"null"])
@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES, GENERATE, "/v1/embeddings"])
def test_a_body_that_is_no_request_is_refused(path: str, body: bytes) -> None:
    reply = demo.reply("POST", path, "", {}, body)

    assert reply.status == 400
    assert msgspec.json.decode(reply.chunks[0])["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "error"),
    [
        ("GET", "/", {}, {"code": "unknown_url"}),
        ("GET", CHAT, {}, {"code": "unknown_url"}),
        ("GET", "/v1/responses/resp_1", ANTHROPIC, {"code": "unknown_url"}),
        ("GET", "/v1/models/nope:8b", {}, {"code": "model_not_found"}),
        ("PUT", "/v1/models", {}, {"code": "unknown_url"}),
        ("DELETE", MESSAGES, {}, {"type": "not_found_error"}),
        ("GET", "/v1/models/nope", ANTHROPIC, {"type": "not_found_error"}),
        ("POST", "/v1/files", ANTHROPIC, {"type": "not_found_error"}),
        ("POST", "/v1/interactions", GOOGLE, {"code": 404, "status": "NOT_FOUND"}),
        ("POST", "/v1beta/models/m:fly", {}, {"code": 404, "status": "NOT_FOUND"}),
        ("POST", "/v1/models/m:flyAway", {}, {"code": 404, "status": "NOT_FOUND"}),
        ("POST", "/v1beta/models", {}, {"code": 404, "status": "NOT_FOUND"}),
        ("PUT", GENERATE, {}, {"code": 404, "status": "NOT_FOUND"}),
        ("POST", "/v1beta/models/:generateContent", {}, {"code": 404, "status": "NOT_FOUND"}),
    ],
)
def test_what_is_not_served_is_a_404_in_the_fitting_format(method: str, path: str, headers: Json, error: Json) -> None:
    reply = demo.reply(method, path, "", headers, b"{}")

    assert reply.status == 404
    assert msgspec.json.decode(reply.chunks[0])["error"].items() >= error.items()


# Any bytes on any path


JSON_OUTPUT = {"type": "json_schema", "json_schema": {"name": "c", "schema": CITY}}
REF = {"$defs": {"a": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/a"}, "y": {"$ref": "#/no/way"}}}
EXAMPLES: list[Json] = [
    chat(tools=chat_tools(), tool_choice=ALLOWED, stream=True, stop=["x"], n=2, response_format=JSON_OUTPUT),
    responses(input=user(BOTH), tools=responses_tools(), text={"format": FORMAT}, stream=True),
    messages(messages=user(BOTH), tools=messages_tools(), tool_choice={"type": "any"}, stream=True),
    gemini(BOTH, tools=gemini_tools(), generationConfig={"responseSchema": REF, "stopSequences": ["x"]}),
    {"requests": [{"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 4}]},
    {"model": "m", "input": ["a", "b"], "dimensions": 3, "encoding_format": "base64"},
]
PATHS = [
    CHAT,
    RESPONSES,
    MESSAGES,
    GENERATE,
    STREAM,
    "/v1/responses/input_tokens",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/v1/models",
    *(f"/v1/models/m:{call}" for call in ("countTokens", "embedContent", "batchEmbedContents")),
]
KEYS = [
    "$ref",
    "anyOf",
    "content",
    "default",
    "enum",
    "items",
    "name",
    "parts",
    "properties",
    "required",
    "text",
    "type",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def bent_requests(draw: st.DrawFn) -> object:
    """A request that was right until one value in it was replaced."""
    return bend(draw, draw(st.sampled_from(EXAMPLES)))


def bend(draw: st.DrawFn, value: object) -> object:
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(VALUES)
    key: Any = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    if isinstance(value, dict):
        return {**value, key: bend(draw, value[key])}
    return [*value[:key], bend(draw, value[key]), *value[key + 1 :]]


BODIES = st.binary() | VALUES.map(msgspec.json.encode) | bent_requests().map(msgspec.json.encode)


@settings(deadline=None)
@given(
    method=st.sampled_from(["POST", "GET"]),
    path=st.sampled_from(PATHS) | st.text().map("/v1/models/{}:generateContent".format) | st.text(),
    query=st.sampled_from(["", "alt=sse"]) | st.text(),
    headers=st.sampled_from([{}, ANTHROPIC, GOOGLE]),
    body=BODIES,
)
def test_any_bytes_on_any_path_give_a_well_formed_answer(
    method: str, path: str, query: str, headers: Json, body: bytes
) -> None:
    reply = demo.reply(method, path, query, headers, body)

    assert reply.status in (200, 400, 404)
    if reply.content_type == "text/event-stream":
        assert all(read_events(reply))
    else:
        assert isinstance(msgspec.json.decode(b"".join(reply.chunks)), dict | list)
    again = demo.reply(method, path, query, headers, body)
    assert (again.status, without_item_ids(again)) == (reply.status, without_item_ids(reply))
