"""What a scripted upstream says in each format: a good answer, whole or as a stream, and errors. Sans-I/O."""

from typing import Any, Final, NamedTuple

from tests.answers import encode, event, named_event

FORMATS: Final = ("openai-chat", "openai-responses", "anthropic", "gemini")
Body = dict[str, Any]


def say(place: str) -> str:
    """Return the answer of *place*, so that it shows who gave it, and that it is all there, once."""
    return f"Here is {place}, and that is all."


class Wire(NamedTuple):
    """The events of a good stream."""

    events: tuple[bytes, ...]
    first: int
    """Number of events up to the one with the first words."""
    last: int
    """Number of events without those that say that it is complete."""


def write_whole(fmt: str, text: str) -> bytes:
    """Return a good answer of *fmt*."""
    match fmt:
        case "openai-chat":
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
            head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
            return encode({**head, "choices": [choice], "usage": usage})
        case "openai-responses":
            return encode(_response("completed", text))
        case "anthropic":
            content = [{"type": "text", "text": text}]
            return encode({**_message(), "content": content, "stop_reason": "end_turn"})
        case _:
            return encode(_gemini(text, is_last=True))


def write_stream(fmt: str, text: str, *, is_array: bool = False) -> Wire:
    """Return a good stream of *fmt*, of which Gemini has another shape, an array in JSON."""
    half = len(text) // 2
    write = {"openai-chat": _chat, "openai-responses": _responses, "anthropic": _anthropic, "gemini": _gemini_stream}
    wire = write[fmt](text[:half], text[half:])
    if not is_array:
        return wire
    objects = [_to_element(event, number) for number, event in enumerate(wire.events)]
    return Wire((*objects, b"]"), wire.first, wire.last)


def _to_element(event: bytes, number: int) -> bytes:
    return (b",\r\n" if number else b"[") + event.removeprefix(b"data: ").rstrip()


def _chat(*texts: str) -> Wire:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def chunk(delta: Body, finish: str | None = None) -> bytes:
        return event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    words = [chunk({"content": text}) for text in texts]
    end = [chunk({}, "stop"), event({**head, "choices": [], "usage": usage}), b"data: [DONE]\n\n"]
    return Wire((chunk({"role": "assistant", "content": ""}), *words, *end), 2, 3)


def _response(status: str, text: str | None) -> Body:
    output = [] if text is None else [_item("completed", text)]
    usage = {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    }
    head = {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "m", "error": None}
    return {**head, "incomplete_details": None, "output": output, "usage": None if text is None else usage}


def _item(status: str, text: str | None) -> Body:
    content = [] if text is None else [_part(text)]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> Body:
    return {"type": "output_text", "text": text, "annotations": []}


def _responses(*texts: str) -> Wire:
    text = "".join(texts)
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    item = {"output_index": 0}
    bodies: list[Body] = [
        {"type": "response.created", "response": _response("in_progress", None)},
        {"type": "response.in_progress", "response": _response("in_progress", None)},
        {"type": "response.output_item.added", **item, "item": _item("in_progress", None)},
        {"type": "response.content_part.added", **place, "part": _part("")},
        *({"type": "response.output_text.delta", **place, "delta": delta} for delta in texts),
        {"type": "response.output_text.done", **place, "text": text},
        {"type": "response.content_part.done", **place, "part": _part(text)},
        {"type": "response.output_item.done", **item, "item": _item("completed", text)},
        {"type": "response.completed", "response": _response("completed", text)},
    ]
    return Wire(tuple(named_event({**body, "sequence_number": at}) for at, body in enumerate(bodies)), 5, 9)


def _message() -> Body:
    usage = {"input_tokens": 3, "output_tokens": 4}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    return {**head, "stop_reason": None, "stop_sequence": None, "usage": usage}


def _anthropic(*texts: str) -> Wire:
    bodies: list[Body] = [
        {"type": "message_start", "message": _message()},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 4},
        },
        {"type": "message_stop"},
    ]
    return Wire(tuple(map(named_event, bodies)), 3, 5)


def _gemini(text: str, *, is_last: bool) -> Body:
    candidate: Body = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}
    if is_last:
        candidate["finishReason"] = "STOP"
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}


def _gemini_stream(*texts: str) -> Wire:
    middle = len(texts) - 1
    return Wire(tuple(event(_gemini(text, is_last=at == middle)) for at, text in enumerate(texts)), 1, middle)


_TYPES: Final = {
    400: ("invalid_request_error", "INVALID_ARGUMENT"),
    402: ("billing_error", "RESOURCE_EXHAUSTED"),
    403: ("permission_error", "PERMISSION_DENIED"),
    404: ("not_found_error", "NOT_FOUND"),
    413: ("request_too_large", "INVALID_ARGUMENT"),
    422: ("invalid_request_error", "INVALID_ARGUMENT"),
    429: ("rate_limit_error", "RESOURCE_EXHAUSTED"),
    529: ("overloaded_error", "UNAVAILABLE"),
    503: ("overloaded_error", "UNAVAILABLE"),
}


def write_error(fmt: str, status: int, message: str, code: str | None = None, **extra: object) -> bytes:
    """Return the body of an error in the words of *fmt*."""
    word, status_word = _TYPES.get(status, ("api_error", "INTERNAL"))
    match fmt:
        case "anthropic":
            error = {"type": word, "message": message}
            return encode({"type": "error", "error": error, "request_id": "req_1"})
        case "gemini":
            return encode({"error": {"code": status, "message": message, "status": status_word, **extra}})
        case _:
            return encode({"error": {"message": message, "type": word, "param": None, "code": code}})


TOO_LONG: Final = {
    "openai-chat": "This model's maximum context length is 8192 tokens.",
    "openai-responses": "Your input exceeds the context window of this model.",
    "anthropic": "prompt is too long: 250000 tokens > 200000 maximum",
    "gemini": "The input token count (250000) exceeds the maximum number of tokens allowed (200000).",
}
"""How each vendor says that a conversation is longer than the model's window."""


def write_band_error(fmt: str, number: int, *, is_array: bool = False) -> bytes:
    """Return the event that reports an error inside a stream, as its event *number*, counted from 0."""
    if is_array:
        return _to_element(write_error(fmt, 503, "busy"), number) + b"]"
    match fmt:
        case "openai-responses":
            error = {"type": "error", "code": "server_error", "message": "busy", "param": None}
            return named_event({**error, "sequence_number": number})
        case "anthropic":
            return b"event: error\ndata: " + write_error(fmt, 529, "busy") + b"\n\n"
        case _:
            return b"data: " + write_error(fmt, 503, "busy", "server_error") + b"\n\n"
