"""What a tick says of how far the engines of a pool are from their profile."""

from __future__ import annotations

from typing import NamedTuple

from dynamo_planner.policies.sla.correction import Correction, compared
from dynamo_planner.policies.sla.observing import Seen
from dynamo_planner.profiles import Profile
from dynamo_planner.snapshot import PoolStatus, Replicas, Traffic

FIXED_POINT_STEPS = 4
"""A step that computes prompts is as long as it takes for its share of them to arrive; so often that is worked out."""


class Work(NamedTuple):
    """Mean lengths of the requests: prompt tokens that are computed, prompt tokens, and output tokens."""

    computed: float
    isl: float
    osl: float

    @property
    def context(self) -> float:
        """Tokens that a request in flight attends to on average."""
        return self.isl + self.osl / 2


def by_itl(
    correction: Correction, pool: PoolStatus, ready: int, traffic: Traffic, seen: Seen, work: Work, profile: Profile
) -> Correction:
    """After a tick of a pool that decodes: the ITL against that of the batch that was seen."""
    if traffic.itl_ms is None or traffic.itl_ms.mean <= 0 or not pool.running or not ready or not seen.elapsed_s:
        return correction
    batch = pool.running / ready
    kv_tokens = batch * work.context
    expected_ms = profile.step_ms(0.0, batch, kv_tokens)
    if pool.spec.role == "aggregated":
        tokens_per_ms = seen.requests_per_s * work.computed / ready / 1000
        for _ in range(FIXED_POINT_STEPS):
            expected_ms = profile.step_ms(min(tokens_per_ms * expected_ms, work.computed), batch, kv_tokens)
    requests = seen.requests if traffic.itl_ms.count is None else min(traffic.itl_ms.count, seen.requests)
    return compared(correction, traffic.itl_ms.mean * requests, expected_ms * requests, requests, seen.elapsed_s)


def by_busy_time(
    correction: Correction,
    pool: PoolStatus,
    replicas: Replicas,
    before: float | None,
    seen: Seen,
    work: Work,
    profile: Profile,
) -> Correction:
    """After a tick of a pool that computes prompts: busy replica-seconds against those that the profile says for the
    requests that were completed, which are those that arrived and are not ``inside`` any more.

    A worker with requests is busy. Where workers are not told apart, each running request keeps one replica busy.
    """
    there = inside(pool)
    if there is None or before is None or not replicas.ready or not seen.elapsed_s:
        return correction
    busy = min(pool.running or 0.0, float(replicas.ready))
    if pool.workers and all(worker.running is not None for worker in pool.workers):
        active = sum([bool(worker.running or worker.queued) for worker in pool.workers])
        busy = replicas.ready * active / len(pool.workers)
    done = max(seen.requests_per_s * seen.elapsed_s - (there - before), 0.0)
    expected_s = profile.prefill.ttft_ms(work.computed) / 1000
    return compared(correction, busy * seen.elapsed_s, expected_s * done, done, seen.elapsed_s)


def inside(pool: PoolStatus) -> float | None:
    """Requests waiting and running in a pool."""
    return None if pool.running is None or pool.queued is None else pool.running + pool.queued
