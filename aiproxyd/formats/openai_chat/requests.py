"""Requests: https://platform.openai.com/docs/api-reference/chat/create. Sans-I/O."""

from typing import Any, Final

import msgspec
from msgspec import Raw

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL, check_text, decode_body, name_members
from aiproxyd.formats.members import Known, KnownFields
from aiproxyd.formats.openai_chat.messages import NO_AUDIO, Conversation, encode_messages
from aiproxyd.formats.openai_chat.tools import decode_tool_choice, decode_tools, encode_tool, encode_tool_choice
from aiproxyd.formats.openai_chat.wire import (
    NAME,
    ChatRequest,
    Effort,
    JsonObjectFormat,
    JsonSchemaFormat,
    TextFormat,
    request_decoder,
)
from aiproxyd.formats.openai_shared import (
    MAX_CACHE_KEY_CHARS,
    MAX_USER_CHARS,
    clean_schema_name,
    is_strict_schema,
    shorten,
)
from aiproxyd.hub import OutputFormat, ReasoningControl, Request, ServerTool, arrange

MAX_STOPS: Final = 4
"""As many stop sequences the API takes."""


_raw_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_KNOWN: Final = frozenset(field.name for field in msgspec.structs.fields(ChatRequest))
_SAYS_NOTHING: Final = {"store": b"false"}
"""Fields that are no loss where they have this value, which is their default."""
_MARKS: Final = "cache_control prompt_cache_breakpoint"
_CALLED: Final = Known("name arguments input")
_FUNCTION: Final = Known("name description parameters strict cache_control")
_NAMED: Final = Known("name")

_KNOWN_INSIDE: Final = KnownFields(
    turns=("messages",),
    messages=Known(
        f"role name refusal audio reasoning_content reasoning tool_call_id {_MARKS}",
        content=Known(
            f"type text refusal input_audio {_MARKS}",
            image_url=Known("url detail"),
            file=Known("file_data file_id filename"),
        ),
        # The index is what streams have, and is left in what was put together from one.
        tool_calls=Known(
            "type id index", function=_CALLED, custom=_CALLED, extra_content=Known(google=Known("thought_signature"))
        ),
        function_call=_CALLED,
        thinking_blocks=Known("type index thinking signature data"),
    ),
    tools=Known(f"type {_MARKS}", function=_FUNCTION, custom=Known("name description format")),
    functions=_FUNCTION,
    tool_choice=Known("type allowed_tools", function=_NAMED, custom=_NAMED),
    response_format=Known("type", json_schema=Known("name description schema strict")),
    # What is obfuscated are the lengths of events.
    stream_options=Known("include_usage include_obfuscation"),
)


def decode_request(body: bytes) -> Request:
    """Decode a caller's request; its turns are arranged.

    Raises:
        InvalidRequest: malformed, not allowed by the format, or content that no other format could carry.
    """
    wire = decode_body(request_decoder, check_text(body))
    if wire.audio != NULL or "audio" in (wire.modalities or ()):
        raise InvalidRequest(NO_AUDIO, param="$.modalities" if wire.audio == NULL else "$.audio")
    conversation = Conversation()
    turns = arrange(conversation.decode(wire.messages))
    extensions = _find_extensions(decode_body(_raw_fields, body), wire)
    if conversation.has_names:
        extensions["messages.name"] = NULL
    max_output_tokens = wire.max_tokens if wire.max_completion_tokens is None else wire.max_completion_tokens
    return Request(
        model=wire.model,
        turns=turns,
        tools=decode_tools(wire),
        server_tools=_decode_server_tools(wire),
        tool_choice=decode_tool_choice(wire),
        parallel_tool_calls=wire.parallel_tool_calls,
        max_output_tokens=max_output_tokens,
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        stop=[wire.stop] if isinstance(wire.stop, str) else wire.stop or [],
        candidates=max(wire.n or 1, 1),
        seed=wire.seed,
        presence_penalty=wire.presence_penalty,
        frequency_penalty=wire.frequency_penalty,
        logprobs=bool(wire.logprobs),
        top_logprobs=wire.top_logprobs,
        logit_bias=wire.logit_bias,
        reasoning=_decode_reasoning(wire.reasoning_effort),
        output=_decode_output(wire.response_format),
        user=wire.safety_identifier or wire.user or "",
        service_tier=wire.service_tier or "",
        verbosity=wire.verbosity or "",
        cache_key=wire.prompt_cache_key or "",
        metadata=wire.metadata or {},
        stream=bool(wire.stream),
        wants_usage=wire.stream_options is not None and bool(wire.stream_options.include_usage),
        extensions=extensions,
    )


