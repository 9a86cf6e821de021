"""One attempt to have a request answered by one target: as bytes where both speak one format, else converted.

What comes out of here has begun well: the whole answer, or the first event of a stream, is there; until then a failure
is an ordinary error.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal, NoReturn, Protocol, TypeAlias

import msgspec
from msgspec import Struct
from multidict import CIMultiDict
from typing_extensions import override

from aiproxyd.config import Target
from aiproxyd.conversion import Crossing, StreamCrossing
from aiproxyd.directives import NONE, Directives
from aiproxyd.errors import InvalidRequest, ProxyError, UpstreamCut, UpstreamError, UpstreamGarbage, UpstreamRefusal
from aiproxyd.formats import GEMINI
from aiproxyd.formats.base import Format, StreamTap, is_whole_event, quote_model
from aiproxyd.formats.codec import StreamEncoder
from aiproxyd.headers import select_for_caller, select_for_conversion
from aiproxyd.hub import Request as HubRequest
from aiproxyd.hub import Usage
from aiproxyd.providers.base import Answer, Call, Provider
from aiproxyd.routing.health import Candidate
from aiproxyd.routing.plan import Lease
from aiproxyd.splice import apply_edits
from aiproxyd.sse import EventCutter, first_event
from aiproxyd.telemetry.records import CallRecord
from aiproxyd.tokens import CHARS_PER_TOKEN, estimate_tokens, estimate_usage

EVENT_STREAM: Final = "text/event-stream"
JSON_TYPE: Final = "application/json"


COUNTED_BYTES: Final = 2048
"""How much of what arrives together is looked at to tell about how many events it holds."""

Kind: TypeAlias = Literal["generate", "count", "embed", "other"]
"""What is asked for: words of a model, a count of tokens, embeddings, or what is only relayed."""


class Request(Struct, kw_only=True):
    """A caller's request as it was read: what the byte path needs to know of it, and its bytes."""

    fmt: Format
    model: str
    """As the caller named it."""
    path: str
    """As on our own surface; ``{model}`` stands for the upstream's name of the model."""
    query: str
    headers: CIMultiDict[str]
    body: bytes
    is_stream: bool = False
    wants_usage: bool = True
    candidates: int = 1
    kind: Kind = "generate"
    wishes: Directives = NONE
    """What the caller wants of the cache."""
    share: Callable[[Answer, Target, Format], Answer] | None = None
    """What an upstream's answer goes through that others read as well."""
    decoded: HubRequest | None = None

    def decode(self) -> HubRequest:
        """Return the request in neutral terms; decoded once, whatever number of targets is tried.

        Raises:
            InvalidRequest: it is not one, or holds what no other format has a place for.
        """
        if self.decoded is None:
            decode = self.fmt.decode_count_request if self.kind == "count" else self.fmt.decode_request
            asked = decode(self.body)
            # Gemini's path says both.
            asked.model, asked.stream = self.model, self.is_stream
            self.decoded = asked
        return self.decoded

    def count_input(self) -> int:
        """Return about how many tokens it comes to."""
        try:
            return estimate_tokens(self.decode())
        except InvalidRequest:
            return max(round(len(self.body) / CHARS_PER_TOKEN), 1)


