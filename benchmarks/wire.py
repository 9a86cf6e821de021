"""What each of the four APIs says on the wire, as its vendor documents it: requests, whole answers, streams.

Written out by hand, not by the encoders that are measured with it. Every API says the same in its own words, so that
figures can be compared. No I/O.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, ClassVar, Final

import msgspec
from typing_extensions import override

CREATED: Final = 1767225600
IN_TOKENS: Final = 187
OUT_TOKENS: Final = 98

TEXT: Final = (
    "The gateway sits between the programs of a household and the models they talk to. It reads each request once, "
    "finds out which upstream should answer it, and hands the answer back as it arrives, byte for byte where both "
    "sides speak the same format."
)

SYSTEM: Final = "You are a careful assistant of a household. " * 6
QUESTION: Final = (
    "What stands between the programs at home and the models they talk to, and what does it do there? " * 5
)

ERRAND: Final = (
    "Is it warmer in Zurich or in Geneva this evening, and do I need an umbrella in the warmer of the two? " * 2
)
CALL_ID: Final = "toolu_01A09q90qw90lq917835lq9"
"""Of a spelling that every API takes."""
CALL_NAME: Final = "get_weather"
CALL_ARGUMENTS: Final = {"city": "Zurich", "unit": "celsius", "hours": [18, 19, 20, 21]}
SIGNATURE: Final = "EqQBCkYI" * 50
"""Base64, about as long as the shorter ones are."""
RESULT: Final = "18:00 21.4 C, dry; 19:00 20.8 C, dry; 20:00 19.9 C, light rain 0.2 mm; 21:00 19.1 C, rain 1.4 mm. " * 2
TOOLS: Final = (
    (
        CALL_NAME,
        "Forecast of the weather in one city, hour by hour: temperature, rain, wind.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city, in its own language or in English"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "hours": {"type": "array", "items": {"type": "integer"}, "description": "Hours of the day"},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    ),
    (
        "remind_me",
        "Put a reminder on the household's calendar.",
        {
            "type": "object",
            "properties": {
                "text": {"type": "string", "description": "What to be reminded of"},
                "at": {"type": "string", "description": "When, as ISO 8601 with the offset"},
            },
            "required": ["text", "at"],
            "additionalProperties": False,
        },
    ),
)


def words(number: int) -> list[str]:
    """Give so many pieces of text."""
    pieces = TEXT.split()
    return [f" {pieces[at % len(pieces)]}" for at in range(number)]


class Api(ABC):
    """One vendor's API: what is sent to it, and what it answers."""

    name: ClassVar[str]
    """As aiproxyd names the format."""
    model: ClassVar[str]
    """As its answers name it. Each API has another, and conversion keeps it: it tells where an answer comes from."""
    proof: ClassVar[str]
    """Stands in every complete answer, however it is spaced out."""
    ending: ClassVar[str] = ""
    """The last bytes of a stream, where they are always the same."""

    @abstractmethod
    def path(self, model: str, *, is_stream: bool = False) -> str:
        """Give path and query of a request."""

    @abstractmethod
    def ask(self, model: str, *, is_stream: bool = False) -> bytes:
        """Give a request of about 1 kB: instructions and a question."""

    @abstractmethod
    def ask_in_loop(self, model: str, *, system: str = SYSTEM) -> bytes:
        """Give a request of about 2 kB as agents send it: four messages, two tools, one call with its result.

        The first of the messages are the instructions, *system*.
        """

    @abstractmethod
    def ask_about(self, picture: str) -> bytes:
        """Give a request that holds a picture in base64."""

    @abstractmethod
    def answer(self, *, has_call: bool = False) -> bytes:
        """Give a whole answer: a text, and a call."""

    @abstractmethod
    def stream(self, pieces: Sequence[str]) -> list[bytes]:
        """Give the events of a stream with one delta per piece of text."""

    @abstractmethod
    def stream_thoughts(self, thoughts: Sequence[str], pieces: Sequence[str]) -> list[bytes]:
        """Give the events of a stream with one delta per piece of a thought and of a text, and a signature."""

    @abstractmethod
    def stream_call(self, arguments: Mapping[str, Any]) -> list[bytes]:
        """Give the events of a stream that calls a tool, all of its arguments in one event."""


