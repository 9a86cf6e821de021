"""The body of a Messages request: https://docs.anthropic.com/en/api/messages. No I/O."""

from typing import Any, Literal, TypeAlias

from msgspec import field

from tests.vendors.vendor import Loose, Strict

JSON: TypeAlias = dict[str, Any]


class CacheControl(Strict):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class Base64Source(Strict, tag="base64"):
    media_type: str
    data: str


class TextSource(Strict, tag="text"):
    media_type: Literal["text/plain"]
    data: str


class UrlSource(Strict, tag="url"):
    url: str


class FileSource(Strict, tag="file"):
    file_id: str


class ContentSource(Strict, tag="content"):
    content: str | list["Text | Image"]


class Text(Strict, tag="text"):
    text: str
    citations: list[JSON] | None = None
    cache_control: CacheControl | None = None


class Image(Strict, tag="image"):
    source: Base64Source | UrlSource | FileSource
    transformations: JSON | None = None
    cache_control: CacheControl | None = None


class Document(Strict, tag="document"):
    source: Base64Source | TextSource | UrlSource | FileSource | ContentSource
    title: str | None = None
    context: str | None = None
    citations: JSON | None = None
    cache_control: CacheControl | None = None


class SearchResult(Strict, tag="search_result"):
    source: str
    title: str
    content: list[Text]
    citations: JSON | None = None
    cache_control: CacheControl | None = None


class Thinking(Strict, tag="thinking"):
    thinking: str
    signature: str


class RedactedThinking(Strict, tag="redacted_thinking"):
    data: str


class ToolUse(Strict, tag="tool_use"):
    id: str
    name: str
    input: JSON
    caller: JSON | None = None
    toolset_name: str | None = None
    cache_control: CacheControl | None = None


class ToolReference(Strict, tag="tool_reference"):
    tool_name: str
    cache_control: CacheControl | None = None


class ToolResult(Strict, tag="tool_result"):
    tool_use_id: str
    content: str | list[Text | Image | Document | SearchResult | ToolReference] = ""
    is_error: bool = False
    toolset_name: str | None = None
    cache_control: CacheControl | None = None


class ServerToolUse(Loose, tag="server_tool_use"):
    id: str


class WebSearchToolResult(Loose, tag="web_search_tool_result"):
    tool_use_id: str


class ContainerUpload(Loose, tag="container_upload"):
    file_id: str


Block: TypeAlias = (
    Text
    | Image
    | Document
    | SearchResult
    | Thinking
    | RedactedThinking
    | ToolUse
    | ToolResult
    | ServerToolUse
    | WebSearchToolResult
    | ContainerUpload
)


class Message(Strict):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]

    def blocks(self) -> list[Block]:
        return [Text(text=self.content)] if isinstance(self.content, str) else self.content


class Tool(Strict, tag="custom"):
    name: str
    input_schema: JSON
    description: str = ""
    strict: bool = False
    defer_loading: bool = False
    eager_input_streaming: bool | None = None
    input_examples: list[JSON] = field(default_factory=list)
    allowed_callers: list[str] = field(default_factory=list)
    cache_control: CacheControl | None = None


class Auto(Strict, tag="auto"):
    disable_parallel_tool_use: bool = False


class Required(Strict, tag="any"):
    disable_parallel_tool_use: bool = False


class Named(Strict, tag="tool"):
    name: str
    disable_parallel_tool_use: bool = False


class Forbidden(Strict, tag="none"):
    pass


class Adaptive(Strict, tag="adaptive"):
    display: str | None = None


class Enabled(Strict, tag="enabled"):
    budget_tokens: int
    display: str | None = None


class Disabled(Strict, tag="disabled"):
    pass


class BetweenTools(Strict, tag="between_tools"):
    pass


class JSONFormat(Strict):
    type: Literal["json_schema"]
    schema: JSON


class OutputConfig(Strict):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JSONFormat | None = None
    task_budget: JSON | None = None


class Metadata(Strict):
    user_id: str | None = None


class Request(Strict):
    model: str
    messages: list[Message]
    max_tokens: int
    system: str | list[Text] = ""
    tools: list[Any] = field(default_factory=list)
    """`Tool` for the caller's own, the object itself for the vendor's."""
    tool_choice: Auto | Required | Named | Forbidden | None = None
    thinking: Adaptive | Enabled | Disabled | BetweenTools | None = None
    output_config: OutputConfig | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] = field(default_factory=list)
    stream: bool = False
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] = "auto"
    speed: Literal["standard", "fast"] | None = None
    cache_control: CacheControl | None = None
    inference_geo: str | None = None
    container: JSON | str | None = None
    diagnostics: JSON | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None
    context_management: JSON | None = None
    compaction: JSON | None = None
    fallbacks: list[JSON] | None = None
    fallback_credit_token: str | None = None
    mcp_servers: list[JSON] | None = None
    billing_policy: JSON | None = None
    safeguards: list[JSON] | None = None
