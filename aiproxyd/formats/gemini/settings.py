"""What a request says beside its conversation: https://ai.google.dev/api/generate-content#v1beta.GenerationConfig.

Tools, the choice among them, tuning, reasoning, the form of the answer. Sans-I/O.
"""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from aiproxyd.capabilities import Capabilities, Effort
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL, name_members
from aiproxyd.formats.codec import Losses, refuse
from aiproxyd.formats.gemini.schemas import from_json_schema, from_openapi, write_parameters, write_schema
from aiproxyd.formats.gemini.wire import NAME, decode_at
from aiproxyd.hub import OutputFormat, ReasoningControl, Request, ServerTool, Tool, ToolChoice

MAX_CANDIDATES: Final = 8
"""The largest ``candidateCount`` of the API."""
MAX_STOPS: Final = 5
"""The most ``stopSequences`` of the API."""

CONFIG_PATH: Final = "$.generationConfig"
JSON_TYPE: Final = "application/json"
_ENUM_TYPE: Final = "text/x.enum"


class ThinkingConfig(Struct, rename="camel", omit_defaults=True):
    """How much to think."""

    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    """0: not at all, -1: as the model likes."""
    thinking_level: str | None = None


class GenerationConfig(Struct, rename="camel", omit_defaults=True):
    """Tuning, and the form of the answer."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool | None = None
    logprobs: int | None = None
    response_mime_type: str | None = None
    response_schema: Raw = NULL
    response_json_schema: Raw = NULL
    response_modalities: list[str] | None = None
    thinking_config: ThinkingConfig | None = None


class FunctionDeclaration(Struct, rename="camel", omit_defaults=True):
    """A function that the caller offers."""

    name: str
    description: str | None = None
    parameters: Raw = NULL
    parameters_json_schema: Raw = NULL


class FunctionCallingConfig(Struct, rename="camel", omit_defaults=True):
    """Which functions the model may or must call."""

    mode: str | None = None
    allowed_function_names: list[str] | None = None


class ToolConfig(Struct, rename="camel", omit_defaults=True):
    """How the tools are to be used."""

    function_calling_config: FunctionCallingConfig | None = None


_KNOWN: Final = frozenset(field.encode_name for field in msgspec.structs.fields(GenerationConfig))
_EFFORTS: Final[dict[str, Effort]] = {
    "MINIMAL": "minimal",
    "LOW": "low",
    "MEDIUM": "medium",
    "HIGH": "high",
    "XHIGH": "xhigh",
}
_LEVELS: Final[dict[Effort, str]] = {effort: level for level, effort in _EFFORTS.items()} | {"max": "HIGH"}
_MODES: Final[dict[str, Literal["auto", "none", "required"] | None]] = {
    "": None,
    "MODE_UNSPECIFIED": None,
    "AUTO": "auto",
    "VALIDATED": "auto",
    "ANY": "required",
    "NONE": "none",
}
_TIERS: Final = {"": "", "unspecified": "", "standard": "default", "flex": "flex", "priority": "priority"}
_TIERS_WRITTEN: Final = {
    "default": "standard",
    "standard": "standard",
    "standard_only": "standard",
    "flex": "flex",
    "priority": "priority",
    "fast": "priority",
}
_WEB_SEARCH: Final = "web_search"
_SEARCHES: Final = frozenset(("googleSearch", "googleSearchRetrieval"))

_config: Final = msgspec.json.Decoder(GenerationConfig)
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_tools: Final = msgspec.json.Decoder(list[dict[str, Raw]])
_declarations: Final = msgspec.json.Decoder(list[FunctionDeclaration] | None)
_tool_config: Final = msgspec.json.Decoder(ToolConfig)
_text: Final = msgspec.json.Decoder(str)


def given(raw: Raw) -> bool:
    """Tell whether *raw* says anything: an empty list, as LangChain sends it, does not."""
    return len(raw) > len(NULL) or bytes(raw) not in (b"null", b"[]", b"{}")


# --- From a caller


def read_tools(raw: Raw, request: Request) -> None:
    """Put the functions and the server tools that are offered into *request*.

    Raises:
        InvalidRequest: misshapen; ``param`` has the path.
    """
    tools = decode_at(_tools, raw, "$.tools")
    for index, fields in enumerate(tools):
        for key, value in fields.items():
            if key == "functionDeclarations":
                path = f"$.tools[{index}].{key}"
                declarations = decode_at(_declarations, value, path) or ()
                request.tools.extend(map(_read_function, declarations))
            elif value != NULL:
                request.server_tools.append(_read_server_tool(key, value))


def _read_server_tool(key: str, value: Raw) -> ServerTool:
    raw = Raw(b"{%s:%s}" % (msgspec.json.encode(key), bytes(value)))
    return ServerTool(_WEB_SEARCH if key in _SEARCHES else key, NAME, raw, name_members(value))


def _read_function(declaration: FunctionDeclaration) -> Tool:
    schema: Raw | None = None
    if declaration.parameters_json_schema != NULL:
        schema = from_json_schema(declaration.parameters_json_schema)
    elif declaration.parameters != NULL:
        schema = from_openapi(declaration.parameters)
    return Tool(name=declaration.name, description=declaration.description or "", schema=schema)


def read_tool_choice(raw: Raw, request: Request) -> None:
    """Put which tools may be called into *request*.

    Raises:
        InvalidRequest: misshapen; ``param`` has the path.
    """
    config = decode_at(_tool_config, raw, "$.toolConfig").function_calling_config
    extras = {key: value for key, value in _fields.decode(raw).items() if key != "functionCallingConfig"}
    request.extensions |= {f"toolConfig.{key}": value for key, value in extras.items() if given(value)}
    if config is None:
        return
    word = (config.mode or "").upper()
    if word not in _MODES:
        raise InvalidRequest(f"unknown mode: {config.mode!r}", param="$.toolConfig.functionCallingConfig.mode")
    if (mode := _MODES[word]) is not None:
        request.tool_choice = ToolChoice(mode, tuple(config.allowed_function_names or ()) or None)


def read_tier(raw: Raw, request: Request) -> None:
    """Put the service tier into *request*.

    Raises:
        InvalidRequest: unknown; ``param`` has the path.
    """
    word = decode_at(_text, raw, "$.serviceTier").lower()
    if word not in _TIERS:
        raise InvalidRequest(f"unknown service tier: {word!r}", param="$.serviceTier")
    request.service_tier = _TIERS[word]


def read_config(raw: Raw, request: Request) -> None:
    """Put what a generationConfig says into *request*.

    Raises:
        InvalidRequest: misshapen, or more than any other format could carry; ``param`` has the path.
    """
    config = decode_at(_config, raw, CONFIG_PATH)
    extras = {key: value for key, value in _fields.decode(raw).items() if key not in _KNOWN and given(value)}
    if "responseFormat" in extras:
        raise _unsupported("responseFormat", "use responseMimeType and responseJsonSchema")
    if any(modality.upper() != "TEXT" for modality in config.response_modalities or ()):
        raise _unsupported("responseModalities", "only text can be asked for")
    request.extensions |= extras
    request.max_output_tokens = config.max_output_tokens
    request.temperature = config.temperature
    request.top_p = config.top_p
    request.top_k = int(config.top_k) if config.top_k is not None else None
    request.stop = config.stop_sequences or []
    request.candidates = max(config.candidate_count or 1, 1)
    request.seed = config.seed
    request.presence_penalty = config.presence_penalty
    request.frequency_penalty = config.frequency_penalty
    request.logprobs = bool(config.response_logprobs)
    request.top_logprobs = config.logprobs
    request.output = _read_output(config)
    if config.thinking_config is not None:
        request.reasoning = _read_reasoning(config.thinking_config)


def _read_output(config: GenerationConfig) -> OutputFormat | None:
    if config.response_mime_type == _ENUM_TYPE:
        # Others could only be asked for a JSON string: the same word, but in quotes.
        raise _unsupported("responseMimeType", "ask for application/json, of an object with the choice as a property")
    if config.response_json_schema != NULL:
        return OutputFormat(schema=from_json_schema(config.response_json_schema))
    if config.response_schema != NULL:
        return OutputFormat(schema=from_openapi(config.response_schema))
    match config.response_mime_type:
        case None | "" | "text/plain":
            return None
        case "application/json":
            return OutputFormat()
        case _:
            raise _unsupported("responseMimeType", "write text/plain or application/json")


def _read_reasoning(config: ThinkingConfig) -> ReasoningControl:
    budget, level = config.thinking_budget, (config.thinking_level or "").upper()
    if level not in _EFFORTS and level not in ("", "THINKING_LEVEL_UNSPECIFIED"):
        raise _unsupported("thinkingConfig.thinkingLevel", f"write one of {', '.join(_EFFORTS)}")
    effort = _EFFORTS.get(level)
    if effort is not None and budget is not None:
        raise _unsupported("thinkingConfig", "write a thinkingBudget or a thinkingLevel, not both")
    if budget is None and effort is None:
        return ReasoningControl(show=config.include_thoughts)
    return ReasoningControl(
        mode="off" if budget == 0 else "on",
        effort=effort,
        budget_tokens=budget if budget is not None and budget > 0 else None,
        show=config.include_thoughts,
    )


def _unsupported(name: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"this {name} is not supported: {hint}", param=f"{CONFIG_PATH}.{name}")


# --- To an upstream


def write_tools(request: Request) -> Iterator[dict[str, list[FunctionDeclaration]] | Raw]:
    """Yield the tools that *request* offers."""
    if request.tools:
        yield {"functionDeclarations": [_write_function(tool) for tool in request.tools]}
    for tool in request.server_tools:
        yield tool.raw if tool.origin == NAME else Raw(b'{"googleSearch":{}}')


def _write_function(tool: Tool) -> FunctionDeclaration:
    schema = write_parameters(tool.schema) if tool.schema is not None else None
    return FunctionDeclaration(tool.name, tool.description or None, parameters_json_schema=schema or NULL)


def write_tool_choice(choice: ToolChoice) -> ToolConfig:
    """Return the toolConfig that says *choice*."""
    # Names go only with ANY and VALIDATED; the latter is AUTO, but for the arguments' being held to their schema.
    modes = {"none": "NONE", "required": "ANY", "auto": "VALIDATED" if choice.names else "AUTO"}
    names = list(choice.names) if choice.names else None
    return ToolConfig(FunctionCallingConfig(modes[choice.mode], names))


def write_tier(tier: str, losses: Losses) -> str | None:
    """Return the service tier in Gemini's words."""
    word = _TIERS_WRITTEN.get(tier)
    if word is None and tier not in ("", "auto"):
        losses.drop("service_tier")
    return word


