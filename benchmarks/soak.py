"""Load one aiproxyd with everything at once for some minutes, and tell whether it stays as it was.

Two processes beside this one: the scripted upstream (`soak_upstream`) and the daemon (`soak_subject`), configured as an
operator would; all on loopback. This one plays the callers, and looks into the daemon every few seconds.
"""

import argparse
import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.soak_callers import FOR_BOB, KEYS, MAX_BODY_BYTES, RATE_PER_S, Load
from benchmarks.soak_judging import (
    MAX_GROWTH,
    MAX_GROWTH_QUICK,
    WARM_UP,
    Sample,
    find_trend,
    judge_gauges,
    judge_growth,
    judge_log,
    judge_outcomes,
    judge_rest,
    judge_swell,
)

DEFAULT_MINUTES: Final = 10.0
SAMPLE_S: Final = 5.0
SHORT_SAMPLE_S: Final = 1.0
"""The same for runs of less than `DEFAULT_MINUTES`/2."""
ROWS: Final = 20
"""Of the table, about."""
REST_S: Final = 3.0
"""How long the daemon rests before it is looked at; what takes longer is waited for up to `MAX_REST_S`."""
MAX_REST_S: Final = 20.0
"""Idle connections to upstreams without TLS are kept for 4 s, and closed when the pool next looks."""
START_PATIENCE_S: Final = 20.0
LOOK_PATIENCE_S: Final = 10.0
STOP_PATIENCE_S: Final = 15.0
IDLE_TIMEOUT_S: Final = 2.0
PAUSE_S: Final = 4.0
"""How long a silent upstream is silent."""
CACHE_BYTES: Final = 4 * 1024 * 1024
"""So little that what is new pushes out what is old."""

CONFIG: Final = """
[aiproxyd]
port = 0
connect-timeout = 2
first-event-timeout = 3
idle-timeout = {idle_s}
request-timeout = 20
retries = 1
max-retry-wait = 1
max-cooldown = 1
affinity-ttl = 30
cache-ttl = 20
cache-max-bytes = {cache_bytes}
max-body-bytes = {max_body_bytes}
shutdown-timeout = 5
metrics-access = open

[upstream chat]
provider = openai
api = chat
base-url = {url}/v1
api-key = soak-chat-1, soak-chat-2
models = m
max-concurrency = 12
max-queue = 20
queue-timeout = 2

[upstream responses]
provider = openai
api = responses
base-url = {url}/v1
api-key = soak-responses-1, soak-responses-2
models = m

[upstream anthropic]
provider = anthropic
base-url = {url}
api-key = soak-anthropic-1, soak-anthropic-2
models = m

[upstream gemini]
provider = gemini
base-url = {url}
api-key = soak-gemini-1, soak-gemini-2
models = m

[upstream down]
provider = openai
base-url = http://127.0.0.1:{closed_port}/v1
api-key = soak-down-1, soak-down-2
models = m
probe-interval = 1

[model m-chat]
targets = chat/m, anthropic/m
[model m-responses]
targets = responses/m, gemini/m
[model m-anthropic]
targets = anthropic/m, chat/m
[model m-gemini]
targets = gemini/m, responses/m
[model m-down]
targets = down/m, chat/m, anthropic/m
[model m-weighted]
targets = chat/m, responses/m, anthropic/m, gemini/m
strategy = weighted
weights = 4, 3, 2, 1
[model m-shared]
targets = gemini/m, anthropic/m, chat/m
strategy = least-latency
cache-scope = shared

[key alice]
secret = sha256:{alice}
[key bob]
secret = sha256:{bob}
models = {for_bob}
"""


class SoakError(Exception):
    """The soak itself cannot go on."""


class Row(msgspec.Struct):
    """A sample, and what was done since the one before."""

    sample: Sample
    requests_per_s: float
    outcomes: Mapping[str, int]


