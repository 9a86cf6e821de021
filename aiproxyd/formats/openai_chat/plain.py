"""Requests that say nothing but what a ``hub.Request`` does, so that they mean the same in every format. Sans-I/O.

Narrower than what is decoded: whatever only this vendor's models would notice is missing here.
https://platform.openai.com/docs/api-reference/chat/create
"""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw

from aiproxyd.formats.base import NULL, NoItems, Plain, Words, decode_view
from aiproxyd.formats.openai_chat.wire import Effort

_ImageAddress: TypeAlias = Annotated[str, Meta(pattern=r"^(?!data:)|^data:[a-z]+/[a-z0-9.+-]+;base64,")]
"""Of data URLs, those in the one spelling that is kept."""
_Arguments: TypeAlias = Annotated[str, Meta(pattern=r"^\{")]

# --- Messages


class _CacheControl(Plain):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class _Markable(Plain):
    cache_control: _CacheControl | None = None


class _TextPart(_Markable, tag="text", kw_only=True):
    text: Words


class _ImageUrl(Plain):
    url: _ImageAddress
    detail: Literal["auto", "low", "high"] | None = None


class _ImagePart(_Markable, tag="image_url", kw_only=True):
    image_url: _ImageUrl


class _FunctionCall(Plain):
    name: Words
    arguments: _Arguments


class _ToolCall(Plain, tag="function"):
    id: str
    function: _FunctionCall


_Texts: TypeAlias = Words | Annotated[list[_TextPart], Meta(min_length=1)]


class _SystemMessage(_Markable, tag_field="role", tag="system", kw_only=True):
    content: _Texts
    name: None = None


class _DeveloperMessage(_Markable, tag_field="role", tag="developer", kw_only=True):
    content: _Texts
    name: None = None


class _UserMessage(_Markable, tag_field="role", tag="user", kw_only=True):
    content: Words | Annotated[list[_TextPart | _ImagePart], Meta(min_length=1)]
    name: None = None


class _AssistantMessage(_Markable, tag_field="role", tag="assistant", kw_only=True):
    content: str | Annotated[list[_TextPart], Meta(min_length=1)] | None = None
    name: None = None
    refusal: None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: None = None
    audio: None = None
    annotations: NoItems = None
    """As answers have them, which are sent back."""
    reasoning_content: None = None

    def __post_init__(self) -> None:
        # An empty turn is one to the model, and none in the hub.
        if not self.content and not self.tool_calls:
            raise ValueError


class _ToolMessage(_Markable, tag_field="role", tag="tool", kw_only=True):
    tool_call_id: str
    content: str | list[_TextPart | _ImagePart] | None = None
    name: None = None


_Message: TypeAlias = _SystemMessage | _DeveloperMessage | _UserMessage | _AssistantMessage | _ToolMessage

# --- Tools and the rest


class _Function(Plain):
    name: Words
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None
    cache_control: _CacheControl | None = None


class _FunctionTool(_Markable, tag="function", kw_only=True):
    function: _Function


class _Named(Plain):
    name: Words


class _FunctionChoice(Plain, tag="function"):
    function: _Named


class _JsonSchema(Plain):
    name: Words
    schema: Raw
    description: Words | None = None
    strict: bool | None = None


class _TextFormat(Plain, tag="text"):
    pass


class _JsonObjectFormat(Plain, tag="json_object"):
    pass


class _JsonSchemaFormat(Plain, tag="json_schema"):
    json_schema: _JsonSchema


class _Request(Plain):
    model: Raw
    messages: list[_Message]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    reasoning_effort: Effort | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    response_format: _TextFormat | _JsonObjectFormat | _JsonSchemaFormat | None = None
    tools: list[_FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    # What LangChain and others write out although there is nothing to say.
    presence_penalty: None = None
    frequency_penalty: None = None
    logit_bias: None = None
    logprobs: None = None
    top_logprobs: None = None
    functions: NoItems = None
    function_call: None = None
    modalities: None = None
    service_tier: None = None
    # Labels.
    metadata: Raw = NULL
    prompt_cache_key: Raw = NULL
    prompt_cache_options: Raw = NULL
    prompt_cache_retention: Raw = NULL
    safety_identifier: Raw = NULL
    store: Raw = NULL
    stream: Raw = NULL
    stream_options: Raw = NULL
    user: Raw = NULL

    def __post_init__(self) -> None:
        # Of the two, one is read.
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError


_request: Final = msgspec.json.Decoder(_Request)


def is_plain(body: bytes) -> bool:
    """Tell whether *body*, a request that could be decoded, is one."""
    return decode_view(_request, body) is not None
