"""The built-in upstream of ``aiproxyd --demo``: answers every format without key, network, clock or chance.

A request of any format is decoded to one neutral `_Prompt`, `_compose` makes the `_Answer`, and the renderers of the
format write it whole or as a stream. The same request always gives the same bytes. Pure: no I/O.

Sources: https://platform.openai.com/docs/api-reference, https://docs.anthropic.com/en/api, https://ai.google.dev/api
"""

import base64
import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import takewhile
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import UNSET, Meta, Struct
from typing_extensions import override

from aiproxyd.config import Secret
from aiproxyd.providers.base import Answer, Call, Provider

_Format: TypeAlias = Literal["openai", "anthropic", "gemini"]
_Stop: TypeAlias = Literal["end", "sequence", "length", "tools"]
_Json: TypeAlias = dict[str, Any]
_T = TypeVar("_T")

_MODEL = "demo"
_OWNER = "aiproxyd"
_CREATED = 1_767_225_600
_CREATED_RFC3339 = "2026-01-01T00:00:00Z"
_CONTEXT_TOKENS = 128_000
_DIMENSIONS = 8
_MAX_CHOICES = 8
_PIECE_TOKENS = 3
"""Tokens in one delta of a stream, while that gives no more than _MAX_PIECES deltas."""
_MAX_PIECES = 1_000
_SPARING_DEPTH = 6
"""Schema depth from which a sample leaves out what it may, so that recursive schemas come to an end."""
_MAX_DEPTH = 24
_MAX_NODES = 2_000
_SAMPLE_TEXT = "demo"
_SAMPLES_BY_FORMAT = {
    "date": "2026-01-01",
    "date-time": _CREATED_RFC3339,
    "time": "00:00:00Z",
    "email": "demo@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")
"""A token: a word or one other sign, with the white space before it. Joined tokens give the text back."""

_JSON_TYPE = "application/json"
_SSE_TYPE = "text/event-stream"

_encode = msgspec.json.encode


class DemoReply(NamedTuple):
    """One answer: a whole one is a single chunk, a stream one chunk per event with its framing."""

    status: int
    content_type: str
    chunks: tuple[bytes, ...]


# The neutral middle: what is asked, and what is answered.


class _Tool(NamedTuple):
    """An offered function."""

    name: str
    schema: object


class _Choice(NamedTuple):
    """Which tools may be called: *mode* is auto, required or none; *allowed* None means every offered one."""

    mode: str = "auto"
    allowed: frozenset[str] | None = None


class _Turn(NamedTuple):
    """One message, reduced to what the demo looks at."""

    role: str
    text: str = ""
    attachments: int = 0
    results: tuple[str, ...] = ()


class _Prompt(Struct, kw_only=True, frozen=True):
    """What one request of any format asks for."""

    model: str
    turns: list[_Turn]
    tools: list[_Tool] = []
    choice: _Choice = _Choice()
    is_parallel: bool = True
    is_json: bool = False
    schema: object = None
    max_tokens: int | None = None
    stop: list[str] = []
    n: int | None = None

    def last_user(self) -> _Turn:
        """Return the newest user turn that says something, or an empty one."""
        spoken = (turn for turn in reversed(self.turns) if turn.role == "user" and (turn.text or turn.attachments))
        return next(spoken, _Turn("user"))

    def results(self) -> list[str]:
        """Return the tool results that end the conversation, oldest first; system turns do not count."""
        turns = (turn for turn in reversed(self.turns) if turn.role not in ("system", "developer"))
        tail = list(takewhile(lambda turn: turn.results, turns))
        return [result for turn in reversed(tail) for result in turn.results]

    def input_tokens(self) -> int:
        """Count the tokens of all messages, tool results and offered tools."""
        texts = [text for turn in self.turns for text in (turn.text, *turn.results)]
        offers = [f"{tool.name} {_dumps(tool.schema)}" for tool in self.tools]
        return _count_tokens([*texts, *offers])


class _Call(NamedTuple):
    """A tool call; *arguments* is the JSON text of an object."""

    number: int
    name: str
    arguments: str


class _Answer(Struct, kw_only=True, frozen=True):
    """What the demo says: text or calls, never both; *n* equal choices."""

    model: str
    seed: str
    n: int
    text: str
    calls: list[_Call]
    stop: _Stop
    sequence: str | None
    input_tokens: int
    output_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def _dumps(value: object) -> str:
    return _encode(value).decode()


def _count_tokens(texts: Iterable[str]) -> int:
    return sum(len(_TOKEN.findall(text)) for text in texts)


