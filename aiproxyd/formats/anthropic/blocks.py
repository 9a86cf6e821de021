"""The content blocks of a request: https://docs.anthropic.com/en/api/messages. Sans-I/O.

Read strictly where their type is known; any other type is carried as it is, for Anthropic adds some without notice.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypeAlias, assert_never

import msgspec
from msgspec import Raw

from aiproxyd import seals
from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.anthropic import wire
from aiproxyd.formats.anthropic.answers import read_citation
from aiproxyd.formats.anthropic.wire import NAME, CacheControl, WrittenBlock
from aiproxyd.formats.base import NULL
from aiproxyd.formats.codec import Losses, describe_media, refuse, to_object, unwrap_arguments
from aiproxyd.hub import (
    Block,
    CacheMark,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Seal,
    SealKind,
    Text,
    ToolCall,
    ToolResult,
)
from aiproxyd.splice import JSON_ERRORS

MAX_CACHE_MARKS: Final = 4
"""https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching: breakpoints in one request."""

NO_WORDS: Final = "The tool failed without a word."
"""Stands in the result of a tool that failed, which must not be empty: https://github.com/jlevy/markform/issues/153."""

Role: TypeAlias = Literal["system", "user", "assistant"]
Part: TypeAlias = Text | Media
Marked: TypeAlias = (
    wire.TextBlock | wire.ImageBlock | wire.DocumentBlock | wire.ToolUseBlock | wire.WrittenToolResult | wire.ToolParam
)

_IMAGE_TYPES: Final = {
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/png": "image/png",
    "image/gif": "image/gif",
    "image/webp": "image/webp",
}
_PDF: Final = "application/pdf"
_PLAIN: Final = "text/plain"

_head: Final = msgspec.json.Decoder(wire.Head)
_text: Final = msgspec.json.Decoder(wire.TextBlock)
_image: Final = msgspec.json.Decoder(wire.ImageBlock)
_document: Final = msgspec.json.Decoder(wire.DocumentBlock)
_search_result: Final = msgspec.json.Decoder(wire.SearchResultBlock)
_thinking: Final = msgspec.json.Decoder(wire.ThinkingBlock)
_redacted: Final = msgspec.json.Decoder(wire.RedactedThinkingBlock)
_tool_use: Final = msgspec.json.Decoder(wire.ToolUseBlock)
_tool_result: Final = msgspec.json.Decoder(wire.ToolResultBlock)
_tool_reference: Final = msgspec.json.Decoder(wire.ToolReferenceBlock)

_MARKS: Final = {None: CacheMark("5m"), "5m": CacheMark("5m"), "1h": CacheMark("1h")}

# --- Reading


def inside(step: str, exc: Exception) -> InvalidRequest:
    """Return what *exc*, which a part of a body has raised, is for the body that has the part at *step*."""
    if isinstance(exc, InvalidRequest):
        message, path = exc.message, exc.param or "$"
    else:
        message, _, path = str(exc).partition(" - at `")
        path = path.removesuffix("`") or "$"
    return InvalidRequest(message, param=f"${step}{path[1:]}")


def read_mark(control: CacheControl | None) -> CacheMark | None:
    """Return the mark that ``cache_control`` sets."""
    return None if control is None else _MARKS[control.ttl]


def read_object(raw: Raw, what: str) -> str:
    """Return the JSON text of the object that *raw* has to be.

    Raises:
        InvalidRequest: it is none.
        UnicodeDecodeError: it is no UTF-8.
    """
    text = str(raw, "utf-8")
    if not text.startswith("{"):
        raise InvalidRequest(f"{what} has to be an object", param=f"$.{what}")
    return text


def read_blocks(content: str | list[Raw], role: Role) -> tuple[Block, ...]:
    """Return the blocks of a message of *role*.

    Raises:
        InvalidRequest: a block is misshapen, or cannot stand there; ``param`` has its path from *content*.
    """
    if isinstance(content, str):
        return (Text(content),)
    readers = _READERS[role]
    blocks: list[Block] = []
    for index, raw in enumerate(content):
        try:
            kind = _head.decode(raw).type
            reader = readers.get(kind)
            blocks += reader(raw) if reader is not None else (_carry(kind, raw, role),)
        except (InvalidRequest, *JSON_ERRORS) as exc:
            raise inside(f"[{index}]", exc) from exc
    return tuple(blocks)


def _carry(kind: str, raw: Raw, role: Role) -> Opaque:
    if kind in _KNOWN:
        raise InvalidRequest(f"a {kind} block cannot stand in a message of role {role}")
    return Opaque(NAME, kind, raw)


def _read_parts(content: str | list[Raw] | None) -> tuple[Part, ...]:
    """Return what a tool result or a document holds."""
    if not content:
        return ()
    if isinstance(content, str):
        return (Text(content),)
    parts: list[Part] = []
    for index, raw in enumerate(content):
        try:
            parts += _PART_READERS.get(_head.decode(raw).type, _refuse_part)(raw)
        except (InvalidRequest, *JSON_ERRORS) as exc:
            raise inside(f"[{index}]", exc) from exc
    return tuple(parts)


