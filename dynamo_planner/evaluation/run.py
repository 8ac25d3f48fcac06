"""A run of one policy in a backtest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dynamo_planner.core.decision import Decision
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.score import Score
from dynamo_planner.evaluation.trace_clock import TraceClock
from dynamo_planner.evaluation.worst import WorstMinute, worst_minute
from dynamo_planner.simulator.results import ReplicaCounts, Served, WorkerLifecycle
from dynamo_planner.workloads.tables import seconds_from


@dataclass(frozen=True, repr=False)
class Run:
    """One policy on one trace: how requests were served, the history of workers, and the decisions.

    Times are seconds of the trace, but for ``at_s`` of a decision, which counts from ``start_s``.

    Args:
        name: the name of the policy.
        served: the requests.
        counts: the replicas of each pool whenever they changed.
        workers: all workers, in the order of their launches.
        decisions: those that changed something or gave other reasons than the one before, without their states.
        start_s: when the trace began, in Unix seconds.
        end_s: the length of the trace.
        score: the run in numbers.
        sla: the targets.
        start: when second 0 of the trace was, with its time zone; unknown by default.
    """

    name: str
    served: Served
    counts: Sequence[ReplicaCounts]
    workers: Sequence[WorkerLifecycle]
    decisions: Sequence[Decision]
    start_s: float
    end_s: float
    score: Score
    sla: Sla
    start: datetime | None = None

    @property
    def clock(self) -> TraceClock:
        """The clock of the trace."""
        return TraceClock(self.start)

    def explain(self, begin: float | str | datetime, end: float | str | datetime) -> str:
        """The decisions between two times of the trace, with their reasons.

        Both are seconds of the trace or, where its ``start`` is known, datetimes or ISO 8601.
        """
        from_s, to_s = (seconds_from(self.start, moment) for moment in (begin, end))
        lines = []
        for decision in self.decisions:
            at_s = decision.at_s - self.start_s
            if from_s <= at_s < to_s:
                lines.append(self.clock.text(at_s))
                lines += [f"  {line}" for line in decision.explain().splitlines()]
        return "\n".join(lines) or f"nothing new was decided from {self.clock.text(from_s)} to {self.clock.text(to_s)}"

    @property
    def held_throughout(self) -> tuple[str, ...]:
        """The pools for which no decision had a target: ``run.decisions[-1].explain()`` says why."""
        decided = {pool for decision in self.decisions for pool in decision.targets}
        return tuple(pool for pool in dict.fromkeys(count.pool for count in self.counts) if pool not in decided)

    def worst(self) -> WorstMinute:
        """The minute in which most requests missed a target: what came, what was there, what was decided and why."""
        return worst_minute(self.served, self.sla, self.counts, self.decisions, self.start_s, self.clock)

    def __repr__(self) -> str:
        score = self.score
        return f"Run({self.name!r}: {score.attainment:.2%} in time, {score.gpu_hours:.1f} GPU-hours, see .score)"
