"""Requests that say nothing but what a ``hub.Request`` does, so that they mean the same in every format. Sans-I/O.

Narrower than what is decoded: whatever only this vendor's models would notice is missing here.
https://platform.openai.com/docs/api-reference/responses/create
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from aiproxyd.formats.base import NULL, NoItems, Plain, Words, decode_view

_ImageAddress: TypeAlias = Annotated[str, Meta(pattern=r"^(?!data:)|^data:[a-z]+/[a-z0-9.+-]+;base64,")]
"""Of data URLs, those in the one spelling that is kept."""
_Arguments: TypeAlias = Annotated[str, Meta(pattern=r"^\{")]

# --- Items


class _InputText(Plain, tag="input_text"):
    text: Words


class _InputImage(Plain, tag="input_image"):
    image_url: _ImageAddress
    detail: Literal["auto", "low", "high"] | None = None
    file_id: None = None


class _OutputText(Plain, tag="output_text"):
    text: Words
    annotations: NoItems = None
    logprobs: NoItems = None


class _Item(Plain):
    id: str | None = None
    """Means something where items are stored; what is given here is all there."""
    status: Literal["completed"] | None = None


class _Message(_Item, kw_only=True):
    type: Literal["message"] = "message"
    phase: None = None


_Said: TypeAlias = Words | Annotated[list[_InputText | _InputImage], Meta(min_length=1)]


class _UserMessage(_Message, tag_field="role", tag="user", kw_only=True):
    content: _Said


class _SystemMessage(_Message, tag_field="role", tag="system", kw_only=True):
    content: _Said


class _DeveloperMessage(_Message, tag_field="role", tag="developer", kw_only=True):
    content: _Said


class _AssistantMessage(_Message, tag_field="role", tag="assistant", kw_only=True):
    content: Words | Annotated[list[_OutputText], Meta(min_length=1)]


class _FunctionCall(_Item, kw_only=True):
    type: Literal["function_call"]
    call_id: str
    name: Words
    arguments: _Arguments
    namespace: None = None


class _FunctionCallOutput(_Item, kw_only=True):
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[_InputText | _InputImage]


class _Head(Struct):
    type: str = "message"


_head: Final = msgspec.json.Decoder(_Head)
_ITEMS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "message": msgspec.json.Decoder(_UserMessage | _SystemMessage | _DeveloperMessage | _AssistantMessage),
    "function_call": msgspec.json.Decoder(_FunctionCall),
    "function_call_output": msgspec.json.Decoder(_FunctionCallOutput),
}

# --- Tools and the rest


class _Function(Plain, tag="function"):
    name: Words
    strict: bool
    """Who does not say so is held to strictness: https://platform.openai.com/docs/guides/function-calling#strict-mode."""
    description: str | None = None
    parameters: Raw = NULL


class _FunctionChoice(Plain, tag="function"):
    name: Words


class _Reasoning(Plain):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto"] | None = None
    generate_summary: None = None


class _TextFormat(Plain, tag="text"):
    pass


class _JsonObjectFormat(Plain, tag="json_object"):
    pass


class _JsonSchemaFormat(Plain, tag="json_schema"):
    name: Words
    schema: Raw
    description: Words | None = None
    strict: bool | None = None


class _TextConfig(Plain):
    format: _TextFormat | _JsonObjectFormat | _JsonSchemaFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class _Request(Plain):
    model: Raw
    input: Words | list[Raw]
    instructions: Words | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    parallel_tool_calls: bool | None = None
    reasoning: _Reasoning | None = None
    text: _TextConfig | None = None
    tools: list[_Function] | None = None
    tool_choice: Literal["none", "auto", "required"] | _FunctionChoice | None = None
    # What SDKs and agents write out although there is nothing to say.
    include: NoItems = None
    top_logprobs: None = None
    max_tool_calls: None = None
    background: None = None
    truncation: None = None
    service_tier: None = None
    # Labels.
    client_metadata: Raw = NULL
    metadata: Raw = NULL
    prompt_cache_key: Raw = NULL
    prompt_cache_options: Raw = NULL
    prompt_cache_retention: Raw = NULL
    safety_identifier: Raw = NULL
    store: Raw = NULL
    stream: Raw = NULL
    stream_options: Raw = NULL
    user: Raw = NULL


_request: Final = msgspec.json.Decoder(_Request)


def is_plain(body: bytes) -> bool:
    """Tell whether *body*, a request that could be decoded, is one."""
    request = decode_view(_request, body)
    return request is not None and (isinstance(request.input, str) or all(map(_is_plain_item, request.input)))


def _is_plain_item(raw: Raw) -> bool:
    head = decode_view(_head, raw)
    decoder = _ITEMS.get(head.type) if head is not None else None
    return decoder is not None and decode_view(decoder, raw) is not None
