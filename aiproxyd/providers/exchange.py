"""A request on a connection that is open already, and its answer: the short way, for calls with nothing unusual.

aiohttp's client makes the connections and keeps them. What its sessions do for each request beyond that (cookies,
proxies, redirects, authentication, traces, bodies of every kind) no call needs here, and it takes twice the time of all
the rest. Answers of the two shapes that nearly all of them have are read here as well: aiohttp's reader
makes three calls for each chunk, and in streams each event is one. Answers with unusual heads are left to it.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, Protocol, TypeAlias

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict
from typing_extensions import override
from yarl import URL

from aiproxyd.providers.connector import Connector, Handler, Receiver

MAX_JOINED_BYTES: Final = 64 * 1024
"""Longest body that is copied behind its head, so that both go out at once; longer ones go in pieces of that size."""
READ_BUFFER_BYTES: Final = 256 * 1024
"""How much of an answer waits to be read before its upstream has to."""
MAX_HEAD_BYTES: Final = 8 * 1024
"""Longest head that is read here; aiohttp has limits of its own for others."""
MAX_LINE_BYTES: Final = 8 * 1024
"""Longest line between the chunks of a body."""

_HEAD: Final = re.compile(
    rb"HTTP/1\.1 ([2-5]\d\d)(?: [^\r\n\0]*)?\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n)*)\r\n"
)
_NO_BODY: Final = (204, 304)
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_SIZE: Final = re.compile(rb"[0-9a-fA-F]{1,16}")
_DIGITS: Final = re.compile(rb"[0-9a-fA-F]+")
_END_OF_LINE: Final = b"\r\n"
_ZERO: Final = ord("0")
_BLANKS: Final = b" \t"
"""Some servers write sizes of one width; aiohttp takes them, too."""


Take: TypeAlias = Callable[[bytes], bool]
"""Takes the next bytes, and tells whether there may be more."""


class Content(Protocol):
    """The body of an answer, as aiohttp's reader has it."""

    def is_eof(self) -> bool:
        """Tell whether all has come."""
        ...

    def at_eof(self) -> bool:
        """Tell whether all was read."""
        ...

    def read_nowait(self) -> bytes:
        """Return what has come and was not read yet; may be empty.

        Raises:
            aiohttp.ClientError, HttpProcessingError: nothing more will come, although something should.
        """
        ...

    async def readany(self) -> bytes:
        """Return the same, once there is something; b"" behind the end.

        Raises:
            aiohttp.ClientError, HttpProcessingError: nothing more will come, although something should.
        """
        ...


class Head:
    """Writes the heads of the requests that go to one upstream with one API key."""

    def __init__(self, own: Mapping[str, str], defaults: Mapping[str, str]) -> None:
        """Take the headers that are the same each time, and those for requests that have none of that name."""
        self._own = _write_lines(own)
        self._defaults = [(name, _write_lines({name: value})) for name, value in defaults.items()]

    def write(self, method: str, url: URL, headers: CIMultiDict[str], length: int) -> bytes:
        """Return the head of a request with *headers*, none of which are our own, and a body of *length* bytes.

        Raises:
            ValueError: a value holds the end of a line.
        """
        text = f"{method} {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n{self._own}"
        for name, line in self._defaults:
            if name not in headers:
                text += line
        text += f"{_write_lines(headers)}Content-Length: {length}\r\n\r\n"
        # As aiohttp's server has decoded what callers sent.
        return text.encode("utf-8", "surrogateescape")


def _write_lines(headers: Mapping[str, str]) -> str:
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    count = len(headers)
    if text.count("\n") != count or text.count("\r") != count or "\0" in text:
        raise ValueError("a header holds the end of a line")
    return text


def _has_lone_feed(head: bytes) -> bool:
    """Tell whether a line ends as it should not; some servers' do."""
    return head.count(b"\n") != head.count(b"\r\n")


