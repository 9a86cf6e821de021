from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.config import Target
from aiproxyd.routing.faults import Fault
from aiproxyd.routing.health import FAILURES_TO_OPEN, MAX_BREAKERS, PROBE_LEASE_S, Candidate, Health, Place

ONE = Candidate(Target("up", "m"), 0)
OTHER_MODEL = Candidate(Target("up", "n"), 0)
OTHER_KEY = Candidate(Target("up", "m"), 1)
OTHER_UPSTREAM = Candidate(Target("down", "m"), 0)
ALL = (ONE, OTHER_MODEL, OTHER_KEY, OTHER_UPSTREAM)


def resting(health: Health, now: float) -> list[Candidate]:
    return [candidate for candidate in ALL if health.ready_at(candidate) > now]


def fail(health: Health, fault: Fault, times: int = 1, now: float = 0.0) -> None:
    for _ in range(times):
        health.fail(ONE, fault, now)


def test_a_refused_key_rests_for_all_models() -> None:
    health = Health(900)

    fail(health, Fault.KEY)

    assert resting(health, 0.0) == [ONE, OTHER_MODEL]
    assert health.ready_at(ONE) == 60.0
    assert health.find_fault(ONE) is Fault.KEY


def test_a_used_up_limit_rests_for_its_model_alone_and_for_as_long_as_it_says() -> None:
    health = Health(900)

    health.fail(ONE, Fault.LIMIT, 0.0, 7.0)

    assert resting(health, 6.9) == [ONE]
    assert resting(health, 7.0) == []


def test_nothing_is_left_in_peace_for_longer_than_allowed_whatever_it_says() -> None:
    health = Health(30)

    health.fail(ONE, Fault.LIMIT, 0.0, 86_400.0)
    health.fail(ONE, Fault.LIMIT, 1.0, 86_400.0)

    assert health.ready_at(ONE) == 31.0


def test_nothing_is_left_in_peace_where_that_is_switched_off() -> None:
    health = Health(0)

    fail(health, Fault.KEY)

    assert resting(health, 0.0) == []


def test_an_upstream_without_connection_rests_with_all_its_keys_after_some_failures() -> None:
    health = Health(900)

    fail(health, Fault.UNREACHABLE, FAILURES_TO_OPEN - 1)
    before = resting(health, 0.0)
    fail(health, Fault.UNREACHABLE)

    assert before == []
    assert resting(health, 0.0) == [ONE, OTHER_MODEL, OTHER_KEY]


def test_an_answer_between_failures_starts_the_count_again() -> None:
    health = Health(900)

    for _ in range(10):
        fail(health, Fault.FAILING, FAILURES_TO_OPEN - 1)
        health.succeed(ONE, 0.0)

    assert resting(health, 0.0) == []


def test_an_answer_that_only_begins_does_not_start_the_count_again() -> None:
    """An upstream that breaks off every stream used to look healthy."""
    health = Health(900)

    for _ in range(FAILURES_TO_OPEN):
        health.answer(ONE, 0.0)
        fail(health, Fault.FAILING)

    assert resting(health, 0.0) == [ONE]


def test_a_request_of_which_the_upstream_says_that_it_is_wrong_shows_that_the_upstream_is_well() -> None:
    health = Health(900)
    fail(health, Fault.FAILING, FAILURES_TO_OPEN - 1)

    fail(health, Fault.REQUEST)
    fail(health, Fault.FAILING, FAILURES_TO_OPEN - 1)

    assert resting(health, 0.0) == []


def test_one_call_finds_out_whether_it_is_over_and_the_others_wait() -> None:
    health = Health(900)
    fail(health, Fault.FAILING, FAILURES_TO_OPEN)
    now = health.ready_at(ONE)

    ready = health.ready_at(ONE) <= now
    health.begin(ONE, now)

    assert ready
    assert health.ready_at(ONE) == now + PROBE_LEASE_S
    health.answer(ONE, now + 1)
    assert health.ready_at(ONE) == 0.0


def test_a_call_that_is_withdrawn_lets_the_next_find_out() -> None:
    health = Health(900)
    fail(health, Fault.FAILING, FAILURES_TO_OPEN)
    now = health.ready_at(ONE)
    health.begin(ONE, now)

    health.withdraw(ONE)

    assert health.ready_at(ONE) <= now


