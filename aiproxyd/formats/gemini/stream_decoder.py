"""Reads streams of generateContent: whole answers, each of which holds what is new. Sans-I/O.

https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, structs
from typing_extensions import override

from aiproxyd.errors import InvalidRequest, UpstreamGarbage
from aiproxyd.formats.base import NULL, decode_view, unwrap_array
from aiproxyd.formats.codec import StreamDecoder, make_call_id, read_arguments
from aiproxyd.formats.gemini.answers import read_block, read_finish, read_logprobs
from aiproxyd.formats.gemini.citations import CitedTexts
from aiproxyd.formats.gemini.errors import decode_band_error
from aiproxyd.formats.gemini.parts import own_seal, read_media
from aiproxyd.formats.gemini.usage import UsageMetadata, merge_metadata, to_usage
from aiproxyd.formats.gemini.wire import Answer, Candidate, Content, FunctionCall, P, Part, is_object, read_opaque
from aiproxyd.hub import (
    Block,
    BlockStart,
    BlockStop,
    CitationAdded,
    Delta,
    End,
    Event,
    Finish,
    LogprobsAdded,
    Media,
    Opaque,
    Ping,
    Reasoning,
    Response,
    Seal,
    SealSet,
    Start,
    Stop,
    Text,
    ToolCall,
    Usage,
    UsageSeen,
    fold,
)
from aiproxyd.splice import JSON_ERRORS
from aiproxyd.sse import SSEvent

_ReadAnswer = Answer[Part, UsageMetadata]

_answer: Final = msgspec.json.Decoder(_ReadAnswer)
_loose_answer: Final = msgspec.json.Decoder(Answer[Raw, Any])
_part: Final = msgspec.json.Decoder(Part)
_fields: Final = msgspec.json.Decoder(dict[str, Any])


class GeminiStreamDecoder(StreamDecoder):
    """Reads one stream.

    ::

        answer* EOF          each with new parts, the usage so far, at last a finishReason for every candidate
        answer* error

    Only the end of the connection ends it: behind the finishReason come usage and citations, and some backends write a
    finishReason into every answer.
    """

    def __init__(self, candidates: int) -> None:
        super().__init__()
        self._readers: dict[int, _CandidateReader] = {}
        self._raw_parts = _RawParts()
        self._expected = range(candidates)
        self._is_started = False
        self._usage: UsageMetadata | None = None
        """Of the latest answer."""
        self._told: Usage | None = None
        self._block_reason = ""

    @override
    def feed(self, event: SSEvent) -> list[Event]:
        if self.is_over:
            return []
        data = event.data
        try:
            answer = _answer.decode(data)
        except JSON_ERRORS:
            return self._take_loosely(data)
        return self._take(answer, data)

    @override
    def feed_eof(self) -> list[Event]:
        if self.is_over:
            return []
        if self._block_reason:
            self._finish_all("blocked", self._block_reason)
        expected = () if self._block_reason else self._expected
        is_complete = self._is_started and self._readers.keys() >= set(expected)
        if not is_complete or any(reader.finish is None for reader in self._readers.values()):
            return self._fail_cut()
        self.is_over = True
        events: list[Event] = []
        for _, reader in sorted(self._readers.items()):
            reader.end(events)
        return [*events, *self._tell_usage(), End()]

    def feed_whole(self, body: bytes) -> list[Event]:
        """Return the events of a whole answer, which is a stream of one."""
        events = self.feed(SSEvent(b"", body))
        if not (self._readers or self._block_reason or self.is_over):
            return self._fail(UpstreamGarbage("the upstream's answer holds no candidate"))
        for reader in self._readers.values():
            # Several imitations leave it out.
            reader.finish = reader.finish or ("end", "")
        return events + self.feed_eof()

    def _take(self, answer: _ReadAnswer, data: bytes) -> list[Event]:
        if answer.error:
            return self._fail(decode_band_error(answer.error))
        if not (answer.candidates or answer.prompt_feedback or answer.usage_metadata):
            return self._take_nothing(data)
        events: list[Event] = []
        if not self._is_started:
            self._is_started = True
            events.append(Start(id=_to_text(answer.response_id), model=_to_text(answer.model_version)))
        for candidate in answer.candidates or ():
            self._find_reader(candidate.index).take(candidate, answer, data, events)
        usage = answer.usage_metadata
        if usage is not None:
            if self._told is None or usage.prompt_token_count is None:
                self._take_usage(usage, events)
            else:
                self._usage = usage  # it has all the counts, as nearly always
        if answer.prompt_feedback is not None:
            self._block_reason = self._block_reason or read_block(answer.prompt_feedback)
        return events

    def _take_loosely(self, data: bytes) -> list[Event]:
        answer = _read_loosely(data)
        if answer is None:
            return self._fail(UpstreamGarbage("the upstream's answer is none of the Gemini API"))
        return self._take(answer, data)

    def _take_nothing(self, data: bytes) -> list[Event]:
        # Some proxies send the error itself, without an object around it.
        fields = decode_view(_fields, data) or {}
        return self._fail(decode_band_error(fields)) if {"code", "message"} <= fields.keys() else [Ping()]

    @override
    def untold_usage(self) -> Usage | None:
        return to_usage(self._usage) if self._usage is not None else None

    def _take_usage(self, metadata: UsageMetadata, events: list[Event]) -> None:
        """Keep the usage so far, which every answer has, and tell it with the first of them and at the end."""
        self._usage = merge_metadata(self._usage, metadata)
        if self._told is None:
            self._told = to_usage(metadata)
            events.append(UsageSeen(self._told))

    def _tell_usage(self) -> list[Event]:
        usage = self.untold_usage()
        return [UsageSeen(usage)] if usage is not None and usage != self._told else []

    def _find_reader(self, index: Any) -> "_CandidateReader":
        number = index if isinstance(index, int) and index > 0 else 0
        reader = self._readers.get(number)
        if reader is None:
            reader = self._readers[number] = _CandidateReader(number, self._raw_parts)
        return reader

    def _finish_all(self, stop: Stop, detail: str) -> None:
        if not self._readers:
            self._find_reader(0)
        for reader in self._readers.values():
            reader.finish = reader.finish or (stop, detail)


class _CandidateReader:
    """Reads one candidate; a text or a thought stays open until something else comes."""

    __slots__ = ("_cited", "_is_sealed", "_key", "_kind", "_next_key", "_number", "_pieces", "_raw_parts", "finish")

    def __init__(self, number: int, raw_parts: "_RawParts") -> None:
        self.finish: tuple[Stop, str] | None = None
        self._number = number
        self._raw_parts = raw_parts
        self._next_key = 0
        self._kind: Literal["", "text", "thought"] = ""
        """Of the open block; empty where none is."""
        self._key = 0
        self._is_sealed = False
        self._pieces: list[str] = []
        """Of the open text, for the offsets of its citations."""
        self._cited = CitedTexts()

    def take(self, candidate: Candidate[Part], answer: _ReadAnswer, data: bytes, events: list[Event]) -> None:
        """Append what *candidate* of *answer*, read from *data*, means to *events*."""
        if candidate.grounding_metadata is not NULL or candidate.citation_metadata is not NULL:
            self._cited.take(candidate)
        if candidate.content is not None:
            for part in candidate.content.parts or ():
                if part.text is not None:
                    self._take_text(part, part.text, events)
                else:
                    self._take_other(part, answer, data, events)
        if candidate.logprobs_result is not NULL and (logprobs := read_logprobs(candidate.logprobs_result)):
            events.append(LogprobsAdded(self._number, logprobs))
        if candidate.finish_reason:
            self.finish = read_finish(candidate.finish_reason, candidate.finish_message)

    def end(self, events: list[Event]) -> None:
        """Append the end of the candidate to *events*."""
        self._close(events)
        stop, detail = self.finish or ("end", "")
        events.append(Finish(self._number, stop, detail=detail))

    def _take_text(self, part: Part, text: str, events: list[Event]) -> None:
        signature = part.thought_signature
        if not text and not signature:
            return
        kind: Literal["text", "thought"] = "thought" if part.thought else "text"
        if kind != self._kind or self._is_sealed:
            if not text and kind == "text":
                # Nothing is open that it could sign.
                self._take_signature(signature or "", events)
                return
            self._open(kind, events)
        if text:
            self._pieces.append(text)
            events.append(Delta(self._number, self._key, text))
        if signature:
            self._is_sealed = True
            events.append(SealSet(self._number, self._key, own_seal(signature)))

    def _take_signature(self, signature: str, events: list[Event]) -> None:
        self._add(Reasoning(), "", structs.replace(own_seal(signature), holder="text"), events)

    def _take_other(self, part: Part, answer: _ReadAnswer, data: bytes, events: list[Event]) -> None:
        """Take a part that is no text."""
        signature = part.thought_signature
        block: Block | None
        if part.function_call is not None:
            self._take_call(part.function_call, own_seal(signature) if signature else None, events)
        elif (block := _read_media(part)) is not None:
            self._add(block, "", None, events)
            if signature:
                self._take_signature(signature, events)
        elif (block := self._raw_parts.find_opaque(part, answer, data)) is not None:
            self._add(block, "", None, events)
        elif signature:
            self._take_text(part, "", events)

    def _take_call(self, call: FunctionCall, seal: Seal | None, events: list[Event]) -> None:
        call_id = str(call.id) if call.id is not None and call.id != "" else make_call_id()
        self._add(ToolCall(id=call_id, name=call.name, arguments=""), _read_arguments(call.args), seal, events)

    def _add(self, block: Block, text: str, seal: Seal | None, events: list[Event]) -> None:
        """Append a block that has come whole."""
        self._close(events)
        number, key = self._number, self._take_key()
        events.append(BlockStart(number, key, block))
        if text:
            events.append(Delta(number, key, text))
        if seal is not None:
            events.append(SealSet(number, key, seal))
        events.append(BlockStop(number, key))

    def _open(self, kind: Literal["text", "thought"], events: list[Event]) -> None:
        self._close(events)
        self._kind, self._key, self._pieces = kind, self._take_key(), []
        if kind == "text":
            self._cited.begin(self._key, self._pieces)
        events.append(BlockStart(self._number, self._key, Reasoning() if kind == "thought" else Text("")))

    def _close(self, events: list[Event]) -> None:
        if not self._kind:
            return
        number, key = self._number, self._key
        if self._kind == "text":
            events += [CitationAdded(number, key, citation) for citation in self._cited.end()]
        events.append(BlockStop(number, key))
        self._kind, self._is_sealed = "", False

    def _take_key(self) -> int:
        self._next_key += 1
        return self._next_key - 1


class _RawParts:
    """The parts of an answer as they came, for those of which nothing could be read. One per stream."""

    def __init__(self) -> None:
        self._answer: _ReadAnswer | None = None
        """The last of which a part was looked for."""
        self._raws: dict[int, Raw] = {}
        """Its parts, each by the identity of what was read of it: an answer may hold many such."""

    def find_opaque(self, part: Part, answer: _ReadAnswer, data: bytes) -> Opaque | None:
        """Return what *part* of *answer*, read from *data*, is, if that can be told."""
        if answer is not self._answer:
            loose = decode_view(_loose_answer, unwrap_array(data)) or Answer()
            self._answer = answer
            self._raws = dict(zip(map(id, _all_parts(answer)), _all_parts(loose), strict=False))
        raw = self._raws.get(id(part), NULL)
        return read_opaque(raw) if is_object(raw) else None


def decode_response(body: bytes) -> Response:
    """Decode the whole answer of an upstream.

    Raises:
        UpstreamGarbage: it is none.
        UpstreamError: it is an error, in spite of its success status.
    """
    return fold(GeminiStreamDecoder(0).feed_whole(body))


def _read_loosely(data: bytes) -> _ReadAnswer | None:
    """Read an answer of which something is misshapen; parts that cannot be read become empty. None: it is no answer."""
    if data == b"[DONE]":  # imitations end as OpenAI does
        return _ReadAnswer()
    loose = decode_view(_loose_answer, unwrap_array(data))
    if loose is None:
        return None
    return _ReadAnswer(
        candidates=[_read_candidate(candidate) for candidate in loose.candidates or ()],
        prompt_feedback=loose.prompt_feedback,
        usage_metadata=_read_usage(loose.usage_metadata),
        model_version=loose.model_version,
        response_id=loose.response_id,
        error=loose.error,
    )


def _read_candidate(candidate: Candidate[Raw]) -> Candidate[Part]:
    raws = (candidate.content and candidate.content.parts) or ()
    content = Content(parts=[decode_view(_part, raw) or Part() for raw in raws])
    return Candidate(**{**structs.asdict(candidate), "content": content})


def _read_usage(metadata: Any) -> UsageMetadata | None:
    try:
        return msgspec.convert(metadata, UsageMetadata | None)
    except msgspec.ValidationError:
        return None


def _all_parts(answer: Answer[P, Any]) -> Iterator[P]:
    for candidate in answer.candidates or ():
        if candidate.content is not None:
            yield from candidate.content.parts or ()


def _read_arguments(args: Raw) -> str:
    """Return arguments on one line; whole answers come with line breaks and indents."""
    return read_arguments(msgspec.json.format(str(args, "utf-8", "replace"), indent=-1))


def _read_media(part: Part) -> Media | None:
    try:
        return read_media(part)
    except InvalidRequest:
        return None


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else ""