def _cut_pieces(text: str) -> list[str]:
    """Cut *text* into the deltas of a stream."""
    tokens = _TOKEN.findall(text)
    size = max(_PIECE_TOKENS, -(-len(tokens) // _MAX_PIECES))
    return ["".join(tokens[start : start + size]) for start in range(0, len(tokens), size)]


def _cut_halves(arguments: str) -> tuple[str, str]:
    middle = len(arguments) // 2
    return arguments[:middle], arguments[middle:]


def _compose(prompt: _Prompt, body: bytes) -> _Answer:
    """Answer *prompt*; ids are seeded by *body*, the request as it came."""
    calls = _make_calls(prompt)
    text, stop, sequence = ("", "tools", None) if calls else _cut_text(_write_text(prompt), prompt)
    n = min(max(prompt.n or 1, 1), _MAX_CHOICES)
    return _Answer(
        model=prompt.model,
        seed=sha256(body).hexdigest()[:24],
        n=n,
        text=text,
        calls=calls,
        stop=stop,
        sequence=sequence,
        input_tokens=prompt.input_tokens(),
        output_tokens=n * _count_tokens([text, *(part for call in calls for part in call[1:])]),
    )


def _make_calls(prompt: _Prompt) -> list[_Call]:
    """Call the first tool where one is required, else each that the user names; none once a tool has answered."""
    mode, allowed = prompt.choice
    if mode == "none" or prompt.results():
        return []
    text = prompt.last_user().text
    tools = [tool for tool in prompt.tools if allowed is None or tool.name in allowed]
    if mode == "required":
        tools = tools[:1]
    else:
        tools = [tool for tool in tools if _is_named(tool.name, text)][: None if prompt.is_parallel else 1]
    return [_Call(number, tool.name, _make_arguments(tool.schema, text)) for number, tool in enumerate(tools)]


def _is_named(name: str, text: str) -> bool:
    return bool(name) and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


def _make_arguments(schema: object, text: str) -> str:
    sample = _Sampler(schema, text).sample(schema)
    return _dumps(sample if isinstance(sample, dict) else {})


def _write_text(prompt: _Prompt) -> str:
    """Return the text of an answer without calls, in the output format that was asked for."""
    text = _write_plain_text(prompt)
    if prompt.schema is not None:
        return _dumps(_Sampler(prompt.schema, prompt.last_user().text).sample(prompt.schema))
    return _dumps({"answer": text}) if prompt.is_json else text


def _write_plain_text(prompt: _Prompt) -> str:
    results = prompt.results()
    if results:
        return f"The tool answered: {', '.join(results)}"
    user = prompt.last_user()
    plural = "" if user.attachments == 1 else "s"
    attached = f" (with {user.attachments} attachment{plural})" if user.attachments else ""
    return f"Hello from the aiproxyd demo. You said: {user.text}{attached}"


def _cut_text(text: str, prompt: _Prompt) -> tuple[str, _Stop, str | None]:
    """Cut *text* at the first stop sequence and at the token limit; say why it ends, and with which sequence."""
    stop: _Stop = "end"
    hits = [(text.find(sequence), sequence) for sequence in prompt.stop if sequence and sequence in text]
    position, sequence = min(hits, default=(len(text), None))
    if sequence is not None:
        text, stop = text[:position], "sequence"
    tokens = _TOKEN.findall(text)
    if prompt.max_tokens is not None and len(tokens) > prompt.max_tokens:
        return "".join(tokens[: max(prompt.max_tokens, 0)]), "length", None
    return text, stop, sequence


class _Sampler:
    """Makes a sample instance of one JSON schema; one per schema, bounded in depth and in nodes."""

    def __init__(self, root: object, text: str) -> None:
        self._root = root
        self._text = text
        self._nodes_left = _MAX_NODES

    def sample(self, schema: object, name: str = "", depth: int = 0) -> object:
        """Return an instance of *schema*, the value of the property *name*."""
        self._nodes_left -= 1
        if self._nodes_left < 0 or depth > _MAX_DEPTH:
            return None
        if not isinstance(schema, dict):
            return _SAMPLE_TEXT
        given = self._find_given(schema, name)
        if given is not UNSET:
            return given
        if "$ref" in schema:
            return self.sample(self._look_up(schema["$ref"]), name, depth + 1)
        branch = _pick_branch(schema, is_sparing=depth >= _SPARING_DEPTH)
        return self._make_by_kind(schema, name, depth) if branch is UNSET else self.sample(branch, name, depth + 1)

    def _find_given(self, schema: _Json, name: str) -> object:
        """Return the value that the schema states or the user asks for, UNSET where it is free."""
        values, asked = schema.get("enum"), self._find_asked(name)
        if "const" in schema:
            return schema["const"]
        if isinstance(values, list) and values:
            return asked if asked in values else values[0]
        if asked is not None and _find_kind(schema) == "string":
            return asked
        return schema.get("default", UNSET)

    def _find_asked(self, name: str) -> str | None:
        """Return VALUE where the user wrote ``name=VALUE``, without the end of a sentence."""
        found = re.search(rf"(?<!\w){re.escape(name)}=([^\s,;]+)", self._text) if name else None
        return found[1].rstrip(".!?") if found else None

    def _look_up(self, ref: object) -> object:
        """Follow a JSON pointer into the schema's own root; None where it leads nowhere."""
        target = self._root
        for step in str(ref).removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, dict) else None
        return target

    def _make_by_kind(self, schema: _Json, name: str, depth: int) -> object:
        match _find_kind(schema):
            case "object":
                return self._make_object(schema, depth)
            case "array":
                return [] if depth >= _SPARING_DEPTH else [self.sample(schema.get("items"), name, depth + 1)]
            case "integer":
                return 1
            case "number":
                return 1.5
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _SAMPLES_BY_FORMAT.get(str(schema.get("format")), _SAMPLE_TEXT)

    def _make_object(self, schema: _Json, depth: int) -> _Json:
        declared, required = schema.get("properties"), schema.get("required")
        properties = declared if isinstance(declared, dict) else {}
        names = [str(key) for key in required] if isinstance(required, list) else []
        if not names and depth < _SPARING_DEPTH:
            names = [*properties]  # where it says what it needs, more would be a guess: tools refuse wrong options
        return {name: self.sample(properties.get(name), name, depth + 1) for name in dict.fromkeys(names)}


def _pick_branch(schema: _Json, *, is_sparing: bool) -> object:
    """Return the alternative to take, UNSET where *schema* offers none."""
    offers = (schema.get(key) for key in ("anyOf", "any_of", "oneOf", "allOf"))
    branches = next((offer for offer in offers if isinstance(offer, list) and offer), None)
    if branches is None:
        return UNSET
    null = {"type": "null"}
    return null if is_sparing and null in branches else branches[0]


def _find_kind(schema: _Json) -> str:
    """Return the JSON type of *schema* in lower case: Gemini's own spelling is upper case."""
    kinds = schema.get("type")
    names = [str(kind).lower() for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind is not None]
    implied = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return next((name for name in names if name != "null"), names[0] if names else implied)


# Structs that OpenAI and Anthropic share. Content parts of any type are accepted; only their text is read.


class _Part(Struct):
    type: str = "text"
    text: str | None = None
    content: "str | list[_Part] | _Json | None" = None


_Content: TypeAlias = str | list[_Part] | _Json | None


class _OutputFormat(Struct):
    type: str = "text"
    schema: object = None
    json_schema: "_OutputFormat | None" = None

    def to_fields(self) -> _Json:
        """Return the prompt's fields for this format: nested in Chat, flat elsewhere."""
        return {"is_json": self.type != "text", "schema": (self.json_schema or self).schema}


def _decode_turn(role: str, content: _Content) -> _Turn:
    if isinstance(content, str):
        return _Turn(role, content)
    parts = content if isinstance(content, list) else []
    results = tuple(_decode_text(part.content) for part in parts if part.type == "tool_result")
    texts = [part.text for part in parts if part.text is not None and part.type != "tool_result"]
    return _Turn(role, "\n".join(texts), len(parts) - len(texts) - len(results), results)


def _decode_text(content: _Content) -> str:
    return _decode_turn("", content).text


def _decode_system(content: _Content) -> list[_Turn]:
    return [_decode_turn("system", content)] if content else []


# What the two OpenAI formats share. A function is nested in Chat, flat in Responses.


class _OpenAITool(Struct):
    type: str = "function"
    name: str | None = None
    parameters: object = None
    function: "_OpenAITool | None" = None

    def to_tool(self) -> _Tool | None:
        """Return the function, None for hosted and custom tools."""
        function = self.function or self
        return _Tool(function.name, function.parameters) if self.type == "function" and function.name else None


class _OpenAIChoice(_OpenAITool):
    mode: str = "auto"
    tools: list[_OpenAITool] | None = None
    allowed_tools: "_OpenAIChoice | None" = None


def _openai_tools(tools: list[_OpenAITool] | None) -> list[_Tool]:
    return [tool for tool in map(_OpenAITool.to_tool, tools or []) if tool]


def _openai_choice(choice: str | _OpenAIChoice | None) -> _Choice:
    if choice is None or isinstance(choice, str):
        return _Choice(choice or "auto")
    several = choice.allowed_tools or choice
    if several.tools is not None:
        return _Choice(several.mode, frozenset(tool.name for tool in _openai_tools(several.tools)))
    tool = choice.to_tool()
    return _Choice("required", frozenset([tool.name])) if tool else _Choice()


# OpenAI Chat Completions


class _ChatMessage(Struct):
    role: str
    content: _Content = None

    def to_turn(self) -> _Turn:
        if self.role in ("tool", "function"):
            return _Turn("tool", results=(_decode_text(self.content),))
        return _decode_turn(self.role, self.content)


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _ChatRequest(Struct):
    model: str
    messages: list[_ChatMessage]
    tools: list[_OpenAITool] | None = None
    tool_choice: str | _OpenAIChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _OutputFormat | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None

    def to_prompt(self) -> _Prompt:
        return _Prompt(
            model=self.model,
            turns=[message.to_turn() for message in self.messages],
            tools=_openai_tools(self.tools),
            choice=_openai_choice(self.tool_choice),
            is_parallel=self.parallel_tool_calls is not False,
            max_tokens=self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens,
            stop=[self.stop] if isinstance(self.stop, str) else self.stop or [],
            n=self.n,
            **(self.response_format or _OutputFormat()).to_fields(),
        )


_chat_decoder = msgspec.json.Decoder(_ChatRequest)

_CHAT_FINISH: dict[_Stop, str] = {"end": "stop", "sequence": "stop", "length": "length", "tools": "tool_calls"}


def _serve_chat(body: bytes) -> DemoReply:
    request = _chat_decoder.decode(body)
    answer = _compose(request.to_prompt(), body)
    if request.stream:
        options = request.stream_options or _StreamOptions()
        return _reply_stream(_stream_chat(answer, is_usage_wanted=bool(options.include_usage)))
    return _reply_whole(_encode_chat(answer))


def _chat_head(answer: _Answer, kind: str) -> _Json:
    return {
        "id": f"chatcmpl-{answer.seed}",
        "object": kind,
        "created": _CREATED,
        "model": answer.model,
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }


def _chat_usage(answer: _Answer) -> _Json:
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.total_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _chat_call(answer: _Answer, call: _Call, arguments: str) -> _Json:
    return {
        "id": f"call_{answer.seed}{call.number}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _encode_chat(answer: _Answer) -> _Json:
    message: _Json = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
    if answer.calls:
        message["content"] = None
        message["tool_calls"] = [_chat_call(answer, call, call.arguments) for call in answer.calls]
    choice = {"message": message, "logprobs": None, "finish_reason": _CHAT_FINISH[answer.stop]}
    choices = [{"index": index, **choice} for index in range(answer.n)]
    return {**_chat_head(answer, "chat.completion"), "choices": choices, "usage": _chat_usage(answer)}


def _stream_chat(answer: _Answer, *, is_usage_wanted: bool) -> Iterator[bytes]:
    """Yield ``(role delta* finish)`` per choice, the usage if wanted, and the end mark."""
    head = _chat_head(answer, "chat.completion.chunk")
    unfinished = {**head, "usage": None} if is_usage_wanted else head
    for index in range(answer.n):
        for delta, finish in _chat_deltas(answer):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            yield _frame_event({**unfinished, "choices": [choice]})
    if is_usage_wanted:
        yield _frame_event({**head, "choices": [], "usage": _chat_usage(answer)})
    yield b"data: [DONE]\n\n"


def _chat_deltas(answer: _Answer) -> Iterator[tuple[_Json, str | None]]:
    yield {"role": "assistant", "content": None if answer.calls else "", "refusal": None}, None
    for piece in _cut_pieces(answer.text):
        yield {"content": piece}, None
    for call in answer.calls:
        yield {"tool_calls": [{"index": call.number, **_chat_call(answer, call, "")}]}, None
        for fragment in _cut_halves(call.arguments):
            yield {"tool_calls": [{"index": call.number, "function": {"arguments": fragment}}]}, None
    yield {}, _CHAT_FINISH[answer.stop]


# OpenAI Responses


class _ResponsesItem(Struct):
    type: str = "message"
    role: str = "user"
    content: _Content = None
    output: _Content = None
    arguments: object = None
    """A JSON text on function calls, an object on some hosted ones."""

    def to_turn(self) -> _Turn | None:
        """Return the neutral turn, None for items that the demo does not know."""
        match self.type:
            case "message":
                return _decode_turn(self.role, self.content)
            case "function_call":
                return _Turn("assistant", str(self.arguments))
            case "function_call_output":
                return _Turn("tool", results=(_decode_text(self.output),))
            case _:
                return None


class _TextOptions(Struct):
    format: _OutputFormat | None = None


class _ResponsesRequest(Struct):
    model: str | None = None
    input: str | list[_ResponsesItem] | None = None
    instructions: _Content = None
    tools: list[_OpenAITool] | None = None
    tool_choice: str | _OpenAIChoice | None = None
    parallel_tool_calls: bool | None = None
    text: _TextOptions | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None

    def to_prompt(self) -> _Prompt:
        items = [_ResponsesItem(content=self.input)] if isinstance(self.input, str) else self.input or []
        turns = (item.to_turn() for item in items)
        output = self.text.format if self.text else None
        return _Prompt(
            model=self.model or _MODEL,
            turns=[*_decode_system(self.instructions), *(turn for turn in turns if turn)],
            tools=_openai_tools(self.tools),
            choice=_openai_choice(self.tool_choice),
            is_parallel=self.parallel_tool_calls is not False,
            max_tokens=self.max_output_tokens,
            **(output or _OutputFormat()).to_fields(),
        )


_ECHOED: _Json = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": None,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
}
"""The request fields that an answer repeats, with their defaults."""

_responses_decoder = msgspec.json.Decoder(_ResponsesRequest)


def _serve_responses(body: bytes) -> DemoReply:
    request = _responses_decoder.decode(body)
    response = _encode_response(_compose(request.to_prompt(), body), msgspec.json.decode(body))
    if not request.stream:
        return _reply_whole(response)
    events = enumerate(_stream_response(response))
    return _reply_stream(_frame_named_event({**event, "sequence_number": number}) for number, event in events)


def _serve_input_tokens(body: bytes) -> DemoReply:
    prompt = _responses_decoder.decode(body).to_prompt()
    return _reply_whole({"object": "response.input_tokens", "input_tokens": prompt.input_tokens()})


def _encode_response(answer: _Answer, request: _Json) -> _Json:
    is_cut = answer.stop == "length"
    given = {key: request[key] for key in _ECHOED if request.get(key) is not None}
    return {
        **_ECHOED,
        **given,
        "id": f"resp_{answer.seed}",
        "object": "response",
        "created_at": _CREATED,
        "status": "incomplete" if is_cut else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "model": answer.model,
        "output": [_response_call(answer, call) for call in answer.calls] or [_response_message(answer)],
        "service_tier": "default",
        "store": False,
        "usage": {
            "input_tokens": answer.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": answer.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": answer.total_tokens,
        },
    }


def _response_message(answer: _Answer) -> _Json:
    return {
        "type": "message",
        "id": f"msg_{answer.seed}",
        "status": "incomplete" if answer.stop == "length" else "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}],
    }


def _response_call(answer: _Answer, call: _Call) -> _Json:
    return {
        "type": "function_call",
        "id": f"fc_{answer.seed}{call.number}",
        "status": "completed",
        "call_id": f"call_{answer.seed}{call.number}",
        "name": call.name,
        "arguments": call.arguments,
    }


def _stream_response(response: _Json) -> Iterator[_Json]:
    """Take a whole response apart: ``created in_progress (added piece* done)* completed|incomplete``."""
    begun = {**response, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(response["output"]):
        is_call = item["type"] == "function_call"
        empty: _Json = {"arguments": ""} if is_call else {"content": []}
        place = {"item_id": item["id"], "output_index": index}
        opened = {**item, "status": "in_progress", **empty}
        yield {"type": "response.output_item.added", "output_index": index, "item": opened}
        yield from (_call_events if is_call else _message_events)(item, place)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{response['status']}", "response": response}


def _message_events(item: _Json, place: _Json) -> Iterator[_Json]:
    part = item["content"][0]
    place = {**place, "content_index": 0}
    yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
    for piece in _cut_pieces(part["text"]):
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}


def _call_events(item: _Json, place: _Json) -> Iterator[_Json]:
    for fragment in _cut_halves(item["arguments"]):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": fragment}
    done = {"name": item["name"], "arguments": item["arguments"]}
    yield {"type": "response.function_call_arguments.done", **place, **done}


# Anthropic Messages


class _AnthropicMessage(Struct):
    role: str
    content: _Content = None


class _AnthropicTool(Struct):
    name: str | None = None
    input_schema: object = None
    """Absent on the tools that Anthropic defines or runs itself."""


class _AnthropicChoice(Struct):
    type: str = "auto"
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    def to_choice(self) -> _Choice:
        if self.type == "tool" and self.name:
            return _Choice("required", frozenset([self.name]))
        return _Choice("required" if self.type == "any" else self.type)


class _OutputConfig(Struct):
    format: _OutputFormat | None = None


class _CountRequest(Struct):
    model: str
    messages: list[_AnthropicMessage]
    system: _Content = None
    tools: list[_AnthropicTool] | None = None
    tool_choice: _AnthropicChoice | None = None
    output_config: _OutputConfig | None = None
    stop_sequences: list[str] | None = None

    def to_prompt(self, max_tokens: int | None) -> _Prompt:
        choice = self.tool_choice or _AnthropicChoice()
        output = self.output_config.format if self.output_config else None
        tools = (tool for tool in self.tools or [] if tool.input_schema is not None)
        return _Prompt(
            model=self.model,
            turns=_decode_system(self.system) + [_decode_turn(each.role, each.content) for each in self.messages],
            tools=[_Tool(tool.name or "", tool.input_schema) for tool in tools],
            choice=choice.to_choice(),
            is_parallel=choice.disable_parallel_tool_use is not True,
            max_tokens=max_tokens,
            stop=self.stop_sequences or [],
            **(output or _OutputFormat()).to_fields(),
        )


class _MessagesRequest(_CountRequest, kw_only=True):
    max_tokens: int
    stream: bool | None = None
    thread: object = None


_messages_decoder = msgspec.json.Decoder(_MessagesRequest)
_count_decoder = msgspec.json.Decoder(_CountRequest)

_STOP_REASONS: dict[_Stop, str] = {
    "end": "end_turn",
    "sequence": "stop_sequence",
    "length": "max_tokens",
    "tools": "tool_use",
}


def _serve_messages(body: bytes) -> DemoReply:
    request = _messages_decoder.decode(body)
    if request.thread is not None:
        # The SDKs' tool runners look for these details and go on without a thread (anthropic 2.12, lib/threads).
        details = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
        return _reply_error("anthropic", 400, "threads are not supported: send the whole conversation", details=details)
    answer = _compose(request.to_prompt(request.max_tokens), body)
    if request.stream:
        return _reply_stream(map(_frame_named_event, _stream_message(answer)))
    return _reply_whole(_encode_message(answer))


def _serve_message_count(body: bytes) -> DemoReply:
    return _reply_whole({"input_tokens": _count_decoder.decode(body).to_prompt(None).input_tokens()})


def _message_usage(answer: _Answer, output_tokens: int) -> _Json:
    return {
        "input_tokens": answer.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }


def _encode_message(answer: _Answer) -> _Json:
    """Return the whole message; its content is empty where no text was allowed."""
    texts = [{"type": "text", "text": answer.text}] if answer.text else []
    return {
        "id": f"msg_{answer.seed}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": texts + [_tool_use(answer, call) for call in answer.calls],
        "stop_reason": _STOP_REASONS[answer.stop],
        "stop_sequence": answer.sequence,
        "usage": {**_message_usage(answer, answer.output_tokens), "service_tier": "standard"},
    }


def _tool_use(answer: _Answer, call: _Call) -> _Json:
    arguments = msgspec.Raw(call.arguments.encode())
    return {"type": "tool_use", "id": f"toolu_{answer.seed}{call.number}", "name": call.name, "input": arguments}


def _stream_message(answer: _Answer) -> Iterator[_Json]:
    """Yield ``message_start (block_start block_delta* block_stop)* message_delta message_stop``."""
    message = _encode_message(answer)
    begun: _Json = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": _message_usage(answer, 0)}
    yield {"type": "message_start", "message": {**message, **begun}}
    for index, block in enumerate(message["content"]):
        empty, deltas = _take_block_apart(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ending = {key: message[key] for key in ("stop_reason", "stop_sequence")}
    yield {"type": "message_delta", "delta": ending, "usage": _message_usage(answer, answer.output_tokens)}
    yield {"type": "message_stop"}


def _take_block_apart(block: _Json) -> tuple[_Json, list[_Json]]:
    """Return *block* as it starts, and the deltas that fill it."""
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in _cut_pieces(block["text"])]
    fragments = _cut_halves(bytes(block["input"]).decode())
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in fragments]