def test_each_failed_probe_doubles_the_time_up_to_the_bound() -> None:
    health = Health(900)
    fail(health, Fault.FAILING, FAILURES_TO_OPEN)
    times: list[float] = []

    now = 0.0
    for _ in range(9):
        times.append(health.ready_at(ONE) - now)
        now = health.ready_at(ONE)
        health.begin(ONE, now)
        fail(health, Fault.FAILING, now=now)

    assert times == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_many_calls_that_fail_at_once_count_as_one() -> None:
    health = Health(900)

    fail(health, Fault.LIMIT, 100)

    assert health.ready_at(ONE) == 1.0


def test_a_call_from_before_does_not_end_a_rest_that_was_ordered() -> None:
    health = Health(900)
    health.fail(ONE, Fault.LIMIT, 0.0, 30.0)

    health.answer(ONE, 1.0)
    health.succeed(ONE, 2.0)

    assert health.ready_at(ONE) == 30.0
    assert health.cooling(10.0) == {("up", 0, "m"): 20.0}


def test_calls_without_a_model_say_nothing_about_models() -> None:
    health = Health(900)
    files = Candidate(Target("up", ""), 0)

    for _ in range(FAILURES_TO_OPEN):
        health.fail(files, Fault.FAILING, 0.0)

    assert health.ready_at(files) == 1.0
    assert health.key_ready_at("up", 0) == 0.0
    assert resting(health, 0.0) == []


def test_a_key_that_is_let_in_again_is_tried_by_one_call_and_rests_for_longer_when_that_fails() -> None:
    """An empty account lists its models all the same."""
    health = Health(900)
    fail(health, Fault.KEY)

    health.revive("up", 0)
    revived = health.ready_at(ONE)
    health.begin(ONE, 10.0)
    others = health.ready_at(OTHER_MODEL)
    fail(health, Fault.KEY, now=11.0)

    assert revived <= 10.0
    assert others == 10.0 + PROBE_LEASE_S
    assert health.ready_at(ONE) == 11.0 + 120.0


def test_what_was_never_left_in_peace_need_not_be_revived() -> None:
    health = Health(900)
    fail(health, Fault.LIMIT)

    health.revive("up", 0)

    assert health.ready_at(ONE) == 1.0


def test_what_is_remembered_has_a_bound() -> None:
    health = Health(900)

    for number in range(MAX_BREAKERS + 10):
        health.fail(Candidate(Target("up", str(number)), 0), Fault.LIMIT, 0.0)

    assert len(health.cooling(0.0)) == MAX_BREAKERS


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "answer", "succeed", "withdraw", *Fault]),
            st.sampled_from(ALL),
            st.floats(0, 100),
            st.none() | st.floats(0, 1000),
        )
    )
)
def test_whatever_happens_everything_is_asked_again_in_the_end(
    story: list[tuple[str | Fault, Candidate, float, float | None]],
) -> None:
    health = Health(900)
    now = 0.0

    for what, candidate, later_s, told_s in story:
        now += later_s
        match what:
            case Fault():
                health.fail(candidate, what, now, told_s)
            case "begin":
                health.begin(candidate, now)
            case "answer":
                health.answer(candidate, now)
            case "succeed":
                health.succeed(candidate, now)
            case _:
                health.withdraw(candidate)

    assert resting(health, now + 900) == []


def test_a_rest_that_was_ordered_is_not_ended_by_another_failure_from_before() -> None:
    health = Health(900)
    health.fail(ONE, Fault.LIMIT, 0.0, 60.0)

    health.fail(ONE, Fault.REQUEST, 1.0)
    health.fail(ONE, Fault.KEY, 2.0)

    assert health.ready_at(ONE) == 62.0
    assert health.ready_at(OTHER_MODEL) == 62.0


def test_a_connection_that_breaks_says_nothing_about_the_key() -> None:
    health = Health(900)
    fail(health, Fault.KEY)

    health.fail(ONE, Fault.FAILING, 61.0, has_answered=False)
    health.fail(ONE, Fault.KEY, 62.0)

    assert health.ready_at(ONE) == 62.0 + 120.0


def test_one_request_that_always_fails_does_not_open_a_breaker_and_many_do() -> None:
    health = Health(900)

    struck: set[Place] = set()
    for _ in range(10):
        health.fail(ONE, Fault.FAILING, 0.0, struck=struck)
    after_one = health.ready_at(ONE)
    for _ in range(FAILURES_TO_OPEN - 1):
        health.fail(ONE, Fault.FAILING, 0.0, struck=set())

    assert after_one == 0.0
    assert health.ready_at(ONE) == 1.0


