"""What the tests of policies are written in: at this time, with these metrics, expect this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamo_planner import Decision, Policy, PoolSpec, PoolStatus, Snapshot, State, Traffic
from dynamo_planner.policies import LoadPolicy

BUSY = Traffic(requests_per_s=5)
PREFILL = PoolSpec(role="prefill")
DECODE = PoolSpec(role="decode")
POLICY = LoadPolicy(adjustment_interval_s=30)


def prefill(replicas: Any, queued: float | None, running: float | None = 0, **more: Any) -> PoolStatus:
    return PoolStatus(**{"spec": PREFILL, "replicas": replicas, "queued": queued, "running": running, **more})


def decode(replicas: Any, kv_usage: float | None, queued: float | None = 0, **more: Any) -> PoolStatus:
    return PoolStatus(
        **{"spec": DECODE, "replicas": replicas, "kv_usage": kv_usage, "queued": queued, "running": 4, **more}
    )


class Timeline:
    """Feeds a policy one snapshot after the other, and says what it wanted."""

    def __init__(self, policy: Policy = POLICY, traffic: Traffic = BUSY) -> None:
        self.policy = policy
        self.traffic = traffic
        self.missing: dict[str, str] = {}
        self.state: State | None = None
        self.decision = Decision(at_s=0)

    def see(self, at_s: float, /, **pools: PoolStatus) -> Decision:
        snapshot = Snapshot(at_s=at_s, traffic=self.traffic, pools=pools, missing=self.missing)
        self.decision = self.policy.decide(snapshot, self.state)
        self.state = self.decision.state
        return self.decision

    def expect(self, at_s: float, want: Mapping[str, int], /, **pools: PoolStatus) -> None:
        """These targets and no other; a pool that is held is left out."""
        assert self.see(at_s, **pools).targets == want, f"at {at_s} s: {self.decision.explain()}"

    def codes(self, pool: str) -> list[str]:
        return [reason.code for reason in self.decision.reasons if reason.pool == pool]


def interval(timeline: Timeline, start_s: float, want: Mapping[str, int], /, **pools: PoolStatus) -> None:
    """One interval of the same metrics, that ends with this."""
    for at_s in range(int(start_s) + (10 if timeline.state else 0), int(start_s) + 30, 10):
        timeline.expect(at_s, {}, **pools)
    timeline.expect(start_s + 30, want, **pools)
