"""The search for the cheapest plan, with formulas in place of simulations."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner.evaluation.schedule_search import Plan, PlanResult, ScheduleSearch

NEED = np.array([1, 1, 2, 5, 5, 2, 1, 1, 3, 3])


def evaluate(plan: Plan) -> PlanResult:
    """A slot is served where each pool has what is needed (decode twice as many)."""
    served = (plan["prefill"] >= NEED) & (plan["decode"] >= 2 * NEED)
    return PlanResult(float(served.mean()), float(plan["prefill"].sum() + plan["decode"].sum()))


def search(budget: int, attainment: float = 1.0) -> ScheduleSearch:
    return ScheduleSearch(evaluate, attainment, budget=budget, bounds={"prefill": (1, None), "decode": (1, 12)})


def test_a_flat_shape_is_scaled_and_trimmed_to_what_is_needed() -> None:
    flat = {"prefill": np.ones(10), "decode": np.ones(10) * 2}
    full = search(budget=400)
    found = full.run([flat])
    assert found is not None
    assert found.result == PlanResult(1.0, 3.0 * NEED.sum())
    assert full.evaluated <= 400


def test_a_share_of_the_slots_may_be_missed() -> None:
    found = search(budget=400, attainment=0.8).run([{"prefill": NEED.astype(float), "decode": 2.0 * NEED}])
    assert found is not None
    assert found.result.attainment >= 0.8
    assert found.result.gpu_s < 3 * NEED.sum()


def test_the_budget_is_kept() -> None:
    few = search(budget=12)
    found = few.run([{"prefill": np.ones(10), "decode": 2 * np.ones(10)}])
    assert found is not None and few.evaluated <= 12


def test_where_nothing_is_good_enough_nothing_is_found() -> None:
    bounded = ScheduleSearch(evaluate, 1.0, budget=50, bounds={"prefill": (1, 4), "decode": (1, 12)})
    assert bounded.run([{"prefill": np.ones(10), "decode": np.ones(10)}]) is None


@pytest.mark.parametrize("budget", [5, 50])
def test_the_same_search_finds_the_same(budget: int) -> None:
    shape = {"prefill": np.ones(10), "decode": 2 * np.ones(10)}
    first, second = (search(budget).run([shape]) for _ in range(2))
    assert (first is None) == (second is None)
    if first and second:
        assert first.result == second.result
