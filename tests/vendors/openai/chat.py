"""OpenAI's chat completions: what the model sees, and what it answers, whole and streamed. No I/O."""

import json
from collections.abc import Callable
from typing import Any

from tests.vendors.openai.chat_rules import name_of, text_of, tool_names
from tests.vendors.openai.chat_wire import (
    AllowedTools,
    Assistant,
    File,
    FunctionMessage,
    FunctionTool,
    Image,
    InputAudio,
    JSONObject,
    JSONSchema,
    Message,
    NamedCustom,
    NamedFunction,
    Request,
    ToolMessage,
    User,
)
from tests.vendors.openai.rules import Model, split_data_url
from tests.vendors.scene import (
    CACHED_TOKENS,
    INPUT_TOKENS,
    LOGPROB,
    OUTPUT_TOKENS,
    REASONING_TOKENS,
    Answer,
    Media,
    Prompt,
)
from tests.vendors.seals import decode_base64
from tests.vendors.vendor import cut_text

CREATED = 1767225600


def read_prompt(request: Request, model: Model, body: Any) -> Prompt:
    """Return what the model sees of a request."""
    tail = _tail(request.messages)
    users = [message for message in tail if isinstance(message, User)]
    tools = [message for message in tail if isinstance(message, ToolMessage | FunctionMessage)]
    parts = [part for user in users if isinstance(user.content, list) for part in user.content]
    schemas = {
        name: (tool.function.parameters or {}) if isinstance(tool, FunctionTool) else None
        for name, tool in zip(tool_names(request), request.tools or [], strict=True)
    }
    allowed = _allowed(request, list(schemas))
    choice = request.tool_choice
    must = isinstance(choice, NamedFunction | NamedCustom) or choice == "required"
    if isinstance(choice, AllowedTools):
        must = choice.allowed_tools.mode == "required"
    form = request.response_format
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return Prompt(
        model=request.model,
        text="\n".join(text_of(user) for user in users),
        results=tuple(text_of(tool) for tool in tools),
        media=tuple(media for part in parts if (media := _read_media(part))),
        tools={name: schemas[name] for name in allowed},
        forced=tuple(allowed) if must else (),
        may_call=choice != "none",
        is_parallel=request.parallel_tool_calls is not False,
        thinks=model.reasons_at(request.reasoning_effort),
        wants_json=isinstance(form, JSONObject | JSONSchema),
        schema=form.json_schema.schema if isinstance(form, JSONSchema) else None,
        stop_sequences=tuple(stop),
        is_stream=bool(request.stream),
        body=body,
    )


def _tail(messages: list[Message]) -> list[Message]:
    ends = [index for index, message in enumerate(messages[:-1]) if isinstance(message, Assistant)]
    return messages[ends[-1] + 1 if ends else 0 :]


def _allowed(request: Request, names: list[str]) -> list[str]:
    match request.tool_choice:
        case NamedFunction(function=named) | NamedCustom(custom=named):
            return [named.name]
        case AllowedTools(allowed_tools=allowed):
            return [name_of(tool) for tool in allowed.tools]
        case _:
            return names


def _read_media(part: object) -> Media | None:
    match part:
        case Image(image_url=image):
            return read_url("image", image.url)
        case InputAudio(input_audio=audio):
            return Media("audio", f"audio/{audio.format}", len(decode_base64(audio.data) or b""))
        case File(file=file):
            return read_url("document", file.file_data or "")
        case _:
            return None


def read_url(kind: str, url: str) -> Media:
    if not url.startswith("data:"):
        return Media(kind, url)
    media_type, data = split_data_url(url, "")
    return Media(kind, media_type, len(decode_base64(data) or b""))


def encode_completion(request: Request, answer: Answer, make_id: Callable[[str], str]) -> dict[str, Any]:
    """Return the whole completion."""
    choices = [_encode_choice(request, answer, index, make_id) for index in range(request.n or 1)]
    return {
        "id": make_id("chatcmpl-"),
        "object": "chat.completion",
        "created": CREATED,
        "model": request.model,
        "choices": choices,
        "usage": {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
            "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": REASONING_TOKENS if answer.thought else 0},
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _encode_choice(request: Request, answer: Answer, index: int, make_id: Callable[[str], str]) -> dict[str, Any]:
    text = f"{answer.text} ({index + 1})" if index and not _is_json(request) else answer.text
    message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": answer.refusal or None}
    message["annotations"] = []
    if answer.calls:
        customs = {tool.custom.name for tool in request.tools or [] if not isinstance(tool, FunctionTool)}
        message["tool_calls"] = [
            {"id": make_id("call_"), "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
            if call.name in customs
            else {
                "id": make_id("call_"),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in answer.calls
        ]
    finish = "length" if answer.stop == "length" else "tool_calls" if answer.calls else "stop"
    logprobs = {"content": make_logprobs(text, request.top_logprobs), "refusal": None} if request.logprobs else None
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def _is_json(request: Request) -> bool:
    return isinstance(request.response_format, JSONObject | JSONSchema)


def make_logprobs(text: str, top: int | None) -> list[dict[str, Any]]:
    tokens = [{"token": each, "logprob": LOGPROB, "bytes": list(each.encode())} for each in cut_text(text)]
    return [{**token, "top_logprobs": [token] if top else []} for token in tokens]


def encode_chunks(request: Request, completion: dict[str, Any]) -> list[bytes]:
    """Return the same completion as a stream; the arguments of parallel calls arrive in turns."""
    deltas = [(choice["index"], *each) for choice in completion["choices"] for each in _take_apart(choice)]
    choices = [
        {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        for index, delta, logprobs, finish in deltas
    ]
    head = {key: value for key, value in completion.items() if key not in ("choices", "usage")}
    head |= {"object": "chat.completion.chunk", "obfuscation": "x3Fp"}
    has_usage = request.stream_options is not None and request.stream_options.include_usage
    extra = {"usage": None} if has_usage else {}
    chunks: list[dict[str, Any]] = [{**head, "choices": [choice], **extra} for choice in choices]
    if has_usage:
        chunks.append({**head, "choices": [], "usage": completion["usage"]})
    return [*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks), b"data: [DONE]\n\n"]


def _take_apart(choice: dict[str, Any]) -> list[tuple[dict[str, Any], Any, str | None]]:
    message = choice["message"]
    begin = {"role": "assistant", "content": None if "tool_calls" in message else "", "refusal": None}
    parts: list[tuple[dict[str, Any], Any, str | None]] = [(begin, None, None)]
    tokens = choice["logprobs"]["content"] if choice["logprobs"] else []
    for index, piece in enumerate(cut_text(message["content"]) if message["content"] else []):
        parts.append(({"content": piece}, {"content": tokens[index : index + 1]} if tokens else None, None))
    parts += [({"refusal": piece}, None, None) for piece in cut_text(message["refusal"] or "") if piece]
    parts += [(delta, None, None) for delta in _take_calls_apart(message.get("tool_calls", []))]
    return [*parts, ({}, None, choice["finish_reason"])]


def _take_calls_apart(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = []
    rest: list[list[tuple[int, str, str, str]]] = []
    for index, call in enumerate(calls):
        kind = call["type"]
        key = "arguments" if kind == "function" else "input"
        deltas.append({"index": index, **call, kind: {**call[kind], key: ""}})
        rest.append([(index, kind, key, piece) for piece in cut_text(call[kind][key])])
    while any(rest):
        for pieces in rest:
            if pieces:
                index, kind, key, piece = pieces.pop(0)
                deltas.append({"index": index, kind: {key: piece}})
    return [{"tool_calls": [delta]} for delta in deltas]
