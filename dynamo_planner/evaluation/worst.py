"""The worst minute of a run: what came, how it was served, what was ready and coming, and what was decided and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from dynamo_planner.core.decision import Decision
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.trace_clock import SECONDS, TraceClock
from dynamo_planner.simulator.results import ReplicaCounts, Served

MINUTE_S = 60.0
BEFORE_S = 300.0
"""How far back the load is taken that the minute is compared with."""


@dataclass(frozen=True)
class WorstMinute:
    """The minute of a run in which most requests missed a target; the first one where none did.

    ``print`` it, or show it in a notebook, for the story.

    Args:
        at_s: Its start, in seconds of the trace.
        requests: Requests that arrived in it.
        missed: How many of them missed a target.
        before_per_s: Requests per second over the five minutes before.
        ttft_ms: The 95th percentile of their TTFT; ``nan`` where none finished.
        itl_ms: The 95th percentile of their ITL; ``nan`` where none finished.
        replicas: The replicas of each pool when it began: ready, starting and draining.
        decision: The decision in force, with its reasons.
        clock: The clock of the trace; seconds by default.
    """

    at_s: float
    requests: int
    missed: int
    before_per_s: float
    ttft_ms: float
    itl_ms: float
    replicas: Mapping[str, ReplicaCounts]
    decision: str
    clock: TraceClock = SECONDS

    def __str__(self) -> str:
        pools = ", ".join(
            f"{name} {count.ready} ready" + (f" and {count.starting} starting" if count.starting else "")
            for name, count in self.replicas.items()
        )
        if not self.missed:
            return "no request missed a target in any minute"
        return (
            f"from {self.clock.text(self.at_s)}: {self.missed} of {self.requests} requests missed a target "
            f"({self.requests / MINUTE_S:.1f}/s, after {self.before_per_s:.1f}/s in the five minutes before)\n"
            f"TTFT p95 {self.ttft_ms:.0f} ms, ITL p95 {self.itl_ms:.1f} ms; {pools}\n{self.decision}"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def worst_minute(
    served: Served,
    sla: Sla,
    counts: Sequence[ReplicaCounts],
    decisions: Sequence[Decision],
    start_s: float,
    clock: TraceClock,
) -> WorstMinute:
    """The minute in which most requests missed a target; the first one where none did."""
    missed = ~served.meets(sla)
    minutes = (served.arrival_s // MINUTE_S).astype(int)
    at_s = MINUTE_S * int(np.bincount(minutes[missed]).argmax()) if missed.any() else 0.0
    own = (served.arrival_s >= at_s) & (served.arrival_s < at_s + MINUTE_S)
    before = (served.arrival_s >= at_s - BEFORE_S) & (served.arrival_s < at_s)
    finished = own & np.isfinite(served.finished_s)
    ttft_ms, itl_ms = (
        float(np.quantile(values[finished], 0.95)) if finished.any() else float("nan")
        for values in (served.ttft_ms, served.itl_ms)
    )
    return WorstMinute(
        at_s=at_s,
        requests=int(own.sum()),
        missed=int((own & missed).sum()),
        before_per_s=float(before.sum()) / max(min(at_s, BEFORE_S), 1.0),
        ttft_ms=ttft_ms,
        itl_ms=itl_ms,
        replicas={count.pool: count for count in counts if count.at_s <= at_s},
        decision=_decision_at(decisions, start_s, at_s, clock),
        clock=clock,
    )


def _decision_at(decisions: Sequence[Decision], start_s: float, at_s: float, clock: TraceClock) -> str:
    past = [decision for decision in decisions if decision.at_s - start_s <= at_s]
    if not past:
        return "nothing was decided yet"
    return f"decided at {clock.text(past[-1].at_s - start_s)}:\n{past[-1].explain()}"
