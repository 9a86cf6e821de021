"""What the soak makes of its samples and of answers: nothing of this needs a load."""

import math
from collections.abc import Callable
from typing import Literal

import pytest

from benchmarks.soak_judging import (
    Sample,
    find_trend,
    judge_gauges,
    judge_growth,
    judge_log,
    judge_outcomes,
    judge_rest,
    judge_swell,
)
from benchmarks.soak_reading import Answer, WrongAnswer, read, read_error
from benchmarks.soak_words import (
    FORMATS,
    Question,
    Shape,
    Wish,
    read_mark,
    write_error,
    write_request,
    write_stream,
    write_whole,
)

DURATION_S = 600
WARM_UP_S = 120
JSON = {"content-type": "application/json; charset=utf-8"}
SSE = {"content-type": "text/event-stream"}
WISHES = [
    *(Wish(fmt, "m", "whole") for fmt in FORMATS),
    *(Wish(fmt, "m", "stream") for fmt in FORMATS),
    Wish("gemini", "m", "array"),
    Wish("openai-chat", "m", "stream", wants_usage=True),
]
STREAMS = [wish for wish in WISHES if wish.kind != "whole"]
SHAPES: tuple[Shape, ...] = ("text", "thought", "call", "large")


def sample(at_s: float = 0.0, kib: float = 50_000, **counts: dict[str, int]) -> Sample:
    tasks, fds = counts.get("tasks", {}), counts.get("fds", {})
    return Sample(at_s=at_s, pss_kib=int(kib), rss_kib=int(kib), private_kib=int(kib), tasks=tasks, fds=fds)


def samples(kib_at: Callable[[float], float]) -> list[Sample]:
    return [sample(at_s, kib_at(at_s)) for at_s in range(5, DURATION_S + 1, 5)]


def good(wish: Wish, question: Question) -> Answer:
    if wish.kind == "whole":
        return Answer(200, JSON, write_whole(wish.fmt, question), is_ended=True)
    is_array = wish.kind == "array"
    events = write_stream(wish.fmt, question, has_usage=wish.wants_usage, is_array=is_array)
    return Answer(200, JSON if is_array else SSE, b"".join(events), is_ended=True)


# --- Memory


def test_memory_that_only_grows_while_it_warms_up_is_flat() -> None:
    assert judge_swell(samples(lambda at_s: 30_000 + 250 * min(at_s, WARM_UP_S)), WARM_UP_S, 0.05) == []


def test_memory_that_comes_and_goes_is_flat() -> None:
    assert judge_swell(samples(lambda at_s: 50_000 + 4_000 * math.sin(at_s)), WARM_UP_S, 0.05) == []


def test_one_large_answer_at_the_end_is_no_growth() -> None:
    assert judge_swell(samples(lambda at_s: 90_000 if at_s > DURATION_S - 20 else 50_000), WARM_UP_S, 0.05) == []


def test_memory_that_grows_all_the_time_is_told_of() -> None:
    problems = judge_swell(samples(lambda at_s: 50_000 + 10 * at_s), WARM_UP_S, 0.05)

    # The medians are those of 120 to 210 s, and of 510 to 600 s.
    assert problems == ["memory under load grew by 7.6% (50.4 to 54.2 MB), more than 5%"]


def test_memory_that_jumps_once_and_stays_is_told_of() -> None:
    assert judge_swell(samples(lambda at_s: 50_000 if at_s < 400 else 54_000), WARM_UP_S, 0.05)


def test_a_few_samples_prove_nothing() -> None:
    assert find_trend([(float(at_s), 1.0) for at_s in range(9)], 0.0) is None
    assert judge_swell([sample(at_s) for at_s in range(9)], 0.0)


def test_memory_at_rest_is_compared_with_that_after_the_warm_up() -> None:
    def trimmed(kib: int) -> Sample:
        rested = sample(kib=90_000)
        rested.trimmed_kib = kib
        return rested

    assert judge_growth(trimmed(40_960), trimmed(43_000), 0.05) == []
    assert judge_growth(trimmed(40_960), trimmed(30_000), 0.05) == []
    assert judge_growth(trimmed(40_960), trimmed(43_520), 0.05) == [
        "memory at rest grew by 6.2% (40.0 to 42.5 MB), more than 5%"
    ]


