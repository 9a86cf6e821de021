"""Requests: a caller's body to ``hub.Request``, and such a one to the body for an upstream. Sans-I/O.

https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL, check_text, decode_body
from aiproxyd.formats.members import Direct, Known, KnownFields
from aiproxyd.formats.openai_responses.tools import (
    Choice,
    Format,
    Tools,
    decode_choice,
    decode_format,
    encode_choice,
    encode_format,
    encode_tools,
    names_hosted,
)
from aiproxyd.formats.openai_responses.turns import decode_input, encode_instructions, encode_turn
from aiproxyd.formats.openai_shared import MAX_CACHE_KEY_CHARS, MAX_USER_CHARS, shorten
from aiproxyd.hub import OutputFormat, ReasoningControl, Request, Text, Turn, arrange

MIN_OUTPUT_TOKENS: Final = 16
"""A lower limit is refused."""
LOGPROBS: Final = "message.output_text.logprobs"
ENCRYPTED: Final = "reasoning.encrypted_content"


class _Reasoning(Struct):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: str | None = None
    generate_summary: str | None = None
    mode: Raw = NULL
    context: Raw = NULL


class _TextConfig(Struct):
    format: Format | None = None
    verbosity: str | None = None


class _Request(Struct):
    model: str
    input: str | list[Raw] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    background: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    reasoning: _Reasoning | None = None
    text: _TextConfig | None = None
    tools: list[Raw] | None = None
    tool_choice: str | Choice | None = None
    truncation: str | None = None


_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_request: Final = msgspec.json.Decoder(_Request)
_encode: Final = msgspec.json.Encoder().encode

_KNOWN: Final = frozenset((*_Request.__struct_fields__, "client_metadata", "store"))
"""Fields that are read, and those that nobody misses: nothing is stored here, and Codex's metadata is for its maker."""
_PARTS: Final = Known(
    "type text annotations logprobs refusal image_url file_id detail file_data file_url filename input_audio "
    "prompt_cache_breakpoint"
)
_KNOWN_INSIDE: Final = KnownFields(
    turns=("input",),
    input=Known(
        "type id status created_by role phase call_id name namespace arguments input encrypted_content tools",
        kinds="message function_call function_call_output custom_tool_call custom_tool_call_output reasoning "
        "additional_tools",
        usual={"caller": Direct},
        content=_PARTS,
        output=_PARTS,
        summary=_PARTS,
    ),
    reasoning=Known(" ".join(_Reasoning.__struct_fields__)),
    text=Known("verbosity", format=Known(" ".join(("type", *Format.__struct_fields__)))),
    tool_choice=Known("type name mode tools server_label"),
)
"""All but the tools."""
_STORED: Final = {
    "previous_response_id": "send the earlier items in `input`",
    "conversation": "send the earlier items in `input`",
    "prompt": "send its text in `instructions` or `input`",
}
_ECHOED: Final = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)
"""Fields that an answer repeats."""


def decode_request(body: bytes) -> Request:
    """Decode a caller's request; see `Format.decode_request`.

    Raises:
        InvalidRequest: malformed, not allowed, or a reference to what is stored at the vendor.
    """
    view = decode_body(_request, check_text(body))
    fields = {name: raw for name, raw in decode_body(_fields, body).items() if raw != NULL}
    _refuse_state(view, fields)
    tools = Tools()
    tools.decode(view.tools or (), "$.tools")
    turns = _decode_turns(view, tools)
    text = view.text or _TextConfig()
    return Request(
        model=view.model,
        turns=turns,
        tools=tools.own,
        server_tools=tools.hosted,
        tool_choice=None if view.tool_choice is None else decode_choice(view.tool_choice),
        parallel_tool_calls=view.parallel_tool_calls,
        max_output_tokens=view.max_output_tokens,
        temperature=view.temperature,
        top_p=view.top_p,
        logprobs=LOGPROBS in (view.include or ()) or bool(view.top_logprobs),
        top_logprobs=view.top_logprobs,
        reasoning=_decode_reasoning(view.reasoning or _Reasoning()),
        output=decode_format(text.format) if text.format else None,
        user=view.safety_identifier or view.user or "",
        service_tier=view.service_tier or "",
        verbosity=text.verbosity or "",
        cache_key=view.prompt_cache_key or "",
        metadata=view.metadata or {},
        stream=bool(view.stream),
        extensions=_find_extensions(view, fields) | tools.extensions,
        echo={name: fields[name] for name in _ECHOED if name in fields},
    )


def _refuse_state(view: _Request, fields: dict[str, Raw]) -> None:
    for name, advice in _STORED.items():
        if name in fields:
            raise InvalidRequest(f"{name} cannot be used: nothing is stored here; {advice}", param=f"$.{name}")
    if view.background:
        raise InvalidRequest("background cannot be used: answers are not stored here", param="$.background")


