"""What every wire format offers to the rest of the house. Sans-I/O."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta, Raw, Struct
from typing_extensions import override

from aiproxyd.capabilities import Capabilities
from aiproxyd.errors import InvalidRequest, ProxyError, UpstreamError, UpstreamGarbage
from aiproxyd.formats.codec import Losses, StreamDecoder, StreamEncoder, Traits
from aiproxyd.formats.conversations import Conversations
from aiproxyd.hub import EmbeddingRequest, Embeddings, ModelCard, Request, Response, Usage
from aiproxyd.splice import JSON_ERRORS, Edit, Span, find_members
from aiproxyd.sse import SSEvent, decode_event, drop_event, edge_events

MAX_MESSAGE_CHARS: Final = 2048
"""Longest text of an upstream that is quoted in an error of ours."""

NULL: Final = Raw(b"null")
"""A value that is left out, undecoded. What may be misshapen is kept so, for its neighbours to stay readable."""

SAYS_NOTHING: Final = (NULL, Raw(b"false"), Raw(b'""'), Raw(b"[]"), Raw(b"{}"))
"""Values that are no loss."""

Tokens: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
"""A count of tokens as an upstream reports it. One below zero, or beyond what JSON's numbers hold exactly, is none:
somebody is billed by it."""

MAX_DIGITS: Final = 18
"""Longest number of a query string that is read."""

_PATH: Final = re.compile(r" - at `(\$.*)`$")
_name: Final = msgspec.json.Decoder(str)
_any_json: Final = msgspec.json.Decoder()
_members: Final = msgspec.json.Decoder(dict[str, Raw])
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9._~/:@-]*")
_raws: Final = msgspec.json.Decoder(list[Raw])

T = TypeVar("T")

Words: TypeAlias = Annotated[str, Meta(min_length=1)]
NoItems: TypeAlias = Annotated[list[Any], Meta(max_length=0)] | None
"""What says nothing."""


class Plain(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """An object of a caller's that holds nothing but what is read into a ``hub.Request``."""


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


MAX_SEARCHED_BYTES: Final = 2048
"""Longest block of events that is searched as one before it is taken apart."""


class EventTap(StreamTap):
    """A tap on server-sent events. An ordinary delta costs it a few substring searches."""

    words: ClassVar[tuple[bytes, ...]]
    """An event in which none of these stands is not decoded. Quotes are escaped inside JSON strings, so no model can
    write a word that has quotes."""

    @override
    def feed(self, block: bytes) -> bytes:
        # Of a longer one, only the edges are looked at anyway.
        if len(block) <= MAX_SEARCHED_BYTES and not _has_any(self.words, block):
            return block
        for piece in edge_events(block):
            if _has_any(self.words, piece):
                event = decode_event(piece)
                if event is not None and not self.look_at(event):
                    block = drop_event(block, piece)
        return block

    @abstractmethod
    def look_at(self, event: SSEvent) -> bool:
        """Read one event; return whether the caller gets to see it."""


def _has_any(words: tuple[bytes, ...], text: bytes) -> bool:
    for word in words:  # noqa: SIM110  # a generator takes three times as long
        if word in text:
            return True
    return False


