"""Who may be asked, and in which order."""

from collections import Counter

import pytest

from aiproxyd.config import Target
from aiproxyd.errors import (
    UpstreamKeyRefused,
)
from aiproxyd.routing.catalogue import Route
from tests.routing.staging import A, B, C, Stage, refusal


def test_keys_take_turns() -> None:
    stage = Stage((3, 1, 1))

    assert [stage.succeed(stage.plan(A)).key for _ in range(5)] == [0, 1, 2, 0, 1]


def test_all_targets_at_one_upstream_take_one_turn() -> None:
    """Each took one, so that of two targets and two keys the first got the same key for ever."""
    stage = Stage((2, 1, 1))

    assert [stage.succeed(stage.plan(A, Target("a", "n"))).key for _ in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize("strategy", ["weighted", "least-latency"])
def test_a_conversation_stays_with_its_target_where_any_would_do(strategy: str) -> None:
    stage = Stage()
    first = stage.succeed(stage.plan(A, B, C, strategy=strategy, conversation=b"c"))

    again = [stage.succeed(stage.plan(A, B, C, strategy=strategy, conversation=b"c")) for _ in range(20)]

    assert set(again) == {first}


def test_a_conversation_goes_back_to_the_first_target_of_an_order() -> None:
    stage = Stage()
    plan = stage.plan(A, B, conversation=b"c")
    stage.fail(plan, refusal(500))
    stage.succeed(plan)

    assert stage.succeed(stage.plan(A, B, conversation=b"c")).target == A


def test_weights_are_kept_to() -> None:
    stage = Stage()
    route = Route((A, B, C), "weighted", (6.0, 3.0, 1.0))

    counts = Counter(stage.succeed(stage.router.plan(route, is_stream=False)).target for _ in range(2000))

    assert counts[A] == pytest.approx(1200, rel=0.1)
    assert counts[B] == pytest.approx(600, rel=0.15)
    assert counts[C] == pytest.approx(200, rel=0.3)


def test_without_weights_all_are_alike() -> None:
    stage = Stage()

    counts = Counter(stage.succeed(stage.plan(A, B, strategy="weighted")).target for _ in range(1000))

    assert counts[A] == pytest.approx(500, rel=0.15)


def test_the_fast_are_asked_more_often_and_the_slow_not_never() -> None:
    stage = Stage()
    latencies = {A: 2.0, B: 0.1, C: 1.0}
    counts: Counter[Target] = Counter()

    for _ in range(300):
        plan = stage.plan(A, B, C, strategy="least-latency")
        target = plan.next().candidate.target
        stage.succeed(plan, latencies[target])
        counts[target] += 1
        stage.clock.now += 1

    assert counts[B] > 180
    assert counts[C] > counts[A] > 0


def test_an_upstream_that_answers_for_one_of_its_models_is_ready() -> None:
    stage = Stage()
    other = Target("a", "n")
    stage.fail(stage.plan(A), refusal(429, 40.0))

    stage.clock.now += 1
    stage.succeed(stage.plan(other))

    assert stage.router.ready_in_s("a") == 0.0


def test_an_upstream_whose_keys_are_all_refused_is_not_ready() -> None:
    stage = Stage((2, 1, 1))
    plan = stage.plan(A)

    stage.fail(plan, UpstreamKeyRefused("no"))
    after_one = stage.router.ready_in_s("a")
    stage.fail(plan, UpstreamKeyRefused("no"))

    assert after_one == 0.0
    assert stage.router.ready_in_s("a") == 60.0
