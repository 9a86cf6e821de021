"""What aiproxyd costs, beside nginx as a plain reverse proxy, a bare aiohttp relay, and no proxy at all.

Starts a mock upstream, a load generator and every candidate on loopback, then measures in rounds: each candidate in
turn, again and again, so that whatever else the machine does meets all of them. Figures are medians over the rounds.
Where aiproxyd converts, the others pass on the same upstream answer, and are asked for it in the upstream's own format.
Before all that, what conversion costs without a socket is measured for each pair of formats.
"""

import argparse
import contextlib
import grp
import hashlib
import http.client
import importlib.metadata
import os
import platform
import pwd
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import msgspec

from benchmarks import wire

HERE = Path(__file__).resolve().parent
KEY = "bench-key"
DIRECT = "direct"
"""The column without a proxy."""
NGINX = "nginx"
AIPROXYD = "aiproxyd"
CACHED = "aiproxyd-cache"
"""The same with its response cache on."""
POLL_S = 0.005
START_PATIENCE_S = 15.0
SETTLE_S = 0.3
WARM_SCALE = 0.2
STREAM_EVENTS = 101
"""`data:` lines of a chat stream: 100 events and `[DONE]`."""
CONVERTED_EVENTS = 100
"""Fewest `data:` lines of a stream that is converted, on either side."""
MESSAGES_MODEL = "bench-messages"
"""The model that aiproxyd finds at an upstream of Anthropic's API."""
GEMINI_MODEL = "bench-gemini"
MACHINES = "machines"
"""The section without sockets, as --only names it."""
MACHINES_PATIENCE_S = 120
MACHINES_QUICK_ROUNDS = 3
MACHINES_ROUNDS = 7

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

FOREIGN = ("OPENAI_", "ANTHROPIC_", "CLAUDE_", "GEMINI_", "GOOGLE_", "AIPROXYD_", "XDG_")
"""Prefixes of environment variables that could give a candidate other upstreams, keys or files."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY")

Figures = dict[str, dict[str, list[float]]]
"""Row → candidate → one value per round."""


class Machines(msgspec.Struct):
    """What the section without sockets has measured."""

    figures: Figures
    """Pair of formats → column → one value per round."""
    targets: dict[str, str]
    """Promise → met or missed."""


class BenchError(Exception):
    """The run is spoilt: a wrong answer, or a process of the harness gone."""


class Unavailable(Exception):
    """A candidate cannot be measured here; the text says why."""


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


@dataclass(frozen=True)
class Ask:
    """One request, and what tells a right answer to it."""

    api: wire.Api
    path: str
    body: str
    method: str = "POST"
    proof: str = ""
    """Stands in a right answer that is none of an API's."""

    @classmethod
    def of(cls, api: wire.Api, model: str, *, is_stream: bool = False) -> "Ask":
        return cls(api, api.path(model, is_stream=is_stream), api.ask(model, is_stream=is_stream).decode())


@dataclass(frozen=True)
class Measure:
    """One kind of load."""

    name: str
    ask: Ask
    connections: int
    seconds: float
    plain: Ask | None = None
    """What everybody but aiproxyd is asked, in the words of the upstream; None: the same."""
    is_extra: bool = False
    """Left out by --quick."""
    events: int = 0
    stagger_s: float = 0.0
    warm_s: float = 0.15
    only: str = ""
    """The one candidate that it is for; empty: all."""

    def is_for(self, candidate: "Candidate | None") -> bool:
        """Tell whether *candidate*, None for no proxy, is to be measured."""
        name = candidate.name if candidate else DIRECT
        return name == self.only if self.only else name != CACHED


@dataclass(frozen=True)
class Row:
    """One line of the table, computed from one measure's samples."""

    label: str
    measure: str
    value: Callable[[Sample], float]
    has_direct: bool = False
    """It also makes sense without a proxy."""
    is_added: bool = False
    """The figure of direct, same round, is taken off."""


@dataclass(frozen=True)
class Target:
    """One promise of the contract: a row's median, as it is or as a multiple of nginx's."""

    text: str
    row: str
    most: float
    is_ratio: bool
    less: str = ""
    """A row whose median is taken off."""
    candidate: str = AIPROXYD


