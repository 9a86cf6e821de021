"""Where an answer's words come from: https://ai.google.dev/gemini-api/docs/google-search#grounding-metadata. Sans-I/O.

Gemini counts UTF-8 bytes, the hub characters.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Raw, Struct

from aiproxyd.formats.base import NULL, decode_view
from aiproxyd.formats.gemini.wire import NAME, clean
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
        self._bytes = b"" if text.isascii() else text.encode()

    def to_chars(self, at: int | None) -> int | None:
        if at is None:
            return None
        at = max(at, 0)
        return len(self._bytes[:at].decode("utf-8", "ignore")) if self._bytes else min(at, len(self._text))

    def to_bytes(self, at: int | None) -> int | None:
        return len(self._text[:at].encode()) if at is not None and self._bytes else at


def read_citations(grounding: Raw, recited: Raw, text: str) -> Iterator[Citation]:
    """Yield what the *grounding* and *recited* metadata of an answer say about its *text*; nothing where misshapen."""
    ruler = _Ruler(text)
    view = decode_view(_grounding, grounding)
    if view is not None:
        yield from _read_grounding(view, ruler)
    metadata = decode_view(_metadata, recited)
    for source in (metadata and metadata.citations) or ():
        start, end = ruler.to_chars(source.start_index), ruler.to_chars(source.end_index)
        yield Citation(source.uri or "", source.title or "", start=start, end=end)


def _read_grounding(view: _Grounding, ruler: _Ruler) -> Iterator[Citation]:
    sources = [_read_chunk(raw) for raw in view.grounding_chunks or ()]
    unused = dict(enumerate(sources))
    for support in view.grounding_supports or ():
        segment = support.segment
        for index in support.grounding_chunk_indices or ():
            if not 0 <= index < len(sources):
                continue
            unused.pop(index, None)
            if segment is None:
                yield sources[index]
            else:
                start, end = ruler.to_chars(segment.start_index), ruler.to_chars(segment.end_index)
                yield msgspec.structs.replace(sources[index], start=start, end=end)
    yield from unused.values()


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
            if citation.start is not None:
                end = None if citation.end is None else citation.end + length
                citation = msgspec.structs.replace(citation, start=citation.start + length, end=end)
            elif citation.origin != NAME:
                citation = msgspec.structs.replace(citation, start=length, end=length + len(text.text))
            citations.append(citation)
        joined.append(text.text)
        length += len(text.text)
    return Text("".join(joined), citations=tuple(citations))


def _write_chunk(citation: Citation) -> bytes:
    if citation.origin == NAME:
        return bytes(citation.raw)
    return _encode({"web": _Source(citation.url, citation.title or citation.url)})


def _write_segment(part_index: int, text: str, citation: Citation) -> _Segment | None:
    if citation.start is None:
        # Gemini's own are about nothing in particular, others about the whole of their text.
        return None if citation.origin == NAME else _Segment(0, len(text.encode()), part_index, text)
    ruler = _Ruler(text)
    start, end = ruler.to_bytes(citation.start) or 0, ruler.to_bytes(citation.end)
    return _Segment(start, end, part_index, text[citation.start : citation.end])
