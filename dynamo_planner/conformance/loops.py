"""The laws about many decisions: the size of the state in a long run, and monotone targets under constant loads."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dynamo_planner.conformance.laws import ConformanceError, decided, gpu_limits
from dynamo_planner.conformance.plant import LoopStep, Plant, run
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import Snapshot

MAX_STATE_BYTES = 64 * 1024
"""The largest state, as JSON."""

GROWTH_BYTES = 256
"""A state that is larger by more than this after twice the time grows."""

PHASES = ((60.0, 400), (300.0, 400), (3600.0, 3000))
"""The interval of ticks in seconds, and how many: a later phase only for a state that still grows, as one with a
long but bounded history does."""

TICK_S = 60.0
"""The interval of ticks under a constant load, in seconds."""

QUIET_TICKS = 45
"""Ticks without an action after which a policy has settled."""

MAX_TICKS = 600
"""Ticks after which a policy that still acts is taken as it is."""


def check_state_size(policy: Policy, service: Snapshot, plant: Plant) -> None:
    """However long it runs, the state is at most 64 KiB of JSON, and it stops growing."""
    steps = run(lambda *given: decided(policy, *given), _changing(plant), service, dict.fromkeys(service.pools, 2))
    before = after = 0
    for _, ticks in PHASES:
        sizes = [_size(policy, next(steps)) for _ in range(ticks)]
        before, after = max(sizes[ticks // 4 : ticks // 2]), max(sizes[ticks // 2 :])
        if after <= before + GROWTH_BYTES:
            return
    message = f"it grows without end: {before} bytes of JSON halfway through a long run, {after} at the end of it"
    raise ConformanceError("state-size", policy, message, [service])


def _size(policy: Policy, step: LoopStep) -> int:
    size = len(step.decision.state.model_dump_json()) if step.decision.state else 0
    if size > MAX_STATE_BYTES:
        message = f"the state has {size} bytes as JSON, and {MAX_STATE_BYTES} are allowed"
        raise ConformanceError("state-size", policy, message, [step.snapshot])
    return size


def _changing(plant: Plant) -> Iterator[tuple[float, Plant]]:
    """A load that comes and goes, with bursts, and is away for a while."""
    count = 0
    for tick_s, ticks in PHASES:
        for _ in range(ticks):
            count += 1
            factor = 0.0 if count % 100 > 90 else 1 + math.sin(count / 9) + 4 * (count % 50 < 3)
            yield tick_s, plant.times(factor)


def check_monotone(
    policy: Policy, service: Snapshot, plant: Plant, factors: Iterable[float], start: Mapping[str, int]
) -> None:
    """Of two constant loads, each run until it settles, the higher never has fewer replicas.

    A policy that goes on moving is taken at the most that it has under the higher load, and at the fewest under the
    lower one. Where a GPU limit may bind, the law does not apply.
    """
    low, high = (plant.times(factor) for factor in sorted(factors))
    lower, higher = (_settled(policy, service, load, start) for load in (low, high))
    if lower is None or higher is None:
        return
    for name in service.pools:
        fewest, most = min(step.wanted(name) for step in lower), max(step.wanted(name) for step in higher)
        if most < fewest:
            message = (
                f"{name!r} settles on {fewest} replicas at {low.requests_per_s:g} requests per second, and on {most} "
                f"at {high.requests_per_s:g} (if that is meant, say monotone = False, and why in monotone_reason)"
            )
            raise ConformanceError("monotone", policy, message, [lower[-1].snapshot, higher[-1].snapshot])


def _settled(policy: Policy, service: Snapshot, load: Plant, start: Mapping[str, int]) -> Sequence[LoopStep] | None:
    """The last ticks, in which nothing changed any more if it settled; ``None`` where a GPU limit may have bound."""
    last: deque[LoopStep] = deque(maxlen=QUIET_TICKS)
    quiet = 0
    for step in run(lambda *given: decided(policy, *given), [(TICK_S, load)] * MAX_TICKS, service, start):
        quiet = 0 if step.decision.actions else quiet + 1
        last.append(step)
        if quiet == QUIET_TICKS:
            break
    one_more = max(pool.spec.gpus for pool in service.pools.values())
    gpus = sum(pool.spec.gpus * last[-1].wanted(name) for name, pool in service.pools.items()) + one_more
    return None if any(gpus > limit for limit in gpu_limits(policy, last[-1].snapshot)) else last
