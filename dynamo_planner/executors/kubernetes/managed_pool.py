"""One pool of the executor: its target, and what is remembered of it between ticks."""

from __future__ import annotations

import logging
from collections.abc import Callable

from dynamo_planner.core.snapshot import Replicas
from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.kubernetes.api import ApiError
from dynamo_planner.executors.kubernetes.cluster import Cluster, KubeObject
from dynamo_planner.executors.kubernetes.container_args import UnsupportedManifestError
from dynamo_planner.executors.kubernetes.knob_rollout import KnobRollout
from dynamo_planner.executors.kubernetes.ownership import ReplicaClaim
from dynamo_planner.executors.kubernetes.pods import groups, host_of, is_group_leader, is_ready, port_of
from dynamo_planner.executors.kubernetes.pool import GraphTarget, KubernetesPool
from dynamo_planner.executors.kubernetes.replica_status import MALFORMED, ReplicasUnknownError, count_replicas
from dynamo_planner.executors.kubernetes.scale_writer import ScaleWriter
from dynamo_planner.executors.kubernetes.targets import ListedTarget, ScaleTarget, changed_by

logger = logging.getLogger(__name__)

_CLOCKS_APART_S = 1.0
"""Times of pods are whole seconds, of another clock."""

PodsOf = Callable[[ListedTarget], list[KubeObject] | None]
"""Lists the pods of a target; ``None`` where that is not allowed."""


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
        self._logged = ""

    def has_same_target(self, other: KubernetesPool) -> bool:
        """Whether another pool has the same target, and where the role chooses the component, the same role."""
        mine = self.config
        by_role = isinstance(mine.target, GraphTarget) and mine.target.component is None
        return mine.target == other.target and not (by_role and mine.spec.role != other.spec.role)

    def check(self, cluster: Cluster) -> None:
        """Read the target once, before the start. Raises :class:`ExecutorError` where it cannot be managed."""
        try:
            listed = self.target.find(cluster)
            self._take(listed)
            self.rollout.values(listed.obj)
        except (ApiError, ReplicasUnknownError, UnsupportedManifestError, *MALFORMED) as error:
            raise ExecutorError(f"pools.{self.name}.target: {self.config.target}: {error}") from error
        if "gpus" not in self.spec.model_fields_set:
            raise ExecutorError(
                f"pools.{self.name}.spec.gpus: {self.config.target} does not say how many GPUs a replica has: give it, "
                "as 0 where it has none"
            )

    def observe(self, cluster: Cluster, pods_of: PodsOf, writer: ScaleWriter, at_s: float) -> Replicas:
        """The replicas, after the next step of a knob rollout.

        Raises :class:`ApiError`, and :class:`ReplicasUnknownError` where no number can be trusted now.
        """
        listed = self.target.find(cluster)
        self._take(listed)
        self._observe_knobs(listed, pods_of, writer)
        self.pods = []
        report = listed.read()
        self.claim.observe(report.target, listed.scaled["metadata"]["uid"], at_s, lambda: changed_by(listed.scaled))
        pods = pods_of(listed)
        self.pods = pods or []
        counted = count_replicas(
            report,
            None if pods is None else groups(pods),
            at_s=at_s,
            failed_after_s=self.config.failed_after_s,
            target_since_s=self.claim.target_since_s,
        )
        failed = f"{counted.replicas.failed} replicas cannot start: {', '.join(counted.troubles)}"
        self.log_once(failed if counted.troubles else "")
        return counted.replicas

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
            settled = report.ready is None or report.ready >= report.target
        except ReplicasUnknownError:
            settled = False
        new = [group for group in groups(pods_of(listed) or []) if group.since_s >= note.at_s - _CLOCKS_APART_S]
        trouble = next((group.trouble for group in new if group.trouble is not None), None)
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
