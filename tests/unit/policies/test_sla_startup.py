"""How long a start takes, learned: numbers by hand, and what is no start."""

from __future__ import annotations

import pytest

from dynamo_planner import Replicas
from dynamo_planner.policies.sla import ObservedStartup
from dynamo_planner.policies.sla.startup import Starts

PART = ObservedStartup()
PRIOR_S = 120.0


def after(looks: list[tuple[float, int, tuple[float, ...]]], state: Starts | None = None) -> Starts:
    """The state after looks at (time, ready replicas, since when others start)."""
    for at_s, ready, since_s in looks:
        replicas = Replicas(ready=ready, starting=len(since_s), starting_since_s=since_s)
        state = PART.watch(state, replicas, at_s, PRIOR_S)
    assert state is not None
    return state


def test_the_prior_weighs_as_much_as_two_starts() -> None:
    """Starts of 60 and 80 s: (2 * 120 + 140) / 4 = 95 s, and half of the deviation of the second, 20 s."""
    state = after([(0, 1, ()), (10, 1, (10,)), (60, 1, (10,)), (70, 2, ()), (80, 2, (80,)), (160, 3, ())])
    assert (state.starts, state.mean_s, state.deviation_s) == (2, 70, 10)
    assert PART.planned_s(state, PRIOR_S) == pytest.approx(95 + 10)


def test_a_pod_that_was_not_ready_for_a_moment_is_no_start() -> None:
    """Three days old, away at 600 s and back at 630 s: nothing is learned of it."""
    old = -3 * 86_400.0
    state = after([(590, 4, ()), (600, 3, (old,)), (610, 3, (old,)), (630, 4, ())])
    assert state.starts == 0
    assert PART.planned_s(state, PRIOR_S) == PRIOR_S


def test_a_start_that_is_seen_late_is_followed_up_to_a_start_up_time() -> None:
    """It began at 500 s and shows up 90 s later, as where pods are listed rarely."""
    assert after([(0, 1, ()), (590, 1, (500,)), (630, 2, ())]).mean_s == 130


def test_one_slow_start_counts_as_three_times_what_is_planned() -> None:
    """A start of 5,000 s counts as 360 s: (240 + 360) / 3 = 200 s are planned then."""
    state = after([(0, 1, ()), (10, 1, (10,)), (5010, 2, ())])
    assert PART.planned_s(state, PRIOR_S) == 200


def test_the_plan_stays_within_ten_times_of_the_spec() -> None:
    assert PART.planned_s(Starts(20, 86_690, 4000), PRIOR_S) == 1200
    assert PART.planned_s(Starts(20, 0.0, 0.0), 1000.0) == 100


def test_starts_that_end_before_they_are_ready_teach_nothing() -> None:
    """Two start, one is given up at 60 s: the older one counts as the one that became ready."""
    state = after([(0, 1, ()), (10, 1, (10.0,)), (20, 1, (10.0, 20.0)), (60, 1, (10.0,)), (90, 2, ())])
    assert (state.starts, state.mean_s) == (1, 80)