class Chat(Api):
    """https://platform.openai.com/docs/api-reference/chat."""

    name = "openai-chat"
    model = "bench-model-2026-01-01"
    proof = '"finish_reason":"'
    ending = "data: [DONE]\n\n"
    usage: ClassVar = {
        "prompt_tokens": IN_TOKENS,
        "completion_tokens": OUT_TOKENS,
        "total_tokens": IN_TOKENS + OUT_TOKENS,
    }
    _head: ClassVar = {
        "id": "chatcmpl-bench0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
        "system_fingerprint": "fp_0123456789",
    }
    _call: ClassVar = {
        "id": CALL_ID,
        "type": "function",
        "function": {"name": CALL_NAME, "arguments": msgspec.json.encode(CALL_ARGUMENTS).decode()},
    }

    @override
    def path(self, model: str, *, is_stream: bool = False) -> str:
        return "/v1/chat/completions"

    @override
    def ask(self, model: str, *, is_stream: bool = False, **extra: object) -> bytes:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
        stream = {"stream": True} if is_stream else {}
        payload = {"model": model, "messages": messages, "temperature": 0.2, "max_tokens": 256}
        return msgspec.json.encode(payload | stream | extra)

    @override
    def ask_in_loop(self, model: str, *, system: str = SYSTEM) -> bytes:
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": ERRAND},
            {"role": "assistant", "content": None, "tool_calls": [self._call]},
            {"role": "tool", "tool_call_id": CALL_ID, "content": RESULT},
        ]
        tools = [
            {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}
            for name, description, schema in TOOLS
        ]
        limits = {"temperature": 0.2, "max_tokens": 1024}
        return msgspec.json.encode({"model": model, "messages": messages, "tools": tools, **limits})

    @override
    def ask_about(self, picture: str) -> bytes:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
        content = [{"type": "text", "text": QUESTION}, image]
        return msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": content}]})

    @override
    def answer(self, *, has_call: bool = False) -> bytes:
        calls = {"tool_calls": [self._call]} if has_call else {}
        message = {"role": "assistant", "content": TEXT, "refusal": None, **calls}
        reason = "tool_calls" if has_call else "stop"
        return msgspec.json.encode(
            {
                "id": "chatcmpl-bench0123456789abcdef",
                "object": "chat.completion",
                "created": CREATED,
                "model": self.model,
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
                "usage": self.usage,
                "system_fingerprint": "fp_0123456789",
            }
        )

    @override
    def stream(self, pieces: Sequence[str], *, has_usage: bool = False) -> list[bytes]:
        deltas = [{"content": piece} for piece in pieces]
        return self._stream([{"role": "assistant", "content": ""}, *deltas], "stop", has_usage=has_usage)

    @override
    def stream_thoughts(self, thoughts: Sequence[str], pieces: Sequence[str]) -> list[bytes]:
        # OpenAI shows none; these are LiteLLM's words, which others have taken over.
        deltas = [
            {"role": "assistant", "content": ""},
            *({"reasoning_content": thought} for thought in thoughts),
            {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": SIGNATURE}]},
            *({"content": piece} for piece in pieces),
        ]
        return self._stream(deltas, "stop", has_usage=False)

    @override
    def stream_call(self, arguments: Mapping[str, Any]) -> list[bytes]:
        begun = {**self._call, "index": 0, "function": {"name": CALL_NAME, "arguments": ""}}
        piece = {"index": 0, "function": {"arguments": msgspec.json.encode(arguments).decode()}}
        deltas = [{"role": "assistant", "content": None, "tool_calls": [begun]}, {"tool_calls": [piece]}]
        return self._stream(deltas, "tool_calls", has_usage=False)

    def _stream(self, deltas: Sequence[object], reason: str, *, has_usage: bool) -> list[bytes]:
        return [
            *(self._chunk([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas),
            self._chunk([{"index": 0, "delta": {}, "finish_reason": reason}]),
            *([self._chunk([], usage=self.usage)] if has_usage else []),
            b"data: [DONE]\n\n",
        ]

    def _chunk(self, choices: list[object], **more: object) -> bytes:
        return b"data: %b\n\n" % msgspec.json.encode(self._head | {"choices": choices} | more)


class Messages(Api):
    """https://docs.anthropic.com/en/api/messages."""

    name = "anthropic"
    model = "bench-messages-20260101"
    proof = '"stop_reason":"'
    ending = 'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    _usage: ClassVar = {
        "input_tokens": IN_TOKENS,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 1,
        "service_tier": "standard",
    }
    _call: ClassVar = {"type": "tool_use", "id": CALL_ID, "name": CALL_NAME}
    _head: ClassVar = {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": model,
    }

    @override
    def path(self, model: str, *, is_stream: bool = False) -> str:
        return "/v1/messages"

    @override
    def ask(self, model: str, *, is_stream: bool = False) -> bytes:
        messages = [{"role": "user", "content": QUESTION}]
        payload = {"model": model, "max_tokens": 256, "system": SYSTEM, "messages": messages, "temperature": 0.2}
        return msgspec.json.encode(payload | ({"stream": True} if is_stream else {}))

    @override
    def ask_in_loop(self, model: str, *, system: str = SYSTEM) -> bytes:
        result = {"type": "tool_result", "tool_use_id": CALL_ID, "content": RESULT}
        messages = [
            {"role": "user", "content": ERRAND},
            {"role": "assistant", "content": [{**self._call, "input": CALL_ARGUMENTS}]},
            {"role": "user", "content": [result]},
        ]
        tools = [
            {"name": name, "description": description, "input_schema": schema} for name, description, schema in TOOLS
        ]
        limits = {"max_tokens": 1024, "temperature": 0.2}
        return msgspec.json.encode({"model": model, "system": system, "messages": messages, "tools": tools, **limits})

    @override
    def ask_about(self, picture: str) -> bytes:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture}}
        content = [{"type": "text", "text": QUESTION}, image]
        return msgspec.json.encode(
            {"model": "m", "max_tokens": 1024, "messages": [{"role": "user", "content": content}]}
        )

    @override
    def answer(self, *, has_call: bool = False) -> bytes:
        calls = [{**self._call, "input": CALL_ARGUMENTS}] if has_call else []
        return msgspec.json.encode(
            {
                **self._head,
                "content": [{"type": "text", "text": TEXT}, *calls],
                "stop_reason": "tool_use" if has_call else "end_turn",
                "stop_sequence": None,
                "usage": {**self._usage, "output_tokens": OUT_TOKENS},
            }
        )

    @override
    def stream(self, pieces: Sequence[str]) -> list[bytes]:
        return self._stream([self._text(pieces)], "end_turn")

    @override
    def stream_thoughts(self, thoughts: Sequence[str], pieces: Sequence[str]) -> list[bytes]:
        deltas = [{"type": "thinking_delta", "thinking": thought} for thought in thoughts]
        sealed = {"type": "signature_delta", "signature": SIGNATURE}
        block = {"type": "thinking", "thinking": "", "signature": ""}
        return self._stream([(block, [*deltas, sealed]), self._text(pieces)], "end_turn")

    @override
    def stream_call(self, arguments: Mapping[str, Any]) -> list[bytes]:
        delta = {"type": "input_json_delta", "partial_json": msgspec.json.encode(arguments).decode()}
        return self._stream([({**self._call, "input": {}}, [delta])], "tool_use")

    def _text(self, pieces: Sequence[str]) -> tuple[object, Sequence[object]]:
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]

    def _stream(self, blocks: Sequence[tuple[object, Sequence[object]]], reason: str) -> list[bytes]:
        message: dict[str, Any] = {
            **self._head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage,
        }
        stop = {"stop_reason": reason, "stop_sequence": None}
        begun, *rest = [event for index, block in enumerate(blocks) for event in self._block(index, *block)]
        return [
            _named("message_start", message=message),
            begun,
            _named("ping"),
            *rest,
            _named("message_delta", delta=stop, usage={"output_tokens": OUT_TOKENS}),
            _named("message_stop"),
        ]

    def _block(self, index: int, block: object, deltas: Sequence[object]) -> list[bytes]:
        return [
            _named("content_block_start", index=index, content_block=block),
            *(_named("content_block_delta", index=index, delta=delta) for delta in deltas),
            _named("content_block_stop", index=index),
        ]


