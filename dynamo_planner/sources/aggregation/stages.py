"""How long requests were in each stage of a pool, from what its workers observed over a window."""

from __future__ import annotations

from collections.abc import Sequence

from dynamo_planner.core.metrics import Dist, StageTimes
from dynamo_planner.engines.vocabulary import STAGES
from dynamo_planner.sources.aggregation.traffic import FIRST_SCRAPE, NOTHING_FINISHED, why_unknown
from dynamo_planner.sources.aggregation.window import WindowTotals, WorkerHistory, to_dist


def stage_times(window: WindowTotals | None, observed: Sequence[WorkerHistory]) -> tuple[StageTimes, dict[str, str]]:
    """The stage times of the workers that answered, and for each one that is unknown, why."""
    known: dict[str, Dist] = {}
    missing: dict[str, str] = {}
    for stage in STAGES:
        data = window.histograms.get(stage) if window else None
        dist = to_dist(data) if data else None
        if dist is not None:
            known[stage] = dist
        elif data is not None:
            missing[stage] = (window and window.doubt) or NOTHING_FINISHED
        else:
            missing[stage] = (window and window.doubt) or why_unknown(stage, observed) or FIRST_SCRAPE
    return StageTimes.unchecked(**known), missing
