"""Liveness and readiness of a planner, for probes and people.

>>> health = Health(interval_s=10, clock=lambda: 100.0)
>>> health.alive().ok, health.ready().ok
(True, False)
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dynamo_planner.core.values import Frozen
from dynamo_planner.runtime.decision_log import Step

STALLED_AFTER_INTERVALS, STALLED_AFTER_S = 5.0, 60.0
"""A loop that has not finished a step for this long (the longer of the two) does not turn."""

TROUBLES = {
    "SourceFailed": "the source could not be read",
    "ExecutorFailed": "the executor could not be read or could not act",
    "PolicyFailed": "the policy could not decide",
    "ActionsFailed": "all actions failed",
    "StateFileFailed": "the state file could not be written",
}
"""The codes of a step in which the planner could not do its work, in words."""


class ProbeResult(Frozen):
    """The result of a probe.

    Args:
        ok: Whether the probe succeeds.
        message: Why.
        leader: Whether this planner leads; ``None`` without an election.
        last_step_age_s: Seconds since the last step; ``None`` before the first.
        last_successful_step_age_s: Seconds since the last step that succeeded; ``None`` before the first.
    """

    ok: bool
    message: str
    leader: bool | None = None
    last_step_age_s: float | None = None
    last_successful_step_age_s: float | None = None


class Health:
    """Liveness and readiness, from the steps given to :meth:`record`; read from other threads.

    *Alive* while steps are finished, whatever they find: a restart would not bring a metrics server back.
    *Ready* while steps succeed: source, executor and policy could all be called, not all actions failed, and the
    policy's state is in its file. A planner that stands by observes and decides as the leader does, and is ready by the
    same rule, so that a rolling update can wait for it.

    Args:
        interval_s: Seconds from one step to the next.
        leading: Returns whether this planner leads, where several elect a leader.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        interval_s: float,
        leading: Callable[[], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leading = leading
        self._clock = clock
        self._patience_s = max(STALLED_AFTER_S, STALLED_AFTER_INTERVALS * interval_s)
        self._began_s = clock()
        self._stepped_s: float | None = None
        self._succeeded_s: float | None = None
        self._codes: tuple[str, ...] = ()

    def record(self, step: Step) -> None:
        """Record a step."""
        now_s = self._clock()
        codes = {reason.code for reason in step.decision.reasons} & TROUBLES.keys()
        if step.outcomes and all(outcome.status == "failed" for outcome in step.outcomes):
            codes |= {"ActionsFailed"}
        self._stepped_s = now_s
        self._codes = tuple(sorted(codes))
        if not codes:
            self._succeeded_s = now_s

    def alive(self) -> ProbeResult:
        """Whether the loop turns, for ``/healthz``."""
        age_s = self._clock() - (self._began_s if self._stepped_s is None else self._stepped_s)
        if age_s > self._patience_s:
            return self._answer(False, f"no step was finished for {age_s:.0f} s: the loop is stuck")
        return self._answer(True, "the loop turns")

    def ready(self) -> ProbeResult:
        """Whether steps succeed, for ``/readyz``."""
        since_s = self._succeeded_s
        if since_s is None:
            return self._answer(False, f"no step has succeeded yet{self._why()}")
        age_s = self._clock() - since_s
        if age_s > self._patience_s:
            return self._answer(False, f"no step has succeeded for {age_s:.0f} s{self._why()}")
        return self._answer(True, f"the last step had trouble{self._why()}" if self._codes else "steps succeed")

    def _why(self) -> str:
        failed = ", ".join([f"{TROUBLES[code]} ({code})" for code in self._codes])
        return f": {failed}; the log says more" if failed else ""

    def _answer(self, ok: bool, message: str) -> ProbeResult:
        now_s = self._clock()
        return ProbeResult(
            ok=ok,
            message=message,
            leader=self._leading() if self._leading is not None else None,
            last_step_age_s=_age_s(now_s, self._stepped_s),
            last_successful_step_age_s=_age_s(now_s, self._succeeded_s),
        )


def _age_s(now_s: float, then_s: float | None) -> float | None:
    return None if then_s is None else round(now_s - then_s, 3)