def read_text(block: wire.TextBlock) -> Text:
    """Return a block of text."""
    if block.cache_control is None and not block.citations:
        return Text(block.text)
    citations = tuple(map(read_citation, block.citations or ()))
    return Text(block.text, cache=read_mark(block.cache_control), citations=citations)


def _read_text(raw: Raw) -> tuple[Text]:
    return (read_text(_text.decode(raw)),)


def _read_image(raw: Raw) -> tuple[Media]:
    block = _image.decode(raw)
    extensions = {"transformations": block.transformations} if block.transformations != NULL else {}
    media = Media(kind="image", cache=read_mark(block.cache_control), extensions=extensions)
    match block.source:
        case wire.Base64Source(media_type=media_type, data=data):
            return (msgspec.structs.replace(media, media_type=media_type, data=data),)
        case wire.UrlSource(url=url):
            return (msgspec.structs.replace(media, url=url),)
        case wire.FileSource(file_id=file_id):
            return (msgspec.structs.replace(media, file_id=file_id, origin=NAME),)
        case _ as never:
            assert_never(never)


def _read_document(raw: Raw) -> tuple[Part, ...]:
    block = _document.decode(raw)
    media = Media(
        kind="document",
        name=block.title or "",
        context=block.context or "",
        cache=read_mark(block.cache_control),
        has_citations=bool(block.citations and block.citations.enabled),
    )
    match block.source:
        case (
            wire.Base64Source(media_type=media_type, data=data) | wire.PlainTextSource(media_type=media_type, data=data)
        ):
            return (msgspec.structs.replace(media, media_type=media_type, data=data),)
        case wire.UrlSource(url=url):
            return (msgspec.structs.replace(media, media_type=_PDF, url=url),)
        case wire.FileSource(file_id=file_id):
            return (msgspec.structs.replace(media, file_id=file_id, origin=NAME),)
        case wire.ContentSource(content=content):
            return _read_content_document(media, content)
        case _ as never:
            assert_never(never)


def _read_content_document(media: Media, content: str | list[Raw]) -> tuple[Part, ...]:
    """Return a document that is made of blocks: those, behind what it is called."""
    try:
        parts = _read_parts(content)
    except InvalidRequest as exc:
        raise inside(".source.content", exc) from exc
    about = "\n".join(filter(None, (media.name, media.context)))
    if about:
        parts = (Text(about), *parts)
    return (*parts[:-1], msgspec.structs.replace(parts[-1], cache=media.cache)) if media.cache and parts else parts


def _read_search_result(raw: Raw) -> tuple[Text]:
    block = _search_result.decode(raw)
    texts = "\n\n".join(part.text for part in block.content)
    return (Text(f"{block.title}\n{block.source}\n\n{texts}", cache=read_mark(block.cache_control)),)


def _read_tool_reference(raw: Raw) -> tuple[Text]:
    return (Text(f"The tool {_tool_reference.decode(raw).tool_name} is now available."),)


def _refuse_part(raw: Raw) -> tuple[Part, ...]:
    raise InvalidRequest(f"a {_head.decode(raw).type} block in a tool result or document cannot be sent to this model")


def _read_thinking(raw: Raw) -> tuple[Reasoning]:
    block = _thinking.decode(raw)
    return (Reasoning(block.thinking, _read_seal(block.signature, "signature") if block.signature else None),)


def _read_redacted(raw: Raw) -> tuple[Reasoning]:
    return (Reasoning("", _read_seal(_redacted.decode(raw).data, "redacted")),)


def _read_seal(data: str, kind: SealKind) -> Seal:
    return seals.unwrap(data) or Seal(NAME, kind, data)


def _read_tool_use(raw: Raw) -> tuple[ToolCall]:
    block = _tool_use.decode(raw)
    arguments = unwrap_arguments(read_object(block.input, "input"))
    return (ToolCall(id=block.id, name=block.name, arguments=arguments, cache=read_mark(block.cache_control)),)


def _read_tool_result(raw: Raw) -> tuple[ToolResult]:
    block = _tool_result.decode(raw)
    try:
        parts = _read_parts(block.content)
    except InvalidRequest as exc:
        raise inside(".content", exc) from exc
    cache = read_mark(block.cache_control)
    return (ToolResult(call_id=block.tool_use_id, content=parts, is_error=bool(block.is_error), cache=cache),)


_PART_READERS: Final[Mapping[str, Callable[[Raw], tuple[Part, ...]]]] = {
    "text": _read_text,
    "image": _read_image,
    "document": _read_document,
    "search_result": _read_search_result,
    "tool_reference": _read_tool_reference,
}
_SAID: Final[Mapping[str, Callable[[Raw], tuple[Block, ...]]]] = {
    "text": _read_text,
    "image": _read_image,
    "document": _read_document,
    "search_result": _read_search_result,
}
_READERS: Final[Mapping[Role, Mapping[str, Callable[[Raw], tuple[Block, ...]]]]] = {
    "system": {"text": _read_text},
    "user": {**_SAID, "tool_result": _read_tool_result},
    "assistant": {
        **_SAID,
        "thinking": _read_thinking,
        "redacted_thinking": _read_redacted,
        "tool_use": _read_tool_use,
    },
}
_KNOWN: Final = frozenset().union(*_READERS.values())

