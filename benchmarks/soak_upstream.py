"""Upstream of the soak: answers every format's questions well, save for a share, drawn from a seed, that goes wrong.

``python -m benchmarks.soak_upstream SEED PAUSE_S`` prints its port once it listens, and ends on SIGTERM. One server
plays all upstreams: what is asked tells the format. ``GET /state`` tells what was asked and what was played.
"""

import asyncio
import gzip
import random
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import msgspec

from benchmarks.soak_words import Question, read_mark, write_error, write_stream, write_whole

STREAM_TYPE: Final = "text/event-stream"
JSON_TYPE: Final = "application/json"
SLOW_HEAD_S: Final = 0.6
"""How long an answer takes whose head comes in pieces."""


class Gone(Exception):
    """The connection has come to its end, by our will or the caller's."""


class Exchange:
    """One request, and what is answered to it."""

    def __init__(self, path: str, body: bytes) -> None:
        self.path = path
        self.body = body
        self.fmt = _find_format(path)
        self.counts = path.partition("?")[0].endswith(("/count_tokens", ":countTokens"))
        """Whether it asks how long a question is."""
        self.is_array = ":streamGenerateContent" in path and "alt=sse" not in path
        self.is_stream = ":streamGenerateContent" in path or b'"stream":true' in body.replace(b" ", b"")

    @property
    def content_type(self) -> str:
        return STREAM_TYPE if self.is_stream and not self.is_array else JSON_TYPE

    def parts(self, question: Question) -> list[bytes]:
        """Return the good answer, event by event, or whole."""
        if not self.is_stream:
            return [write_whole(self.fmt, question)]
        has_usage = b'"include_usage":true' in self.body.replace(b" ", b"")
        return write_stream(self.fmt, question, has_usage=has_usage, is_array=self.is_array)


class Server:
    """Plays the upstreams; one for the run."""

    def __init__(self, seed: int, pause_s: float) -> None:
        """Draw from *seed*, and be silent for *pause_s* where that is what is drawn."""
        self._random = random.Random(seed)
        self._pause_s = pause_s
        self._played: Counter[str] = Counter()
        self._connections = 0
        self._exchanges = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self._connections += 1
        try:
            while True:
                exchange = await _read_request(reader)
                self._exchanges += 1
                try:
                    await self._answer(exchange, _Answering(reader, writer))
                finally:
                    self._exchanges -= 1
        except (Gone, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, exchange: Exchange, to: "_Answering") -> None:
        question = None if exchange.counts else read_mark(exchange.body)
        if exchange.path == "/state":
            state = {"played": self._played, "connections": self._connections - 1, "exchanges": self._exchanges - 1}
            await to.reply(msgspec.json.encode(state))
        elif exchange.path.partition("?")[0].endswith("/models"):
            await to.reply(_MODELS)
        else:
            play, name = self._draw()
            self._played[name] += 1
            await play(self, exchange, question, to)

    def _draw(self) -> tuple["_Play", str]:
        ((name, (_, play)),) = self._random.choices(list(_PLAYS.items()), [share for share, _ in _PLAYS.values()])
        return play, name

    # --- What is played

    async def _do_well(self, exchange: Exchange, question: Question | None, to: "_Answering") -> None:
        if question is None:
            await to.reply(_tell_other(exchange))
            return
        parts = exchange.parts(question)
        if not exchange.is_stream:
            await to.reply(parts[0])
            return
        await to.open(exchange.content_type)
        if not question.gap_ms:
            await to.write(b"".join(map(_chunk, parts)))
        else:
            for part in parts:
                await to.write(_chunk(part))
                await asyncio.sleep(question.gap_ms / 1000)
        await to.write(b"0\r\n\r\n")

    async def _compress(self, exchange: Exchange, question: Question | None, to: "_Answering") -> None:
        # Unasked, as some servers do.
        body = b"".join(exchange.parts(question)) if question is not None else _tell_other(exchange)
        content_type = exchange.content_type if question is not None else JSON_TYPE
        await to.reply(gzip.compress(body, 1), 200, content_type, content_encoding="gzip")

    async def _dawdle(self, exchange: Exchange, question: Question | None, to: "_Answering") -> None:
        to.is_slow = True
        await self._do_well(exchange, question, to)

    async def _limit(self, exchange: Exchange, _: Question | None, to: "_Answering") -> None:
        await to.reply(write_error(exchange.fmt, 429), 429, retry_after=str(self._random.randint(0, 1)))

    async def _fail(self, exchange: Exchange, _: Question | None, to: "_Answering") -> None:
        await to.reply(write_error(exchange.fmt, 500), 500)

    async def _refuse_key(self, exchange: Exchange, _: Question | None, to: "_Answering") -> None:
        await to.reply(write_error(exchange.fmt, 401), 401)

    async def _refuse(self, exchange: Exchange, _: Question | None, to: "_Answering") -> None:
        await to.reply(write_error(exchange.fmt, 400), 400)

    async def _close(self, *_: object) -> None:
        raise Gone

    async def _begin(self, exchange: Exchange, question: Question | None, to: "_Answering") -> None:
        body = b"".join(exchange.parts(question)) if question is not None else _tell_other(exchange)
        await to.open(exchange.content_type)
        await to.write(_chunk(body[: self._random.randint(1, len(body) - 1)]))

    async def _cut(self, exchange: Exchange, question: Question | None, to: "_Answering") -> None:
        await self._begin(exchange, question, to)
        await asyncio.sleep(0.02)
        raise Gone

    async def _babble(self, _: Exchange, __: Question | None, to: "_Answering") -> None:
        # Not JSON of another shape: to callers of the same format that is relayed.
        await to.reply(self._random.choice((b"", b"{", b"<html>No.</html>", b"[1, 2", b"\xff\xfe" * 40)))

    async def _fall_silent(self, exchange: Exchange, question: Question | None, to: "_Answering") -> None:
        if self._random.random() < 0.5:
            await self._begin(exchange, question, to)
        await to.hang(self._pause_s)


