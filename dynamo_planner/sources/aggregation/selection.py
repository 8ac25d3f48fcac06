"""The series of a metric on a page, and what they are together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from dynamo_planner.engines.metric_kinds import HISTOGRAM_SUFFIXES, Counter, Gauge, Histogram, Info, Product, Ratio
from dynamo_planner.sources.series import Labels, Page, Series

LARGEST = 1e18
"""No count, sum of tokens or sum of times in a worker's life gets here; a value that does is unknown."""

Where = Mapping[str, tuple[str, ...]]


class UnknownQuantityError(Exception):
    """A page does not tell a quantity; the message says why."""


class AbsentError(UnknownQuantityError):
    """None of the names of a metric is on the page."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        super().__init__(f"{' or '.join(self.names)} is not on its page")


class NothingNewError(UnknownQuantityError):
    """The list that would tell it has no items since it was last read."""


def possible(name: str, value: float) -> float:
    """A value that can be: a number, not negative, and not beyond all measure."""
    if not 0 <= value <= LARGEST:
        raise UnknownQuantityError(f"{name} is {value:g}, which it cannot be")
    return value


def gauge(page: Page, metric: Gauge | Ratio | Product | Info) -> float:
    """The value of a metric that is as it is now."""
    if isinstance(metric, Ratio):
        part, whole = gauge(page, metric.part), gauge(page, metric.whole)
        if whole == 0:
            raise UnknownQuantityError(f"{metric.whole.names[0]} is 0, and nothing is a share of it")
        return part / whole
    if isinstance(metric, Product):
        return math.prod(gauge(page, factor) for factor in metric.factors)
    if isinstance(metric, Info):
        name, series = _series(page, metric.names, {})
        return possible(name, sum(_product(name, labels, metric.labels) for labels in series))
    return possible(
        metric.names[0],
        metric.scale
        * (
            _together(page, metric, metric.names)
            + sum(_together(page, metric, names) for names in metric.plus)
            - sum(_together(page, metric, names) for names in metric.minus)
        ),
    )


def _together(page: Page, metric: Gauge, names: tuple[str, ...]) -> float:
    name, series = _series(page, names, metric.where)
    values = list(_once(name, series, metric.copies).values())
    if metric.across == "last" and values:
        return values[-1]
    return math.fsum(values) / (len(values) if metric.across == "mean" and values else 1)


def counter(page: Page, metric: Counter) -> tuple[str, Series]:
    """The name that is on the page, and its series; those of several names that are added stand beside each other."""
    first, series = _series(page, metric.names, metric.where, counts=True)
    found = _once(first, series, metric.copies)
    for names in metric.plus:
        name, series = _series(page, names, metric.where, counts=True)
        more = _once(name, series, metric.copies)
        found = found | {(*labels, ("__name__", name)): value for labels, value in more.items()}
    return first, found


def histogram(page: Page, metric: Histogram) -> tuple[str, dict[str, Series]]:
    """The name that is on the page, and the series of each of its samples that is."""
    for samples_needed in (True, False):
        for name in metric.names:
            samples = {suffix: page[name + suffix] for suffix in HISTOGRAM_SUFFIXES if name + suffix in page}
            if any(samples.values()) if samples_needed else samples:
                return name, {suffix: _where(name, series, metric.where) for suffix, series in samples.items()}
    raise AbsentError(metric.names)


def _series(page: Page, names: tuple[str, ...], where: Where, *, counts: bool = False) -> tuple[str, Series]:
    """The newest name that has samples on the page, and those that are picked.

    What counts may be on the page by name alone, and none of its samples be picked: nothing was counted yet.
    """
    if names[0].startswith("/"):
        return names[0], _items(page, names, where)
    for name in names:
        if page.get(name):
            picked = _where(name, page[name], where)
            if not picked and not counts:
                raise UnknownQuantityError(f"{name} has no sample with {_told(where)}")
            return name, picked
    for name in names:
        if counts and name in page:
            return name, {}
    raise AbsentError(names)


def _items(page: Page, names: tuple[str, ...], where: Where) -> Series:
    """The values of those items of a JSON list that are picked, each of which must have one."""
    name = next((name for name in names if name in page), names[0])
    every = page.get(f"{name.partition(':')[0]}:")
    if every is None:
        raise AbsentError(names)
    if not every:
        raise NothingNewError(f"{name} has not been told since the page was last read")
    picked = _where(name, every, where)
    values = page.get(name, {})
    if picked.keys() - values.keys():
        raise AbsentError(names)
    return {labels: values[labels] for labels in picked}


def _where(name: str, series: Series, where: Where) -> Series:
    for label, values in where.items():
        if "" not in values and series and not any(label == each for labels in series for each, _ in labels):
            raise UnknownQuantityError(f"{name} has no label {label}")
    return {labels: value for labels, value in series.items() if _picked(dict(labels), where)} if where else series


def _picked(labels: Mapping[str, str], where: Where) -> bool:
    return all(labels.get(label, "") in values for label, values in where.items())


def _told(where: Where) -> str:
    return " and ".join(f"{label}={' or '.join(repr(value) for value in values)}" for label, values in where.items())


def _once(name: str, series: Series, copies: tuple[str, ...]) -> Series:
    """The series without the labels that only tell copies apart; the largest of each counts."""
    for value in series.values():
        possible(name, value)
    if not copies:
        return series
    found: Series = {}
    for labels, value in series.items():
        key = tuple(pair for pair in labels if pair[0] not in copies)
        found[key] = max(value, found.get(key, 0.0))
    return found


def _product(name: str, labels: Labels, wanted: Iterable[str]) -> float:
    given = dict(labels)
    product = 1.0
    for label in wanted:
        try:
            product *= float(given[label])
        except (KeyError, ValueError):
            raise UnknownQuantityError(f"{name} has {label}={given.get(label)!r}, which is no number") from None
    return product