def _find_extensions(view: _Request, fields: dict[str, Raw]) -> dict[str, Raw]:
    found = {
        name: raw
        for name, raw in fields.items()
        if name not in _KNOWN or (name == "truncation" and view.truncation == "auto")
    }
    if isinstance(view.tool_choice, Choice) and names_hosted(view.tool_choice):
        found["tool_choice"] = fields["tool_choice"]
    if view.reasoning and view.reasoning.mode not in (NULL, _STANDARD):
        found["reasoning.mode"] = view.reasoning.mode
    if view.reasoning and view.reasoning.context not in (NULL, *_ALL_TURNS):
        found["reasoning.context"] = view.reasoning.context
    return found | _KNOWN_INSIDE.find_unknown(fields)


_STANDARD: Final = Raw(b'"standard"')
_ALL_TURNS: Final = (Raw(b'"auto"'), Raw(b'"all_turns"'))
"""What stands for the thoughts of earlier turns that are sent on anyway, where a model can read them."""


def _decode_turns(view: _Request, tools: Tools) -> list[Turn]:
    if view.input is None:
        raise InvalidRequest("invalid request body: Object missing required field `input`", param="$.input")
    turns = [Turn("system", (Text(view.instructions),))] if view.instructions else []
    if isinstance(view.input, str):
        turns.append(Turn("user", (Text(view.input),)))
    else:
        turns += decode_input(view.input, tools)
    return arrange(turns)


def _decode_reasoning(view: _Reasoning) -> ReasoningControl:
    show = True if view.summary or view.generate_summary else None
    if view.effort == "none":
        return ReasoningControl(mode="off", show=show)
    if view.effort is None:
        return ReasoningControl(show=show)
    return ReasoningControl(mode="on", effort=view.effort, show=show)


# --- And back


def encode_request(request: Request, capabilities: Capabilities) -> bytes:
    """Encode a request; see `Format.encode_request`.

    Raises:
        InvalidRequest: it holds what the API has no place for.
    """
    turns = request.turns
    body: dict[str, Any] = {"model": request.model}
    if turns and turns[0].role == "system":
        body["instructions"] = encode_instructions(turns[0])
        turns = turns[1:]
    body["input"] = [item for turn in turns for item in encode_turn(turn)]
    if request.tools or request.server_tools:
        body["tools"] = encode_tools(request.tools, request.server_tools)
    if request.tool_choice is not None:
        body["tool_choice"] = encode_choice(request.tool_choice, request.tools)
    # Nothing that we convert can be looked up later, and so the thoughts have to travel with the answer.
    body["store"] = False
    body |= _encode_thinking(request, capabilities)
    body |= _encode_knobs(request)
    text = _encode_text(request.output, request.verbosity)
    if text:
        body["text"] = text
    if request.stream:
        body["stream"] = True
    return _encode(body)


def _encode_thinking(request: Request, capabilities: Capabilities) -> dict[str, Any]:
    include: list[str] = []
    fields: dict[str, Any] = {}
    if capabilities.reasoning != "none":
        include.append(ENCRYPTED)
        reasoning = _encode_reasoning(request.reasoning)
        if reasoning:
            fields["reasoning"] = reasoning
    if request.logprobs:
        include.append(LOGPROBS)
    if include:
        fields["include"] = include
    return fields


def _encode_reasoning(control: ReasoningControl) -> dict[str, str]:
    if control.mode == "off":
        return {"effort": "none"}
    encoded: dict[str, str] = {"effort": control.effort} if control.effort else {}
    return encoded | {"summary": "auto"} if control.show else encoded


def _encode_knobs(request: Request) -> Iterator[tuple[str, Any]]:
    limit = request.max_output_tokens
    candidates = (
        ("max_output_tokens", None if limit is None else max(limit, MIN_OUTPUT_TOKENS)),
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("top_logprobs", request.top_logprobs),
        ("parallel_tool_calls", request.parallel_tool_calls),
        ("metadata", request.metadata or None),
        ("safety_identifier", shorten(request.user, MAX_USER_CHARS) or None),
        ("service_tier", request.service_tier or None),
        ("prompt_cache_key", shorten(request.cache_key, MAX_CACHE_KEY_CHARS) or None),
    )
    return ((name, value) for name, value in candidates if value is not None)


def _encode_text(output: OutputFormat | None, verbosity: str) -> dict[str, Any]:
    text: dict[str, Any] = {}
    if output is not None:
        text["format"] = encode_format(output)
    if verbosity:
        text["verbosity"] = verbosity
    return text
