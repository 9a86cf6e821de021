"""The body of a chat completion request: https://platform.openai.com/docs/api-reference/chat. No I/O."""

from typing import Any, Literal, TypeAlias

from tests.vendors.vendor import Strict

JSON: TypeAlias = dict[str, Any]


class Text(Strict, tag="text"):
    text: str
    prompt_cache_breakpoint: JSON | None = None


class ImageURL(Strict):
    url: str
    detail: Literal["auto", "low", "high", "original"] = "auto"


class Image(Strict, tag="image_url"):
    image_url: ImageURL
    prompt_cache_breakpoint: JSON | None = None


class Audio(Strict):
    data: str
    format: Literal["wav", "mp3"]


class InputAudio(Strict, tag="input_audio"):
    input_audio: Audio
    prompt_cache_breakpoint: JSON | None = None


class FileData(Strict):
    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


class File(Strict, tag="file"):
    file: FileData
    prompt_cache_breakpoint: JSON | None = None


class RefusalPart(Strict, tag="refusal"):
    refusal: str


class CalledFunction(Strict):
    name: str
    arguments: str


class FunctionCall(Strict, tag="function"):
    id: str
    function: CalledFunction


class CalledCustom(Strict):
    name: str
    input: str


class CustomCall(Strict, tag="custom"):
    id: str
    custom: CalledCustom


class System(Strict, tag_field="role", tag="system"):
    content: str | list[Text]
    name: str | None = None


class Developer(Strict, tag_field="role", tag="developer"):
    content: str | list[Text]
    name: str | None = None


class User(Strict, tag_field="role", tag="user"):
    content: str | list[Text | Image | InputAudio | File]
    name: str | None = None


class Assistant(Strict, tag_field="role", tag="assistant"):
    content: str | list[Text | RefusalPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[FunctionCall | CustomCall] | None = None
    function_call: CalledFunction | None = None
    audio: JSON | None = None
    annotations: list[JSON] | None = None


class ToolMessage(Strict, tag_field="role", tag="tool"):
    content: str | list[Text]
    tool_call_id: str


class FunctionMessage(Strict, tag_field="role", tag="function"):
    content: str | None
    name: str


Message: TypeAlias = System | Developer | User | Assistant | ToolMessage | FunctionMessage


class Function(Strict):
    name: str
    description: str | None = None
    parameters: JSON | None = None
    strict: bool | None = None


class FunctionTool(Strict, tag="function"):
    function: Function


class Custom(Strict):
    name: str
    description: str | None = None
    format: JSON | None = None


class CustomTool(Strict, tag="custom"):
    custom: Custom


class Name(Strict):
    name: str


class NamedFunction(Strict, tag="function"):
    function: Name


class NamedCustom(Strict, tag="custom"):
    custom: Name


class Allowed(Strict):
    mode: Literal["auto", "required"]
    tools: list[JSON]


class AllowedTools(Strict, tag="allowed_tools"):
    allowed_tools: Allowed


class TextFormat(Strict, tag="text"):
    pass


class JSONObject(Strict, tag="json_object"):
    pass


class Schema(Strict):
    name: str
    schema: JSON | None = None
    strict: bool | None = None
    description: str | None = None


class JSONSchema(Strict, tag="json_schema"):
    json_schema: Schema


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: bool = True


class Request(Strict):
    model: str
    messages: list[Message]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    response_format: TextFormat | JSONObject | JSONSchema | None = None
    tools: list[FunctionTool | CustomTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | NamedCustom | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: str | JSON | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: JSON | None = None
    web_search_options: JSON | None = None
    prediction: JSON | None = None
    moderation: JSON | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: JSON | None = None
    prompt_cache_retention: str | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
