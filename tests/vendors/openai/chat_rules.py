"""What OpenAI refuses in chat completions, one function a rule. No I/O."""

import re
from typing import Any, Final

from tests.vendors.openai.chat_wire import (
    AllowedTools,
    Assistant,
    CustomTool,
    File,
    FunctionMessage,
    FunctionTool,
    Image,
    InputAudio,
    JSONObject,
    JSONSchema,
    Message,
    NamedCustom,
    NamedFunction,
    Request,
    Text,
    ToolMessage,
    User,
)
from tests.vendors.openai.rules import (
    Model,
    Sampling,
    check_custom,
    check_effort,
    check_file,
    check_function_schema,
    check_image,
    check_length,
    check_metadata,
    check_name,
    check_output_limit,
    check_output_schema,
    check_sampling,
    check_strict_schema,
    find_model,
    unsupported,
)
from tests.vendors.seals import decode_base64
from tests.vendors.vendor import Refused

MAX_ID: Final = 40
MAX_STOPS: Final = 4


def check_request(request: Request, *, is_imitation: bool) -> Model:
    model = find_model(request.model)
    if not is_imitation:
        _check_own(request)
    _check_limits(request, model)
    _check_reasoning(request, model)
    check_sampling(
        model,
        Sampling(
            request.temperature,
            request.top_p,
            request.reasoning_effort,
            bool(request.logprobs),
            request.presence_penalty,
            request.frequency_penalty,
            bool(request.logit_bias),
            request.stop is not None,
        ),
    )
    _check_counts(request)
    _check_tools(request, model)
    _check_tool_choice(request)
    _check_format(request)
    _check_parts(request)
    _check_tool_turns(request.messages)
    check_metadata(request.metadata)
    check_length(request.safety_identifier, 128, "$.safety_identifier")
    return model


def _check_own(request: Request) -> None:
    """Refuse what only the vendor itself refuses."""
    if request.metadata and not request.store:
        raise Refused("The 'metadata' parameter is only allowed when 'store' is enabled.", "$.metadata")
    if isinstance(request.response_format, JSONSchema):
        check_output_schema(request.response_format.json_schema.schema, "$.response_format.json_schema.schema")


def _check_limits(request: Request, model: Model) -> None:
    if request.max_tokens is not None and model.reasons:
        raise unsupported("max_tokens", model, "Use 'max_completion_tokens' instead")
    check_output_limit(model, request.max_tokens, "$.max_tokens")
    check_output_limit(model, request.max_completion_tokens, "$.max_completion_tokens")


def _check_reasoning(request: Request, model: Model) -> None:
    if request.reasoning_effort == "max":
        raise Refused("reasoning_effort 'max' is only supported in /v1/responses.", "$.reasoning_effort")
    check_effort(model, request.reasoning_effort, "$.reasoning_effort")
    has_functions = any(isinstance(tool, FunctionTool) for tool in request.tools or [])
    if has_functions and model.generation >= (5, 4) and model.reasons_at(request.reasoning_effort):
        text = f"Function tools with reasoning_effort are not supported for {model.name} in /v1/chat/completions."
        raise Refused(f"{text} Please use /v1/responses instead.", "$.reasoning_effort")


def _check_counts(request: Request) -> None:
    if request.n is not None and not 1 <= request.n <= 128:
        raise Refused("Invalid 'n': expected an integer between 1 and 128.", "$.n")
    if isinstance(request.stop, list) and not 1 <= len(request.stop) <= MAX_STOPS:
        raise Refused(f"Invalid 'stop': expected an array with 1 to {MAX_STOPS} elements.", "$.stop")
    for name in ("presence_penalty", "frequency_penalty"):
        if not -2 <= (getattr(request, name) or 0) <= 2:
            raise Refused(f"Invalid '{name}': expected a number between -2 and 2.", f"$.{name}")
    if request.top_logprobs is not None and not (request.logprobs and 0 <= request.top_logprobs <= 20):
        raise Refused("'top_logprobs' is to be 0 to 20, and 'logprobs' to be on.", "$.top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise Refused("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "$.stream_options")
    if request.audio is not None or "audio" in (request.modalities or []):
        raise Refused("This model does not support audio output.", "$.modalities")


def _check_tools(request: Request, model: Model) -> None:
    if request.tools is None:
        return
    if not request.tools:
        raise Refused("Invalid 'tools': empty array. Expected an array with minimum length 1.", "$.tools")
    for index, tool in enumerate(request.tools):
        if isinstance(tool, CustomTool):
            check_name(tool.custom.name, f"$.tools[{index}].custom.name")
            check_custom(model, f"$.tools[{index}]")
            continue
        path = f"$.tools[{index}].function"
        check_name(tool.function.name, f"{path}.name")
        check_function_schema(tool.function.parameters, f"{path}.parameters", is_strict=tool.function.strict is True)


