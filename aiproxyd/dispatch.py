"""The call chain: a caller's request → attempts at its targets → an answer to relay.

What comes out of here has begun well: an attempt counts only when the whole answer, or the first event of a stream, is
there; until then a failure is an ordinary error, and the next target can be tried.
"""

import logging
import time
from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct
from multidict import CIMultiDict

from aiproxyd.config import Target
from aiproxyd.errors import (
    InvalidRequest,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamKeyRefused,
    UpstreamRefusal,
)
from aiproxyd.formats import GEMINI
from aiproxyd.formats.base import Format, StreamTap, is_whole_event
from aiproxyd.headers import select_for_caller
from aiproxyd.keyring import Principal
from aiproxyd.providers.base import Answer, Call, Provider
from aiproxyd.routing.catalogue import Catalogue
from aiproxyd.splice import apply_edits
from aiproxyd.sse import EventCutter, first_event
from aiproxyd.telemetry.records import CallRecord

_log: Final = logging.getLogger(__name__)

_TRANSIENT_STATUSES: Final = frozenset((408, 409, 429))
"""Refusals that another target may not share, beside all from 500 on; the others are about the request itself."""


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


class WholeAnswer(Struct):
    """An answer that is complete."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


class LiveStream:
    """A stream whose first events have come. Must be closed."""

    def __init__(self, answer: Answer, cutter: "Cutter", tap: StreamTap, record: CallRecord, deadline: float) -> None:
        self.status = answer.status
        self.headers = select_for_caller(answer.headers)
        self.first = b""
        """The first events; they belong to the stream and come before ``next_block``."""
        self.deadline = deadline
        """When the whole call must be over, on the monotonic clock."""
        self._answer = answer
        self._cutter = cutter
        self._tap = tap
        self._record = record
        self._is_over = False

    @property
    def is_array(self) -> bool:
        """Whether this is Gemini's JSON array, which has no place for an error in band."""
        return isinstance(self._cutter, _NoCutter)

    @property
    def is_failed(self) -> bool:
        """Whether the upstream itself has reported an error in band."""
        return self._tap.is_failed

    async def wait_for_first(self) -> None:
        """Wait for the first event, into ``first``.

        Raises:
            UpstreamError: the stream broke off, or ended before it was complete.
        """
        self.first = await self.next_block()
        # Comments that keep the line alive (OpenRouter's do) are not the first event: an error may still follow.
        while not self.is_array and first_event(self.first) is None:
            block = await self.next_block()
            if not block:
                raise UpstreamCut("the upstream's stream ended before its first event")
            self.first += block

    async def next_block(self) -> bytes:
        """Return the next whole events for the caller, b"" behind the end.

        Raises:
            UpstreamError: the stream broke off, or ended before it was complete.
        """
        while not self._is_over:
            try:
                chunk = await self._answer.read()
            except UpstreamError:
                self._tap.finish()
                if not self._tap.is_complete:
                    raise
                chunk = b""
            block = self._tap.feed(self._cutter.feed(chunk)) if chunk else self._end()
            if self._tap.is_terminal:
                self._answer.expect_end()
            if block:
                return block
        return b""

    def _end(self) -> bytes:
        self._is_over = True
        # Several servers leave out the blank line behind their last event; half an event is never passed on.
        rest = self._cutter.take_rest()
        if rest.strip(b"\r\n"):
            rest = self._tap.feed(rest) if is_whole_event(rest) else b""
        self._tap.finish()
        if not self._tap.is_complete:
            raise UpstreamCut("the upstream's stream ended before it was complete")
        return rest

    def close(self) -> None:
        """Record the usage and let go of the upstream's connection."""
        self._record.usage = self._tap.usage
        self._answer.close()


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