# --- What is left


def test_what_was_there_before_the_load_may_be_there_after_it() -> None:
    before = sample(tasks={"probe of down": 1}, fds={"pipe": 4, "caller listening": 1})

    assert judge_rest(before, sample(tasks={"probe of down": 1}, fds={"pipe": 3, "caller listening": 1})) == []


def test_what_a_load_leaves_behind_is_told_of_by_kind() -> None:
    before = sample(tasks={"probe of down": 1}, fds={"upstream established": 1})
    after = sample(tasks={"probe of down": 1, "answer N": 2}, fds={"upstream established": 4})

    assert judge_rest(before, after) == [
        "tasks left behind: 2 x answer N",
        "files left behind: 3 x upstream established",
    ]


def test_one_thing_in_the_place_of_another_is_told_of() -> None:
    assert judge_rest(sample(tasks={"probe": 1}), sample(tasks={"flight": 1})) == ["tasks left behind: 1 x flight"]


def test_gauges_that_tell_of_calls_at_rest_are_told_of() -> None:
    metrics = (
        "# HELP aiproxyd_upstream_running Calls that run at an upstream with max-concurrency.\n"
        "# TYPE aiproxyd_upstream_running gauge\n"
        'aiproxyd_upstream_running{upstream="chat"} 1.0\n'
        'aiproxyd_upstream_waiting{upstream="chat"} 0.0\n'
        'aiproxyd_attempts_total{upstream="chat",outcome="ok"} 7.0\n'
    )

    assert judge_gauges(metrics) == ['aiproxyd_upstream_running{upstream="chat"} is 1.0 at rest']


def test_a_log_of_refused_keys_is_clean_and_one_with_a_traceback_is_not() -> None:
    refused = "T ERROR aiproxyd.providers.base: upstream a refuses the API key that is configured"
    bug = "Traceback (most recent call last):"

    assert judge_log([refused + " for it (status 401)", "2026-01-01T00:00:00.000Z INFO request id=1"]) == []
    assert judge_log(["fine", bug, bug]) == [f"log: 2 x {bug}"]


def test_lines_of_a_log_that_differ_by_time_and_request_alone_are_told_of_once() -> None:
    lines = [
        f"2026-01-01T00:00:0{at}.000Z ERROR aiproxyd: request {at:024x}: bug while serving {path}"
        for at, path in enumerate(("/a", "/a", "/b", "/c"))
    ]

    assert judge_log(lines, max_shown=2) == [
        "log: 2 x ERROR aiproxyd: request : bug while serving /a",
        "log: 1 x ERROR aiproxyd: request : bug while serving /b",
        "log: 1 other kinds of lines",
    ]


def test_a_run_in_which_most_questions_fail_proves_nothing() -> None:
    assert judge_outcomes({"whole": 90, "error 502": 10}) == []
    assert judge_outcomes({"whole": 10, "error 502": 90}) == ["only 10 of 100 questions were answered whole"]
    assert judge_outcomes({}) == ["only 0 of 0 questions were answered whole"]


# --- Answers