_Play = Callable[[Server, Exchange, Question | None, "_Answering"], Awaitable[None]]
_PLAYS: Final[dict[str, tuple[float, _Play]]] = {
    "well": (76, Server._do_well),
    "gzip": (6, Server._compress),
    "slow head": (3, Server._dawdle),
    "429": (3, Server._limit),
    "500": (2, Server._fail),
    "401": (1, Server._refuse_key),
    "400": (1, Server._refuse),
    "closed": (2, Server._close),
    "cut": (3, Server._cut),
    "garbage": (2, Server._babble),
    "silence": (1, Server._fall_silent),
}
"""What is played, and how often in a hundred."""


class _Answering:
    """Where an answer goes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.is_slow = False
        """Whether the head comes in pieces."""
        self._reader = reader
        self._writer = writer

    async def reply(self, body: bytes, status: int = 200, content_type: str = JSON_TYPE, **headers: str) -> None:
        await self.open(content_type, status, len(body), **headers)
        await self.write(body)

    async def open(self, content_type: str, status: int = 200, length: int | None = None, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
        head = "\r\n".join([*lines, "", ""]).encode()
        for piece in _pieces(head, 6 if self.is_slow else 1):
            await self.write(piece)
            if self.is_slow:
                await asyncio.sleep(SLOW_HEAD_S / 6)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def hang(self, pause_s: float) -> None:
        """Send nothing more, until the caller leaves, or has had long enough to."""
        try:
            async with asyncio.timeout(pause_s):
                await self._reader.read()
        except TimeoutError:
            pass
        raise Gone


async def _read_request(reader: asyncio.StreamReader) -> Exchange:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    _, path, _ = head[0].split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    if "chunked" not in headers.get("transfer-encoding", ""):
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Exchange(path, body)
    body = b""
    while True:
        size = int((await reader.readuntil(b"\r\n")).strip(), 16)
        body += (await reader.readexactly(size + 2))[:size]
        if not size:
            return Exchange(path, body)


def _find_format(path: str) -> str:
    if "/messages" in path:
        return "anthropic"
    if "/v1beta/" in path:
        return "gemini"
    return "openai-responses" if "/responses" in path else "openai-chat"


def _tell_other(exchange: Exchange) -> bytes:
    """Answer what is no question: files, embeddings, counts."""
    answers: dict[str, Any] = {
        "/embeddings": {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}],
            "model": "m",
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
        },
        "/count_tokens": {"input_tokens": 30},
        ":countTokens": {"totalTokens": 30},
        "/files": {"id": "file-soak", "object": "file", "bytes": len(exchange.body)},
    }
    return msgspec.json.encode(next((value for name, value in answers.items() if name in exchange.path), {}))


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def _pieces(data: bytes, number: int) -> Iterator[bytes]:
    size = -(-len(data) // number)
    for at in range(0, len(data), size):
        yield data[at : at + size]


_MODELS: Final = msgspec.json.encode(
    {
        "object": "list",
        "data": [{"id": "m", "object": "model", "type": "model", "display_name": "m", "created": 1}],
        "models": [{"name": "models/m", "supportedGenerationMethods": ["generateContent"]}],
        "has_more": False,
    }
)
"""Good for all three vendors."""


async def _serve(seed: int, pause_s: float) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = await asyncio.start_server(Server(seed, pause_s).serve, "127.0.0.1", 0, limit=4_000_000, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
