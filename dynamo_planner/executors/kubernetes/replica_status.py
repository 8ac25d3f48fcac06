"""From what an object and its pods say to the replicas of a pool, or to the reason why they are unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynamo_planner.core.snapshot import Replicas
from dynamo_planner.executors.kubernetes.pods import Group


class UnknownError(Exception):
    """The replicas of a pool are unknown: no number that the object has can be trusted now. The message says why."""


MALFORMED = (KeyError, TypeError, ValueError, AttributeError)
"""What comes of reading an object that has not the form that it should have."""


@dataclass(frozen=True)
class Reading:
    """What an object says of its replicas.

    ``target`` is what it was told to reach. ``ready`` is ``None`` where it does not count them, and its pods do.
    ``blocked_since_s`` is since when its controller has been unable to create pods, where it says so.
    """

    target: int
    ready: int | None
    blocked_since_s: float | None = None


@dataclass(frozen=True)
class Counted:
    """The replicas of a pool, and what keeps the failed ones from starting."""

    replicas: Replicas
    troubles: tuple[str, ...] = ()


def check_observed(thing: Mapping[str, Any]) -> None:
    """Raise :class:`UnknownError` where the status is of an older generation than the spec."""
    status, generation = thing.get("status") or {}, thing["metadata"].get("generation")
    observed = status.get("observedGeneration")
    if not status:
        raise UnknownError("it has no status yet")
    if observed is not None and generation is not None and observed < generation:
        raise UnknownError(f"its status is of generation {observed}, and its spec of generation {generation}")


def condition(thing: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition of an object's status; empty where it has none of that type."""
    conditions = (thing.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each.get("type") == kind), {})


def count(
    reading: Reading, groups: Sequence[Group] | None, *, at_s: float, failed_after_s: float, target_since_s: float
) -> Counted:
    """The replicas of a pool.

    Replicas that are neither ready nor failed are starting: those of which there are pods since these were created,
    the others since ``target_since_s``, when the target was first seen. ``groups`` is ``None`` where pods cannot be
    listed: then since when is unknown, and nothing is known to have failed or to be draining.

    Raises :class:`UnknownError` where neither the object nor its pods count the ready ones.
    """
    if groups is None:
        if reading.ready is None:
            raise UnknownError("its status has no number of ready replicas, and its pods cannot be listed")
        starting = max(0, reading.target - reading.ready)
        since_s = None if starting else ()
        return Counted(
            Replicas(ready=reading.ready, starting=starting, starting_since_s=since_s, target=reading.target)
        )
    here = [group for group in groups if not group.leaving]
    ready = reading.ready if reading.ready is not None else sum(group.ready for group in here)
    failing = [group for group in here if not group.ready and group.failed(at_s, failed_after_s)]
    blocked = reading.blocked_since_s is not None and at_s - reading.blocked_since_s > failed_after_s
    uncreated = max(0, reading.target - len(here)) if blocked else 0
    failed = max(0, min(len(failing) + uncreated, reading.target - ready))
    starting = max(0, reading.target - ready - failed)
    begun = [group.since_s for group in here if not group.ready and group not in failing]
    since = sorted([*begun[:starting], *[target_since_s] * (starting - len(begun))])
    troubles = tuple(str(group.trouble) for group in failing[:failed])
    return Counted(
        Replicas(
            ready=ready,
            starting=starting,
            starting_since_s=tuple(since),
            failed=failed,
            draining=len(groups) - len(here),
            target=reading.target,
        ),
        troubles + (("its controller cannot create pods",) if uncreated and failed else ()),
    )