# Gemini generateContent. Structs are in snake_case: `_decode_gemini` brings either spelling to it.


class _FunctionResponse(Struct):
    response: _Json = {}

    def to_text(self) -> str:
        """Return what the function gave: by convention under output, result or error."""
        given = (self.response[key] for key in ("output", "result", "error") if key in self.response)
        value = next(given, self.response)
        return value if isinstance(value, str) else _dumps(value)


class _GeminiPart(Struct):
    text: str | None = None
    thought: bool | None = None
    inline_data: object = None
    file_data: object = None
    function_response: _FunctionResponse | None = None


class _GeminiContent(Struct):
    role: str | None = None
    parts: list[_GeminiPart] | None = None

    def to_turn(self, role: str | None = None) -> _Turn:
        """Return the neutral turn; *role* replaces the stated one."""
        parts = self.parts or []
        texts = [part.text for part in parts if part.text is not None and not part.thought]
        files = [part for part in parts if part.inline_data is not None or part.file_data is not None]
        results = tuple(part.function_response.to_text() for part in parts if part.function_response)
        return _Turn(role or self.role or "user", "\n".join(texts), len(files), results)


class _FunctionDeclaration(Struct):
    name: str
    parameters: object = None
    parameters_json_schema: object = None


class _GeminiTool(Struct):
    function_declarations: list[_FunctionDeclaration] | None = None


