"""Writes streams of generateContent, as server-sent events or as one array. Sans-I/O.

https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from msgspec.structs import replace
from typing_extensions import override

from aiproxyd.errors import ProxyError
from aiproxyd.formats.codec import StreamEncoder
from aiproxyd.formats.gemini.answers import (
    WrittenAnswer,
    WrittenCandidate,
    empty_content,
    encode,
    make_id,
    write_block,
    write_block_part,
    write_finish,
    write_logprobs,
)
from aiproxyd.formats.gemini.citations import join_cited, write_grounding
from aiproxyd.formats.gemini.errors import encode_error
from aiproxyd.formats.gemini.usage import write_usage
from aiproxyd.hub import (
    Block,
    BlockStart,
    BlockStop,
    Citation,
    CitationAdded,
    Delta,
    End,
    Event,
    Failed,
    Finish,
    LogprobsAdded,
    Ping,
    Reasoning,
    Refusal,
    Request,
    SealSet,
    Start,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
    UsageSeen,
)

_DATA: Final = b"data: "
_END: Final = b"\r\n\r\n"
_PARTS: Final = _DATA + b'{"candidates":[{"content":{"role":"model","parts":['


def encode_stream_error(error: ProxyError) -> bytes:
    """Return the event that reports *error*."""
    return _DATA + _escape_ends(encode_error(error)) + _END


def _to_line(text: bytes) -> bytes:
    """Return JSON *text*, which another may have written in part, on one line."""
    return _escape_ends(text.translate(None, b"\r\n"))


def _escape_ends(text: bytes) -> bytes:
    """Return JSON *text* without the two characters that end lines only for JavaScript.

    Gemini CLI's bundled @google/genai 1.30 matches ``data: (.*)``, where ``.`` does not stand for U+2028 and U+2029.
    """
    if b"\xe2\x80\xa8" in text or b"\xe2\x80\xa9" in text:
        return text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return text


class _SpokenBlock:
    """A text or a thought: its words go out as they come, its seal and its citations behind them."""

    __slots__ = ("_after", "_before", "_pieces", "block", "citations", "seal")

    def __init__(self, block: Text | Reasoning, tail: bytes) -> None:
        self.block = block
        self.seal = block.seal
        self.citations: list[Citation] = list(block.citations) if isinstance(block, Text) else []
        self._before = _PARTS + (b'{"thought":true,"text":' if isinstance(block, Reasoning) else b'{"text":')
        self._after = b"}" + tail
        self._pieces: list[str] = []
        """For the offsets of citations."""

    def feed(self, text: str) -> bytes:
        if not text:
            return b""
        self._pieces.append(text)
        return self._before + _escape_ends(encode(text)) + self._after

    def close(self) -> Block:
        """Return what is left to say."""
        return Reasoning("", self.seal) if isinstance(self.block, Reasoning) else Text("", seal=self.seal)

    def cite(self) -> Text:
        """Return the whole text with its citations."""
        return Text("".join(self._pieces), citations=tuple(self.citations))


class _CollectedBlock:
    """A block that goes out whole when it has ended: calls, media, what only Google understands."""

    __slots__ = ("_pieces", "block", "citations", "seal")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.seal = block.seal if isinstance(block, ToolCall) else None
        self.citations: list[Citation] = []
        self._pieces: list[str] = []

    def feed(self, text: str) -> bytes:
        self._pieces.append(text)
        return b""

    def close(self) -> Block:
        """Return what is left to say: all of it."""
        if not isinstance(self.block, ToolCall):
            return self.block
        return replace(self.block, arguments=self.block.arguments + "".join(self._pieces), seal=self.seal)


_OpenBlock: TypeAlias = _SpokenBlock | _CollectedBlock


class GeminiStreamEncoder(StreamEncoder):
    """Writes one stream as server-sent events.

    ::

        answer* answer       each with new parts; the last with a finishReason for every candidate, and the usage
        answer* error

    Nothing but ``data:`` lines: the Python SDK and Gemini CLI do not survive a comment.
    """

    def __init__(self, asked: Request) -> None:
        self._model = asked.model
        self._id = ""
        self._tails: dict[int, bytes] = {}
        """What stands behind the parts of a candidate."""
        self._blocks: dict[tuple[int, int], _OpenBlock] = {}
        self._said: defaultdict[int, list[Text]] = defaultdict(list)
        """The texts of a candidate, with their citations."""
        self._finishes: list[Finish] = []
        self._logprobs: defaultdict[int, list[TokenLogprob]] = defaultdict(list)
        self._usage: Usage | None = None
        self._handlers: dict[type[Event], Callable[[Any], bytes]] = {
            Start: self._feed_start,
            BlockStart: self._feed_block_start,
            SealSet: self._feed_seal,
            CitationAdded: self._feed_citation,
            BlockStop: self._feed_block_stop,
            LogprobsAdded: self._feed_logprobs,
            Finish: self._feed_finish,
            UsageSeen: self._feed_usage,
            Ping: self._feed_ping,
            End: self._feed_end,
            Failed: self._feed_failed,
        }

    @override
    def feed(self, event: Event) -> bytes:
        if type(event) is Delta:
            return self._blocks[event.candidate, event.key].feed(event.text)
        return self._handlers[type(event)](event)

    def _feed_start(self, event: Start) -> bytes:
        self._model = event.model or self._model
        self._id = event.id or make_id()
        return b""

    def _feed_block_start(self, event: BlockStart) -> bytes:
        place, block = (event.candidate, event.key), event.block
        tail = self._find_tail(event.candidate)
        if isinstance(block, Refusal):
            block = Text(block.text)
        if not isinstance(block, Text | Reasoning):
            self._blocks[place] = _CollectedBlock(block)
            return b""
        spoken = self._blocks[place] = _SpokenBlock(block, tail)
        return spoken.feed(block.text)

    def _feed_seal(self, event: SealSet) -> bytes:
        self._blocks[event.candidate, event.key].seal = event.seal
        return b""

    def _feed_citation(self, event: CitationAdded) -> bytes:
        self._blocks[event.candidate, event.key].citations.append(event.citation)
        return b""

    def _feed_block_stop(self, event: BlockStop) -> bytes:
        block = self._blocks.pop((event.candidate, event.key))
        part = write_block_part(block.close())
        written = b""
        if part is not None:
            # What another wrote into a part may hold line breaks, which would end the event.
            written = _PARTS + _to_line(encode(part)) + self._find_tail(event.candidate)
        if isinstance(block, _SpokenBlock) and isinstance(block.block, Text):
            self._said[event.candidate].append(block.cite())
        return written

    def _feed_logprobs(self, event: LogprobsAdded) -> bytes:
        self._logprobs[event.candidate] += event.logprobs
        return b""

    def _feed_finish(self, event: Finish) -> bytes:
        self._finishes.append(event)
        return b""

    def _feed_usage(self, event: UsageSeen) -> bytes:
        self._usage = event.usage
        return b""

    def _feed_ping(self, _: Ping) -> bytes:
        return b""

    def _feed_end(self, _: End) -> bytes:
        blocked = [
            finish for finish in self._finishes if finish.stop == "blocked" and finish.candidate not in self._tails
        ]
        candidates = [self._write_finish(finish) for finish in self._finishes if finish not in blocked]
        return self._write(
            WrittenAnswer(
                candidates=candidates or None,
                prompt_feedback=write_block(blocked[0].detail) if blocked else None,
                usage_metadata=write_usage(self._usage),
            )
        )

    def _feed_failed(self, event: Failed) -> bytes:
        return encode_stream_error(event.error)

    def _write_finish(self, finish: Finish) -> WrittenCandidate:
        reason, message = write_finish(finish.stop, finish.detail)
        return WrittenCandidate(
            content=empty_content(),
            finish_reason=reason,
            finish_message=message,
            index=finish.candidate,
            # Clients keep the last of several, so there is one, about all that was said.
            grounding_metadata=write_grounding([(0, join_cited(self._said[finish.candidate]))]),
            logprobs_result=write_logprobs(self._logprobs[finish.candidate]),
        )

    def _write(self, answer: WrittenAnswer) -> bytes:
        answer.model_version, answer.response_id = self._model, self._id
        return _DATA + _to_line(encode(answer)) + _END

    def _find_tail(self, candidate: int) -> bytes:
        tail = self._tails.get(candidate)
        if tail is None:
            names = b'"modelVersion":%s,"responseId":%s}' % (encode(self._model), encode(self._id))
            tail = self._tails[candidate] = b']},"index":%d}],' % candidate + _escape_ends(names) + _END
        return tail


class GeminiArrayEncoder(StreamEncoder):
    """Writes the stream that callers get without ``alt=sse``: an array of the same objects."""

    def __init__(self, asked: Request) -> None:
        self._encoder = GeminiStreamEncoder(asked)
        self._before = b"["

    @override
    def feed(self, event: Event) -> bytes:
        written = b""
        for element in self._encoder.feed(event).split(_END)[:-1]:
            written += self._before + element.removeprefix(_DATA)
            self._before = b"\n,\n"
        return written + b"\n]" if isinstance(event, End | Failed) else written
