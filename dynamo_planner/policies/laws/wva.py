"""WvaLaw: the token-capacity analyser of llm-d's Workload Variant Autoscaler.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot, Traffic
>>> pool = PoolStatus(
...     spec=PoolSpec(role="aggregated"), replicas=2, kv_usage=0.75, queued=2, kv_capacity_tokens=100_000
... )
>>> snapshot = Snapshot(at_s=0, traffic=Traffic(requests_per_s=5, isl=1000, osl=600), pools={"workers": pool})
>>> print(WvaLaw().decide(snapshot).explain())
workers: 2 -> 3 replicas
  TokensHigh: more tokens than the replicas should hold (demand=152000, capacity=80000, ready=2, required=18824)
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from dynamo_planner.core.decision import Hold, Reason, Want
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.policies.laws._common import (
    LARGEST_COUNT,
    LARGEST_LOAD_REPLICAS,
    is_idle,
    per_replica,
    traffic,
)
from dynamo_planner.policies.laws.per_pool import PerPoolLaw, PoolMemories, Verdict

OBSERVATIONS = 10
"""Observations of a saturated replica that are kept for each class of output lengths."""

SHORT_OUTPUT_TOKENS, MEDIUM_OUTPUT_TOKENS = 100.0, 500.0
"""The output lengths that separate the classes: short below the first, medium below the second, then long."""


class WvaPool(Frozen):
    """The memory of one pool.

    Args:
        idle_since_s: Since when no requests come, in Unix seconds; ``None`` where some do.
        observed: The tokens that saturated replicas held, oldest first, by class of output lengths.
    """

    idle_since_s: float | None = None
    observed: ReadOnly[str, tuple[float, ...]] = Field(default_factory=FrozenMap)


class ReplicaLoad(NamedTuple):
    """The load of one ready replica: tokens held, requests waiting, and mean lengths, which are 0 without requests."""

    tokens: float
    queued: float
    isl: float
    osl: float


LARGEST_RISE_REPLICAS = 100_000.0
"""The most replicas that one decision adds, whatever size a tiny KV cache is reported to have."""


class WvaLaw(PerPoolLaw, kind="wva"):
    """Version 2 of the saturation analyser of llm-d's WVA 0.9 (``internal/engines/analyzers/saturation_v2``).

    A replica's capacity in tokens is ``min(k1, k2)``, with ``k1 = kv_threshold * kv_capacity_tokens``, and ``k2``

    - what a replica with ``queue_threshold`` or more waiting requests holds now;
    - otherwise the mean of the last 10 such observations for outputs of this length;
    - otherwise ``n * (I + O / 2)`` for a batch of ``n = min(B * O / (I + O), S)`` requests with I prompt and O output
      tokens, where the pool's knobs ``max_num_batched_tokens`` and ``max_num_seqs`` say B and S;
    - otherwise ``k1``.

    Demand is the tokens held and ``queued * I``. Then::

        required = demand / up_utilization - (ready + starting) * capacity     up by ceil(required / capacity)
        spare = ready * capacity - demand / down_utilization                   down by floor(spare / capacity)

    So what is starting counts when scaling up and not when scaling down. To one at the least, and to zero after
    ``idle_s`` without requests. WVA chooses among variants of a model by cost; a pool here is one variant.

    Not taken over: the demand of a queue in front of the pods, which is not known without a frontend (it wakes a pool
    up). KV usage misleads for prefill pools, where a full engine holds few tokens (llm-d issue 662). The first
    decision on a pool lowers nothing.

    Args:
        kv_threshold: The share of the KV cache that a replica may fill. Default 0.8.
        queue_threshold: Requests waiting per replica from which on it counts as saturated. Default 5.
        up_utilization: The share of the capacity above which a pool rises. Default 0.85.
        down_utilization: The share below which it falls. Default 0.70.
        idle_s: Seconds without requests after which a pool goes to zero. Default 600.
        fresh_s: The age in seconds from which on an observation is unknown and holds the pool. Default 60.
    """

    kv_threshold: float = Field(default=0.8, gt=0, le=1)
    queue_threshold: float = Field(default=5.0, gt=0)
    up_utilization: float = Field(default=0.85, gt=0, le=1)
    down_utilization: float = Field(default=0.70, gt=0, le=1)
    idle_s: float = Field(default=600.0, gt=0)

    state_type: ClassVar[Any] = PoolMemories[WvaPool]

    def decide_pool(self, snapshot: Snapshot, name: str, pool: PoolStatus, own: WvaPool | None) -> Verdict[WvaPool]:
        entry, kept, reason = super().decide_pool(snapshot, name, pool, own)
        return entry, self._idling(snapshot, kept), reason

    def scale(
        self, snapshot: Snapshot, name: str, pool: PoolStatus, replicas: Replicas, own: WvaPool | None
    ) -> Verdict[WvaPool]:
        load = self._load(snapshot, name)
        if isinstance(load, Hold):
            return load, own, None
        memory = self._idling(snapshot, own)
        if memory.idle_since_s is not None and snapshot.at_s - memory.idle_since_s >= self.idle_s:
            return Want(0, load=0.0), memory, None
        capacity, memory = self._capacity(pool, load, memory)
        want, reason = self._wanted(replicas, load, capacity, first=own is None)
        return want, memory, reason

    def _idling(self, snapshot: Snapshot, own: WvaPool | None) -> WvaPool:
        """The memory with the start of the idle time up to now."""
        own = own or WvaPool()
        since_s = (own.idle_since_s or snapshot.at_s) if is_idle(snapshot, self.fresh_s) else None
        return own.replace(idle_since_s=since_s)

    def _load(self, snapshot: Snapshot, name: str) -> ReplicaLoad | Hold:
        pool = snapshot.pools[name]
        usage, queued = (per_replica(snapshot, name, field, self.fresh_s) for field in ("kv_usage", "queued"))
        isl, osl = (traffic(snapshot, field, self.fresh_s) for field in ("isl", "osl"))
        if isinstance(usage, Hold):
            return usage
        if isinstance(queued, Hold):
            return queued
        if not pool.kv_capacity_tokens:
            return Hold("kv_capacity_tokens is unknown", "MetricUnknown")
        tokens = usage * pool.kv_capacity_tokens
        if isinstance(isl, Hold) or isinstance(osl, Hold):
            if is_idle(snapshot, self.fresh_s) and not queued:
                return ReplicaLoad(tokens=tokens, queued=0.0, isl=0.0, osl=0.0)
            return Hold("traffic.isl or traffic.osl is unknown", "MetricUnknown")
        return ReplicaLoad(tokens=tokens, queued=queued, isl=isl, osl=osl)

    def _capacity(self, pool: PoolStatus, load: ReplicaLoad, own: WvaPool) -> tuple[float, WvaPool]:
        """The tokens that a replica should hold at most, and the memory with what this tick says of it."""
        memory_bound = self.kv_threshold * (pool.kv_capacity_tokens or 0.0)
        if load.isl + load.osl <= 0:
            return memory_bound, own
        length = "short" if load.osl < SHORT_OUTPUT_TOKENS else "medium" if load.osl < MEDIUM_OUTPUT_TOKENS else "long"
        observed = own.observed.get(length, ())
        if load.queued >= self.queue_threshold and load.tokens > 0:
            observed = (*observed, load.tokens)[-OBSERVATIONS:]
            own = own.replace(observed=FrozenMap({**own.observed, length: observed}))
            compute_bound = load.tokens
        elif observed:
            compute_bound = sum(observed) / len(observed)
        else:
            compute_bound = _largest_batch(pool, load.isl, load.osl) * (load.isl + load.osl / 2) or memory_bound
        return min(memory_bound, compute_bound), own

    def _wanted(self, replicas: Replicas, load: ReplicaLoad, capacity: float, *, first: bool) -> tuple[Want, Reason]:
        ready, coming, count = replicas.ready, replicas.starting, replicas.target
        demand = ready * (load.tokens + load.queued * load.isl)
        required = demand / self.up_utilization - (ready + coming) * capacity
        spare = ready * capacity - demand / self.down_utilization
        wanted, code, message = count, "TokensWithin", "as many tokens as the replicas should hold"
        values = {"demand": demand, "capacity": capacity, "ready": ready}
        if required > 0:
            wanted = count + math.ceil(min(required / capacity, LARGEST_RISE_REPLICAS))
            code, message = "TokensHigh", "more tokens than the replicas should hold"
            values["required"] = required
        elif spare > 0 and not first:
            wanted = min(max(count - math.floor(spare / capacity), 1), count)
            code, message = "TokensLow", "room for more tokens than there are"
            values["spare"] = spare
        load_replicas = min(demand / self.up_utilization / capacity, LARGEST_LOAD_REPLICAS)
        return Want(min(wanted, LARGEST_COUNT), load=load_replicas), Reason(code=code, message=message, values=values)


def _largest_batch(pool: PoolStatus, isl: float, osl: float) -> float:
    """How many requests a step can hold by the engine's limits; 0 where they are unknown."""
    tokens, seqs = (pool.knobs.get(knob) for knob in ("max_num_batched_tokens", "max_num_seqs"))
    if not isinstance(tokens, int | float) or not isinstance(seqs, int | float):
        return 0.0
    return min(tokens * osl / (isl + osl), float(seqs))
