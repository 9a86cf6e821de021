"""What Gemini refuses, one function a rule. No I/O."""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tests.vendors.gemini.wire import (
    Blob,
    Content,
    FileData,
    FunctionDeclaration,
    FunctionResponse,
    GenerationConfig,
    Part,
    Request,
    ThinkingConfig,
    to_camel,
)
from tests.vendors.seals import decode_base64, is_seal
from tests.vendors.vendor import Refused, words

MAX_STOPS: Final = 5
PLACEHOLDER: Final = "skip_thought_signature_validator"
"""Stands in for a signature that was lost: as it is, which Gemini CLI does, or in base64, as SDKs encode it."""
DATA_FIELDS: Final = (
    "text",
    "inline_data",
    "file_data",
    "function_call",
    "function_response",
    "executable_code",
    "code_execution_result",
    "tool_call",
    "tool_response",
)


class Model(NamedTuple):
    """What a model's name says about it."""

    name: str
    version: tuple[int, int]
    size: str
    takes_ids: bool
    """Whether its calls and their responses may have ids."""

    @property
    def is_3(self) -> bool:
        return self.version >= (3, 0)

    @property
    def has_budget(self) -> bool:
        return self.version == (2, 5)

    @property
    def budgets(self) -> tuple[range, tuple[int, ...]]:
        """Return the range of budgets, and those outside it: -1 lets the model choose, 0 is off."""
        match self.size:
            case "pro":
                return range(128, 32_769), (-1,)
            case "flash-lite":
                return range(512, 24_577), (-1, 0)
            case _:
                return range(1, 24_577), (-1, 0)

    @property
    def levels(self) -> tuple[str, ...]:
        if not self.is_3:
            return ()
        levels = ("LOW", "MEDIUM", "HIGH") if self.version > (3, 0) or self.size != "pro" else ("LOW", "HIGH")
        if self.version >= (3, 6):
            levels = (*levels, "XHIGH")
        return levels if self.size == "pro" else ("MINIMAL", *levels)

    @property
    def max_output_tokens(self) -> int:
        return 65_536 if self.version >= (2, 5) else 8_192


def find_model(name: str, method: str = "generateContent") -> Model:
    match = re.match(r"gemini-(\d)(?:\.(\d))?-(pro|flash-lite|flash)", name)
    if match is None:
        text = f"models/{name} is not found, or is not supported for {method}."
        raise Refused(f"{text} Call ListModels to see the list of available models.", status=404)
    version = (int(match[1]), int(match[2] or 0))
    return Model(name, version, match[3], takes_ids=version >= (3, 0))


def check_request(request: Request, model: Model) -> None:
    _check_generation(request.generation_config, model)
    if request.generation_config.thinking_config:
        _check_thinking(request.generation_config.thinking_config, model)
    _check_tools(request)
    _check_calling(request)
    if request.cached_content is not None:
        raise Refused("CachedContent not found (or permission denied)", "$.cachedContent", status=403)
    if request.system_instruction is not None:
        for index, part in enumerate(request.system_instruction.parts):
            if part.text is None:
                raise Refused("system instruction: only text is supported", f"$.systemInstruction.parts[{index}]")
    check_contents(request.contents, model)


def check_contents(contents: list[Content], model: Model) -> None:
    check_parts(contents, model)
    _check_call_turns(contents)
    _check_signatures(contents)
    if model.is_3:
        _check_signed_steps(contents)


def check_parts(contents: list[Content], model: Model) -> None:
    """Refuse contents that are wrong by themselves; tokens are counted for whatever else there is."""
    if not contents:
        raise Refused("* GenerateContentRequest.contents: contents is not specified", "$.contents")
    for index, content in enumerate(contents):
        path = f"$.contents[{index}]"
        if content.role not in ("user", "model"):
            raise Refused("Please use a valid role: user, model.", f"{path}.role")
        if not content.parts:
            raise Refused("contents.parts must not be empty.", f"{path}.parts")
        for place, part in enumerate(content.parts):
            _check_part(part, model, f"{path}.parts[{place}]")


def _check_generation(config: GenerationConfig, model: Model) -> None:
    path = "$.generationConfig"
    limit = config.max_output_tokens
    if limit is not None and not 1 <= limit <= model.max_output_tokens:
        text = f"max_output_tokens must be in the range from 1 (inclusive) to {model.max_output_tokens + 1} (exclusive)"
        raise Refused(f"{text}, but is {limit}", f"{path}.maxOutputTokens")
    ranges = (
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("top_k", 1, 1000),
        ("candidate_count", 1, 8),
        ("logprobs", 0, 20),
    )
    for name, least, most in ranges:
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            raise Refused(f"{name} must be in the range [{least}, {most}], but is {value}", f"{path}.{to_camel(name)}")
    _check_extras(config, model)
    _check_response_schema(config, path)


