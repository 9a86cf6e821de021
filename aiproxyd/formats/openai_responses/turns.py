"""The input items of a request, to turns and back. Sans-I/O.

https://platform.openai.com/docs/api-reference/responses/create#responses-create-input
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.codec import read_arguments, refuse
from aiproxyd.formats.openai_responses.media import Part, decode_part, encode_part
from aiproxyd.formats.openai_responses.tools import Tools
from aiproxyd.formats.openai_responses.wire import (
    BLANK_LINE,
    NAME,
    ReasoningItem,
    decode_at,
    read_reasoning,
    write_citations,
    write_reasoning,
)
from aiproxyd.hub import Media, Opaque, Reasoning, Refusal, Text, ToolCall, ToolResult, Turn

ERROR_MARK: Final = "Error: "
"""Begins the output of a tool that failed: the API has no field for that."""


class _Head(Struct):
    type: str | None = None
    role: str | None = None
    id: str | None = None


class _Message(Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    phase: str | None = None


class _FunctionCall(Struct):
    call_id: str
    name: str
    arguments: str
    namespace: str | None = None


class _CustomCall(Struct):
    call_id: str
    name: str
    input: str
    namespace: str | None = None


class _CallOutput(Struct):
    call_id: str
    output: str | list[Part]


class _AdditionalTools(Struct):
    tools: list[Raw]


_head: Final = msgspec.json.Decoder(_Head)
_message: Final = msgspec.json.Decoder(_Message)
_function_call: Final = msgspec.json.Decoder(_FunctionCall)
_custom_call: Final = msgspec.json.Decoder(_CustomCall)
_call_output: Final = msgspec.json.Decoder(_CallOutput)
_reasoning: Final = msgspec.json.Decoder(ReasoningItem)
_additional_tools: Final = msgspec.json.Decoder(_AdditionalTools)

_REFUSED: Final = {
    "item_reference": "no items are stored here: send the item itself, and ask with `store: false`",
    "compaction_trigger": "the conversation cannot be compacted here: ask for a summary in words instead",
    "configuration_update": "the settings cannot change within the input: say them in `reasoning` and `text`",
}
"""Items that cannot be left out, and what to do instead."""


def decode_input(items: Iterable[Raw], tools: Tools) -> Iterator[Turn]:
    """Yield a turn for each item of an ``input``; those that offer tools add to *tools*.

    Raises:
        InvalidRequest: misshapen, or an item that stands for what is stored at the vendor.
    """
    for index, raw in enumerate(items):
        path = f"$.input[{index}]"
        head = decode_at(_head, raw, path)
        kind = head.type or ("item_reference" if head.id and not head.role else "message")
        if kind == "additional_tools":
            tools.decode(decode_at(_additional_tools, raw, path).tools, f"{path}.tools")
        else:
            yield _decode_item(kind, raw, path)


def _decode_item(kind: str, raw: Raw, path: str) -> Turn:
    read = _ITEMS.get(kind)
    if read is not None:
        return read(raw, path)
    if kind in _REFUSED:
        raise InvalidRequest(_REFUSED[kind], param=path)
    return Turn("assistant", (Opaque(NAME, kind, raw),))


def _decode_message(raw: Raw, path: str) -> Turn:
    view = decode_at(_message, raw, path)
    blocks = _decode_content(view.content, f"{path}.content")
    if view.role == "assistant":
        return Turn("assistant", blocks, view.phase or "")
    return Turn("user" if view.role == "user" else "system", tuple(_unrefuse(blocks)))


def _decode_content(content: str | list[Part], path: str) -> tuple[Text | Refusal | Media, ...]:
    if isinstance(content, str):
        return (Text(content),)
    return tuple(decode_part(part, f"{path}[{index}]") for index, part in enumerate(content))


def _unrefuse(blocks: Iterable[Text | Refusal | Media]) -> Iterator[Text | Media]:
    """Yield *blocks* with plain words for refusals, which only the assistant has."""
    return (Text(block.text) if isinstance(block, Refusal) else block for block in blocks)


def _decode_function_call(raw: Raw, path: str) -> Turn:
    view = decode_at(_function_call, raw, path)
    arguments = read_arguments(view.arguments)
    call = ToolCall(id=view.call_id, name=view.name, arguments=arguments, namespace=view.namespace or "")
    return Turn("assistant", (call,))


def _decode_custom_call(raw: Raw, path: str) -> Turn:
    view = decode_at(_custom_call, raw, path)
    call = ToolCall(
        id=view.call_id, name=view.name, arguments=view.input, is_custom=True, namespace=view.namespace or ""
    )
    return Turn("assistant", (call,))


def _decode_output(raw: Raw, path: str, *, is_custom: bool = False) -> Turn:
    view = decode_at(_call_output, raw, path)
    blocks = _unrefuse(_decode_content(view.output, f"{path}.output"))
    content = tuple(block for block in blocks if not isinstance(block, Text) or block.text)
    return Turn("user", (ToolResult(call_id=view.call_id, content=content, is_custom=is_custom),))


def _decode_custom_output(raw: Raw, path: str) -> Turn:
    return _decode_output(raw, path, is_custom=True)


def _decode_thought(raw: Raw, path: str) -> Turn:
    return Turn("assistant", (read_reasoning(decode_at(_reasoning, raw, path), is_callers=True),))


_ITEMS: Final[dict[str, Callable[[Raw, str], Turn]]] = {
    "message": _decode_message,
    "function_call": _decode_function_call,
    "function_call_output": _decode_output,
    "custom_tool_call": _decode_custom_call,
    "custom_tool_call_output": _decode_custom_output,
    "reasoning": _decode_thought,
}


# --- And back


def encode_instructions(turn: Turn) -> str:
    """Return the texts of a leading system turn as one.

    Raises:
        InvalidRequest: there is more than text.
    """
    return BLANK_LINE.join(_texts(turn))


def _texts(turn: Turn) -> Iterator[str]:
    for block in turn.blocks:
        if not isinstance(block, Text):
            raise refuse("anything but text in the instructions", NAME)
        yield block.text


def encode_turn(turn: Turn) -> Iterator[Any]:
    """Yield the items of *turn*; its words between two other items are one message.

    Raises:
        InvalidRequest: a block that the API has no place for.
    """
    role = "developer" if turn.role == "system" else turn.role
    content: list[Any] = []
    for block in turn.blocks:
        if isinstance(block, Text | Refusal | Media):
            content.append(_encode_words(block, turn.role))
            continue
        if content:
            yield _message_item(role, content, turn.phase)
            content = []
        yield _encode_item(block)
    if content:
        yield _message_item(role, content, turn.phase)


def _message_item(role: str, content: list[Any], phase: str) -> dict[str, Any]:
    item = {"type": "message", "role": role, "content": content}
    return item | {"phase": phase} if phase else item


def _encode_words(block: Text | Refusal | Media, role: str) -> dict[str, Any]:
    if isinstance(block, Refusal):
        return {"type": "refusal", "refusal": block.text}
    if role != "assistant":
        return encode_part(block)
    if isinstance(block, Media):
        raise refuse(f"{block.kind} content of the assistant", NAME)
    part: dict[str, Any] = {"type": "output_text", "text": block.text}
    annotations = write_citations(block)
    return part | {"annotations": annotations} if annotations else part


def _encode_item(block: ToolCall | ToolResult | Reasoning | Opaque) -> Any:
    if isinstance(block, ToolCall):
        return _encode_call(block)
    if isinstance(block, ToolResult):
        return _encode_result(block)
    if isinstance(block, Reasoning):
        return write_reasoning(block, block.seal.item if block.seal else "")
    return block.raw


def _encode_call(call: ToolCall) -> dict[str, Any]:
    kind, field = ("custom_tool_call", "input") if call.is_custom else ("function_call", "arguments")
    item = {"type": kind, "call_id": call.id, "name": call.name, field: call.arguments}
    return item | {"namespace": call.namespace} if call.namespace else item


def _encode_result(result: ToolResult) -> dict[str, Any]:
    content = result.content
    if result.is_error:
        first = content[0] if content else Text("")
        if isinstance(first, Text):
            content = (Text(ERROR_MARK + first.text), *content[1:])
        else:
            content = (Text(ERROR_MARK), *content)
    kind = "custom_tool_call_output" if result.is_custom else "function_call_output"
    return {"type": kind, "call_id": result.call_id, "output": _encode_output(content)}


def _encode_output(content: tuple[Text | Media, ...]) -> str | list[dict[str, Any]]:
    if not content:
        return ""
    if len(content) == 1 and isinstance(content[0], Text):
        return content[0].text
    return [encode_part(block) for block in content]
