"""The parts of a message's content: text, images, sounds and files. Sans-I/O.

https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages
"""

from collections.abc import Sequence
from typing import Any, Final, assert_never

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.codec import describe_media, refuse
from aiproxyd.formats.openai_chat.wire import (
    NAME,
    AudioPart,
    CacheBreakpoint,
    CacheControl,
    FilePart,
    ImagePart,
    Markable,
    RefusalPart,
    TextPart,
)
from aiproxyd.formats.openai_shared import FILE_ORIGIN, make_data_url, read_file, split_data_url
from aiproxyd.hub import Block, CacheMark, Media, Refusal, Text

Part = TextPart | RefusalPart | ImagePart | AudioPart | FilePart

_AUDIO_TYPES: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_AUDIO_FORMATS: Final = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
_LONG_TTLS: Final = ("1h", "12h")


def decode_content(content: str | Sequence[Part] | None, path: str) -> tuple[Any, ...]:
    """Return the blocks of a message's content; *path* is where it stands.

    Raises:
        InvalidRequest: a part does not say what it holds.
    """
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content),)
    return tuple(_decode_part(part, f"{path}[{index}]") for index, part in enumerate(content))


def _decode_part(part: Part, path: str) -> Text | Refusal | Media:
    match part:
        case TextPart():
            return Text(part.text, read_cache_mark(part))
        case RefusalPart():
            return Refusal(part.refusal)
        case ImagePart():
            return _decode_image(part, path)
        case AudioPart():
            media_type = _AUDIO_TYPES[part.input_audio.format]
            data = part.input_audio.data
            return Media(kind="audio", media_type=media_type, data=data, cache=read_cache_mark(part))
        case FilePart():
            return _decode_file(part, path)
        case _ as never:
            assert_never(never)


def _decode_image(part: ImagePart, path: str) -> Media:
    url, detail, cache = part.image_url.url, part.image_url.detail or "", read_cache_mark(part)
    if not url.startswith("data:"):
        return Media(kind="image", url=url, detail=detail, cache=cache)
    split = split_data_url(url)
    if split is None:
        raise InvalidRequest("a data URL has to be base64", param=f"{path}.image_url.url")
    return Media(kind="image", media_type=split[0], data=split[1], detail=detail, cache=cache)


def _decode_file(part: FilePart, path: str) -> Media:
    file, cache = part.file, read_cache_mark(part)
    name = file.filename or ""
    if file.file_id:
        return Media(kind="document", file_id=file.file_id, origin=FILE_ORIGIN, name=name, cache=cache)
    if file.file_data is None:
        raise InvalidRequest("a file needs file_data or file_id", param=f"{path}.file")
    return read_file(file.file_data, name, f"{path}.file.file_data", cache)


def read_cache_mark(markable: Markable) -> CacheMark | None:
    """Return the cache mark that stands on *markable*, OpenAI's or Anthropic's."""
    mark = markable.cache_control or markable.prompt_cache_breakpoint
    return None if mark is None else make_cache_mark(mark)


def make_cache_mark(mark: CacheControl | CacheBreakpoint) -> CacheMark:
    """Return *mark* with the next of the lifetimes that there are elsewhere."""
    return CacheMark("1h" if mark.ttl in _LONG_TTLS else "5m")


def encode_content(blocks: Sequence[Text | Media], *, can_split: bool) -> str | list[dict[str, Any]]:
    """Return a message's content: a string where one will do.

    Several texts are joined unless the upstream *can_split* them: several imitations take no list where there are only
    texts in it, such as https://api-docs.deepseek.com/api/create-chat-completion.

    Raises:
        InvalidRequest: there is no part for a block.
    """
    texts = [block.text for block in blocks if isinstance(block, Text)]
    if len(texts) == len(blocks) and (len(texts) <= 1 or not can_split):
        return "\n\n".join(texts)
    return [encode_part(block) for block in blocks]


def encode_part(block: Text | Media) -> dict[str, Any]:
    """Return *block* as a part of a user's message.

    Raises:
        InvalidRequest: there is no part for it.
    """
    if isinstance(block, Text):
        return {"type": "text", "text": block.text}
    if block.file_id is not None and block.origin == FILE_ORIGIN:
        return {"type": "file", "file": {"file_id": block.file_id}}
    encoded = None
    match block.kind:
        case "image":
            encoded = encode_image(block)
        case "document":
            encoded = _encode_document(block)
        case "audio":
            encoded = _encode_audio(block)
        case "video":
            pass
        case _ as never:
            assert_never(never)
    if encoded is None:
        raise refuse(describe_media(block), NAME)
    return encoded


def encode_image(image: Media) -> dict[str, Any] | None:
    """Return *image* as a part; None where it is a file of another vendor."""
    url = image.url if image.data is None else make_data_url(image)
    if url is None:
        return None
    return {"type": "image_url", "image_url": {"url": url, "detail": image.detail} if image.detail else {"url": url}}


def _encode_document(document: Media) -> dict[str, Any] | None:
    if document.data is None:
        return None
    match document.media_type:
        case "text/plain":
            text = "\n\n".join(filter(None, (document.name, document.context, document.data)))
            return {"type": "text", "text": text}
        case "application/pdf":
            file = {"filename": document.name or "document.pdf", "file_data": make_data_url(document)}
            return {"type": "file", "file": file}
        case _:
            return None


def _encode_audio(audio: Media) -> dict[str, Any] | None:
    name = _AUDIO_FORMATS.get(audio.media_type)
    if audio.data is None or name is None:
        return None
    return {"type": "input_audio", "input_audio": {"data": audio.data, "format": name}}


def join_texts(blocks: Sequence[Block]) -> tuple[str, list[int]]:
    """Return the one text that an assistant's message has for *blocks*, and where in it each of them begins.

    Texts that follow each other directly are pieces of one, such as those with and without citations; what was said
    before and after something else is not.
    """
    pieces: list[str] = []
    offsets: list[int] = []
    at = 0
    is_apart = False
    for block in blocks:
        piece = "\n\n" if is_apart and at else ""
        is_apart = not isinstance(block, Text)
        if isinstance(block, Text):
            piece += block.text
            pieces.append(piece)
            at += len(piece)
            offsets.append(at - len(block.text))
    return "".join(pieces), offsets
