"""What is measured: every load, the rows that come of it, and what is promised of them. No I/O."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from benchmarks import wire
from benchmarks.targets import Target

DIRECT: Final = "direct"
"""The column without a proxy."""
NGINX: Final = "nginx"
RELAY: Final = "relay"
AIPROXYD: Final = "aiproxyd"
CACHED: Final = "aiproxyd-cache"
"""The same with its response cache on."""
LITELLM: Final = "litellm"
PEERS: Final = (LITELLM,)
"""Candidates that are measured where they are asked for, and with the loads that they have in common with all."""

APIS: Final = {"chat": wire.CHAT, "messages": wire.MESSAGES, "gemini": wire.GEMINI, "responses": wire.RESPONSES}
"""Name of an API in the table → the API. Models are called `bench-NAME`: aiproxyd finds them at an upstream of it."""

EVENTS: Final = 100
"""Fewest `data:` lines of a stream that is passed on."""
CONVERTED_EVENTS: Final = 98
"""The same of one that is converted: so many are the deltas of a chat stream of 100 events."""
STAGGER_S: Final = 0.005
"""A gap between two events of a paced stream, over which the connections start one after the other: upstreams do not
send their events in step."""
PACED_CONNECTIONS: Final = 24
"""With fewer streams the machine sleeps between events, and what waking it costs makes the figure twice as high and far
from steady."""


class Sample(msgspec.Struct):
    """What the load generator saw in one cell: one measure, one candidate, one round."""

    requests: int
    elapsed_s: float
    cpu_us: float
    """Of the candidate's process tree, in all."""
    upstream_cpu_us: float
    load_cpu_us: float
    p50_us: float
    p99_us: float

    def per_second(self) -> float:
        return self.requests / self.elapsed_s

    def cpu_each_us(self) -> float:
        return self.cpu_us / self.requests


@dataclass(frozen=True)
class Group:
    """Rows that stand together: one table of the page."""

    title: str
    unit: str


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    group: Group
    label: str
    value: Callable[[Sample], float] | None = None
    """What it takes from a sample of its measure; None: it comes from elsewhere than the load."""
    is_converted: bool = False
    has_direct: bool = False
    """It also makes sense without a proxy."""
    is_added: bool = False
    """The figure of direct, same round, is taken off."""

    @property
    def key(self) -> str:
        return f"{self.group.title}: {self.label}"


@dataclass(frozen=True)
class Ask:
    """One request, and what tells a right answer to it."""

    api: wire.Api
    path: str
    text: str
    method: str = "POST"
    proof: str = ""
    """Stands in a right answer that is none of an API's."""
    size_bytes: int = 0
    """Length that the body is brought to with more of the same question; 0: as it is."""

    @property
    def body(self) -> str:
        """The body as it is sent, made anew each time: some are long."""
        missing = max(0, self.size_bytes - len(self.text))
        return self.text.replace(wire.QUESTION, wire.QUESTION * (1 + math.ceil(missing / len(wire.QUESTION))))

    @classmethod
    def of(cls, name: str, model: str, *, is_stream: bool = False, size_bytes: int = 0) -> "Ask":
        """Ask in the API of that name for a model, which says whose answer is to come."""
        api = APIS[name]
        path, text = api.path(model, is_stream=is_stream), api.ask(model, is_stream=is_stream).decode()
        return cls(api, path, text, size_bytes=size_bytes)


@dataclass(frozen=True)
class Measure:
    """One kind of load."""

    name: str
    ask: Ask
    rows: tuple[Row, ...]
    connections: int = 1
    seconds: float = 0.4
    answer: wire.Api | None = None
    """Whose answer it is, where aiproxyd converts; None: of the API that is asked in."""
    beside: str = ""
    """The measure whose figures of the others stand beside this one: the same answer, in the upstream's own words."""
    is_central: bool = False
    """A part of --quick."""
    events: int = 0
    """Fewest `data:` lines of a right answer; 0 for a whole answer."""
    stagger_s: float = 0.0
    warm_s: float = 0.15
    only: str = ""
    """The one candidate that it is for; empty: all but those that have measures of their own."""
    has_peers: bool = False

    def is_for(self, candidate: str) -> bool:
        if self.only:
            return candidate == self.only
        if candidate == DIRECT:
            return any(row.has_direct or row.is_added for row in self.rows)
        return candidate != CACHED and (self.has_peers or candidate not in PEERS)


