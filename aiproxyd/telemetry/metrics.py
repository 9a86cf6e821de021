"""Metrics as Prometheus reads them: https://prometheus.io/docs/instrumenting/exposition_formats/. Does no I/O.

Nothing is counted here: what counts keeps its own numbers, and is asked for them when somebody reads the metrics.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

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
    """Return *families* as text.

    Imports the library, so not to be called in the event loop.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Snapshot(families))
    return generate_latest(registry)


def read_process() -> list[Family]:
    """Return the metrics of this process.

    Imports the library and reads files, so not to be called in the event loop.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector

    return [
        Family(
            metric.name,
            "counter" if metric.type == "counter" else "gauge",
            metric.documentation,
            (),
            [((), sample.value) for sample in metric.samples],
        )
        for metric in ProcessCollector(registry=CollectorRegistry()).collect()
    ]


def merge(told: Mapping[int, Iterable[Family] | None]) -> list[Family]:
    """Return as one what the workers have *told*, by their numbers, each sample labelled with the worker.

    None stands for a worker that has told nothing; it is down in ``aiproxyd_worker_up``, and nowhere else.
    """
    merged: dict[str, Family] = {}
    for number, families in told.items():
        for family in families or ():
            if family.name not in merged:
                merged[family.name] = family._replace(labels=(*family.labels, "worker"), samples=[])
            samples = [((*values, str(number)), value) for values, value in family.samples]
            merged[family.name] = merged[family.name]._replace(samples=[*merged[family.name].samples, *samples])
    up = [((str(number),), float(families is not None)) for number, families in told.items()]
    text = "Whether a worker has told its metrics; where it has not, they are missing here."
    return [*merged.values(), Family("aiproxyd_worker_up", "gauge", text, ("worker",), up)]


_Told = tuple[str, Literal["counter", "gauge"], str, tuple[str, ...], list[tuple[tuple[str, ...], float]]]
_decoder: Final = msgspec.msgpack.Decoder(list[_Told])


def encode(families: Iterable[Family]) -> bytes:
    """Return *families* for ``decode`` in another process of this daemon."""
    return msgspec.msgpack.encode([(*family[:4], list(family.samples)) for family in families])


def decode(told: bytes) -> list[Family]:
    """Return what ``encode`` was given."""
    return [Family(*each) for each in _decoder.decode(told)]
