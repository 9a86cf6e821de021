"""Media and signatures, which stand in requests and answers alike. Sans-I/O."""

import base64
import binascii
from typing import Final, Literal

from msgspec import Raw
from msgspec.structs import replace

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL
from aiproxyd.formats.codec import refuse
from aiproxyd.formats.gemini.wire import NAME, Blob, FileData, MediaPart, Part
from aiproxyd.hub import Media, Seal
from aiproxyd.seals import unwrap_base64, wrap_base64

PLAIN_TEXT: Final = "text/plain"

_TO_STANDARD: Final = str.maketrans("-_", "+/")
_KINDS: Final[dict[str, Literal["image", "audio", "video"]]] = {"image": "image", "audio": "audio", "video": "video"}
_GOOGLE: Final = "https://generativelanguage.googleapis.com/"
_TYPES_BY_SUFFIX: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "gif": "image/gif",
    "pdf": "application/pdf",
    "txt": PLAIN_TEXT,
    "mp3": "audio/mp3",
    "wav": "audio/wav",
    "mp4": "video/mp4",
    "webm": "video/webm",
}


def to_standard(data: str) -> str:
    """Return base64 of either alphabet, padded or not, in the standard alphabet and padded."""
    if "-" in data or "_" in data:
        data = data.translate(_TO_STANDARD)
    missing = -len(data) % 4
    return data + "=" * missing if missing else data


def read_media(part: Part | MediaPart) -> Media | None:
    """Return the media that *part* holds; None where it holds none.

    Raises:
        InvalidRequest: a text document that is no text, or data that do not say what they are.
    """
    if part.inline_data is not None:
        media = _read_blob(part.inline_data)
    elif part.file_data is not None:
        media = _read_file(part.file_data)
    else:
        return None
    extensions = _read_extensions(part) if isinstance(part, Part) else {}
    return replace(media, extensions=extensions) if extensions else media


def _read_extensions(part: Part) -> dict[str, Raw]:
    described = {"videoMetadata": part.video_metadata, "mediaResolution": part.media_resolution}
    return {name: raw for name, raw in described.items() if raw != NULL}


def _read_blob(blob: Blob) -> Media:
    media_type, data = blob.mime_type, to_standard(blob.data)
    if not media_type:
        raise InvalidRequest("inlineData needs a mimeType")
    if media_type == PLAIN_TEXT:
        try:
            data = base64.b64decode(data).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError) as exc:
            raise InvalidRequest("a document of type text/plain is not base64 of UTF-8") from exc
    return Media(kind=_kind_of(media_type), media_type=media_type, data=data)


def _read_file(file: FileData) -> Media:
    media_type, uri = file.mime_type or "", file.file_uri
    if uri.startswith(("https://", "http://")) and not uri.startswith(_GOOGLE):
        return Media(kind=_kind_of(media_type or _guess_type(uri)), media_type=media_type, url=uri)
    return Media(kind=_kind_of(media_type), media_type=media_type, file_id=uri, origin=NAME)


def _kind_of(media_type: str) -> Literal["image", "document", "audio", "video"]:
    return _KINDS.get(media_type.partition("/")[0], "document")


def _guess_type(url: str) -> str:
    path = url.partition("?")[0].partition("#")[0]
    return _TYPES_BY_SUFFIX.get(path.rpartition(".")[2].lower(), "")


def write_media(media: Media, *, fetches_urls: bool) -> MediaPart:
    """Return the part that holds *media*; *fetches_urls*: whoever reads it gets what is behind a URL himself.

    Raises:
        InvalidRequest: it cannot be said.
    """
    if media.data is not None:
        return MediaPart(inline_data=_write_blob(media, media.data))
    if media.url is not None:
        return MediaPart(file_data=_write_url(media, media.url, fetches_urls=fetches_urls))
    if media.file_id is None or media.origin != NAME:
        raise refuse(f"a file that was uploaded to {media.origin or 'another vendor'}", NAME)
    return MediaPart(file_data=FileData(media.file_id, media.media_type or None))


def _write_blob(media: Media, data: str) -> Blob:
    if not media.media_type:
        raise InvalidRequest(f"the {media.kind} has no media type, which this model needs")
    if media.media_type == PLAIN_TEXT:
        data = base64.b64encode(data.encode()).decode()
    return Blob(data, media.media_type)


def _write_url(media: Media, url: str, *, fetches_urls: bool) -> FileData:
    media_type = media.media_type or _guess_type(url)
    if not fetches_urls:
        raise InvalidRequest(f"this model does not fetch the {media.kind} at a URL: send it in base64")
    if not media_type:
        raise InvalidRequest(f"the type of the {media.kind} does not show in its URL: send it in base64")
    return FileData(url, media_type)


def read_signature(signature: str) -> Seal:
    """Return the seal that a caller sends back: one that was wrapped here, or Gemini's own."""
    return unwrap_base64(signature) or own_seal(signature)


def own_seal(signature: str) -> Seal:
    """Return the seal that Gemini itself made; base64 in either alphabet."""
    return Seal(NAME, "signature", to_standard(signature))


def write_signature(seal: Seal | None) -> str | None:
    """Return *seal* as a caller gets to see it: Gemini's own as it is, any other wrapped."""
    if seal is None:
        return None
    # The SDK refuses an answer with a signature that is no base64.
    return seal.data if seal.origin == NAME and _is_base64(seal.data) else wrap_base64(seal)


def _is_base64(data: str) -> bool:
    try:
        return bool(base64.b64decode(data, validate=True))
    except ValueError:
        return False
