import tracemalloc

import pytest

from aiproxyd.config import Target
from aiproxyd.routing.health import MAX_MODEL_CHARS
from aiproxyd.routing.latency import FAILURE_S, LEAST_S, MAX_MEASURED, Latencies

ONE = Target("up", "m")
OTHER = Target("other", "m")


def observe(latencies: Latencies, *seconds: float, now: float = 1.0) -> None:
    for each in seconds:
        latencies.begin(ONE, is_stream=True)
        latencies.observe(ONE, each, now, is_stream=True)
        latencies.end(ONE, is_stream=True)


def test_what_is_not_known_costs_little() -> None:
    assert Latencies().load(ONE, 1.0, is_stream=True) == LEAST_S


def test_a_peak_counts_at_once_and_fades() -> None:
    latencies = Latencies()

    observe(latencies, 0.1, 2.0)
    at_once = latencies.load(ONE, 1.0, is_stream=True)
    observe(latencies, 0.1, now=61.0)

    assert at_once == 2.0
    assert 0.7 < latencies.load(ONE, 61.0, is_stream=True) < 0.9
    assert latencies.load(ONE, 600.0, is_stream=True) == LEAST_S


def test_calls_that_are_running_count() -> None:
    latencies = Latencies()
    observe(latencies, 1.0)

    latencies.begin(ONE, is_stream=True)

    assert latencies.load(ONE, 1.0, is_stream=True) == 2.0


def test_streams_and_whole_answers_are_measured_apart() -> None:
    latencies = Latencies()

    observe(latencies, 1.0)

    assert latencies.load(ONE, 1.0, is_stream=False) == LEAST_S


def test_what_is_remembered_has_a_bound_and_what_runs_is_kept() -> None:
    latencies = Latencies()
    latencies.begin(ONE, is_stream=False)

    for number in range(MAX_MEASURED + 10):
        other = Target("up", str(number))
        latencies.begin(other, is_stream=False)
        latencies.end(other, is_stream=False)

    latencies.observe(ONE, 1.0, 1.0, is_stream=False)
    latencies.end(ONE, is_stream=False)
    assert len(latencies) == MAX_MEASURED


def test_what_runs_is_kept_beyond_the_bound() -> None:
    latencies = Latencies()

    for number in range(MAX_MEASURED + 1):
        latencies.begin(Target("up", str(number)), is_stream=False)

    assert len(latencies) == MAX_MEASURED + 1


# Failures.


def fail(latencies: Latencies, seconds: float, now: float, *, is_stream: bool = True) -> None:
    latencies.begin(ONE, is_stream=is_stream)
    latencies.fail(ONE, seconds, now, is_stream=is_stream)
    latencies.end(ONE, is_stream=is_stream)


@pytest.mark.parametrize(("seconds", "cost_s"), [(0.001, FAILURE_S), (60.0, 60.0)])
def test_a_failure_is_no_quick_answer(seconds: float, cost_s: float) -> None:
    latencies = Latencies()

    fail(latencies, seconds, 1.0)

    assert latencies.load(ONE, 1.0, is_stream=True) == cost_s
    assert latencies.load(ONE, 1.0, is_stream=False) == LEAST_S


def test_one_that_hangs_is_asked_after_one_that_answers() -> None:
    """Else it would be unknown for ever, and whoever is unknown is asked first."""
    latencies = Latencies()
    latencies.begin(OTHER, is_stream=True)
    latencies.observe(OTHER, 2.0, 1.0, is_stream=True)
    latencies.end(OTHER, is_stream=True)

    fail(latencies, 60.0, 1.0)

    assert latencies.load(ONE, 1.0, is_stream=True) > latencies.load(OTHER, 1.0, is_stream=True)


def test_one_that_failed_is_tried_again_after_a_while() -> None:
    latencies = Latencies()
    fail(latencies, 60.0, 1.0)
    turns: list[bool] = []

    for minute in range(10):
        now = 1.0 + 60.0 * minute
        latencies.begin(OTHER, is_stream=True)
        latencies.observe(OTHER, 2.0, now, is_stream=True)
        latencies.end(OTHER, is_stream=True)
        turns.append(latencies.load(ONE, now, is_stream=True) < latencies.load(OTHER, now, is_stream=True))

    assert turns == [False] * 4 + [True] * 6


def test_failures_between_good_answers_count_and_fade() -> None:
    latencies = Latencies()
    observe(latencies, 0.1)

    fail(latencies, 0.01, 2.0)
    failed = latencies.load(ONE, 2.0, is_stream=True)
    observe(latencies, 0.1, now=62.0)

    assert failed == FAILURE_S
    assert 1.8 < latencies.load(ONE, 62.0, is_stream=True) < 2.0


# Names.


def test_a_candidate_whose_name_would_take_megabytes_is_not_known() -> None:
    latencies = Latencies()
    candidate = Target("up", "m" * (MAX_MODEL_CHARS + 1))

    latencies.begin(candidate, is_stream=True)
    latencies.observe(candidate, 2.0, 1.0, is_stream=True)
    latencies.fail(candidate, 2.0, 1.0, is_stream=True)
    load_s = latencies.load(candidate, 1.0, is_stream=True)
    latencies.end(candidate, is_stream=True)

    assert load_s == LEAST_S
    assert len(latencies) == 0


def test_so_many_candidates_take_no_more_memory_than_is_said() -> None:
    latencies = Latencies()

    tracemalloc.start()
    try:
        for number in range(MAX_MEASURED + 100):
            candidate = Target("up", f"{number:0{MAX_MODEL_CHARS}}")
            latencies.begin(candidate, is_stream=True)
            latencies.observe(candidate, 1.0 + number, 1.0 + number, is_stream=True)
            latencies.end(candidate, is_stream=True)
        taken_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert taken_bytes < 4_000_000
