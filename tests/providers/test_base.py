"""Calls that go wrong below HTTP: what is sent again, what is the caller's fault, what is not waited for."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from aiproxyd.config import Secret, TimeLimits, UpstreamSettings
from aiproxyd.errors import (
    BodyTimeout,
    InvalidRequest,
    UpstreamCut,
    UpstreamRefusal,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from aiproxyd.formats import FORMATS
from aiproxyd.providers.base import Call
from aiproxyd.providers.connector import Connector
from aiproxyd.providers.openai import OpenAIProvider

WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
WAIT_S = 0.3
"""Longer than it takes to hear of a connection that had been closed."""

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(WELL)


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def work_and_die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(WAIT_S)
    writer.close()


def say(answer: bytes, then: Play = close) -> Play:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        await asyncio.sleep(0.02)  # so that it comes apart from what follows
        await then(reader, writer)

    return play


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


class Server:
    """Answers the first request of each connection after *first*, and those that follow after *later*."""

    def __init__(self) -> None:
        self.first: Play = well
        self.later: Play = well
        self.url = ""
        self.requests = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

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
        is_first = True
        try:
            while not writer.is_closing() and await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                await (self.first if is_first else self.later)(reader, writer)
                is_first = False
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=Connector()) as session:
        yield session


def make(url: str, session: aiohttp.ClientSession, idle_s: float = 5, first_event_s: float = 5) -> OpenAIProvider:
    limits = TimeLimits(connect_s=5, first_event_s=first_event_s, idle_s=idle_s, request_s=5)
    settings = UpstreamSettings(name="up", provider="openai", base_url=URL(url), api_keys=(Secret("k"),), limits=limits)
    return OpenAIProvider(settings, session, "1.1 mark")


async def send(
    provider: OpenAIProvider, body: bytes | AsyncIterator[bytes] | None = None, method: str = "POST", in_s: float = 5
) -> bytes:
    call = Call(method=method, path="/v1/x", headers=CIMultiDict(), body=body)
    answer = await provider.send(call, time.monotonic() + in_s)
    try:
        assert answer.status == 200
        return await answer.read_whole()
    finally:
        answer.close()


async def fill_pool(server: Server, provider: OpenAIProvider, count: int = 3) -> None:
    """Leave *count* connections waiting."""

    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(WELL)

    server.first = answer_late
    await asyncio.gather(*(send(provider) for _ in range(count)))
    server.first = well
    server.requests = 0


# Connections that were waiting.


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_request_on_a_connection_that_was_just_being_closed_goes_out_once_more_on_a_new_one(
    method: str, end: Play, server: Server, session: aiohttp.ClientSession
) -> None:
    """After a restart of the upstream all that were waiting are closed; each of them used to be tried."""
    provider = make(server.url, session)
    await fill_pool(server, provider)
    server.later = end

    assert await send(provider, method=method) == b"ok"
    assert server.requests == 2


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_a_request_that_the_upstream_had_begun_to_work_on_is_not_sent_again(
    method: str, server: Server, session: aiohttp.ClientSession
) -> None:
    """It used to be sent four times within one attempt; and GET, PUT and DELETE twice on new connections too."""
    provider = make(server.url, session)
    await fill_pool(server, provider)
    server.later = work_and_die

    with pytest.raises(UpstreamCut):
        await send(provider, method=method)

    assert server.requests == 1


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_a_new_connection_that_is_closed_at_once_is_a_failure(
    method: str, server: Server, session: aiohttp.ClientSession
) -> None:
    server.first = close

    with pytest.raises(UpstreamCut):
        await send(make(server.url, session), method=method)

    assert server.requests == 1


@pytest.mark.parametrize("end", [close, reset])
async def test_a_request_whose_answer_had_begun_is_not_sent_again(
    end: Play, server: Server, session: aiohttp.ClientSession
) -> None:
    provider = make(server.url, session)
    await fill_pool(server, provider)
    server.later = say(b"HTTP/1.1 200 OK\r\nContent-", end)

    with pytest.raises(UpstreamCut):
        await send(provider)

    assert server.requests == 1


async def test_a_request_goes_out_twice_at_most(server: Server, session: aiohttp.ClientSession) -> None:
    provider = make(server.url, session)
    await fill_pool(server, provider)
    server.first = server.later = close

    with pytest.raises(UpstreamCut):
        await send(provider)

    assert server.requests == 2


async def test_a_streamed_body_is_not_sent_again(server: Server, session: aiohttp.ClientSession) -> None:
    provider = make(server.url, session)
    await fill_pool(server, provider)
    server.later = close

    async def body() -> AsyncIterator[bytes]:
        yield b"a"

    with pytest.raises(UpstreamCut):
        await send(provider, body())

    assert server.requests == 1


# Uploads.


async def pause() -> AsyncIterator[bytes]:
    yield b"a"
    await asyncio.sleep(30)


async def never_begin() -> AsyncIterator[bytes]:
    await asyncio.sleep(30)
    yield b"a"


@pytest.mark.parametrize("body", [pause, never_begin])
async def test_a_caller_who_pauses_within_an_upload_is_told_so(
    body: Callable[[], AsyncIterator[bytes]], server: Server, session: aiohttp.ClientSession
) -> None:
    """That used to be a timeout of the upstream's, which was left in peace after three of them."""
    server.first = hang

    with pytest.raises(BodyTimeout, match=r"^the request body paused for more than 0\.1 s \(idle-timeout\)$"):
        await send(make(server.url, session, idle_s=0.1), body())


