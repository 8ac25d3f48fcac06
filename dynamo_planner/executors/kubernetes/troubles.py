"""What keeps replicas from starting, serving or ending, in the cluster's own words and since when.

==================  ==============================================================================================
code                what it stands for
==================  ==============================================================================================
Unschedulable       the scheduler has no node for a pod (``PodScheduled``: ``Unschedulable``)
SchedulingGated     a pod waits for a gate, such as a gang or a queue with a quota (``PodScheduled``)
ImagePullFailed     ``ErrImagePull``, ``ImagePullBackOff``, ``InvalidImageName``, ``ImageInspectError``
ContainerFailed     ``CreateContainerConfigError``, ``CreateContainerError``, ``RunContainerError``
Crashing            ``CrashLoopBackOff``, or three crashes and more
NodeLost            the pod's node does not answer
NotReady            a pod was ready and is not any more
StillStarting       a pod has been starting for longer than ``failed_after_s``, and nothing says that it cannot
TerminationStuck    a pod is still there although its grace period is over
PodsNotCreated      the controller cannot create pods (``ReplicaFailure``: a quota, an admission webhook)
RolloutInProgress   a rollout is waited for
OperatorFailed      Dynamo's operator failed to create what the graph requests (state ``failed``)
RolloutStuck        a rollout makes no progress, and is not waited for any more
RolloutFailed       the operator gave a rollout up
RolloutPaused       a person or an operator paused it
AnotherPlanner      another planner without a common lease changed the replicas
ChangedByOther      a person or a program changed the replicas
MoreThanRequested   more replicas are ready than requested, for a minute and more
PodsMissing         fewer replicas than requested have pods, for a minute and more
StatusStale         the status is not of the present spec: the controller does not keep up
TargetDeleted       the object is being deleted
ReplicasUnknown     any other reason why the replicas are unknown
==================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dynamo_planner.core.decision import Reason
from dynamo_planner.executors.kubernetes.pod_conditions import (
    Pod,
    changed_s,
    created_s,
    is_node_lost,
    is_ready,
    is_terminating,
    pod_condition,
    seconds,
    was_ready,
)

PASSING = ("NotReady", "StillStarting")
"""Codes of what may pass by itself: such a replica still counts as starting, however long it takes."""

OF_THE_WHOLE = ("OperatorFailed", "RolloutStuck", "RolloutFailed", "RolloutPaused")
"""Codes of what is about the object, and not about a number of its replicas."""

CRASHES_ENOUGH = 3
"""Restarts of a container that runs for a moment between two crashes, from which on it counts as crashing."""

_LONGEST = 200  # of the cluster's own words

_WAITING = {
    "CrashLoopBackOff": "Crashing",
    "ErrImagePull": "ImagePullFailed",
    "ImagePullBackOff": "ImagePullFailed",
    "InvalidImageName": "ImagePullFailed",
    "ImageInspectError": "ImagePullFailed",
    "CreateContainerConfigError": "ContainerFailed",
    "CreateContainerError": "ContainerFailed",
    "RunContainerError": "ContainerFailed",
}


class Trouble(NamedTuple):
    """What keeps one replica from starting, serving or ending.

    Args:
        code: The code, which is also that of its reason.
        message: The cluster's own words.
        since_s: Since when (Unix seconds).
    """

    code: str
    message: str
    since_s: float

    def as_reason(self, pool: str, at_s: float, replicas: int | None = None) -> Reason:
        """Its reason at a time; ``replicas`` is how many have it, where it is not about the pool as a whole."""
        many = "" if replicas is None else f"{replicas} replica{'s' if replicas > 1 else ''} "
        values = {"began_at_s": self.since_s} | ({} if replicas is None else {"replicas": replicas})
        message = f"{many}for {max(0.0, at_s - self.since_s):.0f} s: {self.message}"
        return Reason(code=self.code, pool=pool, message=message, values=values)


class Since:
    """Since when each of several conditions has held.

    >>> since = Since()
    >>> since.first("missing", 10.0), since.first("missing", 20.0)
    (10.0, 10.0)
    """

    def __init__(self) -> None:
        self._first: dict[str, float] = {}

    def first(self, condition: str, at_s: float) -> float:
        """When a condition that holds at ``at_s`` was first observed."""
        return self._first.setdefault(condition, at_s)

    def get(self, condition: str) -> float | None:
        """When it was first observed, or ``None`` where it does not hold."""
        return self._first.get(condition)

    def end(self, condition: str) -> None:
        """Forget a condition, and those that begin with its name, which hold no longer."""
        self._first = {name: at_s for name, at_s in self._first.items() if not name.startswith(condition)}


def trouble_of(pod: Pod) -> Trouble | None:
    """What keeps a pod from starting, serving or ending, or ``None``."""
    name = pod["metadata"]["name"]
    if is_terminating(pod):
        ended = seconds(pod["metadata"]["deletionTimestamp"])
        if is_node_lost(pod):
            return Trouble("NodeLost", f"pod {name} terminates on a node that does not answer", ended)
        return Trouble("TerminationStuck", f"pod {name} should have ended", ended)
    if is_ready(pod):
        return None
    if is_node_lost(pod):
        return Trouble("NodeLost", f"pod {name} is on a node that does not answer", changed_s(pod))
    found = _not_scheduled(pod) or _containers(pod)
    if found is not None:
        return found._replace(message=f"pod {name}: {found.message}")
    ready = pod_condition(pod, "Ready")
    why = _with_message(_waits(pod) or ready.get("reason") or "not ready", ready)
    if was_ready(pod):
        return Trouble("NotReady", f"pod {name}: {why}", changed_s(pod))
    return Trouble("StillStarting", f"pod {name}: {why}", created_s(pod))


def _waits(pod: Pod) -> str | None:
    """What a container of a pod waits for, such as ``ContainerCreating`` while a volume is mounted."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    reasons = (((each.get("state") or {}).get("waiting") or {}).get("reason") for each in statuses)
    return next((reason for reason in reasons if reason), None)


