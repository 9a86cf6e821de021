"""The response cache between the official SDKs: what one was told, another is told again, in its own format and mode.

The question of each test stands in no other test, so that none finds the answers of another.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, product
from threading import Event
from typing import Any, NamedTuple

import httpx2
import pytest
from typing_extensions import override

from tests.http import raw
from tests.http.callers import CALLERS, Answer, Ask, File, Result, Tool
from tests.http.matrix import (
    CALLER,
    CELLS,
    CITY,
    FLASH,
    GEMINI_3,
    GPT_4O,
    GPT_5,
    LOCAL,
    NAMES,
    OPUS,
    SONNET,
    STREAM,
    THINKING_CELLS,
    Cell,
    Stage,
    Talk,
    count_seals,
    is_relayed,
)
from tests.http.test_matrix import STOPS, THINKING_USAGES, USAGES
from tests.support import Received, Reply, upstream_section

WEATHER, TIME = Tool("get_weather", CITY), Tool("get_time", CITY)
MAX_TOKENS = 4096
"""Said by all, for the Messages API wants it said."""
MISS = "aiproxyd; fwd=miss"
HIT = "aiproxyd; hit"
JOINED = "aiproxyd; fwd=miss; collapsed"

_numbers = count(1)


class Way(NamedTuple):
    """How a caller asks."""

    name: str
    is_stream: bool

    @override
    def __str__(self) -> str:
        return f"{self.name}-{'streamed' if self.is_stream else 'whole'}"


WAYS = tuple(Way(name, is_stream) for name in NAMES for is_stream in (False, True))
Judge = Callable[[Way, Way, Cell], bool]


def crosses(*cells: Cell, where: Judge = lambda first, second, cell: True) -> pytest.MarkDecorator:
    """Return the parameters ``first``, ``second`` and ``cell``: each way to ask before each other, with *cells*."""
    return pytest.mark.parametrize(
        ("first", "second", "cell"),
        [
            pytest.param(*each, id="-then-".join(map(str, each[:2])) + f"-{each[2]}")
            for each in product(WAYS, WAYS, cells)
            if where(*each)
        ],
    )


def is_in_another_mode(first: Way, second: Way, cell: Cell) -> bool:
    return first.is_stream is not second.is_stream


def begin(stage: Stage, cell: Cell, ways: tuple[Way, Way], *asks: Ask) -> tuple[Talk, Talk]:
    """Return conversations with *cell* in which *asks*, one for both or one for each, are asked for the first time."""
    system = f"This is conversation {next(_numbers)}."
    first, second = (
        Talk(
            stage,
            way.name,
            cell.model,
            ask.but(system=system, max_tokens=ask.max_tokens or MAX_TOKENS),
            is_stream=way.is_stream,
        )
        for way, ask in zip(ways, asks * 2, strict=False)
    )
    first.url = second.url = stage.cached_url
    return first, second


def read_status(answer: Answer) -> str:
    """Return what the cache has done, without the time that is left."""
    return re.sub(r"; ttl=(600|59\d)$", "", answer.headers["cache-status"])


def hear_twice(
    stage: Stage, cell: Cell, told: tuple[Talk, Talk], text: str, *, stop: str = "end", usages: Any = USAGES
) -> tuple[Answer, Answer]:
    """Have *text* said by one and then by the other; check that the vendor was asked once, and that all adds up."""
    answers = told[0].say(text), told[1].say(text)

    assert [read_status(answer) for answer in answers] == [MISS, HIT]
    assert answers[1].headers["age"] in ("0", "1")
    assert len(stage.bodies(cell)) == 1
    for each, answer in zip(told, answers, strict=True):
        assert answer.stop == STOPS[each.caller.name][stop]
        usage = answer.usage
        assert (usage.input, usage.cached, usage.output, usage.reasoning or 0) == usages[each.caller.name]
        assert answer.dropped == set()
    if told[1].is_stream:
        raw.check_stream(told[1].caller.name, told[1].caller.received)
    return answers


@crosses(GPT_4O, GPT_5, LOCAL, OPUS, FLASH)
def test_words_are_told_again(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), Ask())

    answers = hear_twice(stage, cell, told, "Hi there, all of you\n\n  and you")

    assert [answer.text for answer in answers] == ["You said: Hi there, all of you\n\n  and you"] * 2


# --- Tools

BOTH = 'call get_weather with {"city":"Łódź"} and call get_time with {"city":"Rome in Italy"}'
CALLED = [("get_weather", {"city": "Łódź"}), ("get_time", {"city": "Rome in Italy"})]
RESULTS = (Result("rain"), Result("noon"))


@crosses(*CELLS)
def test_calls_are_told_again_and_can_be_answered(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), Ask(tools=[WEATHER, TIME]))

    # Most think before they call, asked for it or not.
    usages = USAGES if cell in (GPT_4O, LOCAL, OPUS) else THINKING_USAGES
    answers = hear_twice(stage, cell, told, BOTH, stop="tool", usages=usages)
    after = answer_calls(told[1], answers[1].turn, answers[1])

    assert [[call[:2] for call in answer.calls] for answer in answers] == [CALLED, CALLED]
    assert [answer.text for answer in answers] == ["", ""]
    assert after.text == "The tools said: rain, noon"
    assert read_status(after) == MISS
    assert len(stage.bodies(cell)) == 2


def answer_calls(talk: Talk, turn: list[Any], answer: Answer) -> Answer:
    """Send *turn*, the *answer* as it goes back, with what the tools say, and return what is said then."""
    talk.turns += turn + talk.caller.answer_calls(answer.calls, RESULTS)
    return talk.go_on()


def is_empty_schema_said_by_one(first: Way, second: Way, cell: Cell) -> bool:
    says = ("openai-responses", "anthropic")
    return (first.name in says) is not (second.name in says)


@crosses(
    OPUS,
    where=is_in_another_mode,
)
def test_a_call_without_arguments_is_told_again(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), Ask(tools=[Tool("get_time")]))

    answers = hear_twice(stage, cell, told, "call get_time", stop="tool")

    assert [[call[:2] for call in answer.calls] for answer in answers] == [[("get_time", {})]] * 2


@crosses(
    GPT_5,
    OPUS,
    GEMINI_3,
    where=is_in_another_mode,
)
def test_a_call_that_was_demanded_is_told_again(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), Ask(tools=[WEATHER, TIME], must_call="get_time"))

    answers = [talk.say("Hi") for talk in told]

    assert [read_status(answer) for answer in answers] == [MISS, HIT]
    assert [[call[:2] for call in answer.calls] for answer in answers] == [[("get_time", {"city": "text"})]] * 2


# --- Conversations that go on


@crosses(LOCAL, where=is_in_another_mode)
def test_a_conversation_that_goes_on_alike_stays_one(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), Ask())

    answers = []
    for talk in told:
        talk.turns += talk.say("Hi there, all of you").turn
        answers.append(talk.say("Bye"))

    assert [answer.text for answer in answers] == ["You said: Bye"] * 2
    assert [read_status(answer) for answer in answers] == [MISS, HIT]
    assert len(stage.bodies(cell)) == 2


@crosses(
    LOCAL,
    where=is_in_another_mode,
)
def test_a_loop_that_goes_on_alike_stays_one(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), Ask(tools=[WEATHER, TIME]))

    answers = []
    for talk in told:
        answer = talk.say(BOTH)
        answers.append(answer_calls(talk, answer.turn, answer))

    assert [answer.text for answer in answers] == ["The tools said: rain, noon"] * 2
    assert [read_status(answer) for answer in answers] == [MISS, HIT]
    assert len(stage.bodies(cell)) == 2


# --- Thoughts

BUDGETS = (OPUS, FLASH)
"""Whose own formats say in tokens how much to think; OpenAI's have no word for that."""