@dataclass
class Candidate:
    """One proxy under measurement: how it starts, and its process while it runs."""

    name: str
    argv: list[str]
    port: int
    directory: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        with (self.directory / "stderr").open("wb") as log:
            self.process = spawn(self.argv, self.directory, stdout=log, stderr=log)

    def stop(self) -> None:
        if self.process:
            end(self.process)
            self.process = None

    def pids(self) -> list[int]:
        return process_tree(self.process.pid) if self.process else []

    def complaint(self) -> str:
        """The last thing the candidate said, for a message."""
        lines = (self.directory / "stderr").read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "none")


# --- Requests ---------------------------------------------------------------------------------------------------------


WHOLE = Ask.of(wire.CHAT, "bench-model")
STREAM = Ask.of(wire.CHAT, "bench-model", is_stream=True)
USAGE_ASKED = wire.CHAT.ask("bench-model", is_stream=True, stream_options={"include_usage": True}).decode()
PACED = Ask.of(wire.CHAT, "paced", is_stream=True)


def convert(name: str, caller: wire.Api, upstream: wire.Api, model: str, *, is_extra: bool) -> tuple[Measure, ...]:
    """Build the measures of a pair of APIs; *model* leads aiproxyd to an upstream of the other one."""
    ask, plain = Ask.of(caller, model), Ask.of(upstream, model)
    stream, plain_stream = Ask.of(caller, model, is_stream=True), Ask.of(upstream, model, is_stream=True)
    seconds = 0.5 if is_extra else 0.8
    return (
        Measure(f"{name}-1", ask, 1, seconds, plain, is_extra),
        Measure(f"{name}-32", ask, 32, seconds, plain, is_extra),
        Measure(f"{name}-stream", stream, 8, seconds, plain_stream, is_extra, events=CONVERTED_EVENTS),
    )


CONVERSIONS = {
    "chat to anthropic": convert("chat-anthropic", wire.CHAT, wire.MESSAGES, MESSAGES_MODEL, is_extra=False),
    "anthropic to chat": convert("anthropic-chat", wire.MESSAGES, wire.CHAT, "bench-model", is_extra=True),
    "chat to gemini": convert("chat-gemini", wire.CHAT, wire.GEMINI, GEMINI_MODEL, is_extra=True),
}
"""Caller and upstream → their measures: whole with one connection, with 32, streamed."""

MEASURES = (
    Measure("whole-1", WHOLE, connections=1, seconds=1.0),
    Measure("whole-32", WHOLE, connections=32, seconds=1.0),
    Measure("stream", STREAM, connections=8, seconds=1.0, events=STREAM_EVENTS),
    Measure("stream-usage", replace(STREAM, body=USAGE_ASKED), connections=8, seconds=0.6, events=STREAM_EVENTS + 1),
    # Connections start one after the other within a gap: upstreams do not send their events in step. With fewer streams
    # the machine sleeps between events, and what waking it costs makes the figure twice as high and far from steady.
    Measure("paced", PACED, connections=24, seconds=1.1, events=STREAM_EVENTS, stagger_s=0.005, warm_s=0.0),
    *(measure for measures in CONVERSIONS.values() for measure in measures),
    Measure("health", Ask(wire.CHAT, "/health", "", "GET", "alive"), connections=1, seconds=0.6, only=CACHED),
    Measure("hit", WHOLE, connections=1, seconds=0.6, only=CACHED),
    Measure("hit-stream", STREAM, connections=1, seconds=0.6, events=1, only=CACHED),
)


def _per_second(sample: Sample) -> float:
    return sample.requests / sample.elapsed_s


def _cpu_us(sample: Sample) -> float:
    return sample.cpu_us / sample.requests


def _rows_of(pair: str, measures: tuple[Measure, ...]) -> tuple[Row, ...]:
    whole, whole_32, stream = (measure.name for measure in measures)
    return (
        Row(f"{pair}: CPU us per request, 1 connection", whole, _cpu_us),
        Row(f"{pair}: CPU us per request, 32 connections", whole_32, _cpu_us),
        Row(f"{pair}: CPU us per stream, at once", stream, _cpu_us),
    )


