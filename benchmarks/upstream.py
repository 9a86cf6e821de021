"""Mock upstream of the benchmark: canned answers of several APIs, each in its own words, over a bare asyncio.Protocol.

Understands just enough HTTP/1.1 (bodies with a content-length, keep-alive, no pipelining), so that it costs far less
than whatever is measured in front of it. A request for a stream is answered with 100 deltas, all in one write, or, in
the chat API and where the model is `paced`, one every 5 ms. Prints `PORT LOOP` once it listens; ends on SIGTERM.
"""

import asyncio
import gc
import importlib
import re
import signal
from collections.abc import Sequence
from typing import cast

import msgspec
from typing_extensions import override

from benchmarks import wire

CHAT_DELTAS = 98
"""With the role chunk and the finish chunk a chat stream has 100 events, `[DONE]` and a usage chunk not counted."""

DELTAS = 100
"""Of the other APIs' streams."""

GAP_S = 0.005
"""Time between two events of a paced stream."""

_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": *true')
_USAGE = re.compile(rb'"include_usage": *true')
_PACED = re.compile(rb'"model": *"paced"')


def _head(status: str, *fields: str) -> bytes:
    common = ("server: mock", "date: Thu, 01 Jan 2026 00:00:00 GMT", "x-request-id: req_0123456789abcdef")
    return "\r\n".join((f"HTTP/1.1 {status}", *common, *fields, "", "")).encode()


def _whole(status: str, body: bytes) -> bytes:
    return _head(status, "content-type: application/json", f"content-length: {len(body)}") + body


def _refusal(status: str, message: str) -> bytes:
    return _whole(status, msgspec.json.encode({"error": {"message": message, "type": "invalid_request_error"}}))


def _framed(events: Sequence[bytes]) -> list[bytes]:
    """Make each event one chunk of the chunked encoding, as real upstreams send it; the last brings the end."""
    *others, last = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    return [*others, last + _LAST_CHUNK]


def _burst(events: Sequence[bytes]) -> bytes:
    return _STREAM_HEAD + b"".join(_framed(events))


_MODELS = _whole(
    "200 OK",
    msgspec.json.encode(
        {"object": "list", "data": [{"id": name, "object": "model", "created": 0} for name in ("bench-model", "paced")]}
    ),
)
_NOT_FOUND = _refusal("404 Not Found", "no such path")
_NO_LENGTH = _refusal("411 Length Required", "content-length missing")
_STREAM_HEAD = _head(
    "200 OK", "content-type: text/event-stream", "cache-control: no-cache", "transfer-encoding: chunked"
)
_EVENTS = {
    has_usage: _framed(wire.CHAT.stream(wire.words(CHAT_DELTAS), has_usage=has_usage)) for has_usage in (False, True)
}
_BURST = {has_usage: _STREAM_HEAD + b"".join(events) for has_usage, events in _EVENTS.items()}
_COMPLETION = _whole("200 OK", wire.CHAT.answer())
_MESSAGE = _whole("200 OK", wire.MESSAGES.answer())
_MESSAGE_BURST = _burst(wire.MESSAGES.stream(wire.words(DELTAS)))
_GEMINI = _whole("200 OK", wire.GEMINI.answer())
_GEMINI_BURST = _burst(wire.GEMINI.stream(wire.words(DELTAS)))


class _Connection(asyncio.Protocol):
    """One keep-alive connection of whoever calls. uvloop and asyncio both set TCP_NODELAY on it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer:
            self._timer.cancel()

    @override
    def data_received(self, data: bytes) -> None:
        self._pending += data
        head_end = self._pending.find(_HEAD_END)
        if head_end < 0:
            return
        head = bytes(self._pending[: head_end + 2])
        length = _LENGTH.search(head)
        request_bytes = head_end + len(_HEAD_END) + (int(length[1]) if length else 0)
        if len(self._pending) < request_bytes:
            return
        body = bytes(self._pending[head_end + len(_HEAD_END) : request_bytes])
        del self._pending[:request_bytes]
        self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /v1/models"):
            self._write(_MODELS)
        elif not head.startswith(b"POST "):
            self._write(_NOT_FOUND)
        elif not body:
            self._write(_NO_LENGTH)
        elif head.startswith(b"POST /v1/chat/completions "):
            self._chat(body)
        elif head.startswith(b"POST /v1/messages "):
            self._write(_MESSAGE_BURST if _STREAM.search(body) else _MESSAGE)
        elif head.startswith(b"POST /v1beta/models/"):
            self._write(_GEMINI_BURST if b":streamGenerateContent?" in head else _GEMINI)
        else:
            self._write(_NOT_FOUND)

    def _chat(self, body: bytes) -> None:
        if not _STREAM.search(body):
            self._write(_COMPLETION)
        elif _PACED.search(body):
            self._write(_STREAM_HEAD)
            self._pace(_EVENTS[bool(_USAGE.search(body))], 0, self._loop.time())
        else:
            self._write(_BURST[bool(_USAGE.search(body))])

    def _pace(self, events: list[bytes], number: int, started: float) -> None:
        """Write one event and set the clock for the next, counted from the start, so that no delay adds up."""
        self._write(events[number])
        if number + 1 < len(events):
            due = started + (number + 1) * GAP_S
            self._timer = self._loop.call_at(due, self._pace, events, number + 1, started)

    def _write(self, data: bytes) -> None:
        if self._transport:
            self._transport.write(data)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], type(loop).__module__.partition(".")[0], flush=True)
    await ended.wait()
    server.close()


def main() -> None:
    # Nothing here makes cycles; a collection would only be noise in somebody's latency.
    gc.disable()
    try:
        new_loop = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        new_loop = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve())


if __name__ == "__main__":
    main()
