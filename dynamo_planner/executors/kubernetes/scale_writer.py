"""Writing replicas: read, compare, write, with retries for a busy server and for conflicts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from dynamo_planner.core.decision import Action, Outcome, ScaleTo
from dynamo_planner.executors.kubernetes.api import LONGEST_PAUSE_S
from dynamo_planner.executors.kubernetes.api_error import ApiError
from dynamo_planner.executors.kubernetes.cluster import Cluster
from dynamo_planner.executors.kubernetes.ownership import ReplicaClaim, autoscaler_of
from dynamo_planner.executors.kubernetes.replica_status import MALFORMED, ReplicasUnknownError
from dynamo_planner.executors.kubernetes.targets import FetchedTarget, ScaleTarget, latest_writer

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1


class RefusedError(Exception):
    """An action is refused; the message says why."""


class _DoneError(Exception):
    """Nothing is to be written; with the outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


class ScaleRequest(NamedTuple):
    """An action, with the target and the claim of its pool; ``before_lowering`` is called before a fall is written."""

    action: ScaleTo
    target: ScaleTarget
    claim: ReplicaClaim
    before_lowering: Callable[[], None] | None = None


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
        spacing_s: Seconds after a write of an object within which it is not written again to lower replicas (0).
        written_s: When each object was last written (Unix seconds).
    """

    cluster: Cluster
    clock: Callable[[], float]
    permission: Callable[[], float]
    patience_s: float = 15.0
    dry_run: bool = False
    check_autoscalers: bool = True
    spacing_s: float = 0.0
    written_s: dict[str, float] = field(default_factory=dict)

    def scale(self, requests: Sequence[ScaleRequest]) -> tuple[Outcome, ...]:
        """Set targets to the replicas of their actions; components of one graph in one patch."""
        outcomes: dict[int, Outcome] = {}
        first = self.with_retries(requests[0].action, lambda: self._try(requests, outcomes))
        return tuple(
            outcomes.get(n, Outcome(action=request.action, status=first.status, message=first.message))
            for n, request in enumerate(requests)
        )

    def with_retries(self, action: Action, attempt: Callable[[], Outcome]) -> Outcome:
        """Retry an action until it is done or refused, or ``patience_s`` is over."""
        give_up_s, pause_s = time.monotonic() + self.patience_s, _FIRST_PAUSE_S
        while True:
            try:
                return attempt()
            except (RefusedError, ReplicasUnknownError, *MALFORMED) as error:
                return _unwritten(action, error)
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

    def _try(self, requests: Sequence[ScaleRequest], outcomes: dict[int, Outcome]) -> Outcome:
        """Check every request that has no outcome yet, and write those that may be; the outcome of the first."""
        self.permission()
        checked: dict[int, FetchedTarget] = {}
        for n, request in enumerate(requests):
            if n in outcomes:
                continue
            try:
                checked[n] = self._checked(request)
            except _DoneError as done:
                outcomes[n] = done.outcome
            except (RefusedError, ReplicasUnknownError, *MALFORMED) as error:
                outcomes[n] = _unwritten(request.action, error)
        rises = any(requests[n].action.replicas > fetched.replicas for n, fetched in checked.items())
        for n, fetched in list(checked.items()):
            wait_s = 0.0 if rises else self._waits_s(requests[n], fetched)
            if wait_s > 0:
                del checked[n]
                why = f"{fetched.name} was written less than {self.spacing_s:g} s ago: lowered in {wait_s:.0f} s"
                outcomes[n] = Outcome(action=requests[n].action, status="refused", message=f"{why} (spacing_s)")
        for together in _by_object(checked):
            self._write({n: requests[n] for n in together}, together, outcomes)
        return outcomes[0]

    def _checked(self, request: ScaleRequest) -> FetchedTarget:
        """The target as it is now, where it may be written."""
        action, target, claim, _ = request
        fetched = target.fetch(self.cluster.api)
        if not claim.is_same(fetched.uid):
            raise RefusedError(f"{fetched.name} was deleted and created anew since it was last observed")
        if "deletionTimestamp" in fetched.obj["metadata"]:
            raise RefusedError(f"{fetched.name} is being deleted, and left alone")
        answer_was_lost = claim.is_pending_write(action.replicas)
        claim.observe(fetched.replicas, fetched.uid, self.clock(), latest_writer(fetched.obj))
        if fetched.replicas == action.replicas:
            message = f"{action.pool} has {fetched.replicas} replicas"
            status: Literal["applied", "unchanged"] = "applied" if answer_was_lost else "unchanged"
            raise _DoneError(Outcome(action=action, status=status, message=message))
        yields = claim.yields(self.clock())
        if yields:
            raise RefusedError(yields)
        if action.expected not in {None, fetched.replicas} and not claim.reports(action.expected, fetched.replicas):
            found = f"{action.pool} has a target of {fetched.replicas}"
            raise RefusedError(f"{found} and not of {action.expected}, which this was decided for")
        owner = autoscaler_of(target, self.cluster) if self.check_autoscalers else None
        if owner:
            raise RefusedError(f"{owner} scales {fetched.name}: remove it, or let it follow the planner's gauge")
        return fetched

    def _waits_s(self, request: ScaleRequest, fetched: FetchedTarget) -> float:
        """For how long a request still waits for the patch before it; one that raises replicas never does."""
        written_s = self.written_s.get(request.target.whole_name)
        if written_s is None or request.action.replicas > fetched.replicas:
            return 0.0
        return written_s + self.spacing_s - self.clock()

    def _write(
        self,
        requests: Mapping[int, ScaleRequest],
        fetched: Mapping[int, FetchedTarget],
        outcomes: dict[int, Outcome],
    ) -> None:
        """Write the requests for one object in one patch."""
        for n, request in requests.items():
            if self.dry_run:
                continue
            if request.before_lowering is not None and request.action.replicas < fetched[n].replicas:
                request.before_lowering()
            request.claim.begin_write(request.action.replicas)
        timeout_s = min(self.permission(), self.cluster.api.timeout_s)
        one, namespace = next(iter(fetched.values())), next(iter(requests.values())).target.namespace
        body = _merged([fetched[n].patch(request.action.replicas) for n, request in requests.items()])
        self.cluster.api.patch(
            one.resource, namespace, one.name, one.subresource, body, timeout_s=timeout_s, dry_run=self.dry_run
        )
        for n, (action, target, claim, _) in requests.items():
            change = f"{action.pool}: {fetched[n].replicas} -> {action.replicas} replicas"
            if self.dry_run:
                message = f"dry run: the API server would take {change}"
                outcomes[n] = Outcome(action=action, status="unchanged", message=message)
                continue
            self.written_s[target.whole_name] = self.clock()
            claim.wrote(action.replicas, self.clock())
            outcomes[n] = Outcome(action=action, status="applied", message=change)


def _unwritten(action: Action, error: Exception) -> Outcome:
    if isinstance(error, RefusedError):
        return Outcome(action=action, status="refused", message=str(error))
    return Outcome(action=action, status="failed", message=f"{action.pool} could not be read: {error!r}")


def _by_object(fetched: Mapping[int, FetchedTarget]) -> list[dict[int, FetchedTarget]]:
    """Targets by the object that is written."""
    objects: dict[Any, dict[int, FetchedTarget]] = {}
    for n, each in fetched.items():
        objects.setdefault((each.resource, each.name, each.subresource), {})[n] = each
    return list(objects.values())


def _merged(patches: Sequence[Any]) -> Any:
    """Patches of one kind for one object, as one: JSON patches one after the other, merge patches merged."""
    if isinstance(patches[0], list):
        return [step for patch in patches for step in patch]
    merged: dict[str, Any] = {}
    for patch in patches:
        for key, value in patch.items():
            merged[key] = _merged([merged[key], value]) if isinstance(merged.get(key), dict) else value
    return merged