class WholeAnswer(Struct):
    """An answer that is complete."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


class LiveStream(ABC):
    """A stream whose first events have come. Must be closed."""

    def __init__(self, answer: Answer, headers: CIMultiDict[str], record: CallRecord, deadline: float) -> None:
        self.status = answer.status
        self.headers = headers
        self.first = b""
        """The first events; they belong to the stream and come before ``next_block``."""
        self.deadline = deadline
        """When the whole call must be over, on the monotonic clock."""
        self.lease: Lease | None = None
        """The attempt that it comes of; whoever relays the stream says how it ended."""
        self.request: Request | None = None
        """What it answers, for an estimate of what it cost where it was left before its end."""
        self.at_close: Callable[[], None] | None = None
        """Called when all is recorded."""
        self._answer = answer
        self._record = record
        self._events = 0
        """Events that the caller got."""

    @property
    @abstractmethod
    def is_array(self) -> bool:
        """Whether this is Gemini's JSON array, which has no place for an error in band."""

    @property
    def has_band(self) -> bool:
        """Whether an error can be told inside the stream."""
        return not self.is_array

    @property
    @abstractmethod
    def usage(self) -> Usage | None:
        """What the upstream has said by now about the tokens that it counts."""

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether all has come that belongs to the answer and to its usage."""

    @property
    @abstractmethod
    def is_failed(self) -> bool:
        """Whether the upstream itself has reported an error in band, which was passed on."""

    @abstractmethod
    async def wait_for_first(self) -> None:
        """Wait for the first event, into ``first``.

        Raises:
            UpstreamError: the stream broke off, or ended before it was complete.
        """

    @abstractmethod
    async def next_block(self) -> bytes:
        """Return the next whole events for the caller, b"" behind the end.

        Raises:
            UpstreamError: the stream broke off, or ended before it was complete.
        """

    @abstractmethod
    async def relay(self, sink: "Sink") -> None:
        """Write all that is still to come to *sink*, as it comes.

        Raises:
            UpstreamError: the stream broke off, or ended before it was complete.
            ConnectionError: there is nobody to write to any more.
        """

    @abstractmethod
    def encode_failure(self, error: ProxyError) -> bytes:
        """Return the bytes that tell the caller of *error* inside the stream."""

    def _count_events(self, block: bytes) -> None:
        mark = b'"candidates"' if self.is_array else b"data:"
        count = block.count(mark, 0, COUNTED_BYTES)
        # They are counted for an estimate, and are all of one kind.
        self._events += count if len(block) <= COUNTED_BYTES else round(count * len(block) / COUNTED_BYTES)

    def note_end(self, error: UpstreamError | None) -> None:
        """Note that the stream has come to its end, or that it failed."""
        if self.lease is None:
            return
        if error is not None or self.is_failed:
            self.lease.fail(error or UpstreamCut("the upstream reported an error in its stream"))
        else:
            self.lease.succeed()

    def close(self) -> None:
        """Record the usage, and let go of the upstream's connection and of its slot."""
        self._answer.close()
        self._record.usage = self.usage
        if not self.is_complete and self.request is not None:
            # A delta holds a token or a few; vendors charge for what they wrote before they noticed.
            self._record.usage = estimate_usage(self.usage, self.request.count_input, self._events)
            self._record.is_usage_estimated = True
        if self.lease is not None:
            self.lease.end()
        if self.at_close is not None:
            self.at_close()


class Sink(Protocol):
    """Where a stream goes."""

    def write(self, block: bytes) -> bool:
        """Take *block*, and tell whether more can be taken before `drain`.

        Raises:
            ConnectionError: nobody is there any more.
        """
        ...

    async def drain(self) -> None:
        """Wait until more can be taken."""
        ...


