"""What the soak's callers ask and its upstream answers, in each format. No I/O.

A question carries a mark from which its only right answer follows, so that a caller knows when it was given the answer
of somebody else, or half of one.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any, Final, Literal, NamedTuple

import msgspec

Body = dict[str, Any]
Shape = Literal["text", "thought", "call", "large"]

FORMATS: Final = ("openai-chat", "openai-responses", "anthropic", "gemini")
TOOL: Final = "look_up"
MODEL: Final = "soak-model-1"
"""As the upstream's answers name it."""
SIGNATURE: Final = "EqQBCkYI" * 30
LARGE_PIECE_BYTES: Final = 4096

_MARK: Final = re.compile(rb"soak:([a-z0-9]+):(text|thought|call|large):(\d+):(\d+);")
_SCHEMA: Final = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "number": {"type": "integer"}},
    "required": ["name"],
}
_WORDS: Final = ("the", "gateway", "hands", "each", "answer", "back", "as", "it", "comes", "and", "keeps", "nothing")


class Question(NamedTuple):
    """One question, and how it is to be answered."""

    name: str
    shape: Shape
    pieces: int
    """Of text or of thought."""
    gap_ms: int
    """Between two events of a stream; 0: all at once."""

    @property
    def text(self) -> str:
        """What a caller writes."""
        mark = f"soak:{self.name}:{self.shape}:{self.pieces}:{self.gap_ms};"
        return f"{mark} What stands between the programs at home and the models that they talk to?"

    @property
    def words(self) -> list[str]:
        """What the answer says, in pieces; nothing where it is a call."""
        if self.shape == "call":
            return []
        if self.shape == "large":
            return [f"[{self.name} {at}]".ljust(LARGE_PIECE_BYTES, "x") for at in range(self.pieces)]
        return [f"[{self.name}]", *(f" {_WORDS[at % len(_WORDS)]}" for at in range(self.pieces))]

    @property
    def thoughts(self) -> list[str]:
        """What is thought before."""
        return [f" hm{at}" for at in range(self.pieces)] if self.shape == "thought" else []

    @property
    def arguments(self) -> Body | None:
        """Those of the tool that the answer calls."""
        return {"name": self.name, "number": self.pieces} if self.shape == "call" else None


def read_mark(body: bytes) -> Question | None:
    """Return the last question in *body*."""
    marks = _MARK.findall(body)
    if not marks:
        return None
    name, shape, pieces, gap_ms = marks[-1]
    return Question(name.decode(), shape.decode(), int(pieces), int(gap_ms))


# --- Requests ---------------------------------------------------------------------------------------------------------


class Wish(NamedTuple):
    """How a caller wants to be answered."""

    fmt: str
    model: str
    kind: Literal["whole", "stream", "array"]
    """The array is Gemini's stream for callers who ask for no events."""
    wants_usage: bool = False


def write_request(wish: Wish, question: Question) -> tuple[str, bytes]:
    """Return path and body."""
    has_tools = question.shape == "call"
    extra: Body = {"stream": True} if wish.kind != "whole" else {}
    user = {"role": "user", "content": question.text}
    function = {"name": TOOL, "description": "Looks something up."}
    match wish.fmt:
        case "openai-chat":
            if wish.wants_usage:
                extra["stream_options"] = {"include_usage": True}
            if has_tools:
                extra["tools"] = [{"type": "function", "function": {**function, "parameters": _SCHEMA}}]
            return "/v1/chat/completions", _encode({"model": wish.model, "messages": [user], **extra})
        case "openai-responses":
            if has_tools:
                extra["tools"] = [{"type": "function", **function, "parameters": _SCHEMA, "strict": False}]
            return "/v1/responses", _encode({"model": wish.model, "input": [user], "store": False, **extra})
        case "anthropic":
            if has_tools:
                extra["tools"] = [{**function, "input_schema": _SCHEMA}]
            return "/v1/messages", _encode({"model": wish.model, "max_tokens": 4096, "messages": [user], **extra})
        case _:
            content: Body = {"contents": [{"role": "user", "parts": [{"text": question.text}]}]}
            if has_tools:
                content["tools"] = [{"functionDeclarations": [{**function, "parametersJsonSchema": _SCHEMA}]}]
            method = {
                "whole": "generateContent",
                "stream": "streamGenerateContent?alt=sse",
                "array": "streamGenerateContent",
            }
            return f"/v1beta/models/{wish.model}:{method[wish.kind]}", _encode(content)


# --- Whole answers ----------------------------------------------------------------------------------------------------