class Responses(Api):
    """https://platform.openai.com/docs/api-reference/responses."""

    name = "openai-responses"
    model = "bench-responses-2026-01-01"
    proof = '"status":"completed"'
    _usage: ClassVar = {
        "input_tokens": IN_TOKENS,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": OUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": IN_TOKENS + OUT_TOKENS,
    }

    @override
    def path(self, model: str, *, is_stream: bool = False) -> str:
        return "/v1/responses"

    @override
    def ask(self, model: str, *, is_stream: bool = False) -> bytes:
        items = [{"role": "user", "content": QUESTION}]
        limits = {"temperature": 0.2, "max_output_tokens": 256, "store": False}
        payload = {"model": model, "instructions": SYSTEM, "input": items, **limits}
        return msgspec.json.encode(payload | ({"stream": True} if is_stream else {}))

    @override
    def ask_in_loop(self, model: str, *, system: str = SYSTEM) -> bytes:
        arguments = msgspec.json.encode(CALL_ARGUMENTS).decode()
        items = [
            {"role": "user", "content": [{"type": "input_text", "text": ERRAND}]},
            {"type": "function_call", "call_id": CALL_ID, "name": CALL_NAME, "arguments": arguments},
            {"type": "function_call_output", "call_id": CALL_ID, "output": RESULT},
        ]
        limits = {"temperature": 0.2, "max_output_tokens": 1024, "store": False}
        return msgspec.json.encode(
            {"model": model, "instructions": system, "input": items, "tools": self._tools(), **limits}
        )

    @override
    def ask_about(self, picture: str) -> bytes:
        image = {"type": "input_image", "image_url": f"data:image/png;base64,{picture}", "detail": "auto"}
        content = [{"type": "input_text", "text": QUESTION}, image]
        return msgspec.json.encode({"model": "m", "input": [{"role": "user", "content": content}], "store": False})

    @override
    def answer(self, *, has_call: bool = False) -> bytes:
        arguments = msgspec.json.encode(CALL_ARGUMENTS).decode()
        items = [self._message(TEXT), *([self._function_call(arguments)] if has_call else [])]
        return msgspec.json.encode(self._response("completed", items))

    @override
    def stream(self, pieces: Sequence[str]) -> list[bytes]:
        return self._stream([self._spoken(pieces, 0)])

    @override
    def stream_thoughts(self, thoughts: Sequence[str], pieces: Sequence[str]) -> list[bytes]:
        summary = {"type": "summary_text", "text": "".join(thoughts)}
        begun = {"id": "rs_0a1b2c3d4e5f", "type": "reasoning", "summary": [], "encrypted_content": ""}
        whole = begun | {"summary": [summary], "encrypted_content": SIGNATURE}
        part = {"item_id": begun["id"], "output_index": 0, "summary_index": 0}
        named = "response.reasoning_summary_"
        middle = [
            (f"{named}part.added", {**part, "part": summary | {"text": ""}}),
            *((f"{named}text.delta", {**part, "delta": thought, "obfuscation": "aZ3k9"}) for thought in thoughts),
            (f"{named}text.done", {**part, "text": summary["text"]}),
            (f"{named}part.done", {**part, "part": summary}),
        ]
        return self._stream([(begun, middle, whole), self._spoken(pieces, 1)])

    def _spoken(self, pieces: Sequence[str], index: int) -> tuple[object, list[tuple[str, dict[str, Any]]], object]:
        """Give a message as it begins, the events of its text, and all of it."""
        text, whole = "".join(pieces), self._message("".join(pieces))
        part = {"item_id": whole["id"], "output_index": index, "content_index": 0}
        empty = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
        begun = whole | {"status": "in_progress", "content": []}
        deltas = [
            ("response.output_text.delta", {**part, "delta": piece, "logprobs": [], "obfuscation": "aZ3k9"})
            for piece in pieces
        ]
        middle = [
            ("response.content_part.added", {**part, "part": empty}),
            *deltas,
            ("response.output_text.done", {**part, "text": text, "logprobs": []}),
            ("response.content_part.done", {**part, "part": empty | {"text": text}}),
        ]
        return begun, middle, whole

    @override
    def stream_call(self, arguments: Mapping[str, Any]) -> list[bytes]:
        text = msgspec.json.encode(arguments).decode()
        whole = self._function_call(text)
        part = {"item_id": whole["id"], "output_index": 0}
        begun = whole | {"status": "in_progress", "arguments": ""}
        middle = [
            ("response.function_call_arguments.delta", {**part, "delta": text}),
            ("response.function_call_arguments.done", {**part, "arguments": text}),
        ]
        return self._stream([(begun, middle, whole)])

    def _stream(self, items: Sequence[tuple[object, Sequence[tuple[str, dict[str, Any]]], object]]) -> list[bytes]:
        empty = self._response("in_progress", [])
        events: list[tuple[str, dict[str, Any]]] = [
            ("response.created", {"response": empty}),
            ("response.in_progress", {"response": empty}),
        ]
        for index, (begun, middle, whole) in enumerate(items):
            events.append(("response.output_item.added", {"output_index": index, "item": begun}))
            events += middle
            events.append(("response.output_item.done", {"output_index": index, "item": whole}))
        events.append(("response.completed", {"response": self._response("completed", [whole for *_, whole in items])}))
        numbers = count()
        return [_named(name, sequence_number=next(numbers), **fields) for name, fields in events]

    def _tools(self) -> list[dict[str, Any]]:
        return [
            {"type": "function", "name": name, "description": description, "parameters": schema, "strict": False}
            for name, description, schema in TOOLS
        ]

    def _message(self, text: str) -> dict[str, Any]:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
        status = {"status": "completed", "role": "assistant"}
        return {"id": "msg_0a1b2c3d4e5f", "type": "message", **status, "content": [part]}

    def _function_call(self, arguments: str) -> dict[str, Any]:
        call = {"arguments": arguments, "call_id": CALL_ID, "name": CALL_NAME}
        return {"id": "fc_0a1b2c3d4e5f", "type": "function_call", "status": "completed", **call}

    def _response(self, status: str, output: list[Any]) -> dict[str, Any]:
        return {
            "id": "resp_0a1b2c3d4e5f",
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": SYSTEM,
            "max_output_tokens": 1024,
            "model": self.model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": 0.2,
            "text": {"format": {"type": "text"}, "verbosity": "medium"},
            "tool_choice": "auto",
            "tools": self._tools(),
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": self._usage if status == "completed" else None,
            "user": None,
            "metadata": {},
        }


