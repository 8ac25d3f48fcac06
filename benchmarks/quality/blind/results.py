"""What became of a window: the best schedule, and each policy beside it; and all windows as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dynamo_planner.evaluation.oracle import Targets

SHORTFALL_PRICE = 10.0
"""What each share of requests below the target adds to a policy's cost, as a share of it: 1 % too few costs 10 %."""

RESAMPLES = 2000


@dataclass(frozen=True)
class Best:
    """The best schedule that is known for a window.

    Args:
        gpu_hours: What it costs.
        attainment: The share of attainable requests that it serves in time.
        found_by: ``search``, or the policy whose targets it came from.
        targets: The schedule.
    """

    gpu_hours: float
    attainment: float
    found_by: str
    targets: Targets


@dataclass(frozen=True)
class Outcome:
    """A policy in a window.

    Args:
        configuration: How it was set.
        attainment: The share of the attainable requests that met both targets.
        gpu_hours: GPU-hours, from launch to release.
        worst_hour: The least share of an hour.
        worst_5_min: The least share of five minutes.
        starts: Launches after the beginning.
    """

    configuration: str
    attainment: float
    gpu_hours: float
    worst_hour: float
    worst_5_min: float
    starts: int

    def priced(self, target: float) -> float:
        """GPU-hours with the price of what was missed."""
        return self.gpu_hours * (1 + SHORTFALL_PRICE * max(target - self.attainment, 0.0))


@dataclass(frozen=True)
class WindowResult:
    """A window, its best schedule (``None`` where none attains the target), and every policy in it."""

    name: str
    group: str
    target: float
    requests: int
    best: Best | None
    outcomes: Mapping[str, Outcome]
    cpu_s: float

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> WindowResult:
        outcomes = {name: Outcome(**outcome) for name, outcome in data["outcomes"].items()}
        best = None if data["best"] is None else Best(**data["best"])
        return cls(**{**data, "outcomes": outcomes, "best": best})


@dataclass(frozen=True)
class Row:
    """A policy over all windows that have a best schedule.

    Args:
        policy: Its name.
        windows: How many windows there are.
        held: The share in which it kept its promise.
        cost: The geometric mean of GPU-hours over the best schedule's, times 1 + 10 x shortfall; ``low`` and ``high``
            are its 95 % interval, by bootstrap over the windows.
        gpu_hours: The same without the price of the shortfall.
        attainment: The mean attainment.
        worst_window: The least attainment of a window.
        worst_hour: The median over the windows of their worst hours.
        worst_5_min: The median over the windows of their worst five minutes.
        starts: The mean number of starts in six hours.
    """

    policy: str
    windows: int
    held: float
    cost: float
    low: float
    high: float
    gpu_hours: float
    attainment: float
    worst_window: float
    worst_hour: float
    worst_5_min: float
    starts: float


def rows(results: Sequence[WindowResult]) -> list[Row]:
    """A row for each policy, the cheapest first."""
    names = list(dict.fromkeys(name for result in results for name in result.outcomes))
    found = (_row(name, [result for result in results if result.best and name in result.outcomes]) for name in names)
    return sorted((row for row in found if row.windows), key=lambda row: row.cost)


def _row(name: str, results: Sequence[WindowResult]) -> Row:
    seen = [result.outcomes[name] for result in results]
    ratios = np.array([o.gpu_hours / r.best.gpu_hours for r, o in zip(results, seen, strict=True) if r.best])
    costs = np.array([o.priced(r.target) / r.best.gpu_hours for r, o in zip(results, seen, strict=True) if r.best])
    if not seen:
        return Row(name, 0, *[np.nan] * 10)
    means = np.random.default_rng(0).choice(np.log(costs), (RESAMPLES, len(costs))).mean(axis=1)
    low, high = np.exp(np.quantile(means, [0.025, 0.975])).tolist()
    return Row(
        policy=name,
        windows=len(seen),
        held=float(np.mean([o.attainment >= r.target for r, o in zip(results, seen, strict=True)])),
        cost=float(np.exp(np.log(costs).mean())),
        low=low,
        high=high,
        gpu_hours=float(np.exp(np.log(ratios).mean())),
        attainment=float(np.mean([o.attainment for o in seen])),
        worst_window=min(o.attainment for o in seen),
        worst_hour=float(np.median([o.worst_hour for o in seen])),
        worst_5_min=float(np.median([o.worst_5_min for o in seen])),
        starts=float(np.mean([o.starts for o in seen])),
    )