ROWS = (
    Row("requests/s, 1 connection", "whole-1", _per_second, has_direct=True),
    Row("requests/s, 32 connections", "whole-32", _per_second, has_direct=True),
    Row("CPU us per request, 1 connection", "whole-1", _cpu_us),
    Row("CPU us per request, 32 connections", "whole-32", _cpu_us),
    Row("latency us p50, 1 connection", "whole-1", lambda sample: sample.p50_us, has_direct=True),
    Row("latency us p99, 1 connection", "whole-1", lambda sample: sample.p99_us, has_direct=True),
    Row("added latency us p50", "whole-1", lambda sample: sample.p50_us, is_added=True),
    Row("added latency us p99", "whole-1", lambda sample: sample.p99_us, is_added=True),
    Row("streams/s, 100 events at once", "stream", _per_second, has_direct=True),
    Row("CPU us per stream, at once", "stream", _cpu_us),
    Row("CPU us per stream, at once, usage asked", "stream-usage", _cpu_us),
    Row("CPU us per stream, 5 ms apart", "paced", _cpu_us),
    *(row for pair, measures in CONVERSIONS.items() for row in _rows_of(pair, measures)),
    Row("/health: CPU us per request", "health", _cpu_us),
    Row("cache hit: CPU us per request", "hit", _cpu_us),
    Row("cache hit: latency us p50", "hit", lambda sample: sample.p50_us),
    Row("cache hit: CPU us per stream", "hit-stream", _cpu_us),
)
START_MS = "start ms, exec to first answer"
PSS_START = "PSS MB after start"
PSS_ANSWER = "PSS MB after one request"
RSS_ANSWER = "RSS MB after one request"
PSS_LOAD = "PSS MB after the load"
LABELS = (*(row.label for row in ROWS), START_MS, PSS_START, PSS_ANSWER, RSS_ANSWER, PSS_LOAD)

TARGETS = (
    Target("whole, 1 connection: CPU <= 10 x nginx", "CPU us per request, 1 connection", 10, is_ratio=True),
    Target("whole, 32 connections: CPU <= 10 x nginx", "CPU us per request, 32 connections", 10, is_ratio=True),
    Target("100-event stream: CPU <= 5 x nginx", "CPU us per stream, at once", 5, is_ratio=True),
    Target(
        "cache hit: CPU <= 60 us more than /health",
        "cache hit: CPU us per request",
        60,
        is_ratio=False,
        less="/health: CPU us per request",
        candidate=CACHED,
    ),
    Target("idle <= 60 MB", PSS_ANSWER, 60, is_ratio=False),
    Target("start <= 800 ms", START_MS, 800, is_ratio=False),
)


# --- Processes --------------------------------------------------------------------------------------------------------