class Report(msgspec.Struct):
    """All that was measured and judged."""

    seconds: float
    seed: int
    rows: list[Row]
    before: Sample
    warm: Sample
    """At rest after the warm-up."""
    after: Sample
    rest_s: float
    """How long it took after the load until nothing more was left."""
    requests: int
    outcomes: Mapping[str, int]
    others: Mapping[str, int]
    played: Mapping[str, int]
    """What the upstream did."""
    problems: list[str]
    wrong: list[str]


class Subject:
    """The daemon; one for the run."""

    def __init__(self, directory: Path, upstream_port: int) -> None:
        """Start it; the closed port stays reserved."""
        self._reserved = socket.socket()
        self._reserved.bind(("127.0.0.1", 0))  # and nobody listens
        config = directory / "config.ini"
        config.write_text(
            CONFIG.format(
                url=f"http://127.0.0.1:{upstream_port}",
                closed_port=self._reserved.getsockname()[1],
                idle_s=IDLE_TIMEOUT_S,
                cache_bytes=CACHE_BYTES,
                max_body_bytes=MAX_BODY_BYTES,
                for_bob=FOR_BOB,
                **{name: hashlib.sha256(key.encode()).hexdigest() for name, key in KEYS.items()},
            )
        )
        self._socket = directory / "soak.sock"
        self._log = directory / "log"
        argv = [sys.executable, "-m", "benchmarks.soak_subject", str(self._socket)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*argv, "--config", str(config)],
                env=_clean_environment(directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.port = 0

    async def wait(self) -> None:
        """Wait until it can be looked into."""
        deadline = time.monotonic() + START_PATIENCE_S
        while not self._socket.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SoakError("the daemon does not start:\n" + self._log.read_text(errors="replace")[-2000:])
            await asyncio.sleep(0.1)
        self.port = (await self._ask("sample"))["port"]

    async def look(self, at_s: float, *, has_objects: bool = False) -> Sample:
        """Return what it is like."""
        told = await self._ask("objects" if has_objects else "sample")
        # Asking takes two of them: one that listens, one that is asked on.
        told["fds"]["unix socket"] -= 2
        return msgspec.convert(told | {"at_s": at_s}, Sample)

    async def _ask(self, wish: str) -> dict[str, Any]:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
            try:
                writer.write(f"{wish}\n".encode())
                line = await asyncio.wait_for(reader.readline(), LOOK_PATIENCE_S)
            finally:
                writer.close()
            return msgspec.json.decode(line, type=dict[str, Any])
        except (OSError, TimeoutError, msgspec.DecodeError) as exc:
            last = "\n".join(self.read_log()[-20:])
            raise SoakError(f"the daemon has ended, or hangs: {exc!r}\n{last}") from exc

    def stop(self) -> list[str]:
        """Stop it with SIGTERM, and return what is wrong with how it ends."""
        problems = []
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_PATIENCE_S)
            problems += [f"exit status {status} at SIGTERM"] if status else []
        except subprocess.TimeoutExpired:
            problems.append(f"still there {STOP_PATIENCE_S:g} s after SIGTERM")
            self.process.kill()
            self.process.wait()
        left = _session_of(self.process.pid)
        problems += [f"processes left behind: {left}"] if left else []
        self._reserved.close()
        return problems

    def read_log(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()


def _clean_environment(home: Path) -> dict[str, str]:
    """Return an environment without keys, addresses and proxies of whoever runs this."""
    kept = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"HOME": str(home), "NO_PROXY": "*"}


