"""Writing replicas: read, compare, write, with retries for a busy server and for conflicts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from dynamo_planner.core.decision import Action, Outcome, ScaleTo
from dynamo_planner.executors.kubernetes.api import LONGEST_PAUSE_S
from dynamo_planner.executors.kubernetes.api_error import ApiError
from dynamo_planner.executors.kubernetes.cluster import Cluster
from dynamo_planner.executors.kubernetes.ownership import ReplicaClaim, autoscaler_of
from dynamo_planner.executors.kubernetes.replica_status import MALFORMED, ReplicasUnknownError
from dynamo_planner.executors.kubernetes.targets import FetchedTarget, ScaleTarget, changed_by

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1


class RefusedError(Exception):
    """An action is refused; the message says why."""


@dataclass(frozen=True)
class ScaleWriter:
    """Writes replicas, and reports the outcome of each action.

    A conflict is retried with data that is read again, a busy server after the pause that it requests. Every attempt
    reads first, so that a write whose answer was lost is recognised.

    Args:
        cluster: The cluster to write to.
        clock: Gives Unix seconds.
        permission: Returns for how many seconds this planner may still write, which no write outlasts, or raises
            :class:`RefusedError`.
        patience_s: Seconds that one action may be retried for (15).
        dry_run: The API server validates each write and changes nothing (false).
        check_autoscalers: Refuse where an HPA or a ScaledObject has the same target (true).
    """

    cluster: Cluster
    clock: Callable[[], float]
    permission: Callable[[], float]
    patience_s: float = 15.0
    dry_run: bool = False
    check_autoscalers: bool = True

    def scale(self, action: ScaleTo, target: ScaleTarget, claim: ReplicaClaim) -> Outcome:
        """Set a target to the replicas of an action."""
        return self.with_retries(action, lambda: self._try(action, target, claim))

    def with_retries(self, action: Action, attempt: Callable[[], Outcome]) -> Outcome:
        """Retry an action until it is done or refused, or ``patience_s`` is over."""
        give_up_s, pause_s = time.monotonic() + self.patience_s, _FIRST_PAUSE_S
        while True:
            try:
                return attempt()
            except RefusedError as error:
                return Outcome(action=action, status="refused", message=str(error))
            except (ReplicasUnknownError, *MALFORMED) as error:
                message = f"{action.pool} could not be read: {error!r}"
                return Outcome(action=action, status="failed", message=message)
            except ApiError as error:
                pause_s = max(pause_s, error.retry_after_s or 0.0)
                if not (error.is_passing or error.is_conflict):
                    return Outcome(action=action, status="failed", message=str(error))
                if pause_s > LONGEST_PAUSE_S or time.monotonic() + pause_s > give_up_s:
                    message = f"given up for this tick, the next one tries again: {error}"
                    return Outcome(action=action, status="failed", message=message)
                logger.info("%s: retried in %.1f s: %s", action.pool, pause_s, error)
            time.sleep(pause_s)
            pause_s *= 2

    def _try(self, action: ScaleTo, target: ScaleTarget, claim: ReplicaClaim) -> Outcome:
        self.permission()
        fetched = target.fetch(self.cluster.api)
        if not claim.is_same(fetched.uid):
            raise RefusedError(f"{fetched.name} was deleted and created anew since it was last observed")
        if "deletionTimestamp" in fetched.obj["metadata"]:
            raise RefusedError(f"{fetched.name} is being deleted, and left alone")
        answer_was_lost = claim.is_pending_write(action.replicas)
        claim.observe(fetched.replicas, fetched.uid, self.clock(), lambda: changed_by(fetched.obj))
        if fetched.replicas == action.replicas:
            message = f"{action.pool} has {fetched.replicas} replicas"
            return Outcome(action=action, status="applied" if answer_was_lost else "unchanged", message=message)
        yields = claim.yields(self.clock())
        if yields:
            raise RefusedError(yields)
        if action.expected is not None and action.expected != fetched.replicas:
            found = f"{action.pool} has a target of {fetched.replicas}"
            raise RefusedError(f"{found} and not of {action.expected}, which this was decided for")
        owner = autoscaler_of(target, self.cluster) if self.check_autoscalers else None
        if owner:
            raise RefusedError(f"{owner} scales {fetched.name}: remove it, or let it follow the planner's gauge")
        return self._write(action, target.namespace, fetched, claim)

    def _write(self, action: ScaleTo, namespace: str, fetched: FetchedTarget, claim: ReplicaClaim) -> Outcome:
        timeout_s = min(self.permission(), self.cluster.api.timeout_s)
        if not self.dry_run:
            claim.begin_write(action.replicas)
        self.cluster.api.patch(
            fetched.resource,
            namespace,
            fetched.name,
            fetched.subresource,
            fetched.patch(action.replicas),
            timeout_s=timeout_s,
            dry_run=self.dry_run,
        )
        change = f"{fetched.replicas} -> {action.replicas} replicas"
        if self.dry_run:
            message = f"dry run: the API server would take {action.pool}: {change}"
            return Outcome(action=action, status="unchanged", message=message)
        claim.wrote(action.replicas, self.clock())
        return Outcome(action=action, status="applied", message=f"{action.pool}: {change}")