def write_whole(fmt: str, question: Question) -> bytes:
    """Return the whole answer."""
    text, thought, arguments = "".join(question.words), "".join(question.thoughts), question.arguments
    match fmt:
        case "openai-chat":
            message: Body = {"role": "assistant", "content": text or None}
            if thought:
                message["reasoning_content"] = thought
            if arguments is not None:
                message["tool_calls"] = [_chat_call(_encode(arguments).decode())]
            choice = {"index": 0, "message": message, "finish_reason": "stop" if arguments is None else "tool_calls"}
            head = _chat_head("chat.completion")
            return _encode({**head, "choices": [choice], "usage": _chat_usage()})
        case "openai-responses":
            return _encode(_response("completed", [item for _, _, item in _items(question)]))
        case "anthropic":
            content: list[Body] = [block for block, _ in _blocks(question, is_whole=True)]
            reason = "end_turn" if arguments is None else "tool_use"
            return _encode({**_message(), "content": content, "stop_reason": reason})
        case _:
            parts = [{"text": thought, "thought": True}] if thought else []
            return _encode(_gemini([*parts, *_gemini_parts(question)], is_last=True))


def write_stream(fmt: str, question: Question, *, has_usage: bool = False, is_array: bool = False) -> list[bytes]:
    """Return the events of the answer as a stream."""
    match fmt:
        case "openai-chat":
            return [*map(_event, _chat_chunks(question, has_usage=has_usage)), b"data: [DONE]\n\n"]
        case "openai-responses":
            numbers = count()
            return [_named({**body, "sequence_number": next(numbers)}) for body in _response_events(question)]
        case "anthropic":
            return list(map(_named, _message_events(question)))
        case _:
            answers = list(_gemini_answers(question))
            if not is_array:
                return list(map(_event, answers))
            starts = [b"[", *([b",\r\n"] * (len(answers) - 1))]
            return [*(start + _encode(answer) for start, answer in zip(starts, answers, strict=True)), b"]"]


def _chat_head(kind: str) -> Body:
    return {"id": "chatcmpl-soak", "object": kind, "created": 1767225600, "model": MODEL}


def _chat_usage() -> Body:
    return {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}


def _chat_call(arguments: str) -> Body:
    return {"id": "call_soak1", "type": "function", "function": {"name": TOOL, "arguments": arguments}}


