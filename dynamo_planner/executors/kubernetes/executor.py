"""Acting on Kubernetes: DynamoGraphDeployments, and every object with a scale subresource."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from dynamo_planner.core.decision import Action, Decision, Outcome, Reason, SetKnob
from dynamo_planner.core.snapshot import PoolSpec, Replicas
from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.executors.kubernetes.api import Api
from dynamo_planner.executors.kubernetes.api_error import ApiError
from dynamo_planner.executors.kubernetes.cluster import Cluster, KubeObject
from dynamo_planner.executors.kubernetes.deletion_costs import DeletionCosts
from dynamo_planner.executors.kubernetes.election import Election
from dynamo_planner.executors.kubernetes.events import Events
from dynamo_planner.executors.kubernetes.knob_rollout import KnobRollout
from dynamo_planner.executors.kubernetes.managed_pool import ManagedPool, NotYetError
from dynamo_planner.executors.kubernetes.ownership import ReplicaClaim, WhenChanged
from dynamo_planner.executors.kubernetes.pool import KubernetesPool
from dynamo_planner.executors.kubernetes.scale_writer import RefusedError, ScaleRequest, ScaleWriter
from dynamo_planner.executors.kubernetes.targets import ListedTarget, scale_target_of

logger = logging.getLogger(__name__)

_LEAST_TIME_S = 0.2
"""A write that has less time than this before the lease may end is not begun."""


class KubernetesExecutor:
    """Keeps pools at their targets by writing replicas; the operators and controllers of the cluster do the rest.

    It refuses to write, and names the owner, where an HPA or a KEDA ScaledObject scales the same object, and where
    another writer changed the replicas since the last tick. With an ``election`` only the leader writes; the others
    observe and decide all the same, and so are warm when they take over.

    As a context manager it campaigns from the start on and releases the lease at the end. Workers stay.

    Args:
        pools: The pools, by name.
        api: The API server with credentials (:meth:`Api.connect`); several executors in one process share a
            :class:`Cluster` instead, and with it what is listed.
        namespace: Namespace of the targets; ``None`` is that of the credentials.
        when_changed: After another writer changed the replicas: ``"yield"`` (the default) leaves the pool alone for
            ``yield_s``, ``"retake"`` until the next tick has observed the change.
        yield_s: Seconds that a changed pool is left alone (600).
        check_autoscalers: Refuse where an HPA or a ScaledObject has the same target (true).
        patience_s: Seconds that one action may be retried for (15).
        dry_run: The API server validates each write and changes nothing (false).
        election: The leader election, or ``None`` where no other planner runs.
        waits: Start all the same where a target does not exist yet, may not be read, or the API server does not answer;
            its pools are unknown until then, with the reason (false: :meth:`start` raises).
        events: Record in Events why a pool was scaled (false); :meth:`tell` is then to be called after each step.
        spacing_s: Seconds after a write of an object within which it is not written again to lower replicas (0). What
            raises replicas is written at once, with what is to be lowered in the same graph.
        deletion_costs: Annotate pods with the requests that wait and run at them before replicas are lowered, so that a
            ReplicaSet ends the least busy ones first (false). Needs the right ``patch`` on pods.
        clock: Gives Unix seconds; ``None`` is the clock of the API server, which the times of pods are by.
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
        waits: bool = False,
        spacing_s: float = 0.0,
        deletion_costs: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Raises :class:`ValueError` where two pools have the same target."""
        self.cluster = api if isinstance(api, Cluster) else Cluster(api)
        self.namespace = namespace or self.cluster.api.namespace
        self.election = election
        self._clock = clock = clock or self.cluster.api.clock
        self._pools: dict[str, ManagedPool] = {}
        for name, pool in pools.items():
            same = next((other.name for other in self._pools.values() if other.has_same_target(pool)), None)
            if same is not None:
                raise ValueError(f"pools.{name}.target: {pool.target} is the target of the pool {same!r} already")
            target = scale_target_of(pool.target, self.namespace, pool.spec.role, self.cluster)
            claim, rollout = ReplicaClaim(name, when_changed, yield_s), KnobRollout(name, pool, target, clock)
            self._pools[name] = ManagedPool(name, pool, target, claim, rollout)
        self._writer = ScaleWriter(
            self.cluster, clock, self._permission, patience_s, dry_run, check_autoscalers, spacing_s
        )
        self._events = Events(self.cluster.api, clock) if events else None
        self._costs = DeletionCosts(self.cluster.api, self.namespace) if deletion_costs else None
        self._waits = waits
        self._unknown: dict[str, str] = {}
        self._cannot_list_pods = False
        self._term = 0
        self._campaigns = True
        self._lock = threading.RLock()

    @property
    def pools(self) -> Mapping[str, PoolSpec]:
        """What a replica of each pool is; its GPUs as they were last read, where they are not given."""
        return FrozenMap({name: pool.spec for name, pool in self._pools.items()})

    @property
    def knobs(self) -> Mapping[str | None, Mapping[str, KnobValue]]:
        """The knobs of each pool, as its manifest had them in the last tick."""
        return {name: pool.knobs for name, pool in self._pools.items()}

    @property
    def unknown(self) -> Mapping[str, str]:
        """Why the replicas of a pool were unknown in the last tick."""
        return FrozenMap(self._unknown)

    @property
    def troubles(self) -> Sequence[Reason]:
        """What lasted in the last tick: pods that cannot start or do not end, rollouts that hang, and since when."""
        return tuple(reason for pool in self._pools.values() for reason in pool.troubles)

    @property
    def leading(self) -> bool | None:
        """Whether this instance leads; ``None`` without an election."""
        return None if self.election is None else self.election.time_left_s() > 0

    def start(self) -> Self:
        """Check that the target of each pool exists and can be read, and start to campaign.

        Raises :class:`ExecutorError` where a target has no component of the role, or where its GPUs are neither given
        nor readable; and, unless it ``waits``, where a target does not exist or may not be read.
        """
        with self._lock, self.cluster.tick():
            for pool in self._pools.values():
                try:
                    pool.check(self.cluster)
                except NotYetError as error:
                    if not self._waits:
                        raise
                    logger.warning("%s; waiting for it", error)
        if self.election is not None and self._campaigns:
            self.election.start(waits=self._waits)
        return self

    def close(self) -> None:
        """Release the lease. The workers go on."""
        if self.election is not None and self._campaigns:
            self.election.close()

    def follow(self, other: object) -> bool:
        """Write only while another executor of the same planner leads; one with a lease of its own follows none."""
        if self.election is not None or not isinstance(other, KubernetesExecutor) or other.election is None:
            return False
        self.election, self._campaigns = other.election, False
        return True

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
            observed: dict[str, Replicas | None] = {}
            for name, pool in self._pools.items():
                observed[name] = None
                try:
                    counted = pool.observe(self.cluster, self._pods_of, self._writer, self._clock)
                    observed[name] = self._by_this_machine(counted)
                except ApiError as error:
                    failures.append(error)
                if pool.unknown:
                    self._unknown[name] = pool.unknown
            if failures and len(failures) == len(self._pools):
                raise failures[0]
            return observed

    def _by_this_machine(self, counted: Replicas | None) -> Replicas | None:
        """Replicas with the times of the clock that decisions are made by."""
        if counted is None or not counted.starting_since_s or self._clock is not self.cluster.api.clock:
            return counted
        to_wall = self.cluster.api.clock.to_wall
        return counted.replace(starting_since_s=tuple(to_wall(since_s) for since_s in counted.starting_since_s))

    def _pods_of(self, listed: ListedTarget) -> list[KubeObject] | None:
        """The pods of a target, or ``None`` where they may not be listed, which is logged once."""
        try:
            pods = listed.pods()
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
        """Write the replicas or the knob of each action and report its outcome; waits for no pod."""
        with self._lock, self.cluster.tick():
            self._follow_election()
            outcomes: dict[int, Outcome] = {}
            together: dict[str, dict[int, ScaleRequest]] = {}
            for n, action in enumerate(actions):
                answer = self._answer(action)
                if isinstance(answer, Outcome):
                    outcomes[n] = answer
                    continue
                requests = together.setdefault(answer.target.whole_name, {})
                if any(other.action.pool == action.pool for other in requests.values()):  # one after the other
                    outcomes.update(zip(requests, self._writer.scale([*requests.values()]), strict=True))
                    requests.clear()
                requests[n] = answer
            for requests in together.values():
                outcomes.update(zip(requests, self._writer.scale([*requests.values()]), strict=True))
            return tuple(outcomes[n] for n in range(len(actions)))

    def _answer(self, action: Action) -> Outcome | ScaleRequest:
        """The outcome of an action, or for new replicas the request to write them."""
        pool = self._pools.get(action.pool or "")
        if pool is None:
            message = f"there is no pool {action.pool!r}; there are {', '.join(self._pools)}"
            return Outcome(action=action, status="refused", message=message)
        if pool.is_being_deleted:
            message = f"{pool.config.target} is being deleted, and left alone"
            return Outcome(action=action, status="refused", message=message)
        if isinstance(action, SetKnob):
            return pool.rollout.set_knob(action, self._writer)
        most = pool.spec.max_replicas
        if most is not None and action.replicas > most:
            message = f"{action.pool} may have {most} replicas at most (max_replicas), and not {action.replicas}"
            return Outcome(action=action, status="refused", message=message)
        costs = self._costs
        mark = None if costs is None else lambda: costs.set(pool.name, pool.pods)
        return ScaleRequest(action, pool.target, pool.claim, mark)

    def consider(self, requests: Mapping[str, Mapping[str, float]]) -> None:
        """Take the requests waiting and running at each pod, by pool and name, for ``deletion_costs``."""
        if self._costs is not None:
            self._costs.consider(requests)

    def _follow_election(self) -> None:
        """Drop the claims while another planner leads, and when this one begins to: the leader made those changes."""
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
        """Record in Events the outcomes of a decision and its reasons, where ``events`` is on."""
        if self._events is not None:
            objects = {name: pool.obj for name, pool in self._pools.items() if pool.obj is not None}
            self._events.record(decision, outcomes, objects)

    def endpoints(self) -> dict[str, dict[str, str]]:
        """The base URLs of the pods that were ready in the last tick, by pool and name; of a group, its leader's."""
        return {name: pool.endpoints() for name, pool in self._pools.items()}
