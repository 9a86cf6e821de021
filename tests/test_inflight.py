"""Waiting for requests, and stopping those that take too long."""

import asyncio
import time

from aiproxyd.inflight import InFlight, take_stop
from aiproxyd.telemetry.records import CallRecord


async def serve(in_flight: InFlight, seconds: float) -> str:
    record = CallRecord("id")
    task = in_flight.enter(record)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        stop = take_stop(record)
        if stop is None:
            raise
        await asyncio.sleep(0)
        return stop.message
    finally:
        in_flight.leave(task)
    return "done"


async def test_draining_waits_for_what_is_being_served() -> None:
    in_flight = InFlight()
    tasks = [asyncio.ensure_future(serve(in_flight, seconds)) for seconds in (0.05, 0.1)]
    await asyncio.sleep(0)

    await in_flight.drain(5)

    assert [task.result() for task in tasks] == ["done", "done"]


async def test_draining_stops_what_takes_too_long_and_lets_it_say_so() -> None:
    in_flight = InFlight()
    task = asyncio.ensure_future(serve(in_flight, 60))
    await asyncio.sleep(0)
    started = time.monotonic()

    await in_flight.drain(0.05)

    assert time.monotonic() - started < 1
    assert task.result() == "the gateway is being stopped; try again in a moment"


async def test_draining_an_idle_gateway_takes_no_time() -> None:
    started = time.monotonic()

    await InFlight().drain(60)

    assert time.monotonic() - started < 1


async def test_a_caller_that_leaves_is_no_stop() -> None:
    in_flight = InFlight()
    task = asyncio.ensure_future(serve(in_flight, 60))
    await asyncio.sleep(0)

    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