def _chat_chunks(question: Question, *, has_usage: bool) -> Iterator[Body]:
    head = _chat_head("chat.completion.chunk")
    deltas: list[Body] = [{"role": "assistant", "content": ""}]
    deltas += ({"reasoning_content": thought} for thought in question.thoughts)
    deltas += ({"content": piece} for piece in question.words)
    if question.arguments is not None:
        text = _encode(question.arguments).decode()
        deltas.append({"tool_calls": [{"index": 0, **_chat_call("")}]})
        deltas += ({"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in (text[:7], text[7:]))
    for delta in deltas:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    reason = "stop" if question.arguments is None else "tool_calls"
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    if has_usage:
        yield {**head, "choices": [], "usage": _chat_usage()}


def _response(status: str, output: Sequence[Body]) -> Body:
    usage = {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 50,
    }
    head: Body = {"id": "resp_soak", "object": "response", "created_at": 1767225600, "status": status, "model": MODEL}
    more: Body = {"error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "tools": []}
    return {**head, **more, "output": list(output), "usage": usage if status == "completed" else None}


def _items(question: Question) -> Iterator[tuple[Body, list[Body], Body]]:
    """Yield each item as it begins, the events within it, and the whole of it."""
    at = 0
    if question.thoughts:
        summary = {"type": "summary_text", "text": "".join(question.thoughts)}
        begun: Body = {"id": "rs_soak", "type": "reasoning", "summary": []}
        place: Body = {"item_id": "rs_soak", "output_index": at, "summary_index": 0}
        kind = "response.reasoning_summary_"
        events: list[Body] = [{"type": f"{kind}part.added", **place, "part": {"type": "summary_text", "text": ""}}]
        events += ({"type": f"{kind}text.delta", **place, "delta": thought} for thought in question.thoughts)
        events.append({"type": f"{kind}text.done", **place, "text": summary["text"]})
        events.append({"type": f"{kind}part.done", **place, "part": summary})
        yield begun, events, {**begun, "summary": [summary]}
        at += 1
    if question.arguments is not None:
        text = _encode(question.arguments).decode()
        call: Body = {"id": "fc_soak", "type": "function_call", "call_id": "call_soak1", "name": TOOL}
        place = {"item_id": "fc_soak", "output_index": at}
        kind = "response.function_call_arguments"
        events = [{"type": f"{kind}.delta", **place, "delta": part} for part in (text[:7], text[7:])]
        events.append({"type": f"{kind}.done", **place, "arguments": text})
        begun = {**call, "status": "in_progress", "arguments": ""}
        yield begun, events, {**call, "status": "completed", "arguments": text}
    else:
        yield _spoken(question.words, at)


def _spoken(words: Sequence[str], at: int) -> tuple[Body, list[Body], Body]:
    empty: Body = {"type": "output_text", "text": "", "annotations": []}
    part = {**empty, "text": "".join(words)}
    item: Body = {"id": "msg_soak", "type": "message", "role": "assistant"}
    place: Body = {"item_id": "msg_soak", "output_index": at, "content_index": 0}
    events: list[Body] = [{"type": "response.content_part.added", **place, "part": empty}]
    events += ({"type": "response.output_text.delta", **place, "delta": piece} for piece in words)
    events.append({"type": "response.output_text.done", **place, "text": part["text"]})
    events.append({"type": "response.content_part.done", **place, "part": part})
    begun = {**item, "status": "in_progress", "content": []}
    return begun, events, {**item, "status": "completed", "content": [part]}


def _response_events(question: Question) -> Iterator[Body]:
    begun = _response("in_progress", [])
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    whole = []
    for at, (item, events, done) in enumerate(_items(question)):
        yield {"type": "response.output_item.added", "output_index": at, "item": item}
        yield from events
        yield {"type": "response.output_item.done", "output_index": at, "item": done}
        whole.append(done)
    yield {"type": "response.completed", "response": _response("completed", whole)}


def _message() -> Body:
    head: Body = {"id": "msg_soak", "type": "message", "role": "assistant", "model": MODEL, "content": []}
    return {**head, "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 30, "output_tokens": 20}}


def _blocks(question: Question, *, is_whole: bool) -> Iterator[tuple[Body, list[Body]]]:
    """Yield each block and its deltas; a whole one has all of them in it."""
    if question.thoughts:
        deltas: list[Body] = [{"type": "thinking_delta", "thinking": thought} for thought in question.thoughts]
        deltas.append({"type": "signature_delta", "signature": SIGNATURE})
        told = ("".join(question.thoughts), SIGNATURE) if is_whole else ("", "")
        yield {"type": "thinking", "thinking": told[0], "signature": told[1]}, deltas
    if question.arguments is not None:
        text = _encode(question.arguments).decode()
        call = {"type": "tool_use", "id": "toolu_soak1", "name": TOOL, "input": question.arguments if is_whole else {}}
        yield call, [{"type": "input_json_delta", "partial_json": part} for part in (text[:7], text[7:])]
    else:
        text = "".join(question.words) if is_whole else ""
        yield {"type": "text", "text": text}, [{"type": "text_delta", "text": piece} for piece in question.words]


def _message_events(question: Question) -> Iterator[Body]:
    yield {"type": "message_start", "message": _message()}
    for index, (block, deltas) in enumerate(_blocks(question, is_whole=False)):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {"stop_reason": "end_turn" if question.arguments is None else "tool_use", "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 20}}
    yield {"type": "message_stop"}


def _gemini_parts(question: Question) -> list[Body]:
    if question.arguments is not None:
        return [{"functionCall": {"name": TOOL, "args": question.arguments}}]
    return [{"text": piece} for piece in question.words]


def _gemini(parts: Iterable[Body], *, is_last: bool) -> Body:
    candidate: Body = {"index": 0, "content": {"role": "model", "parts": list(parts)}}
    if is_last:
        candidate["finishReason"] = "STOP"
    usage = {"promptTokenCount": 30, "candidatesTokenCount": 20, "totalTokenCount": 50}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": MODEL, "responseId": "soak"}


def _gemini_answers(question: Question) -> Iterator[Body]:
    thoughts = [{"text": thought, "thought": True} for thought in question.thoughts]
    parts: list[Body] = thoughts + _gemini_parts(question)
    for at, part in enumerate(parts, 1):
        yield _gemini([part], is_last=at == len(parts))


# --- Errors -----------------------------------------------------------------------------------------------------------

SCRIPTED: Final = "scripted by the soak"
"""Stands in every error that the upstream tells, and in none of aiproxyd's own."""

_ERROR_TYPES: Final = {
    400: ("invalid_request_error", "INVALID_ARGUMENT"),
    401: ("authentication_error", "UNAUTHENTICATED"),
    429: ("rate_limit_error", "RESOURCE_EXHAUSTED"),
}


def write_error(fmt: str, status: int) -> bytes:
    """Return the body of an error answer."""
    word, status_word = _ERROR_TYPES.get(status, ("api_error", "INTERNAL"))
    match fmt:
        case "anthropic":
            error = {"type": word, "message": SCRIPTED}
            return _encode({"type": "error", "error": error, "request_id": "req_soak"})
        case "gemini":
            return _encode({"error": {"code": status, "message": SCRIPTED, "status": status_word}})
        case _:
            return _encode({"error": {"message": SCRIPTED, "type": word, "param": None, "code": None}})


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value)


def _event(data: Body) -> bytes:
    return b"data: " + _encode(data) + b"\n\n"


def _named(data: Body) -> bytes:
    return f"event: {data['type']}\n".encode() + _event(data)