class Format(ABC):
    """One wire protocol of bodies and streams. Stateless: one instance serves all requests."""

    name: ClassVar[str]
    stream_error_closes: ClassVar[bool] = False
    """Whether a failed stream is cut behind its in-band error, because clients of the format overlook the latter."""
    traits: ClassVar[Traits]
    counts_tokens: ClassVar[bool] = False
    """Whether an upstream can be asked in it how many tokens a request comes to."""
    marks: ClassVar[tuple[bytes, ...]]
    """One of these stands in every body whose conversation was led with models of other vendors as well, and seldom in
    any other."""
    members: ClassVar[Mapping[str, tuple[str, ...]]]
    """The members of a body that say the ``turns``, and where those can change, ``reasoning`` and ``tools``."""
    conversations: ClassVar[Conversations]
    """How they are told apart."""

    volatile_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields of a body that say nothing about the answer."""
    volatile_texts: ClassVar[tuple[str, ...]] = ()
    """How texts of the system's begin that say nothing about the answer where nothing but ``NAME=VALUE;`` follows, and
    change from call to call."""
    telling_headers: ClassVar[tuple[str, ...]] = ()
    """Headers that say something about the answer."""

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

    def find_conversation(self, body: bytes) -> bytes:
        """Return what all requests of one conversation have in common; empty where *body* begins none."""
        return self.conversations.find(body)

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
    def decode_request(self, body: bytes) -> Request:
        """Decode a caller's request; its turns are arranged.

        Raises:
            InvalidRequest: malformed, not allowed by the format, or content that no other format could carry; ``param``
                has the path.
        """

    def is_plain(self, body: bytes) -> bool:
        """Tell whether all that *body*, which `decode_request` could decode, means is in the request that it returned.

        Of such bodies, and of no others, those that read alike mean the same, whatever format they are in.
        """
        del body
        return False

    def stores(self, body: bytes) -> bool:
        """Tell whether *body*, which `decode_request` could decode, asks its vendor to keep the answer for later."""
        del body
        return False

    def refuse_state(self, asked: Request) -> None:  # noqa: B027  # most refuse it when they decode
        """Refuse what *asked*, decoded by this format, goes on from and only its own vendor has.

        Raises:
            InvalidRequest: there is something; ``param`` has the path.
        """

    @abstractmethod
    def encode_request(self, request: Request, capabilities: Capabilities, losses: Losses) -> bytes:
        """Return the body that asks an upstream for *request*, as `aiproxyd.conversion` has prepared it.

        Raises:
            InvalidRequest: the format has no place for a part of its content.
        """

    @abstractmethod
    def request_path(self, request: Request) -> tuple[str, str]:
        """Return path, as on our own surface, and raw query that *request* goes to."""

    @abstractmethod
    def decode_response(self, body: bytes) -> Response:
        """Decode the whole answer of an upstream.

        Raises:
            UpstreamGarbage: it is none.
            UpstreamError: it is an error, in spite of its success status.
        """

    @abstractmethod
    def encode_response(self, response: Response, asked: Request) -> bytes:
        """Return the whole answer to *asked*, a request that was decoded by this format."""

    @abstractmethod
    def stream_decoder(self, candidates: int = 1) -> StreamDecoder:
        """Return a decoder for the stream of one answer of an upstream, with so many *candidates*."""

    @abstractmethod
    def stream_encoder(self, asked: Request, request_id: str) -> StreamEncoder:
        """Return an encoder for the stream that answers *asked*, a request that was decoded by this format."""

    def rewrite(self, body: bytes, written: bytes, changed: Iterable[str], losses: Losses) -> bytes:
        """Return a caller's *body* with what *changed*, fields of ``hub.Request``, as it stands in the body *written*.

        What is left out for that, beside turns, is named in *losses*.
        """
        kept, anew = _members.decode(body), _members.decode(written)
        for field in changed:
            for name in self.members.get(field, ()):
                if name in anew:
                    kept[name] = anew[name]
                elif kept.pop(name, None) is not None and field != "turns":
                    losses.drop(name)
        return msgspec.json.encode(kept)

    def decode_count_request(self, body: bytes) -> Request:
        """Decode a caller's wish to know how many tokens a request comes to.

        Raises:
            InvalidRequest: it is none.
        """
        return self.decode_request(body)

    def encode_count_request(
        self, request: Request, capabilities: Capabilities, losses: Losses
    ) -> tuple[str, bytes] | None:
        """Return path and body that ask an upstream to count; None where the format has no words for that.

        Raises:
            InvalidRequest: the format has no place for a part of its content.
        """
        del request, capabilities, losses
        return None

    def decode_count(self, body: bytes) -> int:
        """Decode how many tokens an upstream has counted.

        Raises:
            UpstreamGarbage: it does not say.
        """
        del body
        raise UpstreamGarbage("the upstream has counted no tokens")

    def encode_count(self, tokens: int) -> bytes:
        """Return the answer to a caller who has asked for a count."""
        return msgspec.json.encode({"input_tokens": tokens})

    def decode_embedding_request(self, body: bytes, path: str) -> EmbeddingRequest:
        """Decode a caller's wish for embeddings, sent to *path*.

        Raises:
            InvalidRequest: it is none, or could mean nothing to another vendor's model.
        """
        del body
        raise InvalidRequest(f"there are no embeddings at {path}")

    def encode_embedding_request(self, request: EmbeddingRequest) -> tuple[str, bytes] | None:
        """Return path and body that ask an upstream for embeddings; None where the format has none."""
        del request
        return None

    def decode_embeddings(self, body: bytes) -> Embeddings:
        """Decode an upstream's embeddings.

        Raises:
            UpstreamGarbage: it has sent none.
        """
        del body
        raise UpstreamGarbage("the upstream's answer holds no embeddings")

    def encode_embeddings(self, vectors: Embeddings, asked: EmbeddingRequest) -> bytes:
        """Return the answer to *asked*, which was decoded by this format."""
        raise NotImplementedError

    def error_status(self, error: ProxyError) -> int:
        """Return the HTTP status that tells *error* in this format."""
        return error.status

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
    return decode_body(_name, body[span.start : span.end])


def decode_body(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
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


def check_text(body: bytes) -> bytes:
    """Return *body*, which is UTF-8 throughout: msgspec does not look into what it leaves undecoded.

    Raises:
        InvalidRequest: it is not.
    """
    try:
        if not body.isascii():
            body.decode()
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"malformed JSON: {exc}") from exc
    return body


class _Count(Struct):
    input_tokens: Tokens


_count: Final = msgspec.json.Decoder(_Count)


def decode_input_tokens(body: bytes) -> int:
    """Decode ``{"input_tokens": N}``.

    Raises:
        UpstreamGarbage: it is none.
    """
    count = decode_view(_count, body)
    if count is None:
        raise UpstreamGarbage("the upstream has counted no tokens")
    return count.input_tokens


def name_members(raw: bytes, besides: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of the members of *raw*, an object, that are not null, but for those *besides*."""
    members = decode_view(_members, raw) or {}
    return tuple(name for name, value in members.items() if name not in besides and value != NULL)