def _session_of(leader: int) -> list[int]:
    """Return the processes of the session that *leader* has begun."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == leader:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


async def _get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        # The upstream does not close by itself.
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        return (await reader.readexactly(length)).decode()
    finally:
        writer.close()


class Soak:
    """One run."""

    def __init__(self, subject: Subject, load: Load, duration_s: float, max_growth: float) -> None:
        self._subject = subject
        self._load = load
        self._duration_s = duration_s
        self._max_growth = max_growth
        self._interval_s = SAMPLE_S if duration_s >= DEFAULT_MINUTES * 60 / 2 else SHORT_SAMPLE_S
        self._rows: list[Row] = []

    async def run(self, seed: int, upstream_port: int) -> Report:
        """Load, look, let rest, judge; the daemon is not stopped."""
        subject, load = self._subject, self._load
        before = await subject.look(0.0, has_objects=True)
        print(HEAD)
        warm_up_s = self._duration_s * WARM_UP
        await self._load_for(0.0, warm_up_s)
        warm, _ = await self._rest(before, warm_up_s)
        await self._load_for(warm_up_s, self._duration_s)
        after, rest_s = await self._rest(before, self._duration_s)
        problems = judge_growth(warm, after, self._max_growth)
        problems += judge_swell([row.sample for row in self._rows], warm_up_s)
        problems += judge_rest(before, after)
        problems += judge_gauges(await _get(subject.port, "/metrics"))
        problems += judge_outcomes(load.outcomes)
        if load.wrong_count:
            problems.append(f"{load.wrong_count} wrong answers")
        state = msgspec.json.decode(await _get(upstream_port, "/state"))
        for what in ("connections", "exchanges"):
            problems += [f"the upstream still has {state[what]} {what}"] if state[what] else []
        return Report(
            seconds=self._duration_s,
            seed=seed,
            rows=self._rows,
            before=before,
            warm=warm,
            after=after,
            rest_s=rest_s,
            requests=load.requests,
            outcomes=load.outcomes,
            others=load.others,
            played=state["played"],
            problems=problems,
            wrong=load.wrong,
        )

    async def _load_for(self, begin_s: float, end_s: float) -> None:
        """Load, and look meanwhile; the times are of the load, without the rests."""
        await asyncio.gather(self._watch(begin_s, end_s), self._load.run(end_s - begin_s))

    async def _watch(self, begin_s: float, end_s: float) -> None:
        started_s, requests, outcomes = time.monotonic() - begin_s, self._load.requests, Counter(self._load.outcomes)
        every = max(int(self._duration_s / self._interval_s) // ROWS, 1)
        for number in range(int(begin_s / self._interval_s) + 1, int(end_s / self._interval_s) + 1):
            await asyncio.sleep(started_s + number * self._interval_s - time.monotonic())
            sample = await self._subject.look(time.monotonic() - started_s)
            new = Counter(self._load.outcomes) - outcomes
            rate = (self._load.requests - requests) / self._interval_s
            requests, outcomes = self._load.requests, Counter(self._load.outcomes)
            self._rows.append(Row(sample, rate, new))
            if number % every == 0:
                print(write_row(self._rows[-every:]), flush=True)

    async def _rest(self, before: Sample, at_s: float) -> tuple[Sample, float]:
        """Return what the daemon is like when it has rested, and how long that took."""
        rested_s = time.monotonic()
        await asyncio.sleep(REST_S)
        while True:
            spent_s = time.monotonic() - rested_s
            after = await self._subject.look(at_s + spent_s, has_objects=True)
            if not judge_rest(before, after) or spent_s > MAX_REST_S:
                return after, spent_s
            await asyncio.sleep(0.5)


# --- What is told -----------------------------------------------------------------------------------------------------

HEAD: Final = "    time  PSS MB  own MB  tasks  files  requests/s  outcomes of questions"


def write_row(rows: Sequence[Row]) -> str:
    """Return a line of the table: the last of *rows*, and the outcomes of all of them."""
    sample = rows[-1].sample
    outcomes: Counter[str] = Counter()
    for row in rows:
        outcomes.update(row.outcomes)
    rate = sum(row.requests_per_s for row in rows) / len(rows)
    told = ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
    return (
        f"{sample.at_s:7.0f}s {sample.pss_kib / 1024:7.1f} {sample.private_kib / 1024:7.1f} {sample.task_count:6} "
        f"{sample.fd_count:6} {rate:11.1f}  {told}"
    )


def print_report(report: Report) -> None:
    """Print what follows the table."""
    print(f"\n{report.requests} requests in {report.seconds:g} s, seed {report.seed}")
    for what, counts in (("questions", report.outcomes), ("others", report.others), ("upstream", report.played)):
        print(f"{what}: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    warm_up_s = report.seconds * WARM_UP
    for name in ("private_kib", "pss_kib", "rss_kib", "heap_kib"):
        trend = find_trend([(row.sample.at_s, getattr(row.sample, name)) for row in report.rows], warm_up_s)
        if trend:
            sizes = f"{trend.first / 1024:.1f} -> {trend.last / 1024:.1f} MB"
            print(f"{name.removesuffix('_kib')}: {sizes} ({trend.growth:+.1%}), medians of the first and last fifth")
    looks = (("before", report.before), ("warm", report.warm), (f"{report.rest_s:.0f} s after", report.after))
    for name, sample in looks:
        tasks = ", ".join(f"{count} {kind}" for kind, count in sorted(sample.tasks.items()))
        files = ", ".join(f"{count} {Path(kind).name}" for kind, count in sorted(sample.fds.items()) if count)
        print(f"{name}: tasks: {tasks}; files: {files}; {sample.objects} objects, {sample.blocks} blocks")
        print(
            f"    {sample.private_kib / 1024:.1f} MB, {sample.trimmed_kib / 1024:.1f} MB trimmed, "
            f"{sample.heap_kib / 1024:.1f} MB given out by the C library"
        )
    grown = Counter(report.after.types)
    grown.subtract(report.warm.types)
    told = ", ".join(f"{count:+} {name.removeprefix('builtins.')}" for name, count in grown.most_common(6) if count > 0)
    print(f"objects since it was warm: {told}")
    for wrong in report.wrong:
        print(f"WRONG {wrong}")
    for problem in report.problems:
        print(f"PROBLEM {problem}")
    print("soak: " + ("NOT flat" if report.problems else "flat"))


# --- The run ----------------------------------------------------------------------------------------------------------


async def soak(arguments: argparse.Namespace, directory: Path) -> Report:
    """Start everything, load it, and stop it again."""
    argv = [sys.executable, "-m", "benchmarks.soak_upstream", str(arguments.seed), str(PAUSE_S)]
    upstream = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
    subject = None
    try:
        assert upstream.stdout is not None
        line = upstream.stdout.readline()
        if not line:
            raise SoakError("the upstream does not start")
        upstream_port = int(line)
        subject = Subject(directory, upstream_port)
        await subject.wait()
        load = Load(subject.port, arguments.seed, arguments.rate)
        duration_s = 60.0 if arguments.quick else arguments.minutes * 60
        max_growth = MAX_GROWTH_QUICK if duration_s < DEFAULT_MINUTES * 60 / 2 else MAX_GROWTH
        report = await Soak(subject, load, duration_s, max_growth).run(arguments.seed, upstream_port)
        report.problems += subject.stop()
        report.problems += judge_log(subject.read_log())
        return report
    finally:
        for process in (upstream, *([subject.process] if subject is not None else [])):
            if process.poll() is None:
                process.kill()
                process.wait()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="how long to load (default 10)")
    parser.add_argument("--quick", action="store_true", help="one minute: coarse leaks and wrong answers only")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn from it: questions, faults, patience")
    parser.add_argument("--rate", type=float, default=RATE_PER_S, help="requests a second, at most (default 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the daemon's log there")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="aiproxyd-soak-") as name:
        directory = Path(name)
        try:
            report = asyncio.run(soak(arguments, directory))
        except SoakError as exc:
            print(f"soak: {exc}", file=sys.stderr)
            return 2
        finally:
            if arguments.log and (directory / "log").exists():
                arguments.log.write_bytes((directory / "log").read_bytes())
    print_report(report)
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