def _check_tool_choice(request: Request) -> None:
    if request.tools is None and request.functions is None:
        if request.tool_choice is not None:
            raise Refused("'tool_choice' is only allowed when 'tools' are specified.", "$.tool_choice")
        if request.parallel_tool_calls is not None:
            raise Refused("'parallel_tool_calls' is only allowed when 'tools' are specified.", "$.parallel_tool_calls")
        return
    names = tool_names(request)
    match request.tool_choice:
        case NamedFunction(function=named) | NamedCustom(custom=named):
            wanted = [named.name]
        case AllowedTools(allowed_tools=allowed):
            wanted = [name_of(tool) for tool in allowed.tools]
        case _:
            wanted = []
    for name in wanted:
        if name not in names:
            raise Refused(f"Tool choice '{name}' not found in 'tools' parameter.", "$.tool_choice")


def tool_names(request: Request) -> list[str]:
    return [tool.function.name if isinstance(tool, FunctionTool) else tool.custom.name for tool in request.tools or []]


def name_of(tool: dict[str, Any]) -> str:
    """Return the name in an entry of allowed_tools."""
    return str(tool.get(str(tool.get("type")), {}).get("name"))


def _check_format(request: Request) -> None:
    match request.response_format:
        case JSONSchema(json_schema=schema):
            path = "$.response_format.json_schema"
            check_name(schema.name, f"{path}.name")
            if schema.strict:
                check_strict_schema(schema.schema, f"{path}.schema")
        case JSONObject():
            if not any("json" in text_of(message).lower() for message in request.messages):
                raise Refused(
                    "'messages' must contain the word 'json' to use 'response_format' json_object.", "$.messages"
                )
        case _:
            pass


def text_of(message: Message) -> str:
    """Return the text parts of a message, joined."""
    if isinstance(message.content, list):
        return "\n".join(part.text for part in message.content if isinstance(part, Text))
    return message.content or ""


def _check_parts(request: Request) -> None:
    if not request.messages:
        raise Refused("Invalid 'messages': empty array. Expected an array with minimum length 1.", "$.messages")
    for index, message in enumerate(request.messages):
        path = f"$.messages[{index}]"
        if isinstance(message.content, list) and not message.content:
            raise Refused("Invalid content: empty array. Expected an array with minimum length 1.", f"{path}.content")
        if isinstance(message, User) and isinstance(message.content, list):
            for place, part in enumerate(message.content):
                _check_part(part, f"{path}.content[{place}]")
        if isinstance(message, Assistant):
            _check_assistant(message, path)


def _check_part(part: object, path: str) -> None:
    match part:
        case Image(image_url=image):
            check_image(image.url, f"{path}.image_url.url")
        case InputAudio(input_audio=audio):
            if not decode_base64(audio.data):
                raise Refused("Invalid audio: not valid base64.", f"{path}.input_audio.data")
        case File(file=file):
            if file.file_data is None or file.filename is None:
                raise Refused("A file needs 'file_data' and 'filename'; there are no uploaded files.", f"{path}.file")
            check_file(file.file_data, f"{path}.file.file_data")
        case _:
            pass


def _check_assistant(message: Assistant, path: str) -> None:
    if message.tool_calls == []:
        raise Refused(
            "Invalid 'tool_calls': empty array. Expected an array with minimum length 1.", f"{path}.tool_calls"
        )
    if message.content is None and not (message.tool_calls or message.function_call or message.refusal):
        raise Refused("Invalid value for 'content': expected a string, got null.", f"{path}.content")
    for index, call in enumerate(message.tool_calls or []):
        check_length(call.id, MAX_ID, f"{path}.tool_calls[{index}].id")
        name = getattr(call, "function", None) or getattr(call, "custom", None)
        check_name(name.name if name else "", f"{path}.tool_calls[{index}].name")


def _check_tool_turns(messages: list[Message]) -> None:
    """Let the messages of all tools that were called stand directly behind the call."""
    waiting: list[str] = []
    is_open = False
    for index, message in enumerate(messages):
        path = f"$.messages[{index}]"
        if isinstance(message, ToolMessage):
            if not is_open:
                raise Refused("messages with role 'tool' must be a response to a preceding 'tool_calls'.", path)
            if message.tool_call_id not in waiting:
                raise Refused(f"'tool_call_id' {message.tool_call_id} not found in the preceding 'tool_calls'.", path)
            waiting.remove(message.tool_call_id)
            continue
        _check_answered(waiting, path)
        is_open = isinstance(message, Assistant) and bool(message.tool_calls)
        if isinstance(message, Assistant):
            waiting = [call.id for call in message.tool_calls or []]
            if len(set(waiting)) < len(waiting):
                raise Refused("the ids of 'tool_calls' must be unique", f"{path}.tool_calls")
        if isinstance(message, FunctionMessage) and not re.fullmatch(r"[\w-]+", message.name):
            raise Refused("Invalid 'name'.", f"{path}.name")
    _check_answered(waiting, "$.messages")


def _check_answered(waiting: list[str], path: str) -> None:
    if waiting:
        text = "An assistant message with 'tool_calls' must be followed by tool messages responding to each"
        raise Refused(
            f"{text} 'tool_call_id'. The following did not have response messages: {', '.join(waiting)}", path
        )
