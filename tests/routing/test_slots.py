import asyncio

import pytest

from aiproxyd.errors import UpstreamBusy
from aiproxyd.routing.slots import Slots, acquire_first


def far() -> float:
    return asyncio.get_running_loop().time() + 60


async def acquire(slots: Slots, principal: str, deadline: float) -> None:
    if not slots.take():
        await acquire_first([slots], principal, deadline)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_callers_take_turns_however_many_calls_one_of_them_has() -> None:
    slots = Slots("up", 1, 100, 60)
    await acquire(slots, "greedy", far())
    served: list[str] = []

    async def call(principal: str) -> None:
        await acquire(slots, principal, far())
        served.append(principal)
        slots.release()

    calls = [asyncio.create_task(call(name)) for name in ("greedy", "greedy", "greedy", "modest")]
    await settle()
    slots.release()
    await asyncio.gather(*calls)

    assert served == ["greedy", "modest", "greedy", "greedy"]
    assert slots.is_free


async def test_the_queue_has_a_bound() -> None:
    slots = Slots("up", 1, 1, 60)
    await acquire(slots, "a", far())
    waiting = asyncio.create_task(acquire(slots, "b", far()))
    await settle()

    with pytest.raises(UpstreamBusy) as caught:
        await acquire(slots, "c", far())

    assert caught.value.retry_after_s
    slots.release()
    await waiting


@pytest.mark.parametrize(("patience_s", "deadline_s"), [(0.05, 60), (60, 0.05)])
async def test_nobody_waits_for_longer_than_allowed(patience_s: float, deadline_s: float) -> None:
    slots = Slots("up", 1, 1, patience_s)
    await acquire(slots, "a", far())
    loop = asyncio.get_running_loop()
    started = loop.time()

    with pytest.raises(UpstreamBusy):
        await acquire(slots, "b", loop.time() + deadline_s)

    assert 0.04 < loop.time() - started < 1
    slots.release()
    assert slots.is_free


async def test_who_leaves_the_queue_takes_no_slot_with_it() -> None:
    slots = Slots("up", 1, 9, 60)
    await acquire(slots, "a", far())
    leaving = asyncio.create_task(acquire(slots, "a", far()))
    staying = asyncio.create_task(acquire(slots, "a", far()))
    await settle()

    leaving.cancel()
    await settle()
    slots.release()
    await staying
    slots.release()

    assert slots.is_free


async def test_who_leaves_in_the_moment_of_its_turn_passes_it_on() -> None:
    slots = Slots("up", 1, 9, 60)
    await acquire(slots, "a", far())
    leaving = asyncio.create_task(acquire(slots, "b", far()))
    staying = asyncio.create_task(acquire(slots, "c", far()))
    await settle()

    slots.release()
    leaving.cancel()
    await staying

    assert leaving.cancelled()
    slots.release()
    assert slots.is_free


@pytest.mark.parametrize("principal", ["a", "b"])
async def test_who_left_just_before_its_turn_is_passed_over(principal: str) -> None:
    slots = Slots("up", 1, 9, 60)
    await acquire(slots, "a", far())
    leaving = asyncio.create_task(acquire(slots, "a", far()))
    staying = asyncio.create_task(acquire(slots, principal, far()))
    await settle()

    leaving.cancel()
    slots.release()
    await staying
    await settle()

    assert leaving.cancelled()
    assert (slots.running, slots.waiting) == (1, 0)
    slots.release()
    assert slots.is_free


async def test_a_call_that_may_go_to_several_takes_the_slot_that_is_free_first() -> None:
    first, second = (Slots(name, 1, 9, 60) for name in ("first", "second"))
    assert first.take()
    assert second.take()
    calls = [asyncio.create_task(acquire_first([first, second], "a", far())) for _ in range(2)]
    await settle()
    waiting = (first.waiting, second.waiting)

    second.release()
    await settle()

    assert waiting == (2, 2)
    assert calls[0].result() is second
    assert (first.waiting, second.waiting) == (1, 1)
    first.release()
    assert await calls[1] is first
    assert (first.waiting, second.waiting) == (0, 0)
    assert (first.running, second.running) == (1, 1)


async def test_a_call_waits_where_there_is_a_place_in_the_queue() -> None:
    full, other = Slots("full", 1, 0, 60), Slots("other", 1, 1, 60)
    assert full.take()
    assert other.take()
    call = asyncio.create_task(acquire_first([full, other], "a", far()))
    await settle()

    other.release()

    assert await call is other
    with pytest.raises(UpstreamBusy, match="full is busy: 1 calls run there, and 0 wait already"):
        await acquire_first([full], "a", far())


async def test_whoever_fills_the_queue_shuts_nobody_out() -> None:
    slots = Slots("up", 1, 4, 60)
    assert slots.take()
    greedy = [asyncio.create_task(acquire(slots, "greedy", far())) for _ in range(4)]
    await settle()

    modest = asyncio.create_task(acquire(slots, "modest", far()))
    await settle()

    assert [call.done() for call in greedy] == [False, False, False, True]
    with pytest.raises(UpstreamBusy):
        await greedy[3]
    assert not modest.done()
    assert slots.waiting == 4
    with pytest.raises(UpstreamBusy):  # who has most of the queue has no right to more
        await acquire(slots, "greedy", far())
    for _ in range(5):
        slots.release()
    await asyncio.gather(*greedy[:3], modest)
    assert slots.is_free


async def test_who_is_refused_while_leaving_leaves_no_trace() -> None:
    slots = Slots("up", 1, 2, 60)
    assert slots.take()
    greedy = [asyncio.create_task(acquire(slots, "greedy", far())) for _ in range(2)]
    await settle()

    greedy[1].cancel()
    modest = asyncio.create_task(acquire(slots, "modest", far()))
    await settle()

    assert greedy[1].cancelled()
    assert slots.waiting == 2
    for _ in range(3):
        slots.release()
    await asyncio.gather(greedy[0], modest)
    assert slots.is_free
