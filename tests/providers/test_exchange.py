"""The short way to an upstream: on an open connection, whatever comes means what it means to aiohttp's client."""

import asyncio
import gc
import gzip
import socket
import threading
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Literal, get_args

import aiohttp
import pytest
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from typing_extensions import override
from yarl import URL

from aiproxyd.config import Secret, TimeLimits, UpstreamSettings
from aiproxyd.errors import ProxyError, UpstreamGarbage, UpstreamTimeout
from aiproxyd.providers.base import Answer, Call
from aiproxyd.providers.connector import Connector, Handler
from aiproxyd.providers.exchange import READ_BUFFER_BYTES, Body, ChunkedBody, Exchange, Head
from aiproxyd.providers.openai import OpenAIProvider

OK = b"HTTP/1.1 200 OK\r\n"
TYPE = b"Content-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
WELL = OK + b"Content-Length: 2\r\n\r\nok"
PAUSE = b"PAUSE"
"""Stands between what is sent apart."""
CLOSE, RESET = b"CLOSE", b"RESET"

ANSWERS: dict[str, Sequence[bytes]] = {
    "length": [OK + TYPE + b"Content-Length: 5\r\n\r\nhello"],
    "no body": [OK + b"Content-Length: 0\r\n\r\n"],
    "chunks": [CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"],
    "one chunk": [CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"],
    "chunks that hold line ends": [CHUNKED + b"c\r\nab\r\n\r\n\r\n\r\nxy\r\n3\r\n\r\n0\r\n0\r\n\r\n"],
    "capital sizes": [CHUNKED + b"A\r\n0123456789\r\n0A\r\n0123456789\r\n0\r\n\r\n"],
    "chunk extensions": [CHUNKED + b"5;name=value\r\nhello\r\n5;x\r\nworld\r\n0;y\r\n\r\n"],
    "a trailer": [CHUNKED + b"5\r\nhello\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n"],
    "in pieces": [b"HTT", PAUSE, b"P/1.1 200 OK\r\nContent-", PAUSE, b"Length: 5\r\n\r", PAUSE, b"\nhel", PAUSE, b"lo"],
    "chunks in pieces": [CHUNKED + b"5", PAUSE, b"\r\nhel", PAUSE, b"lo\r", PAUSE, b"\n0\r\n", PAUSE, b"\r\n"],
    "no reason": [b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"],
    "an odd reason": [b"HTTP/1.1 200 \xc3\xa4 (fine)\r\nContent-Length: 2\r\n\r\nok"],
    "an error": [b"HTTP/1.1 503 Busy\r\nRetry-After:  7 \r\nContent-Length: 2\r\n\r\nno"],
    "a redirect": [b"HTTP/1.1 307 There\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"],
    "headers in any case": [OK + b"cOnTeNt-LeNgTh:2\r\nCONTENT-TYPE:\ttext/plain \r\n\r\nok"],
    "header values of any bytes": [OK + b"Content-Length: 2\r\nx-odd: \xc3\xa4\xff\r\n\r\nok"],
    "the same header twice": [OK + b"Content-Length: 2\r\nx-a: 1\r\nX-A: 2\r\n\r\nok"],
    "sizes of one width": [CHUNKED + b"5  \r\nhello\r\n6\t\r\n world\r\n0  \r\n\r\n"],
    "sizes of one width, in pieces": [CHUNKED + b"5  ", PAUSE, b"\r\nhello\r\n0   \r\n\r\n"],
    # What is left to aiohttp:
    "a line feed in the middle of a head": [OK + b"Content-Length: 2\n\nok"],
    "two words about the connection": [
        OK + b"Connection: keep-alive\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        CLOSE,
    ],
    "until the end": [OK + TYPE + b"\r\nhello", CLOSE],
    "until the end, in pieces": [OK + b"\r\nhel", PAUSE, b"lo", CLOSE],
    "the old protocol": [b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", CLOSE],
    "a connection that will be closed": [OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", CLOSE],
    "gzip": [OK + b"Content-Encoding: gzip\r\nContent-Length: 25\r\n\r\n" + gzip.compress(b"hello", mtime=0)],
    "deflate, chunked": [
        OK
        + b"Content-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n"
        + zlib.compress(b"hello")
        + b"\r\n0\r\n\r\n"
    ],
    "continue": [b"HTTP/1.1 100 Continue\r\n\r\n", PAUSE, WELL],
    "early hints": [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + WELL],
    "no content": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "a folded header": [OK + b"x-a: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok"],
    "lone line feeds": [b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"],
    # What is wrong:
    "chunks with line feeds alone": [CHUNKED + b"5\nhello\n0\n\n"],
    "nothing": [CLOSE],
    "a reset": [RESET],
    "half a status": [b"HTTP/1.1 20", PAUSE, CLOSE],
    "half a head": [OK + b"Content-Le", PAUSE, CLOSE],
    "a reset within the head": [OK + b"Content-Le", PAUSE, RESET],
    "a cut": [OK + b"Content-Length: 50\r\n\r\nhello", PAUSE, CLOSE],
    "a reset within the body": [OK + b"Content-Length: 50\r\n\r\nhello", PAUSE, RESET],
    "a cut between chunks": [CHUNKED + b"5\r\nhello\r\n", PAUSE, CLOSE],
    "a cut before the trailer's end": [CHUNKED + b"5\r\nhello\r\n0\r\n", PAUSE, CLOSE],
    "a chunk without a size": [CHUNKED + b"\r\nhello\r\n0\r\n\r\n"],
    "a chunk of no number": [CHUNKED + b"5\r\nhello\r\nzz\r\nhello\r\n0\r\n\r\n"],
    "a chunk with a prefix": [CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n"],
    "a negative chunk": [CHUNKED + b"5\r\nhello\r\n-5\r\nhello\r\n0\r\n\r\n"],
    "a chunk that is longer than it says": [CHUNKED + b"3\r\nhello\r\n0\r\n\r\n"],
    "no HTTP": [b"SSH-2.0-x\r\n\r\n", PAUSE, CLOSE],
    "two lengths": [OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk", PAUSE, CLOSE],
    "a length and chunks": [
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        PAUSE,
        CLOSE,
    ],
    "no length": [OK + b"Content-Length: two\r\n\r\nok", PAUSE, CLOSE],
    "a header without a name": [OK + b": x\r\nContent-Length: 2\r\n\r\nok", PAUSE, CLOSE],
    "a long head": [OK + b"x-a: %b\r\nContent-Length: 2\r\n\r\nok" % (b"a" * 40_000), PAUSE, CLOSE],
}


class Server:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.answer: Sequence[bytes] = ()
        self.url = ""
        self.connections = 0
        self.requests: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                if not await self._play(writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _play(self, writer: asyncio.StreamWriter) -> bool:
        for part in self.answer:
            if part == PAUSE:
                await asyncio.sleep(0.02)
            elif part == CLOSE:
                return False
            elif part == RESET:
                writer.transport.abort()
                return False
            else:
                writer.write(part)
                await writer.drain()
        return True


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=Connector(), skip_auto_headers=("Accept", "Content-Type")) as session:
        yield session


def make(server: Server, session: aiohttp.ClientSession, idle_s: float = 2) -> OpenAIProvider:
    limits = TimeLimits(connect_s=5, first_event_s=2, idle_s=idle_s, request_s=5)
    settings = UpstreamSettings(
        name="up", provider="openai", base_url=URL(server.url), api_keys=(Secret("k"),), limits=limits
    )
    return OpenAIProvider(settings, session, "1.1 mark")


Way = Literal["read", "read whole", "handed over", "handed over in turns"]


async def ask(
    provider: OpenAIProvider, body: bytes = b"{}", headers: dict[str, str] | None = None, way: Way = "read"
) -> object:
    """Return all that is known of an answer, or what the call failed with."""
    call = Call(path="/v1/x", headers=CIMultiDict(headers or {}), body=body)
    try:
        answer = await provider.send(call, time.monotonic() + 5)
        try:
            content = await read(answer, way)
        finally:
            answer.close()
    except ProxyError as exc:
        return type(exc)
    return answer.status, sorted((name.lower(), value) for name, value in answer.headers.items()), content


async def read(answer: Answer, way: Way) -> bytes:
    pieces: list[bytes] = []

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        return way == "handed over"

    match way:
        case "read":
            while piece := await answer.read():
                pieces.append(piece)
        case "read whole":
            pieces.append(await answer.read_whole())
        case "handed over" | "handed over in turns":
            while await answer.hand_to(take):  # noqa: ASYNC110  # so that more comes meanwhile
                await asyncio.sleep(0.01)
    return b"".join(pieces)


async def warm_up(server: Server, provider: OpenAIProvider, answer: Sequence[bytes]) -> None:
    """Leave one connection open, on which the server will give *answer*."""
    server.answer = [WELL]
    assert await ask(provider) == (200, [("content-length", "2")], b"ok")
    server.answer = answer


@pytest.mark.parametrize("way", get_args(Way))
@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_the_same_on_an_open_connection_as_on_a_new_one(
    name: str, way: Way, server: Server, session: aiohttp.ClientSession
) -> None:
    provider = make(server, session)
    await warm_up(server, provider, ANSWERS[name])
    warm = await ask(provider, way=way)
    # Where it had been closed, the request goes out once more, on a new one.
    assert server.connections == (2 if name in ("nothing", "a reset") else 1)

    async with aiohttp.ClientSession(connector=Connector()) as other:
        assert await ask(make(server, other), way=way) == warm


@pytest.mark.parametrize(
    "name", [name for name in ANSWERS if CLOSE not in ANSWERS[name] and RESET not in ANSWERS[name]]
)
async def test_a_connection_is_used_again_only_where_its_answer_came_to_its_end(
    name: str, server: Server, session: aiohttp.ClientSession
) -> None:
    provider = make(server, session)
    await warm_up(server, provider, ANSWERS[name])
    first = await ask(provider)
    server.answer = [WELL]

    assert await ask(provider) == (200, [("content-length", "2")], b"ok")
    is_whole = isinstance(first, tuple)
    assert server.connections == (1 if is_whole else 2)


async def test_a_connection_that_will_be_closed_is_not_used_again(
    server: Server, session: aiohttp.ClientSession
) -> None:
    provider = make(server, session)
    await warm_up(
        server, provider, [OK + b"Connection: keep-alive\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"]
    )
    await ask(provider)

    await warm_up(server, provider, [])
    assert server.connections == 2


async def test_what_comes_behind_an_answer_is_not_taken_for_the_next_one(
    server: Server, session: aiohttp.ClientSession
) -> None:
    provider = make(server, session)
    for surplus in (WELL + b"HTTP/1.1 408 Late\r\n\r\n", CHUNKED + b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 408 Late\r\n\r\n"):
        await warm_up(server, provider, [surplus])
        status_and_more = await ask(provider)
        assert isinstance(status_and_more, tuple)
        assert status_and_more[::2] == (200, b"ok")
    await warm_up(server, provider, [WELL])
    assert server.connections == 3


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 408 La"])
async def test_a_connection_on_which_something_came_unasked_is_not_used_again(
    unasked: bytes, server: Server, session: aiohttp.ClientSession
) -> None:
    provider = make(server, session)
    await warm_up(server, provider, [WELL, PAUSE, unasked])
    await ask(provider)
    await asyncio.sleep(0.1)

    await warm_up(server, provider, [])
    assert server.connections == 2


async def test_a_connection_that_has_waited_for_too_long_is_not_used_again(server: Server) -> None:
    connector = Connector(keepalive_timeout=0.05)
    async with aiohttp.ClientSession(connector=connector) as session:
        provider = make(server, session)
        await warm_up(server, provider, [WELL])
        await ask(provider)
        assert server.connections == 1
        await asyncio.sleep(0.08)  # aiohttp itself closes it a second later

        assert connector.take() is None
        await warm_up(server, provider, [])
    assert server.connections == 2


async def test_a_request_goes_out_as_by_aiohttp(server: Server, session: aiohttp.ClientSession) -> None:
    provider = make(server, session)
    headers = {"Content-Type": "application/json", "x-odd": b"\xc3\xa4\xff".decode("utf-8", "surrogateescape")}
    server.answer = [WELL]
    body = b"x" * 200_000
    for length in (0, 2, 200_000):
        for _ in range(2):
            await ask(provider, body[:length], headers)
        new, warm = (request.partition(b"\r\n\r\n") for request in server.requests[-2:])
        assert new[2] == warm[2] == body[:length]
        new_lines, warm_lines = new[0].split(b"\r\n"), warm[0].split(b"\r\n")
        assert new_lines[0] == warm_lines[0] == b"POST /v1/x HTTP/1.1"
        # aiohttp loses the byte that is no UTF-8.
        assert b"x-odd: \xc3\xa4\xff" in warm_lines
        assert {line for line in new_lines if b"odd" not in line} == {line for line in warm_lines if b"odd" not in line}
    assert server.connections == 1


async def test_the_callers_own_user_agent_wins(server: Server, session: aiohttp.ClientSession) -> None:
    provider = make(server, session)
    server.answer = [WELL]
    for _ in range(2):
        await ask(provider, headers={"user-agent": "mine"})

    assert [request.lower().count(b"user-agent: mine\r\n") for request in server.requests] == [1, 1]
    assert [request.lower().count(b"user-agent: ") for request in server.requests] == [1, 1]


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b"])
def test_a_header_cannot_be_ended_early(value: str) -> None:
    with pytest.raises(ValueError, match="end of a line"):
        Head({}, {}).write("POST", URL("http://host/x"), CIMultiDict({"a": value}), 0)


async def test_a_call_that_is_given_up_closes_its_connection(server: Server, session: aiohttp.ClientSession) -> None:
    provider = make(server, session)
    for silent in ([], [OK], [CHUNKED, PAUSE, b"5\r\nhel"]):
        await warm_up(server, provider, silent)
        opened = server.connections
        task = asyncio.ensure_future(ask(provider))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await warm_up(server, provider, [])
        assert server.connections == opened + 1


async def test_an_answer_may_come_in_the_moment_in_which_its_call_is_given_up(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    # In a thread of its own, so that it can answer while the event loop stands still.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        may_answer = threading.Event()
        thread = threading.Thread(target=answer_twice, args=(listener, may_answer))
        thread.start()
        server = Server()
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        provider = make(server, session)
        assert await ask(provider) == (200, [("content-length", "2")], b"ok")

        task = asyncio.ensure_future(ask(provider))
        await asyncio.sleep(0.05)
        may_answer.set()
        thread.join()
        asyncio.get_running_loop().call_soon(task.cancel)  # before what has come by now is read
        await asyncio.wait([task])

    assert task.cancelled()
    await asyncio.sleep(0.05)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def answer_twice(listener: socket.socket, may_answer: threading.Event) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(10_000)
        connection.sendall(WELL)
        connection.recv(10_000)
        may_answer.wait(5)
        connection.sendall(WELL)


async def test_an_answer_that_comes_before_the_request_has_gone_out_ends_its_connection(
    server: Server, session: aiohttp.ClientSession
) -> None:
    gate = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (WELL, OK + b"Content-Length: 3\r\n\r\nnay"):
            await reader.readuntil(b"\r\n\r\n")
            if answer is WELL:
                await reader.readexactly(2)
            writer.write(answer)
        await gate.wait()
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    provider = make(server, session)
    await ask(provider)
    assert session.connector is not None
    told = await ask(provider, b"x" * 20_000_000)
    assert isinstance(told, tuple)
    assert told[2] == b"nay"
    assert not session.connector._conns  # there is nothing to see it by from outside
    gate.set()
    listener.close()


async def test_what_the_taker_raises_is_its_own(server: Server, session: aiohttp.ClientSession) -> None:
    provider = make(server, session)

    def take(piece: bytes) -> bool:
        raise ConnectionResetError(f"nobody takes {piece!r}")

    for answer in ([CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], [CHUNKED, PAUSE, b"2\r\nok\r\n", PAUSE, b"0\r\n\r\n"]):
        await warm_up(server, provider, answer)
        got = await provider.send(Call(path="/v1/x", headers=CIMultiDict(), body=b"{}"), time.monotonic() + 5)
        with pytest.raises(ConnectionResetError, match="nobody takes b'ok'"):
            await got.hand_to(take)
        got.close()
    await warm_up(server, provider, [])
    assert server.connections == 2  # the second was left in the middle of its answer


async def test_what_follows_on_a_malformed_chunk_is_no_part_of_the_answer(
    server: Server, session: aiohttp.ClientSession
) -> None:
    provider = make(server, session)
    await warm_up(
        server,
        provider,
        [CHUNKED + b"5\r\nhello\r\n", PAUSE, b"zz\r\nLOST\r\n", PAUSE, b"5\r\nworld\r\n0\r\n\r\n"],
    )
    answer = await provider.send(Call(path="/v1/x", headers=CIMultiDict(), body=b"{}"), time.monotonic() + 5)
    assert await answer.hand_to(lambda _: False)
    await asyncio.sleep(0.1)  # as long as a slow caller takes

    with pytest.raises(UpstreamGarbage):
        await answer.hand_to(lambda _: True)
    answer.close()
    await warm_up(server, provider, [])
    assert server.connections == 2


async def test_an_answer_that_aiohttp_reads_is_gone_when_it_is_left(
    server: Server, session: aiohttp.ClientSession
) -> None:
    provider = make(server, session)
    await warm_up(server, provider, [OK + b"Content-Encoding: gzip\r\nContent-Length: 50\r\n\r\n"])
    gc.collect()
    gc.disable()
    try:
        answer = await provider.send(Call(path="/v1/x", headers=CIMultiDict(), body=b"{}"), time.monotonic() + 5)
        answer.close()
        del answer
        await asyncio.sleep(0.05)
        assert [each for each in gc.get_objects() if isinstance(each, Exchange)] == []
    finally:
        gc.enable()


async def test_long_bodies_go_out_in_pieces_that_are_counted_until_they_have(session: aiohttp.ClientSession) -> None:
    # A TLS connection knows of what it has handed on no more: all of a long body at once would be handed on at once.
    line = Line()
    connector = session.connector
    assert isinstance(connector, Connector)
    handler = Handler(asyncio.get_running_loop())
    handler.connection_made(line)
    exchange = Exchange(connector, handler, asyncio.get_running_loop())
    asking = asyncio.ensure_future(
        exchange.ask(Head({}, {}), "POST", URL("http://host/x"), CIMultiDict(), b"x" * 200_000)
    )
    await asyncio.sleep(0)

    assert sum(map(len, line.written)) > 200_000
    assert max(map(len, line.written)) <= 64 * 1024
    asking.cancel()
    await asyncio.wait([asking])


async def test_silence_is_timed_from_the_last_piece_that_was_handed_over(
    server: Server, session: aiohttp.ClientSession
) -> None:
    provider = make(server, session, idle_s=0.15)
    pieces: list[bytes] = []

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        return True

    slowly = [part for _ in range(10) for part in (PAUSE, b"1\r\nx\r\n")]
    await warm_up(server, provider, [CHUNKED, *slowly])  # takes longer than any silence may
    answer = await provider.send(Call(path="/v1/x", headers=CIMultiDict(), body=b"{}"), time.monotonic() + 5)
    started = time.monotonic()
    with pytest.raises(UpstreamTimeout, match="paused for more than"):
        await answer.hand_to(take)
    assert pieces == [b"x"] * 10
    assert 0.3 < time.monotonic() - started < 2
    answer.close()


async def test_the_end_is_waited_for_no_longer_once_it_is_expected(
    server: Server, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiproxyd.providers.base.END_PATIENCE_S", 0.1)
    provider = make(server, session, idle_s=5)
    await warm_up(server, provider, [CHUNKED, PAUSE, b"4\r\nlast\r\n"])
    answer = await provider.send(Call(path="/v1/x", headers=CIMultiDict(), body=b"{}"), time.monotonic() + 5)

    def take(piece: bytes) -> bool:
        answer.expect_end()
        return True

    started = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        await answer.hand_to(take)
    assert time.monotonic() - started < 1
    answer.close()


async def test_an_upstream_waits_for_a_caller_who_reads_slowly(server: Server, session: aiohttp.ClientSession) -> None:
    provider = make(server, session)
    size = 20_000_000
    sent = 0

    class Counting(Sequence[bytes]):
        @override
        def __getitem__(self, number: int) -> bytes:  # type: ignore[override]
            nonlocal sent
            if number > size // 100_000:
                raise IndexError
            sent = number
            return CHUNKED if number == 0 else b"186a0\r\n" + b"x" * 100_000 + b"\r\n"

        @override
        def __len__(self) -> int:
            return size // 100_000 + 1

    await warm_up(server, provider, Counting())
    answer = await provider.send(Call(path="/v1/x", headers=CIMultiDict(), body=b"{}"), time.monotonic() + 5)
    await asyncio.sleep(0.3)
    assert sent * 100_000 < size / 2
    read = 0
    while read < size:
        chunk = await answer.read()
        assert len(chunk) <= 4 * READ_BUFFER_BYTES
        read += len(chunk)
    answer.close()


# --- Bodies -----------------------------------------------------------------------------------------------------------


LOOP = asyncio.new_event_loop()
LOOP.close()
"""Nobody waits on it."""


class Line(asyncio.Transport):
    """A connection whose other side can be made to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.is_paused = False
        self.written: list[bytes] = []

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    @override
    def is_closing(self) -> bool:
        return False

    @override
    def close(self) -> None:
        pass

    @override
    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    @override
    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False


contents = st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from((b"\r\n", b"0\r\n\r\n", b"data: x\n\n")))
cuts = st.lists(st.integers(0, 400))


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted(place for place in places if 0 < place < len(data))
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@given(contents, cuts, st.sampled_from((b"", b"x: 1\r\n")), st.booleans())
def test_chunks_hold_the_same_however_they_are_cut(
    contents: list[bytes], places: list[int], trailer: bytes, is_upper: bool
) -> None:
    sizes = [f"{len(content):X}" if is_upper else f"{len(content):x}" for content in contents]
    chunks = [size.encode() + b"\r\n" + each + b"\r\n" for size, each in zip(sizes, contents, strict=True)]
    data = b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"
    body = ChunkedBody(Line(), LOOP)
    read = b""
    for piece in cut(data, places):
        assert not body.is_complete
        body.feed(piece)
        read += body.read_nowait()

    assert read == b"".join(contents)
    assert body.is_complete
    assert body.at_eof()
    assert not body.has_surplus


@given(st.binary(max_size=100), cuts, st.binary(max_size=10))
def test_a_body_has_its_length_and_no_more(content: bytes, places: list[int], surplus: bytes) -> None:
    body = Body(Line(), LOOP, len(content))
    for piece in cut(content + surplus, places):
        if not body.is_complete:
            body.feed(piece)

    assert body.read_nowait() == content
    assert body.is_complete


@given(st.binary(max_size=200), cuts)
def test_any_bytes_are_chunks_or_fail(data: bytes, places: list[int]) -> None:
    body = ChunkedBody(Line(), LOOP)
    for piece in cut(data, places):
        body.feed(piece)
        if body.is_complete:
            break
    try:
        assert len(body.read_nowait()) <= len(data)
    except HttpProcessingError:
        assert not body.is_complete


def test_a_line_between_chunks_cannot_grow_for_ever() -> None:
    body = ChunkedBody(Line(), LOOP)
    for _ in range(10):
        body.feed(b"0" * 1000)
    with pytest.raises(HttpProcessingError):
        body.read_nowait()


def test_a_connection_is_left_reading_whatever_it_had_to_wait_for() -> None:
    line = Line()
    body = Body(line, LOOP, 2 * READ_BUFFER_BYTES)
    body.feed(b"x" * (READ_BUFFER_BYTES + 1))
    waited = line.is_paused
    body.feed(b"x" * (READ_BUFFER_BYTES - 1))
    assert (waited, line.is_paused) == (True, False)
    assert len(body.read_nowait()) == 2 * READ_BUFFER_BYTES
