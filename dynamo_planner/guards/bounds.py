"""Bounds: minimum and maximum replicas per pool.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> pool = PoolStatus(spec=PoolSpec(role="decode", max_replicas=16), replicas=2)
>>> policy = (lambda snapshot: {"decode": 12}) | Bounds(pools={"decode": PoolBounds(max_replicas=8)})
>>> print(policy.decide(Snapshot(at_s=0, pools={"decode": pool})).explain())
decode: 2 -> 8 replicas
  TooManyReplicas: above max_replicas (wanted=12, min_replicas=1, max_replicas=8)
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from dynamo_planner.core.decision import Proposal
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.pool_names import PoolName
from dynamo_planner.core.snapshot import PoolSpec, PoolStatus, Snapshot
from dynamo_planner.core.values import Count, Frozen, FrozenMap, ReadOnly
from dynamo_planner.guards._common import within_service


class PoolBounds(Frozen):
    """Narrower bounds for one pool than its spec has.

    Args:
        min_replicas: The fewest replicas. Default 0, which leaves the bound to the spec.
        max_replicas: The most replicas. Default ``None``, which leaves the bound to the spec.
    """

    min_replicas: Count = 0
    max_replicas: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) must be at least min_replicas ({self.min_replicas})")
        return self

    def within(self, spec: PoolSpec) -> PoolSpec:
        """The spec with these bounds as far as it allows them: a spec is never widened."""
        highest = min((most for most in (self.max_replicas, spec.max_replicas) if most is not None), default=None)
        lowest = max(self.min_replicas, spec.min_replicas)
        if spec.max_replicas is not None:
            lowest = min(lowest, spec.max_replicas)
        highest = None if highest is None else max(highest, lowest)
        return spec.replace(min_replicas=lowest, max_replicas=highest)


class Bounds(Guard, kind="bounds"):
    """Keeps every pool within its spec, and within narrower bounds where ``pools`` names it.

    What every decision keeps anyway (see :func:`~dynamo_planner.core.invariants.within_specs`) is kept here, at this
    place in the chain, so that the guards after it see it. A held pool outside its bounds is brought inside, as by the
    Kubernetes HPA. A narrower minimum raises a pool: :class:`GpuBudget` has the last word only if it comes later.

    Args:
        pools: Narrower bounds, by the name of the pool. Default none.
    """

    pools: ReadOnly[PoolName, PoolBounds] = Field(default_factory=FrozenMap)

    rank: ClassVar[int] = 1

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        narrowed = {name: self._narrowed(name, pool) for name, pool in snapshot.pools.items()}
        return within_service(snapshot.replace(pools=FrozenMap(narrowed)), proposal), state

    def _narrowed(self, name: str, pool: PoolStatus) -> PoolStatus:
        own = self.pools.get(name)
        return pool.replace(spec=own.within(pool.spec)) if own else pool
