"""What a knob policy looks up in a snapshot."""

from __future__ import annotations

from collections.abc import Mapping

from dynamo_planner.core.snapshot import PoolStatus, Snapshot
from dynamo_planner.core.values import KnobValue
from dynamo_planner.policies.knobs.memory import Trial, plain_number


def pools_of(snapshot: Snapshot, pool: str | None) -> list[PoolStatus]:
    """The pool of a knob, or for one of the service all of them."""
    return [each for name, each in snapshot.pools.items() if pool is None or name == pool]


def ready_of(pool: PoolStatus) -> int:
    return pool.replicas.ready if pool.replicas else 0


def ready(snapshot: Snapshot) -> int:
    """The replicas that are there, which share the load."""
    return sum(ready_of(pool) for pool in snapshot.pools.values())


def shape_of(snapshot: Snapshot) -> tuple[tuple[str, int], ...] | None:
    """The replicas of each pool, or ``None`` while they are changing or unknown."""
    shape = []
    for name, pool in snapshot.pools.items():
        replicas = pool.replicas
        if replicas is None or replicas.starting or replicas.draining or replicas.ready != replicas.target:
            return None
        shape.append((name, replicas.ready))
    return tuple(shape)


def present_value(snapshot: Snapshot, trial: Trial) -> float | None:
    values: Mapping[str, KnobValue] = snapshot.knobs
    if trial.pool is not None:
        pool = snapshot.pools.get(trial.pool)
        values = pool.knobs if pool else {}
    value: KnobValue | None = values.get(trial.knob)
    return plain_number(value)


def interval_s(snapshot: Snapshot) -> float:
    return min(max(snapshot.traffic.window_s or 30.0, 1.0), 600.0)