def ask_for_thoughts(name: str, tools: Sequence[Tool] = ()) -> Ask:
    """Return what asks for thoughts in the format called *name*, and says no more than the others can."""
    if name == "openai-responses":
        # Without `include`, of which nothing can be said elsewhere.
        return Ask(tools=tools, fields={"reasoning": {"effort": "high", "summary": "auto"}})
    return Ask(tools=tools, effort="high")


def is_same_effort(first: Way, second: Way, cell: Cell) -> bool:
    return cell not in BUDGETS or first.name.startswith("openai-") is second.name.startswith("openai-")


def is_same_effort_and_api(first: Way, second: Way, cell: Cell) -> bool:
    """Tell whether both ask the same; of OpenAI's chat completions, which show no thoughts, one asks something else."""
    is_one_api = cell is not GPT_5 or (first.name == "openai-chat") is (second.name == "openai-chat")
    return is_one_api and is_same_effort(first, second, cell)


@crosses(*THINKING_CELLS, where=is_same_effort_and_api)
def test_thoughts_are_told_again(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), *(ask_for_thoughts(way.name) for way in (first, second)))

    answers = hear_twice(stage, cell, told, "think", usages=THINKING_USAGES)

    is_hidden = cell is GPT_5 and first.name == second.name == "openai-chat"
    assert answers[1].text == "You said: think"
    assert answers[1].thoughts == ("" if is_hidden else "Thinking about: think")