def clean_environment(home: Path) -> dict[str, str]:
    """Give this environment without what could steer a candidate elsewhere, and with a home of its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(FOREIGN) and name.upper() not in PROXIES
    }
    return kept | {"HOME": str(home), "NO_PROXY": "*"}


def spawn(
    argv: list[str],
    directory: Path,
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes],
    stderr: IO[bytes] | None,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own: an interrupt at the terminal reaches the benchmark alone."""
    environment = clean_environment(directory)
    return subprocess.Popen(
        argv, env=environment, cwd=HERE.parent, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and after five seconds make its whole tree."""
    tree = process_tree(process.pid)
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def process_tree(root: int) -> list[int]:
    """Give a process and its living descendants."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The command name stands in parentheses and may hold anything; state and parent follow it.
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children[int(parent)].append(int(entry.name))
    tree = [root]
    for pid in tree:
        tree += children[pid]
    return tree


def memory_mb(pids: Iterable[int], kind: str) -> float:
    """Sum `Pss` or `Rss` of these processes."""
    total_kb = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                total_kb += int(line.split()[1])
    return total_kb * 1024 / 1e6


def free_port() -> int:
    """Find a port that nobody listens on, below those that the kernel gives to outgoing connections.

    One of those could be taken again before the candidate binds it, and polling it can connect a socket to itself.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    below = range(max(1024, lowest - 20_000), lowest)
    for port in [*random.sample(below, min(len(below), 50)), 0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise BenchError("no free port")


# --- Candidates -------------------------------------------------------------------------------------------------------

NGINX_CONFIG = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log access.log;
    keepalive_requests 1000000000;
{temp_paths}
    upstream mock {{
        server 127.0.0.1:{upstream_port};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""

AIPROXYD_CONFIG = """\
[aiproxyd]
host = 127.0.0.1
port = {port}

[upstream mock]
provider = openai
base-url = http://127.0.0.1:{upstream_port}/v1
api-key = bench
models = bench-model, paced

[upstream messages]
provider = anthropic
base-url = http://127.0.0.1:{upstream_port}
api-key = bench
models = bench-messages

[upstream gemini]
provider = gemini
base-url = http://127.0.0.1:{upstream_port}
api-key = bench
models = bench-gemini

[key bench]
secret = sha256:{secret}
"""


def make_nginx(directory: Path, upstream_port: int) -> Candidate:
    """One worker, upstream connections kept alive, an access log, everything in a directory of its own."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not program:
        raise Unavailable("nginx is not installed")
    directory.mkdir()
    built = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stderr
    modules = ("proxy", "fastcgi", "uwsgi", "scgi")
    paths = ["client_body", *(name for name in modules if f"--without-http_{name}_module" not in built)]
    # Started by root, the worker would become another user, who may not enter this directory.
    user = f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getgid()).gr_name};" if os.getuid() == 0 else ""
    port = free_port()
    temp_paths = "\n".join(f"    {path}_temp_path {path};" for path in paths)
    text = NGINX_CONFIG.format(user=user, temp_paths=temp_paths, upstream_port=upstream_port, port=port)
    (directory / "nginx.conf").write_text(text)
    argv = [program, "-p", f"{directory}/", "-c", "nginx.conf", "-e", "error.log"]
    return Candidate(NGINX, argv, port, directory)


def make_relay(directory: Path, upstream_port: int) -> Candidate:
    port = free_port()
    return Candidate("relay", [sys.executable, str(HERE / "relay.py"), str(port), str(upstream_port)], port, directory)


def make_cached(directory: Path, upstream_port: int) -> Candidate:
    """As below, with answers kept for an hour."""
    candidate = make_aiproxyd(directory, upstream_port)
    return replace(candidate, name=CACHED, argv=[*candidate.argv, "--cache-ttl", "3600"])


def make_aiproxyd(directory: Path, upstream_port: int) -> Candidate:
    """As an operator would start it: one key, one upstream of each kind, the access log on."""
    directory.mkdir()
    port = free_port()
    config = directory / "config.ini"
    secret = hashlib.sha256(KEY.encode()).hexdigest()
    config.write_text(AIPROXYD_CONFIG.format(port=port, upstream_port=upstream_port, secret=secret))
    script = Path(sys.executable).parent / "aiproxyd"
    program = [str(script)] if script.exists() else [sys.executable, "-m", "aiproxyd"]
    return Candidate(AIPROXYD, [*program, "--config", str(config)], port, directory)


MAKERS: Mapping[str, Callable[[Path, int], Candidate]] = {
    NGINX: make_nginx,
    "relay": make_relay,
    AIPROXYD: make_aiproxyd,
    CACHED: make_cached,
}