class _FunctionCallingConfig(Struct):
    mode: str | None = None
    allowed_function_names: list[str] | None = None

    def to_choice(self) -> _Choice:
        """Return the neutral choice; VALIDATED may answer with text as AUTO does."""
        names = self.allowed_function_names
        mode = {"ANY": "required", "NONE": "none"}.get(self.mode or "", "auto")
        return _Choice(mode, frozenset(names) if names else None)


class _ToolConfig(Struct):
    function_calling_config: _FunctionCallingConfig | None = None


class _GenerationConfig(Struct):
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    response_mime_type: str | None = None
    response_schema: object = None
    response_json_schema: object = None


class _GenerateRequest(Struct):
    contents: list[_GeminiContent] | None = None
    system_instruction: _GeminiContent | None = None
    tools: list[_GeminiTool] | None = None
    tool_config: _ToolConfig | None = None
    generation_config: _GenerationConfig | None = None

    def to_prompt(self, model: str) -> _Prompt:
        config = self.generation_config or _GenerationConfig()
        calling = self.tool_config.function_calling_config if self.tool_config else None
        functions = [function for tool in self.tools or [] for function in tool.function_declarations or []]
        system = [self.system_instruction.to_turn("system")] if self.system_instruction else []
        return _Prompt(
            model=model,
            turns=[*system, *(content.to_turn() for content in self.contents or [])],
            tools=[_Tool(each.name, each.parameters or each.parameters_json_schema) for each in functions],
            choice=(calling or _FunctionCallingConfig()).to_choice(),
            is_json=config.response_mime_type == "application/json",
            schema=config.response_json_schema or config.response_schema,
            max_tokens=config.max_output_tokens,
            stop=config.stop_sequences or [],
            n=config.candidate_count,
        )


