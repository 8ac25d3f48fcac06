"""Ownership of a pool's replica count: this planner, an autoscaler, or another writer."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Literal

from dynamo_planner.executors.kubernetes.api import FIELD_MANAGER
from dynamo_planner.executors.kubernetes.api_error import ApiError
from dynamo_planner.executors.kubernetes.cluster import Cluster
from dynamo_planner.executors.kubernetes.replica_status import condition
from dynamo_planner.executors.kubernetes.resources import AUTOSCALERS, SCALED_OBJECTS
from dynamo_planner.executors.kubernetes.targets import Reference, ScaleTarget, Writer
from dynamo_planner.executors.kubernetes.troubles import Trouble

logger = logging.getLogger(__name__)

WhenChanged = Literal["yield", "retake"]

RETAKES = 2
"""How often replicas are taken back within ``yield_s``, before the pool is left alone all the same."""

_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"

_KINDS = ((SCALED_OBJECTS, "ScaledObject"), (AUTOSCALERS, "HorizontalPodAutoscaler"))
"""ScaledObjects first: KEDA makes an HPA for each, and the ScaledObject is what a person has written."""


class ReplicaClaim:
    """The planner's claim on the replica count of one pool.

    A change by another writer shows as a count that differs from the one last observed or written. With ``yield`` the
    planner then leaves the pool alone for ``yield_s``, or until the count is what it wrote itself; with ``retake`` it
    goes on from the new count at once, but not after a change by another planner, nor after :data:`RETAKES` changes
    within ``yield_s``: two that retake would never end. The claim is kept in memory: a planner that starts claims
    nothing.

    Args:
        pool: Name of the pool, for messages.
        when_changed: ``"yield"`` or ``"retake"``.
        yield_s: Seconds that a pool is left alone after another writer changed it.
    """

    def __init__(self, pool: str, when_changed: WhenChanged, yield_s: float) -> None:
        self._pool, self._when_changed, self._yield_s = pool, when_changed, yield_s
        self._observed: int | None = None
        self._pending: int | None = None
        self._own: int | None = None
        self._uid: str | None = None
        self._yields_until_s = 0.0
        self._why = ""
        self._rival: Trouble | None = None
        self._changes_s: list[float] = []
        self._writer: Writer | None = None
        self.reported: tuple[int, int] | None = None
        """The target that was reported last and that of the object, where someone scales below it."""
        self.target_since_s = 0.0
        """When the present target was first observed (Unix seconds)."""

    def forget(self) -> None:
        """Drop what was observed and written, because the writer may have changed: nothing is compared with it."""
        self._observed = self._pending = self._own = self._uid = None
        self._yields_until_s = 0.0
        self._rival = self._writer = None

    def observe(self, replicas: int, uid: str, at_s: float, writer: Writer | None) -> None:
        """Take in a target that was read, and notice a change by another writer.

        ``writer`` is the latest that the server kept account of; where it is the one of before, who it was is unknown.
        """
        if uid != self._uid:
            self.forget()
        if replicas != self._observed:
            self.target_since_s = at_s
        if replicas == self._pending:
            self._own = replicas
        elif self._observed not in {None, replicas}:
            self._changed(replicas, at_s, self._name_of(writer))
        if replicas == self._own:
            self._yields_until_s = 0.0
            if self._rival is not None and self._rival.code != "AnotherPlanner":
                self._rival = None
        self._observed, self._pending, self._uid, self._writer = replicas, None, uid, writer or self._writer

    def _name_of(self, writer: Writer | None) -> str:
        """Who changed the replicas: the latest writer, unless the server kept account of it before the change.

        That account has whole seconds, so that the writes of two planners may look like one.
        """
        if writer is None or (writer == self._writer and writer[0] != FIELD_MANAGER):
            return "another writer"
        return writer[0]

    def _changed(self, replicas: int, at_s: float, by: str) -> None:
        is_planner = by == FIELD_MANAGER
        who = "another dynamo-planner, with which this one shares no lease," if is_planner else by
        self._why = f"{who} changed the replicas from {self._observed} to {replicas}"
        self._rival = Trouble("AnotherPlanner" if is_planner else "ChangedByOther", self._why, at_s)
        self._changes_s = [changed_s for changed_s in self._changes_s if at_s - changed_s <= self._yield_s] + [at_s]
        yields = is_planner or self._when_changed == "yield" or len(self._changes_s) > RETAKES
        if yields:
            self._yields_until_s = at_s + self._yield_s
        then = f"left alone for {self._yield_s:g} s" if yields else "taken back if need be"
        logger.warning("%s: %s: %s", self._pool, self._why, then)

    def rival(self, at_s: float) -> Trouble | None:
        """The last change by another writer, for as long as this planner and then the other one may have yielded."""
        rival = self._rival
        return rival if rival is not None and at_s - rival.since_s <= 2 * self._yield_s else None

    def reports(self, expected: int | None, replicas: int) -> bool:
        """Whether ``expected`` was reported for an object with this number, since more are there than it requests."""
        return self.reported == (expected, replicas)

    def is_same(self, uid: str) -> bool:
        """Whether this is the object that was last observed."""
        return self._uid in {None, uid}

    def is_pending_write(self, replicas: int) -> bool:
        """Whether a write of this number began whose answer never came."""
        return self._pending == replicas

    def begin_write(self, replicas: int) -> None:
        """Begin a write of this number; if its answer is lost, the number is the planner's all the same."""
        self._pending = replicas

    def wrote(self, replicas: int, at_s: float) -> None:
        """Take in that the server accepted this number."""
        self._observed, self._own, self._pending, self.target_since_s = replicas, replicas, None, at_s
        self.reported = None

    def yields(self, at_s: float) -> str | None:
        """Why the pool is left alone now, or ``None``."""
        left_s = self._yields_until_s - at_s
        return f"{self._why}: left alone for another {left_s:.0f} s (when_changed: yield)" if left_s > 0 else None


