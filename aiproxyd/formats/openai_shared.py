"""What both OpenAI formats share: errors, lists of models, files in base64, demands on schemas. Sans-I/O.

https://platform.openai.com/docs/guides/error-codes and https://platform.openai.com/docs/guides/structured-outputs
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from aiproxyd.errors import (
    InvalidRequest,
    Kind,
    ProxyError,
    UpstreamError,
    UpstreamKeyRefused,
    UpstreamRefusal,
    kind_of_status,
)
from aiproxyd.formats.base import Format, decode_error_body, decode_list, decode_view, encode_deep, unwrap_array
from aiproxyd.hub import CacheMark, Media, ModelCard

_TYPE_BY_KIND: Final[dict[Kind, str]] = {
    "invalid_request": "invalid_request_error",
    "authentication": "invalid_request_error",
    "billing": "insufficient_quota",
    "permission": "permission_error",
    "not_found": "invalid_request_error",
    "conflict": "invalid_request_error",
    "too_large": "invalid_request_error",
    "rate_limit": "rate_limit_error",
    "internal": "server_error",
    "unimplemented": "server_error",
    "timeout": "server_error",
    "overloaded": "server_error",
}
_STATUS_BY_WORD: Final = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "server_is_overloaded": 503,
    "overloaded_error": 503,
}
"""HTTP status of an error that came in band, by its ``code`` or ``type``."""
_KEY_REFUSED: Final = (401, "401", "invalid_api_key", "authentication_error")
_UNSAID: Final = "the upstream reported an error"
_MAX_TIME_S: Final = 253_402_300_799
"""The end of the year 9999; some imitations give milliseconds."""


MAX_USER_CHARS: Final = 128
MAX_CACHE_KEY_CHARS: Final = 64

FILE_ORIGIN: Final = "openai"
"""Whose the file ids of both formats are."""

_TYPE_BY_SUFFIX: Final = {
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "xml": "text/xml",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
}
_DATA_URL: Final = re.compile(r"data:([^;,]*)(?:;[^;,]*)*;base64,", re.IGNORECASE)
_NO_NAME_CHARS: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_MAX_SCHEMA_NAME_CHARS: Final = 64
_UNSTRICT_KEYWORDS: Final = frozenset(("oneOf", "allOf", "not", "if", "patternProperties", "dependentSchemas"))
"""Keywords that OpenAI's strict mode does not know: https://platform.openai.com/docs/guides/structured-outputs."""


class _ModelEntry(Struct):
    id: str
    created: Any = None
    owned_by: str | None = None


class _ModelList(Struct):
    data: list[Raw]


_models: Final = msgspec.json.Decoder(_ModelList)
_model: Final = msgspec.json.Decoder(_ModelEntry)
_any_json: Final = msgspec.json.Decoder()
_object: Final = msgspec.json.Decoder(dict[str, Raw])


