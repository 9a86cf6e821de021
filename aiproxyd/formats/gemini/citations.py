"""Where an answer's words come from: https://ai.google.dev/gemini-api/docs/google-search#grounding-metadata. Sans-I/O.

Gemini counts UTF-8 bytes, the hub characters. It counts within the part whose ``partIndex`` it names:
https://ai.google.dev/api/generate-content#Segment. Mostly it names none, also where the first part is a thought
(https://github.com/googleapis/python-genai/issues/961), and in the last answer of a stream it counts over all that was
said (https://github.com/RooCodeInc/Roo-Code/pull/4895). So offsets count from the first word where no part is named,
and where the words at the named one are not those that the segment quotes.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.formats.base import NULL, decode_view
from aiproxyd.formats.gemini.wire import NAME, Candidate, Part, clean
from aiproxyd.hub import Citation, Text


class _Source(Struct, omit_defaults=True):
    uri: str | None = None
    title: str | None = None


class _Segment(Struct, rename="camel", omit_defaults=True):
    start_index: int = 0
    end_index: int | None = None
    part_index: int = 0
    text: str | None = None


class _Support(Struct, rename="camel", omit_defaults=True):
    segment: _Segment | None = None
    grounding_chunk_indices: list[int] | None = None


class _Grounding(Struct, rename="camel", omit_defaults=True):
    grounding_chunks: list[Raw] | None = None
    """Objects with one source each, by its kind: ``web``, ``maps``, ``retrievedContext``."""
    grounding_supports: list[_Support] | None = None


class _Recited(Struct, rename="camel"):
    uri: str | None = None
    title: str | None = None
    start_index: int = 0
    end_index: int | None = None


class _CitationMetadata(Struct):
    citations: list[_Recited] | None = None


_grounding: Final = msgspec.json.Decoder(_Grounding)
_chunk: Final = msgspec.json.Decoder(dict[str, _Source])
_metadata: Final = msgspec.json.Decoder(_CitationMetadata)
_encode: Final = msgspec.json.Encoder().encode


class _Ruler:
    """Converts offsets in one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._is_ascii = text.isascii()
        self._bytes = text.encode()

    def to_chars(self, at: int | None) -> int | None:
        if at is None:
            return None
        at = max(at, 0)
        return min(at, len(self._text)) if self._is_ascii else len(self._bytes[:at].decode("utf-8", "ignore"))

    def to_bytes(self, at: int) -> int:
        return at if self._is_ascii else len(self._text[:at].encode())

    def fits(self, segment: _Segment, base: int) -> bool:
        """Tell whether *segment*, counted from *base*, is where its words are, or at least inside of the text."""
        end = len(self._bytes) if segment.end_index is None else base + segment.end_index
        if segment.text:
            return self._bytes[base + max(segment.start_index, 0) : end] == segment.text.encode()
        return end <= len(self._bytes)


def read_citations(grounding: Raw, recited: Raw, text: str, starts: Sequence[int] = ()) -> Iterator[Citation]:
    """Yield what the *grounding* and *recited* metadata of an answer say about its *text*; nothing where misshapen.

    *starts* are the offsets in it, in characters, at which the parts of the answer begin.
    """
    ruler = _Ruler(text)
    view = decode_view(_grounding, grounding)
    if view is not None:
        yield from _read_grounding(view, ruler, list(map(ruler.to_bytes, starts)))
    metadata = decode_view(_metadata, recited)
    for source in (metadata and metadata.citations) or ():
        start, end = ruler.to_chars(source.start_index), ruler.to_chars(source.end_index)
        yield Citation(source.uri or "", source.title or "", start=start, end=end)


def _read_grounding(view: _Grounding, ruler: _Ruler, bases: Sequence[int]) -> Iterator[Citation]:
    sources = [_read_chunk(raw) for raw in view.grounding_chunks or ()]
    unused = dict(enumerate(sources))
    for support in view.grounding_supports or ():
        place = _read_segment(support.segment, ruler, bases)
        for index in support.grounding_chunk_indices or ():
            if 0 <= index < len(sources):
                unused.pop(index, None)
                yield msgspec.structs.replace(sources[index], start=place[0], end=place[1])
    yield from unused.values()


def _read_segment(segment: _Segment | None, ruler: _Ruler, bases: Sequence[int]) -> tuple[int | None, int | None]:
    """Return where *segment* begins and ends, in characters; None where it does not say."""
    if segment is None:
        return None, None
    base = bases[segment.part_index] if 0 <= segment.part_index < len(bases) else 0
    if base and ruler.fits(segment, 0) and not ruler.fits(segment, base):
        base = 0
    start = ruler.to_chars(base + max(segment.start_index, 0))
    return start, None if segment.end_index is None else ruler.to_chars(base + segment.end_index)


