"""The page of a run: every figure, every promise, how to read them, and what somebody has written about them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import plot
from benchmarks.measures import GROUPS
from benchmarks.report import READING, Record, cell, columns_of, machine_rows, rows_of
from benchmarks.targets import Verdict

KEPT_FROM = "<!-- kept: what stands from here is written by hand and survives `scripts/bench --report` -->"
KEPT_TO = "<!-- kept: to here -->"
UNWRITTEN = "\n\nNothing has been written about these figures yet.\n\n"
KEPT = re.compile(f"{re.escape(KEPT_FROM)}(.*){re.escape(KEPT_TO)}", re.DOTALL)

COLUMNS = {
    "direct": "no proxy at all",
    "nginx": "one worker as a plain reverse proxy, upstream connections kept alive, an access log, nothing buffered",
    "relay": "the least that an aiohttp gateway can be: no keys, no log, no usage, no conversion",
    "aiproxyd": "as installed, with one key, an upstream of each API and its access log",
    "aiproxyd-cache": "the same with its response cache on",
    "litellm": "LiteLLM's proxy with one worker and one upstream, without keys, database and logs",
}


def write(record: Record, path: Path) -> None:
    """Write the page, and its pictures beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = plot.draw(record, lambda name: path.with_name(f"{path.stem}-{name}.svg"))
    shown = {f"{path.stem}-{name}.svg": text for name, text in pictures.items()}
    path.write_text(compose(record, read_kept(path), shown))


def read_kept(path: Path) -> str:
    """Give what somebody has written into the page that is there, or what says that nobody has."""
    kept = KEPT.search(path.read_text()) if path.exists() else None
    return kept[1] if kept else UNWRITTEN


def compose(record: Record, kept: str, pictures: dict[str, str]) -> str:
    """Give the page's text; *pictures* are file names with what each shows."""
    parts = [
        "# What it costs",
        f"Measured on loopback with `{record.command}`: each candidate in turn, again and again, so that whatever else "
        "the machine does meets all. Latency and throughput depend on the machine, multiples of nginx much less.",
        *(f"![{text}]({name})" for name, text in pictures.items()),
        f"## What costs what\n\n{KEPT_FROM}{kept}{KEPT_TO}",
        "## Targets\n\n" + markdown(_target_rows(record.verdicts)),
        "## Figures",
        *_notes(record),
        *_figures(record),
        *_machines(record),
        "## How to read this\n\n" + "\n".join(f"- {line}" for line in _reading(record)),
        "## Machine\n\n" + markdown([["", ""], *(list(item) for item in record.machine.items())]),
    ]
    return "\n\n".join(parts) + "\n"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Give a table whose first row is its head, numbers to the right."""
    head, *body = rows
    ruler = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *body))


def _target_rows(verdicts: Sequence[Verdict]) -> list[list[str]]:
    return [
        ["target", "outcome"],
        *([verdict.text.replace("<=", "≤").replace(">=", "≥"), str(verdict)] for verdict in verdicts),
    ]


def _notes(record: Record) -> Iterator[str]:
    if record.notes:
        yield "Not measured, or not as the label says:\n\n" + "\n".join(f"- {note}" for note in record.notes)


def _figures(record: Record) -> Iterator[str]:
    for group in GROUPS:
        rows = rows_of(group, record.figures)
        if rows:
            columns = columns_of(rows, record)
            cells = [[row.label, *(cell(record.figures[row.key], name) for name in columns)] for row in rows]
            yield f"### {group.title}\n\n" + markdown([[group.unit, *columns], *cells])


def _machines(record: Record) -> Iterator[str]:
    if record.machines:
        yield (
            "### Conversion alone\n\nNo socket, no event loop: CPU of one thread for each caller and upstream.\n\n"
            + markdown(machine_rows(record.machines))
        )


def _reading(record: Record) -> Iterator[str]:
    yield from READING
    for name in record.columns:
        yield f"{name}: {COLUMNS.get(name, name)}."
    yield "An answer counts only if it is whole and says what the upstream said; one wrong answer ends the run."
    yield (
        "Requests are of 1 kB where nothing else is said, and answers of 0.7 kB. Streams have 100 deltas, and are "
        "asked for by 8 connections, or, 5 ms apart, by 24."
    )
    yield "Memory is PSS of the candidate's processes; what the kernel holds for their sockets is not in it."
    for name, values in record.harness_us.items():
        yield f"Of the harness, the {name} takes {sorted(values)[len(values) // 2]:.0f} us of CPU for one request."
