"""The replicas of a pool from the status of its object and of its pods, or the reason why they are unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynamo_planner.core.snapshot import Replicas
from dynamo_planner.executors.kubernetes.pod_conditions import seconds
from dynamo_planner.executors.kubernetes.pods import PodGroup
from dynamo_planner.executors.kubernetes.troubles import Trouble, lasting

LATE_AFTER_S = 60.0
"""A pod that is still there this long after its grace period is reported (seconds)."""


@dataclass(frozen=True)
class ReplicaReport:
    """What an object reports of its replicas.

    Args:
        target: The requested replicas.
        ready: The ready ones; ``None`` where the object does not count them, and its pods do.
        blocked: Why its controller cannot create pods, and since when, or ``None``.
        rollout: Why its rollout is not waited for, and since when, or ``None``.
    """

    target: int
    ready: int | None
    blocked: Trouble | None = None
    rollout: Trouble | None = None


class ReplicasUnknownError(Exception):
    """The replicas of a pool are unknown, because no number of the object can be trusted now; the message says why.

    Args:
        message: Why.
        code: The code of the reason where this lasts.
        since_s: Since when (Unix seconds), where the object says it.
        otherwise: What the object reports all the same, for a rollout that is waited for no longer.
    """

    def __init__(
        self,
        message: str,
        code: str = "ReplicasUnknown",
        since_s: float | None = None,
        otherwise: ReplicaReport | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.since_s, self.otherwise = code, since_s, otherwise


MALFORMED = (KeyError, TypeError, ValueError, AttributeError)
"""Exceptions from reading an object of an unexpected form."""


@dataclass(frozen=True)
class CountedReplicas:
    """The replicas of a pool, the troubles that they have, and which of them keep replicas from starting for good."""

    replicas: Replicas
    troubles: tuple[Trouble, ...] = ()
    failed: tuple[Trouble, ...] = ()


def check_observed(obj: Mapping[str, Any]) -> None:
    """Raise :class:`ReplicasUnknownError` where the status is of an older generation than the spec."""
    status, generation = obj.get("status") or {}, obj["metadata"].get("generation")
    observed = status.get("observedGeneration")
    if not status:
        raise ReplicasUnknownError("it has no status yet", "StatusStale")
    if observed is not None and generation is not None and observed < generation:
        said = f"its status is of generation {observed}, and its spec of generation {generation}"
        raise ReplicasUnknownError(said, "StatusStale")


def check_not_deleted(obj: Mapping[str, Any]) -> None:
    """Raise :class:`ReplicasUnknownError` where an object is being deleted: no one scales it any more."""
    since = obj["metadata"].get("deletionTimestamp")
    if since:
        raise ReplicasUnknownError("it is being deleted, and left alone", "TargetDeleted", seconds(since))


def rollout_error(what: str, report: ReplicaReport, since_s: float | None = None) -> ReplicasUnknownError:
    """The error for a rollout that is waited for."""
    return ReplicasUnknownError(f"a rollout is in progress ({what})", "RolloutInProgress", since_s, report)


def condition(obj: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition of an object's status; empty where it has none of that type."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == kind), {})


def count_replicas(
    report: ReplicaReport,
    groups: Sequence[PodGroup] | None,
    *,
    at_s: float,
    failed_after_s: float,
    target_since_s: float,
) -> CountedReplicas:
    """The replicas of a pool.

    Replicas that are neither ready nor failed are starting: those of which there are pods since these were created, or
    since they stopped being ready; the others since ``target_since_s``, when they were first missing. Draining are
    pods that terminate, and those of a rollout beyond the target: they hold GPUs. Pods that should have ended long ago
    do not. ``groups`` is ``None`` where pods cannot be listed: then since when is unknown, and nothing is known to have
    failed or to be draining.

    Raises :class:`ReplicasUnknownError` where neither the object nor its pods count the ready ones.
    """
    if groups is None:
        if report.ready is None:
            raise ReplicasUnknownError("its status has no number of ready replicas, and its pods cannot be listed")
        starting = max(0, report.target - report.ready)
        since_s = None if starting else ()
        return CountedReplicas(
            Replicas(ready=report.ready, starting=starting, starting_since_s=since_s, target=report.target),
            troubles=tuple(each for each in (report.blocked, report.rollout) if each),
        )
    here = [group for group in groups if not group.terminating]
    leaving = [group for group in groups if group.terminating]
    overdue = [group for group in leaving if group.overdue(at_s, failed_after_s)]
    ready = report.ready if report.ready is not None else sum(group.ready for group in here)
    failing = [group for group in here if not group.ready and group.failed(at_s, failed_after_s)]
    blocked = report.blocked
    gives_up = blocked is not None and at_s - blocked.since_s > failed_after_s
    uncreated = max(0, report.target - len(here))
    failed = max(0, min(len(failing) + (uncreated if gives_up else 0), report.target - ready))
    starting = max(0, report.target - ready - failed)
    surplus = max(0, len(here) - max(report.target, ready))
    late = [group for group in leaving if group.overdue(at_s, min(failed_after_s, LATE_AFTER_S))]
    found = [group.trouble for group in (*here, *late) if group.trouble is not None]
    troubles = lasting(found, at_s, failed_after_s)
    if blocked is not None:
        troubles += [blocked] * max(1, uncreated)
    return CountedReplicas(
        Replicas(
            ready=ready,
            starting=starting,
            starting_since_s=_starting_since(here, failing, starting, ready, target_since_s),
            failed=failed,
            draining=len(leaving) - len(overdue) + surplus,
            target=report.target,
        ),
        troubles=tuple(troubles) + ((report.rollout,) if report.rollout else ()),
        failed=tuple(trouble for trouble in (*(group.trouble for group in failing), blocked) if trouble)[:failed],
    )


def _starting_since(
    here: Sequence[PodGroup], failing: Sequence[PodGroup], starting: int, ready: int, missing_since_s: float
) -> tuple[float, ...]:
    """Since when each starting replica has been starting, oldest first.

    Those that are not ready by their pods come first; then those that the object does not count as available yet,
    such as within ``minReadySeconds``, the last that became ready first; then those without pods.
    """
    begun = [group.since_s for group in here if not group.ready and group not in failing]
    latest = sorted((group for group in here if group.ready), key=lambda group: -(group.ready_since_s or 0.0))
    early = max(0, len(latest) - ready)
    since_s = [*begun, *(group.started_s for group in latest[:early])][:starting]
    return tuple(sorted([*since_s, *[missing_since_s] * (starting - len(since_s))]))
