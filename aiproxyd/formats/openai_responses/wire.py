"""The pieces that requests, answers and streams of the Responses API share, in its own field names. Sans-I/O.

https://platform.openai.com/docs/api-reference/responses/object
"""

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from aiproxyd.errors import InvalidRequest
from aiproxyd.formats.base import NULL, decode_body, decode_view
from aiproxyd.hub import Citation, Reasoning, Seal, Text, TokenLogprob
from aiproxyd.seals import unwrap, wrap

NAME: Final = "openai-responses"
BLANK_LINE: Final = "\n\n"
"""Between the texts of several parts that become one."""

T = TypeVar("T")


class Annotation(Struct):
    """Where a piece of an ``output_text`` comes from; flat, unlike in chat completions."""

    type: str = ""
    url: str = ""
    title: str = ""
    filename: str = ""
    start_index: int | None = None
    end_index: int | None = None


class SummaryText(Struct):
    """A ``summary_text`` or ``reasoning_text`` part of a reasoning item."""

    text: str = ""


class ReasoningItem(Struct):
    """An item of type ``reasoning``; agents send its ``content`` back as null."""

    id: str | None = None
    summary: list[SummaryText] | None = None
    content: list[SummaryText] | None = None
    encrypted_content: str | None = None

    @property
    def text(self) -> str:
        """What is shown of the thought: the summaries, else the thought itself, as open models give it."""
        return join_texts(part.text for part in self.summary or self.content or ())


class _Logprob(Struct):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top_logprobs: "tuple[_Logprob, ...] | None" = None


_annotations: Final = msgspec.json.Decoder(list[Raw])
_annotation: Final = msgspec.json.Decoder(Annotation)
_logprobs: Final = msgspec.json.Decoder(list[_Logprob])


def join_texts(texts: Iterable[str]) -> str:
    """Return *texts* as one, with blank lines between those that are not empty."""
    return BLANK_LINE.join(filter(None, texts))


def as_text(value: object) -> str:
    """Return *value*, which should be a string, as one."""
    return value if isinstance(value, str) else ""


def decode_at(decoder: "msgspec.json.Decoder[T]", raw: bytes, path: str) -> T:
    """Decode a part of a caller's body that stands at *path*.

    Raises:
        InvalidRequest: malformed JSON or a wrong type; ``param`` has the whole path.
    """
    try:
        return decode_body(decoder, raw)
    except InvalidRequest as exc:
        param = path + (exc.param or "").removeprefix("$")
        raise InvalidRequest(f"{exc.message.partition(' - at `')[0]} - at `{param}`", param=param) from exc


# --- Reasoning


def read_reasoning(item: ReasoningItem, *, is_callers: bool) -> Reasoning:
    """Return the thought that *item* holds; in a caller's, a seal of another vendor may be wrapped."""
    data = item.encrypted_content
    if data:
        seal = (unwrap(data) if is_callers else None) or Seal(NAME, "encrypted", data, item.id or "")
    elif item.content and not item.summary:
        # Servers of open models give the thought as it is, and want it back so.
        seal = Seal(NAME, "plain", "", item.id or "")
    else:
        seal = None
    return Reasoning(item.text, seal)


def write_reasoning(block: Reasoning, item_id: str) -> dict[str, Any]:
    """Return the item that says *block*, with *item_id* where that is not empty."""
    item: dict[str, Any] = {"type": "reasoning", "id": item_id} if item_id else {"type": "reasoning"}
    seal = block.seal
    if seal is not None and (seal.origin, seal.kind) == (NAME, "plain"):
        return item | {"summary": [], "content": [{"type": "reasoning_text", "text": block.text}]}
    item["summary"] = [{"type": "summary_text", "text": block.text}] if block.text else []
    if seal is not None:
        item["encrypted_content"] = seal.data if seal.origin == NAME else wrap(seal)
    return item


# --- Citations and probabilities


def read_citations(raw: Raw) -> tuple[Citation, ...]:
    """Return the citations that a list of annotations holds; what is misshapen is left out."""
    if raw in (NULL, _NO_ITEMS):
        return ()
    found = (read_citation(annotation) for annotation in decode_view(_annotations, raw) or ())
    return tuple(filter(None, found))


def read_citation(raw: Raw) -> Citation | None:
    """Return what one annotation says; None where it is misshapen."""
    view = decode_view(_annotation, raw)
    if view is None:
        return None
    title = view.title or view.filename
    return Citation(view.url, title, "", view.start_index, view.end_index, NAME, raw.copy())


def write_citation(citation: Citation, chars: int) -> Any:
    """Return the annotation for *citation* of a text of so many *chars*; None where it leads to no URL."""
    if citation.origin == NAME:
        return citation.raw
    if not citation.url:
        return None
    return {
        "type": "url_citation",
        "url": citation.url,
        "title": citation.title,
        "start_index": citation.start or 0,
        "end_index": chars if citation.end is None else citation.end,
    }


def write_citations(text: Text) -> list[Any]:
    """Return the annotations of *text*."""
    annotations = (write_citation(citation, len(text.text)) for citation in text.citations)
    return [annotation for annotation in annotations if annotation is not None]


_NO_ITEMS: Final = Raw(b"[]")


def read_logprobs(raw: Raw) -> tuple[TokenLogprob, ...]:
    """Return the probabilities that stand in a list; none where it is misshapen."""
    if raw in (NULL, _NO_ITEMS):
        return ()
    return tuple(map(_read_logprob, decode_view(_logprobs, raw) or ()))


def _read_logprob(view: _Logprob) -> TokenLogprob:
    return TokenLogprob(view.token, view.logprob, view.bytes, tuple(map(_read_logprob, view.top_logprobs or ())))


def write_logprobs(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Return the list that says *logprobs*; the type demands every key."""
    return [
        _write_logprob(logprob) | {"top_logprobs": [_write_logprob(other) for other in logprob.top]}
        for logprob in logprobs
    ]


def _write_logprob(logprob: TokenLogprob) -> dict[str, Any]:
    spelled = logprob.token.encode() if logprob.bytes is None else logprob.bytes
    return {"token": logprob.token, "bytes": list(spelled), "logprob": logprob.logprob}