class Cutter(Protocol):
    """Cuts what has arrived where it may be relayed."""

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be relayed by now."""
        ...

    def take_rest(self) -> bytes:
        """Return what is left at the end."""
        ...


class _NoCutter:
    def feed(self, chunk: bytes) -> bytes:
        return chunk

    def take_rest(self) -> bytes:
        return b""


class RelayedStream(LiveStream):
    """A stream that is relayed as bytes."""

    def __init__(
        self,
        answer: Answer,
        cutter: Cutter,
        tap: StreamTap,
        fmt: Format,
        provider: Provider,
        record: CallRecord,
        deadline: float,
    ) -> None:
        super().__init__(answer, select_for_caller(answer.headers), record, deadline)
        self._provider = provider
        self._cutter = cutter
        self._tap = tap
        self._fmt = fmt
        self._is_over = False

    @property
    @override
    def usage(self) -> Usage | None:
        return self._tap.usage

    @property
    @override
    def is_complete(self) -> bool:
        return self._tap.is_complete and (self._is_over or self._tap.is_terminal or self._tap.usage is not None)

    @property
    @override
    def is_array(self) -> bool:
        return isinstance(self._cutter, _NoCutter)

    @property
    @override
    def is_failed(self) -> bool:
        return self._tap.is_failed

    @override
    async def wait_for_first(self) -> None:
        self.first = await self.next_block()
        # Comments that keep the line alive (OpenRouter's do) are not the first event: an error may still follow.
        while not self._has_first():
            block = await self.next_block()
            if not block:
                raise UpstreamCut("the upstream's stream ended before its first event")
            self.first += block
        if self.is_array and not self.first.lstrip().startswith(b"["):
            await _refuse_whole(self._answer, self._fmt, self._record, self.first)
        error = self._fmt.read_stream_error(self.first)
        if error is not None:
            try:
                raise error
            finally:
                del error  # else it and this frame would hold each other

    def _has_first(self) -> bool:
        if self.is_array:
            return self.first.strip() not in (b"", b"[")
        return first_event(self.first) is not None

    @override
    async def next_block(self) -> bytes:
        while not self._is_over:
            try:
                chunk = await self._answer.read()
            except UpstreamError:
                self._tap.finish()
                if not self._tap.is_complete:
                    raise
                chunk = b""
            block = self._pass(chunk) if chunk else self._end()
            if block:
                return block
        return b""

    @override
    async def relay(self, sink: Sink) -> None:
        is_ours = False

        def take(chunk: bytes) -> bool:
            nonlocal is_ours
            is_ours = True  # as long as it is being looked at
            block = self._pass(chunk)
            is_ours = False
            return not block or sink.write(block)

        while not self._is_over:
            try:
                is_full = await self._answer.hand_to(take)
            except UpstreamError:
                self._tap.finish()
                if is_ours or not self._tap.is_complete:
                    raise
                is_full = False
            if is_full:
                await sink.drain()
            elif block := self._end():
                sink.write(block)

    def _pass(self, chunk: bytes) -> bytes:
        """Return what can be told to the caller by now, with *chunk*, the next bytes of the upstream's."""
        block = self._tap.feed(self._cutter.feed(chunk))
        if self._tap.is_terminal:
            self._answer.expect_end()
        if not block:
            return block
        self._count_events(block)
        return self._provider.redact(block) if self._tap.is_failed else block

    def _end(self) -> bytes:
        self._is_over = True
        # Several servers leave out the blank line behind their last event; half an event is never passed on.
        rest = self._cutter.take_rest()
        if rest.strip(b"\r\n"):
            rest = self._tap.feed(rest) if is_whole_event(rest) else b""
        self._tap.finish()
        if not self._tap.is_complete:
            raise UpstreamCut("the upstream's stream ended before it was complete")
        self._count_events(rest)
        return self._provider.redact(rest) if self._tap.is_failed else rest

    @override
    def encode_failure(self, error: ProxyError) -> bytes:
        return self._fmt.encode_stream_error(error, self._record.request_id)