@pytest.mark.parametrize("wish", WISHES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_question_finds_its_way_and_its_good_answer_is_right(wish: Wish, shape: Shape) -> None:
    question = Question("u7", shape, 5, 10)

    _, body = write_request(wish, question)

    assert read_mark(body) == question
    assert read(wish, question, good(wish, question)) == "whole"


@pytest.mark.parametrize("wish", WISHES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_answer_to_another_question_is_wrong(wish: Wish, shape: Shape) -> None:
    with pytest.raises(WrongAnswer, match="not the answer"):
        read(wish, Question("u7", shape, 5, 10), good(wish, Question("u8", shape, 5, 10)))


@pytest.mark.parametrize("wish", STREAMS, ids=str)
@pytest.mark.parametrize("is_ended", [True, False])
def test_a_stream_without_its_end_is_wrong_unless_nothing_could_tell(wish: Wish, is_ended: bool) -> None:
    question = Question("u7", "text", 5, 0)
    events = write_stream(wish.fmt, question, has_usage=wish.wants_usage, is_array=wish.kind == "array")
    # What chat says behind its finish_reason says nothing of the answer.
    del events[-3 if wish.fmt == "openai-chat" else -1 :]
    answer = Answer(200, JSON if wish.kind == "array" else SSE, b"".join(events), is_ended)

    if wish.kind == "array" and not is_ended:
        assert read(wish, question, answer) == "cut"
    else:
        with pytest.raises(WrongAnswer):
            read(wish, question, answer)


@pytest.mark.parametrize(("wants_usage", "left_out"), [(False, 1), (True, 1), (True, 2)])
def test_a_chat_stream_cut_behind_its_answer_is_whole_but_for_its_end(wants_usage: bool, left_out: int) -> None:
    wish, question = Wish("openai-chat", "m", "stream", wants_usage), Question("u7", "call", 5, 0)
    events = write_stream(wish.fmt, question, has_usage=wants_usage)[:-left_out]

    assert read(wish, question, Answer(200, SSE, b"".join(events), is_ended=True)) == "whole, but for [DONE]"


@pytest.mark.parametrize("wish", [wish for wish in STREAMS if wish.kind == "stream"], ids=str)
def test_an_error_behind_the_first_words_is_one_but_not_behind_wrong_words(wish: Wish) -> None:
    question, band = Question("u7", "text", 5, 0), b"data: " + write_error(wish.fmt, 500) + b"\n\n"
    if wish.fmt == "openai-responses":
        band = b'event: error\ndata: {"type":"error","code":null,"message":"no","param":null,"sequence_number":9}\n\n'
    is_ended = wish.fmt != "gemini"

    def broken(of: Question, end: bytes = b"") -> Answer:
        return Answer(200, SSE, b"".join(write_stream(wish.fmt, of)[:5]) + band + end, is_ended)

    assert read(wish, question, broken(question)) == "in-band error"
    with pytest.raises(WrongAnswer, match="not the answer"):
        read(wish, question, broken(Question("u8", "text", 5, 0)))
    with pytest.raises(WrongAnswer, match="more follows an error"):
        read(wish, question, broken(question, band))
    with pytest.raises(WrongAnswer, match="does not end as"):
        read(wish, question, broken(question)._replace(is_ended=not is_ended))


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_an_error_has_to_be_in_the_callers_format(fmt: str, kind: Literal["whole", "stream"]) -> None:
    wish, question = Wish(fmt, "m", kind), Question("u7", "text", 5, 0)
    other = "gemini" if fmt == "anthropic" else "anthropic"

    assert read(wish, question, Answer(500, JSON, write_error(fmt, 500), is_ended=True)) == "error 500"
    for wrong in (
        Answer(500, JSON, write_error(other, 500), is_ended=True),
        Answer(500, JSON, write_error(fmt, 500), is_ended=False),
        Answer(500, {"content-type": "text/plain"}, write_error(fmt, 500), is_ended=True),
        Answer(429, JSON, write_error(fmt, 429), is_ended=True),  # without retry-after
        Answer(401, JSON, write_error(fmt, 401), is_ended=True),  # the upstream's, never the caller's
        Answer(400, JSON, write_error(fmt, 400).replace(b"scripted", b"made up"), is_ended=True),
        Answer(502, JSON, b"Traceback", is_ended=True),
    ):
        with pytest.raises(WrongAnswer):
            read(wish, question, wrong)


def test_a_callers_own_fault_has_one_status() -> None:
    answer = Answer(400, JSON, write_error("anthropic", 400), is_ended=True)

    assert read_error("anthropic", answer, (400,)) == "error 400"
    with pytest.raises(WrongAnswer, match="status 400"):
        read_error("anthropic", answer, (404,))
