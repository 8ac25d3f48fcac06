"""One snapshot from the specs and replicas of an executor and the metrics of a source.

>>> observation = Observation(pools={"decode": PoolMetrics(queued=3)})
>>> snapshot = merge(0.0, {"decode": PoolSpec(role="decode")}, {"decode": Replicas(ready=2)}, observation)
>>> snapshot.pools["decode"].replicas.ready, snapshot.pools["decode"].queued
(2, 3.0)
"""

from __future__ import annotations

from collections.abc import Mapping

from dynamo_planner.core.metrics import PoolMetrics, Traffic
from dynamo_planner.core.snapshot import Observation, PoolSpec, PoolStatus, Replicas, Snapshot
from dynamo_planner.core.values import FrozenMap, KnobValue

UNREPORTED = PoolMetrics(observed_at_s=None)
"""The metrics of a pool that a source did not report: all unknown, and their age too."""

IDLE = {
    **{"queued": 0.0, "queued_tokens": 0.0, "running": 0.0, "kv_usage": 0.0, "kv_usage_max": 0.0},
    **{"asleep": 0.0, "coverage": 1.0},
}
"""The metrics of a pool without replicas, which are known."""


def merge(
    at_s: float,
    specs: Mapping[str, PoolSpec],
    replicas: Mapping[str, Replicas | None],
    observation: Observation,
    unknown: Mapping[str, str] | None = None,
    knobs: Mapping[str | None, Mapping[str, KnobValue]] | None = None,
) -> Snapshot:
    """The snapshot of a model at ``at_s``: every pool of ``specs``, and none else.

    A pool with a target of 0 and no ready replica is not unknown: nothing is queued, running or cached in it, unless
    the source reports otherwise.

    Args:
        at_s: Time of the snapshot (Unix seconds).
        specs: The pools.
        replicas: Their replicas; ``None`` where they are unknown.
        observation: The metrics. Its ``missing`` is complemented by the pools and replicas that were not reported.
        unknown: Why replicas are unknown, by pool.
        knobs: Values of the knobs, by pool; under ``None``, those of the service.
    """
    missing = dict(observation.missing)
    pools = {}
    for name, spec in specs.items():
        present, reported = replicas.get(name), observation.pools.get(name, UNREPORTED)
        asleep = present is not None and present.target == 0 and present.ready == 0
        if present is None:
            why = (unknown or {}).get(name, "the executor could not read them")
            missing.setdefault(f"pools.{name}.replicas", why)
        if asleep:
            reported = _idle(at_s, reported)
            missing = {field: why for field, why in missing.items() if not _is_known_idle(name, field)}
        elif name not in observation.pools:
            missing.setdefault(f"pools.{name}", "the source reported nothing of this pool")
        metrics = {field: getattr(reported, field) for field in reported.model_fields_set}
        set_to = FrozenMap((knobs or {}).get(name, {}))
        pools[name] = PoolStatus.unchecked(spec=spec, replicas=present, knobs=set_to, **metrics)
    service = (knobs or {}).get(None, {})
    return Snapshot(
        at_s=at_s,
        traffic=observation.traffic,
        pools=pools,
        knobs=service,
        deferred=observation.deferred,
        missing=missing,
    )


def _is_known_idle(pool: str, field: str) -> bool:
    return field == f"pools.{pool}" or field in {f"pools.{pool}.{known}" for known in IDLE}


def _idle(at_s: float, reported: PoolMetrics) -> PoolMetrics:
    filled = {field: value for field, value in IDLE.items() if getattr(reported, field) is None}
    return reported.replace(**filled, observed_at_s=at_s)


def requests_by_worker(snapshot: Snapshot) -> dict[str, dict[str, float]]:
    """The requests waiting and running at each worker, by pool and name, where both are known.

    >>> workers = [{"name": "w0", "queued": 1, "running": 4}, {"name": "w1", "running": 2}]
    >>> pool = PoolStatus(spec=PoolSpec(role="decode"), workers=workers)
    >>> requests_by_worker(Snapshot(at_s=0, pools={"decode": pool}))
    {'decode': {'w0': 5.0}}
    """
    return {
        name: {
            worker.name: worker.queued + worker.running
            for worker in pool.workers
            if worker.queued is not None and worker.running is not None
        }
        for name, pool in snapshot.pools.items()
    }


def without_metrics(
    at_s: float,
    specs: Mapping[str, PoolSpec],
    replicas: Mapping[str, Replicas | None],
    why: str,
    unknown: Mapping[str, str] | None = None,
) -> Snapshot:
    """The snapshot where no source could be read: all metrics are unknown, and ``missing`` says why."""
    missing = {"traffic": why, **{f"pools.{name}": why for name in specs}}
    return merge(at_s, specs, replicas, Observation(traffic=Traffic(observed_at_s=None), missing=missing), unknown)
