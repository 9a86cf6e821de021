"""What callers get when upstreams fail: every fault in every situation, measured, and written to docs/reliability.md.

Each call has upstreams of its own, so that none knows of another's failures. What came is read from its bytes, and what
the upstreams were asked is counted.

``python -m tests.http.reliability > docs/reliability.md`` writes the document.
"""

import asyncio
import logging
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
from msgspec.structs import fields
from typing_extensions import override

from aiproxyd.config import OPTIONS, SECTIONS
from tests.faults.answers import FORMATS, say
from tests.faults.faults import FAULTS, KINDS, Fault
from tests.faults.reading import ask, read
from tests.faults.upstream import Exchange, Play, Server, bind
from tests.support import start_gateway

FOREIGN: Final = {
    "openai-chat": "anthropic",
    "openai-responses": "gemini",
    "anthropic": "openai-responses",
    "gemini": "openai-chat",
}
"""For each caller's format, one that its upstream speaks instead; each is there once."""
PAIRS: Final = [(fmt, fmt) for fmt in FORMATS] + list(FOREIGN.items())
ALWAYS, ONCE, UPSTREAM, KEY = "each time", "once", "with a second upstream", "with a second key"
SITUATIONS: Final = (ALWAYS, ONCE, UPSTREAM, KEY)
FLAGS: Final = ("--max-retry-wait", "2.5")
"""All else is as by default; nobody should wait for longer here."""
RUNNING: Final = 48
"""Calls at once; more would be slow for want of a processor, and look like upstreams that are."""
LET_GO_TURNS: Final = 200
"""For how many hundredths of a second after the last call its upstream may still hold a connection."""

LOST: Final = "LOST"
NONE: Final = "-"
_OF_KEY: Final = ("answers 401", "answers 402", "answers 403", "answers 429")


class Cell(NamedTuple):
    """One call."""

    number: int
    fault: Fault
    situation: str
    caller: str
    upstream: str
    kind: str

    @property
    def name(self) -> str:
        """Of its upstream, and with a ``b`` behind it of the second one."""
        return f"c{self.number}"

    @property
    def is_converted(self) -> bool:
        return self.caller != self.upstream


class Result(NamedTuple):
    """What became of one call."""

    cell: Cell
    outcome: str
    """``whole``, ``error STATUS``, ``in-band error`` or LOST."""
    attempts: int
    """As the answer's header counts them."""
    asked: int
    """Requests that reached upstreams."""
    elapsed_s: float
    problem: str = ""
    """Why it is lost."""

    @property
    def is_helped(self) -> bool:
        """Whether a second upstream could answer."""
        fault = self.cell.fault
        return self.cell.situation is UPSTREAM and not fault.is_final and not fault.is_late

    @property
    def is_helped_by_key(self) -> bool:
        """Whether it was a matter of the key, and there was another."""
        return self.cell.situation is KEY and self.cell.fault.name.startswith(_OF_KEY)

    @property
    def text(self) -> str:
        """What stands in the document."""
        return self.outcome if self.attempts == 1 else f"{self.outcome} after {self.attempts} attempts"


def list_cells() -> Iterator[Cell]:
    """Yield all calls; who has to wait the longest comes first."""
    number = 0
    for fault in sorted(FAULTS, key=lambda fault: not fault.name.startswith("answers 429")):
        for situation in SITUATIONS[:1] if fault.is_harmless else SITUATIONS:
            for caller, upstream in PAIRS:
                for kind in fault.kinds:
                    if upstream in fault.formats and (kind != "array" or caller == "gemini"):
                        yield Cell(number, fault, situation, caller, upstream, kind)
                        number += 1


