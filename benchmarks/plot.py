"""Pictures of a run, as SVG: the same run gives the same bytes.

They are drawn by matplotlib, of the extra `bench`, which is asked for only here.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.measures import (
    AIPROXYD,
    CONVERTED_CPU,
    NGINX,
    RELAY,
    SIZE,
    SIZES,
    STREAM_CPU,
    WHOLE_CPU,
    Group,
    Row,
)
from benchmarks.processes import Unavailable
from benchmarks.report import Record, rows_of
from benchmarks.targets import Figures, median

BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREY: Final = "#555555"
GREEN: Final = "#009e73"
"""Told apart by those who do not see all colours, too (Okabe and Ito)."""
INK: Final = "#222222"
STYLE: Final = {
    "svg.hashsalt": "aiproxyd",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "legend.frameon": False,
}
BAR_INCHES: Final = 0.27


def require() -> Any:
    """Give matplotlib.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        return importlib.import_module("matplotlib")
    except ImportError as error:
        raise Unavailable("pictures need matplotlib: .venv/bin/pip install --editable '.[bench]'") from error


def draw(record: Record, place: Callable[[str], Path]) -> dict[str, str]:
    """Draw what was measured; *place* says where a picture goes. Gives name → what it shows."""
    matplotlib = require()
    made = {}
    with matplotlib.rc_context(STYLE):
        for name, (text, picture) in {"cost": _draw_cost(record), "growth": _draw_growth(record)}.items():
            if picture is not None:
                picture.savefig(place(name), format="svg", metadata={"Date": None, "Creator": None})
                made[name] = text
    return made


def _figure(width: float, height: float) -> Any:
    # A figure of its own, not pyplot's, which looks for a screen and keeps every figure.
    figure = importlib.import_module("matplotlib.figure").Figure
    return figure(figsize=(width, height), layout="constrained")


def _draw_cost(record: Record) -> tuple[str, Any]:
    text = "CPU time of each kind of call: aiproxyd as bars, nginx and a bare aiohttp relay as marks"
    panels = [
        ("Whole answers, 32 connections", "CPU us per request", _measured(record, (WHOLE_CPU, CONVERTED_CPU), " 32 ")),
        ("100 events at once", "CPU us per stream", _measured(record, (STREAM_CPU,), "")),
    ]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return text, None
    most = max(len(rows) for _, _, rows in panels)
    figure = _figure(5.2 * len(panels), 1.3 + BAR_INCHES * most)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, unit, rows) in zip(axes, panels, strict=True):
        _draw_bars(ax, title, unit, rows, record.figures)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return text, figure


def _measured(record: Record, groups: tuple[Group, ...], part: str) -> list[Row]:
    rows = [row for group in groups for row in rows_of(group, record.figures) if part in f"{row.label} "]
    rows = [row for row in rows if record.figures[row.key].get(AIPROXYD)]
    return sorted(rows, key=lambda row: row.is_converted)


def _draw_bars(ax: Any, title: str, unit: str, rows: list[Row], figures: Figures) -> None:
    for is_converted, colour, name in ((False, BLUE, "aiproxyd, passed on"), (True, ORANGE, "aiproxyd, converted")):
        chosen = [at for at, row in enumerate(rows) if row.is_converted is is_converted]
        if chosen:
            ax.barh(chosen, [median(figures, rows[at].key, AIPROXYD) for at in chosen], color=colour, label=name)
    marks = (
        (NGINX, {"marker": "|", "markersize": 9, "markeredgewidth": 2.2, "color": "black"}),
        (RELAY, {"marker": "d", "markersize": 6, "markeredgewidth": 0.8, "color": GREEN, "markeredgecolor": "white"}),
    )
    for column, style in marks:
        points = {at: median(figures, row.key, column) for at, row in enumerate(rows)}
        known = {at: value for at, value in points.items() if value is not None}
        if known:
            ax.plot(list(known.values()), list(known), label=column, linestyle="none", **style)
    for at, row in enumerate(rows):
        _label_bar(ax, at, row, figures)
    ax.set_yticks(range(len(rows)), [row.label.partition(", 32")[0] for row in rows])
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.margins(x=0.3)
    ax.set_title(title)
    ax.set_xlabel(unit)


def _label_bar(ax: Any, at: int, row: Row, figures: Figures) -> None:
    value, nginx = median(figures, row.key, AIPROXYD), median(figures, row.key, NGINX)
    if value is not None:
        text = f"{value:,.0f}" + (f"  ({value / nginx:.1f} x)" if nginx else "")
        furthest = max(value, median(figures, row.key, RELAY) or 0.0)
        ax.annotate(text, (furthest, at), (6, 0), textcoords="offset points", va="center", fontsize=8.5)


def _draw_growth(record: Record) -> tuple[str, Any]:
    text = "CPU time of one call by the size of its request, both scales logarithmic"
    lines = (
        ("aiproxyd, chat to messages", AIPROXYD, "chat to messages", ORANGE),
        ("aiproxyd, chat", AIPROXYD, "chat", BLUE),
        ("relay", RELAY, "chat", GREEN),
        ("nginx", NGINX, "chat", GREY),
    )
    known = {row.label: row.key for row in rows_of(SIZE, record.figures)}
    drawn = {name: (_points(record.figures, known, column, how), colour) for name, column, how, colour in lines}
    drawn = {name: line for name, line in drawn.items() if len(line[0]) > 1}
    if not drawn:
        return text, None
    figure = _figure(6.4, 3.8)
    ax = figure.subplots()
    for name, (points, colour) in drawn.items():
        ax.plot(list(points), list(points.values()), marker="o", markersize=4, color=colour, label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks([size or 1_000 for size in SIZES.values()], list(SIZES))
    ax.tick_params(axis="x", which="minor", length=0)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.grid(visible=True, axis="y", color="#dddddd")
    ax.set_title("Cost by the size of a request, one connection")
    ax.set_ylabel("CPU us per request")
    ax.legend()
    return text, figure


def _points(figures: Figures, known: Mapping[str, str], column: str, how: str) -> dict[int, float]:
    """Give the line of a column: bytes → CPU us."""
    values = {size: median(figures, known.get(f"request of {name}, {how}", ""), column) for name, size in SIZES.items()}
    return {size or 1_000: value for size, value in values.items() if value}
