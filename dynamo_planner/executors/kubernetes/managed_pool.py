"""One pool of the executor: its target, and what is remembered of it between ticks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from dynamo_planner.core.decision import Reason
from dynamo_planner.core.snapshot import Replicas
from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.kubernetes.api_error import ApiError
from dynamo_planner.executors.kubernetes.cluster import Cluster, KubeObject
from dynamo_planner.executors.kubernetes.container_args import UnsupportedManifestError
from dynamo_planner.executors.kubernetes.knob_rollout import KnobRollout
from dynamo_planner.executors.kubernetes.ownership import ReplicaClaim
from dynamo_planner.executors.kubernetes.pod_conditions import is_ready
from dynamo_planner.executors.kubernetes.pods import PodGroup, groups, host_of, is_group_leader, port_of
from dynamo_planner.executors.kubernetes.pool import GraphTarget, KubernetesPool
from dynamo_planner.executors.kubernetes.replica_status import (
    MALFORMED,
    ReplicaReport,
    ReplicasUnknownError,
    count_replicas,
)
from dynamo_planner.executors.kubernetes.scale_writer import ScaleWriter
from dynamo_planner.executors.kubernetes.targets import ListedTarget, ScaleTarget, latest_writer
from dynamo_planner.executors.kubernetes.troubles import PASSING, Since, Trouble, lasting, reasons_of

logger = logging.getLogger(__name__)

REPORTED_AFTER_S = 60.0
"""Replicas that are unknown for longer than this are reported with a code, and not only as missing (seconds)."""

_CLOCKS_APART_S = 1.0
"""Times of pods are whole seconds, of another clock."""

PodsOf = Callable[[ListedTarget], list[KubeObject] | None]
"""Lists the pods of a target; ``None`` where that is not allowed."""


GPUS_UNKNOWN = "does not say how many GPUs a replica has: set spec.gpus of the pool, to 0 if it has none"


class NotYetError(ExecutorError):
    """A target cannot be managed yet, which may pass by itself."""


class ManagedPool:
    """A configured pool, with what the last tick observed of it: ``spec``, ``knobs``, ``obj`` and ``pods``.

    Args:
        name: Name of the pool.
        config: Its configuration.
        target: The object that holds its replicas.
        claim: Whether its replica count is the planner's.
        rollout: Its knobs, and the change that is being rolled out.
    """

    def __init__(
        self, name: str, config: KubernetesPool, target: ScaleTarget, claim: ReplicaClaim, rollout: KnobRollout
    ) -> None:
        self.name, self.config, self.target, self.claim, self.rollout = name, config, target, claim, rollout
        self.spec = config.spec
        self.knobs: FrozenMap[str, KnobValue] = FrozenMap({})
        self.obj: KubeObject | None = None
        self.pods: list[KubeObject] = []
        self._groups: list[PodGroup] = []
        self.troubles: tuple[Reason, ...] = ()
        self.unknown = ""
        self._logged = ""
        self._since = Since()

    def has_same_target(self, other: KubernetesPool) -> bool:
        """Whether another pool has the same target, and where the role chooses the component, the same role."""
        mine = self.config
        by_role = isinstance(mine.target, GraphTarget) and mine.target.component is None
        return mine.target == other.target and not (by_role and mine.spec.role != other.spec.role)

    @property
    def is_being_deleted(self) -> bool:
        """Whether the object was being deleted in the last tick; its scale, read before a write, does not say."""
        return self.obj is not None and "deletionTimestamp" in self.obj["metadata"]

    def check(self, cluster: Cluster) -> None:
        """Read the target once, before the start.

        Raises :class:`ExecutorError` where it cannot be managed, and :class:`NotYetError` where that may pass: there
        is no such object, no right to it or no answer, or no status that says how many GPUs a replica has.
        """
        where = f"pools.{self.name}.target: {self.config.target}"
        try:
            listed = self.target.find(cluster)
            self._take(listed)
            self.rollout.values(listed.obj)
        except ApiError as error:
            raise NotYetError(f"{where}: {error}") from error
        except (ReplicasUnknownError, UnsupportedManifestError, *MALFORMED) as error:
            raise ExecutorError(f"{where}: {error}") from error
        if not self._knows_gpus:
            is_graph = isinstance(self.config.target, GraphTarget)
            may_pass = is_graph and (listed.obj.get("status") or {}).get("state") != "successful"
            raise (NotYetError if may_pass else ExecutorError)(
                f"pools.{self.name}.spec.gpus: {self.config.target} {GPUS_UNKNOWN}"
            )

    @property
    def _knows_gpus(self) -> bool:
        return "gpus" in self.spec.model_fields_set

    def observe(
        self, cluster: Cluster, pods_of: PodsOf, writer: ScaleWriter, clock: Callable[[], float]
    ) -> Replicas | None:
        """The replicas, after the next step of a knob rollout; ``None`` where no number can be trusted now.

        :attr:`unknown` says why, and :attr:`troubles` what lasts. Raises :class:`ApiError`.
        """
        self.pods, self._groups, self.unknown = [], [], ""
        try:
            listed = self.target.find(cluster)
            replicas = self._observe(listed, pods_of, writer, clock())  # the server has said what time it is
        except (ReplicasUnknownError, ApiError, *MALFORMED) as error:
            malformed = isinstance(error, MALFORMED)
            why = f"it has not the form that it should have: {error!r}" if malformed else str(error)
            self.unknown = f"{self.config.target}: {why}"
            self.log_once(f"its replicas are unknown: {why}")
            self._lasts(error, why, clock())
            if isinstance(error, ApiError):
                raise
            return None
        self._since.end("unknown")
        return replicas

    def _observe(self, listed: ListedTarget, pods_of: PodsOf, writer: ScaleWriter, at_s: float) -> Replicas:
        self._take(listed)
        if not self._knows_gpus:
            raise ReplicasUnknownError(f"it {GPUS_UNKNOWN}", "GpusUnknown")
        self._observe_knobs(listed, pods_of, writer)
        pods = pods_of(listed)
        self.pods = pods or []
        there = None if pods is None else groups(pods)
        self._groups = there or []
        report = self._report(listed, at_s)
        self.claim.observe(report.target, listed.scaled["metadata"]["uid"], at_s, latest_writer(listed.scaled))
        counted = count_replicas(
            self._as_it_is(report, at_s),
            there,
            at_s=at_s,
            failed_after_s=self.config.failed_after_s,
            target_since_s=max(self.claim.target_since_s, self._missing_since(report, there, at_s)),
        )
        self.troubles = reasons_of(self.name, counted.troubles, at_s) + self._of_counts(report, at_s)
        words = ", ".join(trouble.message for trouble in counted.failed)
        self.log_once(f"{counted.replicas.failed} replicas cannot start: {words}" if words else "")
        return counted.replicas

    def _report(self, listed: ListedTarget, at_s: float) -> ReplicaReport:
        """What the target reports; of a rollout that takes longer than ``rolls_within_s`` all the same.

        Otherwise a rollout that never ends would hold the pool for ever.
        """
        try:
            report = listed.read()
        except ReplicasUnknownError as error:
            if error.code != "RolloutInProgress" or error.otherwise is None:
                raise
            first_s = self._since.first("rollout", at_s)
            since_s = first_s if error.since_s is None else error.since_s
            if at_s - since_s <= self.config.rolls_within_s:
                raise ReplicasUnknownError(str(error), error.code, since_s) from error
            return replace(error.otherwise, rollout=Trouble("RolloutStuck", str(error), since_s))
        self._since.end("rollout")
        return report

    def _missing_since(self, report: ReplicaReport, there: list[PodGroup] | None, at_s: float) -> float:
        """Since when fewer replicas than requested have pods; a pod that is gone did not start with the target."""
        present = None if there is None else sum(not group.terminating for group in there)
        if present is None or present >= report.target:
            self._since.end("missing")
            return 0.0
        return self._since.first("missing", at_s)

    def _as_it_is(self, report: ReplicaReport, at_s: float) -> ReplicaReport:
        """The report; with more replicas ready than requested for a while, what is there is the target.

        Someone scales what the object manages, and its operator lets them. A policy would take the difference for a
        movement that never ends.
        """
        if report.ready is None or report.ready <= report.target or report.rollout is not None:
            self._since.end("more")
        elif at_s - self._since.first("more", at_s) >= REPORTED_AFTER_S:
            self.claim.reported = (report.ready, report.target)
            return replace(report, target=report.ready)
        self.claim.reported = None
        return report

    def _of_counts(self, report: ReplicaReport, at_s: float) -> tuple[Reason, ...]:
        """What lasts of the numbers of replicas, and of other writers of them."""
        found = [self.claim.rival(at_s)]
        missing_s = self._since.get("missing")
        if missing_s is not None and report.blocked is None:
            said = f"fewer than the {report.target} requested replicas have pods: nothing creates them"
            found.append(Trouble("PodsMissing", said, missing_s))
        more_s = self._since.get("more")
        if more_s is not None:
            said = f"{report.ready} replicas are ready and {report.target} requested: someone scales what it manages"
            found.append(Trouble("MoreThanRequested", said, more_s))
        at_once = ("AnotherPlanner", "ChangedByOther")
        return tuple(
            each.as_reason(self.name, at_s)
            for each in found
            if each is not None and (each.code in at_once or at_s - each.since_s >= REPORTED_AFTER_S)
        )

    def _lasts(self, error: Exception, why: str, at_s: float) -> None:
        """Report why the replicas are unknown under a code of its own, once that has lasted for a while."""
        code, since_s = getattr(error, "code", "ReplicasUnknown"), getattr(error, "since_s", None)
        condition = f"unknown: {code}"
        if self._since.get(condition) is None:
            self._since.end("unknown")
        first_s = self._since.first(condition, at_s)
        problem = Trouble(code, why, first_s if since_s is None else since_s)
        of_pods = [group.trouble for group in self._groups if group.trouble is not None and not group.terminating]
        self.troubles = reasons_of(self.name, lasting(of_pods, at_s, self.config.failed_after_s), at_s)
        if at_s - problem.since_s >= REPORTED_AFTER_S:
            self.troubles += (problem.as_reason(self.name, at_s),)

    def _take(self, listed: ListedTarget) -> None:
        self.obj = listed.obj
        if "gpus" not in self.config.spec.model_fields_set and listed.gpus is not None:
            self.spec = self.config.spec.replace(gpus=listed.gpus)

    def _observe_knobs(self, listed: ListedTarget, pods_of: PodsOf, writer: ScaleWriter) -> None:
        try:
            self.knobs = FrozenMap(self.rollout.values(listed.obj))
        except UnsupportedManifestError as error:
            self.knobs = FrozenMap({})
            self.log_once(f"its knobs are unknown: {error}")
            return
        note = self.rollout.note(listed.obj)
        if note is None:
            return
        try:
            report = listed.read()
            settled = report.rollout is None and (report.ready is None or report.ready >= report.target)
        except ReplicasUnknownError:
            settled = False
        there = [group for group in groups(pods_of(listed) or []) if not group.terminating]
        new = [group.trouble for group in there if group.since_s >= note.at_s - _CLOCKS_APART_S]
        trouble = next((each.message for each in new if each is not None and each.code not in PASSING), None)
        self.rollout.advance(listed.obj, writer, settled=settled, trouble=trouble)

    def log_once(self, problem: str) -> None:
        """Log a problem when it begins, and its end (``""``)."""
        if problem != self._logged:
            level = logging.WARNING if problem else logging.INFO
            logger.log(level, "%s: %s", self.name, problem or "all is well again")
        self._logged = problem

    def endpoints(self) -> dict[str, str]:
        """The base URLs of the pods that were ready in the last tick, by name; of a group, its leader's."""
        return {
            pod["metadata"]["name"]: f"http://{host_of(pod)}:{port_of(pod, self.config.metrics_port)}"
            for pod in self.pods
            if is_ready(pod) and pod["status"].get("podIP") and is_group_leader(pod)
        }
