"""One run: the mock upstream, the load generator and the candidates on loopback, measured in rounds."""

import contextlib
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import msgspec

from benchmarks import load
from benchmarks.candidates import KEY, MAKERS, Candidate, Site, has_answered, is_listening
from benchmarks.measures import (
    AIPROXYD,
    CACHED,
    DIRECT,
    IMPORT_MS,
    PEERS,
    PSS_ANSWER,
    PSS_LOAD,
    PSS_START,
    RSS_ANSWER,
    START_MS,
    Crowd,
    Measure,
    Sample,
)
from benchmarks.processes import HERE, BenchError, Unavailable, clean_environment, end, memory_mb, spawn
from benchmarks.targets import Figures, Verdict

SETTLE_S = 0.3
MACHINES_PATIENCE_S = 120
CROWD_PATIENCE_S = 10.0
OWN_FILES = 100
"""Open files that a process has beside two for each stream."""
IMPORT = "import time; began = time.perf_counter(); import aiproxyd.app; print(time.perf_counter() - began)"

Samples = dict[str, dict[str, Sample]]
"""Measure → candidate → what was seen in one round."""


class Machines(msgspec.Struct):
    """What the section without sockets has measured."""

    figures: Figures
    """Pair of formats → column → one value per round."""
    verdicts: list[Verdict]


