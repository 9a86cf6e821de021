"""An upstream that speaks HTTP/1.1 by hand on raw sockets, so that it can fail in every way that there is.

One server plays many places: the first part of a request's path says which of them is asked.
"""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from tests.faults.answers import Wire, say, write_stream, write_whole

STREAM_TYPE: Final = "text/event-stream"
JSON_TYPE: Final = "application/json"
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST."""


class Gone(Exception):
    """The connection has come to its end, by our will or the caller's."""


class Exchange:
    """One request, and what is answered to it."""

    def __init__(
        self,
        server: "Server",
        place: str,
        headers: dict[str, str],
        path: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.place = place
        self.headers = headers
        self.fmt = _find_format(path)
        self.is_stream = False
        self.is_array = False
        """Whether the stream is Gemini's other one, an array in JSON."""
        self._server = server
        self._reader = reader
        self._writer = writer

    @property
    def key(self) -> str:
        """The API key that came with it."""
        names = ("authorization", "x-api-key", "x-goog-api-key")
        return next((self.headers[name].removeprefix("Bearer ") for name in names if name in self.headers), "")

    @property
    def content_type(self) -> str:
        """That of a good answer."""
        return STREAM_TYPE if self.is_stream and not self.is_array else JSON_TYPE

    @property
    def wire(self) -> Wire:
        """The good stream."""
        return write_stream(self.fmt, say(self.place), is_array=self.is_array)

    @property
    def whole(self) -> bytes:
        """The good whole answer."""
        return write_whole(self.fmt, say(self.place))

    async def answer_well(self) -> None:
        """Answer as one should."""
        if self.is_stream:
            await self.open()
            await self.write_chunks(*self.wire.events)
            await self.end()
        else:
            await self.reply(self.whole)

    async def reply(self, body: bytes, status: int = 200, content_type: str = JSON_TYPE, **headers: str) -> None:
        """Send a whole answer."""
        await self.open(status, content_type, len(body), **headers)
        await self.write(body)

    async def open(
        self, status: int = 200, content_type: str | None = None, length: int | None = None, **headers: str
    ) -> None:
        """Send the head of an answer: of *length* bytes, else of chunks."""
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type or self.content_type}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
        await self.write("\r\n".join([*lines, "", ""]).encode())

    async def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def write_chunks(self, *parts: bytes) -> None:
        """Send each part as a chunk of the body."""
        for part in parts:
            await self.write(b"%x\r\n%b\r\n" % (len(part), part))

    async def end(self) -> None:
        """Send the chunk that ends the body."""
        await self.write(b"0\r\n\r\n")

    async def hang(self) -> None:
        """Send nothing more, until the caller leaves."""
        self._server.hanging += 1
        try:
            await self._reader.read()
        finally:
            self._server.hanging -= 1  # also where the caller has left with something unread, which is a reset
        raise Gone

    async def cut(self) -> None:
        """Close the connection, as if all had been said."""
        raise Gone

    async def reset(self) -> None:
        """Let the connection break, a moment after what was sent has arrived."""
        await asyncio.sleep(0.02)
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()
        raise Gone


Play = Callable[[Exchange], Awaitable[None]]
Choose = Callable[[Exchange, int], Play]
"""Return what to do with the request, which is that many-th of its place, counted from 1."""


class Server:
    """A server whose connections are closed only by what it plays, and by ``stop``; it can be started again."""

    def __init__(self, choose: Choose) -> None:
        self.counts: Counter[str] = Counter()
        """Requests by place."""
        self.asked: list[tuple[str, str]] = []
        """Place and key of each request."""
        self.connections = 0
        """How many were accepted."""
        self.hanging = 0
        """Exchanges in which nothing more is said, and whose callers have not left."""
        self._choose = choose
        self._socket = bind()
        self.port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Begin to take connections, at the same port as before."""
        if self._socket.fileno() < 0:
            self._socket = bind(self.port)
        self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=1_000_000, backlog=1000)

    async def stop(self) -> None:
        """Take no more connections, and close those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._socket.close()
        self.drop()
        await self._idle.wait()

    def drop(self) -> None:
        """Close all connections without a word."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        self._idle.clear()
        try:
            while True:
                await self._exchange(reader, writer)
        except (Gone, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            if not self._writers:
                self._idle.set()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        _, path, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        place, _, rest = path.removeprefix("/").partition("/")
        exchange = Exchange(self, place, headers, rest, reader, writer)
        exchange.is_stream = b'"stream":true' in body.replace(b" ", b"") or ":streamGenerateContent" in rest
        exchange.is_array = ":streamGenerateContent" in rest and "alt=sse" not in rest
        self.counts[place] += 1
        self.asked.append((place, exchange.key))
        await self._choose(exchange, self.counts[place])(exchange)


def bind(port: int = 0) -> socket.socket:
    """Return a socket that is bound, and refuses connections until it is listened on."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    bound.setblocking(False)
    return bound


def _find_format(path: str) -> str:
    for part, fmt in (
        ("chat/completions", "openai-chat"),
        ("responses", "openai-responses"),
        ("messages", "anthropic"),
        ("GenerateContent", "gemini"),
        ("generateContent", "gemini"),
    ):
        if part in path:
            return fmt
    raise ValueError(path)
