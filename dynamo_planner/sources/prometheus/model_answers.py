"""The answers of Prometheus about a whole model at one moment, as an observation or a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dynamo_planner.core.metrics import Deferred, PoolMetrics, Traffic
from dynamo_planner.core.snapshot import Observation, PoolSpec, PoolStatus, Replicas, Role, Snapshot
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.sources.aggregation.pools import MissingByPath, pool_metrics, with_router_tokens
from dynamo_planner.sources.aggregation.traffic import (
    AT_LEAST,
    FROM_AGGREGATED,
    FROM_DECODE,
    FROM_PREFILL,
    frontend_traffic,
    service_traffic,
)
from dynamo_planner.sources.aggregation.witnesses import RATE, compare_with_frontends
from dynamo_planner.sources.prometheus.pool_answers import PoolAnswers

UNREAD = "its pool could not be read"

FIELDS_OF = {
    "prefill": FROM_PREFILL,
    "decode": FROM_DECODE,
    "aggregated": (*FROM_PREFILL, *FROM_DECODE, *FROM_AGGREGATED),
}
"""The fields of the traffic that workers of a role are needed for."""

FRONTEND = "frontend"
"""The name under which the answers about the frontends are, beside those of pools."""

DEFERRED = ""
"""That of the answers about deferrable classes."""


@dataclass(frozen=True)
class ModelAnswers:
    """The answers about a model at one moment.

    Args:
        by_name: by pool, and for the frontends.
        missing: for those that could not be read, why, by field of the observation.
        deferred: what waits of each deferrable class.
    """

    by_name: Mapping[str, PoolAnswers]
    missing: Mapping[str, str]
    deferred: Mapping[str, Deferred] = FrozenMap()

    def observation(self, roles: Mapping[str, Role], at_s: float) -> Observation:
        """The model as a source observes it."""
        pools: dict[str, PoolMetrics] = {}
        missing = dict(self.missing)
        for name in roles:
            pools[name], unknown = self._pool(name, at_s)
            missing.update({".".join(("pools", name, *path)): why for path, why in unknown.items()})
        traffic, unknown_traffic = self._traffic(roles, at_s)
        missing.update({f"traffic.{field}": why for field, why in unknown_traffic.items()})
        pools = with_router_tokens(pools, missing, roles, traffic)
        return Observation(traffic=traffic, pools=pools, deferred=self.deferred, missing=missing)

    def snapshot(self, roles: Mapping[str, Role], specs: Mapping[str, PoolSpec], at_s: float) -> Snapshot:
        """The model as a snapshot of the past; the workers with a recent sample are its ready replicas."""
        observation = self.observation(roles, at_s)
        pools = {}
        for name, spec in specs.items():
            metrics = observation.pools.get(name, PoolMetrics(observed_at_s=None))
            replicas = Replicas(ready=len(self.by_name[name].observed)) if name in self.by_name else None
            reported = {field: getattr(metrics, field) for field in PoolMetrics.model_fields}
            pools[name] = PoolStatus(spec=spec, replicas=replicas, **reported)
        return Snapshot(
            at_s=at_s,
            traffic=observation.traffic,
            pools=pools,
            deferred=observation.deferred,
            missing=observation.missing,
        )

    def _pool(self, name: str, at_s: float) -> tuple[PoolMetrics, MissingByPath]:
        if name not in self.by_name:
            return PoolMetrics(observed_at_s=None), {}
        pool = self.by_name[name]
        metrics, missing = pool_metrics(pool.workers, at_s)
        changes: dict[str, Any] = {"observed_at_s": pool.observed_at_s}
        if metrics.traffic is not None:
            changes["traffic"] = metrics.traffic.replace(**changes)
        if pool.why_no_coverage:
            changes["coverage"] = None
            missing[("coverage",)] = pool.why_no_coverage
        missing.update(pool.remarks)
        missing.update({("workers", worker): why for worker, why in pool.causes.items()})
        return metrics.replace(**changes), missing

    def _traffic(self, roles: Mapping[str, Role], at_s: float) -> tuple[Traffic, dict[str, str]]:
        """What clients saw: as the frontends report it, and what they do not report, as the workers do."""
        workers = {name: self.by_name[name].workers if name in self.by_name else [] for name in roles}
        partial = service_traffic(workers, roles, at_s)
        for name in roles.keys() - self.by_name.keys():  # what its workers did is unknown, not zero
            for field in FIELDS_OF[roles[name]]:
                partial.known.pop(field, None)
                partial.missing[field] = self.missing.get(f"pools.{name}", UNREAD)
        missing = dict(partial.missing)
        times = [self.by_name[name].observed_at_s for name in roles if name in self.by_name]
        observed_at_s = min((time for time in times if time is not None), default=None)
        frontend = self.by_name.get(FRONTEND)
        if frontend is None or not frontend.observed:
            if frontend is not None:
                missing["queued"] = "Prometheus has no recent sample of a frontend: what clients saw is the workers'"
            return partial.as_traffic(observed_at_s), missing
        traffic = partial.as_requests(observed_at_s)
        at_front = frontend_traffic(frontend.workers, at_s)
        known = {**at_front.known, "window_s": at_front.window_s, "observed_at_s": frontend.observed_at_s}
        disagreement = compare_with_frontends(at_front.as_traffic(frontend.observed_at_s), traffic)
        traffic, missing = traffic.replace(**known), {**missing, **at_front.missing, **disagreement}
        if RATE in at_front.known:  # it counts at the door
            missing.pop(AT_LEAST, None)
        if RATE in disagreement:
            traffic = traffic.replace(requests_per_s=None)
        return traffic, {field: why for field, why in missing.items() if getattr(traffic, field, None) is None}
