"""Ratio: bounds on the number of prefill replicas per decode replica.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> policy = (lambda snapshot: {"prefill": 8, "decode": 2}) | Ratio(most=2)
>>> pools = {role: PoolStatus(spec=PoolSpec(role=role), replicas=2) for role in ("prefill", "decode")}
>>> print(policy.decide(Snapshot(at_s=0, pools=pools)).explain())
prefill: 2 -> 8 replicas
decode: 2 -> 4 replicas
  RatioKept: at most 2 prefill for each decode replica (wanted=2, replicas=4, prefill=8, decode=2)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.snapshot import Role, Snapshot

ROLES: tuple[Role, ...] = ("prefill", "decode")

ROUNDING = 1e-9
"""Products within this of a whole number of replicas count as it."""


class Ratio(Guard, kind="ratio"):
    """Keeps the prefill replicas within ``least`` to ``most`` times the decode replicas, over all pools of each role.

    A ratio out of bounds is repaired by raising the side that is too small, its first pool that may rise; where
    ``max_replicas`` allows no more, the other side is lowered to what the ratio then permits, unless it is held or
    would go to zero. Nothing is done while a role is at zero, or where the replicas of a pool could not be read.

    Args:
        least: The fewest prefill replicas per decode replica. Default ``None``, no bound.
        most: The most prefill replicas per decode replica. Default ``None``, no bound.
    """

    least: float | None = Field(default=None, gt=0)
    most: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least is None and self.most is None:
            raise ValueError("neither least nor most is given: give one of them, such as most=2")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"least ({self.least:g}) is above most ({self.most:g}): swap them, or widen one")
        return self

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        counts = {role: {name: proposal.wanted(snapshot, name) for name in snapshot.with_role(role)} for role in ROLES}
        if any(count is None for pools in counts.values() for count in pools.values()):
            return proposal, state
        known: dict[str, dict[str, int]] = {
            role: {name: count or 0 for name, count in pools.items()} for role, pools in counts.items()
        }
        prefill, decode = sum(known["prefill"].values()), sum(known["decode"].values())
        if not prefill or not decode:
            return proposal, state
        if self.most is not None and prefill > self.most * decode:
            message = f"at most {self.most:g} prefill for each decode replica"
            few, many, per = "decode", "prefill", 1 / self.most
        elif self.least is not None and prefill < self.least * decode:
            message = f"at least {self.least:g} prefill for each decode replica"
            few, many, per = "prefill", "decode", self.least
        else:
            return proposal, state
        changed = _repaired(snapshot, proposal, known[few], known[many], per)
        reasons = [
            Reason(
                code="RatioKept",
                pool=name,
                message=message,
                values={
                    "wanted": {**known[few], **known[many]}[name],
                    "replicas": replicas,
                    "prefill": prefill,
                    "decode": decode,
                },
            )
            for name, replicas in changed.items()
        ]
        return proposal.with_pools(
            {name: Want(n, _load(proposal, name)) for name, n in changed.items()}, reasons
        ), state


def _repaired(
    snapshot: Snapshot, proposal: Proposal, few: Mapping[str, int], many: Mapping[str, int], per: float
) -> dict[str, int]:
    """The replicas that change so that ``few`` holds at least ``per`` replicas for each of ``many``."""
    changed = {}
    missing = math.ceil(per * sum(many.values()) - ROUNDING) - sum(few.values())
    for name, count in few.items():
        most = snapshot.pools[name].spec.max_replicas
        more = missing if most is None else min(missing, most - count)
        if more > 0:
            changed[name] = count + more
            missing -= more
    if missing <= 0:
        return changed
    allowed = math.floor((sum(few.values()) + sum(changed[name] - few[name] for name in changed)) / per + ROUNDING)
    excess = sum(many.values()) - allowed
    for name, count in many.items():
        least = max(snapshot.pools[name].spec.min_replicas, 1)
        less = 0 if isinstance(proposal.pools.get(name), Hold) else min(excess, count - least)
        if less > 0:
            changed[name] = count - less
            excess -= less
    return changed


def _load(proposal: Proposal, name: str) -> float | None:
    entry = proposal.pools.get(name)
    return entry.load if isinstance(entry, Want) else None
