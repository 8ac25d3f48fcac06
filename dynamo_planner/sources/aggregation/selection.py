"""Which series of a page make a metric, and their sum, mean, ratio or product."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from dynamo_planner.engines.metric_kinds import HISTOGRAM_SUFFIXES, Counter, Gauge, Histogram, Info, Product, Ratio
from dynamo_planner.sources.series import Labels, Page, Series

MAX_PLAUSIBLE = 1e18
"""No count, sum of tokens or sum of times in a worker's life gets here; a larger value is unknown."""

MAX_VALUES, MAX_VALUE_CHARS = 5, 80
"""How many values of a label a message has, and how long they are at most."""

HELD_TOLERANCE = 0.02
"""By how much what is held may exceed the size that holds it: both are of slightly different moments."""

Where = Mapping[str, tuple[str, ...]]


class UnknownQuantityError(Exception):
    """A page does not report a quantity; the message says why."""


class AbsentError(UnknownQuantityError):
    """None of the names of a metric is on the page."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        super().__init__(f"{' or '.join(self.names)} is not on its page")


class NoNewItemsError(UnknownQuantityError):
    """The list that reports it has no items since it was last read."""


def is_plausible(value: float) -> bool:
    """Whether a value can be one of a metric: a number, not negative, and not beyond ``MAX_PLAUSIBLE``."""
    return 0 <= value <= MAX_PLAUSIBLE


def require_plausible(name: str, value: float) -> float:
    """The value itself. Raises :class:`UnknownQuantityError` where it is not plausible."""
    if not is_plausible(value):
        raise UnknownQuantityError(f"{name} is {value:g}, which it cannot be")
    return value


def gauge_value(page: Page, metric: Gauge | Ratio | Product | Info) -> float:
    """The present value of a metric that is no counter."""
    if isinstance(metric, Ratio):
        part, whole = gauge_value(page, metric.part), gauge_value(page, metric.whole)
        if whole == 0:
            raise UnknownQuantityError(f"{metric.whole.names[0]} is 0, and nothing is a share of it")
        return part / whole
    if isinstance(metric, Product):
        return math.prod(gauge_value(page, factor) for factor in metric.factors)
    if isinstance(metric, Info):
        name, series = _series(page, metric.names, {})
        return require_plausible(name, sum(_product(name, labels, metric.labels) for labels in series))
    value = metric.scale * (
        _across_series(page, metric, metric.names)
        + sum(_across_series(page, metric, names) for names in metric.plus)
        - sum(_across_series(page, metric, names) for names in metric.minus)
    )
    held = metric.scale * math.fsum(page.get(metric.holds, {}).values()) if metric.holds else 0.0
    if held > value * (1 + HELD_TOLERANCE):
        raise UnknownQuantityError(
            f"{metric.names[0]} is {value:g}, and {metric.holds} sum up to {held:g}: {metric.too_much}"
        )
    return require_plausible(metric.names[0], value)


def _across_series(page: Page, metric: Gauge, names: tuple[str, ...]) -> float:
    name, series = _series(page, names, metric.where)
    values = list(_without_copies(name, series, metric.copies).values())
    if metric.across == "last" and values:
        return values[-1]
    return math.fsum(values) / (len(values) if metric.across == "mean" and values else 1)


def counter_series(page: Page, metric: Counter) -> tuple[str, Series]:
    """The name that is on the page, and its series, with those of the metrics that are added to it (``plus``)."""
    for other in metric.unless:
        if page.get(other):
            raise UnknownQuantityError(f"beside {other}, {metric.names[0]} does not count all")
    first, series = _series(page, metric.names, metric.where, counts=True, rare=metric.rare)
    found = _without_copies(first, series, metric.copies)
    for names in metric.plus:
        name, series = _series(page, names, metric.where, counts=True, rare=metric.rare)
        more = _without_copies(name, series, metric.copies)
        found = found | {(*labels, ("__name__", name)): value for labels, value in more.items()}
    return first, found


def histogram_series(page: Page, metric: Histogram) -> tuple[str, dict[str, Series]]:
    """The name that is on the page, and the series of each of its samples that is."""
    for samples_needed in (True, False):
        for name in metric.names:
            samples = {suffix: page[name + suffix] for suffix in HISTOGRAM_SUFFIXES if name + suffix in page}
            if any(samples.values()) if samples_needed else samples:
                for other in metric.unless:
                    if page.get(other):
                        raise UnknownQuantityError(
                            f"beside {other}, {name} is of several tokens at once; newer releases observe each request"
                        )
                return name, {suffix: _picked(name + suffix, each, metric.where) for suffix, each in samples.items()}
    raise AbsentError(metric.names)


def _series(
    page: Page, names: tuple[str, ...], where: Where, *, counts: bool = False, rare: bool = False
) -> tuple[str, Series]:
    """The newest name that has samples on the page, and its matching samples.

    A metric that ``counts`` may be on the page by name alone, and one that is ``rare`` have no matching samples:
    nothing was counted yet.
    """
    if names[0].startswith("/"):
        return names[0], _items(page, names, where)
    for name in names:
        if page.get(name):
            return name, (_where if rare else _picked)(name, page[name], where)
    for name in names:
        if counts and name in page:
            return name, {}
    raise AbsentError(names)


def _items(page: Page, names: tuple[str, ...], where: Where) -> Series:
    """The values of the matching items of a JSON list, each of which must have one."""
    name = next((name for name in names if name in page), names[0])
    every = page.get(f"{name.partition(':')[0]}:")
    if every is None:
        raise AbsentError(names)
    if not every:
        raise NoNewItemsError(f"{name} has no new items since the page was last read")
    matching = _where(name, every, where)
    values = page.get(name, {})
    if matching.keys() - values.keys():
        raise AbsentError(names)
    return {labels: values[labels] for labels in matching}


def _where(name: str, series: Series, where: Where) -> Series:
    for label, values in where.items():
        if "" not in values and series and not any(label == each for labels in series for each, _ in labels):
            raise UnknownQuantityError(f"{name} has no label {label}")
    return {labels: value for labels, value in series.items() if _matches(dict(labels), where)} if where else series


def _picked(name: str, series: Series, where: Where) -> Series:
    """The matching samples. Raises :class:`UnknownQuantityError` where there are others instead."""
    matching = _where(name, series, where)
    if series and not matching:
        there = {label: sorted({dict(labels).get(label, "") for labels in series}) for label in where}
        raise UnknownQuantityError(
            f"{name} has no sample with {describe_where(where)}; there is {describe_where(there)}"
        )
    return matching


def _matches(labels: Mapping[str, str], where: Where) -> bool:
    return all(labels.get(label, "") in values for label, values in where.items())


def describe_where(where: Mapping[str, Sequence[str]]) -> str:
    """Values of labels for a message, the first few of each.

    >>> describe_where({"lane": ["fast", "slow"]})
    "lane='fast' or 'slow'"
    """
    return " and ".join(f"{label}={_few(values)}" for label, values in where.items())


def _few(values: Sequence[str]) -> str:
    more = f" and {len(values) - MAX_VALUES} more" if len(values) > MAX_VALUES else ""
    return " or ".join(repr(value[:MAX_VALUE_CHARS]) for value in values[:MAX_VALUES]) + more


def _without_copies(name: str, series: Series, copies: tuple[str, ...]) -> Series:
    """One series for those that differ only in the labels ``copies``, with the largest of their values."""
    for value in series.values():
        require_plausible(name, value)
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
