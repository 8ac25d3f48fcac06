"""Setting knobs in a manifest: the operator or controller then replaces the pods, and what fails is taken back.

What was changed is noted in an annotation of the same object, in the same write, so that whoever leads next sees the
change through: the note goes once the pods are replaced, and the value with it where they cannot start.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from dynamo_planner.core.decision import Outcome, SetKnob
from dynamo_planner.core.values import Frozen, KnobValue
from dynamo_planner.engines import KnobError, check_knobs
from dynamo_planner.executors.kubernetes.api import ApiError
from dynamo_planner.executors.kubernetes.cluster import Thing
from dynamo_planner.executors.kubernetes.container_args import NotUnderstoodError, Place, place_of
from dynamo_planner.executors.kubernetes.pool import KubernetesPool
from dynamo_planner.executors.kubernetes.replica_status import UnknownError
from dynamo_planner.executors.kubernetes.resources import Resource
from dynamo_planner.executors.kubernetes.scale_writer import RefusedError, Writer
from dynamo_planner.executors.kubernetes.targets import Subject

logger = logging.getLogger(__name__)

NOT_AGAIN_S = 3600.0
"""So long a value with which pods could not start is not tried again."""


class Note(Frozen):
    """What was changed and when (Unix seconds); ``back`` where that was to take a change back."""

    knob: str
    before: float
    value: float
    at_s: float
    back: bool = False


class Turner:
    """The knobs of one pool."""

    def __init__(self, name: str, pool: KubernetesPool, subject: Subject, clock: Callable[[], float]) -> None:
        self._name, self._pool, self._subject, self._clock = name, pool, subject, clock
        self._failed: tuple[str, float, float, str] | None = None
        self._annotation = f"dynamo-planner/knobs.{name}"

    def values(self, thing: Thing) -> dict[str, KnobValue]:
        """What a manifest says. Raises :class:`NotUnderstoodError` and :class:`UnknownError`."""
        return {knob: place.value for knob, place in self._places(thing).items()}

    def _places(self, thing: Thing) -> dict[str, Place]:
        if not self._pool.knobs:
            return {}
        pointer, container = self._subject.container(thing, self._pool.container)
        return {knob: place_of(container, pointer, self._pool.catalogue[knob]) for knob in self._pool.knobs}

    def note(self, thing: Thing) -> Note | None:
        """What is still to be seen through."""
        said = (thing["metadata"].get("annotations") or {}).get(self._annotation)
        try:
            return None if said is None else Note.model_validate_json(said)
        except ValueError:
            return None

    def turn(self, action: SetKnob, writer: Writer) -> Outcome:
        """Write a value, and say what became of it; waits for no pod."""
        return writer.patiently(action, lambda: self._try(action, writer))

    def _try(self, action: SetKnob, writer: Writer) -> Outcome:
        writer.permission()
        thing, resource = self._subject.whole(writer.cluster.api)
        if action.knob not in self._pool.knobs:
            there = ", ".join(self._pool.knobs) or "none"
            raise RefusedError(
                f"{self._name} has no knob {action.knob!r} in its configuration (knobs); there are {there}"
            )
        try:
            places = self._places(thing)
            present = places[action.knob].value
            if present == action.value:
                return Outcome(action=action, status="unchanged", message=f"{action.knob} is {present}")
            values = {knob: place.value for knob, place in places.items()}
            check_knobs(self._pool.catalogue, {**values, action.knob: action.value})
        except (NotUnderstoodError, KnobError) as error:
            raise RefusedError(f"{self._pool.target}: {error}") from error
        if action.expected is not None and action.expected != present:
            raise RefusedError(f"{action.knob} is {present}, not {action.expected}, which this was decided for")
        value = float(action.value)
        note = self.note(thing)
        undoes = note is not None and note.knob == action.knob and note.before == value
        if note is not None and not undoes:
            raise RefusedError(f"its pods are still being replaced, to set {note.knob} to {note.value:g}")
        if self._failed is not None and self._failed[:2] == (action.knob, value) and self._clock() < self._failed[2]:
            raise RefusedError(self._failed[3])
        note = Note(knob=action.knob, before=float(present), value=value, at_s=self._clock(), back=undoes)
        self._write(writer, thing, resource, note, places[action.knob], action.value)
        change = f"{action.knob} {present} -> {action.value}"
        if writer.dry_run:
            message = f"dry run: the API server would take {self._name}: {change}"
            return Outcome(action=action, status="unchanged", message=message)
        return Outcome(action=action, status="applied", message=f"{self._name}: {change}, which replaces its pods")

    def _write(
        self, writer: Writer, thing: Thing, resource: Resource, note: Note | None, place: Place | None, value: KnobValue
    ) -> None:
        """A new value with its note, or the end of a note, if nothing came in between."""
        metadata = thing["metadata"]
        key = "/metadata/annotations/" + self._annotation.replace("/", "~1")
        body: list[dict[str, Any]] = []
        if place is not None:
            body.append({"op": "replace", "path": place.pointer, "value": place.saying(value)})
        if note is None:
            body.append({"op": "remove", "path": key})
        else:
            if not metadata.get("annotations"):
                body.append({"op": "add", "path": "/metadata/annotations", "value": {}})
            body.append({"op": "add", "path": key, "value": json.dumps(note.model_dump())})
        body.append({"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]})
        timeout_s = min(writer.permission(), writer.cluster.api.timeout_s)
        api, namespace = writer.cluster.api, self._subject.namespace
        api.patch(resource, namespace, metadata["name"], "", body, timeout_s=timeout_s, dry_run=writer.dry_run)

    def see_through(self, listed: Thing, writer: Writer, *, settled: bool, trouble: str | None) -> None:
        """End what was begun: forget it where the pods are replaced, take it back where they cannot be."""
        note = self.note(listed)
        if note is None or writer.dry_run:
            return
        late_s = self._clock() - note.at_s - self._pool.rolls_within_s
        why = trouble or (f"they were not replaced within {self._pool.rolls_within_s:g} s" if late_s > 0 else None)
        try:
            writer.permission()
            thing, resource = self._subject.whole(writer.cluster.api)
            if self.note(thing) != note:
                return
            if settled:
                self._write(writer, thing, resource, None, None, 0)
                logger.info("%s: its pods have %s %g", self._name, note.knob, note.value)
            elif why is not None and not note.back:
                self._take_back(writer, thing, resource, note, why)
        except (ApiError, RefusedError, NotUnderstoodError, UnknownError) as error:
            logger.warning("%s: %s is seen through later: %s", self._name, note.knob, error)

    def _take_back(self, writer: Writer, thing: Thing, resource: Resource, note: Note, why: str) -> None:
        until_s = self._clock() + NOT_AGAIN_S
        message = f"pods with {note.knob} {note.value:g} could not start ({why}); not tried again for an hour"
        logger.warning("%s: %s goes back to %g: %s", self._name, note.knob, note.before, message)
        self._failed = (note.knob, note.value, until_s, message)
        back = Note(knob=note.knob, before=note.value, value=note.before, at_s=self._clock(), back=True)
        place = self._places(thing)[note.knob]
        value = int(note.before) if note.before.is_integer() else note.before
        self._write(writer, thing, resource, back, place, value)
