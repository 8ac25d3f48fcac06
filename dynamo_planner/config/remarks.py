"""Remarks on a configuration that holds, but cannot do what it asks for."""

from __future__ import annotations

from collections.abc import Iterator

from dynamo_planner.config.run import RunConfig
from dynamo_planner.core.policy import guards_of
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Snapshot


def remarks(config: RunConfig) -> Iterator[str]:
    """What is worth a warning: a limit on GPUs that the minimums of the pools exceed."""
    specs = config.executor.specs
    least = {name: PoolStatus(spec=spec, replicas=Replicas(ready=spec.min_replicas)) for name, spec in specs.items()}
    snapshot = Snapshot(at_s=0.0, pools=least)
    needed = sum(spec.min_replicas * spec.gpus for spec in specs.values())
    for guard in guards_of(config.policy):
        limit = guard.gpu_limit(snapshot)
        if limit is not None and limit < needed:
            yield (
                f"policy: the pools' min_replicas need {needed} GPUs, and {guard.kind!r} allows {limit}: "
                "no pool reaches its minimum"
            )
