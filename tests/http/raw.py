"""Requests without an SDK, and what clients that are strict need in a stream that answers them.

Each check fails where a field is missing without which one of the clients breaks that were measured; no more is
demanded than these need. Event names and fields are those of the vendors' references.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import httpx2

from tests.http.matrix import Stage

Body = dict[str, Any]


def write_request(name: str, model: str, text: str, *, is_stream: bool = False) -> tuple[str, Body]:
    """Return path and body of a request in the format called *name*."""
    extra: Body = {"stream": True} if is_stream else {}
    messages = [{"role": "user", "content": text}]
    match name:
        case "openai-chat":
            return "/v1/chat/completions", {"model": model, "messages": messages, **extra}
        case "openai-responses":
            return "/v1/responses", {"model": model, "input": messages, **extra}
        case "anthropic":
            return "/v1/messages", {"model": model, "messages": messages, "max_tokens": 4096, **extra}
        case _:
            method = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
            return f"/v1beta/models/{model}:{method}", {"contents": [{"role": "user", "parts": [{"text": text}]}]}


def send(stage: Stage, name: str, path: str, body: Body, headers: Mapping[str, str] | None = None) -> httpx2.Response:
    """Post *body*, and return the whole answer."""
    return stage.callers[name].http.post(stage.url + path, json=body, headers=headers)


class Event(NamedTuple):
    """One of a stream."""

    name: str
    data: Any


def read_events(received: bytes) -> list[Event]:
    """Return the events of a stream, which has nothing but comments beside them; ``[DONE]`` is None."""
    events: list[Event] = []
    text = received.decode().replace("\r\n", "\n")
    assert text.endswith("\n\n")
    for block in text.strip("\n").split("\n\n"):
        name = ""
        if block.startswith(":"):
            continue
        for line in block.split("\n"):
            field, _, value = line.partition(": ")
            assert field in ("event", "data"), line
            if field == "event":
                name = value
            else:
                events.append(Event(name, None if value == "[DONE]" else json.loads(value)))
    return events


def check_chat(events: Sequence[Event], *, wants_usage: bool = True) -> None:
    """Check a stream of chat completions."""
    assert events[-1].data is None
    chunks = [event.data for event in events[:-1]]
    assert None not in chunks
    assert {event.name for event in events} == {""}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    finishes = [choice["index"] for choice in choices if choice["finish_reason"] is not None]
    assert sorted(finishes) == sorted({choice["index"] for choice in choices})
    assert choices[-1]["finish_reason"] is not None
    roles = [choice["index"] for choice in choices if "role" in choice["delta"]]
    assert sorted(roles) == sorted(set(roles))
    _check_call_deltas([call for choice in choices for call in choice["delta"].get("tool_calls", [])])
    usages = [chunk for chunk in chunks if chunk.get("usage")]
    if wants_usage:
        assert usages == chunks[-1:]
        assert chunks[-1]["choices"] == []
        assert {"prompt_tokens", "completion_tokens", "total_tokens"} <= chunks[-1]["usage"].keys()
    else:
        assert usages == []
        assert all(chunk["choices"] for chunk in chunks)


def _check_call_deltas(calls: Sequence[Body]) -> None:
    opened: dict[int, str] = {}
    for call in calls:
        if call["index"] not in opened:
            assert call["index"] == len(opened)
            opened[call["index"]] = call["id"]
            assert call["function"]["name"]
            assert call["type"] == "function"
        else:
            # A client that adds strings up would double them.
            assert not {"id", "type"} & call.keys()
            assert "name" not in call["function"]
    for index in opened:
        json.loads("".join(call["function"].get("arguments", "") for call in calls if call["index"] == index))


def check_responses(events: Sequence[Event]) -> None:
    """Check a stream of Responses."""
    data = [event.data for event in events]
    assert [event.name for event in events] == [each["type"] for each in data]
    assert [each["sequence_number"] for each in data] == list(range(len(data)))
    assert data[0]["type"] == "response.created"
    assert data[1]["type"] == "response.in_progress"
    last = data[-1]
    assert last["type"] in ("response.completed", "response.incomplete")
    ids = {each["response"]["id"] for each in data if "response" in each}
    assert len(ids) == 1
    done = {each["output_index"]: each["item"] for each in data if each["type"] == "response.output_item.done"}
    assert last["response"]["output"] == [done[index] for index in sorted(done)]
    assert list(done) == list(range(len(done)))
    for index, item in done.items():
        _check_item(item, [each for each in data if each.get("output_index") == index])
    usage = last["response"]["usage"]
    assert {"input_tokens", "output_tokens", "total_tokens"} <= usage.keys()
    assert "cached_tokens" in usage["input_tokens_details"]
    assert "reasoning_tokens" in usage["output_tokens_details"]


def _check_item(item: Body, events: Sequence[Body]) -> None:
    added = events[0]
    assert added["type"] == "response.output_item.added"
    assert events[-1]["type"] == "response.output_item.done"
    assert (added["item"]["id"], added["item"]["type"]) == (item["id"], item["type"])
    assert {each["item_id"] for each in events if "item_id" in each} <= {item["id"]}
    kinds = [each["type"].removeprefix("response.") for each in events[1:-1]]
    match item["type"]:
        case "message":
            assert item["status"] in ("completed", "incomplete")
            assert item["role"] == "assistant"
            assert (kinds[0], kinds[-1]) == ("content_part.added", "content_part.done")
            deltas = [each["delta"] for each in events if each["type"].endswith("output_text.delta")]
            if deltas:
                assert kinds[-2] == "output_text.done"
                assert "".join(deltas) == item["content"][0]["text"] == events[-3]["text"]
                assert isinstance(item["content"][0]["annotations"], list)
        case "function_call":
            assert item["status"] == "completed"
            assert item["call_id"] == added["item"]["call_id"]
            assert item["name"] == added["item"]["name"]
            assert kinds[-1] == "function_call_arguments.done"
            deltas = [each["delta"] for each in events if each["type"].endswith("arguments.delta")]
            assert "".join(deltas) == item["arguments"] == events[-2]["arguments"]
            json.loads(item["arguments"])
        case "custom_tool_call":
            assert kinds[-1] == "custom_tool_call_input.done"
            assert events[-2]["input"] == item["input"]
        case "reasoning":
            assert isinstance(item["summary"], list)
            deltas = [each["delta"] for each in events if each["type"].endswith("summary_text.delta")]
            assert "".join(deltas) == "".join(part["text"] for part in item["summary"])
        case other:
            raise AssertionError(other)


ANTHROPIC_EVENTS: Final = frozenset(
    (
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
    )
)
DELTAS: Final = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
    "redacted_thinking": set(),
}


def check_anthropic(events: Sequence[Event]) -> None:
    """Check a stream of Messages."""
    data = [event.data for event in events]
    kinds = [each["type"] for each in data]
    assert [event.name for event in events] == kinds
    assert set(kinds) <= ANTHROPIC_EVENTS
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    message = data[0]["message"]
    assert (message["type"], message["role"], message["content"], message["stop_reason"]) == (
        "message",
        "assistant",
        [],
        None,
    )
    assert message["id"]
    assert message["model"]
    assert {"input_tokens", "output_tokens"} <= message["usage"].keys()
    assert data[-2]["delta"]["stop_reason"]
    assert "stop_sequence" in data[-2]["delta"]
    assert data[-2]["usage"]["output_tokens"] > 0
    _check_blocks([each for each in data if each["type"].startswith("content_block")])


def _check_blocks(data: Sequence[Body]) -> None:
    block: Body | None = None
    deltas: list[Body] = []
    index = -1
    for each in data:
        match each["type"]:
            case "content_block_start":
                assert block is None
                index += 1
                block, deltas = each["content_block"], []
            case "content_block_delta":
                assert block is not None
                assert each["delta"]["type"] in DELTAS[block["type"]]
                deltas.append(each["delta"])
            case _:
                assert block is not None
                _check_block(block, deltas)
                block = None
        assert each["index"] == index
    assert block is None


def _check_block(block: Body, deltas: Sequence[Body]) -> None:
    match block["type"]:
        case "text":
            assert block["text"] == ""
        case "thinking":
            assert (block["thinking"], block["signature"]) == ("", "")
            assert [delta["type"] for delta in deltas].count("signature_delta") == 1
            assert deltas[-1]["type"] == "signature_delta"
        case "tool_use":
            assert block["id"]
            assert block["name"]
            assert block["input"] == {}
            assert isinstance(json.loads("".join(delta["partial_json"] for delta in deltas) or "{}"), dict)
        case _:
            assert block["data"]


def check_gemini(events: Sequence[Event]) -> None:
    """Check a stream of generateContent; `check_gemini_framing` looks at its bytes."""
    assert {event.name for event in events} == {""}
    chunks = [event.data for event in events]
    assert None not in chunks
    finishes = [
        candidate.get("index", 0)
        for chunk in chunks
        for candidate in chunk.get("candidates", [])
        if "finishReason" in candidate
    ]
    assert finishes
    assert sorted(finishes) == sorted(set(finishes))
    assert "finishReason" in chunks[-1]["candidates"][0]
    usage = chunks[-1]["usageMetadata"]
    assert {"promptTokenCount", "candidatesTokenCount", "totalTokenCount"} <= usage.keys()
    for chunk in chunks:
        assert chunk["modelVersion"]
        for candidate in chunk.get("candidates", []):
            for part in candidate.get("content", {"parts": []})["parts"]:
                assert part
                if "functionCall" in part:
                    assert part["functionCall"]["name"]
                    assert isinstance(part["functionCall"].get("args", {}), dict)


CHECKS: Final[Mapping[str, Callable[[Sequence[Event]], None]]] = {
    "openai-chat": check_chat,
    "openai-responses": check_responses,
    "anthropic": check_anthropic,
    "gemini": check_gemini,
}


def check_stream(name: str, received: bytes) -> list[Event]:
    """Check a whole stream in the format called *name*, and return its events."""
    if name == "gemini":
        # Google's SDK for Python, and Gemini CLI, take neither names nor comments nor other line ends within.
        for block in received.replace(b"\r\n", b"\n").strip(b"\n").split(b"\n\n"):
            assert block.startswith(b"data: {")
            assert b"\n" not in block
    events = read_events(received)
    CHECKS[name](events)
    return events