SEALS = {GPT_5: 1, OPUS: 1, SONNET: 1, FLASH: 0, GEMINI_3: 1}
"""How many seals go back with two calls and the thought before them; gemini-2.5 signs only words."""


@crosses(*THINKING_CELLS, where=is_same_effort_and_api)
def test_a_loop_keeps_its_state_from_an_answer_that_was_told_again(
    stage: Stage, first: Way, second: Way, cell: Cell
) -> None:
    told = begin(
        stage, cell, (first, second), *(ask_for_thoughts(way.name, [WEATHER, TIME]) for way in (first, second))
    )

    answers = hear_twice(stage, cell, told, BOTH, stop="tool", usages=THINKING_USAGES)
    told[1].url = stage.other_url  # which remembers nothing
    after = answer_calls(told[1], answers[1].turn, answers[1])

    assert [call[:2] for call in answers[1].calls] == CALLED
    assert answers[1].thoughts == f"Thinking about: {BOTH}"
    assert after.text == "The tools said: rain, noon"
    assert after.dropped == set()
    assert count_seals(stage.body(cell), cell.vendor) == SEALS[cell]


@crosses(
    *THINKING_CELLS,
    where=lambda first, second, cell: (
        first.is_stream is not second.is_stream
        and is_same_effort(first, second, cell)
        and not is_relayed(second.name, cell)
    ),
)
def test_a_loop_keeps_its_state_where_the_client_drops_it(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(
        stage, cell, (first, second), *(ask_for_thoughts(way.name, [WEATHER, TIME]) for way in (first, second))
    )

    answers = hear_twice(stage, cell, told, BOTH, stop="tool", usages=THINKING_USAGES)
    after = answer_calls(told[1], answers[1].bare, answers[1])

    assert after.text == "The tools said: rain, noon"
    assert after.dropped == set()
    assert count_seals(stage.body(cell), cell.vendor) == SEALS[cell]


@pytest.fixture(scope="module")
def shared_url(matrix_stage: Stage) -> str:
    """A gateway with callers that share what is kept."""
    upstream = upstream_section(matrix_stage.upstreams["anthropic"], "anthropic")
    keys = "".join(
        f"[key {name}]\nsecret = sha256:{hashlib.sha256(name.encode()).hexdigest()}\n"
        for name in ("alice", "bob", "carol")
    )
    model = f"[model shared]\ntargets = up/{OPUS.model}\ncache-scope = shared\n"
    return matrix_stage.start_gateway(upstream + keys + model, "--cache-ttl", "600")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "anthropic"])
def test_each_caller_who_shares_an_answer_can_drop_its_state(stage: Stage, shared_url: str, name: str) -> None:
    ask = Ask(
        system=f"This is conversation {next(_numbers)}.", tools=[WEATHER, TIME], effort="high", max_tokens=MAX_TOKENS
    )
    answers = []
    for key, said in (("alice", "rain"), ("bob", "snow"), ("carol", "hail")):
        caller = next(each for each in CALLERS if each.name == name)()
        caller.key = key
        turns = caller.say(BOTH)
        answers.append(caller.ask(shared_url, "shared", turns, ask))
        turns += answers[-1].bare + caller.answer_calls(answers[-1].calls, [Result(said), Result("noon")])
        answers.append(caller.ask(shared_url, "shared", turns, ask))
        caller.close()

    assert [read_status(answer) for answer in answers] == [MISS, MISS, HIT, MISS, HIT, MISS]
    assert [answer.text for answer in answers[1::2]] == [
        f"The tools said: {said}, noon" for said in ("rain", "snow", "hail")
    ]
    assert [answer.dropped for answer in answers] == [set()] * 6
    assert [count_seals(body, "anthropic") for body in stage.bodies(OPUS)[1:]] == [1, 1, 1]


# --- Schemas, stops, losses, refusals


def says_schema_alike(*names: str) -> bool:
    """Tell whether all name the schema, or none does, and all are strict about it, or do not say so."""
    return len({name if name in ("anthropic", "gemini") else "openai" for name in names}) == 1


