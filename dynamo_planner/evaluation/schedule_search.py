"""A search for the cheapest schedule that attains an SLA, each candidate evaluated by simulation.

A candidate takes a whole simulation, so about a hundred must do. Shapes of the work are scaled, by a bisection of few
steps over a factor, and schedules that are known are tried as they are. The cheapest is then trimmed in rounds: a cut
of a few replicas is tried for each pool and each stretch of time by itself, and those that save the most for what they
miss are made together, as many as the target allows. The optimisers of scipy need thousands, and know no integers.
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
"""The target of each pool from each slot of time on."""

LEAST_FACTOR, MOST_FACTOR = 0.7, 6.0
FACTOR_STEPS = 6
SCALING_SHARE = 0.7
"""The share of the budget for scaling shapes, before the best of them is trimmed."""

CUTS = (0.15, 0.08, 0.04)
"""What rounds of trimming take away from a stretch of time, as a share of the most in it; one replica at least."""

MOST_BLOCKS = 24
"""A round tries at most this many stretches of time."""

CHOOSING = 5
"""Plans that a round needs to choose among cuts that were tried."""


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

    def run(self, shapes: Sequence[Mapping[str, Floats]], starts: Sequence[Plan] = ()) -> SearchResult | None:
        """Scale each shape until it is good enough, try the plans to start from, take the cheapest, and trim it.

        A shape gives the targets of each pool over time, up to a factor. ``None`` where no plan that was evaluated is
        good enough.
        """
        self._limit = round(SCALING_SHARE * self._budget)
        with suppress(_BudgetSpent):
            for start in starts:
                self._result(start)
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
        """Rounds of cuts, until none of the sizes of a cut saves anything."""
        number = idle = 0
        while self._best is not None and idle < 2 * len(CUTS):
            before = self._best
            self._round(before, number)
            idle = 0 if self._best is not before else idle + 1
            number += 1

    def _round(self, start: SearchResult, number: int) -> None:
        """Try cuts one by one, and make those together that save the most for what they miss."""
        cuts: list[tuple[float, str, int, NDArray[np.int64]]] = []
        for name, first, cut in self._cuts(start.plan, number):
            result = self._result(_with(start.plan, [(name, first, cut)]))
            saved, missed = start.result.gpu_s - result.gpu_s, start.result.attainment - result.attainment
            if saved > 0:
                cuts.append((max(missed, 0.0) / saved, name, first, cut))
        cuts.sort(key=lambda each: each[0])
        low, high = 0, len(cuts)
        while low < high:
            middle = (low + high + 1) // 2
            together = _with(start.plan, [each[1:] for each in cuts[:middle]])
            low, high = (middle, high) if self._good(together) else (low, middle - 1)

    def _cuts(self, plan: Plan, number: int) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
        """For each pool and stretch of time: its first slot, and fewer replicas in it, all of them or the peaks."""
        slots = len(next(iter(plan.values())))
        blocks = (self._limit - len(self._known) - CHOOSING) // len(plan)
        blocks = max(min(blocks, MOST_BLOCKS, slots), 1)
        shift = (number // len(CUTS)) % 2 * slots // (2 * blocks)
        edges = np.unique([0, *(np.linspace(0, slots, blocks + 1).astype(int)[1:-1] + shift), slots])
        for name, counts in plan.items():
            lowest = self._bounds[name][0]
            for first, last in pairwise(edges.tolist()):
                now = counts[first:last]
                step = max(round(CUTS[number % len(CUTS)] * now.max()), 1)
                cut = np.minimum(now, now.max() - step) if number % 2 else now - step
                cut = np.maximum(cut, lowest)
                if (cut < now).any():
                    yield name, first, cut


def _with(plan: Plan, changes: Sequence[tuple[str, int, NDArray[np.int64]]]) -> Plan:
    """A plan with other targets from some slots on."""
    changed = {name: counts.copy() for name, counts in plan.items()}
    for name, first, counts in changes:
        changed[name][first : first + len(counts)] = counts
    return changed


def work_shapes(work_s_per_s: Floats, slots: int) -> list[Floats]:
    """Shapes from the work that comes in each slot: moving means, and their sliding-window maxima."""
    shapes = []
    for width in (1, 3, 9):
        kernel = np.ones(width) / width
        smooth = np.convolve(work_s_per_s, kernel, "same")
        padded = np.pad(smooth, width, mode="edge")
        shapes.append(np.lib.stride_tricks.sliding_window_view(padded, 2 * width + 1).max(axis=1)[:slots])
    return shapes
