"""The output items of an answer, to blocks and back. Sans-I/O.

https://platform.openai.com/docs/api-reference/responses/object#responses/object-output
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, assert_never

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from aiproxyd.formats import codec
from aiproxyd.formats.base import NULL, decode_view
from aiproxyd.formats.codec import describe_media, make_call_id
from aiproxyd.formats.openai_responses.wire import (
    NAME,
    ReasoningItem,
    as_text,
    read_citations,
    read_logprobs,
    read_reasoning,
    write_citations,
    write_logprobs,
    write_reasoning,
)
from aiproxyd.hub import Block, Media, Opaque, Reasoning, Refusal, Text, TokenLogprob, ToolCall, ToolResult


class ItemView(Struct):
    """An output item of any type, by the fields that calls and messages have."""

    type: Any = None
    id: Any = None
    call_id: Any = None
    name: Any = None
    namespace: Any = None
    arguments: Raw = NULL
    input: Any = None
    content: Raw = NULL


class _PartView(Struct):
    type: Any = None
    text: Any = None
    refusal: Any = None
    annotations: Raw = NULL
    logprobs: Raw = NULL


class Said(NamedTuple):
    """One block of an item, and the probabilities of its tokens."""

    block: Block
    logprobs: tuple[TokenLogprob, ...] = ()


class _Image(Struct):
    result: str | None = None
    output_format: str | None = None


Shown: TypeAlias = Text | Refusal | Reasoning | ToolCall | Media | Opaque
"""The blocks that an answer has items for."""

_item: Final = msgspec.json.Decoder(ItemView)
_reasoning: Final = msgspec.json.Decoder(ReasoningItem)
_raws: Final = msgspec.json.Decoder(list[Raw])
_text: Final = msgspec.json.Decoder(str)
_image: Final = msgspec.json.Decoder(_Image)
_part: Final = msgspec.json.Decoder(_PartView)


def read_items(raw: Raw) -> list[Raw] | None:
    """Return the items of an ``output``; None where it is no list."""
    return decode_view(_raws, raw)


def view_item(raw: Raw) -> ItemView:
    """Return what can be read of an item, whatever it is."""
    return decode_view(_item, raw) or ItemView()


def read_item(raw: Raw) -> Iterator[Said]:
    """Yield what a complete item says; what is not understood is kept as it is."""
    item = view_item(raw)
    reader = _READERS.get(item.type) if isinstance(item.type, str) else None
    said = reader(item, raw) if reader else None
    if said is None:
        return iter((Said(Opaque(NAME, as_text(item.type), raw)),))
    return said


def _read_message(item: ItemView, raw: Raw) -> Iterator[Said] | None:
    del raw
    parts = read_items(item.content)
    if parts is None:
        # Imitations give the bare text.
        text = decode_view(_text, item.content)
        return None if text is None else iter((Said(Text(text)),))
    return (said for part in parts if (said := read_part(part)) is not None)


def read_part(raw: Raw) -> Said | None:
    """Return what a part of a message says; None where it is neither text nor refusal."""
    part = decode_view(_part, raw) or _PartView()
    if part.type == "output_text":
        return Said(Text(as_text(part.text), citations=read_citations(part.annotations)), read_logprobs(part.logprobs))
    if part.type == "refusal":
        return Said(Refusal(as_text(part.refusal)))
    return None


def _read_thought(item: ItemView, raw: Raw) -> Iterator[Said] | None:
    del item
    view = decode_view(_reasoning, raw)
    return None if view is None else iter((Said(read_reasoning(view, is_callers=False)),))


def _read_call(item: ItemView, raw: Raw) -> Iterator[Said] | None:
    del raw
    call = begin_call(item)
    return None if call is None else iter((Said(replace(call, arguments=read_arguments(item))),))


def begin_call(item: ItemView) -> ToolCall | None:
    """Return the call that an item is, without its arguments; None where it has no name."""
    name = as_text(item.name)
    if not name:
        return None
    return ToolCall(
        id=as_text(item.call_id) or as_text(item.id) or make_call_id(),
        name=name,
        arguments="",
        is_custom=item.type == "custom_tool_call",
        namespace=as_text(item.namespace),
    )


def read_arguments(item: ItemView) -> str:
    """Return the arguments of a call: free text of a custom tool, else JSON, as far as the model got it right."""
    if item.type == "custom_tool_call":
        return as_text(item.input)
    text = decode_view(_text, item.arguments)
    if text is None:
        # Imitations give the object itself.
        text = bytes(item.arguments).decode(errors="replace")
    return codec.read_arguments(text)


def _read_image(item: ItemView, raw: Raw) -> Iterator[Said] | None:
    del item
    view = decode_view(_image, raw)
    if view is None or not view.result:
        return None
    return iter((Said(Media(kind="image", media_type=f"image/{view.output_format or 'png'}", data=view.result)),))


_READERS: Final[dict[str, Callable[[ItemView, Raw], Iterator[Said] | None]]] = {
    "message": _read_message,
    "reasoning": _read_thought,
    "function_call": _read_call,
    "custom_tool_call": _read_call,
    "image_generation_call": _read_image,
}


def text_of(block: Block) -> str:
    """Return the text of *block* that comes in pieces."""
    match block:
        case Text(text=text) | Refusal(text=text) | Reasoning(text=text):
            return text
        case ToolCall(arguments=arguments):
            return arguments
        case _:
            return ""


# --- And back


class ItemIds:
    """Makes the ids of one answer's items, always the same for the same answer."""

    def __init__(self, response_id: str) -> None:
        self._suffix = hashlib.sha256(response_id.encode(errors="replace")).hexdigest()[:24]
        self._count = 0

    def make(self, block: Block) -> str:
        """Return the id for the item that shows *block*."""
        self._count += 1
        if isinstance(block, Reasoning) and block.seal and block.seal.origin == NAME and block.seal.item:
            return block.seal.item
        return f"{_find_prefix(block)}_{self._suffix}{self._count:02x}"


