"""Workers that ask each other for their metrics, here all in one process."""

import asyncio
from collections.abc import Callable, Iterable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aiproxyd.telemetry.metrics import Family, Metrics
from aiproxyd.telemetry.siblings import ANSWER_WITHIN_S, Siblings

Make = Callable[[int], Siblings]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Siblings] = []

    def make(count: int) -> Siblings:
        made.append(Siblings.make(count))
        return made[-1]

    yield make
    for siblings in made:
        siblings.close()


def counting(number: float) -> Metrics:
    """Return metrics as a worker has them that has counted *number* calls."""

    def count() -> Iterable[Family]:
        yield Family("calls", "counter", "Calls.", ("how",), [(("ok",), number)])

    return Metrics(count)


def samples_of(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


async def test_whoever_is_asked_tells_what_all_have_counted_under_one_heading(make: Make) -> None:
    siblings = make(3)
    places = [siblings.seen_by(number) for number in (1, 2, 3)]
    for place, count in zip(places, (10, 20, float("inf")), strict=True):
        place.start_answering(counting(count))

    texts = [await place.measure(counting(count)) for place, count in zip(places, (10, 20, float("inf")), strict=True)]

    for text in texts:
        samples = samples_of(text)
        assert [samples["calls_total", ("ok", number)] for number in "123"] == [10, 20, float("inf")]
        assert [samples["aiproxyd_worker_up", (number,)] for number in "123"] == [1, 1, 1]
        assert [samples["process_open_fds", (number,)] > 0 for number in "123"] == [True, True, True]
        assert text.count(b"# TYPE calls_total counter") == 1
    for place in places:
        await place.stop_answering()


async def test_one_that_does_not_answer_is_left_out_in_time_even_when_it_has_been_asked_often(
    make: Make,
) -> None:
    siblings = make(2)
    asking, silent = siblings.seen_by(1), siblings.seen_by(2)
    loop = asyncio.get_running_loop()
    started = loop.time()

    texts = await asyncio.gather(*(asking.measure(counting(1)) for _ in range(100)))  # more than a mailbox holds
    took_s = loop.time() - started

    assert {samples_of(text)["aiproxyd_worker_up", ("2",)] for text in texts[:1] + texts[-1:]} == {0.0}
    assert b'how="ok",worker="2"' not in texts[0]
    assert took_s < ANSWER_WITHIN_S + 2  # and some for rendering them all
    assert took_s > ANSWER_WITHIN_S
    silent.start_answering(counting(2))  # as one does that has hung, or was replaced
    texts = await asyncio.gather(*(asking.measure(counting(1)) for _ in range(30)))
    assert {samples_of(text)["calls_total", ("ok", "2")] for text in texts} == {2}
    await silent.stop_answering()


async def test_one_that_fails_to_answer_is_left_out_at_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Iterable[Family]:
        raise ZeroDivisionError

    siblings = make(2)
    asking, failing = siblings.seen_by(1), siblings.seen_by(2)
    failing.start_answering(Metrics(fail))
    loop = asyncio.get_running_loop()
    started = loop.time()

    samples = samples_of(await asking.measure(counting(1)))

    assert samples["aiproxyd_worker_up", ("2",)] == 0.0
    assert loop.time() - started < ANSWER_WITHIN_S
    assert "ZeroDivisionError" in caplog.text
    await failing.stop_answering()


async def test_one_that_is_asked_and_not_waited_for_goes_on(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    siblings = make(2)
    asking, answering = siblings.seen_by(1), siblings.seen_by(2)
    leaving = asyncio.ensure_future(asking.measure(counting(1)))
    await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)

    answering.start_answering(counting(2))
    await asyncio.sleep(0.1)

    assert samples_of(await asking.measure(counting(1)))["calls_total", ("ok", "2")] == 2
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    await answering.stop_answering()


async def test_one_that_stops_leaves_nobody_waiting(make: Make) -> None:
    siblings = make(2)
    asking, stopping = siblings.seen_by(1), siblings.seen_by(2)
    stopped: list[asyncio.Future[None]] = []

    def stop() -> Iterable[Family]:
        stopped.append(asyncio.ensure_future(stopping.stop_answering()))
        return ()

    stopping.start_answering(Metrics(stop))
    loop = asyncio.get_running_loop()
    started = loop.time()

    samples = samples_of(await asking.measure(counting(1)))

    assert samples["aiproxyd_worker_up", ("2",)] == 0.0
    assert loop.time() - started < ANSWER_WITHIN_S
    await stopped[0]
