"""A policy as a plug-in of Dynamo's planner: it proposes replicas over gRPC (extra ``dynamo``).

Dynamo 1.6 lets a program take part in the stages of its planner. This is a ``propose`` plug-in: each tick brings the
traffic and the workers that the planner observed, and the answer sets the replicas that the policy decides.

>>> from dynamo_planner import PoolSpec, SlaPolicy
>>> policy = SlaPolicy(ttft_ms=500, itl_ms=25, profile="llama31-8b_h100_vllm_tp1")
>>> pools = {"prefill": PoolSpec(role="prefill"), "decode": PoolSpec(role="decode")}
>>> server = dynamo_plugin_server(DynamoPlugin(policy, pools), "127.0.0.1:0")
>>> server.stop()

The planner's configuration names it, and leaves the deciding to it::

    enable_throughput_scaling: false
    enable_load_scaling: false
    scheduling:
      scale_interval_seconds: 10
      external_plugins:
        - plugin_id: dynamo_planner
          plugin_type: propose
          priority: 1
          endpoint: grpc://policy.llm:9099

The planner tells no queues and no latencies, so a policy that needs them holds (as ``LoadPolicy`` does), and
``SlaPolicy`` learns no correction. It tells no time either: that of its calls is taken. Messages and numbers of fields
are those of the interface that ships with Dynamo 1.6.1.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from dynamo_planner.core.decision import State
from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.policy import PlainFunction, Policy, as_policy
from dynamo_planner.core.snapshot import PoolSpec, PoolStatus, Replicas, Snapshot

with needs_extra("dynamo"):
    import grpc

    from dynamo_planner.integrations.grpc_server import GrpcServer, written
    from dynamo_planner.integrations.protobuf import DOUBLE, INT32, STRING, Messages

PACKAGE = "dynamo.planner.plugin.v1"
SERVICE = f"{PACKAGE}.ProposePlugin"
POOLS = ("prefill", "decode")
"""The components of Dynamo's planner; aggregated workers are its ``decode``."""

message = Messages(
    PACKAGE,
    {
        "ProposeStageRequest": {(1, "context"): "PipelineContext"},
        "PipelineContext": {(3, "observations"): "ObservationData"},
        "ObservationData": {(1, "traffic"): "TrafficMetrics", (3, "workers"): "WorkerState"},
        "TrafficMetrics": {
            (1, "duration_s"): DOUBLE,
            (2, "num_req"): DOUBLE,
            (3, "isl"): DOUBLE,
            (4, "osl"): DOUBLE,
            (5, "kv_hit_rate"): DOUBLE,
        },
        "WorkerState": {
            (1, "ready_prefill"): INT32,
            (2, "ready_decode"): INT32,
            (3, "expected_prefill"): INT32,
            (4, "expected_decode"): INT32,
        },
        "ProposeStageResponse": {(1, "accept"): "AcceptResult", (2, "override"): "OverrideResult"},
        "AcceptResult": {},
        "OverrideResult": {(1, "targets"): "ComponentTarget*", (2, "reason"): STRING},
        "ComponentTarget": {(1, "sub_component_type"): STRING, (3, "replicas"): INT32},
    },
)
"""The class of a message, by its name. A target without a type is one to be set."""


class DynamoPlugin:
    """A policy that answers Dynamo's planner. It keeps the policy's state; start it anew to forget it.

    Args:
        policy: The policy, with its guards.
        pools: What a replica is, for ``prefill`` and ``decode``, or for ``decode`` alone.
        clock: Unix seconds. Default the clock of this machine.

    Raises ``ValueError`` for another pool.
    """

    def __init__(
        self,
        policy: Policy | PlainFunction,
        pools: Mapping[str, PoolSpec],
        clock: Callable[[], float] = time.time,
    ) -> None:
        if unknown := set(pools) - set(POOLS):
            raise ValueError(f"pools: Dynamo's planner has {' and '.join(POOLS)}, not {', '.join(sorted(unknown))}")
        self._policy, self._pools, self._clock = as_policy(policy), dict(pools), clock
        self._state: State | None = None
        self._lock = threading.Lock()

    def propose(self, request: Any) -> Any:
        """The answer to a tick: the replicas of each pool, or no opinion where the policy holds all of them."""
        with self._lock:
            decision = self._policy.decide(self._snapshot(request.context.observations), self._state)
            self._state = decision.state
        if not decision.targets:
            return message("ProposeStageResponse")(accept=message("AcceptResult")())
        targets = [
            message("ComponentTarget")(sub_component_type=pool, replicas=replicas)
            for pool, replicas in decision.targets.items()
        ]
        told = message("OverrideResult")(targets=targets, reason=decision.explain())
        return message("ProposeStageResponse")(override=told)

    def _snapshot(self, observed: Any) -> Snapshot:
        traffic = Traffic()
        if observed.HasField("traffic") and observed.traffic.duration_s > 0:
            told = observed.traffic
            traffic = Traffic(
                window_s=told.duration_s,
                requests_per_s=told.num_req / told.duration_s,
                isl=told.isl or None,
                osl=told.osl or None,
                prefix_hit_rate=told.kv_hit_rate if told.HasField("kv_hit_rate") else None,
            )
        pools = {
            name: PoolStatus(spec=spec, replicas=_replicas(observed.workers, name))
            for name, spec in self._pools.items()
        }
        return Snapshot(at_s=self._clock(), traffic=traffic, pools=pools)


def _replicas(workers: Any, pool: str) -> Replicas | None:
    """The replicas of a pool; ``None`` where the planner does not know how many are ready."""
    if not workers.HasField(f"ready_{pool}"):
        return None
    ready = getattr(workers, f"ready_{pool}")
    target = getattr(workers, f"expected_{pool}") if workers.HasField(f"expected_{pool}") else ready
    return Replicas(ready=min(ready, target), starting=max(target - ready, 0), target=target)


def dynamo_plugin_server(plugin: DynamoPlugin, address: str, credentials: Any = None) -> GrpcServer:
    """Start a server at ``HOST:PORT``; with ``credentials`` of :func:`grpc.ssl_server_credentials`, over TLS.

    Raises ``OSError`` where it cannot listen there.
    """
    handler = grpc.unary_unary_rpc_method_handler(
        lambda request, _: plugin.propose(request), message("ProposeStageRequest").FromString, written
    )
    return GrpcServer({"Propose": handler}, SERVICE, address, credentials)
