"""Requests of the Messages API: https://docs.anthropic.com/en/api/messages. Sans-I/O."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, assert_never

import msgspec
from msgspec import Raw

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.anthropic import schemas, wire
from aiproxyd.formats.anthropic.blocks import BlockWriter, inside, read_blocks, read_mark, read_object, read_text
from aiproxyd.formats.anthropic.wire import NAME, WrittenBlock, encode
from aiproxyd.formats.base import NULL, check_text, decode_body, name_members
from aiproxyd.formats.codec import Losses, refuse
from aiproxyd.formats.members import Direct, Known, KnownFields
from aiproxyd.hub import (
    Opaque,
    OutputFormat,
    ReasoningControl,
    Request,
    ServerTool,
    Text,
    Tool,
    ToolChoice,
    Turn,
    arrange,
)
from aiproxyd.splice import JSON_ERRORS

BILLING_HEADER: Final = "x-anthropic-billing-header:"
"""Begins a system block that Claude Code writes for Anthropic's accounting, anew for each kind of request."""

_body: Final = msgspec.json.Decoder(wire.MessagesBody)
_fields: Final = msgspec.json.Decoder(dict[str, Raw])
_tool: Final = msgspec.json.Decoder(wire.ToolParam)

_KNOWN: Final = frozenset((*wire.MessagesBody.__struct_fields__, "cache_control"))
"""Fields that are read, and one that nobody misses: mark the prompt for the cache where it ends."""
_BLOCK: Final = "type text title context citations cache_control transformations thinking signature data id name input \
tool_use_id is_error tool_name"
_KINDS: Final = "text image document search_result thinking redacted_thinking tool_use tool_result tool_reference"
_SOURCE: Final = "type media_type data url file_id"
_PARTS: Final = Known(_BLOCK, kinds=_KINDS, source=Known(_SOURCE), content=Known(_BLOCK, kinds=_KINDS))
"""What stands in tool results and in documents; the innermost are the texts of search results."""
_BLOCKS: Final = Known(
    _BLOCK, kinds=_KINDS, usual={"caller": Direct}, source=Known(_SOURCE, content=_PARTS), content=_PARTS
)
_FORMAT: Final = Known("type schema")

_KNOWN_INSIDE: Final = KnownFields(
    turns=("messages", "system"),
    system=_BLOCKS,
    messages=Known("role", content=_BLOCKS),
    # How calls and tools travel is not what they mean.
    tools=Known(
        "type name description input_schema strict cache_control defer_loading eager_input_streaming",
        kinds="custom",
        usual={"allowed_callers": list[Literal["direct"]]},
    ),
    tool_choice=Known("type name disable_parallel_tool_use"),
    thinking=Known("type budget_tokens display"),
    output_config=Known("effort", format=_FORMAT),
    output_format=_FORMAT,
    metadata=Known("user_id"),
)
_PLAIN_TOOL: Final = ("type", "name", "cache_control")
"""What a server tool has that is run without options."""
_DATE: Final = re.compile(r"_\d{8}\Z")
_TIERS: Final = {"auto": "auto", "standard_only": "default"}
_TIER_OF: Final = {"auto": "auto", "priority": "auto", "fast": "auto", "default": "standard_only"}
_EMAIL: Final = re.compile(r"[^\s@]@[^\s@]+\.[^\s@]")
_PHONE: Final = re.compile(r"\+?[\d\s().-]{7,}\Z")

# --- Decoding


def decode_request(body: bytes) -> Request:
    """Decode a caller's request, or the body of count_tokens; its turns are arranged.

    Raises:
        InvalidRequest: malformed, not allowed by the API, or content that no other API could carry.
    """
    asked = decode_body(_body, check_text(body))
    fields = _find_fields(body)
    try:
        turns = arrange(_read_turns(asked))
        tools, server_tools = _read_tools(asked.tools or ())
        tool_choice = _read_choice(asked.tool_choice)
        output = _read_output(asked)
    except InvalidRequest as exc:
        refuse_state(fields)  # a thread's messages may answer to what is not among them
        where = f" - at `{exc.param}`" if exc.param else ""
        raise InvalidRequest(exc.message + where, param=exc.param) from exc
    return Request(
        model=asked.model,
        turns=turns,
        tools=tools,
        server_tools=server_tools,
        tool_choice=tool_choice,
        parallel_tool_calls=False if asked.tool_choice and asked.tool_choice.disable_parallel_tool_use else None,
        max_output_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=asked.stop_sequences or [],
        reasoning=_read_reasoning(asked),
        output=output,
        user=(asked.metadata.user_id or "") if asked.metadata else "",
        service_tier=_read_tier(asked.service_tier),
        stream=bool(asked.stream),
        extensions=_find_extensions(fields),
    )


def _find_fields(body: bytes) -> dict[str, Raw]:
    """Return the fields of *body* that say something."""
    nothing = {"mcp_servers": Raw(b"[]")}
    return {name: raw for name, raw in decode_body(_fields, body).items() if raw not in (NULL, nothing.get(name, NULL))}


