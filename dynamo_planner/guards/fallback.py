"""Fallback: a stated number of replicas once metrics have been away for long.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> blind = lambda at_s: Snapshot(at_s=at_s, pools={"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=2)})
>>> from dynamo_planner.policies import HpaLaw
>>> policy = HpaLaw() | Fallback(after_s=300, replicas=6)
>>> *_, decision = policy.replay([blind(0), blind(200), blind(300)])
>>> print(decision.explain())
decode: 2 -> 6 replicas
  FallbackReplicas: no metrics for 300 s: kv_usage is unknown (replicas=6, away_s=300)
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.snapshot import PoolSpec, Snapshot
from dynamo_planner.core.values import Count, Frozen, FrozenMap, ReadOnly, Unit

BLIND = frozenset({"MetricUnknown", "MetricsStale"})
"""Codes of holds that say that a decision lacks metrics."""


class Blind(Frozen):
    """What a pool had when its metrics went away.

    Args:
        since_s: Since when they are away, in Unix seconds; ``None`` while they are there.
        last_good: The replicas that were last proposed with metrics; ``None`` where none ever were.
    """

    since_s: float | None = None
    last_good: Count | None = None


class BlindPools(Frozen):
    """What each pool had when its metrics went away."""

    pools: ReadOnly[str, Blind]


class Fallback(Guard, kind="fallback"):
    """Replaces a pool's hold without metrics by a stated number of replicas, once it has lasted ``after_s``.

    The number is one of ``replicas``, ``of_last_good`` times what was last proposed with metrics, or ``of_max`` of
    ``max_replicas``. ``behavior`` is as KEDA 2.17 has it, with ``n`` the number and ``c`` the present target:

    ====================  ===============================================
    behavior              target
    ====================  ===============================================
    static                n
    current               c
    current_if_higher     max(n, c)
    current_if_lower      min(n, c)
    ====================  ===============================================

    Metrics are away from when the policy, or :class:`Staleness` before this guard, first holds the pool with
    ``MetricUnknown`` or ``MetricsStale``, until a target is proposed again; a hold for another reason says nothing of
    them. A pool at zero falls back too, so that a service whose metrics are away does not sleep for ever. ``static``
    and ``current_if_lower`` may lower a pool without metrics, which nothing else here does.

    Args:
        after_s: Seconds without metrics. Default 300.
        replicas: An absolute number. Default ``None``.
        of_last_good: A factor on the replicas that were last proposed with metrics. Default ``None``.
        of_max: A share of ``max_replicas``, 0 to 1. Default ``None``.
        behavior: Default ``current_if_higher``.
    """

    after_s: float = Field(default=300.0, ge=0)
    replicas: Count | None = None
    of_last_good: float | None = Field(default=None, gt=0, le=100)
    of_max: Unit | None = None
    behavior: Literal["static", "current", "current_if_higher", "current_if_lower"] = "current_if_higher"

    state_type: ClassVar[Any] = BlindPools

    @model_validator(mode="after")
    def _one_number(self) -> Self:
        given = [name for name in ("replicas", "of_last_good", "of_max") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give one of replicas, of_last_good and of_max; {found} is given")
        return self

    @property
    def lowers_when_blind(self) -> bool:
        return self.behavior in {"static", "current_if_lower"}

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: BlindPools | None) -> tuple[Proposal, BlindPools]:
        before = state.pools if state else {}
        kept: dict[str, Blind] = {}
        changes, reasons = {}, []
        for name, pool in snapshot.pools.items():
            own, entry = before.get(name, Blind()), proposal.pools.get(name)
            if isinstance(entry, Want):
                own = Blind(last_good=entry.replicas)
            elif isinstance(entry, Hold) and entry.code in BLIND and pool.replicas is not None:
                present = pool.replicas.target
                own = own if own.since_s is not None else own.replace(since_s=snapshot.at_s)
                away_s = snapshot.at_s - (own.since_s or 0.0)
                number = self._number(pool.spec, present if own.last_good is None else own.last_good)
                if away_s >= self.after_s and number is not None:
                    replicas = self._behaves(number, present)
                    changes[name] = Want(replicas)
                    reasons.append(
                        Reason(
                            code="FallbackReplicas",
                            pool=name,
                            message=f"no metrics for {away_s:.0f} s: {entry.reason}",
                            values={"replicas": replicas, "away_s": away_s},
                        )
                    )
            kept[name] = own
        return proposal.with_pools(changes, reasons), BlindPools(pools=FrozenMap(kept))

    def _number(self, spec: PoolSpec, last_good: int) -> int | None:
        """The stated number; ``None`` for a share of a maximum that the pool does not have."""
        if self.replicas is not None:
            return self.replicas
        if self.of_last_good is not None:
            return math.ceil(self.of_last_good * last_good)
        return None if spec.max_replicas is None or self.of_max is None else math.ceil(self.of_max * spec.max_replicas)

    def _behaves(self, number: int, present: int) -> int:
        match self.behavior:
            case "static":
                return number
            case "current":
                return present
            case "current_if_higher":
                return max(number, present)
            case "current_if_lower":
                return min(number, present)
