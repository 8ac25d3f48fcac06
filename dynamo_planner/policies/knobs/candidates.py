"""Candidate knob values: the analytic one first, then a notch towards the target that binds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dynamo_planner.core.snapshot import PoolStatus, Sla, Snapshot
from dynamo_planner.core.values import KnobValue
from dynamo_planner.engines import Catalogue, Knob
from dynamo_planner.engines.standard_knobs import CHUNK, EFFECTIVE_ISL, LOCAL_PREFILL, SEQUENCES
from dynamo_planner.policies.knobs.analytic import (
    ReplicaWork,
    largest_batch,
    largest_chunk,
    longest_local_prompt,
    saved,
    work_of,
)
from dynamo_planner.policies.knobs.observations import plain_number, ttft_binds
from dynamo_planner.profiles import Profile

FULL_BATCH_SHARE = 0.9
"""A batch with this share of the requests that it may have counts as full."""

MAX_PREDICTED_LOSS = 0.05
"""A notch that should cost more than this share of the replicas, as profiled, is not tried."""

MIN_CHUNK_TOKENS = 64.0
"""The smallest step budget that is proposed for short prompts, in tokens."""

SAME_VALUE_SHARE = 0.1
"""Values within this share of each other are the same."""


class Candidate(NamedTuple):
    """A value to try.

    Args:
        pool: The pool of the knob; ``None`` for a knob of the service.
        knob: The knob.
        before: Its present value.
        value: The value to try.
        why: Why, for people.
        gain: The share of the replicas' work that it may save.
    """

    pool: str | None
    knob: Knob
    before: float
    value: float
    why: str
    gain: float


class GapBound(NamedTuple):
    """A value to set without a trial: the largest chunk whose step is no longer than ``gap_ms``."""

    pool: str
    knob: Knob
    before: float
    value: float


class TuningGoals(NamedTuple):
    """What candidates are chosen by: the profile, the targets, and the transfer time of a KV cache."""

    profile: Profile | None
    sla: Sla
    gap_ms: float | None
    kv_transfer_ms: float


def candidates(snapshot: Snapshot, knobs: Catalogue, goals: TuningGoals) -> Iterator[Candidate]:
    """The values worth trying, the most promising first."""
    up = ttft_binds(snapshot, goals.sla)
    places = [(name, pool, pool.knobs) for name, pool in snapshot.pools.items()]
    for place in places:
        yield from _of_pool(snapshot, *place, knobs, goals, up=up)
    yield from _of_service(snapshot, knobs, goals, up=up)


def over_the_gap(snapshot: Snapshot, knobs: Catalogue, goals: TuningGoals) -> GapBound | None:
    """The bound for the first pool whose steps may be longer than ``gap_ms``."""
    if goals.gap_ms is None or goals.profile is None or goals.profile.mixed is None or CHUNK not in knobs:
        return None
    knob = knobs[CHUNK]
    for name, pool in snapshot.with_role("aggregated").items():
        before, work = plain_number(pool.knobs.get(CHUNK)), work_of(snapshot, pool, goals.profile)
        if before is None or work is None:
            continue
        chunk = largest_chunk(goals.profile, work, goals.gap_ms, knob.maximum)
        least = plain_number(pool.knobs.get(knob.at_least or "")) or knob.minimum
        value = max(knob.below(chunk or knob.minimum), knob.nearest(least))
        if value < before and _differs(value, before):
            return GapBound(name, knob, before, value)
    return None


def _of_pool(
    snapshot: Snapshot,
    name: str,
    pool: PoolStatus,
    values: Mapping[str, KnobValue],
    knobs: Catalogue,
    goals: TuningGoals,
    *,
    up: bool,
) -> Iterator[Candidate]:
    work = work_of(snapshot, pool, goals.profile) if goals.profile else None
    for knob in knobs.values():
        before = plain_number(values.get(knob.name))
        if before is None or pool.spec.role not in knob.roles or not knob.minimum <= before <= knob.maximum:
            continue
        if knob.name == SEQUENCES:
            tried = _sequences(knob, before, pool, work, goals, up=up)
        elif knob.name == CHUNK:
            tried = _chunk(knob, before, pool, work, goals, up=up)
        else:
            tried = _notches(knob, before, up=up)
        for value, why, gain in tried:
            if _fits(knob, value, values, knobs):
                yield Candidate(name, knob, before, value, why, gain)


def _of_service(snapshot: Snapshot, knobs: Catalogue, goals: TuningGoals, *, up: bool) -> Iterator[Candidate]:
    decode = snapshot.with_role("decode")
    for knob in knobs.values():
        before = plain_number(snapshot.knobs.get(knob.name))
        if before is None or knob.roles or not knob.minimum <= before <= knob.maximum:
            continue
        if knob.name in {LOCAL_PREFILL, EFFECTIVE_ISL} and decode and goals.profile:
            work = work_of(snapshot, next(iter(decode.values())), goals.profile)
            length = work and longest_local_prompt(
                goals.profile, work, snapshot, goals.sla, goals.kv_transfer_ms, knob.maximum
            )
            if length is not None and _differs(value := knob.below(length), before):
                yield Candidate(None, knob, before, value, "a local prefill takes less than queueing and transfer", 0.0)
        for value, why, gain in _notches(knob, before, up=up):
            yield Candidate(None, knob, before, value, why, gain)


Tried = Iterator[tuple[float, str, float]]


def _chunk(
    knob: Knob, before: float, pool: PoolStatus, work: ReplicaWork | None, goals: TuningGoals, *, up: bool
) -> Tried:
    if goals.profile is not None and work is not None and pool.spec.role == "aggregated":
        target_ms = goals.sla.itl_ms if goals.gap_ms is None else min(goals.sla.itl_ms, goals.gap_ms)
        chunk = largest_chunk(goals.profile, work, target_ms, knob.maximum)
        value = None if chunk is None else knob.below(min(chunk, _power_above(work.isl + work.batch)))
        if value is not None and _differs(value, before):
            gain = saved(goals.profile, work, goals.sla, before, value)
            if gain > -MAX_PREDICTED_LOSS:
                yield value, "the largest step that keeps ITL at this batch and context", gain
    if up and goals.gap_ms is not None:
        return
    known = goals.profile if pool.spec.role == "aggregated" else None
    for value, why, _ in _notches(knob, before, up=up):
        gain = saved(known, work, goals.sla, before, value) if known and work else 0.0
        if gain > -MAX_PREDICTED_LOSS:
            yield value, why, gain


def _sequences(
    knob: Knob, before: float, pool: PoolStatus, work: ReplicaWork | None, goals: TuningGoals, *, up: bool
) -> Tried:
    """Only where it binds: requests wait before a batch that is full, or a batch is larger than ITL bears."""
    ready = pool.replicas.ready if pool.replicas else 0
    if pool.running is None or not ready or pool.spec.role == "prefill":
        return
    batch = pool.running / ready
    best = largest_batch(goals.profile, work, goals.sla, pool) if goals.profile and work else None
    if pool.queued and batch >= FULL_BATCH_SHARE * before and up:
        value = knob.neighbor(before, up=True) if best is None else knob.below(min(best, knob.notch**2 * before))
        if value is not None and value > before and _differs(value, before):
            yield value, "requests wait before full batches, and ITL bears larger ones", value / before - 1
    elif best is not None and best < batch and not up:
        value = knob.below(best)
        if value < before:
            yield value, "the batch at which ITL meets its target", 1 - best / batch


def _notches(knob: Knob, before: float, *, up: bool) -> Tried:
    value = knob.neighbor(before, up=up)
    if value is not None:
        yield value, "a notch towards the target that binds", 0.0


def _fits(knob: Knob, value: float, values: Mapping[str, KnobValue], knobs: Catalogue) -> bool:
    """Whether a value is at odds with no other knob, as these are set."""
    for other in knobs.values():
        beside = plain_number(values.get(other.name))
        if beside is None:
            continue
        if (knob.at_least == other.name and value < beside) or (other.at_least == knob.name and beside < value):
            return False
    return True


def _differs(value: float, before: float) -> bool:
    return abs(value - before) > SAME_VALUE_SHARE * max(value, before)


def _power_above(tokens: float) -> float:
    """The power of two above a number of tokens: steps longer than a prompt serve no one."""
    power = MIN_CHUNK_TOKENS
    while power < tokens:
        power *= 2
    return power
