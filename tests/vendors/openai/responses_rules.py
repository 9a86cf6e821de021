"""What OpenAI refuses in Responses, one function a rule. No I/O."""

from collections.abc import Iterator
from typing import Final

from tests.vendors.openai.responses_wire import (
    AllowedTools,
    CustomTool,
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputFile,
    InputImage,
    InputText,
    ItemReference,
    JSONObject,
    JSONSchema,
    Message,
    NamedCustom,
    NamedFunction,
    Namespace,
    OutputText,
    Reasoning,
    RefusalPart,
    Request,
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
from tests.vendors.seals import is_seal
from tests.vendors.vendor import Refused

MAX_ID: Final = 64
MIN_OUTPUT_TOKENS: Final = 16
PREFIXES: Final[dict[type, str]] = {
    Message: "msg",
    Reasoning: "rs",
    FunctionCall: "fc",
    FunctionCallOutput: "fc",
    CustomToolCall: "ctc",
    CustomToolCallOutput: "ctc",
}
INCLUDES: Final = (
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
    "file_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
)


def check_request(request: Request) -> Model:
    model = find_model(request.model)
    check_output_limit(model, request.max_output_tokens, "$.max_output_tokens", least=MIN_OUTPUT_TOKENS)
    _check_reasoning(request, model)
    effort = request.reasoning.effort if request.reasoning else None
    check_sampling(model, Sampling(request.temperature, request.top_p, effort, bool(request.top_logprobs)))
    _check_state(request)
    _check_tools(request, model)
    _check_tool_choice(request)
    _check_format(request)
    for index, item in enumerate(request.input):
        _check_id(item, f"$.input[{index}]")
        _check_item(item, f"$.input[{index}]")
    _check_calls(request)
    check_metadata(request.metadata)
    check_length(request.safety_identifier, 128, "$.safety_identifier")
    return model


def _check_reasoning(request: Request, model: Model) -> None:
    if request.reasoning is not None:
        check_effort(model, request.reasoning.effort, "$.reasoning.effort")
        if not model.reasons and request.reasoning.summary is not None:
            raise unsupported("reasoning.summary", model)
    for index, name in enumerate(request.include or []):
        if name not in INCLUDES:
            raise Refused(f"Invalid value: '{name}'. Supported are: {', '.join(INCLUDES)}.", f"$.include[{index}]")
    if not model.reasons and "reasoning.encrypted_content" in (request.include or []):
        raise Refused("Encrypted content is not supported with this model.", "$.include")
    if request.stream_options is not None and not request.stream:
        raise Refused("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "$.stream_options")


def _check_state(request: Request) -> None:
    """Nothing is stored here."""
    if request.previous_response_id is not None:
        text = f"Previous response with id '{request.previous_response_id}' not found."
        raise Refused(text, "$.previous_response_id", code="previous_response_not_found")
    if request.conversation is not None:
        raise Refused(f"Conversation '{request.conversation}' not found.", "$.conversation", status=404)
    for index, item in enumerate(request.input):
        if isinstance(item, ItemReference) or (isinstance(item, Reasoning) and item.encrypted_content is None):
            text = f"Item with id '{item.id}' not found. Items are not persisted when `store` is set to false."
            raise Refused(text, f"$.input[{index}]", status=404)


def own_tools(request: Request) -> Iterator[tuple[str, str, FunctionTool | CustomTool]]:
    """Return path, namespace and tool of all that the caller runs."""
    for index, tool in enumerate(request.tools or []):
        match tool:
            case FunctionTool() | CustomTool():
                yield f"$.tools[{index}]", "", tool
            case Namespace():
                for place, each in enumerate(tool.tools):
                    yield f"$.tools[{index}].tools[{place}]", tool.name, each
            case _:
                pass


def _check_tools(request: Request, model: Model) -> None:
    for path, _, tool in own_tools(request):
        check_name(tool.name, f"{path}.name")
        if isinstance(tool, CustomTool):
            check_custom(model, path)
        else:
            # Strict where the caller does not say otherwise, unlike in chat completions.
            check_function_schema(tool.parameters, f"{path}.parameters", is_strict=tool.strict is not False)


def _check_tool_choice(request: Request) -> None:
    names = [tool.name for _, _, tool in own_tools(request)]
    match request.tool_choice:
        case NamedFunction(name=name) | NamedCustom(name=name):
            wanted = [name]
        case AllowedTools(tools=tools):
            wanted = [str(tool.get("name")) for tool in tools if tool.get("type") in ("function", "custom")]
        case "required" if not request.tools:
            raise Refused("Tool choice 'required' must be specified with 'tools' parameter.", "$.tool_choice")
        case _:
            wanted = []
    for name in wanted:
        if name not in names:
            raise Refused(f"Tool choice '{name}' not found in 'tools' parameter.", "$.tool_choice")


def _check_format(request: Request) -> None:
    match request.text.format if request.text else None:
        case JSONSchema(name=name, schema=schema, strict=strict):
            check_name(name, "$.text.format.name")
            check_output_schema(schema, "$.text.format.schema")
            if strict:
                check_strict_schema(schema, "$.text.format.schema")
        case JSONObject():
            texts = [
                request.instructions or "",
                *(text_of(each) for each in request.input if isinstance(each, Message)),
            ]
            if not any("json" in text.lower() for text in texts):
                raise Refused("'input' must contain the word 'json' to use 'text.format' json_object.", "$.input")
        case _:
            pass


def text_of(message: Message) -> str:
    """Return the text parts of a message, joined."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, InputText | OutputText))


def _check_id(item: object, path: str) -> None:
    prefix = PREFIXES.get(type(item))
    own = getattr(item, "id", None)
    if prefix is None or own is None:
        return
    if not own.startswith(prefix):
        raise Refused(
            f"Invalid '{own}': expected an ID that begins with '{prefix}'.", f"{path}.id", code="invalid_value"
        )
    check_length(own, MAX_ID, f"{path}.id")


def _check_item(item: object, path: str) -> None:
    match item:
        case Message(content=list()):
            _check_message(item, path)
        case FunctionCall() | CustomToolCall():
            check_name(item.name, f"{path}.name")
            check_length(item.call_id, MAX_ID, f"{path}.call_id")
        case FunctionCallOutput(output=list() as parts) | CustomToolCallOutput(output=list() as parts):
            for index, part in enumerate(parts):
                _check_media(part, f"{path}.output[{index}]")
        case Reasoning(encrypted_content=str() as encrypted):
            if not is_seal(encrypted, "openai", "reasoning"):
                raise Refused("The encrypted content could not be verified.", path, code="invalid_encrypted_content")
        case _:
            pass


def _check_message(message: Message, path: str) -> None:
    for index, part in enumerate(message.content):
        place = f"{path}.content[{index}]"
        is_output = isinstance(part, OutputText | RefusalPart)
        if is_output != (message.role == "assistant"):
            supported = (
                "'output_text' and 'refusal'" if message.role == "assistant" else "'input_text', 'input_image'..."
            )
            raise Refused(f"Invalid value: '{part}'. Supported values are: {supported}.", place, code="invalid_value")
        _check_media(part, place)


def _check_media(part: object, path: str) -> None:
    match part:
        case InputImage(file_id=str()) | InputFile(file_id=str()):
            raise Refused("File not found: there are no uploaded files.", f"{path}.file_id", status=404)
        case InputImage(image_url=url):
            if url is None:
                raise Refused("Missing required parameter: 'image_url'.", f"{path}.image_url")
            check_image(url, f"{path}.image_url")
        case InputFile(file_data=str() as data, filename=name):
            if name is None:
                raise Refused("Missing required parameter: 'filename'.", f"{path}.filename")
            check_file(data, f"{path}.file_data")
        case InputFile(file_url=None):
            raise Refused("Missing required parameter: 'file_data'.", path)
        case _:
            pass


def _check_calls(request: Request) -> None:
    """Let every call have one output behind it, and every output its call before it."""
    waiting: dict[str, str] = {}
    called: set[str] = set()
    for index, item in enumerate(request.input):
        path = f"$.input[{index}]"
        match item:
            case FunctionCall(call_id=call_id) | CustomToolCall(call_id=call_id):
                if call_id in called:
                    raise Refused(f"Duplicate call_id {call_id}.", f"{path}.call_id")
                called.add(call_id)
                waiting[call_id] = path
            case FunctionCallOutput(call_id=call_id) | CustomToolCallOutput(call_id=call_id):
                if call_id not in waiting:
                    raise Refused(f"No tool call found for function call output with call_id {call_id}.", path)
                del waiting[call_id]
            case _:
                pass
    for call_id, path in waiting.items():
        raise Refused(f"No tool output found for function call {call_id}.", path)
