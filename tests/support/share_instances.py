"""Small random instances of sharing, and their optimum by trying everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from dynamo_planner.fleet import Budget, Claim, Grant, Option, PoolClaim

KINDS = ("gpu", "other", "cost")


def instance(seed: int) -> tuple[list[Claim], dict[str, Budget]]:
    """Two to four models of one or two pools under one to three budgets, with floors, weights and priorities."""
    random = np.random.default_rng(seed)
    kinds = KINDS[: random.integers(1, 4)]
    same_size = random.random() < 0.3
    claims = []
    for number in range(int(random.integers(2, 5))):
        pools = tuple(
            PoolClaim(
                f"pool{n}",
                {kind: 1 if same_size else _amount(random, kind) for kind in kinds},
                present=int(random.integers(0, 4)),
            )
            for n in range(int(random.integers(1, 3)))
        )
        claims.append(
            Claim(
                f"model{number}",
                pools,
                tuple(_options(random, pools)),
                weight=float(random.choice([1.0, 1.0, 2.0])),
                priority=int(random.integers(0, 3)) if random.random() < 0.4 else 0,
                floor={"gpu": float(random.integers(0, 6))} if random.random() < 0.4 else {},
            )
        )
    budgets = {kind: Budget(total=float(random.integers(2, 16))) for kind in kinds}
    if random.random() < 0.3:
        budgets["gpu"] = Budget(nodes=tuple(int(size) for size in random.choice([2, 4, 8], random.integers(1, 4))))
    return claims, budgets


def _amount(random: np.random.Generator, kind: str) -> float:
    return float(random.integers(0, 5)) / 2 if kind == "cost" else float(random.choice([0, 1, 2, 4]))


def _options(random: np.random.Generator, pools: Sequence[PoolClaim]) -> list[Option]:
    counts, worth = tuple(int(random.integers(0, 2)) for _ in pools), 0.0
    found = [Option(counts, worth)]
    for _ in range(int(random.integers(0, 6))):
        counts = tuple(count + int(random.integers(0, 2)) for count in counts)
        worth += float(random.integers(0, 20))
        found.append(Option(counts, worth))
    kept = tuple(min(pool.present, count) for pool, count in zip(pools, counts, strict=True))
    below = [o.worth for o in found if all(a <= b for a, b in zip(o.counts, kept, strict=True))]
    if below and all(option.counts != kept for option in found):
        found.insert(1, Option(kept, max(below)))
    return found


def packed(sizes: Sequence[float], nodes: Sequence[int]) -> bool:
    """Whether replicas of these sizes (powers of two) fit on the nodes, by placing the largest first."""
    free = list(map(float, nodes))
    for size in sorted(sizes, reverse=True):
        place = next((n for n, room in enumerate(free) if room >= size), None)
        if size > max(nodes):
            whole = [n for n, room in enumerate(free) if room == max(nodes)][: int(-(-size // max(nodes)))]
            if len(whole) * max(nodes) < size:
                return False
            for n in whole:
                free[n] = 0.0
        elif place is None:
            return False
        else:
            free[place] -= size
    return True


def feasible(claims: Sequence[Claim], budgets: Mapping[str, Budget], counts: Sequence[tuple[int, ...]]) -> bool:
    """Whether these replicas are within every budget, and on nodes."""
    for name, budget in budgets.items():
        if sum(claim.used(own, name) for claim, own in zip(claims, counts, strict=True)) > budget.amount + 1e-9:
            return False
        sizes = [
            pool.uses.get(name, 0.0)
            for claim, own in zip(claims, counts, strict=True)
            for pool, count in zip(claim.pools, own, strict=True)
            for _ in range(count)
        ]
        if budget.nodes and not packed([size for size in sizes if size], budget.nodes):
            return False
    return True


def worths(claims: Sequence[Claim], counts: Sequence[tuple[int, ...]]) -> tuple[float, ...]:
    """The weighted worth of each priority, the highest first."""
    by_priority: dict[int, float] = {}
    for claim, own in zip(claims, counts, strict=True):
        worth = max(option.worth for option in claim.options if option.counts == own)
        by_priority[claim.priority] = by_priority.get(claim.priority, 0.0) + claim.weight * worth
    return tuple(by_priority[priority] for priority in sorted(by_priority, reverse=True))


def floor_worth(claim: Claim) -> float:
    """The worth of the best option that the floor pays for; of the least where it pays for none."""
    paid = [o.worth for o in claim.options if all(claim.used(o.counts, k) <= own for k, own in claim.floor.items())]
    return max(paid, default=claim.options[0].worth) if claim.floor else claim.options[0].worth


def optimum(claims: Sequence[Claim], budgets: Mapping[str, Budget]) -> tuple[float, ...] | None:
    """The best worths by priority with every floor kept; ``None`` where nothing is feasible."""
    options = [[o for o in claim.options if o.worth >= floor_worth(claim)] for claim in claims]
    found = [
        worths(claims, counts)
        for counts in ([o.counts for o in each] for each in product(*options))
        if feasible(claims, budgets, counts)
    ]
    return max(found, default=None)


def problem_of(claims: Sequence[Claim], budgets: Mapping[str, Budget], grants: Mapping[str, Grant]) -> str | None:
    """What is wrong with a share; ``None`` where nothing is, or where no choice is feasible."""
    best = optimum(claims, budgets)
    if best is None:
        return None
    goal = [grants[claim.model].goal for claim in claims]
    if not feasible(claims, budgets, goal):
        return f"{goal} exceeds a budget"
    if any(abs(own - other) > 1e-6 for own, other in zip(worths(claims, goal), best, strict=True)):
        return f"worth {worths(claims, goal)}, and {best} is possible"
    for claim, counts in zip(claims, goal, strict=True):
        if max(option.worth for option in claim.options if option.counts == counts) < floor_worth(claim):
            return f"{claim.model} has less than its floor pays for"
    return None
