"""Connections: whether a call went out on a new one, and what is used again."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from aiproxyd.providers.connector import Connector, Departure, has_departed

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Answers every request on a connection that stays open; sends *goodbye* behind each answer."""

    def __init__(self) -> None:
        self.url = ""
        self.goodbye = b""
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def hang_up(self) -> None:
        """Close all connections, and wait until the other side has seen it."""
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0.05)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self.hang_up()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        while await reader.read(65536):
            writer.write(ANSWER)
            if self.goodbye:
                await asyncio.sleep(0.03)
                writer.write(self.goodbye)


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


async def call(session: aiohttp.ClientSession, url: str) -> bool:
    """Return whether a call went out on a connection that had been waiting."""
    departure = Departure()
    assert not has_departed()
    async with session.get(url) as response:
        assert (response.status, await response.read()) == (200, b"ok")
    assert has_departed()
    assert not departure.was_too_late()
    return not departure.is_on_new


async def test_a_call_on_a_new_connection_is_told_from_one_on_a_waiting_one(
    server: Server, session: aiohttp.ClientSession
) -> None:
    calls = [await call(session, server.url) for _ in range(3)]

    assert calls == [False, True, True]
    assert server.connections == 1


async def test_calls_at_the_same_time_are_told_apart(server: Server, session: aiohttp.ClientSession) -> None:
    await call(session, server.url)

    calls = await asyncio.gather(*(call(session, server.url) for _ in range(3)))

    assert sorted(calls) == [False, False, True]
    assert server.connections == 3


async def test_a_connection_that_was_closed_is_not_used_again(server: Server, session: aiohttp.ClientSession) -> None:
    await call(session, server.url)
    await server.hang_up()

    assert not await call(session, server.url)
    assert server.connections == 2


async def test_what_nobody_asked_for_is_not_taken_for_the_answer_of_the_next_call(
    server: Server, session: aiohttp.ClientSession
) -> None:
    server.goodbye = TOO_LATE
    await call(session, server.url)
    await asyncio.sleep(0.1)

    assert not await call(session, server.url)
    assert server.connections == 2


async def test_a_call_that_wants_a_new_connection_leaves_the_others_alone(
    server: Server, session: aiohttp.ClientSession
) -> None:
    await call(session, server.url)

    Departure(is_on_new=True)
    async with session.get(server.url) as response:
        assert await response.read() == b"ok"

    assert server.connections == 2
    assert await call(session, server.url)
    assert server.connections == 2