# --- Start and memory -------------------------------------------------------------------------------------------------


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def has_answered(port: int) -> bool:
    """Send one whole chat completion; tell whether it came back."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    try:
        connection.request("POST", WHOLE.path, WHOLE.body, headers)
        answer = connection.getresponse()
        return answer.status == 200 and WHOLE.api.proof.encode() in answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until(is_ready: Callable[[int], bool], candidate: Candidate) -> None:
    """Poll a started candidate.

    Raises:
        Unavailable: it ended, or was not ready in time.
    """
    deadline = time.monotonic() + START_PATIENCE_S
    while not is_ready(candidate.port):
        if candidate.process and candidate.process.poll() is not None:
            raise Unavailable(
                f"{candidate.name} ended with status {candidate.process.returncode}: {candidate.complaint()}"
            )
        if time.monotonic() > deadline:
            raise Unavailable(f"{candidate.name} not ready after {START_PATIENCE_S:.0f} s: {candidate.complaint()}")
        time.sleep(POLL_S)


def measure_idle(candidate: Candidate, figures: Figures) -> None:
    """Start once without a clock, which also writes the byte code, and weigh the process before its first request."""
    try:
        candidate.start()
        wait_until(is_listening, candidate)
        time.sleep(SETTLE_S)
        figures[PSS_START][candidate.name].append(memory_mb(candidate.pids(), "Pss"))
        wait_until(has_answered, candidate)
    finally:
        candidate.stop()


def measure_start(candidate: Candidate, figures: Figures) -> None:
    """Start with a clock, and weigh the process after its first request."""
    started = time.perf_counter()
    candidate.start()
    wait_until(has_answered, candidate)
    figures[START_MS][candidate.name].append((time.perf_counter() - started) * 1000)
    time.sleep(SETTLE_S)
    figures[PSS_ANSWER][candidate.name].append(memory_mb(candidate.pids(), "Pss"))
    figures[RSS_ANSWER][candidate.name].append(memory_mb(candidate.pids(), "Rss"))
    candidate.stop()


def measure_machines(directory: Path, rounds: int) -> Machines:
    """Run the section without sockets in a process of its own, which is gone before anything is weighed."""
    argv = [sys.executable, "-m", "benchmarks.machines", str(rounds)]
    with subprocess.Popen(
        argv, env=clean_environment(directory), cwd=HERE.parent, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=MACHINES_PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"machines: not done after {MACHINES_PATIENCE_S} s") from error
        finally:
            process.kill()
    if process.returncode:
        raise BenchError(f"machines: ended with status {process.returncode}")
    return msgspec.json.decode(said, type=Machines)


# --- Load -------------------------------------------------------------------------------------------------------------


class Bench:
    """One run: the mock upstream, the load generator, the candidates that came up, and what was measured so far."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.figures: Figures = defaultdict(lambda: defaultdict(list))
        self.candidates: list[Candidate] = []
        self.skipped: dict[str, str] = {}
        self.upstream_us: list[float] = []
        self.load_us: list[float] = []
        self._directory = directory
        self._stack = stack
        self._load: subprocess.Popen[bytes] | None = None
        self._upstream = self._helper("upstream", stdin=subprocess.DEVNULL)
        port, self.loop_name = self._line(self._upstream).split()
        self.upstream_port = int(port)

    def add(self, name: str) -> None:
        """Set a candidate up and weigh it once; one that does not come up is skipped, and the reason kept."""
        try:
            candidate = MAKERS[name](self._directory / name, self.upstream_port)
            self._stack.callback(candidate.stop)
            measure_idle(candidate, self.figures)
        except Unavailable as reason:
            self.skipped[name] = str(reason)
            return
        self.candidates.append(candidate)

    def measure_starts(self, rounds: int) -> None:
        for _ in range(rounds):
            for candidate in self.candidates:
                measure_start(candidate, self.figures)

    def start_all(self) -> None:
        """Bring everything up for the load; the generator only now, since it shares pages with Python candidates."""
        for candidate in self.candidates:
            candidate.start()
            wait_until(has_answered, candidate)
        self._load = self._helper("load", stdin=subprocess.PIPE)

    def run_round(self, measures: Iterable[Measure], number: int, scale: float, *, is_kept: bool = True) -> None:
        """Put every measure on every candidate once; who comes first changes from round to round."""
        turn = [None, *self.candidates]
        turn = turn[number % len(turn) :] + turn[: number % len(turn)]
        for measure in measures:
            samples = {
                each.name if each else DIRECT: self._run_cell(measure, each, scale)
                for each in turn
                if measure.is_for(each)
            }
            if is_kept:
                self._keep(measure, samples)

    def weigh_all(self) -> None:
        time.sleep(SETTLE_S)
        for candidate in self.candidates:
            self.figures[PSS_LOAD][candidate.name].append(memory_mb(candidate.pids(), "Pss"))

    def _keep(self, measure: Measure, samples: dict[str, Sample]) -> None:
        direct = samples.get(DIRECT)
        if direct and measure.name == "whole-1":
            self.upstream_us.append(direct.upstream_cpu_us / direct.requests)
            self.load_us.append(direct.load_cpu_us / direct.requests)
        for row in ROWS:
            for name, sample in samples.items():
                if row.measure == measure.name and (name != DIRECT or row.has_direct):
                    base = row.value(direct) if direct and row.is_added else 0.0
                    self.figures[row.label][name].append(row.value(sample) - base)

    def _run_cell(self, measure: Measure, candidate: Candidate | None, scale: float) -> Sample:
        """Put one load on one candidate, or straight on the upstream.

        Raises:
            BenchError: a wrong answer; nothing measured beside it can be trusted.
        """
        is_converting = candidate is not None and candidate.name in (AIPROXYD, CACHED)
        ask = measure.ask if is_converting or measure.plain is None else measure.plain
        job = {
            "port": candidate.port if candidate else self.upstream_port,
            "method": ask.method,
            "path": ask.path,
            "body": ask.body,
            # Whoever answers, the words are the upstream's.
            "proofs": [ask.proof] if ask.proof else [ask.api.proof, (measure.plain or measure.ask).api.model],
            "ending": ask.api.ending,
            "key": KEY,
            "connections": measure.connections,
            "seconds": measure.seconds * scale,
            "warm_s": measure.warm_s,
            "events": measure.events,
            "stagger_s": measure.stagger_s,
            "pids": candidate.pids() if candidate else [],
            "upstream_pid": self._upstream.pid,
        }
        result = self._ask_load(msgspec.json.encode(job) + b"\n")
        if "error" in result:
            said = f"; its last words: {candidate.complaint()}" if candidate else ""
            raise BenchError(f"{candidate.name if candidate else DIRECT}, {measure.name}: {result['error']}{said}")
        return msgspec.convert(result, Sample)

    def _ask_load(self, job: bytes) -> dict[str, object]:
        if not self._load or not self._load.stdin:
            raise BenchError("the load generator does not run")
        self._load.stdin.write(job)
        self._load.stdin.flush()
        return msgspec.json.decode(self._line(self._load), type=dict[str, object])

    def _helper(self, name: str, *, stdin: int) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", f"benchmarks.{name}"]
        process = spawn(argv, self._directory, stdin=stdin, stdout=subprocess.PIPE, stderr=None)
        self._stack.callback(end, process)
        return process

    def _line(self, process: subprocess.Popen[bytes]) -> str:
        line = process.stdout.readline() if process.stdout else b""
        if not line:
            raise BenchError(f"{process.args!r} ended")
        return line.decode()


