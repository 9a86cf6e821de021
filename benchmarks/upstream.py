"""Mock upstream of the benchmark: canned answers of four APIs, each in its own words, over a bare asyncio.Protocol.

Understands just enough HTTP/1.1 (bodies with a content-length, keep-alive, no pipelining), so that it costs far less
than whatever is measured in front of it. A request for a stream is answered with 100 deltas, all in one write, unless
the model's name, `bench-API`, says more: `-paced`, one every 5 ms; `-idle`, the first alone and then nothing. Whole
answers of the chat API can be long: `-answer100k`, `-answer10m`. Prints `PORT LOOP` once it listens; ends on SIGTERM.
"""

import asyncio
import gc
import importlib
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Final, cast

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
# Where the model stands in the path, in Gemini's API, it does so before anything else could look like it.
_MANNER = re.compile(rb'(?:"model": *"|/models/)bench-[a-z]+-([a-z0-9]+)')
_PACED: Final = b"paced"
_IDLE: Final = b"idle"
_LONG_BYTES: Final = {b"answer100k": 100_000, b"answer10m": 10_000_000}


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


_STREAM_HEAD = _head(
    "200 OK", "content-type: text/event-stream", "cache-control: no-cache", "transfer-encoding: chunked"
)


class _Stream:
    """A stream, in each manner of sending it."""

    def __init__(self, events: Sequence[bytes]) -> None:
        self.pieces = _framed(events)
        self.burst = _STREAM_HEAD + b"".join(self.pieces)
        # What opens a stream has no text yet; whoever waits for the first event that says something gets it too.
        said = next(at for at, event in enumerate(events) if wire.words(1)[0].encode() in event)
        self.start = _STREAM_HEAD + b"".join(self.pieces[: said + 1])


class _Voice:
    """What is answered in one API."""

    def __init__(self, api: wire.Api, stream: _Stream, *, with_usage: _Stream | None = None) -> None:
        self.whole = _whole("200 OK", api.answer())
        self.stream = stream
        self.with_usage = with_usage or stream


_CHAT_WORDS = wire.words(CHAT_DELTAS)
_CHAT = _Voice(
    wire.CHAT, _Stream(wire.CHAT.stream(_CHAT_WORDS)), with_usage=_Stream(wire.CHAT.stream(_CHAT_WORDS, has_usage=True))
)
_GEMINI = _Voice(wire.GEMINI, _Stream(wire.GEMINI.stream(wire.words(DELTAS))))
_VOICES: Mapping[bytes, _Voice] = {
    b"/v1/chat/completions": _CHAT,
    b"/v1/messages": _Voice(wire.MESSAGES, _Stream(wire.MESSAGES.stream(wire.words(DELTAS)))),
    b"/v1/responses": _Voice(wire.RESPONSES, _Stream(wire.RESPONSES.stream(wire.words(DELTAS)))),
}


def _lengthen(answer: bytes, length: int) -> bytes:
    text = wire.TEXT.encode()
    return answer.replace(text, text * (length // len(text)))


_LONG = {manner: _whole("200 OK", _lengthen(wire.CHAT.answer(), length)) for manner, length in _LONG_BYTES.items()}
_MODELS = _whole("200 OK", msgspec.json.encode({"object": "list", "data": []}))
_NOT_FOUND = _refusal("404 Not Found", "no such path")
_NO_LENGTH = _refusal("411 Length Required", "content-length missing")


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
        method, target, _ = head.split(b" ", 2)
        path, _, query = target.partition(b"?")
        is_gemini = path.startswith(b"/v1beta/models/")
        voice = _GEMINI if is_gemini else _VOICES.get(path)
        if method == b"GET" and path == b"/v1/models":
            self._write(_MODELS)
        elif method != b"POST" or voice is None:
            self._write(_NOT_FOUND)
        elif not body:
            self._write(_NO_LENGTH)
        else:
            named = _MANNER.search(path if is_gemini else body)
            manner = named[1] if named else b""
            if (is_gemini and query.startswith(b"alt=sse")) or _STREAM.search(body):
                self._stream(voice.with_usage if _USAGE.search(body) else voice.stream, manner)
            else:
                self._write(_LONG.get(manner, voice.whole))

    def _stream(self, stream: _Stream, manner: bytes) -> None:
        if manner == _PACED:
            self._write(_STREAM_HEAD)
            self._pace(stream.pieces, 0, self._loop.time())
        else:
            self._write(stream.start if manner == _IDLE else stream.burst)

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