class OpenAIFormat(Format):
    """Base of the two formats of one vendor."""

    @override
    def encode_error(self, error: ProxyError, request_id: str) -> bytes:
        return msgspec.json.encode({"error": render_error(error)})

    @override
    def decode_error(self, status: int, body: bytes) -> UpstreamError:
        message, error = decode_error_body(body)
        if _is_key_refused(error):
            return UpstreamKeyRefused("the upstream refused the gateway's credential")
        refusal = UpstreamRefusal(
            message or f"the upstream answered with status {status}",
            status=status,
            body=unwrap_array(body) if "message" in error else None,
        )
        if error.get("code") == "insufficient_quota":
            refusal.kind = "billing"  # although its status is 429: waiting does not help
        return refusal

    @override
    def decode_model_list(self, body: bytes) -> list[ModelCard]:
        cards: list[ModelCard] = []
        for raw in decode_list(_models, body).data:
            entry = decode_view(_model, raw)
            if entry:
                created, owner = read_time(entry.created), entry.owned_by or ""
                cards.append(ModelCard(name=entry.id, created=created, owner=owner, origin="openai", raw=raw.copy()))
        return cards

    @override
    def encode_model(self, card: ModelCard) -> bytes:
        if card.origin == "openai":
            return bytes(card.raw)
        entry = {"id": card.name, "object": "model", "created": card.created or 0, "owned_by": card.owner or "aiproxyd"}
        return msgspec.json.encode(entry)

    @override
    def encode_model_list(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        return b'{"object":"list","data":[' + b",".join(map(self.encode_model, cards)) + b"]}"


def read_time(created: object) -> int | None:
    """Return a Unix time in seconds; None where it makes no sense."""
    return int(created) if isinstance(created, int | float) and 0 <= created <= _MAX_TIME_S else None


def render_error(error: ProxyError) -> dict[str, Any]:
    """Return the ``error`` object for *error*."""
    param = error.param.removeprefix("$.") if error.param else None  # OpenAI writes `messages[0]`, without a root
    return {"message": error.message, "type": _TYPE_BY_KIND[error.kind], "param": param, "code": error.code}


def _is_key_refused(error: dict[str, Any]) -> bool:
    return any(isinstance(word, str | int) and word in _KEY_REFUSED for word in (error.get("code"), error.get("type")))


def decode_band_error(error: Any) -> UpstreamError:
    """Return what an error inside a stream or a 200 answer stands for.

    *error* is an object with message, type and code, or what an imitation has in its place, mostly the bare message.
    """
    if not isinstance(error, dict):
        error = {"message": error if isinstance(error, str) else None}
    if _is_key_refused(error):
        return UpstreamKeyRefused("the upstream refused the gateway's credential")
    status, message = error.get("status_code") or error.get("code"), error.get("message")
    if not (isinstance(status, int) and 400 <= status < 600):
        status = _find_status(error.get("code")) or _find_status(error.get("type")) or 502
    word = _TYPE_BY_KIND[kind_of_status(status)]  # events of the Responses API have none, error answers always
    body = encode_deep({"error": {"message": "", "type": word, "param": None, "code": None} | error})
    return UpstreamRefusal(_say(message) or _UNSAID, status=status, body=body)


def _say(message: object) -> str:
    try:
        return str(message) if message else ""
    except RecursionError:
        return ""


def _find_status(word: object) -> int | None:
    return _STATUS_BY_WORD.get(word) if isinstance(word, str) else None


def shorten(label: str, most: int) -> str:
    """Return *label*, or where it is too long another that is as good to tell it from the rest."""
    return label if len(label) <= most else sha256(label.encode()).hexdigest()


def split_data_url(url: str) -> tuple[str, str] | None:
    """Return media type and base64 of a data URL; None where *url* is none."""
    match = _DATA_URL.match(url)
    return (match[1].lower(), url[match.end() :]) if match else None


def make_data_url(media: Media) -> str:
    """Return the data URL that holds *media*, which is there in base64."""
    return f"data:{media.media_type};base64,{media.data}"


def read_file(file_data: str, name: str, param: str, cache: CacheMark | None = None) -> Media:
    """Return the file that *file_data* holds: a data URL, or bare base64 whose type only the file's name tells.

    Raises:
        InvalidRequest: no type can be found, or the file is said to be text and is not.
    """
    media_type, data = split_data_url(file_data) or (
        _TYPE_BY_SUFFIX.get(name.rpartition(".")[2].lower(), ""),
        file_data,
    )
    if not media_type:
        raise InvalidRequest(
            "a file needs a media type: send it as a data URL, or with a filename that has a known extension",
            param=param,
        )
    kind: Literal["image", "document", "audio", "video"] = "document"
    match media_type.partition("/")[0]:
        case "text":
            media_type, data = "text/plain", _read_text(data, param)
        case "image" | "audio" | "video" as kind:
            pass
        case _:
            pass
    return Media(kind=kind, media_type=media_type, data=data, name=name, cache=cache)


def _read_text(data: str, param: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise InvalidRequest("a text file has to be base64 of UTF-8", param=param) from exc


def clean_schema_name(name: str) -> str:
    """Return *name* as the name of an answer's schema, which the API demands."""
    return _NO_NAME_CHARS.sub("_", name)[:_MAX_SCHEMA_NAME_CHARS] or "response"


def add_object_type(schema: Raw) -> Raw:
    """Return the schema of a tool's arguments with the ``type`` that the API demands at its root."""
    text = bytes(schema)
    if text.startswith((b'{"type":"object"', b'{"type": "object"')):
        return schema
    fields = decode_view(_object, text)
    if fields is None or "type" in fields:
        return schema
    return Raw(msgspec.json.encode({"type": "object", **fields}))


def is_strict_schema(schema: Raw) -> bool:
    """Tell whether strict mode accepts *schema*: every object closed, with all of its properties required."""
    try:
        return _is_strict(decode_view(_any_json, bytes(schema)))
    except (RecursionError, TypeError):  # hundreds of levels, or a `required` that is no list
        return False


def _is_strict(schema: Any) -> bool:
    if not isinstance(schema, dict) or not _UNSTRICT_KEYWORDS.isdisjoint(schema):
        return False
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    if properties or schema.get("type") == "object":
        required = set(schema.get("required") or ())
        if schema.get("additionalProperties") is not False or not all(name in required for name in properties):
            return False
    return all(map(_is_strict, _find_subschemas(schema, properties)))


def _find_subschemas(schema: dict[str, Any], properties: dict[str, Any]) -> list[Any]:
    found = list(properties.values())
    for key in ("$defs", "definitions"):
        found += schema[key].values() if isinstance(schema.get(key), dict) else ()
    found += schema["anyOf"] if isinstance(schema.get("anyOf"), list) else ()
    found += [schema["items"]] if "items" in schema else ()
    return found
