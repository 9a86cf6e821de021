"""Metrics as Prometheus reads them: https://prometheus.io/docs/instrumenting/exposition_formats/. Does no I/O.

Nothing is counted here: what counts keeps its own numbers, and is asked for them when somebody reads the metrics.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Family(NamedTuple):
    """One metric with all its samples."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    labels: tuple[str, ...]
    samples: Iterable[tuple[tuple[str, ...], float]]
    """Values of the labels, and the number."""


class Metrics:
    """Everything that can be measured; one for the application."""

    def __init__(self, *sources: Callable[[], Iterable[Family]]) -> None:
        """Take who knows the numbers."""
        self._sources = sources

    def read(self) -> list[Family]:
        """Return all numbers as they are now; to be called in the event loop, which changes them."""
        return [family._replace(samples=list(family.samples)) for source in self._sources for family in source()]


class _Snapshot:
    """What was read, as the library asks for it."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator["Metric"]:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, kind, text, labels, samples in self._families:
            metric = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
            for values, number in samples:
                metric.add_metric(values, number)
            yield metric


def render(families: Iterable[Family]) -> bytes:
    """Return *families* and the metrics of the process as text.

    Imports the library, so not to be called in the event loop.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Snapshot(families))
    return generate_latest(registry)
