"""One answer, read by several: all of them get all of it, in whatever order they come, read, wait and leave."""

import asyncio
import weakref
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from aiproxyd.cache import sharing
from aiproxyd.cache.sharing import MAX_LAG_BYTES, MAX_SHARED_BYTES, SharedAnswer
from aiproxyd.errors import ProxyError, UpstreamCut
from aiproxyd.providers.base import Answer


class Scripted(Answer):
    """Gives *chunks*, each when it is let go, and then its end or *failure*."""

    def __init__(self, chunks: Sequence[bytes], failure: UpstreamCut | None = None, *, is_free: bool = True) -> None:
        self.status = 200
        self.headers = {"content-type": "text/event-stream"}
        self.left = list(chunks)
        self.failure = failure
        self.gate = asyncio.Semaphore(len(chunks) + 1 if is_free else 0)
        self.closed = 0
        self.hurried = 0
        self.readers = 0

    @override
    async def read(self) -> bytes:
        self.readers += 1
        assert self.readers == 1, "two read at a time"
        try:
            await self.gate.acquire()
            if self.left:
                return self.left.pop(0)
            if self.failure is not None:
                raise self.failure
            return b""
        finally:
            self.readers -= 1

    @override
    def expect_end(self) -> None:
        self.hurried += 1

    @override
    def close(self) -> None:
        self.closed += 1


class Ends(list[SharedAnswer]):
    """Whoever has told its end."""


def share(answer: Answer) -> tuple[SharedAnswer, Ends]:
    ends = Ends()
    return SharedAnswer(answer, ends.append), ends


async def read_all(view: Answer) -> list[bytes]:
    chunks: list[bytes] = []
    while chunk := await view.read():
        chunks.append(chunk)
    return chunks


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_reads_it_as_it_is() -> None:
    answer = Scripted([b"a", b"b"])
    shared, ends = share(answer)
    view = shared.join()

    assert (view.status, view.headers) == (200, {"content-type": "text/event-stream"})
    assert await read_all(view) == [b"a", b"b"]
    assert await view.read() == b""
    assert (shared.is_over, shared.is_left, shared.is_whole, shared.failure) == (True, False, True, None)
    assert shared.take() == b"ab"
    assert ends == [shared]
    assert answer.closed == 0
    view.close()
    assert answer.closed == 1
    assert (ends, shared.is_left) == ([shared], False)


async def test_who_comes_late_gets_all_of_it() -> None:
    answer = Scripted([b"a", b"b", b"c"])
    shared, ends = share(answer)
    first = shared.join()
    assert await first.read() == b"a"

    second = shared.join()
    assert await second.read() == b"a"
    assert await read_all(first) == [b"b", b"c"]
    third = shared.join()
    assert await read_all(second) == [b"b", b"c"]
    assert await read_all(third) == [b"a", b"b", b"c"]
    assert ends == [shared]


async def test_nothing_is_read_that_nobody_wants() -> None:
    answer = Scripted([b"a", b"b"])
    shared, _ = share(answer)
    view = shared.join()
    assert await view.read() == b"a"
    await settle()

    assert answer.left == [b"b"]


async def test_another_goes_on_where_the_one_who_reads_is_cancelled() -> None:
    answer = Scripted([b"a", b"b"], is_free=False)
    shared, ends = share(answer)
    views = [shared.join() for _ in range(3)]
    tasks = [asyncio.ensure_future(read_all(view)) for view in views]
    await settle()
    tasks[0].cancel()
    views[0].close()
    await settle()
    for _ in range(3):
        answer.gate.release()

    assert await asyncio.gather(*tasks[1:]) == [[b"a", b"b"]] * 2
    assert tasks[0].cancelled()
    assert (answer.closed, ends) == (0, [shared])


async def test_one_who_waits_may_be_cancelled_without_harm_to_the_others() -> None:
    answer = Scripted([b"a"], is_free=False)
    shared, _ = share(answer)
    views = [shared.join() for _ in range(3)]
    tasks = [asyncio.ensure_future(read_all(view)) for view in views]
    await settle()
    tasks[1].cancel()
    await settle()
    answer.gate.release()
    answer.gate.release()

    assert await tasks[0] == await tasks[2] == [b"a"]


async def test_who_was_cancelled_may_read_on() -> None:
    answer = Scripted([b"a"], is_free=False)
    shared, _ = share(answer)
    view = shared.join()
    reading = asyncio.ensure_future(view.read())
    await settle()
    reading.cancel()
    await settle()
    answer.gate.release()

    assert await view.read() == b"a"


