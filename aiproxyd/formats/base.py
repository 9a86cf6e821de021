"""What every wire format offers to the rest of the house. Sans-I/O."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct
from typing_extensions import override

from aiproxyd.errors import InvalidRequest, ProxyError, UpstreamError, UpstreamGarbage
from aiproxyd.hub import ModelCard, Usage
from aiproxyd.splice import JSON_ERRORS, Edit, Span, find_members
from aiproxyd.sse import SSEvent, decode_event, drop_event, edge_events

MAX_MESSAGE_CHARS: Final = 2048
"""Longest text of an upstream that is quoted in an error of ours."""

NULL: Final = Raw(b"null")
"""A value that is left out, undecoded. What may be misshapen is kept so, for its neighbours to stay readable."""

MAX_DIGITS: Final = 18
"""Longest number of a query string that is read."""

_PATH: Final = re.compile(r" - at `(\$.*)`$")
_name: Final = msgspec.json.Decoder(str)
_any_json: Final = msgspec.json.Decoder()
_raws: Final = msgspec.json.Decoder(list[Raw])

T = TypeVar("T")


class Peek(Struct):
    """The few fields of a request that steer the byte path; the rest of the body is only checked to be JSON."""

    model: str
    """Empty in formats whose path names the model."""
    stream: bool | None = False

    @property
    def candidates(self) -> int:
        """How many answers the request asks for; a stream is complete when each of them is."""
        return 1

    @property
    def wants_usage(self) -> bool:
        """Whether the stream reports usage without our asking for it."""
        return True


class Tapped(NamedTuple):
    """What was read from a whole answer on its way through."""

    usage: Usage | None = None
    error: UpstreamError | None = None
    """An error that came with a success status."""


class StreamTap(ABC):
    """Reads along on a stream that is relayed as bytes: usage, and whether it came to its end. One per stream.

    What it cannot read it passes over; it never fails the call.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.is_complete = False
        """The format's proof that nothing is missing has gone by, or its own in-band error."""
        self.is_terminal = False
        """The format's very last event has gone by: whatever the upstream still does, nothing more will come."""
        self.is_failed = False
        """What went by is the upstream's own in-band error."""

    @abstractmethod
    def feed(self, block: bytes) -> bytes:
        """Look at *block*, whole events, and return what of it goes to the caller."""

    def finish(self) -> None:  # noqa: B027  # most have read everything by then
        """Read what could only be read behind the last block."""


class EventTap(StreamTap):
    """A tap on server-sent events. An ordinary delta costs it a few substring searches."""

    words: ClassVar[tuple[bytes, ...]]
    """An event in which none of these stands is not decoded. Quotes are escaped inside JSON strings, so no model can
    write a word that has quotes."""

    @override
    def feed(self, block: bytes) -> bytes:
        for piece in edge_events(block):
            for word in self.words:
                if word in piece:
                    event = decode_event(piece)
                    if event is not None and not self.look_at(event):
                        block = drop_event(block, piece)
                    break
        return block

    @abstractmethod
    def look_at(self, event: SSEvent) -> bool:
        """Read one event; return whether the caller gets to see it."""


