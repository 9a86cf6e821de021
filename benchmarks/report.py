"""What a run has found: kept as JSON, judged, and laid out for a terminal. No I/O but the files that it is given."""

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from benchmarks.measures import DIRECT, GROUPS, NGINX, ROWS, TARGETS, Group, Row
from benchmarks.run import Machines, Run
from benchmarks.targets import Figures, Verdict

READING = (
    "Median of the rounds, (multiple of nginx), ± half the range between the rounds in per cent of the median.",
    "CPU: user and system time of the candidate's processes; everything shares the cores named with the machine.",
    "A to B: aiproxyd converts for callers of A; the others pass on the same answer of B, asked for in B's own words.",
    "Beside a long request that is converted, the others pass on the same request as chat.",
)


class Record(msgspec.Struct):
    """One run, complete: from it every table, verdict and picture can be made again."""

    command: str
    machine: dict[str, str]
    rounds: int
    columns: list[str]
    figures: Figures
    notes: list[str]
    harness_us: dict[str, list[float]]
    """Part of the harness → CPU of one request without a proxy, per round."""
    machines: Machines | None
    verdicts: list[Verdict]


def describe_machine(versions: Mapping[str, str]) -> dict[str, str]:
    """Say where it was measured, without what would name the machine."""
    names = (
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "name" in line
    )
    return {
        "CPU": next(names, platform.machine()),
        "cores": str(len(os.sched_getaffinity(0))),
        "load average before": f"{os.getloadavg()[0]:.1f}",
        "Linux": platform.release(),
        "Python": platform.python_version(),
        **{name: version(name) for name in ("aiohttp", "msgspec")},
        **versions,
    }


def keep(command: str, machine: dict[str, str], rounds: int, run: Run | None, machines: Machines | None) -> Record:
    """Take what was measured out of the processes that measured it."""
    figures = {row: dict(columns) for row, columns in run.figures.items()} if run else {}
    return Record(
        command,
        machine,
        rounds,
        [DIRECT, *(candidate.name for candidate in run.candidates)] if run else [],
        figures,
        run.notes if run else [],
        {"mock upstream": run.upstream_us, "load generator": run.load_us} if run and run.load_us else {},
        machines,
        judge(figures, machines),
    )


def judge(figures: Figures, machines: Machines | None) -> list[Verdict]:
    """Hold what was measured against every promise about it."""
    return [target.judge(figures) for target in TARGETS if figures] + (machines.verdicts if machines else [])


def read(path: Path) -> Record:
    """Read a run that was written down, and judge it by what is promised now."""
    record = msgspec.json.decode(path.read_bytes(), type=Record)
    record.verdicts = judge(record.figures, record.machines)
    return record


def cell(row: Mapping[str, list[float]], column: str) -> str:
    """Median, multiple of nginx's, and half the range between the rounds in per cent of the median."""
    values = row.get(column)
    if not values:
        return "-"
    median = statistics.median(values)
    text = f"{median:,.0f}" if abs(median) >= 100 else f"{median:.1f}"
    nginx = statistics.median(row[NGINX]) if row.get(NGINX) else 0.0
    if nginx > 0 and column != NGINX:
        multiple = median / nginx
        text += f" ({multiple:.2f})" if abs(multiple) >= 0.1 or not multiple else f" ({multiple:.4f})"
    return f"{text} ±{(max(values) - min(values)) / 2 / abs(median) * 100:.0f}%" if len(values) > 1 and median else text


def rows_of(group: Group, figures: Figures) -> list[Row]:
    """Give the rows of a group that were measured."""
    return [row for row in ROWS if row.group is group and figures.get(row.key)]


def columns_of(rows: Iterable[Row], record: Record) -> list[str]:
    """Give the columns in which one of the rows has a figure."""
    keys = [row.key for row in rows]
    return [name for name in record.columns if any(record.figures[key].get(name) for key in keys)]


def lay_out(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the cells of a table, the first of each row to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            text.rjust(width) if at else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def print_record(record: Record) -> None:
    if record.machines:
        print_machines(record.machines)
    if record.figures:
        print_figures(record)
    for note in record.notes:
        print(f"note: {note}")
    print("machine: " + ", ".join(f"{name} {value}" for name, value in record.machine.items()))
    print("targets:")
    for verdict in record.verdicts:
        print(f"  {verdict.text}: {verdict}")


def print_machines(machines: Machines) -> None:
    print("\n".join(lay_out(machine_rows(machines))))
    print("\nconversion alone, caller to upstream: CPU of one thread, median of the rounds, ± half their range\n")


def machine_rows(machines: Machines) -> list[list[str]]:
    columns = list(next(iter(machines.figures.values())))
    return [
        ["", *columns],
        *([pair, *(cell(figures, name) for name in columns)] for pair, figures in machines.figures.items()),
    ]


def print_figures(record: Record) -> None:
    groups = [(group, rows_of(group, record.figures)) for group in GROUPS]
    cells = [
        [f"  {row.label}", *(cell(record.figures[row.key], name) for name in record.columns)]
        for _, rows in groups
        for row in rows
    ]
    head, *lines = lay_out([["", *record.columns], *cells])
    print(head)
    for group, rows in groups:
        if rows:
            print(f"{group.title}, {group.unit}")
            print("\n".join(lines[: len(rows)]))
            del lines[: len(rows)]
    print("\n" + "\n".join(READING))
    harness = [f"{name} {statistics.median(values):.0f} us" for name, values in record.harness_us.items()]
    if harness:
        print(f"Harness, no proxy, 1 connection, CPU per request: {', '.join(harness)}.")
