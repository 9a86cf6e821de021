"""The table, the verdicts, the page and its pictures, made of a recorded run."""

import random
from pathlib import Path

import msgspec
import pytest

from benchmarks import page, plot
from benchmarks.measures import AIPROXYD, CACHED, HEALTH, HIT, LITELLM, NGINX, RELAY, ROWS, TARGETS
from benchmarks.report import Record, cell, print_record
from benchmarks.run import Machines
from benchmarks.targets import Target, Verdict

PROMISE = Target("cost <= 7 x nginx", ("w: chat", "w: gemini"), 7, AIPROXYD, times=NGINX)


@pytest.fixture
def record() -> Record:
    """A run in which every row has figures, and LiteLLM was not measured."""
    dice = random.Random(7)  # noqa: S311 - repeatable, not secret
    columns = {NGINX: 20, RELAY: 80, AIPROXYD: 120}
    figures = {
        row.key: {name: [base * dice.uniform(0.9, 1.1) for _ in range(3)] for name, base in columns.items()}
        for row in ROWS
    }
    figures[HIT.key] = {CACHED: [90.0, 91.0, 95.0]}
    figures[HEALTH.key] = {CACHED: [40.0, 41.0, 42.0]}
    return Record(
        command="scripts/bench --rounds 3",
        machine={"CPU": "some", "cores": "2"},
        rounds=3,
        columns=[*columns, CACHED, LITELLM],
        figures=figures,
        notes=["chat, 10,000 open: 9,950, since 20,000 files may be open at once"],
        harness_us={"mock upstream": [10.0, 30.0, 20.0]},
        machines=Machines({"a to b": {"request out us": [70.0]}}, [Verdict("request out <= 100 us", "met", 100, 70.0)]),
        verdicts=[target.judge(figures) for target in TARGETS],
    )


def test_a_promise_is_kept_up_to_its_bound() -> None:
    kept = PROMISE.judge({"w: chat": {NGINX: [10], AIPROXYD: [70]}, "w: gemini": {NGINX: [20], AIPROXYD: [100]}})

    assert (kept.outcome, kept.value, kept.missed) == ("met", 7, 0)
    assert str(kept) == "met (7.00, worst: chat)"


def test_a_promise_is_missed_where_one_row_misses_it() -> None:
    missed = PROMISE.judge({"w: chat": {NGINX: [10], AIPROXYD: [71]}, "w: gemini": {NGINX: [20], AIPROXYD: [100]}})

    assert (missed.outcome, missed.bound, missed.row) == ("missed", 7, "w: chat")
    assert str(missed) == "missed by 1 of 2 (7.10, worst: chat)"


def test_a_promise_is_missed_where_only_others_got_through() -> None:
    missed = PROMISE.judge({"w: chat": {NGINX: [10], AIPROXYD: [60]}, "w: gemini": {NGINX: [20], AIPROXYD: []}})

    assert str(missed) == "missed by 1 of 2 (6.00)"


def test_a_promise_is_about_medians() -> None:
    assert PROMISE.judge({"w: chat": {NGINX: [10, 10, 1], AIPROXYD: [60, 900, 50]}}).value == 6


def test_a_floor_is_missed_from_below() -> None:
    target = Target("requests/s >= 50 x LiteLLM", ("r",), 50, AIPROXYD, times=LITELLM, is_floor=True)

    assert target.judge({"r": {AIPROXYD: [4_999], LITELLM: [100]}}).outcome == "missed"
    assert target.judge({"r": {AIPROXYD: [5_000], LITELLM: [100]}}).outcome == "met"


def test_what_is_taken_off_comes_from_the_same_column() -> None:
    target = Target("hit", ("hit",), 60, CACHED, less="health")

    assert target.judge({"hit": {CACHED: [95]}, "health": {CACHED: [40], AIPROXYD: [1]}}).value == 55
    assert target.judge({"hit": {CACHED: [95]}}).outcome == "not measured"


@pytest.mark.parametrize("figures", [{}, {"w: chat": {AIPROXYD: [70.0]}}, {"w: chat": {NGINX: [10.0], AIPROXYD: []}}])
def test_a_promise_about_what_was_not_measured_is_neither(figures: dict[str, dict[str, list[float]]]) -> None:
    assert str(PROMISE.judge(figures)) == "not measured"


def test_a_cell_says_median_multiple_and_spread() -> None:
    row = {NGINX: [10.0, 12.0, 11.0], AIPROXYD: [110.0, 121.0, 99.0], RELAY: [0.0, 1.0, 0.0]}

    assert cell(row, AIPROXYD) == "110 (10.00) ±10%"
    assert cell(row, NGINX) == "11.0 ±9%"
    assert cell(row, RELAY) == "0.0 (0.00)"
    assert cell(row, LITELLM) == "-"


def test_a_run_is_written_down_whole(record: Record) -> None:
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record


def test_every_row_of_a_run_is_on_the_page_and_at_the_terminal(
    record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.compose(record, page.UNWRITTEN, {"performance-cost.svg": "cost"})
    print_record(record)
    printed = capsys.readouterr().out

    for row in ROWS:
        figures = cell(record.figures[row.key], CACHED if row in (HIT, HEALTH) else AIPROXYD)
        assert any(line.startswith(f"| {row.label} |") and f" {figures} |" in line for line in text.splitlines())
        assert any(line.startswith(f"  {row.label}  ") and figures in line for line in printed.splitlines())
    for verdict in record.verdicts:
        assert str(verdict) in text
        assert f"{verdict.text}: {verdict}" in printed
    assert "a to b" in text
    assert record.notes[0] in text
    assert "takes 20 us of CPU" in text
    assert "![cost](performance-cost.svg)" in text


def test_a_table_has_no_column_that_is_empty(record: Record) -> None:
    text = page.compose(record, page.UNWRITTEN, {})

    assert "| CPU us per request | nginx | relay | aiproxyd |" in text
    assert "| litellm |" not in text


def test_what_is_written_by_hand_survives(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    written = "\n\nMost of it is HTTP.\n\n![mine](mine.svg) <!-- a comment -->\n\n"
    path.write_text(page.compose(record, page.read_kept(path), {}))
    path.write_text(path.read_text().replace(page.UNWRITTEN, written))

    path.write_text(page.compose(record, page.read_kept(path), {}))
    again = path.read_text()
    path.write_text(page.compose(record, page.read_kept(path), {}))

    assert written in again
    assert page.UNWRITTEN.strip() not in again
    assert path.read_text() == again


def test_the_same_run_gives_the_same_pictures(record: Record, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    made = plot.draw(record, lambda name: tmp_path / f"{name}.svg")
    once = {name: (tmp_path / f"{name}.svg").read_bytes() for name in made}
    plot.draw(record, lambda name: tmp_path / f"{name}.svg")

    assert list(made) == ["cost", "growth"]
    for name, drawn in once.items():
        assert (tmp_path / f"{name}.svg").read_bytes() == drawn
        assert b"dc:date" not in drawn
    assert once["cost"].count(b"gemini to messages") == 2
    assert b"aiproxyd, chat to messages" in once["growth"]


def test_a_run_without_load_has_no_pictures(record: Record, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    record.figures = {}

    assert plot.draw(record, lambda name: tmp_path / name) == {}
