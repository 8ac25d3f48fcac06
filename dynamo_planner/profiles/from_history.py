"""A profile from recorded snapshots: the step times that calm pools showed, fitted by a linear step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dynamo_planner.core.snapshot import PoolStatus, Role, Snapshot
from dynamo_planner.profiles.learned_profile import LearnedEngine, learned_fields
from dynamo_planner.profiles.observed_steps import MeanRequest, batch_of, observed_steps
from dynamo_planner.profiles.step_model import StepModel, StepSample
from dynamo_planner.profiles.validation import ProfileError

CALM_KV_USAGE = 0.9
"""Pools with more of their KV cache in use preempt, and are not learned from."""

LONGEST_S = 300.0
"""A snapshot stands for the time since the one before, and at most for this long."""

BEYOND = 2.0
"""The profile goes up to this many times the largest batch that was seen."""

FIRST_STEPS = 1.5
"""Steps of decode between prefill and first token, which a TTFT has in it."""


@dataclass
class _Seen:
    """What the history says of the engines of one role."""

    model: StepModel = field(default_factory=StepModel)
    batch: float = 1.0
    kv_tokens: float = 0.0
    gpus: int = 1

    def engine(self) -> LearnedEngine:
        batch = BEYOND * self.batch
        return LearnedEngine(self.model.costs(self.kv_tokens or None), batch, self.kv_tokens or 8192 * batch)


def fields_from_history(snapshots: Iterable[Snapshot], name: str, chunk_tokens: int) -> dict[str, Any]:
    """The fields of a profile that recorded snapshots give, oldest first; see ``Profile.from_history``."""
    seen: dict[Role, _Seen] = {}
    before: Snapshot | None = None
    for snapshot in snapshots:
        if before is not None and snapshot.at_s > before.at_s:
            lasted_s = min(snapshot.at_s - before.at_s, snapshot.traffic.window_s or LONGEST_S, LONGEST_S)
            for pool_name, pool in snapshot.pools.items():
                _learn(seen, snapshot, pool, before.pools.get(pool_name), lasted_s, chunk_tokens)
        before = snapshot
    known = {role: own for role, own in seen.items() if own.model.weight}
    if not known:
        raise ProfileError(
            f"{name}: no calm pool with latencies: it takes traffic.isl, osl and itl_ms with running, or the stages of "
            "a prefill pool, in snapshots without starts and queues"
        )
    both = known.get("aggregated")
    prefill = both or known.get("prefill") or known["decode"]
    decode = both or known.get("decode") or known["prefill"]
    return learned_fields(
        prefill.engine(), decode.engine(), aggregated=both is not None, name=name, gpus=max(decode.gpus, 1)
    )


def _learn(
    seen: dict[Role, _Seen],
    snapshot: Snapshot,
    pool: PoolStatus,
    before: PoolStatus | None,
    lasted_s: float,
    chunk_tokens: int,
) -> None:
    """Add what one snapshot says of a pool."""
    traffic, role, request = snapshot.traffic, pool.spec.role, MeanRequest.of(snapshot.traffic)
    replicas = pool.replicas
    if request is None or replicas is None or not replicas.ready or not traffic.requests_per_s:
        return
    own = seen.setdefault(role, _Seen(gpus=pool.spec.gpus))
    batch, usage = batch_of(pool), pool.kv_usage or 0.0
    own.batch = max(own.batch, batch)
    own.kv_tokens = pool.kv_capacity_tokens or own.kv_tokens or (batch * request.context / usage if usage else 0.0)
    same = before is not None and before.replicas is not None and before.replicas.ready == replicas.ready
    if not same or replicas.starting or (pool.queued or 0.0) > replicas.ready or usage > CALM_KV_USAGE:
        return
    share = replicas.ready / sum(
        each.replicas.ready for each in snapshot.with_role(role).values() if each.replicas is not None
    )
    rate = share * traffic.requests_per_s / replicas.ready
    samples = observed_steps(pool, traffic, request, rate, chunk_tokens)
    if not samples and role == "prefill" and traffic.ttft_ms is not None and not pool.queued:
        first_ms = FIRST_STEPS * traffic.itl_ms.mean if traffic.itl_ms is not None else 0.0
        alone_ms = max(traffic.ttft_ms.mean - first_ms, 0.0)
        samples = (StepSample(alone_ms, 1.0, request.work, sampled=traffic.ttft_ms.count or 1.0),) if alone_ms else ()
    for sample in samples:
        own.model = own.model.plus(sample, lasted_s)
