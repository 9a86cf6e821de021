"""From one format to another: what stands between the decoder of the one and the encoder of the other. Sans-I/O.

Formats know nothing of each other, and nothing here knows two of them: it goes by their traits and by the capabilities
of the model.
"""

from collections.abc import Iterable
from typing import Final

from aiproxyd.capabilities import Capabilities
from aiproxyd.conversion.inbound import Inbound
from aiproxyd.conversion.memory import Memory
from aiproxyd.conversion.outbound import Outbound, describes_object
from aiproxyd.conversion.state import has_foreign_state
from aiproxyd.errors import InvalidRequest, ProxyError, UpstreamGarbage, UpstreamRefusal
from aiproxyd.formats.base import Format
from aiproxyd.formats.codec import Losses, StreamDecoder, StreamEncoder
from aiproxyd.hub import Delta, Event, Failed, Ping, Request, Response, Usage, UsageSeen, fold, unfold
from aiproxyd.sse import SSEDecoder

__all__ = ["MAX_STREAM_BYTES", "Crossing", "Memory", "StreamCrossing", "rewrite_request"]

MAX_STREAM_BYTES: Final = 256 * 1024 * 1024
"""Longest stream that is converted; as long as a whole answer may be. Several formats end with all that was said, and
hold it until then."""


class Crossing:
    """One attempt to have a caller's request answered by a model of another format."""

    def __init__(
        self,
        asked: Request,
        caller: Format,
        upstream: Format,
        capabilities: Capabilities,
        *,
        origin: str,
        principal: str,
        memory: Memory,
        is_strict: bool = False,
    ) -> None:
        """Take the request as *caller*'s format has decoded it.

        *origin* names upstream and model, ``UPSTREAM/MODEL``; *principal* is whose conversation it is.
        """
        self.losses = Losses()
        self.asked = asked
        self.upstream = upstream
        self._caller = caller
        self._capabilities = capabilities
        self._is_strict = is_strict
        seal_origin = f"{upstream.name}@{origin}"
        self._outbound = Outbound(
            upstream, capabilities, origin=seal_origin, principal=principal, memory=memory, losses=self.losses
        )
        self._inbound = Inbound(
            asked,
            caller,
            upstream,
            self._outbound.names,
            origin=seal_origin,
            principal=principal,
            memory=memory,
            losses=self.losses,
            wants_thoughts_back=capabilities.wants_thoughts_back,
        )

    def encode_request(self, model: str) -> tuple[str, str, bytes]:
        """Return path, query and body of the request that goes to the upstream's *model*.

        Raises:
            InvalidRequest: its meaning would be lost; or, in a strict crossing, anything at all.
        """
        request = self._prepare(model)
        body = self.upstream.encode_request(request, self._capabilities, self.losses)
        if self._is_strict and self.losses.names:
            raise InvalidRequest(
                f"this model's API ({self.upstream.name}) has no place for: {', '.join(self.losses.names)}; "
                "the gateway is told to refuse what would be lost (--strict-conversion)"
            )
        return *self.upstream.request_path(request), body

    def encode_count(self, model: str) -> tuple[str, bytes] | None:
        """Return path and body that ask the upstream to count the request's tokens; None where its API cannot.

        Raises:
            InvalidRequest: its meaning would be lost.
        """
        request = self._prepare(model)
        return self.upstream.encode_count_request(request, self._capabilities, self.losses)

    def _prepare(self, model: str) -> Request:
        """Return the request as it is to be encoded.

        Raises:
            InvalidRequest: its meaning would be lost.
        """
        self._caller.refuse_state(self.asked)
        output = self.asked.output
        if self._capabilities.needs_object_output and output is not None and not describes_object(output):
            place = self._caller.traits.output_schema
            raise InvalidRequest(
                f"this model answers with nothing but an object: make what {place.removeprefix('$.')} asks for a "
                "property of an object",
                param=place,
            )
        return self._outbound.prepare(self.asked, model)

    def convert_answer(self, body: bytes) -> tuple[bytes, Response]:
        """Return the caller's answer to a whole answer of the upstream, and what it says.

        Raises:
            UpstreamError: it is no answer.
        """
        response = self.upstream.decode_response(body)
        if not self._inbound.is_plain(response):
            response = fold(self._inbound.feed(unfold(response)))
        return self._caller.encode_response(response, self.asked), response

    def replay(self, body: bytes, encoder: StreamEncoder | None) -> bytes:
        """Return the caller's answer to a whole answer of the upstream: written by *encoder* as a stream, else whole.

        Raises:
            UpstreamError: it is no answer.
        """
        if encoder is None:
            return self.convert_answer(body)[0]
        return b"".join(map(encoder.feed, self._inbound.feed(unfold(self.upstream.decode_response(body)))))

    def open_stream(self, encoder: StreamEncoder) -> "StreamCrossing":
        """Return the machine that converts the upstream's stream to what *encoder* writes."""
        return StreamCrossing(self.upstream.stream_decoder(self.asked.candidates), self._inbound, encoder)


