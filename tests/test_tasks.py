"""Background tasks are kept, named, and heard when they fail."""

import asyncio
import gc
import logging
import weakref

import pytest

from aiproxyd.tasks import Clock, Patience, spawn


async def test_a_task_runs_to_its_end_though_nobody_holds_it() -> None:
    done: list[str] = []

    async def work() -> None:
        # Only the task holds this future, and only the future the task: without a reference both would be collected.
        gate: asyncio.Future[None] = asyncio.Future()
        gates.append(weakref.ref(gate))
        await gate
        done.append("done")

    gates: list[weakref.ref[asyncio.Future[None]]] = []
    name = spawn(work(), "work").get_name()
    await asyncio.sleep(0)
    gc.collect()
    gate = gates[0]()
    assert gate is not None
    gate.set_result(None)
    await asyncio.sleep(0.01)

    assert (name, done) == ("work", ["done"])


async def test_a_task_has_its_name_and_can_be_awaited() -> None:
    names: list[str] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())

    await spawn(work(), "tidy up")

    assert names == ["tidy up"]


async def test_a_task_that_fails_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise LookupError("gone")

    task = spawn(work(), "look up")
    await asyncio.wait([task])
    await asyncio.sleep(0)

    (record,) = caplog.records
    assert (record.name, record.levelno, record.message) == (
        "aiproxyd.tasks",
        logging.ERROR,
        "the background task look up failed",
    )
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


async def test_a_task_that_is_cancelled_or_succeeds_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    task = spawn(asyncio.sleep(60), "wait")
    await spawn(asyncio.sleep(0), "rest")

    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)

    assert task.cancelled()
    assert caplog.records == []


async def test_a_block_that_takes_too_long_times_out_and_the_task_goes_on() -> None:
    loop = asyncio.get_running_loop()

    with pytest.raises(TimeoutError), Clock(loop, loop.time() + 0.01):
        await asyncio.sleep(5)

    await asyncio.sleep(0)


async def test_a_clock_can_be_set_while_it_runs_and_not_afterwards() -> None:
    loop = asyncio.get_running_loop()
    clock = Clock(loop, loop.time() + 0.01)

    with clock:
        clock.move(loop.time() + 5)
        await asyncio.sleep(0.05)
    clock.move(loop.time())

    await asyncio.sleep(0.02)


async def test_a_cancellation_from_elsewhere_is_no_timeout() -> None:
    loop = asyncio.get_running_loop()

    async def wait() -> None:
        with Clock(loop, loop.time() + 5):
            await asyncio.sleep(5)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()


async def test_another_error_at_the_last_moment_is_not_renamed() -> None:
    loop = asyncio.get_running_loop()

    async def fail_when_cancelled() -> None:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            raise KeyError from None

    with pytest.raises(KeyError), Clock(loop, loop.time() + 0.01):
        await fail_when_cancelled()


async def test_patience_ends_with_each_wait_that_takes_too_long() -> None:
    loop = asyncio.get_running_loop()
    patience = Patience(loop)
    for _ in range(3):
        with pytest.raises(TimeoutError), patience.until(loop.time() + 0.01):
            await asyncio.sleep(5)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    patience.close()


async def test_patience_is_as_long_as_its_wait_was_promised() -> None:
    loop = asyncio.get_running_loop()
    patience = Patience(loop)
    for _ in range(5):
        with patience.until(loop.time() + 0.03):
            await asyncio.sleep(0.01)
    with patience.until(loop.time() + 5):
        await asyncio.sleep(0.05)  # beyond where the timer was set to
    started = loop.time()
    with pytest.raises(TimeoutError), patience.until(started + 0.02):  # before where it is set to by now
        await asyncio.sleep(5)
    assert 0.01 < loop.time() - started < 1
    patience.close()


async def test_patience_does_not_disturb_what_is_done_between_waits() -> None:
    loop = asyncio.get_running_loop()
    patience = Patience(loop)
    with patience.until(loop.time() + 0.01):
        pass
    await asyncio.sleep(0.03)
    with patience.until(loop.time() + 5):
        await asyncio.sleep(0.01)
    patience.close()
    patience.close()


async def test_a_cancellation_from_elsewhere_does_not_end_patience() -> None:
    loop = asyncio.get_running_loop()
    patience = Patience(loop)

    async def wait() -> None:
        with patience.until(loop.time() + 5):
            await asyncio.sleep(5)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    patience.close()


async def test_another_error_at_the_end_of_patience_is_not_renamed() -> None:
    loop = asyncio.get_running_loop()
    patience = Patience(loop)

    async def fail_when_cancelled() -> None:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            raise KeyError from None

    with pytest.raises(KeyError), patience.until(loop.time() + 0.01):
        await fail_when_cancelled()
    patience.close()
