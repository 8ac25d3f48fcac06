"""Staleness: no decision on metrics that are too old, and no fall on metrics of too few workers.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=6, observed_at_s=880)
>>> policy = (lambda snapshot: {"decode": 2}) | Staleness(max_age_s=60)
>>> print(policy.decide(Snapshot(at_s=1000, pools={"decode": pool})).explain())
decode: held
  MetricsStale: its metrics are 120 s old, more than 60 s (target=6)
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from dynamo_planner.core.decision import Hold, Proposal
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.snapshot import PoolStatus, Snapshot
from dynamo_planner.core.values import Unit
from dynamo_planner.guards._common import wants


class Staleness(Guard, kind="staleness"):
    """Holds a pool whose metrics, or the traffic, are older than ``max_age_s`` or of unknown age.

    Age is what counts, not the value: zero requests, freshly observed, are an idle service. A pool at zero replicas
    has no metrics of its own to grow old, and goes by the traffic alone. Where the share of a pool's workers that were
    observed (``PoolStatus.reporting``, with those that sleep) is below ``min_coverage`` the pool may rise but not fall:
    the others may be the busy ones. A source that does not report it limits nothing.

    Args:
        max_age_s: Seconds. Default 60.
        min_coverage: A share of the workers. Default 0.9.
    """

    max_age_s: float = Field(default=60.0, gt=0)
    min_coverage: Unit = 0.9

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        traffic = self._stale("the traffic is", snapshot.age_s(snapshot.traffic.observed_at_s))
        holds = {}
        for name, want, replicas in wants(snapshot, proposal):
            pool = snapshot.pools[name]
            asleep = replicas.target == 0 and replicas.ready == 0
            stale = traffic or (None if asleep else self._stale("its metrics are", snapshot.age_s(pool.observed_at_s)))
            hold = stale or self._thinly_covered(pool, falls=want.replicas < replicas.target)
            if hold is not None:
                holds[name] = hold
        return proposal.with_pools(holds), state

    def _stale(self, what: str, age_s: float) -> Hold | None:
        if age_s <= self.max_age_s:
            return None
        age = f"{age_s:g} s old, more than {self.max_age_s:g} s" if math.isfinite(age_s) else "of unknown age"
        return Hold(f"{what} {age}", "MetricsStale")

    def _thinly_covered(self, pool: PoolStatus, *, falls: bool) -> Hold | None:
        share = pool.reporting
        if not falls or share is None or share >= self.min_coverage:
            return None
        observed = f"{share:.0%} of its workers were observed, less than {self.min_coverage:.0%}"
        return Hold(f"{observed}: it may rise, not fall", "CoverageLow")
