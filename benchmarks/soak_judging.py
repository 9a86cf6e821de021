"""What the soak's samples say: whether memory grew, and what was left behind. Pure functions; no I/O."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

import msgspec

WARM_UP: Final = 0.2
"""Share of the run in which memory may grow: caches fill, and code is used for the first time."""
MAX_GROWTH: Final = 0.05
"""By how much of what it was after the warm-up memory may be larger at the end, at rest both times."""
MAX_GROWTH_QUICK: Final = 0.1
"""The same for short runs, whose warm-up is too short for every cache to fill: they show coarse leaks only."""
MAX_SWELL: Final = 0.5
"""The same under load. The C library keeps pages of which it gave out a part, so that one moment in which many large
answers come together is seen for minutes: up to a third of all memory, which then goes down again."""
MIN_SAMPLES: Final = 10
MIN_WHOLE: Final = 0.5
"""Share of the questions that must have been answered whole, else nothing much was tried."""
FIFTHS: Final = 5


class Sample(msgspec.Struct):
    """What the daemon was like at one moment."""

    at_s: float
    """Since the load began."""
    pss_kib: int
    rss_kib: int
    private_kib: int
    """Memory of its own. Code and files are shared with whoever else runs Python here, so that PSS also moves when
    others start and end."""
    tasks: Mapping[str, int]
    """By kind, without the one that asks."""
    fds: Mapping[str, int]
    """By kind, without those that asking takes."""
    heap_kib: int = 0
    """What the C library has given out; pages that it keeps for the next time, and Python's own arenas, not counted."""
    blocks: int = 0
    """What Python has given out of its arenas: small objects of all kinds."""
    objects: int = 0
    """Tracked by the garbage collector."""
    types: Mapping[str, int] = {}
    """The most frequent among them."""
    trimmed_kib: int = 0
    """Memory of its own once the C library has given back what nobody uses."""

    @property
    def task_count(self) -> int:
        return sum(self.tasks.values())

    @property
    def fd_count(self) -> int:
        return sum(self.fds.values())


class Trend(NamedTuple):
    """How much a quantity has grown."""

    first: float
    """Median of the first fifth after the warm-up."""
    last: float
    """Median of the last fifth."""

    @property
    def growth(self) -> float:
        return self.last / self.first - 1


def find_trend(points: Sequence[tuple[float, float]], warm_up_s: float) -> Trend | None:
    """Return the trend of *points*, of time in seconds and value; None where too few are after *warm_up_s*.

    Medians of fifths: one collection that came late, or one large answer under way, moves nothing.
    """
    values = [value for at_s, value in sorted(points) if at_s >= warm_up_s]
    if len(values) < MIN_SAMPLES:
        return None
    size = len(values) // FIFTHS
    return Trend(median(values[:size]), median(values[-size:]))


def judge_growth(warm: Sample, after: Sample, max_growth: float) -> list[str]:
    """Return what is wrong with the memory *after* the load, beside that when it was *warm*; both at rest."""
    return _tell_growth("memory at rest", Trend(warm.trimmed_kib, after.trimmed_kib), max_growth)


def judge_swell(samples: Sequence[Sample], warm_up_s: float, max_growth: float = MAX_SWELL) -> list[str]:
    """Return what is wrong with the memory that *samples* show under load, after *warm_up_s*."""
    trend = find_trend([(sample.at_s, sample.private_kib) for sample in samples], warm_up_s)
    if trend is None:
        return ["too few samples to tell whether memory is flat"]
    return _tell_growth("memory under load", trend, max_growth)


def _tell_growth(what: str, trend: Trend, max_growth: float) -> list[str]:
    if trend.growth <= max_growth:
        return []
    sizes = f"{trend.first / 1024:.1f} to {trend.last / 1024:.1f} MB"
    return [f"{what} grew by {trend.growth:.1%} ({sizes}), more than {max_growth:.0%}"]


def judge_rest(before: Sample, after: Sample) -> list[str]:
    """Return what is there after the load that was not there before it."""
    problems = []
    for what, had, has in (("tasks", before.tasks, after.tasks), ("files", before.fds, after.fds)):
        more = {name: count - had.get(name, 0) for name, count in has.items() if count > had.get(name, 0)}
        problems += [f"{what} left behind: {count} x {name}" for name, count in more.items()]
    return problems


_GAUGES: Final = ("_running", "_waiting", "_in_flight")


def judge_gauges(metrics: str) -> list[str]:
    """Return the gauges of *metrics*, in Prometheus' text format, that tell of calls where none is."""
    problems = []
    for line in metrics.splitlines():
        name, _, value = line.rpartition(" ")
        kind = name.partition("{")[0]
        if not line.startswith("#") and kind.endswith(_GAUGES) and float(value):
            problems.append(f"{name} is {value} at rest")
    return problems


_ALARMS: Final = (
    "Traceback (most recent call last)",
    "bug while serving",
    " ERROR ",
    " CRITICAL ",
    "never retrieved",
    "never awaited",
    "was destroyed but it is pending",
    "Unclosed ",
    "ResourceWarning",
)
_EXPECTED: Final = "refuses the API key that is configured"
"""The operator has to hear of this one, and an upstream plays it now and then."""
_VARYING: Final = re.compile(r"^\S+T\S+Z |\b[0-9a-f]{24}\b")
"""The time of a line, and the id of a request."""


def judge_log(lines: Sequence[str], max_shown: int = 5) -> list[str]:
    """Return what the lines of the daemon's log tell of bugs, each kind of line once."""
    alarms = [line for line in lines if any(map(line.__contains__, _ALARMS)) and _EXPECTED not in line]
    kinds = Counter(_VARYING.sub("", line).strip()[:300] for line in alarms).most_common()
    more = [f"log: {len(kinds) - max_shown} other kinds of lines"] if len(kinds) > max_shown else []
    return [f"log: {count} x {kind}" for kind, count in kinds[:max_shown]] + more


def judge_outcomes(outcomes: Mapping[str, int]) -> list[str]:
    """Return what is wrong with the *outcomes* of questions; a run that goes wrong throughout shows little."""
    asked = sum(outcomes.values())
    whole = outcomes.get("whole", 0)
    if not asked or whole / asked < MIN_WHOLE:
        return [f"only {whole} of {asked} questions were answered whole"]
    return []