class _CountTokensRequest(Struct):
    contents: list[_GeminiContent] | None = None
    generate_content_request: _GenerateRequest | None = None


_Dimensions: TypeAlias = Annotated[int, Meta(ge=1, le=4096)]


class _EmbedContentRequest(Struct):
    content: _GeminiContent
    output_dimensionality: _Dimensions | None = None

    def to_embedding(self) -> _Json:
        """Return the answer's `ContentEmbedding`."""
        vector = _make_vector(self.content.to_turn().text, self.output_dimensionality)
        return {"values": _unpack_floats(vector)}


class _BatchEmbedContentsRequest(Struct):
    requests: list[_EmbedContentRequest]


_OPAQUE = frozenset(
    ("args", "labels", "parameters", "parameters_json_schema", "response", "response_json_schema", "response_schema")
)
"""Fields whose own keys belong to the user."""


def _to_snake(value: object) -> object:
    """Return *value* with its protocol keys in snake_case."""
    if isinstance(value, list):
        return [_to_snake(item) for item in value]
    if not isinstance(value, dict):
        return value
    fields = ((re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key), item) for key, item in value.items())
    return {key: item if key in _OPAQUE else _to_snake(item) for key, item in fields}


def _decode_gemini(body: bytes, kind: type[_T]) -> _T:
    return msgspec.convert(_to_snake(msgspec.json.decode(body)), kind)