def is_paused(obj: Mapping[str, Any]) -> bool:
    """Whether a ScaledObject is paused by an annotation: KEDA then deletes its HPA and leaves the replicas alone.

    With ``paused-replicas`` it sets that number once before it pauses, which its status says.
    """
    annotations = obj["metadata"].get("annotations") or {}
    if "autoscaling.keda.sh/paused-replicas" in annotations:
        return bool(condition(obj, "Paused").get("status") != "False")
    return str(annotations.get("autoscaling.keda.sh/paused", "false")).lower() not in {"false", "f", "0"}


def is_disabled(obj: Mapping[str, Any]) -> bool:
    """Whether an HPA may scale neither up nor down (``selectPolicy: Disabled``), and so owns nothing.

    In ``autoscaling/v1`` its behavior stands in an annotation, with the names of the server's own type.
    """
    try:
        behavior = json.loads((obj["metadata"].get("annotations") or {}).get(_BEHAVIOR) or "{}")
        return all(behavior[way]["SelectPolicy"] == "Disabled" for way in ("ScaleUp", "ScaleDown"))
    except (KeyError, TypeError, ValueError):
        return False


def autoscaler_of(target: ScaleTarget, cluster: Cluster) -> str | None:
    """The HPA or KEDA ScaledObject that scales a target, by kind and name.

    HPAs are listed in ``autoscaling/v1``, which old and new servers have. A server without KEDA has no ScaledObjects;
    one that is paused scales nothing, nor does an HPA that is disabled both ways.
    Raises :class:`ApiError` where they cannot be listed.
    """
    references = target.references()
    for resource, kind in _KINDS:
        try:
            listed = cluster.objects(resource, target.namespace)
        except ApiError as error:
            if error.status == 404 and resource is SCALED_OBJECTS:
                continue
            raise
        for name, obj in listed.items():
            if (is_paused if resource is SCALED_OBJECTS else is_disabled)(obj):
                continue
            if _reference(obj["spec"].get("scaleTargetRef") or {}) in references:
                return f"{kind} {name}"
    return None


def _reference(target: dict[str, Any]) -> Reference:
    """What a ``scaleTargetRef`` points to; KEDA's own defaults where it leaves something out."""
    version = target.get("apiVersion") or "apps/v1"
    return version.rpartition("/")[0], target.get("kind") or "Deployment", str(target.get("name"))
