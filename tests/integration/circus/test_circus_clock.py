"""A clock of the system that is stepped: durations go on, and the next planner counts from where the last one did."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from dynamo_planner import ScaleTo

if TYPE_CHECKING:
    from tests.support.circus.place import Place


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_clock_that_is_set_ends_no_drain_and_delays_no_restart(place: Place, step_s: float) -> None:
    stepped = [0.0]
    pools = {
        "drains": place.pool(drain_s=1.5, graceful_timeout_s=60),
        "crashes": place.pool(replicas=0, die_after_s=0.5, restart_backoff_s=1.0),
    }

    def clock() -> float:
        return time.time() + stepped[0]

    with place.executor(pools=pools, clock=clock) as executor:
        place.settled(executor, drains=1)
        (draining,) = executor.workers()
        executor.apply([ScaleTo(pool="drains", replicas=0), ScaleTo(pool="crashes", replicas=1)])
        place.until(lambda: executor.observe()["crashes"] == place.replicas(ready=0, failed=1))
        stepped[0] = step_s
        place.until(lambda: (found := executor.observe()["crashes"]) and found.failed == 0, within_s=8)
        since = next(info.since_s for info in executor.workers() if info.pool == "crashes")
        assert abs(since - clock()) < 10, "what is shown is by the clock as it is set now"
        place.until(lambda: executor.observe()["drains"] == place.replicas(ready=0))
        assert "bye" in draining.log.read_text(), "it was not killed"


def test_the_next_planner_counts_from_where_the_last_one_did(place: Place) -> None:
    now, wall = [0.0], [5000.0]
    pools = {"decode": place.pool(die_after_s=0.0, restart_backoff_s=100)}

    def clocks() -> dict[str, object]:
        return {"clock": lambda: wall[0], "steady": lambda: now[0]}

    first = place.executor(pools=pools, **clocks()).start()
    place.until(lambda: first.observe()["decode"] == place.replicas(ready=0, failed=1))
    first.detach()
    now[0], wall[0] = 99.0, 2.0  # set back by more than an hour
    with place.executor(pools=pools, **clocks()) as second:
        assert second.observe()["decode"] == place.replicas(ready=0, failed=1)
        now[0] = 100.0
        place.until(lambda: (found := second.observe()["decode"]) and found.starting == 1)
