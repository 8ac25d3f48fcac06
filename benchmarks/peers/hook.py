"""A policy of this library as the ``scaling_policy`` of Dynamo's simulator."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.setups import MAX_WORKERS, STARTUP_S
from dynamo_planner import Dist, Policy, PoolSpec, PoolStatus, Replicas, Snapshot, Traffic, WorkerStatus
from dynamo_planner.core.snapshot import Role

ROLES: tuple[Role, Role] = ("prefill", "decode")
TICK_MS = 5000.0


class PolicyHook:
    """Makes a snapshot of what the simulator shows at each tick, and hands back what the policy decides.

    The simulator shows each worker's last forward pass, and none where it took none since the last tick: what was seen
    of it last still holds. How many prompts a prefill worker has in hand is not told by that, and is unknown.
    """

    def __init__(self, policy: Policy, gpus: int, kv_tokens: float) -> None:
        self.policy, self.gpus, self.kv_tokens = policy, gpus, kv_tokens
        self.state: Any = None
        self.passes: dict[str, dict[int, dict[str, Any]]] = {role: {} for role in ROLES}
        self.started_s: dict[tuple[str, int], float] = {}

    def initial_tick_ms(self) -> float:
        return TICK_MS

    def on_tick(self, seen: dict[str, Any]) -> dict[str, Any]:
        decision = self.policy.decide(self.snapshot(seen), self.state)
        self.state = decision.state
        targets = {f"target_{role}": decision.targets.get(role) for role in ROLES}
        return {**targets, "next_tick_ms": seen["now_ms"] + TICK_MS}

    def snapshot(self, seen: dict[str, Any]) -> Snapshot:
        window = seen["traffic"]

        def mean(name: str, count: str) -> Dist | None:
            return Dist(mean=window[name], count=window[count]) if window[count] else None

        traffic = Traffic(
            window_s=window["duration_s"],
            requests_per_s=window["num_req"] / window["duration_s"] if window["duration_s"] else None,
            isl=mean("avg_isl", "shape_count"),
            osl=mean("avg_osl", "shape_count"),
            ttft_ms=mean("avg_ttft_ms", "ttft_count"),
            itl_ms=mean("avg_itl_ms", "itl_count"),
        )
        pools = {role: self._pool(seen, role) for role in ROLES}
        return Snapshot(at_s=seen["now_ms"] / 1000, traffic=traffic, pools=pools)

    def _pool(self, seen: dict[str, Any], role: Role) -> PoolStatus:
        ready, starting = seen[f"active_{role}_ids"], seen[f"starting_{role}_ids"]
        since_s = [self.started_s.setdefault((role, worker), seen["now_ms"] / 1000) for worker in starting]
        passes = self.passes[role] | {last["worker_id"]: last for last in seen[f"{role}_fpm_snapshots"]}
        self.passes[role] = passes = {worker: last for worker, last in passes.items() if worker in ready}
        queued = {worker: last[f"num_queued_{role}"] for worker, last in passes.items()}
        running = {worker: last[f"num_{role}_requests"] for worker, last in passes.items()}
        held = sum(last["sum_decode_kv_tokens"] for last in passes.values())
        return PoolStatus(
            spec=PoolSpec(role=role, gpus=self.gpus, startup_s=STARTUP_S, max_replicas=MAX_WORKERS),
            replicas=Replicas(
                ready=len(ready),
                starting=len(starting),
                starting_since_s=sorted(since_s),
                draining=seen[f"draining_{role}_count"],
            ),
            queued=sum(queued.values()),
            running=sum(running.values()) if role == "decode" else None,
            kv_usage=min(held / max(len(ready), 1) / self.kv_tokens, 1.0),
            kv_capacity_tokens=int(self.kv_tokens),
            coverage=1.0,
            workers=tuple(
                WorkerStatus(name=str(worker), queued=queued[worker], running=running[worker]) for worker in passes
            ),
        )