def lasting(troubles: Iterable[Trouble], at_s: float, after_s: float) -> list[Trouble]:
    """These troubles without the starts that have not taken longer than ``after_s``: those are none."""
    return [each for each in troubles if each.code != "StillStarting" or at_s - each.since_s > after_s]


def _not_scheduled(pod: Pod) -> Trouble | None:
    scheduled = pod_condition(pod, "PodScheduled")
    reason = scheduled.get("reason")
    if scheduled.get("status") != "False" or reason not in {"Unschedulable", "SchedulingGated"}:
        return None
    since = scheduled.get("lastTransitionTime")
    return Trouble(reason, _with_message(reason, scheduled), seconds(since) if since else created_s(pod))


def _containers(pod: Pod) -> Trouble | None:
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        state, last = container.get("state") or {}, container.get("lastState") or {}
        waiting = state.get("waiting") or {}
        ended = last.get("terminated") or state.get("terminated") or {}
        reason, restarts = waiting.get("reason"), container.get("restartCount", 0)
        if reason in _WAITING:
            return Trouble(_WAITING[reason], _with_message(reason, waiting), changed_s(pod))
        if restarts >= CRASHES_ENOUGH and ended.get("exitCode"):
            return Trouble("Crashing", _with_message(f"crashed {restarts} times", ended), changed_s(pod))
    return None


def _with_message(reason: str, of: Mapping[str, Any]) -> str:
    message = str(of.get("message") or "").strip()
    return f"{reason}: {message[:_LONGEST]}" if message else reason


def reasons_of(pool: str, troubles: Iterable[Trouble], at_s: float) -> tuple[Reason, ...]:
    """One reason for each code: how many replicas, since when the first, and the words about that one.

    >>> lost = Trouble("NodeLost", "pod a is on a node that does not answer", 40.0)
    >>> print(*reasons_of("decode", [lost, lost._replace(since_s=60.0)], at_s=100.0))
    NodeLost: 2 replicas for 60 s: pod a is on a node that does not answer (began_at_s=40, replicas=2)
    """
    by_code: dict[str, list[Trouble]] = {}
    for trouble in troubles:
        by_code.setdefault(trouble.code, []).append(trouble)
    firsts = [
        (min(same, key=lambda trouble: trouble.since_s), None if code in OF_THE_WHOLE else len(same))
        for code, same in by_code.items()
    ]
    return tuple(first.as_reason(pool, at_s, count) for first, count in firsts)
