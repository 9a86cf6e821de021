"""Tools, the choice among them, and the shape of the output, in requests. Sans-I/O.

https://platform.openai.com/docs/guides/function-calling and https://platform.openai.com/docs/guides/structured-outputs
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL, find_unknown, name_members
from aiproxyd.formats.openai_responses.wire import NAME, decode_at
from aiproxyd.formats.openai_shared import add_object_type, clean_schema_name, is_strict_schema
from aiproxyd.hub import OutputFormat, ServerTool, Tool, ToolChoice

WEB_SEARCH: Final = "web_search"
"""The one server tool that other vendors have as well; dated names of it begin so."""
NO_ARGUMENTS: Final = Raw(b'{"type":"object","properties":{}}')


class _Head(Struct):
    type: str


class _Function(Struct):
    name: str
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None


class _GrammarHead(Struct):
    type: Literal["text", "grammar"]


class _Custom(Struct):
    name: str
    description: str | None = None
    format: Raw = NULL


class _Namespace(Struct):
    name: str
    tools: list[Raw]
    description: Raw = NULL


class Choice(Struct):
    """A ``tool_choice`` that is an object."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: "list[Choice] | None" = None


class Format(Struct):
    """The ``text.format`` of a request; flat, unlike in chat completions."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: Raw = NULL
    strict: bool | None = None


_KNOWN: Final = frozenset(("type", *_Function.__struct_fields__, *_Custom.__struct_fields__))
_KNOWN_GROUP: Final = frozenset(("type", *_Namespace.__struct_fields__))
_CARRIED_OF_GROUPS: Final = _KNOWN_GROUP - {"description"}

_head: Final = msgspec.json.Decoder(_Head)
_function: Final = msgspec.json.Decoder(_Function)
_grammar_head: Final = msgspec.json.Decoder(_GrammarHead)
_custom: Final = msgspec.json.Decoder(_Custom)
_namespace: Final = msgspec.json.Decoder(_Namespace)

_MODES: Final[dict[str, Literal["auto", "none", "required"]]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
}


class Tools:
    """The tools of a request while it is decoded; they may stand among its input items as well."""

    def __init__(self) -> None:
        self.own: list[Tool] = []
        self.hosted: list[ServerTool] = []
        self.extensions: dict[str, Raw] = {}
        """What is said of own tools that nobody else understands."""

    def decode(self, raws: Iterable[Raw], path: str, namespace: str = "") -> None:
        """Take the tools of a list that stands at *path*.

        Raises:
            InvalidRequest: misshapen.
        """
        for index, raw in enumerate(raws):
            self._decode(raw, f"{path}[{index}]", namespace)

    def _decode(self, raw: Raw, path: str, namespace: str) -> None:
        kind = decode_at(_head, raw, path).type
        if kind == "namespace":
            group = decode_at(_namespace, raw, path)
            self.decode(group.tools, f"{path}.tools", group.name)
            is_ours = group.description == Raw(msgspec.json.encode(_describe_group(group.name)))
            self.extensions |= find_unknown("tools.namespace", raw, _KNOWN_GROUP if is_ours else _CARRIED_OF_GROUPS)
        elif read := _READERS.get(kind):
            self.own.append(read(raw, path, namespace))
            self.extensions |= find_unknown("tools", raw, _KNOWN)
        else:
            # What is dated is the same tool: web_search_2025_08_26, web_search_preview.
            kind = WEB_SEARCH if kind.startswith(WEB_SEARCH) else kind
            self.hosted.append(ServerTool(kind, NAME, raw, name_members(raw, ("type",))))


def _decode_function(raw: Raw, path: str, namespace: str) -> Tool:
    view = decode_at(_function, raw, path)
    return Tool(
        name=view.name,
        description=view.description or "",
        schema=None if view.parameters == NULL else view.parameters,
        is_strict=view.strict,
        namespace=namespace,
    )


def _decode_custom(raw: Raw, path: str, namespace: str) -> Tool:
    view = decode_at(_custom, raw, path)
    has_grammar = view.format != NULL and decode_at(_grammar_head, view.format, f"{path}.format").type == "grammar"
    return Tool(
        name=view.name,
        description=view.description or "",
        is_custom=True,
        grammar=view.format if has_grammar else None,
        namespace=namespace,
    )


_READERS: Final[dict[str, Callable[[Raw, str, str], Tool]]] = {"function": _decode_function, "custom": _decode_custom}


def decode_choice(choice: str | Choice) -> ToolChoice:
    """Return what a ``tool_choice`` means; a hosted tool cannot be demanded elsewhere, so that it is ``auto``.

    Raises:
        InvalidRequest: an unknown word.
    """
    if isinstance(choice, str):
        if choice not in _MODES:
            raise InvalidRequest(f"unknown tool_choice {choice[:40]!r}", param="$.tool_choice")
        return ToolChoice(_MODES[choice])
    if choice.type == "allowed_tools":
        if not choice.tools:
            raise InvalidRequest("tool_choice allows no tools; say none", param="$.tool_choice.tools")
        names = tuple(tool.name for tool in choice.tools if tool.name and tool.type in _READERS)
        return ToolChoice(choice.mode, names or None)
    if choice.name and choice.type in _READERS:
        return ToolChoice("required", (choice.name,))
    return ToolChoice("auto")


def names_hosted(choice: Choice) -> bool:
    """Tell whether *choice* is, or allows, a tool that `decode_choice` leaves out."""
    if choice.type == "allowed_tools":
        return any(map(names_hosted, choice.tools or ()))
    return not choice.name or choice.type not in _READERS


def decode_format(view: Format) -> OutputFormat | None:
    """Return the shape that the output is to have; None: text.

    Raises:
        InvalidRequest: the schema is missing.
    """
    if view.type == "text":
        return None
    if view.type == "json_object":
        return OutputFormat()
    if view.schema == NULL:
        raise InvalidRequest("a format of type json_schema needs a schema", param="$.text.format.schema")
    return OutputFormat(
        schema=view.schema, name=view.name or "", description=view.description or "", is_strict=view.strict
    )


# --- And back


def encode_tools(tools: Sequence[Tool], hosted: Sequence[ServerTool]) -> list[Any]:
    """Return the list of tools, those of a namespace in their group, where its first one stands."""
    groups: dict[str, list[Any]] = {}
    encoded: list[Any] = []
    for tool in tools:
        if not tool.namespace:
            encoded.append(_encode_tool(tool))
            continue
        if tool.namespace not in groups:
            groups[tool.namespace] = []
            encoded.append(_encode_namespace(tool.namespace, groups[tool.namespace]))
        groups[tool.namespace].append(_encode_tool(tool))
    encoded += (tool.raw if tool.origin == NAME else {"type": tool.kind} for tool in hosted)
    return encoded


def _encode_namespace(name: str, members: list[Any]) -> dict[str, Any]:
    # The description is a required key; what the caller wrote there is not known any more.
    return {"type": "namespace", "name": name, "description": _describe_group(name), "tools": members}


def _describe_group(name: str) -> str:
    return f"The tools of {name}."


def _encode_tool(tool: Tool) -> dict[str, Any]:
    encoded: dict[str, Any] = {"type": "custom" if tool.is_custom else "function", "name": tool.name}
    if tool.description:
        encoded["description"] = tool.description
    if tool.is_custom:
        if tool.grammar is not None:
            encoded["format"] = tool.grammar
        return encoded
    schema = NO_ARGUMENTS if tool.schema is None else add_object_type(tool.schema)
    encoded["parameters"] = schema
    # Absent is not false here: the API tries to be strict then, and may rewrite the schema.
    encoded["strict"] = tool.is_strict is True and is_strict_schema(schema)
    return encoded


def encode_choice(choice: ToolChoice, tools: Iterable[Tool]) -> Any:
    """Return the ``tool_choice`` that says *choice* among *tools*."""
    if choice.names is None or choice.mode == "none":
        return choice.mode
    custom = {tool.name for tool in tools if tool.is_custom}
    named = [{"type": "custom" if name in custom else "function", "name": name} for name in choice.names]
    if choice.mode == "required" and len(named) == 1:
        return named[0]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": named}


def encode_format(output: OutputFormat) -> dict[str, Any]:
    """Return the ``text.format`` that demands *output*."""
    if output.schema is None:
        return {"type": "json_object"}
    encoded: dict[str, Any] = {
        "type": "json_schema",
        "name": clean_schema_name(output.name),
        "schema": output.schema,
    }
    if output.description:
        encoded["description"] = output.description
    if output.is_strict is not None:
        encoded["strict"] = output.is_strict and is_strict_schema(output.schema)
    return encoded