def _check_extras(config: GenerationConfig, model: Model) -> None:
    path = "$.generationConfig"
    if len(config.stop_sequences) > MAX_STOPS:
        raise Refused(f"The number of stop sequences must not exceed {MAX_STOPS}", f"{path}.stopSequences")
    if config.logprobs is not None and not config.response_logprobs:
        raise Refused("logprobs may only be set when response_logprobs is true", f"{path}.logprobs")
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(config, name) is not None and model.is_3:
            raise Refused(f"Penalty is not enabled for {model.name}", f"{path}.{to_camel(name)}")
    if set(config.response_modalities) - {"TEXT"} and "image" not in model.name:
        raise Refused(f"{model.name} does not support the requested response modalities", f"{path}.responseModalities")


def _check_response_schema(config: GenerationConfig, path: str) -> None:
    if config.response_schema is not None and config.response_json_schema is not None:
        raise Refused("response_schema and response_json_schema are mutually exclusive", f"{path}.responseJsonSchema")
    has_schema = config.response_schema is not None or config.response_json_schema is not None
    if has_schema and config.response_mime_type not in ("application/json", "text/x.enum"):
        raise Refused("a response schema needs response_mime_type application/json", f"{path}.responseMimeType")
    if config.response_mime_type not in (None, "text/plain", "application/json", "text/x.enum"):
        raise Refused("allowed mimetypes are text/plain, application/json, text/x.enum", f"{path}.responseMimeType")
    if config.response_schema is not None:
        check_schema(config.response_schema, f"{path}.responseSchema")
    if config.response_json_schema is not None:
        check_json_schema(config.response_json_schema, f"{path}.responseJsonSchema", root=config.response_json_schema)


def _check_thinking(config: ThinkingConfig, model: Model) -> None:
    path = "$.generationConfig.thinkingConfig"
    budget, level = config.thinking_budget, config.thinking_level
    if budget is not None and level is not None:
        raise Refused("You can only set only one of thinking budget and thinking level.", path)
    if level is not None and level.upper() not in model.levels:
        raise Refused(
            f"Thinking level {level} is not supported for {model.name}: {model.levels}", f"{path}.thinkingLevel"
        )
    if budget is None:
        return
    if not model.has_budget:
        raise Refused(f"Thinking budget is not supported for {model.name}.", f"{path}.thinkingBudget")
    budgets, others = model.budgets
    if budget not in budgets and budget not in others:
        text = f"The thinking budget {budget} is invalid. Please choose a value between {budgets[0]} and {budgets[-1]}."
        raise Refused(text, f"{path}.thinkingBudget")


def declarations(request: Request) -> list[FunctionDeclaration]:
    return [each for tool in request.tools for each in tool.function_declarations]


def _check_tools(request: Request) -> None:
    names: set[str] = set()
    for index, tool in enumerate(request.tools):
        for place, function in enumerate(tool.function_declarations):
            path = f"$.tools[{index}].functionDeclarations[{place}]"
            _check_function_name(function.name, f"{path}.name")
            if function.name in names:
                raise Refused(f"Duplicate function declaration found: {function.name}", f"{path}.name")
            names.add(function.name)
            if function.parameters is not None and function.parameters_json_schema is not None:
                raise Refused("parameters and parameters_json_schema are mutually exclusive", path)
            if function.parameters is not None:
                check_schema(function.parameters, f"{path}.parameters")
            _check_parameters(function.parameters_json_schema, f"{path}.parametersJsonSchema")


def _check_function_name(name: str, path: str) -> None:
    if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}", name):
        text = (
            "Invalid function name. Must start with a letter or an underscore. Must be alphanumeric, underscores, dots,"
        )
        raise Refused(f"{text} colons, or dashes, with a maximum length of 128.", path)


def _check_parameters(schema: Any, path: str) -> None:
    if schema is None:
        return
    if not (isinstance(schema, dict) and schema.get("type", "object") == "object"):
        raise Refused("parameters_json_schema must describe an object", path)
    check_json_schema(schema, path, schema)