class Stage:
    """One gateway, the server that plays all its upstreams, and the ports that refuse connections."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = {cell.name: cell for cell in cells}
        self.server = Server(self._choose)
        self._closed = bind()
        """Refuses connections for ever."""
        self._recovering: dict[str, Server] = {}
        """Refuse connections until the first attempt has failed."""

    async def start(self) -> None:
        await self.server.start()
        for cell in self._cells.values():
            if cell.fault.play is None and cell.situation is ONCE:
                self._recovering[cell.name] = Server(self._choose)

    async def stop(self) -> None:
        await self.server.stop()
        self._closed.close()
        for server in self._recovering.values():
            await server.stop()

    async def recover(self, name: str) -> None:
        """Let the upstream called *name* take connections, where it has refused them up to now."""
        if name in self._recovering and self._recovering[name].connections == 0:
            await self._recovering[name].start()

    def count(self, cell: Cell) -> int:
        """Return how many requests of *cell* have reached its upstreams."""
        servers = [self.server, *filter(None, [self._recovering.get(cell.name)])]
        return sum(server.counts[place] for server in servers for place in (cell.name, cell.name + "b"))

    def write_ini(self) -> str:
        """Return the configuration."""
        return "".join(self._write_sections(cell) for cell in self._cells.values())

    def _write_sections(self, cell: Cell) -> str:
        url = self.server.url
        if cell.fault.play is None:
            recovering = self._recovering.get(cell.name)
            url = recovering.url if recovering else f"http://127.0.0.1:{self._closed.getsockname()[1]}"
        keys = "one, two" if cell.situation is KEY else "one"
        sections = write_upstream(cell.name, cell.upstream, url, keys, cell.fault.line)
        targets = [cell.name]
        if cell.situation is UPSTREAM:
            targets.append(cell.name + "b")
            sections += write_upstream(targets[1], cell.upstream, self.server.url, "one")
        return f"{sections}[model m-{cell.name}]\ntargets = {', '.join(f'{name}/m' for name in targets)}\n"

    def _choose(self, exchange: Exchange, number: int) -> Play:
        name = exchange.place.removesuffix("b")
        cell = self._cells[name]
        is_well = (
            name != exchange.place
            or cell.fault.play is None
            or (cell.situation is ONCE and number > 1)
            or (cell.situation is KEY and exchange.key == "two")
        )
        assert exchange.fmt == cell.upstream
        return Exchange.answer_well if is_well or cell.fault.play is None else cell.fault.play


def write_upstream(name: str, fmt: str, url: str, keys: str, line: str = "") -> str:
    """Return the section of an upstream that a `Server` at *url* plays."""
    base = f"{url}/{name}"
    match fmt:
        case "openai-chat":
            lines = ["provider = openai", "flavour = first-party", "api = chat", f"base-url = {base}/v1"]
        case "openai-responses":
            lines = ["provider = openai", "flavour = first-party", "api = responses", f"base-url = {base}/v1"]
        case _:
            lines = [f"provider = {fmt}", f"base-url = {base}"]
    return "\n".join([f"[upstream {name}]", *lines, f"api-key = {keys}", "max-concurrency = 50", line, ""])


class _Watch(logging.Handler):
    """Tells of the upstreams whose attempts have failed, as the log does."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    @override
    def emit(self, record: logging.LogRecord) -> None:
        failed = re.search(r"attempt 1 at (\w+)/m#1 failed", record.getMessage())
        if failed:
            self._tell(failed[1])


async def measure(path: Path, cells: Sequence[Cell]) -> list[Result]:
    """Make the calls of *cells*, with a gateway whose configuration is written to *path*.

    Raises:
        AssertionError: the gateway still holds a slot or a connection of a call that is over.
    """
    stage = Stage(cells)
    await stage.start()
    gateway = await start_gateway(stage.write_ini(), path, *FLAGS, attempts=())
    port = int(gateway.url.rpartition(":")[2])
    recoveries: list[asyncio.Task[None]] = []
    watch = _Watch(lambda name: recoveries.append(asyncio.ensure_future(stage.recover(name))))
    logger = logging.getLogger("aiproxyd.dispatch")
    logger.addHandler(watch)
    running = asyncio.Semaphore(RUNNING)
    try:
        results = await asyncio.gather(*(_measure(cell, stage, port, running) for cell in cells))
        await _check_nothing_is_held(stage, gateway.url)
        return results
    finally:
        logger.removeHandler(watch)
        await asyncio.gather(*recoveries)
        await gateway.runner.cleanup()
        await stage.stop()


async def _check_nothing_is_held(stage: Stage, url: str) -> None:
    for _ in range(LET_GO_TURNS):  # the server hears of closed connections with the next turns of its loop
        if stage.server.hanging:
            await asyncio.sleep(0.01)
    assert stage.server.hanging == 0
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    running = [line for line in lines if line.startswith("aiproxyd_upstream_running{")]
    assert running
    assert [line for line in running if not line.endswith(" 0.0")] == []


async def _measure(cell: Cell, stage: Stage, port: int, running: asyncio.Semaphore) -> Result:
    texts = [say(cell.name), say(cell.name + "b")]
    async with running:
        started_s = time.monotonic()
        attempts = 1
        problem = ""
        try:
            answer = await ask(port, cell.caller, f"m-{cell.name}", cell.kind)
            attempts = int(answer.headers["x-aiproxyd-attempts"])
            outcome = read(cell.caller, answer, texts, cell.kind)
        except (AssertionError, LookupError, ValueError) as exc:
            outcome, problem = LOST, repr(exc)
        return Result(cell, outcome, attempts, stage.count(cell), time.monotonic() - started_s, problem)


