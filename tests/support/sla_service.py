"""A service under an SlaPolicy, tick by tick."""

from __future__ import annotations

from typing import Any

from dynamo_planner import Decision, PoolSpec, PoolStatus, Profile, Replicas, Sla, SlaPolicy, Snapshot, State, Traffic
from dynamo_planner.core.policy import Policy

PROFILE = Profile.bundled("llama31-8b_h100_vllm_tp1")
POLICY = SlaPolicy(sla=Sla(ttft_ms=500, itl_ms=25), profile=PROFILE)
STARTUP_S = 60.0
TICK_S = 10.0


class Service:
    """A service that is told what to see, and does at once what is decided; replicas start in ``startup_s``."""

    def __init__(
        self, policy: Policy = POLICY, roles: tuple[str, ...] = ("prefill", "decode"), **replicas: int
    ) -> None:
        self.policy = policy
        self.at_s = 1000.0
        self.state: State | None = None
        self.decision = Decision(at_s=0)
        self.specs = {role: PoolSpec.model_validate({"role": role, "startup_s": STARTUP_S}) for role in roles}
        self.ready = {role: replicas.get(role, 1) for role in roles}
        self.since: dict[str, list[float]] = {role: [] for role in roles}
        self.starts_take_s = STARTUP_S

    def target(self, role: str) -> int:
        return self.ready[role] + len(self.since[role])

    def see(
        self,
        rate: float | None,
        pools: dict[str, dict[str, Any]] | None = None,
        missing: dict[str, str] | None = None,
        **traffic: Any,
    ) -> Decision:
        """One tick with these arrivals; lengths are known unless said otherwise."""
        for role, since in self.since.items():
            ready = [start_s for start_s in since if self.at_s - start_s >= self.starts_take_s]
            self.since[role] = since[len(ready) :]
            self.ready[role] += len(ready)
        seen = {"window_s": TICK_S, "requests_per_s": rate, "isl": 3000, "osl": 250, **traffic}
        if rate == 0:
            seen = {**seen, "isl": None, "osl": None}
        snapshot = Snapshot(
            at_s=self.at_s,
            traffic=Traffic(**seen),
            pools={role: self._pool(role, (pools or {}).get(role, {})) for role in self.specs},
            missing=missing or {},
        )
        self.decision = self.policy.decide(snapshot, self.state)
        self.state = self.decision.state
        for role in self.specs:
            self._move(role, self.decision.targets.get(role, self.target(role)))
        self.at_s += TICK_S
        return self.decision

    def _pool(self, role: str, seen: dict[str, Any]) -> PoolStatus:
        since = tuple(self.since[role])
        replicas = Replicas(ready=self.ready[role], starting=len(since), starting_since_s=since)
        return PoolStatus(**{"spec": self.specs[role], "replicas": replicas, "queued": 0, **seen})

    def _move(self, role: str, target: int) -> None:
        while self.target(role) < target:
            self.since[role].append(self.at_s)
        while self.target(role) > target:
            if self.since[role]:
                self.since[role].pop()
            else:
                self.ready[role] -= 1

    def run(self, rate: float, seconds: float, **traffic: Any) -> Decision:
        for _ in range(int(seconds / TICK_S)):
            self.see(rate, **traffic)
        return self.decision

    def codes(self, pool: str) -> list[str]:
        return [reason.code for reason in self.decision.reasons if reason.pool == pool]
