"""Upstreams fail in every way, and callers get a whole answer or one clear error: never half of one, never two."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.faults.answers import FORMATS, say, write_error
from tests.faults.reading import Answer, ask, read
from tests.faults.upstream import Choose, Exchange, Play, Server
from tests.http.reliability import FOREIGN, LOST, Result, list_cells, measure, write_document, write_upstream

ROOT = Path(__file__).parents[2]
LONGEST_S = 8.0
"""Three attempts and what is waited between them, 3.5 s at most, on a machine that is busy."""
KINDS = [(fmt, kind) for fmt in FORMATS for kind in ("whole", "stream")]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    path = tmp_path_factory.mktemp("reliability") / "config.ini"
    return asyncio.run(measure(path, list(list_cells())))


def describe(results: Sequence[Result]) -> list[str]:
    return [f"{result.cell[1].name}, {result.cell[2:]}: {result.text}, {result.problem}" for result in results]


@pytest.mark.timeout(120)
def test_every_call_ends_with_a_whole_answer_or_with_one_clear_error(results: Sequence[Result]) -> None:
    assert len(results) > 2000
    assert describe([result for result in results if result.outcome == LOST]) == []


def test_what_is_wrong_with_the_request_is_asked_of_one_upstream_only(results: Sequence[Result]) -> None:
    final = [result for result in results if result.cell.fault.is_final]

    assert describe([result for result in final if (result.asked, result.outcome[:5]) != (1, "error")]) == []


def test_nobody_else_is_asked_once_output_has_begun(results: Sequence[Result]) -> None:
    late = [result for result in results if result.cell.fault.is_late]

    assert describe([result for result in late if result.asked != 1]) == []
    assert {result.outcome for result in late} == {"in-band error", "cut"}


def test_a_second_upstream_answers_whatever_the_first_one_does(results: Sequence[Result]) -> None:
    helped = [result for result in results if result.is_helped]

    assert len(helped) > 400
    assert describe([result for result in helped if result.text != "whole after 2 attempts"]) == []


def test_a_second_key_answers_for_one_that_is_refused_or_used_up(results: Sequence[Result]) -> None:
    helped = [result for result in results if result.is_helped_by_key]

    assert len(helped) > 100
    assert describe([result for result in helped if result.text != "whole after 2 attempts"]) == []


def test_attempts_are_counted_as_they_were_made(results: Sequence[Result]) -> None:
    reached = [result for result in results if result.cell.fault.play is not None]

    assert describe([result for result in reached if result.attempts != result.asked]) == []


def test_no_call_takes_for_longer_than_its_pauses(results: Sequence[Result]) -> None:
    assert describe([result for result in results if result.elapsed_s > LONGEST_S]) == []


def test_the_document_says_what_was_measured(results: Sequence[Result]) -> None:
    assert (ROOT / "docs" / "reliability.md").read_text() == "\n".join(write_document(results)) + "\n"


# Connections that were waiting.

StartServer = Callable[[Choose], Coroutine[Any, Any, Server]]


@pytest.fixture
async def start_server() -> AsyncIterator[StartServer]:
    started: list[Server] = []

    async def start(choose: Choose) -> Server:
        started.append(Server(choose))
        await started[-1].start()
        return started[-1]

    yield start
    for server in started:
        await server.stop()


def answer_always(exchange: Exchange, number: int) -> Play:
    return Exchange.answer_well


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def check_whole(fmt: str, kind: str, answer: Answer, attempts: int = 1, place: str = "a") -> None:
    assert read(fmt, answer, [say(place)], kind) == "whole"
    assert answer.headers["x-aiproxyd-attempts"] == str(attempts)


@pytest.mark.parametrize(("fmt", "kind"), KINDS)
async def test_a_connection_that_was_closed_while_it_waited_is_replaced(
    fmt: str, kind: str, start_server: StartServer, gateway: StartGateway
) -> None:
    server = await start_server(answer_always)
    running = await gateway(write_upstream("a", fmt, server.url, "one"))

    check_whole(fmt, kind, await ask(port_of(running.url), fmt, "m", kind))
    server.drop()
    check_whole(fmt, kind, await ask(port_of(running.url), fmt, "m", kind))

    assert (server.counts["a"], server.connections) == (2, 2)


@pytest.mark.parametrize("leave", [Exchange.cut, Exchange.reset])
@pytest.mark.parametrize(("fmt", "kind"), KINDS)
async def test_a_connection_that_is_closed_in_the_moment_of_its_use_is_replaced(
    fmt: str, kind: str, leave: Play, start_server: StartServer, gateway: StartGateway
) -> None:
    server = await start_server(lambda exchange, number: leave if number == 2 else Exchange.answer_well)
    running = await gateway(write_upstream("a", fmt, server.url, "one"))

    for _ in range(2):
        check_whole(fmt, kind, await ask(port_of(running.url), fmt, "m", kind))

    assert (server.counts["a"], server.connections) == (3, 2)


async def fill_pool(port: int, fmt: str, gate: asyncio.Barrier) -> None:
    """Leave as many connections waiting as the *gate* wants calls at once."""
    calls = [ask(port, fmt, "m", "whole") for _ in range(gate.parties)]
    for answer in await asyncio.gather(*calls):
        check_whole(fmt, "whole", answer)


@pytest.mark.parametrize("fmt", FORMATS)
async def test_an_upstream_may_be_restarted_while_connections_wait(
    fmt: str, start_server: StartServer, gateway: StartGateway
) -> None:
    gate = asyncio.Barrier(6)

    async def answer_together(exchange: Exchange) -> None:
        await gate.wait()
        await exchange.answer_well()

    server = await start_server(lambda exchange, number: answer_together)
    running = await gateway(write_upstream("a", fmt, server.url, "one"))
    await fill_pool(port_of(running.url), fmt, gate)

    await server.stop()
    await server.start()
    await fill_pool(port_of(running.url), fmt, gate)

    assert (server.counts["a"], server.connections) == (12, 12)


@pytest.mark.parametrize("fmt", FORMATS)
async def test_many_connections_may_turn_out_to_be_closed(
    fmt: str, start_server: StartServer, gateway: StartGateway
) -> None:
    # More than one attempt puts up with.
    gate = asyncio.Barrier(6)

    async def answer_together(exchange: Exchange) -> None:
        await gate.wait()
        await exchange.answer_well()

    def choose(exchange: Exchange, number: int) -> Play:
        if number <= 6:
            return answer_together
        return Exchange.cut if server.connections == 6 else Exchange.answer_well

    server = await start_server(choose)
    running = await gateway(write_upstream("a", fmt, server.url, "one"), attempts=())
    await fill_pool(port_of(running.url), fmt, gate)

    answer = await ask(port_of(running.url), fmt, "m", "whole")

    assert read(fmt, answer, [say("a")], "whole") == "whole"
    assert server.connections == 7


@pytest.mark.parametrize("delay_s", [0.0, 0.03])
@pytest.mark.parametrize(("fmt", "kind"), KINDS)
async def test_what_comes_behind_an_answer_is_not_the_next_one(
    fmt: str, kind: str, delay_s: float, start_server: StartServer, gateway: StartGateway
) -> None:
    async def say_more(exchange: Exchange) -> None:
        await exchange.answer_well()
        await asyncio.sleep(delay_s)
        body = write_error(fmt, 408, "too late")
        await exchange.reply(body, 408, Connection="close")

    server = await start_server(lambda exchange, number: say_more if number == 1 else Exchange.answer_well)
    running = await gateway(write_upstream("a", fmt, server.url, "one"))

    check_whole(fmt, kind, await ask(port_of(running.url), fmt, "m", kind))
    await asyncio.sleep(0.1)
    check_whole(fmt, kind, await ask(port_of(running.url), fmt, "m", kind))


# Several upstreams.


@pytest.mark.parametrize(("fmt", "kind"), KINDS)
async def test_an_upstream_that_is_silent_with_one_key_is_not_waited_for_with_the_next(
    fmt: str, kind: str, start_server: StartServer, gateway: StartGateway
) -> None:
    # With ten minutes for each of three keys, the second upstream answered after half an hour.
    server = await start_server(
        lambda exchange, number: Exchange.hang if exchange.place == "a" else Exchange.answer_well
    )
    sections = write_upstream("a", fmt, server.url, "one, two, three", "first-event-timeout = 0.3")
    sections += write_upstream("b", fmt, server.url, "one")
    running = await gateway(f"{sections}[model m]\ntargets = a/m, b/m\n", attempts=())

    check_whole(fmt, kind, await ask(port_of(running.url), fmt, "m", kind), attempts=2, place="b")

    assert server.asked == [("a", "one"), ("b", "one")]


FLAP_S = 0.3
LOAD_S = 3.0
CALLERS = 20


class Flapping:
    """An upstream that is well and not well in turns: it fails requests, breaks connections, and takes none."""

    def __init__(self) -> None:
        self.server = Server(self._choose)
        self._is_well = True

    async def run(self) -> None:
        for turn in range(int(LOAD_S / FLAP_S)):
            self._is_well = turn % 2 == 0
            if turn % 4 == 3:
                await self.server.stop()
            elif turn % 4 == 0:
                await self.server.start()
            await asyncio.sleep(FLAP_S)

    def _choose(self, exchange: Exchange, number: int) -> Play:
        if self._is_well:
            return Exchange.answer_well
        return Exchange.reset if number % 2 else self._fail

    async def _fail(self, exchange: Exchange) -> None:
        await exchange.reply(write_error(exchange.fmt, 500, "no"), 500)


async def test_nothing_fails_while_one_of_three_upstreams_comes_and_goes(
    start_server: StartServer, gateway: StartGateway
) -> None:
    server, flapping = await start_server(answer_always), Flapping()
    sections = write_upstream("a", "openai-chat", flapping.server.url, "one, two")
    sections += write_upstream("b", "anthropic", server.url, "one")
    sections += write_upstream("c", "openai-responses", server.url, "one")
    running = await gateway(f"{sections}[model m]\ntargets = a/m, b/m, c/m\n", attempts=())
    seen: Counter[str] = Counter()
    until_s = time.monotonic() + LOAD_S

    async def call(number: int) -> None:
        draw = random.Random(number)  # noqa: S311  # no secret is drawn
        while time.monotonic() < until_s:
            fmt, kind = draw.choice(KINDS)
            answer = await ask(port_of(running.url), fmt, "m", kind)
            outcome = read(fmt, answer, [say("a"), say("b"), say("c")], kind)
            seen[f"{outcome}, {answer.headers['x-aiproxyd-attempts']}"] += 1
            await asyncio.sleep(draw.uniform(0, 0.02))

    await asyncio.gather(flapping.run(), *map(call, range(CALLERS)))
    await flapping.server.stop()

    assert {outcome.partition(",")[0] for outcome in seen} == {"whole"}
    assert sum(seen.values()) > 300
    assert seen["whole, 2"] > 0
    assert 50 < flapping.server.counts["a"] < server.counts.total()


def test_each_format_is_converted_from_once() -> None:
    assert sorted(FOREIGN.values()) == sorted(FORMATS)
