"""A backtest over several processes."""

from __future__ import annotations

from dynamo_planner.evaluation.backtest import backtest
from tests.support.backtests import CLUSTER, POLICIES, SLA, TRACE


def test_side_by_side_gives_the_same_and_tells_how_far_it_is() -> None:
    report = backtest(POLICIES, TRACE, CLUSTER, sla=SLA, processes=1)
    told: dict[str, float] = {}
    other = backtest(POLICIES, TRACE, CLUSTER, sla=SLA, processes=2, progress=told.__setitem__)
    assert other.as_data() == report.as_data()
    assert told == dict.fromkeys(POLICIES, 1.0)
