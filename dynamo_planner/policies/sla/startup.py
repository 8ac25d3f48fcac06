"""Start-up: the part that learns how long a start takes, with the spec's ``startup_s`` as a prior."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import SerializeAsAny

from dynamo_planner.core.component import Kinds
from dynamo_planner.core.decision import Reason
from dynamo_planner.core.snapshot import STUCK_AFTER_STARTUPS, Replicas
from dynamo_planner.policies.sla.part import Part
from dynamo_planner.policies.sla.tick import REPORTED_CHANGE, Tick, reason

PRIOR_STARTS = 2.0
"""The spec weighs as much as this many observed starts."""

MAX_STARTS = 20.0
"""The average has the memory of this many starts; older ones fade."""

MAX_RATIO = 10.0
"""Starts are planned with at least the spec over this, and at most this many times it."""

MAX_TRACKED_STARTS = 256
"""Starts under way that are followed at once, so that the state stays small."""


class Startup(Part):
    """How long a start of a pool takes."""

    @abstractmethod
    def watch(self, state: Any, replicas: Replicas, at_s: float, prior_s: float) -> Any:
        """The state after a look at the replicas, at ``at_s`` in Unix seconds; ``prior_s`` is what the spec says."""

    @abstractmethod
    def planned_s(self, state: Any, prior_s: float) -> float:
        """Seconds that a start is planned to take; ``prior_s`` is what the spec says."""


class Starts(NamedTuple):
    """The starts of a pool that were observed.

    Args:
        starts: How many were observed to end, up to :data:`MAX_STARTS`.
        mean_s: How long they took on average, in seconds.
        deviation_s: Their mean absolute deviation, in seconds.
        since_s: Since when those run that were under way at the last tick, in Unix seconds.
        ready: The ready replicas at the last tick.
        at_s: When that was, in Unix seconds; ``None`` before the first.
    """

    starts: float = 0.0
    mean_s: float = 0.0
    deviation_s: float = 0.0
    since_s: tuple[float, ...] = ()
    ready: int = 0
    at_s: float | None = None


class ObservedStartup(Startup, kind="observed"):
    """The average of the starts that were seen to begin and to end, and their deviation.

    What is not ready any more is no start: one that shows up older than it can be, by more than a start-up time since
    the last look, is not followed. One start counts as at most three times what is planned, after which it would be
    stuck, and the plan stays within a tenth and ten times of the spec: a wrong time would be held for days.
    """

    state_type: ClassVar[Any] = Starts

    def watch(self, state: Starts | None, replicas: Replicas, at_s: float, prior_s: float) -> Starts:
        """The observed starts with those that ended since the last tick: the oldest, as many as replicas became ready.

        They ended between the two ticks, and count as ended at the later one, which is the safe side.
        """
        before = state or Starts()
        planned_s = self.planned_s(state, prior_s)
        oldest_s = (at_s if before.at_s is None else before.at_s) - planned_s
        running_s = (replicas.starting_since_s or ())[:MAX_TRACKED_STARTS]
        since_s = tuple([start_s for start_s in running_s if start_s >= oldest_s or start_s in before.since_s])
        starts, mean_s, deviation_s = before.starts, before.mean_s, before.deviation_s
        running = list(since_s)
        ended = []
        for start_s in before.since_s:
            if start_s in running:
                running.remove(start_s)
            else:
                ended.append(start_s)
        for start_s in ended[: max(replicas.ready - before.ready, 0)]:
            took_s = min(max(at_s - start_s, 0.0), STUCK_AFTER_STARTUPS * planned_s)
            starts = min(starts + 1, MAX_STARTS)
            off_s = took_s - mean_s
            mean_s += off_s / starts
            deviation_s += (abs(off_s) * (starts > 1) - deviation_s) / starts
        return Starts(starts, mean_s, deviation_s, since_s, replicas.ready, at_s)

    def planned_s(self, state: Starts | None, prior_s: float) -> float:
        """The average, with the spec as a prior, plus a mean deviation; within ten times of the spec.

        With a prior of 120 s and 4 starts of 60 s, 5 s apart: ``(2 * 120 + 4 * 60) / 6 + 5 = 85``.
        """
        seen = state or Starts()
        mean_s = (PRIOR_STARTS * prior_s + seen.starts * seen.mean_s) / (PRIOR_STARTS + seen.starts)
        return min(max(mean_s + seen.deviation_s, prior_s / MAX_RATIO), MAX_RATIO * prior_s)


def coming(replicas: Replicas, at_s: float, startup_s: float) -> tuple[list[float], int]:
    """The seconds until each start should be ready, and how many starts are stuck: too old to be counted on."""
    if replicas.starting_since_s is None:
        return [startup_s] * replicas.starting, 0
    ages_s = [at_s - since_s for since_s in replicas.starting_since_s]
    in_time = [age_s for age_s in ages_s if age_s <= STUCK_AFTER_STARTUPS * startup_s]
    return [max(startup_s - age_s, 0.0) for age_s in in_time], len(ages_s) - len(in_time)


def startup_reasons(tick: Tick) -> list[Reason]:
    """That starts take another time than the spec says, where they do."""
    prior_s = tick.pool.spec.startup_s
    if abs(tick.lead_s - prior_s) <= REPORTED_CHANGE * prior_s:
        return []
    message = f"starts are planned to take {tick.lead_s:.0f} s, not {prior_s:.0f} s"
    return [reason("StartupLearned", tick.name, message, lead_s=tick.lead_s)]


STARTUPS = Kinds(
    "startup",
    Startup,
    "dynamo_planner.sla.startup",
    {"observed": "dynamo_planner.policies.sla.startup:ObservedStartup"},
    default="observed",
)

AnyStartup = Annotated[SerializeAsAny[Startup], STARTUPS.validator()]
"""A field that holds a start-up part of any kind: one that is built, or its data."""
