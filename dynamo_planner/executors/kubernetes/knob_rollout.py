"""Rollout of a knob's value: it is written into the manifest, the pods are replaced, and a failure is rolled back.

The operator or controller of the object replaces the pods. The change is noted in an annotation of the same object, in
the same write, so that the next leader completes it: the note is removed once the pods are replaced, and the value with
it where they cannot start.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from dynamo_planner.core.decision import Outcome, SetKnob
from dynamo_planner.core.values import Frozen, KnobValue
from dynamo_planner.engines import KnobError, check_knobs
from dynamo_planner.executors.kubernetes.api_error import ApiError
from dynamo_planner.executors.kubernetes.cluster import KubeObject
from dynamo_planner.executors.kubernetes.container_args import KnobLocation, UnsupportedManifestError, locate_knob
from dynamo_planner.executors.kubernetes.pool import KubernetesPool
from dynamo_planner.executors.kubernetes.replica_status import ReplicasUnknownError
from dynamo_planner.executors.kubernetes.resources import Resource
from dynamo_planner.executors.kubernetes.scale_writer import RefusedError, ScaleWriter
from dynamo_planner.executors.kubernetes.targets import ScaleTarget

logger = logging.getLogger(__name__)

NOT_AGAIN_S = 3600.0
"""For how long a value is not tried again after pods could not start with it."""


class RolloutNote(Frozen):
    """A change that is being rolled out, as it stands in the annotation.

    Args:
        knob: Name of the knob.
        before: Its value before the change.
        value: Its value since the change.
        at_s: When it was changed (Unix seconds).
        back: Whether this change rolls back another (false).
    """

    knob: str
    before: float
    value: float
    at_s: float
    back: bool = False


class KnobRollout:
    """The knobs of one pool: reading them from its manifest, changing one, and completing the change."""

    def __init__(self, name: str, pool: KubernetesPool, target: ScaleTarget, clock: Callable[[], float]) -> None:
        self._name, self._pool, self._target, self._clock = name, pool, target, clock
        self._failed: tuple[str, float, float, str] | None = None
        self._annotation = f"dynamo-planner/knobs.{name}"

    def values(self, obj: KubeObject) -> dict[str, KnobValue]:
        """The values in a manifest. Raises :class:`UnsupportedManifestError` and :class:`ReplicasUnknownError`."""
        return {knob: location.value for knob, location in self._locations(obj).items()}

    def _locations(self, obj: KubeObject) -> dict[str, KnobLocation]:
        if not self._pool.knobs:
            return {}
        pointer, container = self._target.container(obj, self._pool.container)
        return {knob: locate_knob(container, pointer, self._pool.catalogue[knob]) for knob in self._pool.knobs}

    def note(self, obj: KubeObject) -> RolloutNote | None:
        """The change that is still being rolled out, or ``None``."""
        said = (obj["metadata"].get("annotations") or {}).get(self._annotation)
        try:
            return None if said is None else RolloutNote.model_validate_json(said)
        except ValueError:
            return None

    def set_knob(self, action: SetKnob, writer: ScaleWriter) -> Outcome:
        """Write a value and report the outcome; waits for no pod."""
        return writer.with_retries(action, lambda: self._try(action, writer))

    def _try(self, action: SetKnob, writer: ScaleWriter) -> Outcome:
        writer.permission()
        obj, resource = self._target.whole(writer.cluster.api)
        if action.knob not in self._pool.knobs:
            there = ", ".join(self._pool.knobs) or "none"
            raise RefusedError(
                f"{self._name} has no knob {action.knob!r} in its configuration (knobs); there are {there}"
            )
        try:
            locations = self._locations(obj)
            present = locations[action.knob].value
            if present == action.value:
                return Outcome(action=action, status="unchanged", message=f"{action.knob} is {present}")
            values = {knob: location.value for knob, location in locations.items()}
            check_knobs(self._pool.catalogue, {**values, action.knob: action.value})
        except (UnsupportedManifestError, KnobError) as error:
            raise RefusedError(f"{self._pool.target}: {error}") from error
        if action.expected is not None and action.expected != present:
            raise RefusedError(f"{action.knob} is {present}, not {action.expected}, which this was decided for")
        value = float(action.value)
        note = self.note(obj)
        undoes = note is not None and note.knob == action.knob and note.before == value
        if note is not None and not undoes:
            raise RefusedError(f"its pods are still being replaced, to set {note.knob} to {note.value:g}")
        if self._failed is not None and self._failed[:2] == (action.knob, value) and self._clock() < self._failed[2]:
            raise RefusedError(self._failed[3])
        note = RolloutNote(knob=action.knob, before=float(present), value=value, at_s=self._clock(), back=undoes)
        self._write(writer, obj, resource, note, locations[action.knob], action.value)
        change = f"{action.knob} {present} -> {action.value}"
        if writer.dry_run:
            message = f"dry run: the API server would take {self._name}: {change}"
            return Outcome(action=action, status="unchanged", message=message)
        return Outcome(action=action, status="applied", message=f"{self._name}: {change}, which replaces its pods")

    def _write(
        self,
        writer: ScaleWriter,
        obj: KubeObject,
        resource: Resource,
        note: RolloutNote | None,
        location: KnobLocation | None,
        value: KnobValue,
    ) -> None:
        """Write a value with its note, or remove a note, if the object is still in the version that was read."""
        metadata = obj["metadata"]
        key = "/metadata/annotations/" + self._annotation.replace("/", "~1")
        body: list[dict[str, Any]] = []
        if location is not None:
            body.append({"op": "replace", "path": location.pointer, "value": location.with_value(value)})
        if note is None:
            body.append({"op": "remove", "path": key})
        else:
            if not metadata.get("annotations"):
                body.append({"op": "add", "path": "/metadata/annotations", "value": {}})
            body.append({"op": "add", "path": key, "value": json.dumps(note.model_dump())})
        body.append({"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]})
        timeout_s = min(writer.permission(), writer.cluster.api.timeout_s)
        api, namespace = writer.cluster.api, self._target.namespace
        api.patch(resource, namespace, metadata["name"], "", body, timeout_s=timeout_s, dry_run=writer.dry_run)

    def advance(self, listed: KubeObject, writer: ScaleWriter, *, settled: bool, trouble: str | None) -> None:
        """Complete a change: remove its note once the pods are replaced, roll it back where they cannot be."""
        note = self.note(listed)
        if note is None or writer.dry_run:
            return
        late_s = self._clock() - note.at_s - self._pool.rolls_within_s
        why = trouble or (f"they were not replaced within {self._pool.rolls_within_s:g} s" if late_s > 0 else None)
        try:
            writer.permission()
            obj, resource = self._target.whole(writer.cluster.api)
            if self.note(obj) != note:
                return
            if settled:
                self._write(writer, obj, resource, None, None, 0)
                logger.info("%s: its pods have %s %g", self._name, note.knob, note.value)
            elif why is not None and not note.back:
                self._roll_back(writer, obj, resource, note, why)
        except (ApiError, RefusedError, UnsupportedManifestError, ReplicasUnknownError) as error:
            logger.warning("%s: the rollout of %s is completed later: %s", self._name, note.knob, error)

    def _roll_back(self, writer: ScaleWriter, obj: KubeObject, resource: Resource, note: RolloutNote, why: str) -> None:
        until_s = self._clock() + NOT_AGAIN_S
        message = f"pods with {note.knob} {note.value:g} could not start ({why}); not tried again for an hour"
        logger.warning("%s: %s goes back to %g: %s", self._name, note.knob, note.before, message)
        self._failed = (note.knob, note.value, until_s, message)
        back = RolloutNote(knob=note.knob, before=note.value, value=note.before, at_s=self._clock(), back=True)
        location = self._locations(obj)[note.knob]
        value = int(note.before) if note.before.is_integer() else note.before
        self._write(writer, obj, resource, back, location, value)