def rewrite_request(
    body: bytes,
    asked: Request,
    fmt: Format,
    capabilities: Capabilities,
    *,
    model: str,
    origin: str,
    principal: str,
    memory: Memory,
    losses: Losses,
) -> bytes | None:
    """Return *body*, decoded *asked*, for a *model* of its own format, without what other vendors have left in it.

    None where they have left nothing, so that it can go as it came. Where they have, all that does not belong to the
    conversation still goes as it came.

    Raises:
        InvalidRequest: its meaning would be lost.
    """
    if not has_foreign_state(asked.turns):
        return None
    outbound = Outbound(
        fmt, capabilities, origin=f"{fmt.name}@{origin}", principal=principal, memory=memory, losses=losses
    )
    request = outbound.clean(asked, model)
    written = fmt.encode_request(request, capabilities, losses)
    changed = ["turns"]
    if request.reasoning != asked.reasoning:
        changed.append("reasoning")
    if request.tools:
        changed.append("tools")
    return fmt.rewrite(body, written, changed, losses)


class StreamCrossing:
    """Upstream bytes in, caller bytes out. One per stream."""

    def __init__(self, decoder: StreamDecoder, inbound: Inbound, encoder: StreamEncoder) -> None:
        self._sse = SSEDecoder()
        self._decoder = decoder
        self._inbound = inbound
        self._encoder = encoder
        self._size_bytes = 0
        """Of the upstream's stream, so far."""
        self._has_begun = False
        self._usage: Usage | None = None
        self._failure: ProxyError | None = None
        self._is_failed = False

    @property
    def is_over(self) -> bool:
        """Whether the answer has come to its end, good or bad."""
        return self._decoder.is_over or self._is_failed

    @property
    def usage(self) -> Usage | None:
        """What the upstream has reported so far."""
        return self._decoder.untold_usage() or self._usage

    def take_failure(self) -> ProxyError | None:
        """Return, and forget, why the answer will never be complete; what was returned before holds."""
        failure, self._failure = self._failure, None
        return failure

    def feed(self, chunk: bytes) -> bytes:
        """Return what *chunk*, bytes of the upstream's stream, is to the caller: whole events, or nothing yet."""
        self._size_bytes += len(chunk)
        if self._size_bytes > MAX_STREAM_BYTES:
            self._fail(UpstreamGarbage(f"the upstream's stream is longer than {MAX_STREAM_BYTES} bytes"))
            return b""
        try:
            events = self._sse.feed(chunk)
        except UpstreamGarbage as exc:
            self._fail(exc.with_traceback(None))
            return b""
        # Together: to go through all layers for each event by itself costs a seventh more.
        return self._encode(map(self._decoder.feed, events))

    def feed_eof(self) -> bytes:
        """Return what the end of the upstream's stream is to the caller."""
        rest = self._encode(map(self._decoder.feed, self._sse.feed_eof()))
        return rest + self._encode((self._decoder.feed_eof(),))

    def encode_failure(self, error: ProxyError) -> bytes:
        """Return the bytes that tell the caller of *error* inside the stream; nothing may follow."""
        return self._encoder.feed(Failed(error))

    def _fail(self, failure: ProxyError) -> None:
        if isinstance(failure, UpstreamRefusal):
            failure.forget_format()
        self._failure = failure
        self._is_failed = True

    def _encode(self, batches: Iterable[Iterable[Event]]) -> bytes:
        """Return what *batches* are to the caller, each of them all that one event of the upstream's means."""
        pieces: list[bytes] = []
        encode = self._encoder.feed
        for event in self._inbound.feed_batches(batches):
            if type(event) is Delta:
                pieces.append(encode(event))
                continue
            match event:
                case Failed(error=error):
                    self._fail(error)
                    break
                case Ping() if not self._has_begun:
                    continue  # as long as nothing has begun, an ordinary error can still be answered
                case UsageSeen(usage=usage):
                    self._usage = usage
                case _:
                    self._has_begun = True
            pieces.append(encode(event))
        return b"".join(pieces)
