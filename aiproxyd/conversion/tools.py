"""The tools of a request and the choice among them, as far as a format and a model know such things. Sans-I/O."""

from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion.names import Called, ToolNames
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import Format
from aiproxyd.formats.codec import Losses, refuse
from aiproxyd.hub import Request, ServerTool, Tool, ToolCall, ToolChoice, ToolResult
from aiproxyd.splice import JSON_ERRORS


class _Input(Struct):
    """The arguments of a function that stands for a custom tool."""

    input: str


_input: Final = msgspec.json.Decoder(_Input)


class Toolbox:
    """The tools of one request and the calls of them, as its upstream knows them. One per attempt."""

    def __init__(self, fmt: Format, capabilities: Capabilities, losses: Losses) -> None:
        """Take the upstream's format *fmt*."""
        self.names = ToolNames(fmt.traits)
        self._format_name = fmt.name
        self._traits = fmt.traits
        self._has_custom_tools = fmt.traits.has_custom_tools and capabilities.has_custom_tools
        self._can_force_tools = capabilities.can_force_tools
        self._losses = losses

    def fit(self, request: Request) -> None:
        """Fit the tools of *request*, and the choice among them.

        Raises:
            InvalidRequest: its only tools are such that the format does not have, or it chooses one that it lacks.
        """
        if request.server_tools:
            request.server_tools = self._select_server_tools(request)
        request.tools = [self._fit_tool(tool) for tool in request.tools]
        if self._traits.needs_called_tools and not (request.tools or request.server_tools):
            self.offer_called(request)
        if not request.tools and not request.server_tools:
            request.tool_choice = request.parallel_tool_calls = None
        elif request.tool_choice is not None:
            self._settle_choice(request, request.tool_choice)

    def offer_called(self, request: Request) -> None:
        """Offer what was called before and is not offered any more, but let the model call nothing of it."""
        calls = [block for turn in request.turns for block in turn.blocks if isinstance(block, ToolCall)]
        if not calls:
            return
        names = dict.fromkeys(self.names.fit(Called(call.name, call.namespace, call.is_custom)) for call in calls)
        request.tools = [Tool(name=name) for name in names]
        request.tool_choice = ToolChoice("none")

    def fit_call(self, call: ToolCall, call_id: str) -> ToolCall:
        """Return *call* as the upstream has made, or could have made it, with *call_id*."""
        name = self.names.fit(Called(call.name, call.namespace, call.is_custom))
        namespace = call.namespace if self._traits.has_namespaces else ""
        if call.is_custom and not self._has_custom_tools:
            call = replace(call, arguments=wrap_input(call.arguments), is_custom=False)
        if (call_id, name, namespace) == (call.id, call.name, call.namespace):
            return call
        return replace(call, id=call_id, name=name, namespace=namespace)

    def fit_result(self, result: ToolResult, call: ToolCall) -> ToolResult:
        """Return *result* as that of *call*, which was fitted before."""
        if (result.call_id, result.name, result.is_custom) == (call.id, call.name, call.is_custom):
            return result
        return replace(result, call_id=call.id, name=call.name, is_custom=call.is_custom)

    def _fit_tool(self, tool: Tool) -> Tool:
        name = self.names.fit(Called(tool.name, tool.namespace, tool.is_custom))
        namespace = tool.namespace if self._traits.has_namespaces else ""
        if tool.is_custom and not self._has_custom_tools:
            tool = self._to_function(tool)
        return (
            tool if (name, namespace) == (tool.name, tool.namespace) else replace(tool, name=name, namespace=namespace)
        )

    def _to_function(self, tool: Tool) -> Tool:
        described = {"type": "string"}
        if tool.grammar is not None:
            self._losses.drop(f"tools.{tool.name}.format")
            described["description"] = f"Must be of this grammar: {bytes(tool.grammar).decode(errors='replace')}"
        schema = {"type": "object", "properties": {"input": described}, "required": ["input"]}
        return replace(tool, is_custom=False, grammar=None, schema=Raw(msgspec.json.encode(schema)))

    def _select_server_tools(self, request: Request) -> list[ServerTool]:
        kept: list[ServerTool] = []
        dropped: list[ServerTool] = []
        for tool in request.server_tools:
            is_known = tool.origin == self._format_name or tool.kind in self._traits.server_tools
            (kept if is_known else dropped).append(tool)
        if dropped and not kept and not request.tools:
            raise refuse(f"the tool {dropped[0].kind!r}", self._format_name, "$.tools")
        for tool in dropped:
            self._losses.drop(f"tools.{tool.kind}")
        for tool in kept:
            if self._traits.names_server_tools:
                self.names.reserve(tool.kind)
            for option in tool.options if tool.origin != self._format_name else ():
                self._losses.drop(f"tools.{tool.kind}.{option}")
        return kept

    def _settle_choice(self, request: Request, choice: ToolChoice) -> None:
        if choice.mode == "none":
            choice = ToolChoice("none")
        elif choice.names is not None:
            choice = self._limit(request, choice.mode, choice.names)
        if choice.mode == "required" and not self._can_force_tools:
            self._losses.drop("tool_choice")
            choice = ToolChoice("auto")
        request.tool_choice = choice

    def _limit(self, request: Request, mode: Literal["auto", "required"], names: tuple[str, ...]) -> ToolChoice:
        """Return the choice among those called *names*; where the format cannot say that, only those are offered."""
        known = {tool.name for tool in request.tools}
        fitted: dict[str, None] = {}
        for name in names:
            own = self.names.fit_name(name)
            if own in known:
                fitted[own] = None
            else:
                self._losses.drop(f"tool_choice.{name}")
        if not fitted:
            raise InvalidRequest(
                f"the tool choice names no tool that is offered: {', '.join(names)}", param="$.tool_choice"
            )
        if mode in self._traits.tool_subsets or (mode == "required" and len(fitted) == 1):
            return ToolChoice(mode, tuple(fitted))
        request.tools = [tool for tool in request.tools if tool.name in fitted]
        return ToolChoice(mode)


def wrap_input(text: str) -> str:
    """Return the arguments of a function that stands for a custom tool called with *text*."""
    return msgspec.json.encode(_Input(text)).decode()


def unwrap_input(arguments: str) -> str:
    """Return the free text in *arguments* of a function that stands for a custom tool; themselves if there is none."""
    try:
        return _input.decode(arguments).input
    except JSON_ERRORS:
        return arguments
