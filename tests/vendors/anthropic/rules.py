"""What Anthropic refuses, one function a rule. No I/O."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from tests.vendors.anthropic.wire import (
    Adaptive,
    Base64Source,
    BetweenTools,
    Block,
    CacheControl,
    Disabled,
    Document,
    Enabled,
    Image,
    Message,
    Named,
    RedactedThinking,
    Request,
    Required,
    SearchResult,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
)
from tests.vendors.seals import decode_base64, is_seal
from tests.vendors.vendor import Refused, walk, words

VERSIONS: Final = ("2023-06-01", "2026-10-21")
NEWEST: Final = "2026-10-21"
IMAGES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
OPAQUE: Final = frozenset({"input", "input_schema", "schema", "input_examples"})
"""Keys under which the caller's own objects stand."""
NULLABLE: Final = words(
    "cache_control caller citations container context diagnostics display eager_input_streaming effort format "
    "inference_geo retrieved_at speed title toolset_name user_id previous_message_id page_age ttl error"
)
ALWAYS_THINK: Final = ("fable", "mythos")
BETA_FIELDS: Final = (
    "context_management",
    "compaction",
    "fallbacks",
    "fallback_credit_token",
    "mcp_servers",
    "billing_policy",
    "safeguards",
)


class Model(NamedTuple):
    """What a model's name says about it."""

    name: str
    family: str
    version: tuple[int, int]

    @property
    def has_sampling(self) -> bool:
        return self.version <= (4, 6)

    @property
    def has_prefill(self) -> bool:
        return self.version <= (4, 5)

    @property
    def has_late_system(self) -> bool:
        return self.version >= (5, 0) or (self.family == "opus" and self.version >= (4, 8))

    @property
    def has_forcing(self) -> bool:
        return not (self.version >= (5, 5) and self.family in ("sonnet", "opus")) and self.family not in ALWAYS_THINK

    @property
    def thinks_by_default(self) -> bool:
        return self.version >= (5, 0)

    @property
    def thinking_types(self) -> set[type]:
        types: set[type] = {Enabled} if self.version <= (4, 6) else set()
        if self.version >= (4, 6):
            types.add(Adaptive)
        if (self.family, self.version) == ("sonnet", (5, 5)):
            types.add(BetweenTools)
        elif (self.family, self.version) != ("opus", (5, 5)) and self.family not in ALWAYS_THINK:
            types.add(Disabled)
        return types

    @property
    def efforts(self) -> tuple[str, ...]:
        if self.version >= (4, 7):
            return ("low", "medium", "high", "xhigh", "max")
        if self.version == (4, 6):
            return ("low", "medium", "high", "max")
        return ("low", "medium", "high") if (self.family, self.version) == ("opus", (4, 5)) else ()

    @property
    def max_output_tokens(self) -> int:
        return 64_000 if self.version <= (4, 5) else 128_000


def find_model(name: str) -> Model:
    match = re.fullmatch(r"claude-(?:([a-z]+)-)?(\d)(?:-(\d{1,2}))?(?:-([a-z]+))?(?:-(?:\d{8}|latest))?", name)
    if match is None:
        raise Refused(f"model: {name}", "$.model", status=404)
    return Model(name, match[1] or match[4] or "", (int(match[2]), int(match[3] or 0)))


def check_version(version: str | None) -> None:
    if version is None:
        raise Refused("anthropic-version: header is required")
    if version not in VERSIONS:
        raise Refused(f"anthropic-version: {version!r} is not a known version")


def check_nulls(body: Any) -> None:
    for path, key, value in walk(body, "$", OPAQUE):
        if value is None and key not in NULLABLE:
            raise Refused("Input should not be null", path)


def check_beta_fields(body: dict[str, Any], beta: str | None) -> None:
    for name in BETA_FIELDS:
        if name in body and not beta:
            raise Refused(f"{name}: Extra inputs are not permitted without its anthropic-beta", f"$.{name}")
    if "thread" in body:
        raise Refused("thread: threads are not supported", "$.thread", code="thread_unsupported_request")


def check_request(request: Request, version: str) -> Model:
    model = find_model(request.model)
    _check_limits(request, model)
    _check_sampling(request, model, version)
    _check_thinking(request, model)
    _check_tools(request)
    _check_tool_choice(request, model)
    _check_cache_marks(request)
    _check_format(request)
    for path, text in _texts(request):
        if not text.strip():
            raise Refused("text content blocks must be non-empty and contain non-whitespace text", path)
    _check_roles(request, model)
    for index, message in enumerate(request.messages):
        _check_blocks(message, f"$.messages[{index}]", version)
    _check_tool_turns(request)
    _check_signed_turn(request)
    return model


