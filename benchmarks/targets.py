"""What is promised of measured figures, and whether it was kept. No I/O."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec
from typing_extensions import override

Figures: TypeAlias = dict[str, dict[str, list[float]]]
"""Row → column → one value per round."""


class Verdict(msgspec.Struct, omit_defaults=True):
    """How one promise came out in one run."""

    text: str
    outcome: Literal["met", "missed", "not measured"]
    bound: float
    value: float | None = None
    """Of the row that is nearest to missing it, or furthest beyond; in the unit of the promise."""
    row: str = ""
    """That row, where the promise is about several."""
    missed: int = 0
    """Rows that miss it, of so many."""
    rows: int = 0

    @override
    def __str__(self) -> str:
        if self.value is None:
            return self.outcome
        extent = f" by {self.missed} of {self.rows}" if self.missed and self.rows > 1 else ""
        # Without the title of the row's table, which the text of the promise says in other words.
        worst = f", worst: {self.row.rpartition(': ')[2]}" if self.row else ""
        return f"{self.outcome}{extent} ({_plain(self.value)}{worst})"


@dataclass(frozen=True)
class Target:
    """One promise: medians of rows, as they are or as multiples of another column's."""

    text: str
    rows: tuple[str, ...]
    bound: float
    """No row may be above it, or, where *is_floor*, below."""
    column: str
    times: str = ""
    """The column that each row is divided by; empty: none."""
    less: str = ""
    """A row whose median is taken off."""
    is_floor: bool = False

    def judge(self, figures: Figures) -> Verdict:
        """Compare what was measured; a row that others have a figure in and this column has none is missed."""
        values = dict(self._values(figures))
        if not values:
            return Verdict(self.text, "not measured", self.bound)
        worst = (min if self.is_floor else max)(values, key=values.__getitem__)
        failed = sum(self._has_failed(figures.get(row, {})) for row in self.rows)
        missed = failed + sum(not self._is_kept(value) for value in values.values())
        named = worst if len(values) > 1 else ""
        outcome: Literal["met", "missed"] = "missed" if missed else "met"
        return Verdict(self.text, outcome, self.bound, values[worst], named, missed, failed + len(values))

    def _has_failed(self, row: Mapping[str, list[float]]) -> bool:
        return any(row.values()) and not row.get(self.column)

    def _is_kept(self, value: float) -> bool:
        return value >= self.bound if self.is_floor else value <= self.bound

    def _values(self, figures: Figures) -> Iterator[tuple[str, float]]:
        base = median(figures, self.less, self.column) if self.less else 0.0
        for row in self.rows:
            value = median(figures, row, self.column)
            unit = median(figures, row, self.times) if self.times else 1.0
            if value is not None and base is not None and unit:
                yield row, (value - base) / unit


def median(figures: Figures, row: str, column: str) -> float | None:
    """Give the median over the rounds, None where nothing was measured."""
    values = figures.get(row, {}).get(column)
    return statistics.median(values) if values else None


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
