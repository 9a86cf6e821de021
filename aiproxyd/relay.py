"""The only pump to the caller's socket.

Headers go out with the first events, never before; from then on errors are in band.
"""

import asyncio
import logging
from typing import Final

from aiohttp import web
from aiohttp.http_writer import StreamWriter
from typing_extensions import override

from aiproxyd.appkeys import RECORD
from aiproxyd.attempt import LiveStream, Sink
from aiproxyd.errors import ProxyError, UpstreamError
from aiproxyd.formats.base import Format
from aiproxyd.inflight import take_stop
from aiproxyd.providers.base import Answer
from aiproxyd.tasks import Clock
from aiproxyd.telemetry.records import CallRecord

STALLED_READER_S: Final = 1.0
"""How long after the end of a call its caller may still be taking in what it got."""

_log: Final = logging.getLogger(__name__)


async def relay_stream(request: web.Request, stream: LiveStream, fmt: Format, record: CallRecord) -> web.StreamResponse:
    """Send *stream* to the caller, and close it."""
    response = web.StreamResponse(status=stream.status, headers=stream.headers)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
    try:
        error = await _pump(request, response, stream, record)
    except TimeoutError:
        record.error = "caller_stalled"
        # Waiting for the upstream ends sooner: it is the caller who takes nothing any more.
        abort_connection(request)
        return response
    finally:
        stream.close()
    if error is not None:
        _log.warning("request %s: stream of %s failed: %s", record.request_id, record.upstream, error.message)
        if stream.has_band:
            await response.write(stream.encode_failure(error))
    if error is not None or stream.is_failed:
        record.error = (error.code or error.kind) if error is not None else "upstream_error"
        if stream.is_array or fmt.stream_error_closes:
            close_connection(request)
            return response
    await response.write_eof()
    return response


class _CallerSink(Sink):
    """The caller of a stream whose answer has begun."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        writer = response._payload_writer  # aiohttp's own `write` can only be waited for
        assert isinstance(writer, StreamWriter)  # noqa: S101  # it is prepared
        self._writer = writer
        self._protocol = request.protocol

    @override
    def write(self, block: bytes) -> bool:
        writing = self._writer.write(block, drain=False)
        try:  # noqa: SIM105  # a context manager for each event costs more than what it holds
            writing.send(None)
        except StopIteration:  # it has nothing to wait for
            pass
        return not self._protocol.writing_paused

    @override
    async def drain(self) -> None:
        await self._writer.drain()


async def _pump(
    request: web.Request, response: web.StreamResponse, stream: LiveStream, record: CallRecord
) -> ProxyError | None:
    """Write the stream up to its end, or to the error that is returned.

    Raises:
        TimeoutError: the caller does not take it.
    """
    try:
        with Clock(request.task.get_loop(), stream.deadline + STALLED_READER_S):
            await response.prepare(request)
            await response.write(stream.first)
            await stream.relay(_CallerSink(request, response))
        stream.note_end(None)
    except UpstreamError as exc:
        stream.note_end(exc)
        # Else it, what caused it, and the frames of both would hold each other.
        exc.__cause__ = exc.__context__ = None
        return exc.with_traceback(None)
    except asyncio.CancelledError:
        stop = take_stop(record)
        if stop is None:
            raise
        return stop
    return None


async def relay_bytes(
    request: web.Request, answer: Answer, response: web.StreamResponse, deadline: float
) -> web.StreamResponse:
    """Send the body of *answer*, whatever it is, as it comes; a failure cuts the connection."""
    try:
        with Clock(request.task.get_loop(), deadline + STALLED_READER_S):
            await response.prepare(request)
            while chunk := await answer.read():
                await response.write(chunk)
    except UpstreamError as exc:
        _log.warning("request %s: relay failed: %s", request[RECORD].request_id, exc.message)
        request[RECORD].error = exc.code or exc.kind
        close_connection(request)
        return response
    except TimeoutError:
        request[RECORD].error = "caller_stalled"
        abort_connection(request)
        return response
    except asyncio.CancelledError:
        if take_stop(request[RECORD]) is None:
            raise
        close_connection(request)
        return response
    await response.write_eof()
    return response


def abort_connection(request: web.Request) -> None:
    """Cut the connection at once, whatever is still waiting to be sent."""
    if request.transport is not None:
        request.transport.abort()


def close_connection(request: web.Request) -> None:
    """Cut the connection behind what was written, so that the caller sees that the answer is not complete."""
    if request.transport is not None:
        request.transport.close()
