"""Fair sharing of GPUs between pools: the replicas that each settles on, and the part that can be done at once.

Replicas are given one at a time, each to the pool with the highest load per replica, as seats are given to parties by
the highest averages (Jefferson 1792, D'Hondt 1878); a replica that no longer fits is passed over. Equal pools are
served by name.

>>> claims = [
...     Claim("decode", gpus=2, present=2, there=2, draining=0, least=1, wanted=5, load=4.8),
...     Claim("prefill", gpus=4, present=1, there=1, draining=0, least=1, wanted=3, load=2.1),
... ]
>>> goal = share(claims, max_gpus=16)
>>> goal, step(claims, goal, max_gpus=16)
({'decode': 4, 'prefill': 2}, {'decode': 4, 'prefill': 2})
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

REBALANCE_MARGIN = 0.1
"""A pool is lowered for another only where that relieves the most pressed pool by more than this share (the HPA's
tolerance)."""

Counts = Mapping[str, int]
"""Replicas per pool."""


class Claim(NamedTuple):
    """The claim of one pool on GPUs, in replicas.

    Args:
        name: The name of the pool.
        gpus: GPUs per replica.
        present: Its target.
        there: Replicas that hold GPUs or were promised them, without those that drain.
        draining: Replicas that hold their GPUs until they are gone.
        least: Replicas that it must have.
        wanted: Replicas that are proposed.
        load: Its load in fractional replicas.
    """

    name: str
    gpus: int
    present: int
    there: int
    draining: int
    least: int
    wanted: int
    load: float

    def pressure(self, replicas: int) -> float:
        """Load per replica; infinite for a pool that has less than it must."""
        if replicas < self.least:
            return math.inf
        return self.load / replicas if replicas else 0.0

    def settled_gpus(self, replicas: int) -> int:
        """The GPUs that ``replicas`` hold once the pool has settled."""
        return self.gpus * replicas

    def peak_gpus(self, replicas: int) -> int:
        """The GPUs that it holds at most on the way there: nothing of what is there is counted as gone yet."""
        return self.gpus * (max(self.there, replicas) + self.draining)


def peak(claims: Sequence[Claim], counts: Counts) -> int:
    """The GPUs held at most while every pool moves to its count."""
    return sum(claim.peak_gpus(counts[claim.name]) for claim in claims)


def least_gpus(claims: Sequence[Claim]) -> int:
    """The GPUs that the pools must have."""
    return sum(claim.settled_gpus(claim.least) for claim in claims)


def share(claims: Sequence[Claim], max_gpus: int) -> dict[str, int]:
    """How many replicas each pool should settle on, between ``least`` and ``wanted``.

    Two ways are compared: to keep what the pools have and give away only what is left, and to share everything anew.
    The second lowers one pool for another, and is taken only where it relieves the most pressed pool by more than
    :data:`REBALANCE_MARGIN`. Each step towards either leads to the same result again, so constant claims settle.

    Where even ``least`` does not fit, it is what every pool gets.
    """
    least = {claim.name: claim.least for claim in claims}
    wanted = {claim.name: claim.wanted for claim in claims}
    present = {claim.name: max(claim.least, min(claim.wanted, claim.present)) for claim in claims}
    anew = _filled(claims, least, wanted, max_gpus, Claim.settled_gpus)
    kept = _filled(claims, least, present, max_gpus, Claim.settled_gpus)
    kept = _filled(claims, kept, wanted, max_gpus, Claim.settled_gpus)
    return anew if _relieves(claims, anew, kept) else kept


def filled_up(claims: Sequence[Claim], most: Counts, min_gpus: int) -> dict[str, int]:
    """The wanted replicas, raised until the pools settle on at least ``min_gpus``, or on ``most`` replicas each.

    Falls are undone first, which costs no start; then each replica goes to the pool with the highest load per replica.

    >>> claims = [
    ...     Claim("decode", gpus=2, present=4, there=4, draining=0, least=1, wanted=2, load=1.8),
    ...     Claim("prefill", gpus=2, present=1, there=1, draining=0, least=1, wanted=1, load=0.5),
    ... ]
    >>> filled_up(claims, {"decode": 9, "prefill": 9}, min_gpus=8), filled_up(claims, {"decode": 4, "prefill": 9}, 12)
    ({'decode': 3, 'prefill': 1}, {'decode': 4, 'prefill': 2})
    """
    counts = {claim.name: claim.wanted for claim in claims}
    total = sum(claim.settled_gpus(claim.wanted) for claim in claims)
    for limit in ({claim.name: min(claim.present, most[claim.name]) for claim in claims}, most):
        while total < min_gpus:
            room = [claim for claim in claims if claim.gpus and counts[claim.name] < limit[claim.name]]
            if not room:
                break
            claim = min(room, key=lambda claim: (-claim.pressure(max(counts[claim.name], 1)), claim.name))
            counts[claim.name] += 1
            total += claim.gpus
    return counts


def step(claims: Sequence[Claim], goal: Counts, max_gpus: int) -> dict[str, int]:
    """The part that can be done now: every fall, and each rise for which there are GPUs before the falls are done."""
    lowered = {claim.name: min(claim.present, goal[claim.name]) for claim in claims}
    return _filled(claims, lowered, goal, max_gpus, Claim.peak_gpus)


def _filled(
    claims: Sequence[Claim], start: Counts, most: Counts, max_gpus: int, gpus_of: Callable[[Claim, int], int]
) -> dict[str, int]:
    """From ``start`` towards ``most``, replica by replica, to where ``max_gpus`` are used up."""
    counts = dict(start)
    free = max_gpus - sum(gpus_of(claim, counts[claim.name]) for claim in claims)
    if free < 0:
        return counts
    if sum(gpus_of(claim, most[claim.name]) for claim in claims) <= max_gpus:
        return dict(most)
    queue = [(-c.pressure(counts[c.name]), c.name, c) for c in claims if counts[c.name] < most[c.name]]
    heapq.heapify(queue)
    while queue:
        _, name, claim = heapq.heappop(queue)
        more = counts[name] + 1 if claim.gpus else most[name]
        cost = gpus_of(claim, more) - gpus_of(claim, counts[name])
        if cost > free:
            continue
        counts[name], free = more, free - cost
        if more < most[name]:
            heapq.heappush(queue, (-claim.pressure(more), name, claim))
    return counts


def _relieves(claims: Sequence[Claim], anew: Counts, kept: Counts) -> bool:
    """Whether, of the pools that differ, the most pressed one is relieved by more than the margin."""
    differing = [claim for claim in claims if anew[claim.name] != kept[claim.name]]
    after = max((claim.pressure(anew[claim.name]) for claim in differing), default=0.0)
    before = max((claim.pressure(kept[claim.name]) for claim in differing), default=0.0)
    return after * (1 + REBALANCE_MARGIN) < before