def find_unknown(place: str, raw: bytes, known: Collection[str]) -> dict[str, Raw]:
    """Return the members of *raw*, an object that stands at *place*, that say something and are not *known*."""
    members = decode_view(_members, raw) or {}
    return {
        f"{place}.{name}": value for name, value in members.items() if name not in known and value not in SAYS_NOTHING
    }


def encode_deep(value: object) -> bytes | None:
    """Return the JSON text of what an upstream sent; None where its brackets stand too deep inside one another."""
    try:
        return msgspec.json.encode(value)
    except RecursionError:
        return None


def quote_model(name: str) -> str:
    """Return a model's *name* as a part of a path; ``/``, ``:`` and ``@`` belong to names."""
    return name if _SAFE_NAME.fullmatch(name) else quote(name, safe="/:@")


def keep_members(body: bytes, names: Collection[str]) -> bytes:
    """Return the JSON object *body* with nothing but the members *names*."""
    return msgspec.json.encode({name: raw for name, raw in _members.decode(body).items() if name in names})


def decode_list(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Decode an upstream's list of models.

    Raises:
        UpstreamGarbage: it is none.
    """
    try:
        # Its entries, which are passed on as they are, are not decoded.
        view = decode_view(decoder, check_text(body))
    except InvalidRequest:
        view = None
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
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            _any_json.decode(body)  # it stops at the first thing that does not fit, whatever follows
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