@dataclass(frozen=True)
class Crowd:
    """So many streams open at once that have got their first event and then nothing."""

    name: str
    row: Row
    ask: Ask
    plain: Ask
    """What everybody but aiproxyd is asked."""
    streams: int
    is_central: bool = False

    def is_for(self, candidate: str) -> bool:
        # LiteLLM keeps the first word back until the next one has come.
        return candidate != CACHED and candidate not in PEERS


# --- Groups -----------------------------------------------------------------------------------------------------------

WHOLE_RATE: Final = Group("Whole answers passed on, throughput", "requests per second")
WHOLE_CPU: Final = Group("Whole answers passed on, cost", "CPU us per request")
CONVERTED_RATE: Final = Group("Whole answers converted, throughput", "requests per second")
CONVERTED_CPU: Final = Group("Whole answers converted, cost", "CPU us per request")
STREAM_RATE: Final = Group("Streams of 100 events at once, throughput", "streams per second")
STREAM_CPU: Final = Group("Streams of 100 events at once, cost", "CPU us per stream")
PACED_CPU: Final = Group("Streams of 100 events, 5 ms apart, cost", "CPU us per stream")
LATENCY: Final = Group("Latency of whole answers", "us")
ADDED: Final = Group("Latency beyond that without a proxy", "us")
SIZE: Final = Group("Long bodies, one connection, cost", "CPU us per request")
CACHE: Final = Group("Response cache, one connection", "us")
START: Final = Group("Start", "ms")
MEMORY: Final = Group("Memory", "MB")
CROWD: Final = Group("Memory of an open stream that got its first event and then nothing", "kB each")
GROUPS: Final = (
    *(WHOLE_RATE, WHOLE_CPU, CONVERTED_RATE, CONVERTED_CPU, STREAM_RATE, STREAM_CPU, PACED_CPU),
    *(LATENCY, ADDED, SIZE, CACHE, START, MEMORY, CROWD),
)


# --- Loads of each API and each conversion ----------------------------------------------------------------------------

CONVERSIONS: Final = tuple((caller, upstream) for upstream in APIS for caller in APIS if caller != upstream)
"""Caller and upstream."""
ONE_CONNECTION: Final = (("messages", "chat"), ("chat", "messages"), ("chat", "gemini"))
"""Conversions that are measured with one connection too."""
PACED: Final = (("messages", "chat"), ("chat", "messages"))
"""Conversions of streams whose events come one by one."""
CENTRAL: Final = ("chat", "messages")
"""APIs that --quick is content with."""
LATENCIES: Final = (("p50", lambda sample: sample.p50_us), ("p99", lambda sample: sample.p99_us))


def _load(caller: str, upstream: str, kind: str) -> Measure:
    """Make what all loads of a caller's API and an upstream's have in common."""
    is_converted = caller != upstream
    prefix = f"{caller}-{upstream}-" if is_converted else "" if caller == "chat" else f"{caller}-"
    return Measure(
        f"{prefix}{kind}",
        Ask.of(caller, f"bench-{upstream}"),
        (),
        seconds=1.0 if prefix == "" else 0.4,
        answer=APIS[upstream] if is_converted else None,
        beside=_load(upstream, upstream, kind).name if is_converted else "",
        is_central=caller in CENTRAL and upstream in CENTRAL,
        only=AIPROXYD if is_converted else "",
        has_peers=prefix == "",
    )


def _title(caller: str, upstream: str) -> str:
    return caller if caller == upstream else f"{caller} to {upstream}"


def _rows(caller: str, upstream: str, label: str, rate: Group, cost: Group) -> tuple[Row, ...]:
    is_same = caller == upstream
    return (
        Row(rate, label, Sample.per_second, is_converted=not is_same, has_direct=is_same),
        Row(cost, label, Sample.cpu_each_us, is_converted=not is_same),
    )


def _whole(caller: str, upstream: str, connections: int) -> Measure:
    is_same, is_one = caller == upstream, connections == 1
    label = "1 connection" if is_one else f"{connections} connections"
    groups = (WHOLE_RATE, WHOLE_CPU) if is_same else (CONVERTED_RATE, CONVERTED_CPU)
    rows = _rows(caller, upstream, f"{_title(caller, upstream)}, {label}", *groups)
    load = _load(caller, upstream, f"whole-{connections}")
    if caller == upstream == "chat":
        rows += tuple(
            Row(group, f"{label}, {name}", value, has_direct=group is LATENCY, is_added=group is ADDED)
            for group in (LATENCY, ADDED)
            for name, value in LATENCIES
        )
    is_central = load.is_central and (not is_one or caller == upstream == "chat")
    return replace(load, rows=rows, connections=connections, is_central=is_central)


