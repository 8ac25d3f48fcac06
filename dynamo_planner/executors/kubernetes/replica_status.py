"""The replicas of a pool from the status of its object and of its pods, or the reason why they are unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynamo_planner.core.snapshot import Replicas
from dynamo_planner.executors.kubernetes.pods import PodGroup


class ReplicasUnknownError(Exception):
    """The replicas of a pool are unknown, because no number of the object can be trusted now; the message says why."""


MALFORMED = (KeyError, TypeError, ValueError, AttributeError)
"""Exceptions from reading an object of an unexpected form."""


@dataclass(frozen=True)
class ReplicaReport:
    """What an object reports of its replicas.

    Args:
        target: The requested replicas.
        ready: The ready ones; ``None`` where the object does not count them, and its pods do.
        blocked_since_s: Since when its controller cannot create pods (Unix seconds), or ``None``.
    """

    target: int
    ready: int | None
    blocked_since_s: float | None = None


@dataclass(frozen=True)
class CountedReplicas:
    """The replicas of a pool, and why the failed ones cannot start."""

    replicas: Replicas
    troubles: tuple[str, ...] = ()


def check_observed(obj: Mapping[str, Any]) -> None:
    """Raise :class:`ReplicasUnknownError` where the status is of an older generation than the spec."""
    status, generation = obj.get("status") or {}, obj["metadata"].get("generation")
    observed = status.get("observedGeneration")
    if not status:
        raise ReplicasUnknownError("it has no status yet")
    if observed is not None and generation is not None and observed < generation:
        raise ReplicasUnknownError(f"its status is of generation {observed}, and its spec of generation {generation}")


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

    Replicas that are neither ready nor failed are starting: those of which there are pods since these were created,
    the others since ``target_since_s``, when the target was first observed. ``groups`` is ``None`` where pods cannot be
    listed: then since when is unknown, and nothing is known to have failed or to be draining.

    Raises :class:`ReplicasUnknownError` where neither the object nor its pods count the ready ones.
    """
    if groups is None:
        if report.ready is None:
            raise ReplicasUnknownError("its status has no number of ready replicas, and its pods cannot be listed")
        starting = max(0, report.target - report.ready)
        since_s = None if starting else ()
        return CountedReplicas(
            Replicas(ready=report.ready, starting=starting, starting_since_s=since_s, target=report.target)
        )
    here = [group for group in groups if not group.terminating]
    ready = report.ready if report.ready is not None else sum(group.ready for group in here)
    failing = [group for group in here if not group.ready and group.failed(at_s, failed_after_s)]
    blocked = report.blocked_since_s is not None and at_s - report.blocked_since_s > failed_after_s
    uncreated = max(0, report.target - len(here)) if blocked else 0
    failed = max(0, min(len(failing) + uncreated, report.target - ready))
    starting = max(0, report.target - ready - failed)
    begun = [group.since_s for group in here if not group.ready and group not in failing]
    since = sorted([*begun[:starting], *[target_since_s] * (starting - len(begun))])
    troubles = tuple(str(group.trouble) for group in failing[:failed])
    return CountedReplicas(
        Replicas(
            ready=ready,
            starting=starting,
            starting_since_s=tuple(since),
            failed=failed,
            draining=len(groups) - len(here),
            target=report.target,
        ),
        troubles + (("its controller cannot create pods",) if uncreated and failed else ()),
    )