def _serve_generation(model: str, body: bytes, _query: str) -> DemoReply:
    answer = _compose(_decode_gemini(body, _GenerateRequest).to_prompt(model), body)
    return _reply_whole(_encode_generation(answer, _gemini_parts(answer, [answer.text]), is_last=True))


def _serve_generation_stream(model: str, body: bytes, query: str) -> DemoReply:
    answer = _compose(_decode_gemini(body, _GenerateRequest).to_prompt(model), body)
    parts = _gemini_parts(answer, _cut_pieces(answer.text) or [""])
    last = len(parts) - 1
    events = [_encode(_encode_generation(answer, [part], is_last=number == last)) for number, part in enumerate(parts)]
    if parse_qs(query).get("alt") == ["sse"]:
        return _reply_stream(b"data: " + event + b"\r\n\r\n" for event in events)
    first, *others = events
    return DemoReply(200, _JSON_TYPE, (b"[" + first, *(b",\r\n" + event for event in others), b"]"))


def _gemini_parts(answer: _Answer, texts: list[str]) -> list[_Json]:
    calls = [
        {"id": f"call_{answer.seed}{call.number}", "name": call.name, "args": msgspec.Raw(call.arguments.encode())}
        for call in answer.calls
    ]
    return [{"functionCall": call} for call in calls] or [{"text": text} for text in texts]