def check_json_schema(schema: Any, path: str, root: dict[str, Any]) -> None:
    """Refuse what `parametersJsonSchema` and `responseJsonSchema` do not take: references that are not alone or lead
    nowhere, and types that are none; keywords that are not known are passed over."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise Refused("Invalid value: a schema is to be an object", path)
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if str(kind).upper() not in TYPES or kind != str(kind).lower():
            raise Refused(f"Invalid value at 'type': {kind!r}", f"{path}.type")
    if "$ref" in schema:
        _check_reference(schema, path, root)
    for place, each in _schemas_in(schema, path):
        check_json_schema(each, place, root)


def _check_reference(schema: dict[str, Any], path: str, root: dict[str, Any]) -> None:
    siblings = sorted(key for key in schema if not key.startswith("$"))
    if siblings:
        # https://ai.google.dev/api/generate-content#FIELDS.response_json_schema
        raise Refused(f"If $ref is set, no other properties may be set, but for those with a $: {siblings}", path)
    target: Any = root
    for step in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
        target = target.get(step) if isinstance(target, dict) and step else target
    if target is None:
        raise Refused(f"reference to an undefined schema: {schema['$ref']}", f"{path}.$ref")


def _schemas_in(schema: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key in ("properties", "$defs"):
        for name, each in schema.get(key, {}).items():
            yield f"{path}.{key}.{name}", each
    for key in ("anyOf", "oneOf", "prefixItems"):
        for index, each in enumerate(schema.get(key, [])):
            yield f"{path}.{key}[{index}]", each
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield f"{path}.{key}", schema[key]


SCHEMA_KEYS: Final = words(
    "type format title description nullable enum maxItems minItems properties required minProperties "
    "maxProperties minLength maxLength pattern example anyOf propertyOrdering default items minimum maximum"
)
TYPES: Final = ("STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL")


def check_schema(schema: Any, path: str) -> None:
    """Refuse what is not of the OpenAPI subset that `parameters` and `responseSchema` take."""
    if not isinstance(schema, dict):
        raise Refused("Invalid value: a schema is to be an object", path)
    for key in schema:
        if to_camel(key) not in SCHEMA_KEYS:
            raise _unknown_name(key, path)
    kind = schema.get("type")
    if isinstance(kind, list):
        raise Refused("Proto field is not repeating, cannot start list.", f"{path}.type")
    if kind is None and not (schema.get("anyOf") or schema.get("any_of")):
        raise Refused("type must be specified", f"{path}.type")
    if kind is not None and str(kind).upper() not in TYPES:
        raise Refused(f"Invalid value at 'type': {kind!r}", f"{path}.type")
    if any(not isinstance(each, str) for each in schema.get("enum", [])):
        raise Refused("Invalid value at 'enum': expected strings", f"{path}.enum")
    _check_members(schema, str(kind).upper(), path)


def _check_members(schema: dict[str, Any], kind: str, path: str) -> None:
    properties = schema.get("properties", {})
    if kind == "OBJECT" and "properties" in schema and not properties:
        raise Refused("should be non-empty for OBJECT type", f"{path}.properties")
    if kind == "ARRAY" and "items" not in schema:
        raise Refused("missing field", f"{path}.items")
    for name in schema.get("required", []):
        if name not in properties:
            raise Refused(f"required: property {name} is not defined", f"{path}.required")
    for name, each in properties.items():
        check_schema(each, f"{path}.properties.{name}")
    if "items" in schema:
        check_schema(schema["items"], f"{path}.items")
    for index, each in enumerate(schema.get("anyOf", schema.get("any_of", []))):
        check_schema(each, f"{path}.anyOf[{index}]")


def _unknown_name(name: str, path: str) -> Refused:
    return Refused(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.', f"{path}.{name}")


def _check_calling(request: Request) -> None:
    config = request.tool_config.function_calling_config if request.tool_config else None
    if config is None:
        return
    path = "$.toolConfig.functionCallingConfig"
    names = [each.name for each in declarations(request)]
    if not names:
        raise Refused("Function calling config is set without function_declarations.", path)
    if config.allowed_function_names and config.mode not in ("ANY", "VALIDATED"):
        raise Refused("allowed_function_names should only be set when mode is ANY or VALIDATED", path)
    for name in config.allowed_function_names:
        if name not in names:
            raise Refused(f"allowed_function_names holds {name}, which is not declared", f"{path}.allowedFunctionNames")


def _check_part(part: Part, model: Model, path: str) -> None:
    given = [name for name in DATA_FIELDS if getattr(part, name) is not None]
    if len(given) != 1:
        raise Refused("required oneof field 'data' must have one initialized field", path)
    if part.inline_data is not None:
        check_blob(part.inline_data, f"{path}.inlineData")
    if part.file_data is not None:
        _check_file(part.file_data, model, f"{path}.fileData")
    if part.function_call is not None:
        _check_function_name(part.function_call.name, f"{path}.functionCall.name")
        _check_id(part.function_call.id, model, f"{path}.functionCall")
    if part.function_response is not None:
        _check_response(part.function_response, model, f"{path}.functionResponse")


def check_blob(blob: Blob, path: str) -> None:
    if not re.fullmatch(r"(image|audio|video|application|text)/[\w.+-]+", blob.mime_type):
        raise Refused(f"Unsupported MIME type: {blob.mime_type}", f"{path}.mimeType")
    if not decode_base64(blob.data, is_urlsafe=True):
        raise Refused("Invalid value (TYPE_BYTES), Base64 decoding failed", f"{path}.data")


def _check_file(file: FileData, model: Model, path: str) -> None:
    if file.file_uri.startswith(("gs://", "https://generativelanguage.googleapis.com/", "https://www.youtube.com/")):
        return
    if not file.file_uri.startswith(("http://", "https://")):
        raise Refused("Unsupported file uri", f"{path}.fileUri")
    if model.version < (2, 5):
        raise Refused(f"Unsupported file uri: {model.name} does not fetch URLs", f"{path}.fileUri")
    if file.mime_type is None:
        raise Refused("mime_type: must be specified", f"{path}.mimeType")


def _check_id(value: str | None, model: Model, path: str) -> None:
    if value is not None and not model.takes_ids:
        raise _unknown_name("id", path)


def _check_response(response: FunctionResponse, model: Model, path: str) -> None:
    _check_id(response.id, model, path)
    if not response.name:
        raise Refused("function_response.name: Name cannot be empty.", f"{path}.name")
    if response.parts and not model.is_3:
        raise _unknown_name("parts", path)
    for index, part in enumerate(response.parts):
        if part.inline_data is not None:
            check_blob(part.inline_data, f"{path}.parts[{index}].inlineData")


def calls_of(content: Content) -> list[Part]:
    return [part for part in content.parts if part.function_call is not None]


def responses_of(content: Content) -> list[FunctionResponse]:
    return [part.function_response for part in content.parts if part.function_response is not None]


def _check_call_turns(contents: list[Content]) -> None:
    """Let calls be followed by a content of their responses: all of them, and no text."""
    waiting: list[Part] = []
    for index, content in enumerate(contents):
        path = f"$.contents[{index}]"
        calls, responses = calls_of(content), responses_of(content)
        if calls and content.role != "model":
            raise Refused("function calls are only allowed in contents of role model", path)
        if responses and content.role != "user":
            raise Refused("function responses are only allowed in contents of role user", path)
        if responses or (waiting and content.role == "user"):
            _check_answered(waiting, responses, path)
            waiting = []
        if responses and any(part.text is not None for part in content.parts):
            # Worse than a refusal: the real one answers badly. Media are welcome here: Gemini CLI sends them so.
            raise Refused("function responses must not share their content with text", path)
        if calls and index == 0:
            text = (
                "Please ensure that function call turn comes immediately after a user turn or after a function response"
            )
            raise Refused(f"{text} turn.", path)
        waiting += calls
    if waiting and contents[-1].role == "model":
        raise Refused("function calls must be followed by their function responses", "$.contents")


def _check_answered(waiting: list[Part], responses: list[FunctionResponse], path: str) -> None:
    if len(responses) != len(waiting):
        text = (
            "Please ensure that the number of function response parts is equal to the number of function call parts of"
        )
        raise Refused(f"{text} the function call turn ({len(responses)}, {len(waiting)}).", path)
    calls = [part.function_call for part in waiting if part.function_call]
    if sorted(each.name for each in responses) != sorted(call.name for call in calls):
        raise Refused("the names of function responses must be those of the calls", path)
    ids = {call.id for call in calls}
    for each in responses:
        if each.id is not None and each.id not in ids:
            raise Refused(f"function response id {each.id} is not that of a call", path)


def _check_signatures(contents: list[Content]) -> None:
    """Let every signature be one of ours, on the part it was made for, and on no other."""
    seen: set[str] = set()
    for index, content in enumerate(contents):
        for place, part in enumerate(content.parts):
            if part.thought_signature is None:
                continue
            path = f"$.contents[{index}].parts[{place}].thoughtSignature"
            raw = decode_base64(part.thought_signature, is_urlsafe=True)
            if raw is None:
                raise Refused("Invalid value (TYPE_BYTES), Base64 decoding failed", path)
            seal = raw.decode(errors="replace")
            if PLACEHOLDER in (seal, part.thought_signature):
                continue
            holder = part.function_call.name if part.function_call else "text"
            if not is_seal(seal, "gemini", holder):
                raise Refused("Corrupted thought signature.", path)
            if seal in seen:
                raise Refused("Thought signature is used twice.", path)
            seen.add(seal)


def _check_signed_steps(contents: list[Content]) -> None:
    """Let the first call of each step in the current turn bring its signature."""
    starts = [index for index, each in enumerate(contents) if each.role == "user" and not responses_of(each)]
    is_first = True
    for index in range(starts[-1] if starts else 0, len(contents)):
        content = contents[index]
        if content.role == "user":
            is_first = True
            continue
        for call in calls_of(content):
            if is_first and call.thought_signature is None:
                name = call.function_call.name if call.function_call else ""
                text = f"Function call is missing a thought_signature in functionCall parts: {name}"
                raise Refused(text, f"$.contents[{index}]")
            is_first = False
