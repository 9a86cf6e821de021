"""OpenAI's Responses: what the model sees, and what it answers, whole and streamed. No I/O."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.vendors.openai.chat import CREATED, make_logprobs, read_url
from tests.vendors.openai.responses_rules import own_tools, text_of
from tests.vendors.openai.responses_wire import (
    AllowedTools,
    CustomTool,
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputFile,
    InputImage,
    InputText,
    Item,
    JSONObject,
    JSONSchema,
    Message,
    NamedCustom,
    NamedFunction,
    Reasoning,
    Request,
)
from tests.vendors.openai.rules import Model
from tests.vendors.scene import CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, REASONING_TOKENS, Answer, Media, Prompt
from tests.vendors.seals import make_seal
from tests.vendors.vendor import cut_text

MakeId = Callable[[str], str]


def read_prompt(request: Request, model: Model, body: Any) -> Prompt:
    """Return what the model sees of a request."""
    tail = _tail(request.input)
    users = [item for item in tail if isinstance(item, Message) and item.role == "user"]
    outputs = [item for item in tail if isinstance(item, FunctionCallOutput | CustomToolCallOutput)]
    parts = [part for item in users if isinstance(item.content, list) for part in item.content]
    inner = [part for item in outputs if isinstance(item.output, list) for part in item.output]
    schemas = {
        tool.name: (tool.parameters or {}) if isinstance(tool, FunctionTool) else None
        for _, _, tool in own_tools(request)
    }
    choice = request.tool_choice
    allowed = list(schemas)
    if isinstance(choice, NamedFunction | NamedCustom):
        allowed = [choice.name]
    elif isinstance(choice, AllowedTools):
        allowed = [str(tool["name"]) for tool in choice.tools if tool.get("name") in schemas]
    must = choice == "required" or isinstance(choice, NamedFunction | NamedCustom)
    form = request.text.format if request.text else None
    return Prompt(
        model=request.model,
        text="\n".join(text_of(item) for item in users),
        results=tuple(_read_output(item.output) for item in outputs),
        media=tuple(media for part in [*parts, *inner] if (media := _read_media(part))),
        tools={name: schemas[name] for name in allowed},
        forced=tuple(allowed) if must or (isinstance(choice, AllowedTools) and choice.mode == "required") else (),
        may_call=choice != "none",
        is_parallel=request.parallel_tool_calls is not False,
        thinks=model.reasons_at(request.reasoning.effort if request.reasoning else None),
        wants_json=isinstance(form, JSONObject | JSONSchema),
        schema=form.schema if isinstance(form, JSONSchema) else None,
        is_stream=bool(request.stream),
        body=body,
    )


def _tail(items: list[Item]) -> list[Item]:
    ends = [
        index
        for index, item in enumerate(items[:-1])
        if isinstance(item, FunctionCall | CustomToolCall | Reasoning)
        or (isinstance(item, Message) and item.role == "assistant")
    ]
    return items[ends[-1] + 1 if ends else 0 :]


def _read_output(output: str | list[Any]) -> str:
    if isinstance(output, str):
        return output
    return "\n".join(part.text for part in output if isinstance(part, InputText))


def _read_media(part: object) -> Media | None:
    match part:
        case InputImage(image_url=str() as url):
            return read_url("image", url)
        case InputFile(file_data=str() as data):
            return read_url("document", data)
        case InputFile(file_url=str() as url):
            return Media("document", url)
        case _:
            return None


def encode_response(request: Request, answer: Answer, make_id: MakeId) -> dict[str, Any]:
    """Return the whole response."""
    is_cut = answer.stop == "length"
    return {
        "id": make_id("resp_"),
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if is_cut else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "model": request.model,
        "output": list(_encode_items(request, answer, make_id)),
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": request.reasoning.effort if request.reasoning else None, "summary": None},
        "store": request.store is not False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": INPUT_TOKENS,
            "input_tokens_details": {"cached_tokens": CACHED_TOKENS, "cache_write_tokens": 0},
            "output_tokens": OUTPUT_TOKENS,
            "output_tokens_details": {"reasoning_tokens": REASONING_TOKENS if answer.thought else 0},
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        },
        "user": None,
        "metadata": request.metadata or {},
    }


def _encode_items(request: Request, answer: Answer, make_id: MakeId) -> Iterator[dict[str, Any]]:
    if answer.thought:
        shows = request.reasoning is not None and request.reasoning.summary is not None
        summary = [{"type": "summary_text", "text": answer.thought}] if shows else []
        encrypted = {"encrypted_content": make_seal("openai", "reasoning")} if _is_stateless(request) else {}
        yield {"id": make_id("rs_"), "type": "reasoning", "summary": summary, **encrypted}
    status = "incomplete" if answer.stop == "length" else "completed"
    if answer.refusal or answer.text:
        part: dict[str, Any] = {"type": "refusal", "refusal": answer.refusal}
        if not answer.refusal:
            logprobs = make_logprobs(answer.text, request.top_logprobs) if _wants_logprobs(request) else []
            part = {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": answer.text}
        yield {"id": make_id("msg_"), "type": "message", "status": status, "content": [part], "role": "assistant"}
    tools = {tool.name: (namespace, tool) for _, namespace, tool in own_tools(request)}
    for call in answer.calls:
        namespace, tool = tools[call.name]
        fields = {"status": status, "call_id": make_id("call_"), "name": call.name}
        fields |= {"namespace": namespace} if namespace else {}
        if isinstance(tool, CustomTool):
            yield {"id": make_id("ctc_"), "type": "custom_tool_call", "input": call.arguments, **fields}
        else:
            yield {"id": make_id("fc_"), "type": "function_call", "arguments": call.arguments, **fields}


def _is_stateless(request: Request) -> bool:
    """Encrypted content is given where it is asked for, and where nothing is stored."""
    return request.store is False or "reasoning.encrypted_content" in (request.include or [])


def _wants_logprobs(request: Request) -> bool:
    return "message.output_text.logprobs" in (request.include or [])


def encode_events(response: dict[str, Any]) -> list[bytes]:
    """Return the same response as a stream."""
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    events: list[dict[str, Any]] = [
        {"type": f"response.{step}", "response": begun} for step in ("created", "in_progress")
    ]
    for index, item in enumerate(response["output"]):
        place = {"item_id": item["id"], "output_index": index}
        opened, pieces = _take_apart(item)
        events.append({"type": "response.output_item.added", "output_index": index, "item": {**item, **opened}})
        events += [{"type": f"response.{kind}", **place, **fields} for kind, fields in pieces]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{response['status']}", "response": response})
    return [encode_event({**event, "sequence_number": number}) for number, event in enumerate(events)]


def encode_event(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _take_apart(item: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """Return how an item differs when it is opened, and the events that fill it."""
    match item["type"]:
        case "reasoning":
            return {"summary": [], "encrypted_content": None}, _take_summary_apart(item["summary"])
        case "message":
            return {"status": "in_progress", "content": []}, _take_part_apart(item["content"][0])
        case "custom_tool_call":
            deltas = [("custom_tool_call_input.delta", {"delta": piece}) for piece in cut_text(item["input"])]
            return {"status": "in_progress", "input": ""}, [
                *deltas,
                ("custom_tool_call_input.done", {"input": item["input"]}),
            ]
        case _:
            deltas = [("function_call_arguments.delta", {"delta": piece}) for piece in cut_text(item["arguments"])]
            done = {"arguments": item["arguments"], "name": item["name"]}
            return {"status": "in_progress", "arguments": ""}, [*deltas, ("function_call_arguments.done", done)]


def _take_summary_apart(summary: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    pieces: list[tuple[str, dict[str, Any]]] = []
    for index, part in enumerate(summary):
        place = {"summary_index": index}
        pieces.append(("reasoning_summary_part.added", {**place, "part": {**part, "text": ""}}))
        pieces += [("reasoning_summary_text.delta", {**place, "delta": each}) for each in cut_text(part["text"])]
        pieces.append(("reasoning_summary_text.done", {**place, "text": part["text"]}))
        pieces.append(("reasoning_summary_part.done", {**place, "part": part}))
    return pieces


def _take_part_apart(part: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    place = {"content_index": 0}
    if part["type"] == "refusal":
        opened: dict[str, Any] = {"type": "refusal", "refusal": ""}
        deltas = [("refusal.delta", {**place, "delta": piece}) for piece in cut_text(part["refusal"])]
        done = ("refusal.done", {**place, "refusal": part["refusal"]})
    else:
        opened = {**part, "text": "", "logprobs": []}
        tokens = part["logprobs"]
        deltas = [
            ("output_text.delta", {**place, "delta": piece, "logprobs": tokens[index : index + 1]})
            for index, piece in enumerate(cut_text(part["text"]))
        ]
        done = ("output_text.done", {**place, "text": part["text"], "logprobs": tokens})
    added = ("content_part.added", {**place, "part": opened})
    return [added, *deltas, done, ("content_part.done", {**place, "part": part})]