PROCESS: Final = (
    "connect-timeout",
    "first-event-timeout",
    "idle-timeout",
    "request-timeout",
    "retries",
    "max-retry-wait",
    "max-cooldown",
    "affinity-ttl",
)
"""The options that this is about; the first four can be said in an upstream's section too."""
LINES: Final = {
    "max-concurrency": "calls that the upstream gets at once",
    "max-queue": "calls that may wait for it",
    "queue-timeout": "seconds that one may wait",
    "probe-interval": "seconds between questions for its list of models, while it rests",
}

HEAD: Final = """# When an upstream fails

A caller gets one whole answer, or one clear error in the words of its own API: never two answers, never half of one
that passes for a whole one, and never none. What that means for each fault is measured by the tests
(`python -m tests.http.reliability`); the tables at the end are what came out.

## What is tried again

Where a request can go is a list: the targets of its model, in the order that the `strategy` gives them, each with
each of its upstream's API keys. Until an answer has begun, a failure leads to the next on the list.

- A key that is refused (401), whose account is empty (402, or a 429 with `insufficient_quota`), that may not use the
  model (403) or has used up its rate limit (429) is a matter of the key: the upstream's next key comes next.
- An upstream that fails (5xx, a connection that breaks) would mostly fail with its other keys too: other targets come
  first. One that cannot be reached, was silent until its time was over, or answered what cannot be read, gets no turn
  with its other keys.
- A model that an upstream does not have (404) may be had with another key, or elsewhere.
- A conversation that is too long goes to targets whose window is larger, or not known.
- A connection that was kept from an earlier call may be closed by the upstream just when the next request goes out on
  it. Where that is heard of within 0.1 s, and nothing of an answer has come, the request was not looked at: it goes
  out once more, on a new connection, which does not count as an attempt. Later than that the upstream may have been
  at work, and it is a failure like any other.

When everyone has had a turn, `retries` more attempts are made in all where that may help: after 5xx, broken and
refused connections, 429, or of those that rested and may be back. Before each of them is a pause, at random between 0
and 0.5 s, then 1 s, then 2 s, and so on up to 8 s; but until the rest is over where one was ordered (see below), or
for as long as the upstream asks (`retry-after`, `retry-after-ms`, Google's `RetryInfo`), and up to 0.25 s more.
Nobody waits for more than `max-retry-wait`: the caller gets the error at once, with a `retry-after` that says when
somebody may be asked again.

## What is not

- What is wrong with the request itself (400, 413, 422, a 403 about its content) goes to the caller at once, and to no
  other upstream.
- An upstream that was silent until its time was over, or answered what cannot be read, is not asked the same again.
- A caller that finds all queues full, or waited in them for as long as they allow, is told so and not queued again.
- Once an answer has begun, nobody else is asked, and an attempt that fails is an error inside the stream. It is the
  API's own; Gemini's connections are closed behind it without the end that HTTP has for them, since Google's clients
  overlook it. Gemini's other stream, the array in JSON, has no place for an error where it passes byte for byte, and
  is only cut.

## What is only relayed

The upstreams' other paths go to one upstream. Those that compute and leave nothing behind (`/v1/completions`, audio,
images, moderations) are tried again as above. What the others leave there (files, batches, stored responses, ...) is
found with the key that left it, where keys are of different accounts; so their calls do not take turns between keys,
but go to the first that is well. They could also do something twice:

- After a failure that proves that nothing was done (a refused key, an empty account, 403, 429, a refused connection)
  they are made again, with the next key where that may help.
- After one that does not (5xx, 409, a connection that breaks) only GET is made again, and what has an
  `idempotency-key`, with the same key of the upstream's.
- Uploads that stream through are sent once.

Their failures say nothing about models: only refused connections and refused keys let anything rest. A caller who
stops within an upload gets a 408, and the upstream is not blamed.

## What every answer says

Every answer says in `x-aiproxyd-attempts` how many attempts it took, and in `x-aiproxyd-upstream` who made the last
one. Every failed attempt is a line in the log.

## How long things may take

`connect-timeout` bounds the opening of a connection. `first-event-timeout` bounds the time from the request to the
first byte of the answer's body; a whole answer is computed in that time, so it has to be long. `idle-timeout` is the
longest silence within an answer, however long that is, and within an upload; but the text of an error is given up
after 2 s. `request-timeout` bounds the whole call, all attempts and pauses together. The error says which of them it
was.

## Who is left in peace

After a failure, calls go elsewhere for a while. How long doubles each time, until a call succeeds.

| what fails | what rests | from | first | at most |
| --- | --- | --- | --- | --- |
| connections are refused, or take too long | the upstream | the third time in a row | 1 s | 10 s |
| the key is refused, or its account is empty | the key | the first time | 60 s | 900 s |
| the key may not use the model | the key, for that model | the third time in a row | 60 s | 900 s |
| 429 | the key, for that model | the first time | 1 s | 60 s |
| all other failures | the key, for that model | the third time in a row | 1 s | 60 s |

Where the upstream says how long (`retry-after`), that counts instead, from the first time on. Nothing rests for
longer than `max-cooldown`. All attempts of one call count as one: a request that no upstream survives does not shut
out the others.

When the time is over, one call is let through, and the others wait for what comes of it, for 5 s at most: one that
has not failed by then is at work, and they may go too (unless it was silence that made it rest). With
`probe-interval`, an upstream that cannot be reached, or whose keys are refused, is asked for its list of models
meanwhile, which costs no tokens. A call that finds everything resting waits as for a further attempt; where that would
take more than `max-retry-wait`, or `retries` is 0, the caller gets a 503 with a `retry-after`. Where only the operator
can help (a refused key, an empty account), it has an `x-should-retry: false` too.

`/ready` is a 503 while no upstream has a key that may be asked: one whose keys rest, or that has failed for some model
and answered for none since.

## Who waits, and who stays

With `max-concurrency`, an upstream gets no more calls at once. A call that finds it full goes to the next target that
is not; where all are full it waits for all of them, and goes where a place is free first. Keys of callers take turns.
A call waits for `queue-timeout` at most, and no more than `max-queue` calls wait at an upstream; where one key has
most of these places, its last call makes room for another key's. Then it is a 503 with a `retry-after`.

A conversation goes to the key that answered it last, where the vendor's cache of prompts is warm, and with the
strategies `weighted` and `least-latency` to the target too, for `affinity-ttl` after each answer. It is known by the
session that its client names in a header or in the body (`prompt_cache_key`, `conversation`, the session in Claude
Code's `metadata.user_id`), or by how it begins. After a failure it goes elsewhere, and stays with who answers it
there; with `ordered`, until the first target is well again.

## Options
"""

