"""How the laws of other systems go through a snapshot: each pool by itself, with what is remembered of it.

>>> from dynamo_planner import PoolSpec, PoolStatus
>>> pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=2)
>>> proposal, remembered = each_pool(
...     Snapshot(at_s=0, pools={"decode": pool}), {}, lambda name, pool, own: (Want(3), (own or 0) + 1, None)
... )
>>> proposal.pools["decode"].replicas, dict(remembered)
(3, {'decode': 1})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.snapshot import PoolStatus, Snapshot
from dynamo_planner.core.values import FrozenMap

M = TypeVar("M")

Looked = tuple[Want | Hold, M | None, Reason | None]
"""What becomes of a pool, what is to be remembered of it (``None``: nothing), and why."""


def each_pool(
    snapshot: Snapshot, remembered: Mapping[str, M], look: Callable[[str, PoolStatus, M | None], Looked[M]]
) -> tuple[Proposal, FrozenMap[str, M]]:
    """The proposal of a law, and what it remembers: ``look`` is asked of each pool with what is ``remembered`` of it.

    A reason is given the name of its pool.
    """
    entries: dict[str, Want | Hold] = {}
    reasons: list[Reason] = []
    kept: dict[str, M] = {}
    for name, pool in snapshot.pools.items():
        entries[name], own, reason = look(name, pool, remembered.get(name))
        if reason is not None:
            reasons.append(reason.replace(pool=name))
        if own is not None:
            kept[name] = own
    return Proposal(pools=entries, reasons=tuple(reasons)), FrozenMap(kept)