# --- Report -----------------------------------------------------------------------------------------------------------


def cell(row: Mapping[str, list[float]], name: str) -> str:
    """Median, multiple of nginx's, and half the range between the rounds in per cent of the median."""
    values = row.get(name)
    if not values:
        return "-"
    median = statistics.median(values)
    text = f"{median:,.0f}" if abs(median) >= 100 else f"{median:.1f}"
    if row.get(NGINX):
        text += f" ({median / statistics.median(row['nginx']):.2f})"
    return f"{text} ±{(max(values) - min(values)) / 2 / abs(median) * 100:.0f}%" if len(values) > 1 else text


def table(figures: Figures, names: Sequence[str], labels: Iterable[str]) -> list[str]:
    rows = [["", *names]]
    rows += [[label, *(cell(figures[label], name) for name in names)] for label in labels if figures.get(label)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names) + 1)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def judge(target: Target, figures: Figures) -> str:
    """Say met, missed or not measured."""
    row = figures.get(target.row, {})
    if not row.get(target.candidate) or (target.is_ratio and not row.get(NGINX)):
        return "not measured"
    value = statistics.median(row[target.candidate])
    if target.less:
        value -= statistics.median(figures[target.less][target.candidate])
    if target.is_ratio:
        value /= statistics.median(row[NGINX])
    return f"{'met' if value <= target.most else 'missed'} ({value:.1f})"


def machine(bench: Bench | None) -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in ("aiohttp", "msgspec")}
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "load average": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **versions,
        **({"mock and load run on": bench.loop_name} if bench else {}),
    }


def print_report(bench: Bench | None, made: Machines | None, rounds: int) -> None:
    if made:
        print_machines(made)
    if bench:
        print_load(bench, rounds)
    print("machine: " + ", ".join(f"{name} {value}" for name, value in machine(bench).items()))
    print("targets:")
    for text, verdict in verdicts(bench, made).items():
        print(f"  {text}: {verdict}")