class Dispatcher:
    """Sends requests to the targets of their models."""

    def __init__(self, catalogue: Catalogue, providers: Mapping[str, Provider]) -> None:
        self._catalogue = catalogue
        self._providers = providers

    async def send(self, request: Request, principal: Principal, record: CallRecord) -> WholeAnswer | LiveStream:
        """Return the first good answer of a target; a LiveStream is closed by the caller.

        Raises:
            UnknownModel: nobody serves the model.
            InvalidRequest: none of its targets speaks the request's format.
            UpstreamError: what the last target that was tried said.
        """
        targets = await self._catalogue.resolve(request.model, principal)
        speaking = [target for target in targets if request.fmt.name in self._providers[target.upstream].formats]
        started_s = time.monotonic()
        for target in speaking:
            provider = self._providers[target.upstream]
            record.attempts += 1
            record.upstream, record.upstream_model = target
            deadline = started_s + provider.settings.limits.request_s
            try:
                return await self._attempt(request, target, provider, deadline, record)
            except UpstreamError as exc:
                provider.hide_keys(exc)
                _log_failure(exc, target, record)
                if isinstance(exc, UpstreamKeyRefused):
                    provider.note_failure()
                is_late = time.monotonic() >= deadline
                if target is speaking[-1] or is_late or not _is_transient(exc):
                    raise
        spoken = ", ".join(sorted({name for target in targets for name in self._providers[target.upstream].formats}))
        raise InvalidRequest(
            f"model {request.model!r} cannot be called in the {request.fmt.name} format: its upstream speaks {spoken}",
            param="$.model",
        )

    async def _attempt(
        self, request: Request, target: Target, provider: Provider, deadline: float, record: CallRecord
    ) -> WholeAnswer | LiveStream:
        started_s = time.perf_counter()
        ask_usage = request.is_stream and not request.wants_usage and provider.settings.stream_usage
        model = target.model if target.model != request.model else None
        body = request.body
        if model is not None or ask_usage:
            body = apply_edits(body, request.fmt.edits(body, model=model, ask_usage=ask_usage))
        path = request.path.replace("{model}", quote(target.model, safe="/:@"))
        answer = await provider.send(Call(path=path, query=request.query, headers=request.headers, body=body), deadline)
        is_handed_over = False
        try:
            if not 200 <= answer.status < 300:
                raise await provider.read_refusal(answer, request.fmt)
            if not request.is_stream:
                return await _read_whole(answer, request.fmt, record)
            stream = await _open_stream(answer, request, record, deadline, hide_usage=ask_usage)
            is_handed_over = True
            return stream
        finally:
            record.upstream_ms = (time.perf_counter() - started_s) * 1000
            if not is_handed_over:
                answer.close()


async def _read_whole(answer: Answer, fmt: Format, record: CallRecord) -> WholeAnswer:
    body = await answer.read_whole()
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


async def _open_stream(
    answer: Answer, request: Request, record: CallRecord, deadline: float, *, hide_usage: bool
) -> LiveStream:
    cutter: Cutter
    match answer.content_type:
        case "text/event-stream" | "":
            cutter = EventCutter()
            tap = request.fmt.stream_tap(hide_usage=hide_usage, candidates=request.candidates)
        case "application/json" if request.fmt is GEMINI:
            cutter, tap = _NoCutter(), GEMINI.array_tap(request.candidates)
        case _:
            # Several imitations report errors with a success status, whole even where a stream was asked for.
            await _read_whole(answer, request.fmt, record)
            raise UpstreamGarbage("the upstream answered whole where a stream was asked for")
    stream = LiveStream(answer, cutter, tap, record, deadline)
    await stream.wait_for_first()
    error = request.fmt.read_stream_error(stream.first)
    if error is not None:
        try:
            raise error
        finally:
            del error  # else it and this frame would hold each other
    return stream


def _is_transient(error: UpstreamError) -> bool:
    return not isinstance(error, UpstreamRefusal) or error.status >= 500 or error.status in _TRANSIENT_STATUSES


def _log_failure(error: UpstreamError, target: Target, record: CallRecord) -> None:
    cause = error.__cause__
    _log.log(
        logging.WARNING if _is_transient(error) else logging.INFO,
        "request %s, attempt %d at %s/%s failed: %s (%s)",
        record.request_id,
        record.attempts,
        target.upstream,
        target.model,
        # What an upstream says may quote the prompt.
        f"refused with status {error.status}" if isinstance(error, UpstreamRefusal) else error.message,
        # Its text may hold the URL, and so what the caller wrote into the query.
        (type(cause).__name__ if isinstance(cause, aiohttp.ClientResponseError) else repr(cause)) if cause else "-",
    )