class Run:
    """Keeps the processes, and what was measured so far."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, open_files: int, litellm: Path | None) -> None:
        self.figures: Figures = defaultdict(lambda: defaultdict(list))
        self.candidates: list[Candidate] = []
        self.notes: list[str] = []
        """What is not in the table, or not as its label says, and why."""
        self.upstream_us: list[float] = []
        self.load_us: list[float] = []
        self._directory = directory
        self._stack = stack
        self._open_files = open_files
        self._litellm = litellm
        self._load: subprocess.Popen[bytes] | None = None
        self._upstream = self._helper("upstream", stdin=subprocess.DEVNULL)
        port, self.loop_name = self._line(self._upstream).split()
        self.upstream_port = int(port)

    def add(self, name: str) -> None:
        """Set a candidate up and weigh it once; one that does not come up is skipped, and the reason kept.

        Raises:
            Unavailable: it is aiproxyd, without which there is nothing to measure.
        """
        try:
            candidate = self._make(name, name)
            self._weigh_fresh(candidate)
        except Unavailable as reason:
            if name == AIPROXYD:
                raise
            self.notes.append(f"skipped: {reason}")
            return
        self.candidates.append(candidate)

    def measure_starts(self, rounds: int) -> None:
        for _ in range(rounds):
            self.figures[IMPORT_MS.key][AIPROXYD].append(measure_import_ms(self._directory))
            for candidate in self.candidates:
                self._measure_start(candidate)

    def start_load(self) -> None:
        """Start the generator, only now, since it shares pages with Python candidates."""
        self._load = self._helper("load", stdin=subprocess.PIPE)

    def hold(self, crowd: Crowd) -> None:
        """Weigh a crowd of open streams in a process of each candidate that has done nothing else."""
        fitting = min(crowd.streams, (self._open_files - OWN_FILES) // 2)
        if fitting < crowd.streams:
            self.notes.append(f"{crowd.row.label}: {fitting:,}, since {self._open_files:,} files may be open at once")
        for name in [candidate.name for candidate in self.candidates if crowd.is_for(candidate.name)]:
            # nginx closes connections that are still to be asked something where less than a sixteenth is free.
            candidate = self._make(name, f"{name}-{crowd.name}", connections=2 * fitting * 9 // 8 + OWN_FILES)
            candidate.start()
            try:
                candidate.wait_until(has_answered)
                self.figures[crowd.row.key][name].append(self._hold(crowd, candidate, fitting))
            except (BenchError, Unavailable) as reason:
                self.notes.append(f"{crowd.row.label}: {reason}")
            finally:
                candidate.stop()

    def start_all(self) -> None:
        """Bring all candidates up for the load."""
        for candidate in self.candidates:
            candidate.start()
            candidate.wait_until(has_answered)

    def warm_up(self, measures: Iterable[Measure], seconds: float) -> None:
        for measure in measures:
            for each in self._turn(measure, 0):
                self._run_cell(measure, each, seconds)

    def run_round(self, measures: Iterable[Measure], number: int, scale: float) -> None:
        """Put every measure on every candidate once; who comes first changes from round to round."""
        samples: Samples = {}
        for measure in measures:
            samples[measure.name] = {
                each.name if each else DIRECT: self._run_cell(measure, each, measure.seconds * scale)
                for each in self._turn(measure, number)
            }
            self._keep(measure, samples)

    def weigh_all(self) -> None:
        time.sleep(SETTLE_S)
        for candidate in self.candidates:
            self.figures[PSS_LOAD.key][candidate.name].append(memory_mb(candidate.pids(), "Pss"))

    def _make(self, name: str, place: str, connections: int = 1024) -> Candidate:
        site = Site(self._directory / place, self.upstream_port, connections, self._litellm)
        candidate = MAKERS[name](site)
        self._stack.callback(candidate.stop)
        return candidate

    def _weigh_fresh(self, candidate: Candidate) -> None:
        """Start once without a clock, which also writes the byte code, and weigh before the first request."""
        try:
            candidate.start()
            candidate.wait_until(is_listening)
            time.sleep(SETTLE_S)
            self.figures[PSS_START.key][candidate.name].append(memory_mb(candidate.pids(), "Pss"))
            candidate.wait_until(has_answered)
        finally:
            candidate.stop()

    def _measure_start(self, candidate: Candidate) -> None:
        """Start with a clock, and weigh the process after its first request."""
        started = time.perf_counter()
        candidate.start()
        candidate.wait_until(has_answered)
        self.figures[START_MS.key][candidate.name].append((time.perf_counter() - started) * 1000)
        time.sleep(SETTLE_S)
        self.figures[PSS_ANSWER.key][candidate.name].append(memory_mb(candidate.pids(), "Pss"))
        self.figures[RSS_ANSWER.key][candidate.name].append(memory_mb(candidate.pids(), "Rss"))
        candidate.stop()

    def _turn(self, measure: Measure, number: int) -> list[Candidate | None]:
        """Give those that a measure is for, None for no proxy, in a round's order."""
        turn: list[Candidate | None] = [None, *self.candidates]
        turn = turn[number % len(turn) :] + turn[: number % len(turn)]
        return [each for each in turn if measure.is_for(each.name if each else DIRECT)]

    def _keep(self, measure: Measure, samples: Samples) -> None:
        """Turn one measure's samples into figures; where aiproxyd converts, the others' stand beside it."""
        seen = samples.get(measure.beside, {}) | samples[measure.name]
        direct = seen.get(DIRECT)
        if direct and measure.name == "whole-1":
            self.upstream_us.append(direct.upstream_cpu_us / direct.requests)
            self.load_us.append(direct.load_cpu_us / direct.requests)
        for row in measure.rows:
            for name, sample in seen.items():
                if row.value and (name != DIRECT or row.has_direct):
                    base = row.value(direct) if direct and row.is_added else 0.0
                    self.figures[row.key][name].append(row.value(sample) - base)

    def _run_cell(self, measure: Measure, candidate: Candidate | None, seconds: float) -> Sample:
        """Put one load on one candidate, or straight on the upstream.

        Raises:
            BenchError: a wrong answer; nothing measured beside it can be trusted.
        """
        ask = measure.ask
        # Whoever answers, the words are the upstream's; peers put the name that was asked for in the place of its own.
        is_peer = candidate is not None and candidate.name in PEERS
        origin = load.FIRST_WORD if is_peer else (measure.answer or ask.api).model
        job = load.Job(
            port=candidate.port if candidate else self.upstream_port,
            method=ask.method,
            path=ask.path,
            body=ask.body,
            proofs=[ask.proof] if ask.proof else [ask.api.proof, origin],
            ending=ask.api.ending,
            key=KEY,
            connections=measure.connections,
            seconds=seconds,
            warm_s=measure.warm_s,
            events=measure.events,
            stagger_s=measure.stagger_s,
            pids=candidate.pids() if candidate else [],
            upstream_pid=self._upstream.pid,
        )
        return msgspec.convert(self._ask_load(job, measure.name, candidate), Sample)

    def _hold(self, crowd: Crowd, candidate: Candidate, streams: int) -> float:
        ask = crowd.ask if candidate.name in (AIPROXYD, CACHED) else crowd.plain
        job = load.Crowd(
            port=candidate.port,
            path=ask.path,
            body=ask.body,
            proof=load.FIRST_WORD,
            key=KEY,
            streams=streams,
            patience_s=CROWD_PATIENCE_S,
            pids=candidate.pids(),
        )
        return msgspec.convert(self._ask_load(job, crowd.name, candidate)["each_kb"], float)

    def _ask_load(self, job: load.Job | load.Crowd, what: str, candidate: Candidate | None) -> dict[str, object]:
        if not self._load or not self._load.stdin:
            raise BenchError("the load generator does not run")
        self._load.stdin.write(msgspec.json.encode(job) + b"\n")
        self._load.stdin.flush()
        result = msgspec.json.decode(self._line(self._load), type=dict[str, object])
        if "error" in result:
            # A crowd that does not come together is told in the report; what spoils the run is told once, in full.
            is_load = isinstance(job, load.Job)
            said = f"; its last words: {candidate.complaint()}" if candidate and is_load else ""
            raise BenchError(f"{candidate.name if candidate else DIRECT}, {what}: {result['error']}{said}")
        return result

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


def measure_import_ms(directory: Path) -> float:
    """Import what the daemon is made of in an interpreter that has nothing else."""
    environment = clean_environment(directory)
    argv = [sys.executable, "-c", IMPORT]
    said = subprocess.run(argv, env=environment, cwd=HERE.parent, capture_output=True, check=True, timeout=30).stdout
    return float(said) * 1000


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