RESULTS: Final = """
## What was measured

An upstream has the fault in each row: with no other there, each time or only the first time; with a second upstream
that is well; and with a second key that is. `whole` is a whole answer, and an error is what the caller gets in the
end, with the number of attempts. `in-band error` is one inside a stream that had begun; `cut` is a stream in JSON
that ends without its last bracket. All options are as by default, but for `max-retry-wait = 2.5` and shorter time
limits. Statuses differ where formats do: errors that come with a success status, or inside a stream, say in their own
words what they are.
"""


def write_document(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of docs/reliability.md."""
    yield from HEAD.splitlines()
    yield from _write_options()
    yield from RESULTS.splitlines()
    for is_converted, title in ((False, "Caller and upstream speak one format"), (True, "The upstream speaks another")):
        yield ""
        yield f"### {title}"
        yield ""
        yield f"| the upstream | {' | '.join(SITUATIONS)} |"
        yield "| --- |" + " --- |" * len(SITUATIONS)
        for fault in FAULTS:
            of_fault = [each for each in results if each.cell.fault is fault and each.cell.is_converted is is_converted]
            yield from _write_rows(fault, of_fault)


def _write_options() -> Iterator[str]:
    options = {option.name: option for option in OPTIONS}
    defaults = {field.encode_name: field.default for field in fields(SECTIONS["upstream"])}
    yield ""
    yield "| option | default | what it is |"
    yield "| --- | --- | --- |"
    for name in PROCESS:
        yield f"| `--{name}` | {options[name].default} | {options[name].help} |"
    yield ""
    yield "Each is also a line of `[aiproxyd]`, and the first four of an `[upstream NAME]`, which has these besides:"
    yield ""
    yield "| line | default | what it is |"
    yield "| --- | --- | --- |"
    for name, text in LINES.items():
        default = defaults[name]
        yield f"| `{name}` | {'none' if default is None else format(default, 'g')} | {text} |"


def _write_rows(fault: Fault, results: Sequence[Result]) -> Iterator[str]:
    """Yield the row of *fault*, or one for each kind of answer where they differ."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for kind in fault.kinds:
        of_kind = [result for result in results if result.cell.kind == kind]
        if of_kind:
            row = (_describe([result for result in of_kind if result.cell.situation is each]) for each in SITUATIONS)
            rows.setdefault(tuple(row), []).append(kind)
    for cells, kinds in rows.items():
        label = fault.name if len(rows) == 1 else f"{fault.name} ({', '.join(KINDS[kind] for kind in kinds)})"
        yield f"| {label} | {' | '.join(cells)} |"


def _describe(results: Sequence[Result]) -> str:
    """Return what became of calls that differ in their formats alone, the most frequent first."""
    texts = Counter(result.text for result in results)
    return " or ".join(sorted(texts, key=lambda text: (-texts[text], text))) or NONE


async def main() -> None:
    """Measure, and write the document."""
    with tempfile.TemporaryDirectory() as folder:
        results = await measure(Path(folder) / "config.ini", list(list_cells()))
    sys.stdout.write("\n".join(write_document(results)) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