def _find_extensions(fields: dict[str, Raw]) -> dict[str, Raw]:
    found = {name: raw for name, raw in fields.items() if name not in _KNOWN}
    return found | _KNOWN_INSIDE.find_unknown(fields)


def refuse_state(fields: Mapping[str, Raw]) -> None:
    """Refuse those *fields* of a body that stand for what lives on Anthropic's side only.

    The tool runners of both SDKs go on without threads when, and only when, they are told so in these words.

    Raises:
        InvalidRequest: there is one.
    """
    if "thread" in fields:
        raise InvalidRequest(
            "threads are kept by Anthropic, and this model is not theirs: send the whole conversation in messages",
            param="$.thread",
            details={"error_code": "thread_unsupported_request", "unsupported": ["thread"]},
        )
    if "container" in fields:
        raise InvalidRequest(
            "containers are kept by Anthropic, and this model is not theirs: leave the container out",
            param="$.container",
        )
    if "mcp_servers" in fields:
        raise InvalidRequest(
            "this model's API does not call MCP servers itself: offer their tools as tools of your own",
            param="$.mcp_servers",
        )


def _read_turns(asked: wire.MessagesBody) -> list[Turn]:
    turns = [Turn("system", _read_system(asked.system))] if asked.system else []
    for index, message in enumerate(asked.messages):
        try:
            turns.append(Turn(message.role, read_blocks(message.content, message.role)))
        except InvalidRequest as exc:
            raise inside(f".messages[{index}].content", exc) from exc
    return turns


def _read_system(system: str | list[wire.TextBlock]) -> tuple[Text, ...]:
    texts = [Text(system)] if isinstance(system, str) else map(read_text, system)
    return tuple(text for text in texts if not text.text.startswith(BILLING_HEADER))


def _read_tools(raws: Sequence[Raw]) -> tuple[list[Tool], list[ServerTool]]:
    tools: list[Tool] = []
    server_tools: list[ServerTool] = []
    for index, raw in enumerate(raws):
        try:
            tool = _tool.decode(raw)
            if tool.type is None or tool.type == "custom":
                tools.append(_read_tool(tool))
            else:
                server_tools.append(ServerTool(_kind_of(tool.type), NAME, raw, name_members(raw, _PLAIN_TOOL)))
        except (InvalidRequest, *JSON_ERRORS) as exc:
            raise inside(f".tools[{index}]", exc) from exc
    return tools, server_tools


def _read_tool(tool: wire.ToolParam) -> Tool:
    if not tool.name:
        raise InvalidRequest("a tool has to have a name", param="$.name")
    has_schema = tool.input_schema != NULL
    if has_schema:
        read_object(tool.input_schema, "input_schema")
    return Tool(
        name=tool.name,
        description=tool.description or "",
        schema=tool.input_schema if has_schema else None,
        is_strict=tool.strict,
        cache=read_mark(tool.cache_control),
    )


def _kind_of(type_: str) -> str:
    """Return the kind of a server tool: its type without the date."""
    kind = _DATE.sub("", type_)
    return "tool_search" if kind.startswith("tool_search_tool") else kind


def _read_choice(choice: wire.ToolChoiceParam | None) -> ToolChoice | None:
    if choice is None:
        return None
    match choice.type:
        case "auto" | "none" as mode:
            return ToolChoice(mode)
        case "any":
            return ToolChoice("required")
        case "tool":
            if not choice.name:
                raise InvalidRequest("a tool choice of type tool has to have a name", param="$.tool_choice.name")
            return ToolChoice("required", (choice.name,))
        case _ as never:
            assert_never(never)


def _read_reasoning(asked: wire.MessagesBody) -> ReasoningControl:
    effort = asked.output_config.effort if asked.output_config else None
    thinking = asked.thinking
    if thinking is None:
        return ReasoningControl(effort=effort)
    if thinking.type == "disabled":
        return ReasoningControl(mode="off", effort=effort)
    return ReasoningControl(
        mode="on",
        effort=effort,
        budget_tokens=thinking.budget_tokens if thinking.type == "enabled" else None,
        show=thinking.display != "omitted",
    )


def _read_output(asked: wire.MessagesBody) -> OutputFormat | None:
    config = asked.output_config.format if asked.output_config else None
    wanted = config or asked.output_format
    if wanted is None:
        return None
    try:
        read_object(wanted.schema, "schema")
    except (InvalidRequest, UnicodeDecodeError) as exc:
        raise inside(".output_config.format" if config else ".output_format", exc) from exc
    return OutputFormat(schema=wanted.schema, is_strict=True)


def _read_tier(tier: str | None) -> str:
    return _TIERS.get(tier, tier) if tier else ""


# --- Encoding