def _stream(caller: str, upstream: str) -> Measure:
    rows = _rows(caller, upstream, _title(caller, upstream), STREAM_RATE, STREAM_CPU)
    ask = Ask.of(caller, f"bench-{upstream}", is_stream=True)
    events = EVENTS if caller == upstream else CONVERTED_EVENTS
    return replace(_load(caller, upstream, "stream"), ask=ask, rows=rows, connections=8, events=events)


def _paced(caller: str, upstream: str) -> Measure:
    row = Row(PACED_CPU, _title(caller, upstream), Sample.cpu_each_us, is_converted=caller != upstream)
    return replace(
        _load(caller, upstream, "paced"),
        ask=Ask.of(caller, f"bench-{upstream}-paced", is_stream=True),
        rows=(row,),
        connections=PACED_CONNECTIONS,
        seconds=0.9,
        events=EVENTS if caller == upstream else CONVERTED_EVENTS,
        stagger_s=STAGGER_S,
        warm_s=0.0,
    )


def _loads_of(upstream: str) -> list[Measure]:
    """Give the loads of an upstream's API: passed on, and right after it converted for callers of each other one."""
    pairs = [(upstream, upstream), *(pair for pair in CONVERSIONS if pair[1] == upstream)]
    ones = [pair for pair in pairs if pair in ONE_CONNECTION]
    paced = [pair for pair in pairs if pair in PACED]
    return [
        *(_whole(*pair, 1) for pair in ([(upstream, upstream), *ones] if ones else [])),
        *(_whole(*pair, 32) for pair in pairs),
        *(_stream(*pair) for pair in pairs),
        *(_paced(*pair) for pair in ([(upstream, upstream), *paced] if paced else [])),
    ]


# --- Other loads ------------------------------------------------------------------------------------------------------

SIZES: Final = {"1 kB": 0, "10 kB": 10_000, "100 kB": 100_000, "1 MB": 1_000_000, "10 MB": 10_000_000}
"""Of requests; the first is as all the other requests are."""
ANSWERS: Final = {"100 kB": "answer100k", "10 MB": "answer10m"}
"""Size of an answer → what a model's name ends with, to get it."""


def _request_of(size: str) -> tuple[Measure, Measure]:
    """Ask at some length for an ordinary answer: passed on, and converted."""
    name, label = f"request-{size.replace(' ', '')}", f"request of {size}"
    ask = Ask.of("chat", "bench-chat", size_bytes=SIZES[size])
    passed = Measure(name, ask, (Row(SIZE, f"{label}, chat", Sample.cpu_each_us),))
    converted = Measure(
        f"{name}-converted",
        Ask.of("chat", "bench-messages", size_bytes=SIZES[size]),
        (Row(SIZE, f"{label}, chat to messages", Sample.cpu_each_us, is_converted=True),),
        answer=wire.MESSAGES,
        beside=name,
        only=AIPROXYD,
    )
    return passed, converted


def _answer_of(size: str) -> Measure:
    row = Row(SIZE, f"answer of {size}, chat", Sample.cpu_each_us)
    return Measure(f"answer-{size.replace(' ', '')}", Ask.of("chat", f"bench-chat-{ANSWERS[size]}"), (row,))


def _usage_asked() -> Measure:
    text = wire.CHAT.ask("bench-chat", is_stream=True, stream_options={"include_usage": True}).decode()
    row = Row(STREAM_CPU, "chat, usage asked", Sample.cpu_each_us)
    stream = _stream("chat", "chat")
    ask = replace(stream.ask, text=text)
    return replace(stream, name="stream-usage", ask=ask, rows=(row,), seconds=0.4, is_central=False, has_peers=False)


_WHOLE = Ask.of("chat", "bench-chat")
_STREAM = Ask.of("chat", "bench-chat", is_stream=True)
_CACHED = Measure("", _WHOLE, (), seconds=0.6, is_central=True, only=CACHED)

HEALTH: Final = Row(CACHE, "/health: CPU per request", Sample.cpu_each_us)
HIT: Final = Row(CACHE, "hit: CPU per request", Sample.cpu_each_us)
HIT_P50: Final = Row(CACHE, "hit: latency p50", lambda sample: sample.p50_us)
HIT_STREAM: Final = Row(CACHE, "hit: CPU per stream", Sample.cpu_each_us)

