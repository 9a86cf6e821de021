"""Fixtures of all tests."""

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

from tests.support import Gateway, Upstream, start_gateway

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=150, deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

StartGateway = Callable[..., Coroutine[Any, Any, Gateway]]


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Fail a test in which our code blocks the event loop."""
    with blockbuster_ctx("aiproxyd") as blockbuster:
        yield blockbuster


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[StartGateway]:
    """Start gateways: ``await gateway(ini, *flags)``."""
    started: list[Gateway] = []

    async def start(ini: str, *flags: str, **options: str) -> Gateway:
        path = tmp_path / f"config-{len(started)}.ini"
        started.append(await start_gateway(ini, path, *flags, **options))
        return started[-1]

    yield start
    for running in started:
        await running.runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session
