"""Everything that watches one planner, fed with its steps."""

from __future__ import annotations

from collections.abc import Callable

from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.health import Health
from dynamo_planner.runtime.metrics import PlannerMetrics


class Monitor:
    """Metrics and health of a planner that steps every ``interval_s``.

    ``leading`` tells whether this planner leads, where several elect a leader; it is asked from other threads.
    """

    def __init__(self, interval_s: float, leading: Callable[[], bool] | None = None) -> None:
        self.metrics = PlannerMetrics(leading)
        self.health = Health(interval_s, leading)

    def record(self, step: Step) -> None:
        """Take a step in."""
        self.metrics.record(step)
        self.health.record(step)