def _encode_generation(answer: _Answer, parts: list[_Json], *, is_last: bool) -> _Json:
    """Return a `GenerateContentResponse`; the last one of a stream tells the reason and the whole usage."""
    output_tokens = answer.output_tokens if is_last else 0
    candidate: _Json = {"content": {"role": "model", "parts": parts}}
    if is_last:
        candidate["finishReason"] = "MAX_TOKENS" if answer.stop == "length" else "STOP"
    return {
        "candidates": [{**candidate, "index": index} for index in range(answer.n)],
        "usageMetadata": {
            "promptTokenCount": answer.input_tokens,
            "candidatesTokenCount": output_tokens,
            "totalTokenCount": answer.input_tokens + output_tokens,
        },
        "modelVersion": answer.model,
        "responseId": answer.seed,
    }


def _serve_gemini_count(model: str, body: bytes, _query: str) -> DemoReply:
    request = _decode_gemini(body, _CountTokensRequest)
    counted = request.generate_content_request or _GenerateRequest(request.contents)
    return _reply_whole({"totalTokens": counted.to_prompt(model).input_tokens()})


def _serve_embedding(_model: str, body: bytes, _query: str) -> DemoReply:
    return _reply_whole({"embedding": _decode_gemini(body, _EmbedContentRequest).to_embedding()})


def _serve_embedding_batch(_model: str, body: bytes, _query: str) -> DemoReply:
    requests = _decode_gemini(body, _BatchEmbedContentsRequest).requests
    return _reply_whole({"embeddings": [request.to_embedding() for request in requests]})


# Embeddings: unit vectors made of SHA-256, as little-endian float32.


class _EmbeddingsRequest(Struct):
    model: str
    input: str | Annotated[list[str | int | list[int]], Meta(max_length=2048)]
    dimensions: _Dimensions | None = None
    encoding_format: Literal["float", "base64"] | None = None

    def to_texts(self) -> list[str]:
        """Return the texts to embed; a list of numbers is one text in tokens."""
        if isinstance(self.input, str):
            return [self.input]
        if any(isinstance(item, int) for item in self.input):
            return [_dumps(self.input)]
        return [item if isinstance(item, str) else _dumps(item) for item in self.input]


_embeddings_decoder = msgspec.json.Decoder(_EmbeddingsRequest)


