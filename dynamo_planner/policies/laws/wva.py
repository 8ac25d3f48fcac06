"""WvaLaw: the token-capacity analyser of llm-d's Workload Variant Autoscaler.

>>> from dynamo_planner import PoolSpec, PoolStatus, Traffic
>>> pool = PoolStatus(
...     spec=PoolSpec(role="aggregated"), replicas=2, kv_usage=0.75, queued=2, kv_capacity_tokens=100_000
... )
>>> snapshot = Snapshot(at_s=0, traffic=Traffic(requests_per_s=5, isl=1000, osl=600), pools={"workers": pool})
>>> print(WvaLaw().decide(snapshot).explain())
workers: 2 -> 3 replicas
  TokensHigh: more tokens than the replicas should hold (demand=1.52e+05, capacity=8e+04, ready=2, required=1.882e+04)
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

from pydantic import Field

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.policies.laws._common import FRESH_S, UNREADABLE, asleep, is_idle, per_replica, traffic
from dynamo_planner.policies.laws.per_pool import Looked, each_pool

OBSERVATIONS = 10
SHORT, MEDIUM = 100.0, 500.0
"""Output lengths that part what was observed: below 100 tokens, below 500, and beyond."""


class WvaPool(Frozen):
    """What is remembered of a pool: since when no requests come, and the tokens that saturated replicas held."""

    idle_since_s: float | None = None
    observed: ReadOnly[str, tuple[float, ...]] = Field(default_factory=FrozenMap)


class Load(Frozen):
    """A pool per ready replica: tokens held, requests waiting, and the mean lengths, 0 where nothing is served."""

    tokens: float
    queued: float
    isl: float
    osl: float


class WvaMemory(Frozen):
    """What is remembered of every pool."""

    pools: ReadOnly[str, WvaPool]


MOST_AT_ONCE = 100_000.0
"""More replicas than this are never asked for at once, whatever is told of a KV cache of next to nothing."""


class WvaLaw(Policy, kind="wva"):
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
    up). KV usage misleads for prefill pools, where a full engine holds few tokens (llm-d issue 662). The first look at
    a pool lowers nothing. What is older than ``fresh_s`` is unknown and holds the pool.
    """

    kv_threshold: float = Field(default=0.8, gt=0, le=1)
    queue_threshold: float = Field(default=5.0, gt=0)
    up_utilization: float = Field(default=0.85, gt=0, le=1)
    down_utilization: float = Field(default=0.70, gt=0, le=1)
    idle_s: float = Field(default=600.0, gt=0)
    fresh_s: float = Field(default=FRESH_S, gt=0)

    state_type: ClassVar[Any] = WvaMemory

    def propose(self, snapshot: Snapshot, state: WvaMemory | None) -> tuple[Proposal, WvaMemory]:
        proposal, pools = each_pool(snapshot, state.pools if state else {}, partial(self._look, snapshot))
        return proposal, WvaMemory(pools=pools)

    def _look(self, snapshot: Snapshot, name: str, pool: PoolStatus, before: WvaPool | None) -> Looked[WvaPool]:
        own = self._idling(snapshot, before or WvaPool())
        if pool.replicas is None:
            return UNREADABLE, own, None
        if pool.replicas.target == 0:
            return asleep(snapshot, self.fresh_s), own, None
        load = self._load(snapshot, name)
        if isinstance(load, Hold):
            return load, own, None
        if own.idle_since_s is not None and snapshot.at_s - own.idle_since_s >= self.idle_s:
            return Want(0, load=0.0), own, None
        capacity, own = self._capacity(pool, load, own)
        want, reason = self._wanted(pool.replicas, load, capacity, first=before is None)
        return want, own, reason

    def _idling(self, snapshot: Snapshot, own: WvaPool) -> WvaPool:
        since_s = (own.idle_since_s or snapshot.at_s) if is_idle(snapshot, self.fresh_s) else None
        return own.replace(idle_since_s=since_s)

    def _load(self, snapshot: Snapshot, name: str) -> Load | Hold:
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
                return Load(tokens=tokens, queued=0.0, isl=0.0, osl=0.0)
            return Hold("traffic.isl or traffic.osl is unknown", "MetricUnknown")
        return Load(tokens=tokens, queued=queued, isl=isl, osl=osl)

    def _capacity(self, pool: PoolStatus, load: Load, own: WvaPool) -> tuple[float, WvaPool]:
        """The tokens that a replica should hold at most, and what is to be remembered of them."""
        memory_bound = self.kv_threshold * (pool.kv_capacity_tokens or 0.0)
        if load.isl + load.osl <= 0:
            return memory_bound, own
        length = "short" if load.osl < SHORT else "medium" if load.osl < MEDIUM else "long"
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

    def _wanted(self, replicas: Replicas, load: Load, capacity: float, *, first: bool) -> tuple[Want, Reason]:
        ready, coming, count = replicas.ready, replicas.starting, replicas.target
        demand = ready * (load.tokens + load.queued * load.isl)
        required = demand / self.up_utilization - (ready + coming) * capacity
        spare = ready * capacity - demand / self.down_utilization
        wanted, code, message = count, "TokensWithin", "as many tokens as the replicas should hold"
        values = {"demand": demand, "capacity": capacity, "ready": ready}
        if required > 0:
            wanted = count + math.ceil(min(required / capacity, MOST_AT_ONCE))
            code, message = "TokensHigh", "more tokens than the replicas should hold"
            values["required"] = required
        elif spare > 0 and not first:
            wanted = min(max(count - math.floor(spare / capacity), 1), count)
            code, message = "TokensLow", "room for more tokens than there are"
            values["spare"] = spare
        load_replicas = min(demand / self.up_utilization / capacity, 1e9)
        return Want(min(wanted, 10**9), load=load_replicas), Reason(code=code, message=message, values=values)


def _largest_batch(pool: PoolStatus, isl: float, osl: float) -> float:
    """How many requests a step can hold by the engine's limits; 0 where they are unknown."""
    tokens, seqs = (pool.knobs.get(knob) for knob in ("max_num_batched_tokens", "max_num_seqs"))
    if not isinstance(tokens, int | float) or not isinstance(seqs, int | float):
        return 0.0
    return min(tokens * osl / (isl + osl), float(seqs))