def write_config(request: Request, capabilities: Capabilities) -> GenerationConfig:
    """Return the generationConfig of *request*.

    Raises:
        InvalidRequest: more candidates or stop sequences than the API takes.
    """
    if len(request.stop) > MAX_STOPS:
        raise InvalidRequest(f"this model takes no more than {MAX_STOPS} stop sequences")
    if request.candidates > MAX_CANDIDATES:
        raise refuse(f"a wish for more than {MAX_CANDIDATES} answers", NAME)
    output = request.output
    return GenerationConfig(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        candidate_count=request.candidates if request.candidates > 1 else None,
        max_output_tokens=request.max_output_tokens,
        stop_sequences=request.stop or None,
        seed=_fold_seed(request.seed),
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        response_logprobs=request.logprobs or None,
        logprobs=request.top_logprobs if request.logprobs else None,
        response_mime_type=JSON_TYPE if output is not None else None,
        response_json_schema=write_schema(output.schema) if output is not None and output.schema is not None else NULL,
        thinking_config=_write_reasoning(request.reasoning, capabilities),
    )


def _fold_seed(seed: int | None) -> int | None:
    """Return *seed* in the 32 bits that Gemini has for it: the same one for the same one."""
    return seed if seed is None or -(2**31) <= seed < 2**31 else seed % 2**31


def _write_reasoning(reasoning: ReasoningControl, capabilities: Capabilities) -> ThinkingConfig | None:
    match capabilities.reasoning:
        case "level":
            config = ThinkingConfig(thinking_level=_find_level(reasoning, capabilities))
        case "budget":
            config = ThinkingConfig(thinking_budget=_find_budget(reasoning, capabilities))
        case _:
            return None
    if reasoning.mode != "off":
        config.include_thoughts = reasoning.show
    return config if config != ThinkingConfig() else None


def _find_level(reasoning: ReasoningControl, capabilities: Capabilities) -> str | None:
    effort = capabilities.efforts[0] if reasoning.mode == "off" else reasoning.effort
    return _LEVELS[effort] if effort is not None else None


def _find_budget(reasoning: ReasoningControl, capabilities: Capabilities) -> int | None:
    if reasoning.mode == "off":
        return 0 if capabilities.can_stop_reasoning else capabilities.min_budget_tokens
    return reasoning.budget_tokens