class ConvertedStream(LiveStream):
    """A stream that the upstream writes in another format."""

    def __init__(
        self,
        answer: Answer,
        crossing: StreamCrossing,
        provider: Provider,
        record: CallRecord,
        deadline: float,
        *,
        is_array: bool,
    ) -> None:
        content_type = JSON_TYPE if is_array else EVENT_STREAM
        super().__init__(answer, CIMultiDict({"Content-Type": content_type}), record, deadline)
        self._crossing = crossing
        self._provider = provider
        self._is_array = is_array
        self._has_ended = False

    @property
    @override
    def usage(self) -> Usage | None:
        return self._crossing.usage

    @property
    @override
    def is_complete(self) -> bool:
        return self._has_ended

    @property
    @override
    def is_array(self) -> bool:
        return self._is_array

    @property
    @override
    def has_band(self) -> bool:
        return True

    @property
    @override
    def is_failed(self) -> bool:
        return False  # is raised, and then told by us

    @override
    async def wait_for_first(self) -> None:
        self.first = await self.next_block()
        if self._crossing.is_over:
            # What came with the failure has not been sent yet.
            self._raise_failure()

    @override
    async def next_block(self) -> bytes:
        crossing = self._crossing
        while not crossing.is_over:
            try:
                chunk = await self._answer.read()
            except UpstreamError:
                # Several servers reset the connection behind an answer that is complete all the same.
                block = crossing.feed_eof()
                if crossing.take_failure() is not None:
                    raise
            else:
                block = crossing.feed(chunk) if chunk else crossing.feed_eof()
            if block:
                self._count_events(block)
                return block
        await self._end()
        return b""

    @override
    async def relay(self, sink: Sink) -> None:
        crossing = self._crossing

        def take(chunk: bytes) -> bool:
            block = crossing.feed(chunk)
            is_taken = True
            if block:
                self._count_events(block)
                is_taken = sink.write(block)
            return is_taken and not crossing.is_over

        while not crossing.is_over:
            try:
                if await self._answer.hand_to(take):
                    await sink.drain()
                    continue
                block = crossing.feed_eof()
            except UpstreamError:
                # Several servers reset the connection behind an answer that is complete all the same.
                block = crossing.feed_eof()
                if crossing.take_failure() is not None:
                    raise
            if block:
                self._count_events(block)
                sink.write(block)
        await self._end()

    async def _end(self) -> None:
        """Note that the upstream has said all, or raise what it has failed with."""
        self._raise_failure()
        self._has_ended = True
        await self._read_on()

    def _raise_failure(self) -> None:
        failure = self._crossing.take_failure()
        if failure is not None:
            self._provider.hide_keys(failure)
            try:
                raise failure
            finally:
                del failure  # else it and this frame would hold each other

    async def _read_on(self) -> None:
        """Read up to the end of the connection's answer, so that the connection can be used again."""
        self._answer.expect_end()
        with suppress(UpstreamError):
            while await self._answer.read():
                pass

    @override
    def encode_failure(self, error: ProxyError) -> bytes:
        return self._crossing.encode_failure(error)


async def attempt(
    request: Request,
    call: Call,
    candidate: Candidate,
    provider: Provider,
    crossing: Crossing | None,
    deadline: float,
    record: CallRecord,
) -> WholeAnswer | LiveStream:
    """Send *call*, what `write_call` made of *request*, to *candidate*, and return what it answers.

    Raises:
        UpstreamError: it was not answered, or with an error.
    """
    started_s = time.perf_counter()
    record.begin_attempt(*candidate.target)
    answer = await provider.send(call, deadline, candidate.key)
    is_handed_over = False
    try:
        if not 200 <= answer.status < 300:
            raise await provider.read_refusal(answer, request.fmt if crossing is None else crossing.upstream)
        if request.share is not None:
            answer = request.share(answer, candidate.target, request.fmt if crossing is None else crossing.upstream)
        is_handed_over = True
        return await receive(answer, request, crossing, provider, deadline, record)
    finally:
        record.upstream_ms = (time.perf_counter() - started_s) * 1000
        if not is_handed_over:
            answer.close()


async def receive(
    answer: Answer,
    request: Request,
    crossing: Crossing | None,
    provider: Provider,
    deadline: float,
    record: CallRecord,
) -> WholeAnswer | LiveStream:
    """Return what *answer*, which came with a success status, is to the caller of *request*; see to its being closed.

    Raises:
        UpstreamError: it broke off, or is an error in spite of its status.
    """
    is_handed_over = False
    try:
        if not request.is_stream:
            if crossing is None:
                return await read_whole(answer, request.fmt, record)
            return await _convert_whole(answer, crossing, record)
        if crossing is None:
            stream = await _open_relay(answer, request, provider, record, deadline)
        else:
            stream = await _open_conversion(answer, request, crossing, provider, record, deadline)
        stream.request = request
        await _wait_for_first(stream)
        is_handed_over = True
        return stream
    finally:
        if not is_handed_over:
            answer.close()


async def _wait_for_first(stream: LiveStream) -> None:
    try:
        await stream.wait_for_first()
    except UpstreamRefusal:
        stream.request = None  # nothing was written, and so it cost no more than the upstream itself says
        stream.close()
        raise
    except BaseException:
        stream.close()  # what it cost by now is recorded, also where it is the caller who leaves
        raise


def write_call(request: Request, target: Target, provider: Provider, crossing: Crossing | None) -> Call:
    """Return what goes to *target* by way of *crossing*; the caller's bytes where there is none.

    Raises:
        InvalidRequest: the conversion would lose its meaning.
    """
    return _write_bytes(request, target, provider) if crossing is None else _write(request, target, crossing)