def _find_extensions(fields: dict[str, Raw], wire: ChatRequest) -> dict[str, Raw]:
    extensions = {
        name: value
        for name, value in fields.items()
        if name not in _KNOWN and value != NULL and bytes(value) != _SAYS_NOTHING.get(name)
    }
    if set(wire.modalities or ()) - {"text"}:
        extensions["modalities"] = Raw(msgspec.json.encode(wire.modalities))
    return extensions | _KNOWN_INSIDE.find_unknown(fields)


def _decode_server_tools(wire: ChatRequest) -> list[ServerTool]:
    options = wire.web_search_options
    return [] if options == NULL else [ServerTool("web_search", NAME, options, name_members(options))]


def _decode_reasoning(effort: Effort | None) -> ReasoningControl:
    # Thoughts cannot be asked for here. Whoever wants the model to think gets to see them, in a field that may be
    # overlooked; they are not asked for in anybody else's name, because OpenAI shows them to verified customers only.
    if effort is None:
        return ReasoningControl()
    if effort == "none":
        return ReasoningControl(mode="off")
    return ReasoningControl(mode="on", effort=effort, show=True)


def _decode_output(fmt: TextFormat | JsonObjectFormat | JsonSchemaFormat | None) -> OutputFormat | None:
    if isinstance(fmt, JsonSchemaFormat):
        schema = fmt.json_schema
        return OutputFormat(
            schema=None if schema.schema == NULL else schema.schema,
            name=schema.name,
            description=schema.description or "",
            is_strict=schema.strict,
        )
    return OutputFormat() if isinstance(fmt, JsonObjectFormat) else None


def encode_request(request: Request, capabilities: Capabilities) -> bytes:
    """Return the body that asks an upstream for *request*.

    Raises:
        InvalidRequest: the format has no place for a part of its content.
    """
    if len(request.stop) > MAX_STOPS:
        raise InvalidRequest(f"this model's API takes at most {MAX_STOPS} stop sequences, not {len(request.stop)}")
    body: dict[str, Any] = {"model": request.model, "messages": encode_messages(request.turns, capabilities)}
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if request.tools:
        body["tools"] = [encode_tool(tool) for tool in request.tools]
        if request.tool_choice is not None:
            body["tool_choice"] = encode_tool_choice(request.tool_choice, request.tools)
        if request.parallel_tool_calls is not None:  # refused by several servers where there are no tools
            body["parallel_tool_calls"] = request.parallel_tool_calls
    for server_tool in request.server_tools:
        body["web_search_options"] = server_tool.raw
    _add_numbers(body, request, capabilities)
    _add_words(body, request, capabilities)
    return msgspec.json.encode(body)


def _add_numbers(body: dict[str, Any], request: Request, capabilities: Capabilities) -> None:
    limit = "max_completion_tokens" if capabilities.has_max_completion_tokens else "max_tokens"
    numbers = {
        limit: request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "n": request.candidates if request.candidates > 1 else None,
        "seed": request.seed,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "logprobs": request.logprobs or None,
        "top_logprobs": request.top_logprobs,
    }
    body.update({name: value for name, value in numbers.items() if value is not None})
    if request.logit_bias is not None:
        body["logit_bias"] = {
            token: int(bias) if bias.is_integer() else bias for token, bias in request.logit_bias.items()
        }


def _add_words(body: dict[str, Any], request: Request, capabilities: Capabilities) -> None:
    words = {
        "reasoning_effort": "none" if request.reasoning.mode == "off" else request.reasoning.effort,
        "response_format": _encode_output(request.output),
        "stop": request.stop,
        "safety_identifier" if capabilities.has_developer_role else "user": shorten(request.user, MAX_USER_CHARS),
        "service_tier": request.service_tier,
        "verbosity": request.verbosity,
        "prompt_cache_key": shorten(request.cache_key, MAX_CACHE_KEY_CHARS),
        "metadata": request.metadata,
    }
    body.update({name: value for name, value in words.items() if value})


def _encode_output(output: OutputFormat | None) -> dict[str, Any] | None:
    if output is None:
        return None
    if output.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": clean_schema_name(output.name), "schema": output.schema}
    if output.description:
        schema["description"] = output.description
    if output.is_strict is not None:
        schema["strict"] = output.is_strict and is_strict_schema(output.schema)
    return {"type": "json_schema", "json_schema": schema}