class Body:
    """The body of an answer that says its length."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, length: int = 0) -> None:
        self.is_complete = length == 0
        """Whether all has come."""
        self.has_surplus = False
        """Whether more has come than that."""
        self._left = length
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._is_paused = False
        self._error: aiohttp.ClientError | HttpProcessingError | None = None
        self._news: asyncio.Future[None] | None = None
        self._take: Take | None = None
        """Who gets what comes at once."""
        self._is_enough = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if len(data) > self._left:
            self.has_surplus = True
            data = data[: self._left]
        self._left -= len(data)
        self.is_complete = not self._left
        self._keep(data)

    @property
    def is_broken(self) -> bool:
        """Whether no more of it can come, although something should."""
        return self._error is not None

    def fail(self, error: aiohttp.ClientError | HttpProcessingError) -> None:
        """Note that no more comes, although something should."""
        if not self.is_complete and self._error is None:
            self._error = error
            self._tell()

    def is_eof(self) -> bool:
        """Tell whether all has come."""
        return self.is_complete

    def at_eof(self) -> bool:
        """Tell whether all was read."""
        return self.is_complete and not self._parts

    def read_nowait(self) -> bytes:
        """Return what has come and was not read yet; may be empty.

        Raises:
            aiohttp.ClientError, HttpProcessingError: nothing more will come, although something should.
        """
        parts = self._parts
        if not parts:
            if self._error is not None:
                raise self._error
            return b""
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._size_bytes = 0
        self._resume()
        return data

    async def readany(self) -> bytes:
        """Return the same, once there is something; b"" behind the end.

        Raises:
            aiohttp.ClientError, HttpProcessingError: nothing more will come, although something should.
        """
        if not self._parts and not self.is_complete and self._error is None:
            self._news = self._loop.create_future()
            try:
                await self._news
            finally:
                self._news = None
        return self.read_nowait()

    async def hand_to(self, take: Take) -> bool:
        """Call *take* with what has come, and then with what comes, as it comes, until it returns False.

        Returns whether it has, else all that there was is taken.

        Raises:
            aiohttp.ClientError, HttpProcessingError: nothing more will come, although something should.
            Exception: what *take* raised.
        """
        data = self.read_nowait()
        if data and not take(data):
            return True
        while not self.at_eof():
            if self._error is not None:
                raise self._error
            self._take = take
            self._news = self._loop.create_future()
            try:
                await self._news
            finally:
                self._news = self._take = None
            if self._is_enough:
                self._is_enough = False
                return True
        return False

    def _keep(self, data: bytes) -> None:
        if data and self._take is not None:
            self._hand_over(data, self._take)
        elif data:
            self._parts.append(data)
            self._size_bytes += len(data)
            if self._size_bytes > READ_BUFFER_BYTES and not self.is_complete and not self._is_paused:
                self._is_paused = True
                self._transport.pause_reading()
        if self.is_complete:
            self._resume()  # the connection may be another one's by the time that this is read
        if self.is_complete or (data and self._take is None):
            self._tell()

    def _hand_over(self, data: bytes, take: Take) -> None:
        try:
            self._is_enough = not take(data)
        except Exception as exc:  # noqa: BLE001  # it is for whoever waits, not for the event loop
            self._take = None
            if self._news is not None and not self._news.done():
                self._news.set_exception(exc)
            return
        if self._is_enough:
            self._take = None
            self._tell()

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


@lru_cache(maxsize=4096)
def _read_size(line: bytes) -> int:
    if not _SIZE.fullmatch(line):
        raise ValueError
    return int(line, 16)


def _cut_whole(data: bytes, contents: list[bytes]) -> int:
    """Put into *contents* what the whole chunks hold that *data* begins with; return where they end.

    Raises:
        ValueError: the size of one cannot be read.
    """
    at = 0
    while (end := data.find(_END_OF_LINE, at)) >= 0:
        line = data[at:end]
        if b";" in line:
            break
        start = end + 2
        stop = start + _read_size(line.rstrip(_BLANKS))
        if stop == start or not data.startswith(_END_OF_LINE, stop):
            break
        contents.append(data[start:stop])
        at = stop + 2
    return at


class ChunkedBody(Body):
    """The body of an answer that comes in chunks: https://www.rfc-editor.org/rfc/rfc9112.html#section-7.1."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport, loop)
        self.is_complete = False
        self._rest = b""
        """The beginning of a line."""
        self._has_data = False
        """Whether the end of a chunk's line is still to come."""
        self._is_over = False
        """Whether only the trailer is still to come."""

    @override
    def feed(self, data: bytes) -> None:
        if self._error is not None:
            return  # nobody knows any more what it belongs to
        if self._rest:
            data, self._rest = self._rest + data, b""
        try:
            whole = None if self._left or self._has_data or self._is_over else self._take_one(data) or self._split(data)
            self._keep(self._cut(data) if whole is None else whole)
        except ValueError:
            self.fail(HttpProcessingError(message="malformed chunks"))

    def _take_one(self, data: bytes) -> bytes | None:
        """Return what *data* holds where it is one whole chunk, as each event is that comes by itself; else None."""
        start = data.find(_END_OF_LINE) + 2
        is_one = data.endswith(_END_OF_LINE) and _SIZE.fullmatch(data, 0, start - 2) and data[0] != _ZERO
        return data[start:-2] if is_one and int(data[: start - 2], 16) == len(data) - start - 2 else None

    def _split(self, data: bytes) -> bytes | None:
        """Return what *data*, of nothing but whole chunks, holds; None where it is anything else.

        In half the time of `_cut`.
        """
        second = data.find(_END_OF_LINE, data.find(_END_OF_LINE) + 2)
        if data.find(_END_OF_LINE, second + 2, second + 4) == second + 2:
            return None  # Gemini's events hold line ends of this kind
        pieces = data.split(_END_OF_LINE)
        if len(pieces) < 5 or pieces.pop():
            return None
        if not pieces[-1] and pieces[-2] == b"0":  # the end, without a trailer
            is_last = True
            del pieces[-2:]
        else:
            is_last = False
        lines, contents = pieces[::2], pieces[1::2]
        if len(lines) != len(contents) or b"" in lines or not _DIGITS.fullmatch(b"".join(lines)):
            return None
        sizes = [int(line, 16) for line in lines]
        if sizes != list(map(len, contents)) or 0 in sizes:
            return None
        self.is_complete = is_last
        return b"".join(contents)

    def _cut(self, data: bytes) -> bytes:
        """Return what *data* holds, wherever it is cut.

        Raises:
            ValueError: it is malformed.
        """
        contents: list[bytes] = []
        at = 0 if self._left or self._has_data or self._is_over else _cut_whole(data, contents)
        while at < len(data) and not self.is_complete:
            if self._left:
                content = data[at : at + self._left]
                contents.append(content)
                at += len(content)
                self._left -= len(content)
                continue
            end = data.find(_END_OF_LINE, at)
            if end < 0:
                self._rest = data[at:]
                if len(self._rest) > MAX_LINE_BYTES or (b"\n" in self._rest and not self._is_over):
                    raise ValueError
                return b"".join(contents)
            self._read_line(data[at:end])
            at = end + 2
        self.has_surplus = self.is_complete and at < len(data)
        return b"".join(contents)

    def _read_line(self, line: bytes) -> None:
        """Read a line that is no part of the content.

        Raises:
            ValueError: it should not be there.
        """
        if self._is_over:
            self.is_complete = not line  # else a line of the trailer, of which there is no use
        elif self._has_data:
            if line:
                raise ValueError
            self._has_data = False
        else:
            self._left = _read_size(line.partition(b";")[0].rstrip(_BLANKS))
            self._has_data = self._left > 0
            self._is_over = not self._left