async def test_an_upload_that_is_not_over_in_time_is_the_callers_fault(
    server: Server, session: aiohttp.ClientSession
) -> None:
    server.first = hang

    with pytest.raises(BodyTimeout, match="request-timeout"):
        await send(make(server.url, session), pause(), in_s=0.1)


async def test_an_upload_that_breaks_off_is_the_callers_fault(server: Server, session: aiohttp.ClientSession) -> None:
    server.first = hang

    async def break_off() -> AsyncIterator[bytes]:
        yield b"a"
        raise aiohttp.ClientPayloadError

    with pytest.raises(InvalidRequest, match="broke off"):
        await send(make(server.url, session), break_off())


async def test_a_silence_after_an_upload_is_the_upstreams(server: Server, session: aiohttp.ClientSession) -> None:
    server.first = hang

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        yield b""
        yield b"b"

    with pytest.raises(UpstreamTimeout, match="first-event-timeout"):
        await send(make(server.url, session, idle_s=5, first_event_s=0.1), body())


async def test_an_upload_that_the_upstream_does_not_take_is_the_upstreams_fault(
    server: Server, session: aiohttp.ClientSession
) -> None:
    server.first = hang

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1_000_000)

    with pytest.raises(UpstreamTimeout):
        await send(make(server.url, session, idle_s=0.2), body())


@pytest.mark.parametrize("end", [close, reset])
async def test_an_upstream_that_hangs_up_within_an_upload_is_at_fault(
    end: Play, server: Server, session: aiohttp.ClientSession
) -> None:
    server.first = end

    with pytest.raises(UpstreamCut):
        await send(make(server.url, session), pause())


async def test_an_upstream_that_cannot_be_reached_is_at_fault_whatever_the_caller_does(
    session: aiohttp.ClientSession,
) -> None:
    with pytest.raises(UpstreamUnavailable):
        await send(make("http://127.0.0.1:9", session), never_begin())


# Time.


async def test_an_upstream_whose_answer_takes_too_long_is_told_from_one_that_says_nothing(
    server: Server, session: aiohttp.ClientSession
) -> None:
    server.first = hang
    provider = make(server.url, session)

    with pytest.raises(UpstreamTimeout, match="request-timeout") as silent:
        await send(provider, in_s=0.1)
    server.first = say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", hang)
    with pytest.raises(UpstreamTimeout, match="request-timeout") as long:
        await send(provider, in_s=0.1)

    assert (silent.value.is_call_over, long.value.is_call_over) == (False, True)


@pytest.mark.parametrize("begun", [b"", b'{"error":{"mess'])
async def test_the_text_of_an_error_is_not_waited_for(
    begun: bytes, server: Server, session: aiohttp.ClientSession
) -> None:
    """The next target used to be asked only after ``first-event-timeout`` or ``idle-timeout``, minutes later."""
    head = b"HTTP/1.1 500 X\r\nContent-Type: application/json\r\nRetry-After: 7\r\nContent-Length: 90\r\n\r\n"
    server.first = say(head + begun, hang)
    provider = make(server.url, session, idle_s=30, first_event_s=30)
    started = time.monotonic()

    answer = await provider.send(Call(path="/v1/x", headers=CIMultiDict(), body=b""), time.monotonic() + 30)
    error = await provider.read_refusal(answer, FORMATS["openai-chat"])
    answer.close()

    assert isinstance(error, UpstreamRefusal)
    assert (error.status, error.message, error.body) == (500, "the upstream answered with status 500", None)
    assert error.retry_after_s == 7
    assert 1.5 < time.monotonic() - started < 4
