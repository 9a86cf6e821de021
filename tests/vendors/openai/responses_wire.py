"""The body of a Responses request: https://platform.openai.com/docs/api-reference/responses. No I/O."""

from typing import Any, Literal, TypeAlias

from msgspec import field

from tests.vendors.vendor import Loose, Strict

JSON: TypeAlias = dict[str, Any]
Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class InputText(Strict, tag="input_text"):
    text: str
    prompt_cache_breakpoint: JSON | None = None


class InputImage(Strict, tag="input_image"):
    image_url: str | None = None
    file_id: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None
    prompt_cache_breakpoint: JSON | None = None


class InputFile(Strict, tag="input_file"):
    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: JSON | None = None


class OutputText(Strict, tag="output_text"):
    text: str
    annotations: list[JSON] = field(default_factory=list)
    logprobs: list[JSON] | None = None


class RefusalPart(Strict, tag="refusal"):
    refusal: str


class Message(Strict, tag="message"):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputText | InputImage | InputFile | OutputText | RefusalPart]
    id: str | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCall(Strict, tag="function_call"):
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None
    namespace: str | None = None
    caller: JSON | None = None


class FunctionCallOutput(Strict, tag="function_call_output"):
    call_id: str
    output: str | list[InputText | InputImage | InputFile]
    id: str | None = None
    status: Status | None = None
    name: str | None = None
    namespace: str | None = None
    caller: JSON | None = None


class CustomToolCall(Strict, tag="custom_tool_call"):
    call_id: str
    name: str
    input: str
    id: str | None = None
    status: Status | None = None
    namespace: str | None = None
    caller: JSON | None = None


class CustomToolCallOutput(Strict, tag="custom_tool_call_output"):
    call_id: str
    output: str | list[InputText | InputImage | InputFile]
    id: str | None = None
    caller: JSON | None = None


class SummaryText(Strict, tag="summary_text"):
    text: str


class Reasoning(Strict, tag="reasoning"):
    summary: list[SummaryText]
    id: str | None = None
    content: list[JSON] | None = None
    encrypted_content: str | None = None
    status: Status | None = None


class ItemReference(Strict, tag="item_reference"):
    id: str


class AdditionalTools(Loose, tag="additional_tools"):
    tools: list[JSON] = field(default_factory=list)


class ToolSearchCall(Loose, tag="tool_search_call"):
    pass


class ToolSearchOutput(Loose, tag="tool_search_output"):
    pass


class WebSearchCall(Loose, tag="web_search_call"):
    pass


class Compaction(Loose, tag="compaction"):
    encrypted_content: str


class CompactionTrigger(Loose, tag="compaction_trigger"):
    pass


Item: TypeAlias = (
    Message
    | FunctionCall
    | FunctionCallOutput
    | CustomToolCall
    | CustomToolCallOutput
    | Reasoning
    | ItemReference
    | AdditionalTools
    | ToolSearchCall
    | ToolSearchOutput
    | WebSearchCall
    | Compaction
    | CompactionTrigger
)


class FunctionTool(Strict, tag="function"):
    name: str
    parameters: JSON | None = None
    strict: bool | None = None
    description: str | None = None
    defer_loading: bool | None = None
    output_schema: JSON | None = None
    allowed_callers: list[str] | None = None


class CustomTool(Strict, tag="custom"):
    name: str
    description: str | None = None
    format: JSON | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None


class Namespace(Strict, tag="namespace"):
    name: str
    tools: list[FunctionTool | CustomTool]
    description: str | None = None


class WebSearch(Loose, tag="web_search"):
    pass


class WebSearchPreview(Loose, tag="web_search_preview"):
    pass


class ToolSearch(Loose, tag="tool_search"):
    pass


class ImageGeneration(Loose, tag="image_generation"):
    pass


class CodeInterpreter(Loose, tag="code_interpreter"):
    pass


class LocalShell(Loose, tag="local_shell"):
    pass


Tool: TypeAlias = (
    FunctionTool
    | CustomTool
    | Namespace
    | WebSearch
    | WebSearchPreview
    | ToolSearch
    | ImageGeneration
    | CodeInterpreter
    | LocalShell
)


class NamedFunction(Strict, tag="function"):
    name: str


class NamedCustom(Strict, tag="custom"):
    name: str


class AllowedTools(Strict, tag="allowed_tools"):
    mode: Literal["auto", "required"]
    tools: list[JSON]


class HostedWebSearch(Strict, tag="web_search"):
    pass


class ReasoningControl(Strict):
    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: Literal["standard", "pro"] | None = None


class TextFormat(Strict, tag="text"):
    pass


class JSONObject(Strict, tag="json_object"):
    pass


class JSONSchema(Strict, tag="json_schema"):
    name: str
    schema: JSON
    strict: bool | None = None
    description: str | None = None


class TextControl(Strict):
    format: TextFormat | JSONObject | JSONSchema | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class StreamOptions(Strict):
    include_obfuscation: bool | None = None


class Request(Strict):
    model: str
    input: list[Item]
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    client_metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    reasoning: ReasoningControl | None = None
    text: TextControl | None = None
    tools: list[Tool] | None = None
    tool_choice: (
        Literal["none", "auto", "required"] | NamedFunction | NamedCustom | AllowedTools | HostedWebSearch | None
    ) = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    conversation: str | JSON | None = None
    store: bool | None = None
    include: list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None
    background_options: JSON | None = None
    prompt: JSON | None = None
    context_management: list[JSON] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: JSON | None = None
    prompt_cache_retention: str | None = None
    access_programs: JSON | None = None
    moderation: JSON | None = None
    image: JSON | None = None
