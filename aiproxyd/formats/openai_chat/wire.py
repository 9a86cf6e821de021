"""Requests in the API's own words: https://platform.openai.com/docs/api-reference/chat/create. Sans-I/O."""
# ruff: noqa: D101  # the vendor's page says what each object is

from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from aiproxyd.formats.base import NULL

NAME: Final = "openai-chat"
"""Of the format: the origin of what only its upstreams understand."""


# --- Content


class CacheControl(Struct):
    """Anthropic's mark, as many callers send it through this API."""

    ttl: str | None = None


class CacheBreakpoint(Struct):
    """OpenAI's own mark."""

    ttl: str | None = None


class Markable(Struct):
    """What a cache mark can stand on."""

    cache_control: CacheControl | None = None
    prompt_cache_breakpoint: CacheBreakpoint | None = None


class TextPart(Markable, tag="text", kw_only=True):
    text: str


class RefusalPart(Markable, tag="refusal", kw_only=True):
    refusal: str


class ImageUrl(Struct):
    url: str
    detail: str | None = None


class ImagePart(Markable, tag="image_url", kw_only=True):
    image_url: ImageUrl


class Audio(Struct):
    data: str
    format: Literal["wav", "mp3"]


class AudioPart(Markable, tag="input_audio", kw_only=True):
    input_audio: Audio


class File(Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class FilePart(Markable, tag="file", kw_only=True):
    file: File


# --- Messages


class FunctionCall(Struct):
    name: str
    arguments: str = ""


class CustomCall(Struct):
    name: str
    input: str = ""


class GoogleExtra(Struct):
    thought_signature: str | None = None


class ExtraContent(Struct):
    """Of Google's imitation: https://ai.google.dev/gemini-api/docs/thought-signatures."""

    google: GoogleExtra | None = None


class FunctionToolCall(Struct, tag="function", kw_only=True):
    id: str
    function: FunctionCall
    extra_content: ExtraContent | None = None


class CustomToolCall(Struct, tag="custom", kw_only=True):
    id: str
    custom: CustomCall
    extra_content: ExtraContent | None = None


class ThinkingBlock(Struct, tag="thinking"):
    """Of LiteLLM: https://docs.litellm.ai/docs/reasoning_content."""

    thinking: str = ""
    signature: str | None = None


class RedactedThinkingBlock(Struct, tag="redacted_thinking"):
    data: str


class SystemMessage(Markable, tag_field="role", tag="system", kw_only=True):
    content: str | list[TextPart]
    name: str | None = None


class DeveloperMessage(Markable, tag_field="role", tag="developer", kw_only=True):
    content: str | list[TextPart]
    name: str | None = None


class UserMessage(Markable, tag_field="role", tag="user", kw_only=True):
    content: str | list[TextPart | ImagePart | AudioPart | FilePart]
    name: str | None = None


class AssistantMessage(Markable, tag_field="role", tag="assistant", kw_only=True):
    content: str | list[TextPart | RefusalPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[FunctionToolCall | CustomToolCall] | None = None
    function_call: FunctionCall | None = None
    audio: Raw = NULL
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking_blocks: list[ThinkingBlock | RedactedThinkingBlock] | None = None


class ToolMessage(Markable, tag_field="role", tag="tool", kw_only=True):
    tool_call_id: str
    content: str | list[TextPart | ImagePart] | None = None


class FunctionMessage(Struct, tag_field="role", tag="function", kw_only=True):
    name: str
    content: str | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage

# --- Tools and the rest


class Function(Struct):
    name: str
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None
    cache_control: CacheControl | None = None


class FunctionTool(Markable, tag="function", kw_only=True):
    function: Function


class Grammar(Struct):
    syntax: Literal["lark", "regex"]
    definition: str


class AnyText(Struct, tag="text"):
    pass


class GrammarText(Struct, tag="grammar"):
    grammar: Grammar


class Custom(Struct):
    name: str
    description: str | None = None
    format: AnyText | GrammarText | None = None


class CustomTool(Markable, tag="custom", kw_only=True):
    custom: Custom


class Named(Struct):
    name: str


class AllowedTool(Struct):
    function: Named | None = None
    custom: Named | None = None


class AllowedTools(Struct):
    mode: Literal["auto", "required"]
    tools: list[AllowedTool]


class FunctionChoice(Struct, tag="function"):
    function: Named


class CustomChoice(Struct, tag="custom"):
    custom: Named


class AllowedToolsChoice(Struct, tag="allowed_tools"):
    allowed_tools: AllowedTools


class JsonSchema(Struct):
    name: str
    description: str | None = None
    schema: Raw = NULL
    strict: bool | None = None


class TextFormat(Struct, tag="text"):
    pass


class JsonObjectFormat(Struct, tag="json_object"):
    pass


class JsonSchemaFormat(Struct, tag="json_schema"):
    json_schema: JsonSchema


class StreamOptions(Struct):
    include_usage: bool | None = None


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ChatRequest(Struct, kw_only=True):
    """Every field that something is done with; what else a body holds is an extension."""

    model: str
    messages: list[Message]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    """Not OpenAI's; many imitations have it."""
    n: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    seed: int | None = None
    reasoning_effort: Effort | None = None
    verbosity: str | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    tools: list[FunctionTool | CustomTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | CustomChoice | AllowedToolsChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: Literal["none", "auto"] | Named | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    modalities: list[str] | None = None
    audio: Raw = NULL
    web_search_options: Raw = NULL
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None


request_decoder: Final = msgspec.json.Decoder(ChatRequest)
