"""LlmdTokensLaw: llm-d's token-aware law, which scales on the backlog of prompt tokens and the KV cache in use.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot, Traffic
>>> prefill = PoolStatus(spec=PoolSpec(role="prefill"), replicas=2, queued=18, running=6)
>>> decode = PoolStatus(spec=PoolSpec(role="decode"), replicas=4, kv_usage=0.9)
>>> traffic = Traffic(requests_per_s=9, isl=4000, prefix_hit_rate=0.5)
>>> snapshot = Snapshot(at_s=0, traffic=traffic, pools={"prefill": prefill, "decode": decode})
>>> print(LlmdTokensLaw(prefill_tokens_per_s=16_000).decide(snapshot).explain())
prefill: stays at 2
  PromptBacklog: the backlog of prompt tokens decides (backlog_s=3, for_backlog=2)
decode: 4 -> 5 replicas
  KvOccupancy: the KV cache in use decides (kv_full=3.6, for_kv=5)
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dynamo_planner.core.decision import Hold, Reason, Want
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Snapshot
from dynamo_planner.policies.laws._common import (
    FRONT_UNKNOWN,
    HPA_TOLERANCE,
    LARGEST_LOAD_REPLICAS,
    average_value,
    in_front,
    may_move,
    pool_total,
    traffic,
)
from dynamo_planner.policies.laws.per_pool import PerPoolLaw, Verdict


class LlmdTokensLaw(PerPoolLaw, kind="llmd_tokens"):
    """The token-aware law of llm-d (``guides/workload-autoscaling/keda-epp-token-aware`` of llm-d after 0.10,
    experimental): KEDA ScaledObjects on tokens of outstanding work, after TokenScale.

    ::

        prefill     ceil(i / V / t)
        decode      ceil(sum of kv_usage / k)
        aggregated  the larger of both

    ======  ====================================================================================================
    symbol  meaning
    ======  ====================================================================================================
    i       prompt tokens in the pool that are not computed yet: requests waiting, in front of the pools and in
            them, and in a prefill pool those that run, each with the mean ISL that no prefix cache holds
    V       ``prefill_tokens_per_s``: a full chunk over the TTFT that it has alone, measured on the path served on
    t       ``backlog_s``: seconds of backlog per replica, the TTFT target less the TTFT alone, ``isl / V``
    k       ``kv_target``: the share of its KV cache that a replica may fill
    ======  ====================================================================================================

    24 requests of 2,000 new tokens are 48,000 tokens: 3 s at 16,000 tokens/s, and 2 replicas at 1.5 s each.

    The guards of the HPA under KEDA: up by one in 180 s, down by one in 300 s after 300 s. That is ``LlmdTokensLaw(...)
    | Stabilization(down_window_s=300) | StepLimit(up_replicas=1, up_factor=None, period_s=180) |
    StepLimit(up_replicas=None, up_factor=None, down_replicas=1, period_s=300)``.

    What llm-d warns of holds here too. Where clients wait for an answer before they send the next request, the backlog
    is their number times the ISL whatever the capacity is, and the count ends at that or at its maximum. A ``V`` from
    another chunk is wrong by as much. Of workers that are gone nothing counts: a metric that is older than ``fresh_s``
    holds the pool.

    Args:
        prefill_tokens_per_s: Prompt tokens that a replica computes per second.
        backlog_s: Seconds of backlog per replica. Default 1.5.
        kv_target: The share of the KV cache of a replica that may be in use. Default 0.8.
        tolerance: The share by which a ratio may differ from 1 without a change. Default 0.1.
        fresh_s: The age in seconds from which on an observation is unknown and holds the pool. Default 60.
    """

    prefill_tokens_per_s: float = Field(gt=0)
    backlog_s: float = Field(default=1.5, gt=0)
    kv_target: float = Field(default=0.8, gt=0, le=1)
    tolerance: float = Field(default=HPA_TOLERANCE, ge=0, lt=1)

    def scale(
        self, snapshot: Snapshot, name: str, pool: PoolStatus, replicas: Replicas, own: Any | None
    ) -> Verdict[Any]:
        wishes: list[tuple[Want, Reason]] = []
        for role, wish in (("decode", self._for_prompts), ("prefill", self._for_kv)):
            if pool.spec.role == role:
                continue
            found = wish(snapshot, name, pool, replicas)
            if isinstance(found, Hold):
                return found, None, None
            wishes.append(found)
        want, reason = max(wishes, key=lambda each: each[0].replicas)
        if pool.spec.role != "decode" and not may_move(want, replicas, in_front(snapshot, self.fresh_s)):
            return FRONT_UNKNOWN, None, None
        return want, None, reason

    def _for_prompts(
        self, snapshot: Snapshot, name: str, pool: PoolStatus, replicas: Replicas
    ) -> tuple[Want, Reason] | Hold:
        queued = pool_total(snapshot, name, "queued", self.fresh_s)
        running = pool_total(snapshot, name, "running", self.fresh_s) if pool.spec.role == "prefill" else 0.0
        if isinstance(queued, Hold):
            return queued
        if isinstance(running, Hold):
            return running
        waiting = queued + running + (in_front(snapshot, self.fresh_s) or 0.0)
        isl = traffic(snapshot, "isl", self.fresh_s) if waiting else 0.0
        if isinstance(isl, Hold):
            return isl
        uncached = isl * (1 - (snapshot.traffic.prefix_hit_rate or 0.0))
        backlog_s = waiting * uncached / self.prefill_tokens_per_s
        wanted = average_value(backlog_s, self.backlog_s, replicas, self.tolerance)
        reason = Reason(
            code="PromptBacklog",
            message="the backlog of prompt tokens decides",
            values={"backlog_s": backlog_s, "for_backlog": wanted},
        )
        return Want(max(wanted, 1), load=min(backlog_s / self.backlog_s, LARGEST_LOAD_REPLICAS)), reason

    def _for_kv(
        self, snapshot: Snapshot, name: str, pool: PoolStatus, replicas: Replicas
    ) -> tuple[Want, Reason] | Hold:
        full = pool_total(snapshot, name, "kv_usage", self.fresh_s)
        if isinstance(full, Hold):
            return full
        wanted = average_value(full, self.kv_target, replicas, self.tolerance)
        reason = Reason(
            code="KvOccupancy",
            message="the KV cache in use decides",
            values={"kv_full": full, "for_kv": wanted},
        )
        return Want(max(wanted, 1), load=min(full / self.kv_target, LARGEST_LOAD_REPLICAS)), reason
