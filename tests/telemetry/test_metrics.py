"""Metrics: as Prometheus reads them, and asked for where they change."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from aiproxyd.config import RetrySettings
from aiproxyd.handlers import status
from aiproxyd.routing.choice import Router
from aiproxyd.telemetry.metrics import CONTENT_TYPE, Family, Metrics

Source = Callable[[], Iterable[Family]]
Read = Callable[..., Coroutine[Any, Any, str]]


@pytest.fixture
async def read(http: aiohttp.ClientSession) -> AsyncIterator[Read]:
    """Read the metrics of *sources* over HTTP."""
    runners: list[web.AppRunner] = []

    async def read(*sources: Source) -> str:
        app = web.Application()
        router = Router([], RetrySettings(), random.Random(1))  # noqa: S311  # no secret is drawn
        app.add_routes(status.routes(router, Metrics(*sources)))
        runners.append(web.AppRunner(app))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], "127.0.0.1", 0).start()
        async with http.get(f"http://127.0.0.1:{runners[-1].addresses[0][1]}/metrics") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == CONTENT_TYPE
            return await response.text()

    yield read
    for runner in runners:
        await runner.cleanup()


def samples_of(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the numbers by name and values of the labels; those come in the order of the labels' names."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_all_sources_are_asked_and_their_kinds_kept(read: Read) -> None:
    counter = Family("calls", "counter", "Calls.", ("how", "who"), [(("ok", "a"), 3), (("ok", "b"), 4)])
    gauge = Family("open", "gauge", "What is open.", (), [((), 0.5)])

    text = await read(lambda: [counter], lambda: [gauge])

    samples = samples_of(text)
    assert samples["calls_total", ("ok", "a")] == 3.0
    assert samples["calls_total", ("ok", "b")] == 4.0
    assert samples["open", ()] == 0.5
    assert "# TYPE calls_total counter" in text
    assert "# HELP open What is open." in text


async def test_the_process_is_measured_too(read: Read) -> None:
    samples = samples_of(await read())

    assert samples["process_resident_memory_bytes", ()] > 1e6
    assert samples["process_open_fds", ()] > 0


async def test_what_callers_name_cannot_end_a_line(read: Read) -> None:
    name = 'a"} 1\nother 2\\'

    samples = samples_of(await read(lambda: [Family("calls", "gauge", "Calls.", ("model",), [((name,), 1.0)])]))

    assert samples["calls", (name,)] == 1.0
    assert ("other", ()) not in samples


async def test_each_reading_is_a_new_one(read: Read) -> None:
    numbers = iter((1.0, 2.0))

    def source() -> Iterable[Family]:
        yield Family("calls", "gauge", "Calls.", (), [((), next(numbers))])

    assert [samples_of(await read(source))["calls", ()] for _ in range(2)] == [1.0, 2.0]


async def test_numbers_are_asked_for_in_the_loop_in_which_they_change(read: Read) -> None:
    """In a thread of its own, a dictionary that grew meanwhile made it an internal error."""

    def source() -> Iterable[Family]:
        asyncio.get_running_loop()  # fails where there is none
        yield Family("calls", "gauge", "Calls.", (), [((), 1.0)])

    assert samples_of(await read(source))["calls", ()] == 1.0