def _write_bytes(request: Request, target: Target, provider: Provider) -> Call:
    body = request.body
    model = target.model if target.model != request.model else None
    ask_usage = _asks_usage(request, provider)
    if model is not None or ask_usage:
        body = apply_edits(body, request.fmt.edits(body, model=model, ask_usage=ask_usage))
    path = request.path
    if "{model}" in path:
        path = path.replace("{model}", quote_model(target.model))
    return Call(path=path, query=request.query, headers=request.headers, body=body)


def _asks_usage(request: Request, provider: Provider) -> bool:
    return request.is_stream and not request.wants_usage and provider.settings.stream_usage


def _write(request: Request, target: Target, crossing: Crossing) -> Call:
    path, query, body = crossing.encode_request(target.model)
    headers = select_for_conversion(request.headers)
    headers["Content-Type"] = JSON_TYPE
    return Call(path=path, query=query, headers=headers, body=body)


async def read_whole(answer: Answer, fmt: Format, record: CallRecord, begun: bytes = b"") -> WholeAnswer:
    """Return *answer*, of whose body *begun* was read before, as it is, after a look at it.

    Raises:
        UpstreamError: it broke off, or is an error in spite of its status.
    """
    body = begun + await answer.read_whole()
    try:
        tapped = fmt.read_answer(body)
    except msgspec.DecodeError as exc:
        raise UpstreamGarbage("the upstream's answer is not JSON") from exc
    if tapped.error is not None:
        try:
            raise tapped.error
        finally:
            del tapped  # else the error and this frame would hold each other
    record.usage = tapped.usage
    return WholeAnswer(answer.status, select_for_caller(answer.headers), body)


async def _convert_whole(answer: Answer, crossing: Crossing, record: CallRecord) -> WholeAnswer:
    body, response = crossing.convert_answer(await answer.read_whole())
    record.usage = response.usage
    record.dropped = crossing.losses.names
    return WholeAnswer(answer.status, CIMultiDict({"Content-Type": JSON_TYPE}), body)


async def _open_relay(
    answer: Answer, request: Request, provider: Provider, record: CallRecord, deadline: float
) -> LiveStream:
    cutter: Cutter
    match answer.content_type:
        case "text/event-stream" | "":
            cutter = EventCutter()
            hide_usage = _asks_usage(request, provider)
            tap = request.fmt.stream_tap(hide_usage=hide_usage, candidates=request.candidates)
        case "application/json" if wants_array(request):
            cutter, tap = _NoCutter(), GEMINI.array_tap(request.candidates)
        case _:
            await _refuse_whole(answer, request.fmt, record)
    return RelayedStream(answer, cutter, tap, request.fmt, provider, record, deadline)


async def _open_conversion(
    answer: Answer, request: Request, crossing: Crossing, provider: Provider, record: CallRecord, deadline: float
) -> LiveStream:
    if answer.content_type not in (EVENT_STREAM, ""):
        await _refuse_whole(answer, crossing.upstream, record)
    is_array = wants_array(request)
    encoder = open_encoder(request, crossing.asked, record.request_id)
    return ConvertedStream(answer, crossing.open_stream(encoder), provider, record, deadline, is_array=is_array)


def open_encoder(request: Request, asked: HubRequest, request_id: str) -> StreamEncoder:
    """Return an encoder for the stream that *request*, decoded *asked*, wants."""
    return (GEMINI.array_encoder if wants_array(request) else request.fmt.stream_encoder)(asked, request_id)


def wants_array(request: Request) -> bool:
    """Tell whether a stream is wanted as an array in JSON.

    Gemini's callers get events only where they ask for them: https://ai.google.dev/api/generate-content.
    """
    return request.fmt is GEMINI and "alt=sse" not in request.query.split("&")


async def _refuse_whole(answer: Answer, fmt: Format, record: CallRecord, begun: bytes = b"") -> NoReturn:
    # Several imitations report errors with a success status, whole even where a stream was asked for.
    await read_whole(answer, fmt, record, begun)
    raise UpstreamGarbage("the upstream answered whole where a stream was asked for")
