"""Kubernetes Events with the reasons for scaling, which ``kubectl describe`` shows with the object."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dynamo_planner.core.decision import Decision, Outcome, ScaleTo
from dynamo_planner.executors.kubernetes.api import FIELD_MANAGER, Api
from dynamo_planner.executors.kubernetes.api_error import ApiError
from dynamo_planner.executors.kubernetes.resources import EVENTS

logger = logging.getLogger(__name__)

_LONGEST = 1024  # of a message, by the API


class Events:
    """Writes an Event for each action that was applied, and one for a refusal or a failure when it begins."""

    def __init__(self, api: Api, clock: Any) -> None:
        self._api, self._clock = api, clock
        self._last: dict[str, str] = {}

    def record(
        self, decision: Decision, outcomes: tuple[Outcome, ...], objects: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Record the outcomes of a decision's actions, and its reasons. ``objects`` are the objects by pool.

        An Event that cannot be written is logged, and nothing else.
        """
        for outcome in outcomes:
            action = outcome.action
            if not isinstance(action, ScaleTo) or action.pool not in objects or outcome.status == "unchanged":
                continue
            applied = outcome.status == "applied"
            if not applied and self._last.get(action.pool) == outcome.status:
                continue
            self._last[action.pool] = outcome.status
            reasons = "; ".join(str(reason) for reason in decision.reasons if reason.pool == action.pool)
            rises = action.expected is None or action.replicas > action.expected
            kind = ("ScaledUp" if rises else "ScaledDown") if applied else f"Scale{outcome.status.capitalize()}"
            self._write(objects[action.pool], kind, f"{outcome.message}. {reasons}", is_normal=applied)

    def _write(self, obj: Mapping[str, Any], reason: str, message: str, *, is_normal: bool) -> None:
        metadata = obj["metadata"]
        now = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{secrets.token_hex(8)}", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": obj["apiVersion"],
                "kind": obj["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "type": "Normal" if is_normal else "Warning",
            "reason": reason,
            "message": message[:_LONGEST],
            "source": {"component": FIELD_MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._api.create(EVENTS, metadata["namespace"], event)
        except ApiError as error:
            logger.warning("an Event could not be written: %s", error)
