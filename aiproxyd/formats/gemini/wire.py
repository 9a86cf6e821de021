"""What goes over the wire, in the vendor's words: https://ai.google.dev/api/caching#Content. Sans-I/O.

The same structs read and write, requests and answers. Parts that only Google understands are `Raw`.
"""

from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL, decode_body, decode_view
from aiproxyd.hub import Opaque

NAME: Final = "gemini"

P = TypeVar("P")
U = TypeVar("U")
T = TypeVar("T")


class Blob(Struct, rename="camel", omit_defaults=True):
    """Bytes in the request itself."""

    data: str
    """Base64. Google's SDK for Python writes the URL-safe alphabet."""
    mime_type: str | None = None


class FileData(Struct, rename="camel", omit_defaults=True):
    """Bytes elsewhere: an uploaded file, a bucket, or any URL."""

    file_uri: str
    mime_type: str | None = None


class FunctionCall(Struct, rename="camel", omit_defaults=True):
    """The model wants a function of the caller's run."""

    name: str = ""
    args: Raw = NULL
    id: str | int | None = None
    """From Gemini 3 on."""


class FunctionResponse(Struct, Generic[P], rename="camel", omit_defaults=True):
    """What a function answered."""

    name: str = ""
    response: Raw = NULL
    """An object; by convention with the key ``output`` or ``error``."""
    parts: list[P] | None = None
    """Media, from Gemini 3 on."""
    id: str | int | None = None


class MediaPart(Struct, rename="camel", omit_defaults=True):
    """A part of a function's response."""

    inline_data: Blob | None = None
    file_data: FileData | None = None


class Part(Struct, rename="camel", omit_defaults=True):
    """One piece of a content; exactly one of its data fields is set."""

    text: str | None = None
    thought: bool | None = None
    """The text is a summary of the model's thoughts."""
    thought_signature: str | None = None
    """Base64; on any kind of part."""
    function_call: FunctionCall | None = None
    function_response: FunctionResponse[MediaPart] | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    video_metadata: Raw = NULL
    """Which part of a film is meant, and how many frames of it."""
    media_resolution: Raw = NULL


class Content(Struct, Generic[P], omit_defaults=True):
    """What one side says."""

    role: str | None = None
    parts: list[P] | None = None


AnyPart = Part | Raw
"""A part as it is written: ours, or as its origin made it."""

SERVER_PARTS: Final = frozenset(("executableCode", "codeExecutionResult", "toolCall", "toolResponse"))
"""Parts of tools that Google runs itself; echoed untouched."""
_DESCRIPTIONS: Final = frozenset(("thought", "thoughtSignature", "videoMetadata", "mediaResolution", "partMetadata"))
"""Fields of a part that say something about its data."""

_BRACE, _QUOTE = b'{"'

_fields: Final = msgspec.json.Decoder(dict[str, Raw])


def read_opaque(raw: Raw) -> Opaque | None:
    """Return a part that nothing else understands, by the name of its data; None where it holds none."""
    kind = next((key for key in decode_view(_fields, raw) or () if key not in _DESCRIPTIONS), None)
    return Opaque(NAME, kind, clean(raw)) if kind else None


def clean(raw: Raw) -> Raw:
    """Return *raw* on one line, and as valid UTF-8: msgspec does not look into what it leaves undecoded."""
    return Raw(msgspec.json.format(str(raw, "utf-8", "replace"), indent=-1).encode())


def is_object(raw: Raw) -> bool:
    """Tell whether *raw*, valid JSON, is an object."""
    return memoryview(raw)[0] == _BRACE


def is_string(raw: Raw) -> bool:
    """Tell whether *raw*, valid JSON, is a string."""
    return memoryview(raw)[0] == _QUOTE


def decode_at(decoder: "msgspec.json.Decoder[T]", raw: Raw, path: str) -> T:
    """Decode a part of a caller's body, which stands at *path*.

    Raises:
        InvalidRequest: a wrong type; ``param`` has the path.
    """
    try:
        return decode_body(decoder, raw)
    except InvalidRequest as exc:
        param = path + (exc.param or "$")[1:]
        raise InvalidRequest(f"{exc.message.partition(' - at `')[0]} - at `{param}`", param=param) from exc


class Candidate(Struct, Generic[P], rename="camel", omit_defaults=True):
    """One answer of perhaps several. What is not needed to understand it may be of any type."""

    content: Content[P] | None = None
    finish_reason: Any = None
    finish_message: Any = None
    index: Any = None
    """Left out where it is 0."""
    citation_metadata: Raw = NULL
    grounding_metadata: Raw = NULL
    logprobs_result: Raw = NULL


class PromptFeedback(Struct, rename="camel", omit_defaults=True):
    """Why there is no answer at all."""

    block_reason: Any = None
    block_reason_message: Any = None


class Answer(Struct, Generic[P, U], rename="camel", omit_defaults=True):
    """A whole answer, and each event of a stream."""

    candidates: list[Candidate[P]] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: U | None = None
    model_version: Any = None
    response_id: Any = None
    error: Any = None
