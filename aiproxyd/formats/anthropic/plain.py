"""Requests that say nothing but what a ``hub.Request`` does, so that they mean the same in every format. Sans-I/O.

Narrower than what is decoded: whatever only this vendor's models would notice is missing here, and so are documents and
search results, which are texts to others. https://docs.anthropic.com/en/api/messages
"""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw

from aiproxyd.formats.base import NULL, NoItems, Plain, Words, decode_view
from aiproxyd.formats.members import Direct

# --- Blocks


class _CacheControl(Plain):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class _Markable(Plain):
    cache_control: _CacheControl | None = None


class _Text(_Markable, tag="text", kw_only=True):
    text: Words
    citations: NoItems = None


class _Base64Source(Plain, tag="base64"):
    media_type: Words
    data: str


class _UrlSource(Plain, tag="url"):
    url: str


class _Image(_Markable, tag="image", kw_only=True):
    source: _Base64Source | _UrlSource


class _ToolUse(_Markable, tag="tool_use", kw_only=True):
    id: str
    name: Words
    input: Raw
    caller: Direct | None = None


class _ToolResult(_Markable, tag="tool_result", kw_only=True):
    tool_use_id: str
    content: str | list[_Text | _Image] | None = None
    is_error: bool | None = None


_Texts: TypeAlias = Annotated[list[_Text], Meta(min_length=1)]


class _User(Plain, tag_field="role", tag="user"):
    content: Words | Annotated[list[_Text | _Image | _ToolResult], Meta(min_length=1)]


class _Assistant(Plain, tag_field="role", tag="assistant"):
    content: Words | Annotated[list[_Text | _ToolUse], Meta(min_length=1)]


class _System(Plain, tag_field="role", tag="system"):
    content: Words | _Texts


# --- Tools and the rest


class _Tool(_Markable, kw_only=True):
    name: Words
    type: Literal["custom"] | None = None
    description: str | None = None
    input_schema: Raw = NULL
    strict: bool | None = None


class _AutoChoice(Plain, tag="auto"):
    disable_parallel_tool_use: bool | None = None


class _AnyChoice(Plain, tag="any"):
    disable_parallel_tool_use: bool | None = None


class _ToolChoice(Plain, tag="tool"):
    name: Words
    disable_parallel_tool_use: bool | None = None


class _NoneChoice(Plain, tag="none"):
    pass


class _Enabled(Plain, tag="enabled"):
    budget_tokens: int


class _Adaptive(Plain, tag="adaptive"):
    # Unless it is said, what is shown depends on the model:
    # https://docs.anthropic.com/en/docs/build-with-claude/adaptive-thinking.
    display: Literal["summarized"]


class _Disabled(Plain, tag="disabled"):
    pass


class _Format(Plain, tag="json_schema"):
    schema: Raw


class _OutputConfig(Plain):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: _Format | None = None


class _Request(Plain):
    model: Raw
    messages: list[_User | _Assistant | _System]
    max_tokens: int | None = None
    system: Words | list[_Text] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _AutoChoice | _AnyChoice | _ToolChoice | _NoneChoice | None = None
    thinking: _Enabled | _Adaptive | _Disabled | None = None
    output_config: _OutputConfig | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    service_tier: None = None
    mcp_servers: NoItems = None
    # Labels.
    cache_control: Raw = NULL
    metadata: Raw = NULL
    stream: Raw = NULL


_request: Final = msgspec.json.Decoder(_Request)


def is_plain(body: bytes) -> bool:
    """Tell whether *body*, a request that could be decoded, is one."""
    return decode_view(_request, body) is not None
