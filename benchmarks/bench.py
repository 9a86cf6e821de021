"""What aiproxyd costs, beside nginx as a plain reverse proxy, a bare aiohttp relay, and no proxy at all.

Starts a mock upstream, a load generator and every candidate on loopback, then measures in rounds: each candidate in
turn, again and again, so that whatever else the machine does meets all of them. Figures are medians over the rounds.
Where aiproxyd converts, the others pass on the same upstream answer, and are asked for it in the upstream's own format.
Before all that, what conversion costs without a socket is measured for each pair of formats.
"""

import argparse
import contextlib
import fnmatch
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks import page, plot
from benchmarks.candidates import MAKERS
from benchmarks.measures import CROWDS, LOADS, MEASURES, PEERS, RELAY, Crowd, Measure
from benchmarks.processes import BenchError, Unavailable, raise_open_files
from benchmarks.report import Record, describe_machine, keep, print_record, read
from benchmarks.run import Machines, Run, measure_machines

MACHINES = "machines"
"""The section without sockets, as --only names it."""
MACHINES_QUICK_ROUNDS = 2
MACHINES_ROUNDS = 7
ROUNDS = 5
QUICK_ROUNDS = 2
QUICK_SCALE = 0.35
WARM_S = 0.05
"""Length of each central load before the first round; it brings up code and connections."""

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@dataclass(frozen=True)
class Plan:
    """What of it all is to be measured."""

    candidates: Sequence[str]
    measures: Sequence[Measure]
    crowds: Sequence[Crowd]
    has_machines: bool
    rounds: int
    is_quick: bool

    @property
    def has_load(self) -> bool:
        return bool(self.measures or self.crowds)


def parse_arguments() -> argparse.Namespace:
    names = [MACHINES, *MAKERS, *(each.name for each in LOADS)]
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure what aiproxyd costs, beside others.",
        epilog=f"Names for --only, which may be patterns such as 'chat-*': {', '.join(names)}",
    )
    parser.add_argument("--quick", action="store_true", help="two short rounds of the central rows: a look")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default {ROUNDS}, with --quick {QUICK_ROUNDS}")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="repeatable; names stand below")
    parser.add_argument("--peer", action="append", default=[], choices=PEERS, help="measure this one too; repeatable")
    parser.add_argument("--litellm", type=Path, metavar="PATH", help="virtual environment with litellm[proxy]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the run down")
    parser.add_argument("--from", dest="record", type=Path, metavar="FILE", help="measure nothing, read that run")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page, and its pictures beside it")
    arguments = parser.parse_args()
    arguments.rounds = max(1, arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS))
    for pattern in arguments.only:
        if not fnmatch.filter(names, pattern):
            parser.error(f"--only {pattern}: no such name; --help lists them")
    return arguments


def describe_command(arguments: argparse.Namespace) -> str:
    """Give the command line without what is this machine's alone."""
    words = ["scripts/bench", *(["--quick"] if arguments.quick else []), f"--rounds {arguments.rounds}"]
    words += [f"--only {pattern}" for pattern in arguments.only]
    words += [f"--peer {peer}" for peer in arguments.peer]
    return " ".join(words)


def choose(arguments: argparse.Namespace) -> Plan:
    """Choose by --only; candidates alone leave all loads, loads alone leave all candidates."""
    only, is_quick = arguments.only, arguments.quick
    named = [name for name in MAKERS if _is_named(name, only)]
    candidates = named or [name for name in MAKERS if name not in PEERS and not (is_quick and name == RELAY)]
    candidates += [peer for peer in arguments.peer if peer not in candidates]
    has_machines = _is_named(MACHINES, only)
    loads = [each.name for each in LOADS if _is_named(each.name, only)]
    if not loads and (named or not has_machines):
        loads = [each.name for each in LOADS if each.is_central or not is_quick]
    measures = [each for each in MEASURES if each.name in loads]
    beside = {measure.beside for measure in measures}
    return Plan(
        candidates,
        [each for each in MEASURES if each in measures or each.name in beside],
        [each for each in CROWDS if each.name in loads],
        has_machines or not only,
        arguments.rounds,
        is_quick,
    )


def _is_named(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def measure_load(run: Run, plan: Plan) -> None:
    for name in plan.candidates:
        run.add(name)
    run.measure_starts(plan.rounds)
    run.start_load()
    for crowd in plan.crowds:
        say(f"{crowd.row.label} streams")
        run.hold(crowd)
    run.start_all()
    run.warm_up([each for each in plan.measures if each.is_central], WARM_S)
    for number in range(plan.rounds):
        say(f"round {number + 1} of {plan.rounds}")
        run.run_round(plan.measures, number, QUICK_SCALE if plan.is_quick else 1.0)
    run.weigh_all()


def measure(arguments: argparse.Namespace) -> Record:
    plan = choose(arguments)
    machine = describe_machine({})
    open_files = raise_open_files()
    machines: Machines | None = None
    run: Run | None = None
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiproxyd-bench-")))
        if plan.has_machines:
            machines = measure_machines(directory, MACHINES_QUICK_ROUNDS if plan.is_quick else MACHINES_ROUNDS)
        if plan.has_load:
            run = Run(directory, stack, open_files, arguments.litellm)
            measure_load(run, plan)
            machine |= {candidate.name: candidate.version for candidate in run.candidates if candidate.version}
            machine["mock and load run on"] = run.loop_name
    return keep(describe_command(arguments), machine, plan.rounds, run, machines)


def say(text: str) -> None:
    print(text, file=sys.stderr)


def leave(number: int, _frame: object) -> None:
    """End the run on a signal, by way of every cleanup; a second signal must not cut that short."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> None:
    arguments = parse_arguments()
    for number in SIGNALS:
        signal.signal(number, leave)
    try:
        if arguments.report:
            plot.require()
        record = read(arguments.record) if arguments.record else measure(arguments)
        print_record(record)
        if arguments.json:
            arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        if arguments.report:
            page.write(record, arguments.report)
    except (BenchError, Unavailable) as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
