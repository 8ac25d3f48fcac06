"""Analytic knob values from the profile: where a search starts.

All are for the observed work of a replica: its batch, and the context and lengths of its requests. ``factor`` is how
much longer steps take than profiled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dynamo_planner.core.snapshot import PoolStatus, Sla, Snapshot
from dynamo_planner.profiles import Profile
from dynamo_planner.sizing import Load, PercentileSizing

FLEET_FACTOR = 200.0
"""Savings are worked out for a fleet this many times as large, so that whole replicas do not matter."""

OUTLIER_RATIO = 2.0
"""An engine that seems more than this many times slower or faster than its profile is measured wrongly."""

LARGEST_WORK = 1e9
"""Batches, contexts and lengths beyond this are taken for faults of the metrics."""

MIN_PROMPT_TOKENS, MAX_BATCH = 16.0, 4096.0
"""The ends of the ranges that prompts and batches are searched in."""

GRID_POINTS = 128
"""Values that are compared, evenly spaced on a logarithmic scale."""


class ReplicaWork(NamedTuple):
    """The work of one replica of a pool.

    Args:
        batch: Requests that decode at once.
        context: Tokens that each attends to.
        isl: Prompt tokens of a request that are computed.
        osl: Output tokens of a request.
        requests_per_s: Requests per second.
        itl_ms: The observed ITL, in milliseconds.
        factor: How many times longer steps take than profiled.
    """

    batch: float
    context: float
    isl: float
    osl: float
    requests_per_s: float
    itl_ms: float
    factor: float


def work_of(snapshot: Snapshot, pool: PoolStatus, profile: Profile) -> ReplicaWork | None:
    """The work of a replica, or ``None`` where it is not reported."""
    traffic, ready = snapshot.traffic, pool.replicas.ready if pool.replicas else 0
    isl, osl, itl = traffic.isl, traffic.osl, traffic.itl_ms
    if not ready or pool.running is None or isl is None or osl is None or itl is None or not traffic.requests_per_s:
        return None
    computed = isl.mean * (1 - (traffic.prefix_hit_rate or 0.0))
    batch, context = max(pool.running / ready, 1.0), max(isl.mean + osl.mean / 2, 1.0)
    if max(batch, context, computed, osl.mean) > LARGEST_WORK:
        return None
    rate = traffic.requests_per_s / ready
    expected_ms = profile.step_ms(0.0, batch, batch * context)
    factor = (
        min(max(itl.mean / max(expected_ms, 1e-6), 1 / OUTLIER_RATIO), OUTLIER_RATIO)
        if pool.spec.role == "decode"
        else 1.0
    )
    return ReplicaWork(batch, context, max(computed, 1.0), max(osl.mean, 1.0), rate, itl.mean, factor)


def largest_chunk(profile: Profile, work: ReplicaWork, target_ms: float, most: float) -> float | None:
    """The largest step budget whose step is no longer than a target at this batch and context; ``None`` without mixed
    steps.

    With the ITL for a target, a request keeps it whatever prompts come beside it. A longer step would bring it over in
    short answers, which see a long prompt's steps from the first to the last of their tokens.
    """
    if profile.mixed is None:
        return None
    prompts = np.geomspace(MIN_PROMPT_TOKENS, most, GRID_POINTS)
    steps_ms = work.factor * profile.mixed.step_ms(prompts, np.full(len(prompts), work.batch), work.context)
    fitting = prompts[steps_ms <= target_ms]
    return float(fitting[-1]) + work.batch if len(fitting) else None


def largest_batch(profile: Profile, work: ReplicaWork, sla: Sla, pool: PoolStatus) -> float:
    """The batch at which ITL meets its target within the KV cache.

    In an aggregated pool each token that is made comes with ``isl / osl`` tokens of prompts, whose time is in the step.
    """
    batches = np.geomspace(1.0, MAX_BATCH, GRID_POINTS)
    prompts = work.isl / work.osl if pool.spec.role == "aggregated" else 0.0
    if prompts and profile.mixed is not None:
        steps_ms = np.asarray(profile.mixed.step_ms(batches * prompts, batches, work.context))
        fitting = batches[work.factor * steps_ms <= sla.itl_ms]
        batch = float(fitting[-1]) if len(fitting) else 1.0
    else:
        batch = float(profile.decode.best(sla.itl_ms / work.factor, work.context).batch)
    kv_tokens = pool.kv_capacity_tokens or profile.decode.max_kv_tokens
    return max(min(batch, kv_tokens / work.context), 1.0)


def longest_local_prompt(
    profile: Profile, work: ReplicaWork, snapshot: Snapshot, sla: Sla, transfer_ms: float, most: float
) -> float | None:
    """The longest prompt that a decode worker may compute itself: it takes less time there than it would wait for a
    prefill worker, and for the transfer of its KV cache, and what it adds to ITL is within what ITL has left.

    ``None`` without mixed steps, or where TTFT is unknown.
    """
    ttft = snapshot.traffic.ttft_ms
    if profile.mixed is None or ttft is None:
        return None
    remote_ms = float(profile.prefill.ttft_ms(work.isl))
    waits_ms = max(ttft.mean - remote_ms - transfer_ms, 0.0)
    prompts = np.geomspace(MIN_PROMPT_TOKENS, most, GRID_POINTS)
    steps_ms = work.factor * profile.mixed.step_ms(prompts, np.full(len(prompts), work.batch), work.context)
    added_ms = steps_ms - work.factor * profile.step_ms(0.0, work.batch, work.batch * work.context)
    elsewhere_ms = waits_ms + transfer_ms + profile.prefill.ttft_ms(prompts)
    fitting = prompts[(steps_ms < elsewhere_ms) & (added_ms <= max(sla.itl_ms - work.itl_ms, 0.0))]
    return float(fitting[-1]) if len(fitting) else 0.0


def saved(profile: Profile, work: ReplicaWork, sla: Sla, before: float, after: float) -> float:
    """The share of the replicas that another chunk saves for the present requests, by
    :class:`~dynamo_planner.sizing.PercentileSizing`."""
    if profile.mixed is None:
        return 0.0
    load = Load.of(requests_per_s=FLEET_FACTOR * work.requests_per_s, isl=work.isl, osl=work.osl)
    then, now = (
        PercentileSizing(profile, int(chunk)).replicas_for(load, sla, ("aggregated",))["aggregated"].replicas
        for chunk in (before, after)
    )
    return 1 - now / then if then else 0.0