class Format(ABC):
    """One wire protocol of bodies and streams. Stateless: one instance serves all requests."""

    name: ClassVar[str]
    stream_error_closes: ClassVar[bool] = False
    """Whether a failed stream is cut behind its in-band error, because clients of the format overlook the latter."""

    @abstractmethod
    def peek(self, body: bytes) -> Peek:
        """Read what steers the byte path from a request body.

        Raises:
            InvalidRequest: malformed JSON or a wrong type; ``param`` has the path.
        """

    def edits(self, body: bytes, *, model: str | None, ask_usage: bool) -> list[Edit]:
        """Return the edits that put *model* into a request body (None: leave it) and make its stream report usage.

        Raises:
            InvalidRequest: a key stands twice.
        """
        del ask_usage  # only openai-chat has to be asked
        span = find_members(body).get("model") if model is not None else None
        return [Edit(*span, msgspec.json.encode(model))] if span else []

    def find_models(self, body: bytes) -> list[str]:
        """Return every model that a request body names, for callers who may not use all.

        Raises:
            InvalidRequest: a key stands twice, or is one that some upstream takes for another way to name a model.
        """
        return [read_name(body, span) for span in find_model_members(body)]

    @abstractmethod
    def encode_error(self, error: ProxyError, request_id: str) -> bytes:
        """Return the body of an error answer."""

    @abstractmethod
    def encode_stream_error(self, error: ProxyError, request_id: str) -> bytes:
        """Return the bytes that report *error* inside a started stream."""

    @abstractmethod
    def decode_error(self, status: int, body: bytes) -> UpstreamError:
        """Decode the error answer of an upstream; takes any bytes."""

    @abstractmethod
    def read_answer(self, body: bytes) -> Tapped:
        """Tap a whole answer that came with a success status.

        Raises:
            msgspec.DecodeError: *body* is not JSON at all.
        """

    @abstractmethod
    def stream_tap(self, *, hide_usage: bool = False, candidates: int = 1) -> StreamTap:
        """Return a tap for one stream of so many *candidates*; *hide_usage* takes out what only our asking put in."""

    @abstractmethod
    def read_stream_error(self, block: bytes) -> UpstreamError | None:
        """Return the error that a stream begins with, where its first events are one."""

    @abstractmethod
    def decode_model_list(self, body: bytes) -> list[ModelCard]:
        """Decode an upstream's list of models.

        Raises:
            UpstreamGarbage: it is none.
        """

    @abstractmethod
    def encode_model(self, card: ModelCard) -> bytes:
        """Return one model as the format shows it: the upstream's own entry where it is of this format."""

    @abstractmethod
    def encode_model_list(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        """Return the page of the list of models that *query* asks for.

        Raises:
            InvalidRequest: *query* does not make sense.
        """


def find_model_members(body: bytes, within: Span | None = None) -> list[Span]:
    """Return where the object that fills *within* names its model: no place, or one.

    Raises:
        InvalidRequest: it does so in a way that parsers do not agree about, or names several.
    """
    members = find_members(body, within)
    for key in members:
        # Go's decoder takes `Model` for `model`; OpenRouter knows `models`, Anthropic `fallbacks`.
        if key != "model" and key.casefold() in ("model", "models", "fallbacks"):
            raise InvalidRequest(
                f"this key is limited to certain models: {key!r} cannot be used with it", param=f"$.{key}"
            )
    return [members["model"]] if "model" in members else []


def read_name(body: bytes, span: Span) -> str:
    """Return the string that fills *span*.

    Raises:
        InvalidRequest: it is none.
    """
    return decode_request(_name, body[span.start : span.end])


def decode_request(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Decode a caller's body.

    Raises:
        InvalidRequest: malformed JSON or a wrong type; ``param`` has the path.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        match = _PATH.search(str(exc))
        raise InvalidRequest(f"invalid request body: {exc}", param=match[1] if match else None) from exc
    except JSON_ERRORS as exc:
        text = str(exc).removeprefix("JSON is malformed: ")
        raise InvalidRequest(f"malformed JSON: {text}") from exc


def decode_list(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Decode an upstream's list of models.

    Raises:
        UpstreamGarbage: it is none.
    """
    view = decode_view(decoder, body)
    if view is None:
        raise UpstreamGarbage("the upstream's list of models is none")
    return view


def read_number(query: Mapping[str, str], name: str, default: int) -> int:
    """Return a positive whole number of the query string.

    Raises:
        InvalidRequest: it is none.
    """
    text = query.get(name, "")
    if not text:
        return default
    # int() refuses thousands of digits with an error of its own.
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS or int(text) < 1:
        raise InvalidRequest(f"{name} must be a positive whole number, not {text[:40]!r}", param=name)
    return int(text)


def decode_view(decoder: "msgspec.json.Decoder[T]", data: bytes) -> T | None:
    """Decode what an upstream sent into a view; None where it does not fit or is no JSON."""
    try:
        return decoder.decode(data)
    except JSON_ERRORS:
        return None


def is_whole_event(piece: bytes) -> bool:
    """Tell whether *piece*, which ends with its stream and without a blank line, is an event and not half of one."""
    event = decode_event(piece)
    return event is not None and (event.data == b"[DONE]" or decode_view(_any_json, event.data) is not None)


def decode_answer(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T | None:
    """Decode a whole answer into a view; None where it is JSON of another shape.

    Raises:
        msgspec.DecodeError: *body* is not JSON at all.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        return None
    except (UnicodeDecodeError, RecursionError) as exc:
        raise msgspec.DecodeError(str(exc)) from exc


def unwrap_array(body: bytes) -> bytes:
    """Return the only element of an array body: Google's backends wrap their error objects in one."""
    elements = decode_view(_raws, body)
    return bytes(elements[0]) if elements else body


def decode_error_body(body: bytes) -> tuple[str, dict[str, Any]]:
    """Return the message of an upstream's error body and its ``error`` object, {} where it has none; takes any bytes.

    Understands what the APIs and their imitations send: ``{"error": {"message"}}``, ``{"error": "text"}``, FastAPI's
    ``{"detail": [{"msg"}]}``, ``{"message"}``, any of them in a one-element array, and plain text. HTML is not quoted.
    """
    try:
        answer = _any_json.decode(body)
    except JSON_ERRORS:
        text = body.decode("utf-8", "replace").strip()
        return ("" if text.startswith("<") else text[:MAX_MESSAGE_CHARS]), {}
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict):
        return "", {}
    error = answer.get("error")
    return _find_message(answer)[:MAX_MESSAGE_CHARS], error if isinstance(error, dict) else {}


def _find_message(answer: dict[str, Any]) -> str:
    candidates: list[object] = [answer.get("error"), answer.get("detail"), answer.get("message")]
    for candidate in candidates:
        match candidate:
            case {"message": str(text)} | [{"msg": str(text)}, *_] | str(text) if text:
                return text
            case _:
                pass
    return ""
