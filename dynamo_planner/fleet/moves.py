"""Moves: the part of a goal that can be done at once, and a total that is to be kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dynamo_planner.fleet.capacity import Limit, fits, pieces
from dynamo_planner.fleet.claims import Budget, Claim
from dynamo_planner.sizing.arrays import Floats

Counts = tuple[int, ...]


def towards(
    claims: Sequence[Claim],
    rows: Sequence[Limit],
    sizes: Sequence[Floats],
    goal: Sequence[Counts],
    free: Mapping[str, Sequence[int]],
) -> tuple[list[Counts], dict[str, list[str]]]:
    """The replicas that can be set now, and the pools that only the free GPUs' places keep from rising.

    Every fall is done, and each rise for which there is room beside all that is held. Models that are below their floor
    rise first, then those of a higher priority, then those that gain the most for what they take.
    """
    now = [_lowered(claim, own) for claim, own in zip(claims, goal, strict=True)]
    room = np.array([row.amount for row in rows]) - sum(
        (_held(claim, own, size) for claim, own, size in zip(claims, now, sizes, strict=True)), np.zeros(len(rows))
    )
    places = _places(claims, rows, sizes, free)
    moving = any(
        pool.draining or pool.launched > pool.present or pool.present > count
        for claim, own in zip(claims, now, strict=True)
        for pool, count in zip(claim.pools, own, strict=True)
    )
    blocked: dict[str, list[str]] = {}
    rising = [n for n, own in enumerate(now) if any(a < b for a, b in zip(own, goal[n], strict=True))]
    for n in sorted(rising, key=lambda n: _turn(claims[n], now[n], goal[n], sizes[n])):
        claim, own, size = claims[n], now[n], sizes[n]
        chosen, only_places = own, False
        for step in _steps(own, goal[n]):
            more = _held(claim, step, size) - _held(claim, own, size)
            if not fits(more, room):
                continue
            if fits(_placed(claim, step, size), places):
                chosen = step
                break
            only_places = True
        if chosen == own and only_places and not moving:
            blocked[claim.model] = [p.name for p, a, b in zip(claim.pools, own, goal[n], strict=True) if b > a]
        room = room - (_held(claim, chosen, size) - _held(claim, own, size))
        places = places - _placed(claim, chosen, size)
        now[n] = chosen
    return now, blocked


def _lowered(claim: Claim, goal: Counts) -> Counts:
    """The falls; a stage that is to serve keeps a replica until another pool of it has one."""
    counts = [min(pool.present, count) for pool, count in zip(claim.pools, goal, strict=True)]
    for stage in {pool.stage for pool in claim.pools if pool.stage}:
        own = [n for n, pool in enumerate(claim.pools) if pool.stage == stage]
        last = [n for n in own if claim.pools[n].present]
        if last and any(goal[n] for n in own) and not any(counts[n] for n in own):
            counts[last[0]] = 1
    return tuple(counts)


def _held(claim: Claim, counts: Counts, size: Floats) -> Floats:
    """What a model counts for each limit at the peak of a move to these replicas."""
    held = [pool.held(count) for pool, count in zip(claim.pools, counts, strict=True)]
    return np.asarray(np.array(held, float) @ size)


def _placed(claim: Claim, counts: Counts, size: Floats) -> Floats:
    """What a model has to find places for: what it rises by."""
    more = [max(count - pool.present, 0) for pool, count in zip(claim.pools, counts, strict=True)]
    return np.asarray(np.array(more, float) @ size)


def _places(
    claims: Sequence[Claim], rows: Sequence[Limit], sizes: Sequence[Floats], free: Mapping[str, Sequence[int]]
) -> Floats:
    """What the free GPUs of the nodes can take for each limit, without those that are promised already."""
    places = np.array(
        [pieces(free[row.budget], row.size) if row.size and row.budget in free else np.inf for row in rows]
    )
    for claim, size in zip(claims, sizes, strict=True):
        promised = [max(pool.present - pool.launched, 0) for pool in claim.pools]
        places = places - np.array(promised, float) @ size
    return places


def _turn(claim: Claim, now: Counts, goal: Counts, size: Floats) -> tuple[bool, int, float, str]:
    """The order in which models rise."""
    worth = {option.counts: option.worth for option in claim.options}
    best = worth.get(goal, max(worth.values()))
    present = max(
        (o.worth for o in claim.options if all(a <= b for a, b in zip(o.counts, now, strict=True))), default=0
    )
    takes = float(np.sum((np.array(goal, float) - np.array(now, float)) @ size)) or 1.0
    below = any(claim.used(now, name) < amount for name, amount in claim.floor.items())
    return (not below, -claim.priority, -claim.weight * (best - present) / takes, claim.model)


def _steps(now: Counts, goal: Counts) -> list[Counts]:
    """The goal, and what lies between it and now, the most first: pools rise together, in proportion."""
    rises = [max(b - a, 0) for a, b in zip(now, goal, strict=True)]
    most = max(rises)
    return [tuple(a + -(-rise * k // most) for a, rise in zip(now, rises, strict=True)) for k in range(most, 0, -1)]


def topped_up(
    claims: Sequence[Claim],
    budgets: Mapping[str, Budget],
    rows: Sequence[Limit],
    sizes: Sequence[Floats],
    goal: list[Counts],
) -> list[Counts]:
    """The goal raised until each budget's ``least`` is in use: falls are undone first, which costs no start, then each
    replica goes to the pool with the highest load per replica."""
    amount = np.array([row.amount for row in rows])
    for name, budget in budgets.items():
        used = sum(claim.used(own, name) for claim, own in zip(claims, goal, strict=True))
        for undo in (True, False):
            while used < budget.least:
                raised = _raised(claims, name, undo=undo, sizes=sizes, goal=goal, amount=amount)
                if raised is None:
                    break
                n, place = raised
                goal[n] = (*goal[n][:place], goal[n][place] + 1, *goal[n][place + 1 :])
                used += claims[n].pools[place].uses[name]
    return goal


def _raised(
    claims: Sequence[Claim], budget: str, *, undo: bool, sizes: Sequence[Floats], goal: list[Counts], amount: Floats
) -> tuple[int, int] | None:
    """The pool to raise by one: its model, and its place there."""
    left = amount - sum(
        (np.array(own, float) @ size for own, size in zip(goal, sizes, strict=True)), np.zeros(len(amount))
    )
    found = [
        (-pool.load / max(goal[n][place], 1), n, place)
        for n, claim in enumerate(claims)
        if not claim.fixed
        for place, pool in enumerate(claim.pools)
        if pool.uses.get(budget)
        and goal[n][place] < (min(pool.present, pool.most) if undo else pool.most)
        and fits(sizes[n][place], left)
    ]
    return min(found)[1:] if found else None
