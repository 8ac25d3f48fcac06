"""Acting on Kubernetes: DynamoGraphDeployments, and whatever has a scale subresource."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from dynamo_planner.core.decision import Action, Decision, Outcome, SetKnob
from dynamo_planner.core.snapshot import PoolSpec, Replicas
from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.kubernetes.api import Api, ApiError
from dynamo_planner.executors.kubernetes.claims import Claim, WhenChanged
from dynamo_planner.executors.kubernetes.cluster import Cluster, Thing
from dynamo_planner.executors.kubernetes.container_args import NotUnderstoodError
from dynamo_planner.executors.kubernetes.election import Election
from dynamo_planner.executors.kubernetes.events import Events
from dynamo_planner.executors.kubernetes.knob_rollout import Turner
from dynamo_planner.executors.kubernetes.pods import groups, host_of, is_ready, leads, port_of
from dynamo_planner.executors.kubernetes.pool import GraphTarget, KubernetesPool
from dynamo_planner.executors.kubernetes.replica_status import MALFORMED, UnknownError, count
from dynamo_planner.executors.kubernetes.scale_writer import RefusedError, Writer
from dynamo_planner.executors.kubernetes.targets import Found, Subject, changed_by, subject_of

logger = logging.getLogger(__name__)

_CLOCKS_APART_S = 1.0
"""Times of pods are whole seconds, of another clock."""

_LEAST_TIME_S = 0.2
"""A write that has less time than this before the lease may end is not begun."""


@dataclass
class _Pool:
    """A pool, and what is remembered of it between ticks."""

    given: KubernetesPool
    subject: Subject
    claim: Claim
    turner: Turner
    spec: PoolSpec
    knobs: Mapping[str, KnobValue] = field(default_factory=FrozenMap)
    thing: Thing | None = None
    pods: list[Thing] = field(default_factory=list)
    said: str = ""
    """What was last logged of it, so that it is logged once."""


class KubernetesExecutor:
    """Keeps pools at their targets by writing replicas; the operators and controllers of the cluster do the rest.

    ``api`` is the server with credentials (:meth:`Api.connect`); several executors in one process share a
    :class:`Cluster` instead, and with it what is listed. ``namespace`` left out is that of the credentials.

    It refuses to write, and names the owner, where an HPA or a KEDA ScaledObject scales the same object
    (``check_autoscalers``), and where somebody else changed the replicas since the last look: with
    ``when_changed="yield"`` for ``yield_s``, with ``"retake"`` until the next tick has seen it. With ``dry_run`` the
    API server checks each write and changes nothing.

    With an ``election`` only the leader writes; the others observe and decide all the same, and so are warm when they
    take over. ``events`` tells in Events why a pool was scaled (call :meth:`tell` after each step).

    Used as a context manager, it campaigns from the start on and gives the lease back at the end. Workers stay.
    """

    def __init__(
        self,
        pools: Mapping[str, KubernetesPool],
        api: Api | Cluster,
        *,
        namespace: str | None = None,
        when_changed: WhenChanged = "yield",
        yield_s: float = 600.0,
        check_autoscalers: bool = True,
        patience_s: float = 15.0,
        dry_run: bool = False,
        election: Election | None = None,
        events: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises :class:`ValueError` where two pools have the same target."""
        self.cluster = api if isinstance(api, Cluster) else Cluster(api)
        self.namespace = namespace or self.cluster.api.namespace
        self.election = election
        self._clock = clock
        self._pools: dict[str, _Pool] = {}
        for name, pool in pools.items():
            same = next((other for other, known in self._pools.items() if _same(known.given, pool)), None)
            if same is not None:
                raise ValueError(f"pools.{name}.target: {pool.target} is the target of the pool {same!r} already")
            subject = subject_of(pool.target, self.namespace, pool.spec.role, self.cluster)
            claim, turner = Claim(name, when_changed, yield_s), Turner(name, pool, subject, clock)
            self._pools[name] = _Pool(pool, subject, claim, turner, pool.spec)
        self._writer = Writer(self.cluster, clock, self._permission, patience_s, dry_run, check_autoscalers)
        self._events = Events(self.cluster.api, clock) if events else None
        self._unknown: dict[str, str] = {}
        self._cannot_list_pods = False
        self._term = 0
        self._lock = threading.RLock()

    @property
    def pools(self) -> Mapping[str, PoolSpec]:
        """What a replica of each pool is; its GPUs as they were last read, where they are not given."""
        return FrozenMap({name: pool.spec for name, pool in self._pools.items()})

    @property
    def knobs(self) -> Mapping[str | None, Mapping[str, KnobValue]]:
        """The knobs of each pool as its manifest said them at the last look."""
        return {name: pool.knobs for name, pool in self._pools.items()}

    @property
    def unknown(self) -> Mapping[str, str]:
        """Why the replicas of a pool could not be told at the last look."""
        return FrozenMap(self._unknown)

    @property
    def leading(self) -> bool | None:
        """Whether this instance leads; ``None`` without an election."""
        return None if self.election is None else self.election.time_left_s() > 0

    def start(self) -> Self:
        """See that each pool's target is there and what its replicas are, and start to campaign.

        Raises :class:`ExecutorError` where a target is not there or not allowed to be read, where it has no component
        of the role, or where its GPUs are neither given nor to be read.
        """
        with self._lock, self.cluster.tick():
            for name, pool in self._pools.items():
                self._check(name, pool)
        if self.election is not None:
            self.election.start()
        return self

    def _check(self, name: str, pool: _Pool) -> None:
        try:
            found = pool.subject.find(self.cluster)
            self._take(pool, found)
            pool.turner.values(found.thing)
        except (ApiError, UnknownError, NotUnderstoodError, *MALFORMED) as error:
            raise ExecutorError(f"pools.{name}.target: {pool.given.target}: {error}") from error
        if "gpus" not in pool.spec.model_fields_set:
            raise ExecutorError(
                f"pools.{name}.spec.gpus: {pool.given.target} does not say how many GPUs a replica has: give it, "
                "as 0 where it has none"
            )

    def close(self) -> None:
        """Give the lease back. The workers go on."""
        if self.election is not None:
            self.election.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def observe(self) -> Mapping[str, Replicas | None]:
        """The replicas of each pool; ``None`` during a rollout and for a status that cannot be trusted.

        :attr:`unknown` says why. Raises :class:`ExecutorError` where the API server answered for no pool.
        """
        with self._lock, self.cluster.tick():
            self._follow_election()
            failures: list[ApiError] = []
            self._unknown = {}
            seen: dict[str, Replicas | None] = {}
            for name, pool in self._pools.items():
                try:
                    seen[name] = self._replicas(name, pool)
                except (UnknownError, ApiError, *MALFORMED) as error:
                    seen[name] = None
                    why = (
                        f"it has not the form that it should have: {error!r}" if isinstance(error, MALFORMED) else error
                    )
                    self._unknown[name] = f"{pool.given.target}: {why}"
                    self._say(name, pool, f"its replicas are unknown: {why}")
                    failures += [error] if isinstance(error, ApiError) else []
            if failures and len(failures) == len(self._pools):
                raise failures[0]
            return seen

    def _say(self, name: str, pool: _Pool, what: str) -> None:
        if what != pool.said:
            logger.log(logging.WARNING if what else logging.INFO, "%s: %s", name, what or "all is well again")
        pool.said = what

    def _replicas(self, name: str, pool: _Pool) -> Replicas:
        found = pool.subject.find(self.cluster)
        self._take(pool, found)
        self._see_knobs(name, pool, found)
        pool.pods = []
        reading, at_s = found.read(), self._clock()
        pool.claim.saw(reading.target, found.scaled["metadata"]["uid"], at_s, lambda: changed_by(found.scaled))
        pods = self._pods_of(found)
        pool.pods = pods or []
        counted = count(
            reading,
            None if pods is None else groups(pods),
            at_s=at_s,
            failed_after_s=pool.given.failed_after_s,
            target_since_s=pool.claim.target_since_s,
        )
        failed = f"{counted.replicas.failed} replicas cannot start: {', '.join(counted.troubles)}"
        self._say(name, pool, failed if counted.troubles else "")
        return counted.replicas

    def _see_knobs(self, name: str, pool: _Pool, found: Found) -> None:
        """What its knobs are, and the next step of what was changed of them."""
        try:
            pool.knobs = FrozenMap(pool.turner.values(found.thing))
        except NotUnderstoodError as error:
            pool.knobs = FrozenMap({})
            self._say(name, pool, f"its knobs are unknown: {error}")
            return
        note = pool.turner.note(found.thing)
        if note is None:
            return
        try:
            reading = found.read()
            settled = reading.ready is None or reading.ready >= reading.target
        except UnknownError:
            settled = False
        new = [group for group in groups(self._pods_of(found) or []) if group.since_s >= note.at_s - _CLOCKS_APART_S]
        trouble = next((group.trouble for group in new if group.trouble is not None), None)
        pool.turner.see_through(found.thing, self._writer, settled=settled, trouble=trouble)

    def _take(self, pool: _Pool, found: Found) -> None:
        pool.thing = found.thing
        if "gpus" not in pool.given.spec.model_fields_set and found.gpus is not None:
            pool.spec = pool.given.spec.replace(gpus=found.gpus)

    def _pods_of(self, found: Found) -> list[Thing] | None:
        """Its pods, or ``None`` where they may not be listed, which is said once."""
        try:
            pods = found.pods()
        except ApiError as error:
            if error.status != 403:
                raise
            if not self._cannot_list_pods:
                logger.warning("since when replicas start, and which failed or drain, stays unknown: %s", error)
            self._cannot_list_pods = True
            return None
        self._cannot_list_pods = False
        return pods

    def apply(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        """Write the replicas of each action and say what became of it; waits for no pod."""
        with self._lock, self.cluster.tick():
            self._follow_election()
            return tuple(self._apply(action) for action in actions)

    def _apply(self, action: Action) -> Outcome:
        pool = self._pools.get(action.pool or "")
        if pool is None:
            message = f"there is no pool {action.pool!r}; there are {', '.join(self._pools)}"
            return Outcome(action=action, status="refused", message=message)
        if isinstance(action, SetKnob):
            return pool.turner.turn(action, self._writer)
        most = pool.spec.max_replicas
        if most is not None and action.replicas > most:
            message = f"{action.pool} may have {most} replicas at most (max_replicas), and not {action.replicas}"
            return Outcome(action=action, status="refused", message=message)
        return self._writer.scale(action, pool.subject, pool.claim)

    def _follow_election(self) -> None:
        """What changed while another planner led, or when this one began to, was changed by whoever led."""
        if self.election is not None and (self.election.time_left_s() == 0 or self.election.term != self._term):
            self._term = self.election.term
            for pool in self._pools.values():
                pool.claim.forget()

    def _permission(self) -> float:
        if self.election is None:
            return math.inf
        left_s = self.election.time_left_s()
        if left_s < _LEAST_TIME_S:
            raise RefusedError(f"this planner does not lead: {self.election.leader} does")
        return left_s

    def tell(self, decision: Decision, outcomes: tuple[Outcome, ...]) -> None:
        """Tell in Events what became of a decision and why, where ``events`` is on."""
        if self._events is not None:
            things = {name: pool.thing for name, pool in self._pools.items() if pool.thing is not None}
            self._events.tell(decision, outcomes, things)

    def endpoints(self) -> dict[str, dict[str, str]]:
        """The base URLs of the pods that were ready at the last look, by pool and name; of a group, its leader's."""
        return {
            name: {
                pod["metadata"]["name"]: f"http://{host_of(pod)}:{port_of(pod, pool.given.metrics_port)}"
                for pod in pool.pods
                if is_ready(pod) and pod["status"].get("podIP") and leads(pod)
            }
            for name, pool in self._pools.items()
        }


def _same(one: KubernetesPool, other: KubernetesPool) -> bool:
    """Whether two pools are one thing: the same target, and where the role chooses the component, the same role."""
    by_role = isinstance(one.target, GraphTarget) and one.target.component is None
    return one.target == other.target and not (by_role and one.spec.role != other.spec.role)