@crosses(GPT_5, LOCAL, OPUS, GEMINI_3, where=lambda first, second, cell: says_schema_alike(first.name, second.name))
def test_what_keeps_to_a_schema_is_told_again(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), Ask(schema=CITY))

    answers = hear_twice(stage, cell, told, "json, please")

    assert [json.loads(answer.text) for answer in answers] == [{"city": "text"}] * 2


@crosses(GPT_5, OPUS, where=is_in_another_mode)
def test_an_end_at_the_callers_own_limit_is_told_again(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), Ask(max_tokens=64))

    answers = hear_twice(stage, cell, told, "long", stop="length")

    assert [answer.text for answer in answers] == ["You said: long"] * 2


@crosses(
    LOCAL,
    OPUS,
    GEMINI_3,
    where=lambda first, second, cell: (
        first.is_stream is not second.is_stream and "openai-responses" not in (first.name, second.name)
    ),
)
def test_a_stop_sequence_is_told_again(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), Ask(stop=["END"]))

    # Only Anthropic tells it from an end.
    hear_twice(stage, cell, told, "a stop sequence", stop="stop sequence" if cell is OPUS else "end")


@pytest.mark.parametrize("second", ["anthropic", "gemini"])
@pytest.mark.parametrize("first", ["anthropic", "gemini"])
@STREAM
def test_what_was_left_out_is_named_again(stage: Stage, first: str, second: str, is_stream: bool) -> None:
    told = begin(stage, GPT_5, (Way(first, not is_stream), Way(second, is_stream)), Ask(stop=["END"]))

    answers = [talk.say("Hi") for talk in told]
    told[1].turns.clear()
    answers.append(told[1].say("Hi"))

    assert [read_status(answer) for answer in answers] == [MISS, HIT, HIT]
    assert [answer.dropped for answer in answers] == [{"stop"}] * 3


