"""Who is asked next, after what went before."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.config import RetrySettings
from aiproxyd.errors import (
    InvalidRequest,
    NotReady,
    UpstreamBusy,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamKeyRefused,
    UpstreamRefusal,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from aiproxyd.routing.choice import BACKOFF_BASE_S, MAX_CANDIDATES, TOLD_JITTER_S
from aiproxyd.routing.faults import REPEATABLE, Fault, judge
from aiproxyd.routing.health import PROBE_LEASE_S, Candidate
from aiproxyd.routing.plan import PROBED_S
from tests.routing.staging import LIMITS, A, B, C, Stage, refusal, run_at_once, upstreams_of


def test_targets_are_tried_in_their_order_and_only_then_again() -> None:
    stage = Stage()
    plan = stage.plan(A, B)

    tried = [stage.fail(plan, refusal(503)) for _ in range(4)]

    assert upstreams_of(tried[:2]) == "ab"
    assert stage.waited_s[:2] == [0.0, 0.0]
    assert 0 < stage.waited_s[2] <= BACKOFF_BASE_S
    assert 0 < stage.waited_s[3] <= 2 * BACKOFF_BASE_S
    with pytest.raises(UpstreamRefusal):
        plan.next()


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_error_that_is_about_the_request_goes_to_the_caller_at_once(status: int) -> None:
    stage = Stage()
    plan = stage.plan(A, B)

    stage.fail(plan, refusal(status))

    with pytest.raises(UpstreamRefusal):
        plan.next()


@pytest.mark.parametrize("error", [UpstreamTimeout("slow"), UpstreamGarbage("what"), refusal(404), refusal(403)])
def test_what_a_second_attempt_would_not_mend_is_left_to_others(error: UpstreamError) -> None:
    stage = Stage()
    plan = stage.plan(A, B)

    tried = [stage.fail(plan, error), stage.fail(plan, error)]

    assert upstreams_of(tried) == "ab"
    with pytest.raises(UpstreamError):
        plan.next()


def test_a_refused_key_leads_to_the_next_and_is_left_out_by_the_next_request() -> None:
    stage = Stage((2, 1, 1))
    plan = stage.plan(A, B)

    tried = [stage.fail(plan, UpstreamKeyRefused("no")), stage.succeed(plan)]
    later = [stage.succeed(stage.plan(A, B)) for _ in range(3)]

    assert tried == [Candidate(A, 0), Candidate(A, 1)]
    assert later == [Candidate(A, 1)] * 3


def test_what_cannot_be_reached_is_not_asked_at_once_with_the_other_keys() -> None:
    """Where a connection is waited for in vain, each key took that time before the next upstream was asked."""
    stage = Stage((3, 1, 1))
    plan = stage.plan(A, B)

    tried = [stage.fail(plan, UpstreamUnavailable("no")), stage.fail(plan, UpstreamUnavailable("no"))]

    assert upstreams_of(tried) == "ab"


def test_a_conversation_stays_with_the_key_that_knows_it_and_lets_go_when_that_fails() -> None:
    stage = Stage((3, 1, 1))
    first = stage.succeed(stage.plan(A, conversation=b"c"))
    stage.succeed(stage.plan(A))

    again = stage.succeed(stage.plan(A, conversation=b"c"))
    plan = stage.plan(A, conversation=b"c")
    stage.fail(plan, UpstreamCut("cut"))
    moved = stage.succeed(plan)
    stays = stage.succeed(stage.plan(A, conversation=b"c"))

    assert first == again != moved == stays


def test_a_conversation_is_forgotten_in_time() -> None:
    stage = Stage((2, 1, 1), settings=RetrySettings(affinity_ttl_s=10))
    stage.succeed(stage.plan(A, conversation=b"c"))
    stage.clock.now += 11

    assert stage.succeed(stage.plan(A, conversation=b"c")).key == 1


def test_who_asks_to_be_left_in_peace_is_asked_again_after_that() -> None:
    stage = Stage()
    plan = stage.plan(A)

    stage.fail(plan, refusal(429, 3.0))
    stage.succeed(plan)

    assert 3.0 <= stage.waited_s[1] <= 3.0 + TOLD_JITTER_S


@pytest.mark.parametrize(("told_s", "left_s"), [(11.0, 60.0), (5.0, 4.0)])
def test_nobody_waits_for_longer_than_is_allowed_or_than_the_call_has(told_s: float, left_s: float) -> None:
    stage = Stage()
    plan = stage.plan(A)
    stage.clock.now += LIMITS.request_s - left_s
    stage.fail(plan, refusal(429, told_s))

    with pytest.raises(UpstreamRefusal) as caught:
        plan.next()

    assert caught.value.retry_after_s == told_s


def test_no_attempt_is_made_after_the_deadline() -> None:
    stage = Stage()
    plan = stage.plan(A, B)
    stage.fail(plan, refusal(503))
    stage.clock.now += LIMITS.request_s

    with pytest.raises(UpstreamRefusal):
        plan.next()


def test_where_all_are_left_in_peace_the_soonest_is_named() -> None:
    stage = Stage()
    plan = stage.plan(A, B)
    stage.fail(plan, refusal(429, 40.0))
    stage.fail(plan, refusal(429, 20.0))

    with pytest.raises(
        NotReady, match=r"the soonest is b \(its rate limit is used up\), to be asked again in 20 s"
    ) as caught:
        stage.plan(A, B).next()

    assert caught.value.retry_after_s == pytest.approx(20.0)
    assert stage.router.ready_in_s("a") == 40.0  # nothing is known of its other models


def test_a_full_upstream_is_passed_over_and_waited_for_where_it_is_the_only_one() -> None:
    stage = Stage(max_concurrency=1)

    async def fill() -> list[Candidate]:
        plans = [stage.plan(A, B) for _ in range(3)]
        asked: list[Candidate] = []
        for plan in plans:
            candidate = plan.next().candidate
            asked.append(candidate)
            if len(asked) < 3:
                await plan.start(candidate, "me")
        with pytest.raises(UpstreamBusy):
            await plans[2].start(asked[2], "me")
        return asked

    assert upstreams_of(asyncio.run(fill())) == "aba"


def test_a_target_that_cannot_be_asked_this_is_left_out_and_what_an_upstream_said_counts_more() -> None:
    stage = Stage()
    plan = stage.plan(A, B)

    plan.reject(A, InvalidRequest("not there"))
    candidate = stage.fail(plan, refusal(503))
    plan.reject(B, InvalidRequest("not there either"))

    assert candidate.target == B
    with pytest.raises(UpstreamRefusal):
        plan.next()


def test_candidates_have_a_bound() -> None:
    stage = Stage((MAX_CANDIDATES + 5, 1, 1), settings=RetrySettings(retries=0))
    plan = stage.plan(A)

    for _ in range(MAX_CANDIDATES):
        stage.fail(plan, UpstreamKeyRefused("no"))

    with pytest.raises(UpstreamKeyRefused):
        plan.next()


ERRORS: Sequence[UpstreamError] = (
    UpstreamUnavailable("down"),
    UpstreamTimeout("slow"),
    UpstreamCut("cut"),
    UpstreamGarbage("what"),
    UpstreamKeyRefused("no"),
    *(refusal(status) for status in (400, 402, 403, 404, 408, 409, 413, 422, 429, 500, 501, 503, 529)),
    refusal(429, 2.0),
    refusal(503, 60.0),
)


@given(
    st.lists(st.sampled_from(ERRORS), min_size=40, max_size=40),
    st.lists(st.integers(1, 3), min_size=3, max_size=3),
    st.integers(0, 4),
    st.sampled_from(["ordered", "weighted", "least-latency"]),
    st.integers(0, 1000),
)
def test_attempts_end_and_none_is_made_where_it_cannot_help(
    errors: Sequence[UpstreamError], keys: Sequence[int], retries: int, strategy: str, seed: int
) -> None:
    stage = Stage(keys, settings=RetrySettings(retries=retries), seed=seed)
    plan = stage.plan(A, B, C, strategy=strategy)
    tried: dict[Candidate, UpstreamError] = {}
    refused: set[tuple[str, int]] = set()
    count = 0

    for error in errors:
        try:
            candidate = stage.fail(plan, error)
        except UpstreamError:
            break
        assert (candidate.target.upstream, candidate.key) not in refused
        assert candidate not in tried or judge(tried[candidate]) in REPEATABLE
        assert Fault.REQUEST not in map(judge, tried.values())
        if judge(error) is Fault.KEY:
            refused.add((candidate.target.upstream, candidate.key))
        tried[candidate] = error
        count += 1

    assert count <= sum(keys) + retries
    assert max(stage.waited_s) <= 10 + TOLD_JITTER_S


def test_a_target_whose_own_time_is_over_is_not_asked() -> None:
    stage = Stage(patience_s={"a": 5.0})
    plan = stage.plan(A, B)

    stage.clock.now += 6
    candidate = stage.succeed(plan)

    assert candidate.target == B


def test_what_was_silent_is_not_asked_again_with_another_key() -> None:
    stage = Stage((3, 1, 1))
    plan = stage.plan(A, B)

    tried = [stage.fail(plan, UpstreamTimeout("slow")), stage.succeed(plan)]

    assert upstreams_of(tried) == "ab"


def test_what_fails_in_another_way_is_asked_with_another_key_when_all_others_have_been() -> None:
    stage = Stage((2, 1, 1))
    plan = stage.plan(A, B)

    tried = [stage.fail(plan, UpstreamCut("cut")), stage.fail(plan, UpstreamCut("cut")), stage.succeed(plan)]

    assert upstreams_of(tried) == "aba"
    assert {tried[0].key, tried[2].key} == {0, 1}


def test_the_time_that_a_refused_call_has_to_wait_is_told() -> None:
    stage = Stage(settings=RetrySettings(retries=0))
    plan = stage.plan(A)
    stage.fail(plan, UpstreamKeyRefused("no"))

    with pytest.raises(UpstreamKeyRefused) as caught:
        plan.next()

    assert caught.value.retry_after_s == 60.0


@pytest.mark.parametrize(("error", "is_lasting"), [(UpstreamKeyRefused("no"), True), (refusal(429, 60.0), False)])
def test_clients_are_told_not_to_try_again_where_only_the_operator_can_help(
    error: UpstreamError, is_lasting: bool
) -> None:
    stage = Stage()
    stage.fail(stage.plan(A), error)

    with pytest.raises(NotReady) as caught:
        stage.plan(A).next()

    assert caught.value.is_lasting is is_lasting


def test_whoever_waits_for_a_probe_looks_often_and_not_for_ever() -> None:
    stage = Stage(settings=RetrySettings(max_wait_s=3.0))
    stage.fail(stage.plan(A), refusal(429, 1.0))
    stage.clock.now += 1.0
    run_at_once(stage.plan(A).start(Candidate(A, 0), "prober"))
    plan = stage.plan(A)
    waits: list[float] = []

    def wait() -> None:
        while len(waits) < 100:
            candidate, wait_s = plan.next()
            stage.clock.now += wait_s
            waits.append(wait_s)
            assert run_at_once(plan.start(candidate, "me")) is None

    with pytest.raises(NotReady) as caught:
        wait()

    assert set(waits) == {PROBED_S}
    assert 3.0 <= sum(waits) < 3.0 + 4 * PROBED_S
    assert caught.value.retry_after_s == pytest.approx(PROBE_LEASE_S - sum(waits))


def test_a_slot_that_comes_when_the_upstream_rests_is_given_back() -> None:
    stage = Stage(max_concurrency=1, max_queue=5)

    async def queue() -> None:
        first, second = stage.plan(A), stage.plan(A)
        lease = await first.start(Candidate(A, 0), "me")
        assert lease is not None
        waiting = asyncio.ensure_future(second.start(Candidate(A, 0), "me"))
        await asyncio.sleep(0)
        lease.fail(refusal(429, 60.0))
        lease.end()
        assert await waiting is None
        with pytest.raises(NotReady):
            second.next()

    asyncio.run(queue())
    slots = stage.router.slots("a")
    assert slots is not None
    assert slots.is_free


def test_a_call_gets_the_slot_that_is_free_first_wherever_it_is() -> None:
    stage = Stage(max_concurrency=1, max_queue=5)

    async def queue() -> Candidate:
        held = [await stage.plan(target).start(Candidate(target, 0), "me") for target in (A, B)]
        plan = stage.plan(A, B, C)
        await stage.plan(C).start(Candidate(C, 0), "me")
        waiting = asyncio.ensure_future(plan.start(plan.next().candidate, "me"))
        await asyncio.sleep(0)
        assert held[1] is not None
        held[1].end()
        lease = await waiting
        assert lease is not None
        return lease.candidate

    assert asyncio.run(queue()).target == B


def test_a_queue_that_was_waited_in_is_not_waited_in_again() -> None:
    stage = Stage(max_concurrency=1, max_queue=5, queue_timeout_s=0.05)

    async def queue() -> None:
        for target in (A, B):
            await stage.plan(target).start(Candidate(target, 0), "me")
        plan = stage.plan(A, B)
        candidate = plan.next().candidate
        with pytest.raises(UpstreamBusy, match="a and b is busy") as caught:
            await plan.start(candidate, "me")
        plan.fail(candidate, caught.value)
        with pytest.raises(UpstreamBusy):
            plan.next()

    asyncio.run(queue())


def test_an_attempt_that_is_withdrawn_is_not_counted_and_lets_the_next_find_out() -> None:
    stage = Stage()
    stage.fail(stage.plan(A), refusal(429, 1.0))
    stage.clock.now += 1.0

    lease = run_at_once(stage.plan(A).start(Candidate(A, 0), "me"))
    assert lease is not None
    resting = stage.router.health.ready_at(Candidate(A, 0)) > stage.clock.now
    lease.withdraw()
    lease.end()

    assert resting
    assert stage.router.health.ready_at(Candidate(A, 0)) <= stage.clock.now
    assert stage.router.outcomes == {("a", "limit"): 1}
