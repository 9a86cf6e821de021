"""Content parts of input items and of tool outputs: text, images, files. Sans-I/O.

https://platform.openai.com/docs/guides/images-vision and https://platform.openai.com/docs/guides/pdf-files
"""

from typing import Any, Final, Literal, TypeAlias, assert_never

from msgspec import Raw, Struct

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL
from aiproxyd.formats.codec import describe_media, refuse
from aiproxyd.formats.openai_responses.wire import NAME, read_citations
from aiproxyd.formats.openai_shared import FILE_ORIGIN, make_data_url, read_file, split_data_url
from aiproxyd.hub import CacheMark, Media, Refusal, Text


class _Breakpoint(Struct):
    mode: Literal["explicit"] = "explicit"
    ttl: Literal["30m", "12h"] | None = None


class InputText(Struct, tag="input_text"):
    """Text of a caller, or of a tool."""

    text: str
    prompt_cache_breakpoint: _Breakpoint | None = None


class OutputText(Struct, tag="output_text"):
    """Text of a model."""

    text: str
    annotations: Raw = NULL


class OutputRefusal(Struct, tag="refusal"):
    """A model's words for not answering."""

    refusal: str


class InputImage(Struct, tag="input_image"):
    """An image by its URL, which may hold it, or by the id of a stored file."""

    image_url: str | None = None
    file_id: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None
    prompt_cache_breakpoint: _Breakpoint | None = None


class InputFile(Struct, tag="input_file"):
    """A document: its data, mostly as a data URL, its URL, or the id of a stored file."""

    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None
    prompt_cache_breakpoint: _Breakpoint | None = None


class _Audio(Struct):
    data: str
    format: Literal["wav", "mp3"]


class InputAudio(Struct, tag="input_audio"):
    """A sound; no longer in the types, but still in the words of the reference."""

    input_audio: _Audio


Part: TypeAlias = InputText | OutputText | OutputRefusal | InputImage | InputFile | InputAudio

_AUDIO_TYPES: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_DETAILS: Final = frozenset(("auto", "low", "high", "original"))


def decode_part(part: Part, path: str) -> Text | Refusal | Media:
    """Return the block that *part*, which stands at *path*, holds.

    Raises:
        InvalidRequest: neither data, URL nor file id, or data that cannot be read.
    """
    match part:
        case InputText():
            return Text(part.text, _decode_cache(part.prompt_cache_breakpoint))
        case OutputText():
            return Text(part.text, citations=read_citations(part.annotations))
        case OutputRefusal():
            return Refusal(part.refusal)
        case InputImage():
            return _decode_image(part, path)
        case InputFile():
            return _decode_file(part, path)
        case InputAudio(input_audio=audio):
            return Media(kind="audio", media_type=_AUDIO_TYPES[audio.format], data=audio.data)
        case _ as never:
            assert_never(never)


def _decode_cache(mark: _Breakpoint | None) -> CacheMark | None:
    if mark is None:
        return None
    return CacheMark("1h" if mark.ttl == "12h" else "5m")


def _decode_image(part: InputImage, path: str) -> Media:
    detail = part.detail if part.detail and part.detail != "auto" else ""
    cache = _decode_cache(part.prompt_cache_breakpoint)
    if part.image_url:
        if not part.image_url.startswith("data:"):
            return Media(kind="image", url=part.image_url, detail=detail, cache=cache)
        found = split_data_url(part.image_url)
        if found is None:
            raise InvalidRequest("a data URL has to read data:TYPE;base64,DATA", param=f"{path}.image_url")
        return Media(kind="image", media_type=found[0], data=found[1], detail=detail, cache=cache)
    if part.file_id:
        return Media(kind="image", file_id=part.file_id, origin=FILE_ORIGIN, detail=detail, cache=cache)
    raise InvalidRequest("an image needs an image_url or a file_id", param=path)


def _decode_file(part: InputFile, path: str) -> Media:
    name, cache = part.filename or "", _decode_cache(part.prompt_cache_breakpoint)
    if part.file_data:
        return read_file(part.file_data, name, f"{path}.file_data", cache)
    if part.file_url:
        return Media(kind="document", url=part.file_url, name=name, cache=cache)
    if part.file_id:
        return Media(kind="document", file_id=part.file_id, origin=FILE_ORIGIN, name=name, cache=cache)
    raise InvalidRequest("a file needs file_data, a file_url or a file_id", param=path)


# --- And back


def encode_part(block: Text | Media) -> dict[str, Any]:
    """Return the part that says *block*.

    Raises:
        InvalidRequest: sound, film, or a file of another vendor.
    """
    if isinstance(block, Text):
        return {"type": "input_text", "text": block.text}
    if block.file_id is not None and block.origin != FILE_ORIGIN:
        raise refuse(f"a file that is stored elsewhere ({describe_media(block)})", NAME)
    if block.kind == "image":
        return _encode_image(block)
    if block.kind == "document":
        return _encode_document(block)
    raise refuse(f"{block.kind} content", NAME)


def _encode_image(media: Media) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "input_image", "detail": media.detail if media.detail in _DETAILS else "auto"}
    if media.file_id is not None:
        return part | {"file_id": media.file_id}
    return part | {"image_url": media.url or make_data_url(media)}


def _encode_document(media: Media) -> dict[str, Any]:
    part = {"type": "input_file"}
    if media.file_id is not None:
        return part | {"file_id": media.file_id}
    if media.url is not None:
        return part | {"file_url": media.url}
    if media.media_type == "text/plain":
        return {"type": "input_text", "text": "\n".join(filter(None, (media.name, media.context, media.data)))}
    # The API wants a name beside the data.
    return part | {"filename": media.name or "document.pdf", "file_data": make_data_url(media)}
