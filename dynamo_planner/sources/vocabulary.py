"""An engine's metrics as data: which of them gives which quantity, in which unit, under which older names.

A vocabulary is one small file, or a mapping in a user's configuration:

>>> mine = Vocabulary.model_validate({
...     "engine": "Mine",
...     "quantities": {
...         "running": {"kind": "gauge", "names": ["mine_running"]},
...         "completions": {"kind": "counter", "names": ["mine_requests_total", "mine_requests"]},
...         "ttft_ms": {"kind": "histogram", "names": ["mine_ttft_seconds"], "scale": 1000},
...     },
... })
>>> sorted(mine.names())[:3]
['mine_requests', 'mine_requests_total', 'mine_running']
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from dynamo_planner.frozen import Frozen, ReadOnly

Names = Annotated[tuple[str, ...], Field(min_length=1)]
"""The names that a metric has had, newest first; the first one that is on a page is read."""

Scale = Annotated[float, Field(gt=0)]
"""What a value is multiplied by to be in the quantity's unit: 1000 from seconds to milliseconds."""


class Gauge(Frozen):
    """A value as it is now. Of several label sets on one page (say, one for each engine of a worker) it is the sum or
    the mean."""

    kind: Literal["gauge"] = "gauge"
    names: Names
    across: Literal["sum", "mean"] = "sum"
    scale: Scale = 1.0


class Counter(Frozen):
    """A number that only grows while its process lives; several label sets are summed."""

    kind: Literal["counter"] = "counter"
    names: Names


class Histogram(Frozen):
    """A Prometheus histogram: ``name_count``, ``name_sum`` and, where there are any, ``name_bucket``."""

    kind: Literal["histogram"] = "histogram"
    names: Names
    scale: Scale = 1.0


class Info(Frozen):
    """A number that stands in labels: the product of these ones, summed over several label sets."""

    kind: Literal["info"] = "info"
    names: Names
    labels: Names


Metric = Annotated[Gauge | Counter | Histogram | Info, Field(discriminator="kind")]

HISTOGRAM_SUFFIXES = ("_count", "_sum", "_bucket")

GaugeName = Literal["running", "waiting", "kv_usage", "kv_capacity_tokens"]
CounterName = Literal["completions", "prefix_hits", "prefix_queries"]
HistogramName = Literal["ttft_ms", "itl_ms", "isl", "osl", "request_duration_s"]

Quantity = GaugeName | CounterName | HistogramName
"""What a vocabulary can tell of a worker.

``running`` and ``waiting`` requests; ``kv_usage`` 0 to 1; ``completions``: requests that ended, however they ended;
``prefix_hits`` of ``prefix_queries`` prompt tokens came from the prefix cache; the others as in
:class:`dynamo_planner.Traffic`.
"""

GAUGES: tuple[str, ...] = get_args(GaugeName)
COUNTERS: tuple[str, ...] = get_args(CounterName)
HISTOGRAMS: tuple[str, ...] = get_args(HistogramName)
QUANTITIES = (*GAUGES, *COUNTERS, *HISTOGRAMS)


class Vocabulary(Frozen):
    """What an engine calls things. A quantity that is not in ``quantities`` is one that the engine cannot tell.

    ``path`` is where a worker serves its metrics. ``started_at`` is the gauge with the Unix time at which the process
    began, by which a restart is told from a counter that did not move.
    """

    engine: str
    quantities: ReadOnly[Quantity, Metric]
    path: str = Field(default="/metrics", pattern="^/")
    started_at: Names = ("process_start_time_seconds",)

    @model_validator(mode="after")
    def _kinds_fit(self) -> Self:
        for quantity, metric in self.quantities.items():
            allowed = _allowed_kinds(quantity)
            if metric.kind not in allowed:
                raise ValueError(f"quantities.{quantity}: a {metric.kind} cannot give it; use {' or '.join(allowed)}")
        return self

    def names(self) -> frozenset[str]:
        """Every sample name that is worth reading on a page."""
        return frozenset(self.started_at).union(*(sample_names(metric) for metric in self.quantities.values()))


def _allowed_kinds(quantity: Quantity) -> tuple[str, ...]:
    if quantity in GAUGES:
        return ("gauge", "info")
    return ("counter",) if quantity in COUNTERS else ("histogram",)


def sample_names(metric: Metric) -> Iterator[str]:
    """The names of the samples that a metric consists of, on a page."""
    suffixes = HISTOGRAM_SUFFIXES if isinstance(metric, Histogram) else ("",)
    return (name + suffix for name in metric.names for suffix in suffixes)