def encode_request(request: Request, capabilities: Capabilities, losses: Losses) -> bytes:
    """Return the body that asks an upstream for *request*.

    Raises:
        InvalidRequest: the API has no place for a part of its content.
    """
    writer = BlockWriter(losses)
    tools = _write_tools(request, writer)
    system = _write_system(request, writer, losses)
    messages = _write_messages(request.turns[1:] if _has_system(request) else request.turns, writer)
    writer.limit_marks()
    body: dict[str, object] = {
        "model": request.model,
        "max_tokens": request.max_output_tokens or capabilities.default_output_tokens,
        "system": system,
        "messages": messages,
        "tools": tools,
        "tool_choice": _write_choice(request) if tools else None,
        "thinking": _write_thinking(request.reasoning, capabilities),
        "output_config": _write_output_config(request, capabilities),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop_sequences": _write_stop(request.stop, losses),
        "metadata": _write_metadata(request.user, losses),
        "service_tier": _write_tier(request.service_tier, losses),
        "stream": request.stream or None,
    }
    return encode({name: value for name, value in body.items() if value is not None})


def _write_tools(request: Request, writer: BlockWriter) -> list[wire.ToolParam | Raw] | None:
    tools: list[wire.ToolParam | Raw] = []
    for tool in request.tools:
        schema = schemas.close_root(tool.schema, tool.name)
        written = wire.ToolParam(
            name=tool.name,
            description=tool.description or None,
            input_schema=schemas.restrict(schema) if tool.is_strict else schema,
            strict=tool.is_strict or None,
        )
        writer.mark(written, tool.cache)
        tools.append(written)
    for server_tool in request.server_tools:
        is_own = server_tool.origin == NAME
        tools.append(server_tool.raw if is_own else Raw(b'{"type":"web_search_20250305","name":"web_search"}'))
    return tools or None


def _write_messages(turns: Sequence[Turn], writer: BlockWriter) -> list[dict[str, object]]:
    contents = ((turn.role, writer.write_content(turn.blocks)) for turn in turns)
    return [{"role": role, "content": content} for role, content in contents if content]


def _write_system(request: Request, writer: BlockWriter, losses: Losses) -> str | list[WrittenBlock] | None:
    """Return the system prompt: text, or blocks where one carries a cache mark."""
    blocks = request.turns[0].blocks if _has_system(request) else ()
    if not all(isinstance(block, Text | Opaque) for block in blocks):
        raise refuse("anything but text in a system prompt", NAME)
    if request.output is not None and request.output.schema is None:
        losses.drop("output_format")
    content = writer.write_content(blocks)
    if isinstance(content, str):
        return content or None
    plain = [block.text for block in content if isinstance(block, wire.TextBlock) and block.cache_control is None]
    return ("\n\n".join(plain) if len(plain) == len(content) else content) or None


def _has_system(request: Request) -> bool:
    return bool(request.turns) and request.turns[0].role == "system"


def _write_choice(request: Request) -> wire.ToolChoiceParam | None:
    choice = request.tool_choice
    is_serial = True if request.parallel_tool_calls is False else None
    if choice is None:
        return wire.ToolChoiceParam("auto", disable_parallel_tool_use=True) if is_serial else None
    match choice.mode:
        case "none":
            return wire.ToolChoiceParam("none")
        case "auto":
            return wire.ToolChoiceParam("auto", disable_parallel_tool_use=is_serial)
        case "required" if choice.names and len(choice.names) == 1:
            return wire.ToolChoiceParam("tool", choice.names[0], is_serial)
        case "required":
            return wire.ToolChoiceParam("any", disable_parallel_tool_use=is_serial)
        case _ as never:
            assert_never(never)


def _write_thinking(control: ReasoningControl, capabilities: Capabilities) -> wire.ThinkingConfig | None:
    match control.mode:
        case "default":
            return None
        case "off":
            return wire.ThinkingConfig("disabled")
        case "on" if capabilities.reasoning == "budget":
            return wire.ThinkingConfig("enabled", control.budget_tokens)
        case "on":
            display = None if control.show is None else "summarized" if control.show else "omitted"
            return wire.ThinkingConfig("adaptive", display=display)
        case _ as never:
            assert_never(never)


def _write_output_config(request: Request, capabilities: Capabilities) -> wire.OutputConfig | None:
    config = wire.OutputConfig()
    control = request.reasoning
    if control.mode == "on" and control.effort and capabilities.reasoning != "budget":
        config.effort = "low" if control.effort == "minimal" else control.effort
    if request.output is not None and request.output.schema is not None:
        config.format = wire.JsonOutputFormat(schemas.restrict(request.output.schema))
    return config if config.effort or config.format else None


def _write_stop(stop: Sequence[str], losses: Losses) -> list[str] | None:
    """Return the stop sequences; the API refuses those that are blank."""
    kept = [sequence for sequence in stop if sequence.strip()]
    if len(kept) < len(stop):
        losses.drop("stop")
    return kept or None


def _write_metadata(user: str, losses: Losses) -> wire.Metadata | None:
    """Return who the caller's user is, unless that tells who they are: the API wants no personal data."""
    if not user:
        return None
    if _EMAIL.search(user) or _PHONE.match(user):
        losses.drop("user")
        return None
    return wire.Metadata(user)


def _write_tier(tier: str, losses: Losses) -> str | None:
    if tier and tier not in _TIER_OF:
        losses.drop("service_tier")
    return _TIER_OF.get(tier)