class Gemini(Api):
    """https://ai.google.dev/api/generate-content."""

    name = "gemini"
    model = "bench-gemini-001"
    proof = '"finishReason"'

    @override
    def path(self, model: str, *, is_stream: bool = False) -> str:
        return f"/v1beta/models/{model}:" + ("streamGenerateContent?alt=sse" if is_stream else "generateContent")

    @override
    def ask(self, model: str, *, is_stream: bool = False) -> bytes:
        contents = [{"role": "user", "parts": [{"text": QUESTION}]}]
        settings = {"temperature": 0.2, "maxOutputTokens": 256}
        return msgspec.json.encode({**self._system(SYSTEM), "contents": contents, "generationConfig": settings})

    @override
    def ask_in_loop(self, model: str, *, system: str = SYSTEM) -> bytes:
        call = {"id": CALL_ID, "name": CALL_NAME, "args": CALL_ARGUMENTS}
        result = {"id": CALL_ID, "name": CALL_NAME, "response": {"output": RESULT}}
        contents = [
            {"role": "user", "parts": [{"text": ERRAND}]},
            {"role": "model", "parts": [{"functionCall": call}]},
            {"role": "user", "parts": [{"functionResponse": result}]},
        ]
        functions = [
            {"name": name, "description": description, "parametersJsonSchema": schema}
            for name, description, schema in TOOLS
        ]
        settings = {"temperature": 0.2, "maxOutputTokens": 1024}
        payload = {"contents": contents, "tools": [{"functionDeclarations": functions}], "generationConfig": settings}
        return msgspec.json.encode({**self._system(system), **payload})

    @override
    def ask_about(self, picture: str) -> bytes:
        parts = [{"text": QUESTION}, {"inlineData": {"mimeType": "image/png", "data": picture}}]
        return msgspec.json.encode({"contents": [{"role": "user", "parts": parts}]})

    @override
    def answer(self, *, has_call: bool = False) -> bytes:
        # Whole answers come laid out over many lines.
        return msgspec.json.format(msgspec.json.encode(self._answer(self._parts(has_call=has_call), "STOP")))

    @override
    def stream(self, pieces: Sequence[str]) -> list[bytes]:
        return self._stream([{"text": piece} for piece in pieces])

    @override
    def stream_thoughts(self, thoughts: Sequence[str], pieces: Sequence[str]) -> list[bytes]:
        *words, last = ({"text": piece} for piece in pieces)
        return self._stream(
            [*({"text": text, "thought": True} for text in thoughts), *words, last | {"thoughtSignature": SIGNATURE}]
        )

    @override
    def stream_call(self, arguments: Mapping[str, Any]) -> list[bytes]:
        return self._stream([{"functionCall": {"id": CALL_ID, "name": CALL_NAME, "args": arguments}}])

    def _system(self, text: str) -> dict[str, Any]:
        return {"systemInstruction": {"parts": [{"text": text}]}}

    def _parts(self, *, has_call: bool) -> list[object]:
        call = {"functionCall": {"id": CALL_ID, "name": CALL_NAME, "args": CALL_ARGUMENTS}}
        return [{"text": TEXT}, *([call] if has_call else [])]

    def _stream(self, parts: Sequence[object]) -> list[bytes]:
        answers = [self._answer([part], None, at + 1) for at, part in enumerate(parts)]
        answers.append(self._answer([{"text": ""}], "STOP", len(parts)))
        return [b"data: %b\r\n\r\n" % msgspec.json.format(msgspec.json.encode(answer), indent=0) for answer in answers]

    def _answer(self, parts: list[object], reason: str | None, tokens: int = OUT_TOKENS) -> dict[str, Any]:
        finish = {"finishReason": reason} if reason else {}
        return {
            "candidates": [{"content": {"parts": parts, "role": "model"}, **finish, "index": 0}],
            "usageMetadata": {
                "promptTokenCount": IN_TOKENS,
                "candidatesTokenCount": tokens,
                "totalTokenCount": IN_TOKENS + tokens,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": IN_TOKENS}],
            },
            "modelVersion": self.model,
            "responseId": "Zk0jaZ_3Mo-5kdUPx7qG4Ac",
        }


def _named(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))


CHAT: Final = Chat()
MESSAGES: Final = Messages()
RESPONSES: Final = Responses()
GEMINI: Final = Gemini()
APIS: Final[Mapping[str, Api]] = {api.name: api for api in (CHAT, RESPONSES, MESSAGES, GEMINI)}