def print_machines(made: Machines) -> None:
    columns = list(next(iter(made.figures.values())))
    print("\n".join(table(made.figures, columns, made.figures)))
    print("\nconversion alone, caller to upstream: CPU of one thread, median of the rounds, ± half their range\n")


def print_load(bench: Bench, rounds: int) -> None:
    names = [DIRECT, *(candidate.name for candidate in bench.candidates)]
    print("\n".join(table(bench.figures, names, LABELS)))
    print(f"\nmedian of {rounds} rounds, (multiple of nginx), ± half the range between rounds")
    print("CPU: user and system of the candidate's processes; everything shares the cores named below")
    print("A to B: aiproxyd converts for callers of A; the others pass on the same answer of B")
    if bench.upstream_us:
        upstream, load = statistics.median(bench.upstream_us), statistics.median(bench.load_us)
        print(f"harness, direct, 1 connection: mock {upstream:.0f} us, load {load:.0f} us of CPU per request")
    for reason in bench.skipped.values():
        print(f"skipped: {reason}")


def verdicts(bench: Bench | None, made: Machines | None) -> dict[str, str]:
    load = {target.text: judge(target, bench.figures) for target in TARGETS} if bench else {}
    return load | (made.targets if made else {})


def write_json(path: Path, bench: Bench | None, made: Machines | None, rounds: int) -> None:
    raw = {
        "machine": machine(bench),
        "rounds": rounds,
        "targets": verdicts(bench, made),
        "machines": made.figures if made else {},
    }
    if bench:
        raw |= {
            "skipped": bench.skipped,
            "figures": bench.figures,
            "mock_cpu_us": bench.upstream_us,
            "load_cpu_us": bench.load_us,
        }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(raw)) + b"\n")


# --- Command line -----------------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    names = [MACHINES, *MAKERS, *(measure.name for measure in MEASURES)]
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure what aiproxyd costs, beside others.")
    parser.add_argument("--quick", action="store_true", help="two short rounds: a look, not a measurement")
    parser.add_argument("--rounds", type=int, metavar="N", help="default 5, with --quick 2")
    parser.add_argument(
        "--only", action="append", default=[], choices=names, metavar="NAME", help=f"repeatable: {', '.join(names)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers")
    arguments = parser.parse_args()
    arguments.rounds = max(1, arguments.rounds or (2 if arguments.quick else 5))
    return arguments


def chosen(names: Iterable[str], only: list[str]) -> list[str]:
    """Keep the names that were asked for, or all where none of these was."""
    everything = list(names)
    return [name for name in everything if name in only] or everything


def choose_measures(only: list[str], *, is_quick: bool) -> list[Measure]:
    named = [measure for measure in MEASURES if measure.name in only]
    return named or [measure for measure in MEASURES if not (is_quick and measure.is_extra)]


def measure_load(bench: Bench, arguments: argparse.Namespace) -> None:
    for name in chosen(MAKERS, arguments.only):
        bench.add(name)
    bench.measure_starts(arguments.rounds)
    bench.start_all()
    measures = choose_measures(arguments.only, is_quick=arguments.quick)
    scale = 0.4 if arguments.quick else 1.0
    bench.run_round(measures, 0, WARM_SCALE, is_kept=False)
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        bench.run_round(measures, number, scale)
    bench.weigh_all()


def leave(number: int, _frame: object) -> None:
    """End the run on a signal, by way of every cleanup; a second signal must not cut that short."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> None:
    arguments = parse_arguments()
    only = set(arguments.only)
    for number in SIGNALS:
        signal.signal(number, leave)
    try:
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiproxyd-bench-")))
            made, bench = None, None
            if not only or MACHINES in only:
                made = measure_machines(directory, MACHINES_QUICK_ROUNDS if arguments.quick else MACHINES_ROUNDS)
            if only != {MACHINES}:
                bench = Bench(directory, stack)
                measure_load(bench, arguments)
            print_report(bench, made, arguments.rounds)
            if arguments.json:
                write_json(arguments.json, bench, made, arguments.rounds)
    except (BenchError, Unavailable) as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
