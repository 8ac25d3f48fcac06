"""One change of replicas: read, compare, write; and again where the server was busy or somebody was faster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from dynamo_planner.core.decision import Action, Outcome, ScaleTo
from dynamo_planner.executors.kubernetes.api import LONGEST_PAUSE_S, ApiError
from dynamo_planner.executors.kubernetes.claims import Claim
from dynamo_planner.executors.kubernetes.cluster import Cluster
from dynamo_planner.executors.kubernetes.owners import owner_of
from dynamo_planner.executors.kubernetes.replica_status import MALFORMED, UnknownError
from dynamo_planner.executors.kubernetes.targets import Fresh, Subject, changed_by

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1


class RefusedError(Exception):
    """An action is not to be done; the message says why."""


@dataclass(frozen=True)
class Writer:
    """Writes replicas, and reports what became of each action.

    A conflict is tried again with fresh data, a busy server after the pause that it asks for; for ``patience_s`` in
    all. Every try reads first, so that a write whose answer was lost is recognised, and asks ``permission`` how long
    it may still write: it raises :class:`RefusedError`, or returns seconds that no write outlasts.
    """

    cluster: Cluster
    clock: Callable[[], float]
    permission: Callable[[], float]
    patience_s: float = 15.0
    dry_run: bool = False
    check_autoscalers: bool = True

    def scale(self, action: ScaleTo, subject: Subject, claim: Claim) -> Outcome:
        """Bring a subject to the replicas of an action."""
        return self.patiently(action, lambda: self._try(action, subject, claim))

    def patiently(self, action: Action, attempt: Callable[[], Outcome]) -> Outcome:
        """Try an action until it is done or refused, or patience is over."""
        give_up_s, pause_s = time.monotonic() + self.patience_s, _FIRST_PAUSE_S
        while True:
            try:
                return attempt()
            except RefusedError as error:
                return Outcome(action=action, status="refused", message=str(error))
            except (UnknownError, *MALFORMED) as error:
                message = f"{action.pool} could not be read: {error!r}"
                return Outcome(action=action, status="failed", message=message)
            except ApiError as error:
                pause_s = max(pause_s, error.retry_after_s or 0.0)
                if not (error.is_passing or error.is_conflict):
                    return Outcome(action=action, status="failed", message=str(error))
                if pause_s > LONGEST_PAUSE_S or time.monotonic() + pause_s > give_up_s:
                    message = f"given up for this tick, the next one looks again: {error}"
                    return Outcome(action=action, status="failed", message=message)
                logger.info("%s: tried again in %.1f s: %s", action.pool, pause_s, error)
            time.sleep(pause_s)
            pause_s *= 2

    def _try(self, action: ScaleTo, subject: Subject, claim: Claim) -> Outcome:
        self.permission()
        fresh = subject.fresh(self.cluster.api)
        if not claim.is_same(fresh.uid):
            raise RefusedError(f"{fresh.name} was deleted and created anew since it was last looked at")
        came_of_a_try = claim.is_tried(action.replicas)
        claim.saw(fresh.replicas, fresh.uid, self.clock(), lambda: changed_by(fresh.thing))
        if fresh.replicas == action.replicas:
            message = f"{action.pool} has {fresh.replicas} replicas"
            return Outcome(action=action, status="applied" if came_of_a_try else "unchanged", message=message)
        yields = claim.yields(self.clock())
        if yields:
            raise RefusedError(yields)
        if action.expected is not None and action.expected != fresh.replicas:
            found = f"{action.pool} has a target of {fresh.replicas}"
            raise RefusedError(f"{found} and not of {action.expected}, which this was decided for")
        owner = owner_of(subject, self.cluster) if self.check_autoscalers else None
        if owner:
            raise RefusedError(f"{owner} scales {fresh.name}: remove it, or let it follow the planner's gauge")
        return self._write(action, subject.namespace, fresh, claim)

    def _write(self, action: ScaleTo, namespace: str, fresh: Fresh, claim: Claim) -> Outcome:
        timeout_s = min(self.permission(), self.cluster.api.timeout_s)
        if not self.dry_run:
            claim.trying(action.replicas)
        self.cluster.api.patch(
            fresh.resource,
            namespace,
            fresh.name,
            fresh.subresource,
            fresh.patch(action.replicas),
            timeout_s=timeout_s,
            dry_run=self.dry_run,
        )
        change = f"{fresh.replicas} -> {action.replicas} replicas"
        if self.dry_run:
            message = f"dry run: the API server would take {action.pool}: {change}"
            return Outcome(action=action, status="unchanged", message=message)
        claim.wrote(action.replicas, self.clock())
        return Outcome(action=action, status="applied", message=f"{action.pool}: {change}")
