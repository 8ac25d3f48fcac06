"""A search for the cheapest schedule that attains an SLA, each candidate evaluated by simulation.

A candidate takes a whole simulation, so about a hundred must do: a bisection of few steps over a factor for each shape,
and a coordinate descent from the best. The optimisers of scipy need thousands, and know no integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Plan: TypeAlias = Mapping[str, NDArray[np.int64]]
"""Replicas that are to be ready in each slot of time, by pool."""

LEAST_FACTOR, MOST_FACTOR = 0.7, 6.0
FACTOR_STEPS = 6
SCALING_SHARE = 0.7
"""The share of the budget for scaling shapes, before the best of them is trimmed."""

TRIM_SHARE = 0.08
BLOCKS = (1, 3, 8, 20)
"""The local search takes replicas away over all the time, then over a third of it, and so on."""


class PlanResult(NamedTuple):
    """The result of a plan.

    Args:
        attainment: the share of requests that it serves in time.
        gpu_s: the GPU seconds that it is billed.
    """

    attainment: float
    gpu_s: float


class SearchResult(NamedTuple):
    """The cheapest plan that a search found, and its result."""

    plan: Plan
    result: PlanResult


class _BudgetSpent(Exception):  # noqa: N818  # it ends a search, and is no error
    pass


class ScheduleSearch:
    """A search for the cheapest plan with an attainment.

    Args:
        evaluate: evaluates a plan.
        attainment: the share of requests that a plan has to serve in time.
        budget: how many plans may be evaluated.
        bounds: the least and the most replicas of each pool; ``None`` is no limit.
    """

    def __init__(
        self,
        evaluate: Callable[[Plan], PlanResult],
        attainment: float,
        *,
        budget: int,
        bounds: Mapping[str, tuple[int, int | None]],
    ) -> None:
        self._evaluate, self._attainment, self._budget, self._bounds = evaluate, attainment, budget, bounds
        self._limit = budget
        self._known: dict[bytes, PlanResult] = {}
        self._best: SearchResult | None = None

    def run(self, shapes: Sequence[Mapping[str, Floats]]) -> SearchResult | None:
        """Scale each shape until it is good enough, take the cheapest, and trim it.

        A shape gives the replicas of each pool over time, up to a factor. ``None`` where no plan that was evaluated is
        good enough.
        """
        self._limit = round(SCALING_SHARE * self._budget)
        with suppress(_BudgetSpent):
            for shape in shapes:
                self._scale(shape)
        self._limit = self._budget
        with suppress(_BudgetSpent):
            self._trim()
        return self._best

    @property
    def evaluated(self) -> int:
        """How many plans were evaluated."""
        return len(self._known)

    def _result(self, plan: Plan) -> PlanResult:
        key = b"".join(plan[name].tobytes() for name in sorted(plan))
        if key not in self._known:
            if len(self._known) >= self._limit:
                raise _BudgetSpent
            result = self._known[key] = self._evaluate(plan)
            good = result.attainment >= self._attainment
            if good and (self._best is None or result.gpu_s < self._best.result.gpu_s):
                self._best = SearchResult(plan, result)
        return self._known[key]

    def _good(self, plan: Plan) -> bool:
        return self._result(plan).attainment >= self._attainment

    def _at(self, shape: Mapping[str, Floats], factors: Mapping[str, float]) -> Plan:
        plan = {}
        for name, replicas in shape.items():
            low, high = self._bounds[name]
            plan[name] = np.clip(np.ceil(replicas * factors[name] - 1e-9), low, high).astype(np.int64)
        return plan

    def _scale(self, shape: Mapping[str, Floats]) -> None:
        """The least factor of each pool with the others ample, and then a common one for all."""
        ample = dict.fromkeys(shape, MOST_FACTOR)
        if not self._good(self._at(shape, ample)):
            return
        alone = {name: self._least(shape, name) for name in shape}
        if len(shape) > 1:
            for more in (1.0, 1.03, 1.07, 1.12, 1.2, 1.35, 1.6, 2.0):
                if self._good(self._at(shape, {name: factor * more for name, factor in alone.items()})):
                    break

    def _least(self, shape: Mapping[str, Floats], name: str) -> float:
        """The least factor of one pool, with ample replicas in the others."""
        low, high = np.log(LEAST_FACTOR), np.log(MOST_FACTOR)
        for _ in range(FACTOR_STEPS):
            middle = (low + high) / 2
            plan = self._at(shape, {**dict.fromkeys(shape, MOST_FACTOR), name: float(np.exp(middle))})
            low, high = (low, middle) if self._good(plan) else (middle, high)
        return float(np.exp(high))

    def _trim(self) -> None:
        """Take replicas away, one pool and one stretch of time at a time, as long as it stays good enough."""
        changed = True
        while changed and self._best is not None:
            changed = False
            for plan in self._less(self._best.plan):
                before = self._best
                self._result(plan)
                changed |= self._best is not before

    def _less(self, start: Plan) -> Iterator[Plan]:
        slots = len(next(iter(start.values())))
        for blocks in BLOCKS:
            edges = np.linspace(0, slots, min(blocks, slots) + 1).astype(int)
            for name in start:
                for first, last in pairwise(edges):
                    best = self._best.plan if self._best else start
                    cut, lowest = best[name][first:last], self._bounds[name][0]
                    step = max(round(TRIM_SHARE * cut.max()), 1)
                    lowered, capped = np.maximum(cut - step, lowest), np.minimum(cut, max(cut.max() - step, lowest))
                    for candidate in (lowered, capped):
                        if (candidate < cut).any():
                            counts = best[name].copy()
                            counts[first:last] = candidate
                            yield {**best, name: counts}


def work_shapes(work_s_per_s: Floats, slots: int) -> list[Floats]:
    """Shapes from the work that comes in each slot: moving means, and their sliding-window maxima."""
    shapes = []
    for width in (1, 3, 9):
        kernel = np.ones(width) / width
        smooth = np.convolve(work_s_per_s, kernel, "same")
        padded = np.pad(smooth, width, mode="edge")
        shapes.append(np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1).max(axis=1)[:slots])
    return shapes