async def test_it_is_closed_when_the_last_one_leaves() -> None:
    answer = Scripted([b"a", b"b"])
    shared, ends = share(answer)
    first, second = shared.join(), shared.join()
    await first.read()
    first.close()
    first.close()
    assert (answer.closed, ends) == (0, [])
    second.close()

    assert (answer.closed, ends) == (1, [shared])
    assert (shared.is_over, shared.is_left, shared.failure) == (True, True, None)


async def test_a_view_that_is_closed_again_does_no_more() -> None:
    answer = Scripted([b"a"])
    shared, ends = share(answer)
    view = shared.join()
    view.close()
    view.close()

    assert (answer.closed, ends, shared.is_left) == (1, [shared], True)


async def test_a_failure_reaches_all_each_with_an_error_of_its_own() -> None:
    failure = UpstreamCut("cut", retry_after_s=3.0)
    shared, ends = share(Scripted([b"a"], failure))
    views = [shared.join() for _ in range(3)]
    errors: list[ProxyError] = []
    for view in views:
        assert await view.read() == b"a"
        for _ in range(2):
            with pytest.raises(UpstreamCut, match="cut") as caught:
                await view.read()
            errors.append(caught.value)

    assert len(set(map(id, errors))) == 6
    assert all(error.retry_after_s == 3.0 and error is not failure for error in errors)
    assert (shared.failure, shared.is_over, shared.is_left) == (failure, True, False)
    assert failure.__traceback__ is None
    assert ends == [shared]