def test_a_failed_probe_counts_although_its_request_has_failed_before() -> None:
    health = Health(900)
    struck: set[Place] = set()
    health.fail(ONE, Fault.FAILING, 0.0, struck=struck)
    fail(health, Fault.FAILING, FAILURES_TO_OPEN - 1)

    assert health.begin(ONE, 1.0)
    health.fail(ONE, Fault.FAILING, 1.0, struck=struck)

    assert health.ready_at(ONE) == 3.0


def test_to_be_told_to_come_back_at_once_is_to_be_told_nothing() -> None:
    health = Health(900)

    health.fail(ONE, Fault.LIMIT, 0.0, 0.0)

    assert health.ready_at(ONE) == 1.0


def test_an_upstream_that_breaks_off_each_stream_rests_for_longer_each_time() -> None:
    health = Health(900)
    fail(health, Fault.FAILING, FAILURES_TO_OPEN)
    times: list[float] = []

    now = 0.0
    for _ in range(4):
        times.append(health.ready_at(ONE) - now)
        now = health.ready_at(ONE)
        health.begin(ONE, now)
        health.answer(ONE, now)
        health.fail(ONE, Fault.FAILING, now, has_answered=False)

    assert times == [1, 2, 4, 8]


def test_while_the_answer_of_a_probe_goes_on_others_are_no_probes() -> None:
    health = Health(900)
    fail(health, Fault.FAILING, FAILURES_TO_OPEN)
    health.begin(ONE, 1.0)
    is_back = health.answer(ONE, 1.5)

    assert is_back
    assert not health.begin(ONE, 2.0)
    assert health.ready_at(ONE) <= 2.0


def test_a_probe_that_takes_its_time_has_not_failed() -> None:
    health = Health(900)
    fail(health, Fault.FAILING, FAILURES_TO_OPEN)
    health.begin(ONE, 1.0)
    now = health.ready_at(ONE)

    is_probe = health.begin(ONE, now)

    assert now == 1.0 + PROBE_LEASE_S
    assert not is_probe
    assert health.ready_at(ONE) <= now


def test_an_upstream_that_was_silent_is_asked_by_one_at_a_time_until_it_answers() -> None:
    health = Health(900)
    fail(health, Fault.SILENT, FAILURES_TO_OPEN)
    health.begin(ONE, 1.0)
    now = health.ready_at(ONE)

    is_probe = health.begin(ONE, now)

    assert is_probe
    assert health.ready_at(ONE) == now + PROBE_LEASE_S


def test_long_names_of_models_share_a_place() -> None:
    health = Health(900)
    long = [Candidate(Target("up", letter * 1_000_000), 0) for letter in "ab"]

    health.fail(long[0], Fault.LIMIT, 0.0, 7.0)

    assert health.ready_at(long[1]) == 7.0
    assert max(len(model) for _, _, model in health.cooling(0.0)) < 10


def test_names_of_models_push_out_no_key() -> None:
    health = Health(900)
    fail(health, Fault.KEY)

    for number in range(MAX_BREAKERS + 10):
        health.fail(Candidate(Target("other", f"m{number}"), 0), Fault.LIMIT, 1.0)

    assert health.ready_at(ONE) == 60.0
    assert len(health.cooling(1.5)) == MAX_BREAKERS


def test_what_failed_long_ago_is_forgotten() -> None:
    health = Health(900)
    for number in range(100):
        health.fail(Candidate(Target("other", f"m{number}"), 0), Fault.FAILING, 0.0)

    fail(health, Fault.FAILING, FAILURES_TO_OPEN, now=10_000.0)
    health.fail(Candidate(Target("other", "m1"), 0), Fault.FAILING, 10_000.0)
    health.fail(Candidate(Target("other", "m1"), 0), Fault.FAILING, 10_000.0)

    assert list(health.cooling(10_000.0)) == [ONE.places[-1]]


def test_an_upstream_is_not_usable_where_no_model_has_answered_since_one_failed() -> None:
    health = Health(900)
    health.answer(ONE, 1.0)
    health.fail(ONE, Fault.LIMIT, 2.0, 30.0)

    resting = health.usable_at("up", 0)
    health.answer(OTHER_MODEL, 3.0)

    assert resting == 32.0
    assert health.usable_at("up", 0) == 0.0
    assert health.usable_at("up", 1) == 0.0
