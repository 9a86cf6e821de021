"""Tools, and which of them are to be called. Sans-I/O.

https://platform.openai.com/docs/api-reference/chat/create#chat-create-tools
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, assert_never

import msgspec
from msgspec import Raw

from aiproxyd.formats.base import NULL, decode_view
from aiproxyd.formats.openai_chat.parts import make_cache_mark, read_cache_mark
from aiproxyd.formats.openai_chat.wire import (
    AllowedTools,
    AllowedToolsChoice,
    ChatRequest,
    CustomChoice,
    CustomTool,
    Function,
    FunctionChoice,
    FunctionTool,
    Grammar,
    GrammarText,
    Named,
)
from aiproxyd.formats.openai_shared import add_object_type, is_strict_schema
from aiproxyd.hub import CacheMark, Tool, ToolChoice


class _FlatGrammar(Grammar, tag="grammar"):
    """As the Responses API has it, and the hub."""


_flat_grammar: Final = msgspec.json.Decoder(_FlatGrammar)


def decode_tools(wire: ChatRequest) -> list[Tool]:
    """Return the tools that the caller offers, those of the deprecated field behind the others."""
    tools = [_decode_tool(tool) for tool in wire.tools or ()]
    tools += [_decode_function(function, None) for function in wire.functions or ()]
    return tools


def _decode_tool(tool: FunctionTool | CustomTool) -> Tool:
    if isinstance(tool, FunctionTool):
        return _decode_function(tool.function, read_cache_mark(tool))
    custom = tool.custom
    grammar = None
    if isinstance(custom.format, GrammarText):
        nested = custom.format.grammar
        grammar = Raw(msgspec.json.encode(_FlatGrammar(nested.syntax, nested.definition)))
    return Tool(
        name=custom.name,
        description=custom.description or "",
        is_custom=True,
        grammar=grammar,
        cache=read_cache_mark(tool),
    )


def _decode_function(function: Function, mark: CacheMark | None) -> Tool:
    return Tool(
        name=function.name,
        description=function.description or "",
        schema=None if function.parameters == NULL else function.parameters,
        is_strict=function.strict,
        cache=mark or (make_cache_mark(function.cache_control) if function.cache_control else None),
    )


def decode_tool_choice(wire: ChatRequest) -> ToolChoice | None:
    """Return what the caller says about which tools are to be called, in either field."""
    match wire.tool_choice:
        case None:
            return _decode_function_choice(wire)
        case FunctionChoice(function=named) | CustomChoice(custom=named):
            return ToolChoice("required", (named.name,))
        case AllowedToolsChoice(allowed_tools=allowed):
            return ToolChoice(allowed.mode, _list_names(allowed))
        case "none" | "auto" | "required" as mode:
            return ToolChoice(mode)
        case _ as never:
            assert_never(never)


def _decode_function_choice(wire: ChatRequest) -> ToolChoice | None:
    match wire.function_call:
        case None:
            return None
        case Named(name=name):
            return ToolChoice("required", (name,))
        case "none" | "auto" as mode:
            return ToolChoice(mode)
        case _ as never:
            assert_never(never)


def _list_names(allowed: AllowedTools) -> tuple[str, ...]:
    named = (tool.function or tool.custom for tool in allowed.tools)
    return tuple(tool.name for tool in named if tool is not None)


def encode_tool(tool: Tool) -> dict[str, Any]:
    """Return *tool* as an element of ``tools``."""
    encoded: dict[str, Any] = {"name": tool.name}
    if tool.description:
        encoded["description"] = tool.description
    if tool.is_custom:
        grammar = decode_view(_flat_grammar, bytes(tool.grammar)) if tool.grammar is not None else None
        if grammar is not None:
            nested = {"syntax": grammar.syntax, "definition": grammar.definition}
            encoded["format"] = {"type": "grammar", "grammar": nested}
        return {"type": "custom", "custom": encoded}
    if tool.schema is not None:
        encoded["parameters"] = add_object_type(tool.schema)
    if tool.is_strict is not None:
        encoded["strict"] = tool.is_strict and tool.schema is not None and is_strict_schema(tool.schema)
    return {"type": "function", "function": encoded}


def encode_tool_choice(choice: ToolChoice, tools: Sequence[Tool]) -> str | dict[str, Any]:
    """Return *choice* out of *tools*."""
    if choice.names is None or choice.mode == "none":
        return choice.mode
    custom = {tool.name for tool in tools if tool.is_custom}
    named = [_name_tool(name, custom) for name in choice.names]
    if len(named) == 1 and choice.mode == "required":
        return named[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": named}}


def _name_tool(name: str, custom: Collection[str]) -> dict[str, Any]:
    kind = "custom" if name in custom else "function"
    return {"type": kind, kind: {"name": name}}
