"""The body of a generateContent request: https://ai.google.dev/api/generate-content. No I/O.

Written in camelCase; `normalise` turns the other spelling, which is as good, into it.
"""

import re
from typing import Any, Final, Literal, TypeAlias

from msgspec import field

from tests.vendors.vendor import Strict, words

JSON: TypeAlias = dict[str, Any]
OPAQUE: Final = words(
    "args response labels parameters parametersJsonSchema responseSchema responseJsonSchema responseFormat"
)
"""Keys under which the caller's own objects stand."""


def normalise(value: Any) -> Any:
    """Return *value* with the names of the protocol, and only those, in camelCase."""
    if isinstance(value, list):
        return [normalise(each) for each in value]
    if not isinstance(value, dict):
        return value
    named = {to_camel(key): each for key, each in value.items() if each is not None}
    return {key: each if key in OPAQUE else normalise(each) for key, each in named.items()}


def to_camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


class Blob(Strict, rename="camel"):
    mime_type: str
    data: str
    display_name: str | None = None


class FileData(Strict, rename="camel"):
    file_uri: str
    mime_type: str | None = None
    display_name: str | None = None


class FunctionCall(Strict):
    name: str
    args: JSON = field(default_factory=dict)
    id: str | None = None


class ResponsePart(Strict, rename="camel"):
    inline_data: Blob | None = None
    file_data: FileData | None = None


class FunctionResponse(Strict, rename="camel"):
    name: str
    response: JSON
    id: str | None = None
    parts: list[ResponsePart] = field(default_factory=list)
    will_continue: bool | None = None
    scheduling: str | None = None


class Part(Strict, rename="camel"):
    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    executable_code: JSON | None = None
    code_execution_result: JSON | None = None
    tool_call: JSON | None = None
    tool_response: JSON | None = None
    thought: bool = False
    thought_signature: str | None = None
    video_metadata: JSON | None = None
    media_resolution: JSON | None = None
    part_metadata: JSON | None = None


class Content(Strict):
    parts: list[Part]
    role: str = "user"


class FunctionDeclaration(Strict, rename="camel"):
    name: str
    description: str | None = None
    parameters: Any = None
    parameters_json_schema: Any = None
    response: Any = None
    response_json_schema: Any = None
    behavior: str | None = None


class Tool(Strict, rename="camel"):
    function_declarations: list[FunctionDeclaration] = field(default_factory=list)
    google_search: JSON | None = None
    google_search_retrieval: JSON | None = None
    code_execution: JSON | None = None
    url_context: JSON | None = None
    file_search: JSON | None = None
    google_maps: JSON | None = None
    computer_use: JSON | None = None
    mcp_servers: list[JSON] | None = None


class CallingConfig(Strict, rename="camel"):
    mode: Literal["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"] = "AUTO"
    allowed_function_names: list[str] = field(default_factory=list)
    stream_function_call_arguments: bool | None = None


class ToolConfig(Strict, rename="camel"):
    function_calling_config: CallingConfig | None = None
    retrieval_config: JSON | None = None
    include_server_side_tool_invocations: bool | None = None


class ThinkingConfig(Strict, rename="camel"):
    include_thoughts: bool = False
    thinking_budget: int | None = None
    thinking_level: str | None = None


class GenerationConfig(Strict, rename="camel"):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] = field(default_factory=list)
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool = False
    logprobs: int | None = None
    response_mime_type: str | None = None
    response_schema: Any = None
    response_json_schema: Any = None
    response_format: JSON | None = None
    response_modalities: list[str] = field(default_factory=list)
    media_resolution: str | None = None
    speech_config: JSON | None = None
    image_config: JSON | None = None
    thinking_config: ThinkingConfig | None = None
    enable_enhanced_civic_answers: bool | None = None


class Request(Strict, rename="camel"):
    contents: list[Content]
    system_instruction: Content | None = None
    tools: list[Tool] = field(default_factory=list)
    tool_config: ToolConfig | None = None
    safety_settings: list[JSON] = field(default_factory=list)
    generation_config: GenerationConfig = field(default_factory=GenerationConfig)
    cached_content: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    continuation_token: str | None = None


class CountRequest(Strict, rename="camel"):
    contents: list[Content] | None = None
    generate_content_request: JSON | None = None


class EmbedRequest(Strict, rename="camel"):
    content: Content
    model: str | None = None
    task_type: str | None = None
    title: str | None = None
    output_dimensionality: int = 8


class BatchEmbedRequest(Strict):
    requests: list[EmbedRequest]
