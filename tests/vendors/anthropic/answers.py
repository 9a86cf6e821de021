"""What Anthropic answers, whole and as events. No I/O."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.vendors.anthropic.rules import find_model
from tests.vendors.anthropic.wire import Adaptive, Enabled, Request
from tests.vendors.scene import CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, REASONING_TOKENS, Answer
from tests.vendors.seals import make_seal
from tests.vendors.vendor import cut_text

STOPS = {"end": "end_turn", "length": "max_tokens", "stop sequence": "stop_sequence"}


def encode_message(request: Request, answer: Answer, make_id: Callable[[str], str]) -> dict[str, Any]:
    """Return the whole message. A request for 0 tokens only warms the cache: it is answered with none."""
    content = list(_encode_blocks(request, answer, make_id)) if request.max_tokens else []
    stop = "tool_use" if answer.calls else STOPS[answer.stop]
    if answer.refusal:
        stop = "refusal"
    if not request.max_tokens:
        stop = "max_tokens"
    message: dict[str, Any] = {
        "id": make_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": request.stop_sequences[0] if stop == "stop_sequence" else None,
        "usage": {
            "input_tokens": INPUT_TOKENS - CACHED_TOKENS,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": CACHED_TOKENS,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": OUTPUT_TOKENS if request.max_tokens else 0,
            "output_tokens_details": {"thinking_tokens": REASONING_TOKENS if answer.thought else 0},
            "service_tier": "standard",
        },
    }
    if answer.refusal:
        message["stop_details"] = {"type": "refusal", "category": "cyber", "explanation": answer.refusal}
    return message


def _encode_blocks(request: Request, answer: Answer, make_id: Callable[[str], str]) -> Iterator[dict[str, Any]]:
    if answer.thought and answer.hides_thought:
        yield {"type": "redacted_thinking", "data": make_seal("anthropic", "redacted")}
    elif answer.thought:
        thought = answer.thought if _shows_thoughts(request) else ""
        yield {"type": "thinking", "thinking": thought, "signature": make_seal("anthropic", thought)}
    if answer.text:
        yield {"type": "text", "text": answer.text}
    for call in answer.calls:
        yield {"type": "tool_use", "id": make_id("toolu_"), "name": call.name, "input": json.loads(call.arguments)}


def _shows_thoughts(request: Request) -> bool:
    """Return whether thoughts have text; from 4.7 on, only where that is asked for."""
    match request.thinking:
        case Enabled(display=display) | Adaptive(display=display) if display is not None:
            return display != "omitted"
        case Enabled() | Adaptive():
            return find_model(request.model).version <= (4, 6)
        case _:
            return False


def encode_events(message: dict[str, Any]) -> list[bytes]:
    """Return the same message as a stream."""
    usage = message["usage"]
    begun = {
        **message,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 1},
    }
    begun.pop("stop_details", None)
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        opened, deltas = _take_apart(block)
        events.append({"type": "content_block_start", "index": index, "content_block": opened})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    delta = {key: message[key] for key in ("stop_reason", "stop_sequence", "stop_details") if key in message}
    final = {key: usage[key] for key in ("output_tokens", "output_tokens_details")}
    events += [{"type": "message_delta", "delta": delta, "usage": final}, {"type": "message_stop"}]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def _take_apart(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a block as it is opened, and what fills it."""
    match block["type"]:
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": each} for each in cut_text(block["thinking"]) if each]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            return {"type": "thinking", "thinking": "", "signature": ""}, deltas
        case "text":
            return {"type": "text", "text": ""}, [
                {"type": "text_delta", "text": each} for each in cut_text(block["text"])
            ]
        case "redacted_thinking":
            return block, []
        case _:
            pieces = ["", *cut_text(json.dumps(block["input"]))] if block["input"] else []
            deltas = [{"type": "input_json_delta", "partial_json": each} for each in pieces]
            return {**block, "input": {}}, deltas
