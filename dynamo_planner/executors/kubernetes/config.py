"""The configuration of the executor that writes replicas through the Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from dynamo_planner.core.snapshot import PoolSpec
from dynamo_planner.core.values import Frozen
from dynamo_planner.executors.config import ExecutorConfig
from dynamo_planner.executors.kubernetes.pool import KubernetesPool

if TYPE_CHECKING:
    from dynamo_planner.executors.kubernetes.executor import KubernetesExecutor


class LeaseConfig(Frozen):
    """The Lease that several planners of the same pools campaign for.

    Args:
        name: The name of the Lease object. Default ``dynamo-planner``.
        seconds: A leader that dies is replaced within this time. Default 15.
    """

    name: str = Field(default="dynamo-planner", pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    seconds: int = Field(default=15, ge=3)


class KubernetesConfig(ExecutorConfig, kind="kubernetes"):
    """Write replicas through the Kubernetes API (extra ``kubernetes``).

    Args:
        pools: The pools by name, each with the object that it scales.
        namespace: The namespace of the objects. Default: the one that the credentials name.
        kubeconfig: A kubeconfig. Default: the credentials of the pod that the planner runs in, else the default file.
        context: A context of the kubeconfig. Default: its current one.
        when_changed: What follows when something else changes replicas: ``yield`` leaves the pool alone for
            ``yield_s``, ``retake`` writes again. Default ``yield``.
        yield_s: Seconds for which a pool is left alone. Default 600.
        check_autoscalers: Refuse to scale what an HPA or a KEDA ScaledObject scales. Default true.
        patience_s: Seconds that one step may wait for the API server. Default 15.
        dry_run: Let the API server check writes without keeping them. Default false.
        events: Write an event on the object for each action; needs the right ``create`` on events. Default false.
        waits: Wait for targets, rights and API server that are not there yet. Default true.
        spacing_s: Seconds in which an object is not written again to lower replicas. Default 0.
        deletion_costs: Let the least busy pods of a ReplicaSet end first; needs the right ``patch`` on pods. Default
            false.
        lease: The Lease by which several planners elect a leader. Default none.
    """

    pools: dict[str, KubernetesPool] = Field(min_length=1)
    namespace: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    when_changed: Literal["yield", "retake"] = "yield"
    yield_s: float = Field(default=600.0, ge=0)
    check_autoscalers: bool = True
    patience_s: float = Field(default=15.0, gt=0)
    dry_run: bool = False
    events: bool = False
    waits: bool = True
    spacing_s: float = Field(default=0.0, ge=0)
    deletion_costs: bool = False
    lease: LeaseConfig | None = None

    @property
    def specs(self) -> Mapping[str, PoolSpec]:
        return {name: pool.spec for name, pool in self.pools.items()}

    def build(self) -> KubernetesExecutor:
        from dynamo_planner.executors.kubernetes.api import Api  # noqa: PLC0415  # needs the extra
        from dynamo_planner.executors.kubernetes.election import Election  # noqa: PLC0415
        from dynamo_planner.executors.kubernetes.executor import KubernetesExecutor  # noqa: PLC0415

        api = Api.connect(self.kubeconfig, self.context)
        namespace, lease = self.namespace or api.namespace, self.lease
        return KubernetesExecutor(
            self.pools,
            api,
            namespace=namespace,
            election=Election(api, namespace, lease.name, lease_s=lease.seconds) if lease else None,
            when_changed=self.when_changed,
            yield_s=self.yield_s,
            check_autoscalers=self.check_autoscalers,
            patience_s=self.patience_s,
            dry_run=self.dry_run,
            events=self.events,
            waits=self.waits,
            spacing_s=self.spacing_s,
            deletion_costs=self.deletion_costs,
        )