async def test_those_who_wait_hear_of_a_failure_too() -> None:
    answer = Scripted([], UpstreamCut("cut"), is_free=False)
    shared, _ = share(answer)
    tasks = [asyncio.ensure_future(read_all(shared.join())) for _ in range(3)]
    await settle()
    answer.gate.release()

    assert [type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [UpstreamCut] * 3


async def test_all_may_be_hurried_up() -> None:
    answer = Scripted([])
    shared, _ = share(answer)
    shared.join().expect_end()

    assert answer.hurried == 1


async def test_what_all_have_read_of_a_long_answer_is_let_go() -> None:
    chunk = bytes(MAX_SHARED_BYTES // 4)
    shared, _ = share(Scripted([chunk] * 12))
    quick, slow = shared.join(), shared.join()
    for _ in range(6):
        assert await quick.read() == chunk
    assert shared.is_whole  # the other one has read nothing of it
    assert await slow.read() == chunk

    assert await quick.read() == chunk  # what is let go is let go when more comes

    assert len(shared.take()) == 6 * len(chunk)
    assert [len(each) for each in await read_all(slow)] == [len(chunk)] * 11
    assert [len(each) for each in await read_all(quick)] == [len(chunk)] * 5


async def test_who_falls_too_far_behind_is_cut_off_and_the_others_are_not() -> None:
    chunk = bytes(MAX_LAG_BYTES // 4)
    shared, ends = share(Scripted([chunk] * 6))
    quick, slow, stuck = shared.join(), shared.join(), shared.join()
    for _ in range(4):
        assert await quick.read() == chunk
    assert await slow.read() == chunk
    assert await quick.read() == chunk

    for _ in range(2):
        with pytest.raises(UpstreamCut, match="too far ahead"):
            await stuck.read()
    stuck.close()
    assert [len(each) for each in await read_all(slow)] == [len(chunk)] * 5
    assert [len(each) for each in await read_all(quick)] == [len(chunk)]
    assert ends == [shared]


async def test_the_newest_piece_is_held_however_long_it_is() -> None:
    shared, _ = share(Scripted([bytes(MAX_LAG_BYTES), bytes(MAX_LAG_BYTES + 1), b"c"]))
    view = shared.join()

    assert [len(each) for each in await read_all(view)] == [MAX_LAG_BYTES, MAX_LAG_BYTES + 1, 1]


async def test_a_short_answer_is_held() -> None:
    shared, _ = share(Scripted([bytes(MAX_SHARED_BYTES // 2)] * 2))
    view = shared.join()
    await read_all(view)

    assert shared.is_whole
    assert len(shared.take()) == MAX_SHARED_BYTES


async def test_who_lags_and_leaves_no_longer_holds_anything() -> None:
    chunk = bytes(MAX_SHARED_BYTES // 2)
    shared, _ = share(Scripted([chunk] * 6))
    quick, slow = shared.join(), shared.join()
    for _ in range(5):
        await quick.read()
    slow.close()
    await quick.read()

    assert len(shared.take()) == len(chunk)


async def test_who_leaves_while_the_next_bytes_come_does_no_harm() -> None:
    answer = Scripted([bytes(MAX_SHARED_BYTES + 1)], is_free=False)
    shared, ends = share(answer)
    view = shared.join()
    reading = asyncio.ensure_future(view.read())
    await settle()
    view.close()
    answer.gate.release()

    assert len(await reading) == MAX_SHARED_BYTES + 1
    assert ends == [shared]


async def test_what_all_have_read_is_let_go_when_nobody_joins_any_more() -> None:
    shared, _ = share(Scripted([b"a", b"b", b"c"]))
    quick, slow = shared.join(), shared.join()
    assert await read_all(quick) == [b"a", b"b", b"c"]
    assert await slow.read() == b"a"
    assert shared.take() == b"abc"

    shared.refuse_more()
    assert (shared.take(), shared.is_whole) == (b"bc", False)
    quick.close()
    assert await read_all(slow) == [b"b", b"c"]
    slow.close()

    assert shared.take() == b""


async def test_one_that_lags_behind_holds_what_it_has_not_read_for_no_longer_than_it_stays() -> None:
    shared, _ = share(Scripted([b"a", b"b"]))
    quick, slow = shared.join(), shared.join()
    await read_all(quick)
    shared.refuse_more()
    assert shared.take() == b"ab"

    slow.close()

    assert shared.take() == b""


async def test_who_is_told_of_the_end_is_not_held_any_longer() -> None:
    ends = Ends()
    shared = SharedAnswer(Scripted([]), ends.append)
    told = weakref.ref(ends)
    await read_all(shared.join())
    assert ends == [shared]

    del ends

    assert told() is None


# --- Whatever happens in whatever order

STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "read", "cancel", "leave", "give", "pause"]), st.integers(0, 4)), max_size=60
)


class _Reader:
    def __init__(self, view: Answer) -> None:
        self.view = view
        self.got: list[bytes] = []
        self.end: object = None
        self.task: asyncio.Future[bytes] | None = None
        self.is_gone = False

    def poll(self) -> None:
        """Take what has come."""
        task, self.task = self.task, None
        if task is None or not task.done():
            self.task = task
        elif not task.cancelled():
            error = task.exception()
            chunk = b"" if error is not None else task.result()
            if chunk:
                self.got.append(chunk)
            else:
                self.end = error or "end"


@given(
    steps=STEPS,
    chunks=st.lists(st.binary(min_size=1, max_size=3), max_size=6),
    fails=st.booleans(),
    limit=st.integers(0, 9),
)
def test_any_schedule(steps: list[tuple[str, int]], chunks: list[bytes], fails: bool, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "MAX_SHARED_BYTES", limit)
        asyncio.run(play(steps, chunks, UpstreamCut("cut") if fails else None))


async def play(steps: list[tuple[str, int]], chunks: list[bytes], failure: UpstreamCut | None) -> None:
    answer = Scripted(chunks, failure, is_free=False)
    shared, ends = share(answer)
    readers = [_Reader(shared.join())]
    for step, number in steps:
        if step == "join" and shared.is_whole and answer.closed == 0:
            readers.append(_Reader(shared.join()))
        elif step == "give":
            answer.gate.release()
        else:
            await do(step, readers[number % len(readers)])
        for each in readers:
            each.poll()
            assert b"".join(chunks).startswith(b"".join(each.got))
    for _ in range(len(chunks) + 1):
        answer.gate.release()
    for reader in readers:
        await finish(reader)
    check(readers, answer, chunks, failure)
    assert answer.closed == 1
    assert ends == [shared]
    assert shared.is_over


def check(readers: list[_Reader], answer: Scripted, chunks: list[bytes], failure: UpstreamCut | None) -> None:
    """See that all who stayed have everything, and that the answer is there for as long as one of them is."""
    for reader in readers:
        if not reader.is_gone:
            assert answer.closed == 0
            assert reader.got == chunks
            assert type(reader.end) is (str if failure is None else UpstreamCut)
    for reader in readers:
        reader.view.close()


async def do(step: str, reader: _Reader) -> None:
    if step == "pause":
        await settle()
    elif step == "read" and not reader.is_gone and reader.task is None and reader.end is None:
        reader.task = asyncio.ensure_future(reader.view.read())
        await asyncio.sleep(0)
    elif step in ("cancel", "leave"):
        if reader.task is not None:
            reader.task.cancel()
            await asyncio.wait([reader.task])
            reader.poll()
        if step == "leave":
            reader.is_gone = True
            reader.view.close()


async def finish(reader: _Reader) -> None:
    while not reader.is_gone and reader.end is None:
        if reader.task is None:
            reader.task = asyncio.ensure_future(reader.view.read())
        await asyncio.wait([reader.task])
        reader.poll()
    assert not isinstance(reader.end, AssertionError), reader.end
