"""Capacities: budgets and node sizes as linear limits on what replicas hold.

Replicas whose sizes divide one another fit on nodes if, and only if, for each size ``s`` those of at least that size
need no more than what the nodes have in pieces of it: ``sum(g for g >= s) <= sum(floor(n / s) * s for each node n)``.
Placing the largest first shows it: each piece of a larger size takes exactly its own size out of what is left in pieces
of ``s``. So node sizes are further limits of the same form. Eight free GPUs on two nodes hold no replica of eight:

>>> pieces((4, 4), 8), pieces((8, 4, 4), 8)
(0.0, 8.0)
>>> [(limit.size, limit.amount) for limit in limits({"gpu": Budget(nodes=(8, 4, 4))}, {"gpu": {8.0, 1.0}})]
[(0.0, 16.0), (1.0, 16.0), (8.0, 8.0)]

A size that is no power of two counts as the next one, 3 as 4, and a replica that is larger than every node takes whole
ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dynamo_planner.fleet.claims import Budget, Claim
from dynamo_planner.sizing.arrays import Floats

TOLERANCE = 1e-9
"""Relative rounding of sums of amounts that are no whole numbers."""


class Limit(NamedTuple):
    """A linear limit on what replicas hold.

    Args:
        budget: The name of the budget.
        size: The size in GPUs that a replica, or its part on one node, has at least to count; 0 for the total.
        node: The size of the largest node; 0 where node sizes are unknown.
        amount: What there is.
    """

    budget: str
    size: float
    node: float
    amount: float

    def of(self, amount: float) -> float:
        """What a replica that holds ``amount`` of the budget counts."""
        if not self.size:
            return amount
        nodes, part = _parts(amount, self.node)
        return nodes * math.floor(part / self.size) * self.size if part >= self.size else 0.0


def _parts(amount: float, node: float) -> tuple[float, float]:
    """On how many nodes a replica lies, and what it needs of each."""
    if amount > node:
        return math.ceil(amount / node), node
    return 1.0, min(2.0 ** math.ceil(math.log2(amount)), node) if amount > 0 else 0.0


def pieces(nodes: Iterable[int], size: float) -> float:
    """What nodes have in pieces of a size."""
    return float(sum(math.floor(node / size) * size for node in nodes))


def limits(budgets: Mapping[str, Budget], amounts: Mapping[str, Iterable[float]]) -> list[Limit]:
    """The limits of budgets, for replicas that hold these amounts of each."""
    found = []
    for name, budget in budgets.items():
        node = float(max(budget.nodes, default=0)) if budget.nodes else 0.0
        found.append(Limit(name, 0.0, node, budget.amount))
        if budget.nodes:
            sizes = {1.0} | {_parts(amount, node)[1] for amount in amounts.get(name, ()) if amount > 0}
            found.extend(Limit(name, size, node, pieces(budget.nodes, size)) for size in sorted(sizes))
    return found


def amounts(claims: Iterable[Claim]) -> dict[str, set[float]]:
    """The different amounts that a replica holds, by budget."""
    found: dict[str, set[float]] = {}
    for claim in claims:
        for pool in claim.pools:
            for budget, amount in pool.uses.items():
                found.setdefault(budget, set()).add(amount)
    return found


def per_replica(claim: Claim, rows: Sequence[Limit]) -> Floats:
    """What a replica of each pool (rows) counts for each limit (columns)."""
    found = [[limit.of(pool.uses.get(limit.budget, 0.0)) for limit in rows] for pool in claim.pools]
    return np.array(found).reshape(len(claim.pools), len(rows))


def fits(used: Floats, amount: Floats) -> bool:
    """Whether what is used is within the limits."""
    return bool(np.all(used <= amount + TOLERANCE * np.maximum(amount, 1.0)))


def total(counts: Sequence[tuple[int, ...]], sizes: Sequence[Floats], rows: Sequence[Limit]) -> Floats:
    """What these replicas of all models count for each limit."""
    return sum((np.array(own, float) @ size for own, size in zip(counts, sizes, strict=True)), np.zeros(len(rows)))