# --- Writing


class BlockWriter:
    """Writes the blocks of one request, in the order of the prompt: the cache marks count over all of it."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._marked: list[Marked] = []

    def mark(self, block: Marked, cache: CacheMark | None) -> None:
        """Set the mark of *block*."""
        if cache is not None:
            block.cache_control = CacheControl("1h" if cache.ttl == "1h" else None)
            self._marked.append(block)

    def limit_marks(self) -> None:
        """Take away the marks that are too many: the later ones cover what the earlier ones did."""
        for block in self._marked[:-MAX_CACHE_MARKS]:
            block.cache_control = None
            self._losses.drop("cache_control")

    def write_content(self, blocks: Iterable[Block]) -> str | list[WrittenBlock]:
        """Return the content of a message; empty where nothing is left of it."""
        written = [block for block in map(self._write, blocks) if block is not None]
        return _shorten(written) or written

    def _write(self, block: Block) -> WrittenBlock | None:
        match block:
            case Text():
                return self._write_text(block)
            case ToolCall(id=call_id, name=name, arguments=arguments, cache=cache):
                call = wire.ToolUseBlock(call_id, name, to_object(arguments))
                self.mark(call, cache)
                return call
            case ToolResult():
                return self._write_result(block)
            case Media():
                return self._write_media(block)
            case Reasoning():
                return _write_reasoning(block)
            case Opaque(raw=raw):
                return raw
            case Refusal(text=text):
                return self._write_text(Text(text))
            case _ as never:
                assert_never(never)

    def _write_text(self, block: Text) -> wire.TextBlock | None:
        """Return a block of text; None for blanks, which the API refuses."""
        if not block.text or block.text.isspace():
            return None
        citations = [citation.raw for citation in block.citations if citation.origin == NAME]
        written = wire.TextBlock(block.text, citations or None)
        self.mark(written, block.cache)
        return written

    def _write_result(self, block: ToolResult) -> wire.WrittenToolResult:
        parts: list[wire.TextBlock | wire.ImageBlock | wire.DocumentBlock] = []
        for part in block.content:
            written = self._write_text(part) if isinstance(part, Text) else self._write_media(part)
            if written is not None:
                parts.append(written)
        content = _shorten(parts) or parts or (NO_WORDS if block.is_error else None)
        result = wire.WrittenToolResult(block.call_id, content, block.is_error)
        self.mark(result, block.cache)
        return result

    def _write_media(self, media: Media) -> wire.ImageBlock | wire.DocumentBlock:
        if media.file_id is not None and media.origin != NAME:
            raise refuse(f"a file that another vendor holds ({media.file_id})", NAME)
        written: wire.ImageBlock | wire.DocumentBlock
        match media.kind:
            case "image":
                transformations = media.extensions.get("transformations", NULL)
                written = wire.ImageBlock(_image_source(media), transformations=transformations)
            case "document":
                written = wire.DocumentBlock(
                    _document_source(media),
                    media.name or None,
                    media.context or None,
                    wire.CitationsConfig(enabled=True) if media.has_citations else None,
                )
            case "audio" | "video":
                raise refuse(f"{describe_media(media)} content", NAME)
            case _ as never:
                assert_never(never)
        self.mark(written, media.cache)
        return written


def _shorten(blocks: list[WrittenBlock] | list[wire.TextBlock | wire.ImageBlock | wire.DocumentBlock]) -> str:
    """Return the text that *blocks* are, where they are nothing but one plain text; else empty."""
    match blocks:
        case [wire.TextBlock(text=text, citations=None, cache_control=None)]:
            return text
        case _:
            return ""


def _write_reasoning(block: Reasoning) -> wire.ThinkingBlock | wire.RedactedThinkingBlock | None:
    if block.seal is None:
        return None  # the API refuses thoughts that are not signed
    if block.seal.kind == "redacted":
        return wire.RedactedThinkingBlock(block.seal.data)
    return wire.ThinkingBlock(block.text, block.seal.data)


def _image_source(media: Media) -> wire.ImageSource:
    if media.file_id is not None:
        return wire.FileSource(media.file_id)
    if media.url is not None:
        return wire.UrlSource(media.url)
    media_type = _IMAGE_TYPES.get(media.media_type)
    if media_type is None:
        raise refuse(f"an image that is not JPEG, PNG, GIF or WebP ({describe_media(media)})", NAME)
    return wire.Base64Source(media_type, media.data or "")


def _document_source(media: Media) -> wire.DocumentSource:
    if media.file_id is not None:
        return wire.FileSource(media.file_id)
    if media.url is not None:
        return wire.UrlSource(media.url)
    match media.media_type:
        case "application/pdf":
            return wire.Base64Source(_PDF, media.data or "")
        case "text/plain":
            return wire.PlainTextSource(_PLAIN, media.data or "")
        case _:
            raise refuse(f"a document that is neither PDF nor text ({describe_media(media)})", NAME)