def _find_prefix(block: Block) -> str:
    match block:
        case Reasoning():
            return "rs"
        case ToolCall(is_custom=is_custom):
            return "ctc" if is_custom else "fc"
        case Media():
            return "ig"
        case _:
            return "msg"


def show(block: Block) -> Shown | None:
    """Return *block* as an answer shows it; None where there is no item for it."""
    match block:
        case ToolResult():
            return None
        case Opaque(origin=origin):
            return block if origin == NAME else None
        case Media() if block.kind != "image" or block.data is None:
            return Text(block.url or f"[{describe_media(block)}]")
        case _:
            return block


def write_item(block: Shown, item_id: str, logprobs: Sequence[TokenLogprob] = (), *, status: str = "completed") -> Any:
    """Return the item that shows *block*."""
    match block:
        case Text():
            return write_message(item_id, [write_text(block, logprobs)], status)
        case Refusal():
            return write_message(item_id, [write_refusal(block)], status)
        case Reasoning():
            return write_reasoning(block, item_id)
        case ToolCall():
            return _write_call(block, item_id, status)
        case Media():
            return _write_image(block, item_id)
        case Opaque(raw=raw):
            return raw
        case _ as never:
            assert_never(never)


def write_message(item_id: str, content: list[Any], status: str) -> dict[str, Any]:
    """Return the message that has *content*."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def write_text(block: Text, logprobs: Sequence[TokenLogprob] = ()) -> dict[str, Any]:
    """Return the part of a message that says *block*."""
    return {
        "type": "output_text",
        "annotations": write_citations(block),
        "logprobs": write_logprobs(logprobs),
        "text": block.text,
    }


def write_refusal(block: Refusal) -> dict[str, Any]:
    """Return the part of a message that says *block*."""
    return {"type": "refusal", "refusal": block.text}


def _write_call(call: ToolCall, item_id: str, status: str) -> dict[str, Any]:
    kind, field = ("custom_tool_call", "input") if call.is_custom else ("function_call", "arguments")
    item = {
        "id": item_id,
        "type": kind,
        "status": status,
        field: call.arguments,
        "call_id": call.id,
        "name": call.name,
    }
    return item | {"namespace": call.namespace} if call.namespace else item


def _write_image(media: Media, item_id: str) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "image_generation_call",
        "status": "completed",
        "output_format": media.media_type.rpartition("/")[2] or "png",
        "result": media.data,
    }
