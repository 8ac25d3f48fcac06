"""One snapshot out of what an executor knows (specs and replicas) and what a source saw (metrics).

>>> seen = Observation(pools={"decode": PoolMetrics(queued=3)})
>>> snapshot = merge(0.0, {"decode": PoolSpec(role="decode")}, {"decode": Replicas(ready=2)}, seen)
>>> snapshot.pools["decode"].replicas.ready, snapshot.pools["decode"].queued
(2, 3.0)
"""

from __future__ import annotations

from collections.abc import Mapping

from dynamo_planner.core.snapshot import Observation, PoolMetrics, PoolSpec, PoolStatus, Replicas, Snapshot, Traffic
from dynamo_planner.core.values import FrozenMap, KnobValue

UNSEEN = PoolMetrics(observed_at_s=None)
"""A pool that a source said nothing of: all of it unknown, and its age too."""

EMPTY = {"queued": 0.0, "running": 0.0, "kv_usage": 0.0, "coverage": 1.0}
"""What is known of a pool without replicas."""


def merge(
    at_s: float,
    specs: Mapping[str, PoolSpec],
    replicas: Mapping[str, Replicas | None],
    observation: Observation,
    unknown: Mapping[str, str] | None = None,
    knobs: Mapping[str | None, Mapping[str, KnobValue]] | None = None,
) -> Snapshot:
    """The snapshot of a model at ``at_s``: every pool of ``specs``, and none else.

    A pool that was meant to have no replicas and has none ready is not unknown: nothing is queued, running or cached
    in it, unless the source says otherwise. ``missing`` is the source's, with the pools and replicas that nobody told;
    ``unknown`` is why, by pool, the executor could not tell the replicas, and ``knobs`` how those of each pool, and of
    the service (``None``), are set.
    """
    missing = dict(observation.missing)
    pools = {}
    for name, spec in specs.items():
        present, seen = replicas.get(name), observation.pools.get(name, UNSEEN)
        asleep = present is not None and present.target == 0 and present.ready == 0
        if present is None:
            why = (unknown or {}).get(name, "the executor could not read them")
            missing.setdefault(f"pools.{name}.replicas", why)
        if asleep:
            seen = _empty(at_s, seen)
            missing = {field: why for field, why in missing.items() if not _is_told(name, field)}
        elif name not in observation.pools:
            missing.setdefault(f"pools.{name}", "the source said nothing of this pool")
        told = {field: getattr(seen, field) for field in seen.model_fields_set}
        set_to = FrozenMap((knobs or {}).get(name, {}))
        pools[name] = PoolStatus(spec=spec, replicas=present, knobs=set_to, **told)
    service = (knobs or {}).get(None, {})
    return Snapshot(at_s=at_s, traffic=observation.traffic, pools=pools, knobs=service, missing=missing)


def _is_told(pool: str, field: str) -> bool:
    return field == f"pools.{pool}" or field in {f"pools.{pool}.{known}" for known in EMPTY}


def _empty(at_s: float, seen: PoolMetrics) -> PoolMetrics:
    filled = {field: value for field, value in EMPTY.items() if getattr(seen, field) is None}
    return seen.replace(**filled, observed_at_s=at_s)


def blind(
    at_s: float,
    specs: Mapping[str, PoolSpec],
    replicas: Mapping[str, Replicas | None],
    why: str,
    unknown: Mapping[str, str] | None = None,
) -> Snapshot:
    """The snapshot where no source could be read: all metrics are unknown, and ``missing`` says why."""
    missing = {"traffic": why, **{f"pools.{name}": why for name in specs}}
    return merge(at_s, specs, replicas, Observation(traffic=Traffic(observed_at_s=None), missing=missing), unknown)