def _check_limits(request: Request, model: Model) -> None:
    if not 0 <= request.max_tokens <= model.max_output_tokens:
        limit = f"{request.max_tokens} > {model.max_output_tokens}, the maximum for {model.name}"
        raise Refused(f"max_tokens: {limit}", "$.max_tokens")
    for index, sequence in enumerate(request.stop_sequences):
        if not sequence.strip():
            raise Refused("stop_sequences: each must contain non-whitespace", f"$.stop_sequences[{index}]")
    if request.metadata and re.search(r"[\w.]+@[\w-]+\.\w", request.metadata.user_id or ""):
        raise Refused("metadata.user_id: appears to contain an email address", "$.metadata.user_id")


def _check_sampling(request: Request, model: Model, version: str) -> None:
    knobs = {"temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k}
    given = {key: value for key, value in knobs.items() if value is not None}
    for key, value in given.items():
        if version == NEWEST:
            raise Refused(f"{key}: is not accepted by version {version}", f"$.{key}")
        if not model.has_sampling and value != 1:
            raise Refused(f"{key}: only its default is accepted by {model.name}", f"$.{key}")
        if key != "top_k" and not 0 <= value <= 1:
            raise Refused(f"{key}: must be between 0 and 1", f"$.{key}")
    if len(given.keys() & {"temperature", "top_p"}) == 2 and model.version[0] == 4:
        raise Refused("temperature and top_p cannot both be specified for this model", "$.top_p")
    if isinstance(request.thinking, Enabled | Adaptive) and (given.get("temperature", 1) != 1 or "top_k" in given):
        raise Refused("temperature may only be set to 1, and top_k not at all, when thinking is on", "$.temperature")


def _check_thinking(request: Request, model: Model) -> None:
    if request.thinking is not None and type(request.thinking) not in model.thinking_types:
        kind = type(request.thinking).__struct_config__.tag
        raise Refused(f"thinking.type: {kind} is not supported by {model.name}", "$.thinking.type")
    if isinstance(request.thinking, Enabled):
        _check_budget(request.thinking.budget_tokens, request.max_tokens)
    effort = request.output_config.effort if request.output_config else None
    if effort is not None and effort not in model.efforts:
        text = f"output_config.effort: {effort} is not supported by {model.name}, only {model.efforts}"
        raise Refused(text, "$.output_config.effort")
    if isinstance(request.thinking, Disabled) and effort in ("xhigh", "max") and model.thinks_by_default:
        raise Refused(f"thinking.type: disabled is not supported with effort {effort}", "$.thinking.type")


def _check_budget(budget: int, max_tokens: int) -> None:
    path = "$.thinking.budget_tokens"
    if budget < 1024:
        raise Refused("thinking.budget_tokens: should be at least 1024", path)
    if budget >= max_tokens:
        raise Refused("max_tokens must be greater than thinking.budget_tokens", path)


def _names(request: Request) -> list[str]:
    return [tool.name if isinstance(tool, Tool) else str(tool.get("name")) for tool in request.tools]


def _check_tools(request: Request) -> None:
    names = _names(request)
    for index, tool in enumerate(request.tools):
        path = f"$.tools[{index}]"
        if isinstance(tool, Tool):
            _check_name(tool.name, f"{path}.name")
            if tool.input_schema.get("type") != "object":
                raise Refused("input_schema.type: Input should be 'object'", f"{path}.input_schema")
            if tool.strict:
                check_schema(tool.input_schema, f"{path}.input_schema")
        if names.count(names[index]) > 1:
            raise Refused("tools: Tool names must be unique", f"{path}.name")


def _check_tool_choice(request: Request, model: Model) -> None:
    choice = request.tool_choice
    if choice is not None and not request.tools:
        raise Refused("tool_choice may only be specified while providing tools", "$.tool_choice")
    if isinstance(choice, Named) and choice.name not in _names(request):
        raise Refused(f"Tool '{choice.name}' not found in provided tools", "$.tool_choice.name")
    if isinstance(choice, Named | Required):
        if not model.has_forcing:
            raise Refused(f"tool_choice: {model.name} does not accept forced tool use", "$.tool_choice")
        if _thinks(request, model):
            raise Refused("Thinking may not be enabled when tool_choice forces tool use", "$.tool_choice")


def _thinks(request: Request, model: Model) -> bool:
    return model.thinks_by_default if request.thinking is None else not isinstance(request.thinking, Disabled)


def _check_name(name: str, path: str) -> None:
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", name):
        raise Refused("String should match pattern '^[a-zA-Z0-9_-]{1,128}$'", path)


def _check_cache_marks(request: Request) -> None:
    marks = [request.cache_control, *_marks(request.tools), *_marks(request.system)]
    for message in request.messages:
        marks += _marks(message.content)
    count = sum(mark is not None for mark in marks)
    if count > 4:
        raise Refused(f"A maximum of 4 blocks with cache_control may be provided. Found {count}.", "$")


def _marks(blocks: object) -> Iterator[CacheControl | None]:
    for block in blocks if isinstance(blocks, list) else []:
        yield block.get("cache_control") if isinstance(block, dict) else getattr(block, "cache_control", None)
        if isinstance(block, ToolResult):
            yield from _marks(block.content)


def _check_format(request: Request) -> None:
    if request.output_config and request.output_config.format:
        check_schema(request.output_config.format.schema, "$.output_config.format.schema")


UNSUPPORTED: Final = words(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems uniqueItems "
    "contains prefixItems minProperties maxProperties patternProperties propertyNames if then else not oneOf "
    "$schema"
)


def check_schema(schema: Any, path: str) -> None:
    """Refuse what structured output and strict tools cannot keep to."""
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        raise Refused("For 'object' type, 'additionalProperties' must be explicitly set to false", path)
    for key in schema.keys() & UNSUPPORTED:
        raise Refused(f"For '{schema.get('type')}' type, property '{key}' is not supported", f"{path}.{key}")
    if schema.get("minItems", 0) > 1:
        raise Refused("For 'array' type, 'minItems' values other than 0 or 1 are not supported", f"{path}.minItems")
    for place, each in _schemas_in(schema, path):
        check_schema(each, place)


def _schemas_in(schema: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key in ("properties", "$defs", "definitions"):
        for name, each in schema.get(key, {}).items():
            yield f"{path}.{key}.{name}", each
    for key in ("anyOf", "allOf"):
        for index, each in enumerate(schema.get(key, [])):
            yield f"{path}.{key}[{index}]", each
    yield f"{path}.items", schema.get("items")


def _texts(request: Request) -> Iterator[tuple[str, str]]:
    if isinstance(request.system, list):
        yield from _texts_in(request.system, "$.system")
    for index, message in enumerate(request.messages):
        path = f"$.messages[{index}].content"
        if isinstance(message.content, list):
            yield from _texts_in(message.content, path)
        elif message.role != "assistant" or index < len(request.messages) - 1:
            yield path, message.content


def _texts_in(blocks: Iterable[object], path: str) -> Iterator[tuple[str, str]]:
    for index, block in enumerate(blocks):
        match block:
            case Text(text=text):
                yield f"{path}[{index}].text", text
            case ToolResult(content=list() as content) | SearchResult(content=content):
                yield from _texts_in(content, f"{path}[{index}].content")
            case _:
                pass


def _check_roles(request: Request, model: Model) -> None:
    messages = request.messages
    if not messages:
        raise Refused("messages: at least one message is required", "$.messages")
    if messages[0].role != "user":
        raise Refused("messages: first message must use the user role", "$.messages[0].role")
    for index, message in enumerate(messages):
        path = f"$.messages[{index}]"
        after = messages[index + 1].role if index + 1 < len(messages) else None
        if not message.content and (after, message.role) != (None, "assistant"):
            raise Refused("all messages must have non-empty content except for the final assistant message", path)
        if message.role == "system":
            _check_late_system(messages[index - 1].role, after, model, path)
    if messages[-1].role == "assistant":
        path = f"$.messages[{len(messages) - 1}]"
        if not model.has_prefill:
            raise Refused(f"{model.name} does not support assistant message prefill", path)
        _check_prefill(messages[-1].blocks(), path)


def _check_late_system(before: str, after: str | None, model: Model, path: str) -> None:
    if not model.has_late_system:
        raise Refused(f"role 'system' is not supported by {model.name}", f"{path}.role")
    if before != "user" or after not in ("assistant", None):
        raise Refused("a system message is to stand behind a user's and before an assistant's, or last", path)


def _check_prefill(blocks: list[Block], path: str) -> None:
    if blocks and isinstance(blocks[-1], Text) and blocks[-1].text != blocks[-1].text.rstrip():
        raise Refused("final assistant content cannot end with trailing whitespace", path)
    if any(isinstance(block, Thinking | RedactedThinking) for block in blocks):
        raise Refused("final assistant content cannot hold thinking", path)


def _check_blocks(message: Message, path: str, version: str) -> None:
    for index, block in enumerate(message.blocks()):
        place = f"{path}.content[{index}]"
        _check_place(block, message.role, place, version)
        match block:
            case Thinking() | RedactedThinking():
                _check_seal(block, place)
            case ToolUse():
                _check_name(block.name, f"{place}.name")
                if not re.fullmatch(r"[a-zA-Z0-9_-]+", block.id):
                    raise Refused("String should match pattern '^[a-zA-Z0-9_-]+$'", f"{place}.id")
            case Text(citations=list() as citations):
                _check_citations(citations, f"{place}.citations")
            case ToolResult(content=list() as parts):
                for part in parts:
                    _check_media(part, f"{place}.content")
            case _:
                _check_media(block, place)


def _check_seal(block: Thinking | RedactedThinking, path: str) -> None:
    if isinstance(block, Thinking) and not is_seal(block.signature, "anthropic", block.thinking):
        raise Refused("Invalid `signature` in `thinking` block", f"{path}.signature")
    if isinstance(block, RedactedThinking) and not is_seal(block.data, "anthropic", "redacted"):
        raise Refused("Invalid `data` in `redacted_thinking` block", f"{path}.data")


def _check_citations(citations: list[Any], path: str) -> None:
    for index, citation in enumerate(citations):
        seal = citation.get("encrypted_index", "")
        if citation["type"] == "web_search_result_location" and not is_seal(seal, "anthropic", citation["url"]):
            raise Refused("Invalid `encrypted_index` in `citations`", f"{path}[{index}].encrypted_index")


def _check_place(block: Block, role: str, path: str, version: str) -> None:
    is_wrong = {
        "user": isinstance(block, Thinking | RedactedThinking | ToolUse),
        "assistant": isinstance(block, Image | ToolResult) or (isinstance(block, Document) and version == NEWEST),
        "system": not isinstance(block, Text),
    }
    if is_wrong[role]:
        raise Refused(f"a {type(block).__name__} block cannot be in a message of role {role}", path)
    if role == "user" and version == NEWEST and isinstance(block, Text) and block.citations is not None:
        raise Refused("citations are not accepted in user text", f"{path}.citations")


def _check_media(block: object, path: str) -> None:
    if not isinstance(block, Image | Document) or not isinstance(block.source, Base64Source):
        return
    allowed = IMAGES if isinstance(block, Image) else ("application/pdf",)
    if block.source.media_type not in allowed:
        raise Refused(f"source.base64.media_type: Input should be one of {allowed}", f"{path}.source.media_type")
    if not decode_base64(block.source.data):
        raise Refused("source.base64.data: not valid base64 data", f"{path}.source.data")


def _check_tool_turns(request: Request) -> None:
    """Let every use have its result in the very next turn, first and once, and every result its use."""
    used: set[str] = set()
    open_ids: list[str] = []
    for index, (role, blocks) in enumerate(_merge_turns(request.messages)):
        place = f"$.messages, turn {index}"
        _check_results(blocks, open_ids, place)
        open_ids = [block.id for block in blocks if isinstance(block, ToolUse)] if role == "assistant" else []
        if used & set(open_ids) or len(set(open_ids)) < len(open_ids):
            raise Refused("`tool_use` ids must be unique", place)
        used |= set(open_ids)
    if open_ids:
        raise Refused(f"`tool_use` without `tool_result` immediately after: {', '.join(open_ids)}", "$.messages")
    if used and not request.tools:
        raise Refused("requests that hold `tool_use` blocks must define tools", "$.tools")


def _check_results(blocks: list[Block], open_ids: list[str], path: str) -> None:
    results = [block.tool_use_id for block in blocks if isinstance(block, ToolResult)]
    for each in results:
        if each not in open_ids:
            raise Refused(f"unexpected `tool_use_id` in `tool_result` block: {each}; no such use before", path)
        if results.count(each) > 1:
            raise Refused(f"each tool_use must have a single result. Found several for {each}", path)
    if missing := [each for each in open_ids if each not in results]:
        raise Refused(f"`tool_use` without `tool_result` immediately after: {', '.join(missing)}", path)
    if any(isinstance(block, ToolResult) for block in blocks[len(results) :]):
        raise Refused("`tool_result` blocks must come first in their turn", path)


def _merge_turns(messages: list[Message]) -> list[tuple[str, list[Block]]]:
    turns: list[tuple[str, list[Block]]] = []
    for message in messages:
        if turns and turns[-1][0] == message.role:
            turns[-1][1].extend(message.blocks())
        else:
            turns.append((message.role, list(message.blocks())))
    return turns


def _check_signed_turn(request: Request) -> None:
    """Let the last turn with tools begin with its thought, where thinking has a budget."""
    turns = _merge_turns(request.messages)
    if not isinstance(request.thinking, Enabled) or not any(isinstance(block, ToolResult) for block in turns[-1][1]):
        return
    if not isinstance(turns[-2][1][0], Thinking | RedactedThinking):
        raise Refused(
            "Expected `thinking` or `redacted_thinking`, but found something else: when `thinking` is enabled, "
            "a final `assistant` message must start with a thinking block",
            f"$.messages, turn {len(turns) - 2}",
        )