MEASURES: Final = (
    *(measure for upstream in APIS for measure in _loads_of(upstream)),
    _usage_asked(),
    *(measure for size in SIZES for measure in _request_of(size)),
    *(_answer_of(size) for size in ANSWERS),
    replace(_CACHED, name="health", ask=Ask(wire.CHAT, "/health", "", "GET", "alive"), rows=(HEALTH,)),
    replace(_CACHED, name="hit", rows=(HIT, HIT_P50)),
    replace(_CACHED, name="hit-stream", ask=_STREAM, rows=(HIT_STREAM,), events=1),
)
"""In the order of a round."""


# --- Memory and start -------------------------------------------------------------------------------------------------

IMPORT_MS: Final = Row(START, "import aiproxyd.app")
START_MS: Final = Row(START, "exec to first answer")
PSS_START: Final = Row(MEMORY, "PSS after start")
PSS_ANSWER: Final = Row(MEMORY, "PSS after one request")
RSS_ANSWER: Final = Row(MEMORY, "RSS after one request")
PSS_LOAD: Final = Row(MEMORY, "PSS after the load")

_IDLE = Ask.of("chat", "bench-chat-idle", is_stream=True)
_IDLE_CONVERTED = Ask.of("chat", "bench-messages-idle", is_stream=True)
_IDLE_MESSAGES = Ask.of("messages", "bench-messages-idle", is_stream=True)
CROWDS: Final = (
    Crowd("open-1000", Row(CROWD, "chat, 1,000 open"), _IDLE, _IDLE, 1_000, is_central=True),
    Crowd(
        "open-1000-converted",
        Row(CROWD, "chat to messages, 1,000 open", is_converted=True),
        _IDLE_CONVERTED,
        _IDLE_MESSAGES,
        1_000,
    ),
    Crowd("open-10000", Row(CROWD, "chat, 10,000 open"), _IDLE, _IDLE, 10_000),
)

LOADS: Final[tuple[Measure | Crowd, ...]] = (*MEASURES, *CROWDS)

ROWS: Final = tuple(
    sorted(
        [
            *(row for measure in MEASURES for row in measure.rows),
            *(IMPORT_MS, START_MS, PSS_START, PSS_ANSWER, RSS_ANSWER, PSS_LOAD),
            *(crowd.row for crowd in CROWDS),
        ],
        key=lambda row: GROUPS.index(row.group),
    )
)


# --- Promises ---------------------------------------------------------------------------------------------------------


def _keys(group: Group, *, is_converted: bool = False, label: str = "") -> tuple[str, ...]:
    """Name the rows of a group that are converted, or are not, and whose label ends so."""
    return tuple(
        row.key for row in ROWS if row.group is group and row.is_converted is is_converted and row.label.endswith(label)
    )


def _costs(text: str, rows: tuple[str, ...], most: float) -> Target:
    return Target(f"{text}: CPU <= {most:g} x nginx", rows, most, AIPROXYD, times=NGINX)


def _outdoes(text: str, rows: tuple[str, ...], least: float) -> Target:
    return Target(f"{text} >= {least:g} x LiteLLM", rows, least, AIPROXYD, times=LITELLM, is_floor=True)


TARGETS: Final = (
    _costs("whole passed on", _keys(WHOLE_CPU), 7),
    _costs("whole converted", _keys(CONVERTED_CPU, is_converted=True), 11),
    _costs("100 events at once passed on", _keys(STREAM_CPU), 4),
    _costs("100 events at once converted", _keys(STREAM_CPU, is_converted=True), 10),
    _costs("100 events 5 ms apart passed on", _keys(PACED_CPU), 2),
    _costs("100 events 5 ms apart converted", _keys(PACED_CPU, is_converted=True), 2.6),
    Target("added latency p50, 1 connection <= 400 us", _keys(ADDED, label="1 connection, p50"), 400, AIPROXYD),
    Target("added latency p99, 1 connection <= 1,500 us", _keys(ADDED, label="1 connection, p99"), 1500, AIPROXYD),
    _outdoes("requests/s, chat, 32 connections", _keys(WHOLE_RATE, label="chat, 32 connections"), 50),
    _outdoes("streams/s, chat, 100 events at once", _keys(STREAM_RATE, label="chat"), 150),
    Target("idle <= 45 MB", (PSS_ANSWER.key,), 45, AIPROXYD),
    Target("start <= 500 ms", (START_MS.key,), 500, AIPROXYD),
    Target("open idle stream <= 40 kB", (*_keys(CROWD), *_keys(CROWD, is_converted=True)), 40, AIPROXYD),
    Target("cache hit: CPU <= 60 us more than /health", (HIT.key,), 60, CACHED, less=HEALTH.key),
)
