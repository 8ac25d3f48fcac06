"""A run of one policy in a backtest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynamo_planner.core.decision import Decision
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.score import Score
from dynamo_planner.simulator.results import ReplicaCounts, Served, WorkerLifecycle


@dataclass(frozen=True)
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
    """

    name: str
    served: Served
    counts: Sequence[ReplicaCounts]
    workers: Sequence[WorkerLifecycle]
    decisions: Sequence[Decision]
    start_s: float
    end_s: float
    score: Score

    def explain(self, from_s: float, to_s: float) -> str:
        """The decisions between two times of the trace, with their reasons."""
        lines = []
        for decision in self.decisions:
            at_s = decision.at_s - self.start_s
            if from_s <= at_s < to_s:
                lines.append(f"{at_s:.0f} s")
                lines += [f"  {line}" for line in decision.explain().splitlines()]
        return "\n".join(lines) or f"nothing new was decided from {from_s:g} to {to_s:g} s"

    def worst_minute(self, sla: Sla) -> float:
        """The start, in seconds of the trace, of the minute with the most requests that missed a target."""
        missed = self.served.arrival_s[~self.served.meets(sla)]
        return float(np.bincount((missed // 60).astype(int)).argmax() * 60) if len(missed) else 0.0