def _serve_embeddings(body: bytes) -> DemoReply:
    request = _embeddings_decoder.decode(body)
    inputs = request.to_texts()
    vectors = [_make_vector(text, request.dimensions) for text in inputs]
    is_base64 = request.encoding_format == "base64"
    values = [base64.b64encode(vector).decode() if is_base64 else _unpack_floats(vector) for vector in vectors]
    data = [{"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(values)]
    tokens = _count_tokens(inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _reply_whole({"object": "list", "data": data, "model": request.model, "usage": usage})


def _make_vector(text: str, dimensions: int | None) -> bytes:
    """Return the unit vector of *text*: equal texts, equal vectors."""
    size = dimensions or _DIMENSIONS
    key = text.encode()
    blocks = (sha256(block.to_bytes(4) + key).digest() for block in range(-(-size // 32)))
    raw = [byte - 127.5 for byte in b"".join(blocks)[:size]]
    length = math.hypot(*raw)
    return struct.pack(f"<{size}f", *(value / length for value in raw))


def _unpack_floats(vector: bytes) -> list[float]:
    return [value for (value,) in struct.iter_unpack("<f", vector)]


# Models


_OPENAI_MODEL: _Json = {"id": _MODEL, "object": "model", "created": _CREATED, "owned_by": _OWNER}
_ANTHROPIC_MODEL: _Json = {
    "type": "model",
    "id": _MODEL,
    "display_name": "Demo",
    "created_at": _CREATED_RFC3339,
    "lifecycle": "active",
    "max_input_tokens": _CONTEXT_TOKENS,
    "max_tokens": _CONTEXT_TOKENS,
}
_GEMINI_MODEL: _Json = {
    "name": f"models/{_MODEL}",
    "displayName": "Demo",
    "description": f"The built-in demo of {_OWNER}",
    "version": "1",
    "inputTokenLimit": _CONTEXT_TOKENS,
    "outputTokenLimit": _CONTEXT_TOKENS,
    "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens", "embedContent"],
}
_MODELS: dict[_Format, tuple[_Json, _Json]] = {
    "openai": ({"object": "list", "data": [_OPENAI_MODEL]}, _OPENAI_MODEL),
    "anthropic": (
        {"data": [_ANTHROPIC_MODEL], "has_more": False, "first_id": _MODEL, "last_id": _MODEL},
        _ANTHROPIC_MODEL,
    ),
    "gemini": ({"models": [_GEMINI_MODEL]}, _GEMINI_MODEL),
}
"""The list and the one model in it."""


def _serve_models(wire_format: _Format, model: str | None) -> DemoReply:
    every, one = _MODELS[wire_format]
    if model not in (None, _MODEL):
        return _reply_error(wire_format, 404, f"there is no model {model}: this demo lists {_MODEL} alone")
    return _reply_whole(every if model is None else one)


# Framing and errors


_ANTHROPIC_ERRORS = {400: "invalid_request_error", 404: "not_found_error"}
_GEMINI_ERRORS = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}


def _reply_whole(content: _Json) -> DemoReply:
    return DemoReply(200, _JSON_TYPE, (_encode(content),))


def _reply_stream(events: Iterable[bytes]) -> DemoReply:
    return DemoReply(200, _SSE_TYPE, tuple(events))


def _frame_event(data: _Json) -> bytes:
    return b"data: " + _encode(data) + b"\n\n"


def _frame_named_event(data: _Json) -> bytes:
    return f"event: {data['type']}\n".encode() + _frame_event(data)


def _reply_error(wire_format: _Format, status: int, message: str, **extras: object) -> DemoReply:
    error: _Json
    if wire_format == "openai":
        code = "not_found" if status == 404 else None
        error = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    elif wire_format == "anthropic":
        error = {"type": "error", "error": {"type": _ANTHROPIC_ERRORS[status], "message": message, **extras}}
    else:
        error = {"error": {"code": status, "message": message, "status": _GEMINI_ERRORS[status]}}
    return DemoReply(status, _JSON_TYPE, (_encode(error),))


# The way of a request


_PREFIXES: dict[str, _Format] = {
    "/v1/chat/": "openai",
    "/v1/responses": "openai",
    "/v1/embeddings": "openai",
    "/v1/messages": "anthropic",
    "/v1alpha": "gemini",
    "/v1beta": "gemini",
}
_POSTS: dict[str, Callable[[bytes], DemoReply]] = {
    "/v1/chat/completions": _serve_chat,
    "/v1/responses": _serve_responses,
    "/v1/responses/input_tokens": _serve_input_tokens,
    "/v1/messages": _serve_messages,
    "/v1/messages/count_tokens": _serve_message_count,
    "/v1/embeddings": _serve_embeddings,
}
_GEMINI_POSTS: dict[str, Callable[[str, bytes, str], DemoReply]] = {
    "generateContent": _serve_generation,
    "streamGenerateContent": _serve_generation_stream,
    "countTokens": _serve_gemini_count,
    "embedContent": _serve_embedding,
    "batchEmbedContents": _serve_embedding_batch,
}
_MODELS_PATH = re.compile(r"/v1(?:alpha|beta|beta1/publishers/google)?/models(?:/(.+))?", re.DOTALL)


def reply(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> DemoReply:
    """Answer one request, whatever it is: what cannot be served is told in the shape of the path's format.

    *path* is raw, *query* has no question mark, and the names in *headers* are in lower case.
    """
    path = unquote(path.encode(errors="replace"))
    wire_format = _find_format(method, path, headers)
    try:
        served = _route(method, path, query, body, wire_format)
    except RecursionError:
        return _reply_error(wire_format, 400, "the body is nested too deeply")
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        return _reply_error(wire_format, 400, str(exc))
    return served or _reply_error(wire_format, 404, f"the demo does not serve {path}")


def _find_format(method: str, path: str, headers: Mapping[str, str]) -> _Format:
    """Return the format of an answer: the path says it, or the header that only one SDK family sends."""
    for prefix, wire_format in _PREFIXES.items():
        if path.startswith(prefix):
            return wire_format
    is_call = method == "POST" and path.startswith("/v1/models/")
    if is_call or "x-goog-api-key" in headers or "x-goog-api-client" in headers:
        return "gemini"
    return "anthropic" if "anthropic-version" in headers else "openai"


def _route(method: str, path: str, query: str, body: bytes, wire_format: _Format) -> DemoReply | None:
    """Serve a known path; None for any other."""
    if method == "POST" and path in _POSTS:
        return _POSTS[path](body)
    found = _MODELS_PATH.fullmatch(path)
    if found is None:
        return None
    if method == "GET":
        return _serve_models(wire_format, found[1])
    model, _, call = (found[1] or "").rpartition(":")
    serve = _GEMINI_POSTS.get(call) if method == "POST" and model else None
    return serve(model, body, query) if serve else None


# The provider.


class DemoProvider(Provider):
    """The upstream of ``--demo``. Its calls never leave the process."""

    name = "demo"
    formats = ("openai-chat", "openai-responses", "anthropic", "gemini")
    model_prefixes = ("demo",)

    @override
    def credential(self, key: Secret) -> dict[str, str]:
        return {}

    @override
    async def send(self, call: Call, deadline: float) -> Answer:
        body = call.body or b""
        if not isinstance(body, bytes):
            body = b""  # nothing that the demo serves comes as an upload
        headers = {name.lower(): value for name, value in call.headers.items()}
        return _DemoAnswer(reply(call.method, call.path, call.query, headers, body))


class _DemoAnswer(Answer):
    def __init__(self, answer: DemoReply) -> None:
        self.status = answer.status
        self.headers = {"content-type": answer.content_type}
        self._chunks = iter(answer.chunks)

    @override
    async def read(self) -> bytes:
        return next(self._chunks, b"")

    @override
    def close(self) -> None:
        return None
