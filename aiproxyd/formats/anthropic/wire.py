"""Objects of the Messages API in its own words, for reading and for writing. Sans-I/O.

https://docs.anthropic.com/en/api/messages; field by field as in the types of the official SDK. What stands as ``Raw``
is only carried, or read by whoever knows its shape.
"""
# ruff: noqa: D101  # the vendor's page says what each object is

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from aiproxyd.formats.base import NULL, Tokens, decode_view

NAME: Final = "anthropic"
"""Of the format: the origin of whatever only Anthropic understands."""

encode: Final[Callable[[object], bytes]] = msgspec.json.Encoder().encode

# --- Blocks


class CacheControl(Struct, tag_field="type", tag="ephemeral", omit_defaults=True):
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Struct, tag_field="type", tag="text", omit_defaults=True):
    text: str
    citations: list[Raw] | None = None
    cache_control: CacheControl | None = None


class Base64Source(Struct, tag_field="type", tag="base64"):
    media_type: str
    data: str


class PlainTextSource(Struct, tag_field="type", tag="text"):
    media_type: str
    data: str


class UrlSource(Struct, tag_field="type", tag="url"):
    url: str


class FileSource(Struct, tag_field="type", tag="file"):
    file_id: str


class ContentSource(Struct, tag_field="type", tag="content"):
    content: str | list[Raw]


class CitationsConfig(Struct):
    enabled: bool | None = None


ImageSource: TypeAlias = Base64Source | UrlSource | FileSource
DocumentSource: TypeAlias = Base64Source | PlainTextSource | UrlSource | FileSource | ContentSource


class ImageBlock(Struct, tag_field="type", tag="image", omit_defaults=True):
    source: ImageSource
    cache_control: CacheControl | None = None
    transformations: Raw = NULL


class DocumentBlock(Struct, tag_field="type", tag="document", omit_defaults=True):
    source: DocumentSource
    title: str | None = None
    context: str | None = None
    citations: CitationsConfig | None = None
    cache_control: CacheControl | None = None


class SearchResultBlock(Struct, tag_field="type", tag="search_result"):
    source: str
    title: str
    content: list[TextBlock]
    cache_control: CacheControl | None = None


class ThinkingBlock(Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Struct, tag_field="type", tag="redacted_thinking"):
    data: str


class ToolUseBlock(Struct, tag_field="type", tag="tool_use", omit_defaults=True):
    id: str
    name: str
    input: Raw
    cache_control: CacheControl | None = None


class ToolReferenceBlock(Struct, tag_field="type", tag="tool_reference"):
    tool_name: str


class ToolResultBlock(Struct, tag_field="type", tag="tool_result"):
    """For reading."""

    tool_use_id: str
    content: str | list[Raw] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


class WrittenToolResult(Struct, tag_field="type", tag="tool_result", omit_defaults=True):
    """For writing."""

    tool_use_id: str
    content: "str | list[TextBlock | ImageBlock | DocumentBlock] | None" = None
    is_error: bool = False
    cache_control: CacheControl | None = None


WrittenBlock: TypeAlias = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | WrittenToolResult
    | Raw
)


class Head(Struct):
    type: str


# --- Requests


class ToolParam(Struct, omit_defaults=True):
    """A tool of the caller's; of a tool that Anthropic runs, only *type* is read."""

    type: str | None = None
    name: str = ""
    description: str | None = None
    input_schema: Raw = NULL
    strict: bool | None = None
    cache_control: CacheControl | None = None


class ToolChoiceParam(Struct, omit_defaults=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Struct, omit_defaults=True):
    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: int | None = None
    display: str | None = None


class JsonOutputFormat(Struct, tag_field="type", tag="json_schema"):
    schema: Raw


class OutputConfig(Struct, omit_defaults=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonOutputFormat | None = None


class Metadata(Struct, omit_defaults=True):
    user_id: str | None = None


class Message(Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[Raw]


class MessagesBody(Struct):
    """For reading; what is not named here is collected by its name."""

    model: str
    messages: list[Message]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    """Bodies of count_tokens have none; 0 only warms the prompt cache."""
    system: str | list[TextBlock] | None = None
    tools: list[Raw] | None = None
    tool_choice: ToolChoiceParam | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: JsonOutputFormat | None = None
    """What output_config.format was called in its beta."""
    metadata: Metadata | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    service_tier: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


# --- Answers


class OutputDetails(Struct):
    thinking_tokens: Tokens | None = None


class CacheCreation(Struct):
    ephemeral_5m_input_tokens: Tokens | None = None
    ephemeral_1h_input_tokens: Tokens | None = None


class UsageView(Struct):
    """Any field may be null or absent; in a stream, absent means unchanged."""

    input_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_creation: CacheCreation | None = None
    output_tokens: Tokens | None = None
    output_tokens_details: OutputDetails | None = None


class TierView(Struct):
    service_tier: str | None = None


class MessageView(Struct):
    """An answer, or the error in its place."""

    usage: Raw = NULL
    type: str = ""
    error: Any = None
    id: Raw = NULL
    model: Raw = NULL
    content: Raw = NULL
    stop_reason: Raw = NULL
    stop_sequence: Raw = NULL
    stop_details: Raw = NULL


class WrittenText(Struct, tag_field="type", tag="text", omit_defaults=True):
    """For writing; citations are the API's own, or made here."""

    text: str
    citations: list[object] = []


class StopDetails(Struct):
    category: str | None = None
    explanation: str | None = None


_string: Final = msgspec.json.Decoder(str)


def read_string(raw: Raw) -> str:
    """Return the string that *raw* is; empty where it is none."""
    return decode_view(_string, raw) or ""