class Exchange(Receiver):
    """One request and its answer. Must be closed once it has been sent."""

    status = 0
    headers: Mapping[str, str]
    content: Content

    def __init__(self, connector: Connector, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        """Take a connection, *handler*, on which nothing is under way, and where it is given back."""
        self._connector = connector
        self._handler: Handler | None = handler
        self._loop = loop
        self._head = b""
        self._began: asyncio.Future[None] = loop.create_future()
        self._body: Body | None = None

    async def ask(self, head: Head, method: str, url: URL, headers: CIMultiDict[str], body: bytes) -> "Exchange":
        """Send a request, wait for the head of its answer, and return this; closed where that fails.

        Raises:
            ValueError: a header holds the end of a line.
            aiohttp.ServerDisconnectedError, aiohttp.ClientOSError: the connection has ended.
            HttpProcessingError: the answer is no HTTP.
        """
        try:
            handler = self._send(head.write(method, url, headers, len(body)), body)
            await self._began
            if self._body is None:
                await self._read_from(handler)
        except BaseException:
            self.close()
            raise
        return self

    def _send(self, head: bytes, body: bytes) -> Handler:
        handler = self._handler
        if handler is None or handler.transport is None:
            raise aiohttp.ServerDisconnectedError  # it ended just now
        handler.receiver = self
        if len(body) <= MAX_JOINED_BYTES:
            handler.transport.write(head + body)
        else:
            handler.transport.write(head)
            # In pieces: of one that it has handed on, TLS does not know any more whether it has gone out.
            for at in range(0, len(body), MAX_JOINED_BYTES):
                handler.transport.write(body[at : at + MAX_JOINED_BYTES])
        return handler

    async def _read_from(self, handler: Handler) -> None:
        """Have aiohttp read the answer."""
        message, payload = await handler.read()
        while 100 <= message.code < 200 and message.code != 101:  # behind which no other comes
            message, payload = await handler.read()
        self.status, self.headers, self.content = message.code, message.headers, payload
        payload.on_eof(self._end)

    @override
    def feed(self, data: bytes) -> None:
        if self._body is None:
            if self._began.done():
                return  # given up in this moment: whoever asked has not run since, and will close the connection
            self._head = self._head + data if self._head else data
            end = self._head.find(b"\r\n\r\n") + 4
            if end < 4 and len(self._head) <= MAX_HEAD_BYTES and not _has_lone_feed(self._head):
                return
            self._body = self._read_head(end)
            if self._body is None:
                self._hand_over()
                return
            self._began.set_result(None)
            data, self._head = self._head[end:], b""
        body = self._body
        body.feed(data)
        if self._handler is not None and (body.has_surplus or body.is_broken):
            self._handler.force_close()  # what comes would be taken for the next answer
        if body.is_complete:
            self._end()

    @override
    def feed_eof(self) -> None:
        if self._body is None:
            self._hand_over()
        else:
            self._body.fail(aiohttp.ClientPayloadError("the connection ended before the answer did"))

    def _hand_over(self) -> None:
        """Leave the answer to aiohttp's reader, from its beginning."""
        handler = self._handler
        if handler is not None and not self._began.done():
            handler.receiver = None
            handler.set_response_params(read_until_eof=True, read_bufsize=READ_BUFFER_BYTES)
            if self._head:
                handler.data_received(self._head)
            self._began.set_result(None)

    def _read_head(self, end: int) -> Body | None:
        """Return the body that follows the head; None where that is for aiohttp's reader."""
        found = _HEAD.fullmatch(self._head, 0, max(end, 0))
        transport = self._handler.transport if self._handler is not None else None
        if found is None or transport is None or end > MAX_HEAD_BYTES:
            return None
        lines = found[2].decode("utf-8", "surrogateescape").split("\r\n")
        headers = CIMultiDict([(name, value.strip(" \t")) for name, _, value in [x.partition(":") for x in lines[:-1]]])
        self.status, self.headers = int(found[1]), headers
        if self.status in _NO_BODY or "Content-Encoding" in headers or "Upgrade" in headers:
            return None
        if any([value.lower() != "keep-alive" for value in headers.getall("Connection", ())]):
            return None
        codings, lengths = headers.getall("Transfer-Encoding", ()), headers.getall("Content-Length", ())
        body: Body | None = None
        if not codings and len(lengths) == 1 and _LENGTH.fullmatch(lengths[0]):
            body = Body(transport, self._loop, int(lengths[0]))
        elif not lengths and len(codings) == 1 and codings[0].lower() == "chunked":
            body = ChunkedBody(transport, self._loop)
        if body is not None:
            self.content = body
        return body

    def _end(self) -> None:
        """Give the connection back, with whose answer nothing more will come."""
        handler = self._handler
        if handler is not None:
            # Answered before it has got everything: what is left of the request is still to go out.
            is_spent = handler.transport is None or handler.transport.get_write_buffer_size() > 0
            self._let_go(handler, is_spent=is_spent)

    def close(self) -> None:
        """Let go of the connection, if the answer has not come to its end: nobody waits for the rest."""
        if self._handler is not None:
            self._let_go(self._handler, is_spent=True)
            self.content = EMPTY_PAYLOAD  # else it, which is to tell us of its end, and this would hold each other

    def _let_go(self, handler: Handler, *, is_spent: bool) -> None:
        self._handler = handler.receiver = None
        self._connector.give_back(handler, is_spent=is_spent)