@crosses(
    GPT_4O,
    GPT_5,
    OPUS,
    FLASH,
    where=lambda first, second, cell: first.name != second.name and first.is_stream is second.is_stream,
)
def test_a_refusal_is_not_kept(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), Ask())

    answers = [talk.say("refuse") for talk in told]

    assert [read_status(answer) for answer in answers] == [MISS, MISS]
    assert len(stage.bodies(cell)) == 2


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@crosses(GPT_5, OPUS, where=lambda first, second, cell: "anthropic" not in (first.name, second.name))
def test_what_was_seen_is_told_again(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    told = begin(stage, cell, (first, second), Ask())

    answers = [talk.say("look", File("image/png", PNG)) for talk in told]

    assert [read_status(answer) for answer in answers] == [MISS, HIT]
    assert {answer.text for answer in answers} == {"You said: look I saw an image (image/png, 70 bytes)."}


@pytest.mark.parametrize("cell", [GPT_4O, OPUS, GEMINI_3], ids=str)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_answer_is_told_again_as_an_array(stage: Stage, way: Way, cell: Cell) -> None:
    text = f"This is number {next(_numbers)}"
    first = Talk(stage, way.name, cell.model, Ask(max_tokens=MAX_TOKENS), is_stream=way.is_stream)
    first.url = stage.cached_url
    path, body = raw.write_request("gemini", cell.model, text, is_stream=True)
    body |= {"generationConfig": {"maxOutputTokens": MAX_TOKENS}}

    first.say(text)
    again = stage.callers["gemini"].http.post(stage.cached_url + path.partition("?")[0], json=body)

    assert "; hit; " in again.headers["cache-status"]
    assert again.headers["content-type"].startswith("application/json")
    chunks = json.loads(again.content)
    raw.CHECKS["gemini"]([raw.Event("", chunk) for chunk in chunks])
    parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
    assert "".join(part["text"] for part in parts) == f"You said: {text}"


# --- Calls under way

GAP_S = 0.025
"""Between the pieces of a slow stream."""
PIECES = 12
WORDS = "Hi there, all of you, " * 40


def make_slow(stage: Stage, cell: Cell) -> None:
    vendor = stage.vendors[cell.upstream]

    def respond(received: Received) -> Reply:
        reply = vendor(received)
        if reply.chunks is None:
            reply.wait_s = PIECES * GAP_S
        else:
            data = b"".join(reply.chunks)
            size = len(data) // PIECES + 1
            reply.chunks, reply.gap_s = [data[at : at + size] for at in range(0, len(data), size)], GAP_S
        return reply

    stage.upstreams[cell.upstream].respond(respond)


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def has_begun(talk: Talk) -> bool:
    """Tell whether the answer to *talk* has begun to come."""
    return bool(talk.caller.headers)


def is_joinable(first: Way, second: Way, cell: Cell) -> bool:
    is_joined = second.is_stream and (first.is_stream or cell is OPUS)
    return first.name != second.name and is_joined


@crosses(GPT_5, OPUS, where=is_joinable)
def test_a_call_under_way_is_joined(stage: Stage, first: Way, second: Way, cell: Cell) -> None:
    make_slow(stage, cell)
    told = begin(stage, cell, (first, second), Ask())
    for talk in told:
        talk.caller.headers = {}
    upstream = stage.upstreams[cell.upstream]

    with ThreadPoolExecutor(2) as pool:
        led = pool.submit(told[0].say, WORDS)
        wait_for(lambda: has_begun(told[0]) if first.is_stream else upstream.running == 1)
        joined = pool.submit(told[1].say, WORDS)
        answers = led.result(), joined.result()

    assert [read_status(answer) for answer in answers] == [MISS, JOINED]
    assert [answer.text for answer in answers] == [f"You said: {WORDS}"] * 2
    assert [answer.stop for answer in answers] == [STOPS[way.name]["end"] for way in (first, second)]
    assert [answer.dropped for answer in answers] == [set(), set()]
    assert len(stage.bodies(cell)) == 1
    raw.check_stream(second.name, told[1].caller.received)


@pytest.mark.parametrize("cell", [LOCAL, GPT_5, OPUS, GEMINI_3], ids=str)
@CALLER
def test_an_answer_is_kept_whose_connection_ends_later(stage: Stage, name: str, cell: Cell) -> None:
    vendor = stage.vendors[cell.upstream]

    def respond(received: Received) -> Reply:
        reply = vendor(received)
        assert reply.chunks is not None
        reply.chunks, reply.gap_s = [b"".join(reply.chunks)], 0.2
        return reply

    stage.upstreams[cell.upstream].respond(respond)
    told = begin(stage, cell, (Way(name, True), Way(name, True)), Ask())

    answers = [talk.say("Hi") for talk in told]

    assert [answer.text for answer in answers] == ["You said: Hi"] * 2
    assert len(stage.bodies(cell)) == 1


class Left(Exception):
    """The caller is gone."""


class Leaving(httpx2.SyncByteStream):
    """The body of an answer, of which the caller reads only the beginning."""

    def __init__(self, body: Any, may_leave: Event) -> None:
        self._body = body
        self._may_leave = may_leave

    @override
    def __iter__(self) -> Iterator[bytes]:
        chunks = iter(self._body)  # which would leave at once if it were let go of
        yield next(chunks)
        self._may_leave.wait(5)
        self._body.close()
        raise Left

    @override
    def close(self) -> None:
        self._body.close()


def make_leave(talk: Talk, may_leave: Event) -> None:
    """Let *talk* be led by somebody who leaves within the first answer."""

    def leave(response: httpx2.Response) -> None:
        response.stream = Leaving(response.stream, may_leave)

    talk.caller = next(caller for caller in CALLERS if caller.name == talk.caller.name)()
    talk.caller.http.event_hooks["response"].append(leave)


@pytest.mark.parametrize("leaver", [0, 1], ids=["the first leaves", "the second leaves"])
@crosses(
    GPT_5,
    GEMINI_3,
    where=lambda first, second, cell: (
        first.is_stream
        and second.is_stream
        and (first.name, second.name) in zip(NAMES, NAMES[1:] + NAMES, strict=False)
    ),
)
def test_the_call_goes_on_for_who_stays(stage: Stage, first: Way, second: Way, cell: Cell, leaver: int) -> None:
    make_slow(stage, cell)
    told = begin(stage, cell, (first, second), Ask())
    may_leave = Event()
    make_leave(told[leaver], may_leave)
    for talk in told:
        talk.caller.headers = {}

    with ThreadPoolExecutor(2) as pool:
        dones = []
        for talk in told:
            dones.append(pool.submit(talk.say, WORDS))
            wait_for(lambda: has_begun(talk))  # noqa: B023  # it is waited for within the loop
        may_leave.set()
        with pytest.raises(Left):
            dones[leaver].result()
        answer = dones[1 - leaver].result()
    told[leaver].caller.close()
    told[1 - leaver].turns.clear()
    after = told[1 - leaver].say(WORDS)

    assert [read_status(each) for each in (answer, after)] == [JOINED if leaver == 0 else MISS, HIT]
    assert [each.text for each in (answer, after)] == [f"You said: {WORDS}"] * 2
    assert len(stage.bodies(cell)) == 1