class CitedTexts:
    """The texts of one candidate while they come, and the metadata that say where their words are from."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        """Those that have ended."""
        self._pieces: list[str] = []
        """Of the open one."""
        self._length = 0
        """Of all that have ended, in characters."""
        self._starts: list[int] = []
        """Where each block begins in all that is said, by its key."""
        self._grounding = NULL
        self._recited = NULL
        self._parts: list[str] = []
        """What each part of the answer that brought the metadata says; nothing, where it is no text."""
        self._pieces_before = 0
        """How many pieces of the open text came before that answer."""
        self._full_length = 0
        """Of all that is said up to the end of that answer, in characters."""
        self._waiting: list[tuple[int, int, Citation]] = []
        """Citations to be told, from the last to the first: where each begins in all that is said, and its number."""

    def begin(self, key: int, pieces: list[str]) -> None:
        """Take a new text, the block *key*, to whose *pieces* its reader adds."""
        self._pieces = pieces
        self._starts += [0] * (key - len(self._starts)) + [self._length]

    def take(self, candidate: Candidate[Part]) -> None:
        """Take the metadata of *candidate*, whose parts are yet to be read."""
        if candidate.grounding_metadata is not NULL:
            self._grounding = candidate.grounding_metadata
        if candidate.citation_metadata is not NULL:
            self._recited = candidate.citation_metadata
        parts = (candidate.content and candidate.content.parts) or ()
        self._parts = [(part.text or "") if not part.thought else "" for part in parts]
        self._pieces_before = len(self._pieces)

    def end(self) -> Iterator[Citation]:
        """Yield the citations of the open text, which is complete."""
        begin, text = self._length, "".join(self._pieces)
        self._texts.append(text)
        self._length += len(text)
        if not (self._grounding is NULL and self._recited is NULL):
            self._read(begin + sum(map(len, self._pieces[: self._pieces_before])))
        self._pieces = []
        due: list[tuple[int, Citation]] = []
        while self._waiting and (self._length >= self._full_length or self._waiting[-1][0] < self._length):
            due.append(self._waiting.pop()[1:])
        for _, citation in sorted(due, key=_first):
            yield _clip(citation, begin, self._length)

    def _read(self, before: int) -> None:
        """Read the metadata, which came behind *before* characters."""
        text = "".join(self._texts) + "".join(self._parts)[self._length - before :]
        self._full_length = len(text)
        # Where each part begins: of the whole answer, else as if all of the stream had been one.
        starts = self._starts if before else list(accumulate(map(len, self._parts), initial=0))
        citations = enumerate(read_citations(self._grounding, self._recited, text, starts))
        places = [(-1 if each.start is None else each.start, number, each) for number, each in citations]
        self._waiting = sorted(places, key=_first, reverse=True)
        self._grounding = self._recited = NULL


_first: Final = itemgetter(0)


def _clip(citation: Citation, begin: int, end: int) -> Citation:
    """Return *citation* with offsets in the text from *begin* to *end*; none of its words where it is about others."""
    places = (citation.start, citation.end)
    start, stop = (None if at is None else min(max(at, begin), end) - begin for at in places)
    return msgspec.structs.replace(citation, start=start, end=stop)


def _read_chunk(raw: Raw) -> Citation:
    source = next(iter((decode_view(_chunk, raw) or {}).values()), _Source())
    return Citation(source.uri or "", source.title or "", origin=NAME, raw=clean(raw))


def write_grounding(cited: Iterable[tuple[int, Text]]) -> Raw:
    """Return the groundingMetadata that says the citations of texts, each with the index of its part."""
    chunks: dict[bytes, int] = {}
    supports = [
        _Support(_write_segment(index, text.text, citation), [chunks.setdefault(_write_chunk(citation), len(chunks))])
        for index, text in cited
        for citation in text.citations
    ]
    return Raw(_encode(_Grounding([Raw(chunk) for chunk in chunks], supports))) if supports else NULL


def join_cited(texts: Iterable[Text]) -> Text:
    """Return *texts* as one, as clients put a stream together, with all their citations."""
    joined: list[str] = []
    citations: list[Citation] = []
    length = 0
    for text in texts:
        for citation in text.citations:
            start, end = _find_words(citation, len(text.text))
            if start is not None:
                citation = msgspec.structs.replace(citation, start=start + length, end=end + length)
            citations.append(citation)
        joined.append(text.text)
        length += len(text.text)
    return Text("".join(joined), citations=tuple(citations))


def _write_chunk(citation: Citation) -> bytes:
    if citation.origin == NAME:
        return bytes(citation.raw)
    return _encode({"web": _Source(citation.url, citation.title or citation.url)})


def _write_segment(part_index: int, text: str, citation: Citation) -> _Segment | None:
    start, end = _find_words(citation, len(text))
    if start is None:
        return None
    ruler = _Ruler(text)
    return _Segment(ruler.to_bytes(start), ruler.to_bytes(end), part_index, text[start:end] or None)


def _find_words(citation: Citation, length: int) -> tuple[int | None, int]:
    """Return where the words that *citation* is about begin and end in its text of *length* characters.

    None: it is one of Gemini's own about nothing in particular; any other is about the whole then. Some vendors count
    otherwise than they say, and further than there are words.
    """
    if citation.start is None:
        return (None if citation.origin == NAME else 0), length
    return min(citation.start, length), length if citation.end is None else min(citation.end, length)
