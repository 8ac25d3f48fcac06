"""The kinds of metrics that a vocabulary is made of, each a few words of data.

A name is that of a sample in the Prometheus text format. One that begins with ``/`` is a value in JSON: the page, a
colon, and where it is there (``/slots:n_ctx``, ``/metrics:kvCacheStats.usedNumBlocks``; of a list, in each item).

Several series of one name (label sets) are one quantity. ``where`` picks some by their labels: a label must have one of
the values, and ``""`` stands for having none. Series that differ only in the labels ``copies`` report the same value
several times, say from each rank of a tensor parallel engine, and the largest counts. What is left is summed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
"""The names that a metric has had, newest first; the first one on a page is read. A single name needs no list."""

Scale = Annotated[float, Field(gt=0)]
"""What a value is multiplied by to be in the quantity's unit: 1000 from seconds to milliseconds."""


class _Series(Frozen):
    """What metrics out of series have in common.

    Args:
        names: the names that the metric has had, newest first.
        where: values of labels that a series must have; by default every series counts.
        copies: labels in which series of the same value differ; by default none.
    """

    names: Names
    where: ReadOnly[str, Names] = Field(default_factory=FrozenMap)
    copies: tuple[str, ...] = ()


class _Sum(_Series):
    """A metric to which others are added.

    Args:
        plus: the names of further metrics that are added; every one of them must be on the page.
    """

    plus: tuple[Names, ...] = ()

    def samples(self) -> Iterator[str]:
        """The names of the samples that it consists of."""
        for names in (self.names, *self.plus):
            yield from names


class Gauge(_Sum):
    """A present value.

    Args:
        names, where, copies, plus: as for every sum of series.
        minus: the names of metrics that are subtracted; every one of them must be on the page.
        across: what several label sets (say, one for each engine of a worker) make together: their ``sum``, their
            ``mean``, or, for items of a JSON list, the ``last`` one.
        scale: what the value is multiplied by, by default 1.
        holds: the name of a metric whose sum fits into it; where it does not, by more than a few moments' difference,
            the value is not what it says, and unknown. By default there is none.
        too_much: what it means where it does not fit, for the message; nothing by default.
    """

    kind: Literal["gauge"] = "gauge"
    minus: tuple[Names, ...] = ()
    across: Literal["sum", "mean", "last"] = "sum"
    scale: Scale = 1.0
    holds: str | None = None
    too_much: str = ""

    def samples(self) -> Iterator[str]:
        """The names of the samples that it consists of."""
        yield from super().samples()
        for names in self.minus:
            yield from names
        if self.holds is not None:
            yield self.holds


class Counter(_Sum):
    """A number that only grows while its process lives.

    Args:
        names, where, copies, plus: as for every sum of series.
        numbered: the name of consecutive numbers in a JSON list that each reader empties; the counter is then what
            happened since the last read, and unknown where a number is skipped. By default there is no such list.
        rare: whether series that ``where`` picks appear with the first such event, so that none of them is 0. By
            default it is unknown where ``where`` picks nothing.
        unless: names of metrics beside which it does not count what it says, so that it is unknown; none by default.
    """

    kind: Literal["counter"] = "counter"
    numbered: str | None = None
    rare: bool = False
    unless: tuple[str, ...] = ()

    def samples(self) -> Iterator[str]:
        """The names of the samples that it consists of."""
        yield from super().samples()
        yield from self.unless
        if self.numbered is not None:
            yield self.numbered


class Histogram(_Series):
    """A Prometheus histogram: ``name_count``, ``name_sum`` and, where there are any, ``name_bucket``.

    Args:
        names, where, copies: as for every series.
        unless: names of metrics beside which it is not what it says, so that the quantity is unknown; none by default.
        scale: what observed values are multiplied by, by default 1.
    """

    kind: Literal["histogram"] = "histogram"
    unless: tuple[str, ...] = ()
    scale: Scale = 1.0

    def samples(self) -> Iterator[str]:
        """The names of the samples that it consists of."""
        yield from (name + suffix for name in self.names for suffix in HISTOGRAM_SUFFIXES)
        yield from self.unless


class Mean(Frozen):
    """A mean out of two counters, without quantiles.

    Args:
        total: the sum of what was observed.
        count: how often it was observed.
        scale: what the mean is multiplied by, by default 1.
    """

    kind: Literal["mean"] = "mean"
    total: Counter
    count: Counter
    scale: Scale = 1.0

    def samples(self) -> Iterator[str]:
        """The names of the samples that it consists of."""
        yield from self.total.samples()
        yield from self.count.samples()


def mean_of(
    names: Names,
    *,
    plus: tuple[str, ...] = (),
    where: Mapping[str, tuple[str, ...]] | None = None,
    copies: tuple[str, ...] = (),
    scale: float = 1.0,
) -> Mean:
    """The mean of a histogram, without its buckets.

    Args:
        names: the names that the histogram has had, newest first.
        plus: the names of histograms whose sums are added, of what the same requests went through besides.
        where, copies: as for every series.
        scale: what the mean is multiplied by, by default 1.

    >>> list(mean_of(("mine_queue_seconds",)).samples())
    ['mine_queue_seconds_sum', 'mine_queue_seconds_count']
    """
    picked = {"where": FrozenMap(where or {}), "copies": copies}
    return Mean(
        total=Counter(names=_with_suffix(names, "_sum"), plus=tuple((f"{name}_sum",) for name in plus), **picked),
        count=Counter(names=_with_suffix(names, "_count"), **picked),
        scale=scale,
    )


def _with_suffix(names: Names, suffix: str) -> Names:
    return tuple(name + suffix for name in names)


class Info(Frozen):
    """A number in labels: the product of these labels, summed over label sets.

    Args:
        names: the names that the metric has had, newest first.
        labels: the labels that are multiplied.
    """

    kind: Literal["info"] = "info"
    names: Names
    labels: Names

    def samples(self) -> Iterator[str]:
        """The names of the samples that it consists of."""
        yield from self.names


class Ratio(Frozen):
    """One gauge divided by another, each first summed over its label sets.

    Args:
        part: the dividend.
        whole: the divisor.
        above_one: what it means where a share is above 1, for the message; nothing by default.
    """

    kind: Literal["ratio"] = "ratio"
    part: Gauge
    whole: Gauge
    above_one: str = ""

    def samples(self) -> Iterator[str]:
        """The names of the samples that it consists of."""
        yield from self.part.samples()
        yield from self.whole.samples()


class Product(Frozen):
    """A product of gauges, such as blocks and tokens per block.

    Args:
        factors: two gauges or more.
    """

    kind: Literal["product"] = "product"
    factors: Annotated[tuple[Gauge, ...], Field(min_length=2)]

    def samples(self) -> Iterator[str]:
        """The names of the samples that it consists of."""
        for factor in self.factors:
            yield from factor.samples()


Metric = Annotated[Gauge | Counter | Histogram | Mean | Info | Ratio | Product, Field(discriminator="kind")]

HISTOGRAM_SUFFIXES = ("_count", "_sum", "_bucket")
