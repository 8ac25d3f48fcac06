"""Worth: what replicas of a model are worth, and the options that follow.

====================  =================================================================================================
``worth``             ``work * product over roles of (sum over its pools of share * served)``
``work``              what all that is asked for takes: the loads of the pools in replicas, times the GPUs of each
``share``             the part of the role's load that is the pool's
``served(n)``         ``(in_time(n) + LATE_WORTH * busy(n)) / (1 + LATE_WORTH)``
``in_time(n)``        the share of the pool's requests that ``n`` replicas serve in time, where the policy predicts it
                      (:meth:`~dynamo_planner.Policy.in_time`); else ``busy(n)``
``busy(n)``           ``E[min(N, n)] / load`` for ``N`` Poisson with mean ``load``, the load in replicas: the part of
                      the load that finds a replica
====================  =================================================================================================

Prefill and decode multiply, since either alone serves nothing: 0.9 of the prompts and 0.5 of the tokens in time are
0.45. A request counts by the work that it takes, as it is priced: counted by their number, requests to a small model
would go before all those to a large one. For a load of 2 replicas, one is busy with ``(1 - exp(-2)) / 2 = 0.43`` of it,
two with 0.73 and three with 0.89.

>>> [round(float(share), 2) for share in busy(2.0, np.array([0, 1, 2, 3]))]
[0.0, 0.43, 0.73, 0.89]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import pdtrc

from dynamo_planner.core.snapshot import Role
from dynamo_planner.fleet.claims import Option
from dynamo_planner.sizing.arrays import Floats

LATE_WORTH = 0.1
"""What a request that is served late is worth, beside one in time: where all are late, more of them are served."""

LEAST_WORK = 1e-3
"""GPUs of work that a model counts with at least, so that an idle one keeps what no other needs."""

MAX_COUNTS = 48
"""Counts of a pool that are considered; of a larger range, evenly spread ones."""

MAX_MIXED = 256
"""Combinations of counts that are considered of a model whose pools use different budgets."""

MAX_OPTIONS = 64
"""Options of a model that are considered, evenly spread over what they use."""


class PoolRange(NamedTuple):
    """The replicas that one pool may be given.

    Args:
        name: Its name.
        role: Its role.
        uses: What a replica holds of each budget.
        least: The fewest.
        wanted: The most.
        kept: Of what is wanted, what it has.
        load: Its load in fractional replicas.
        gpus: GPUs of a replica. Default 1.
        held: Whether it stays as it is. Default false.
    """

    name: str
    role: Role
    uses: Mapping[str, float]
    least: int
    wanted: int
    kept: int
    load: float
    gpus: int = 1
    held: bool = False

    def counts(self) -> list[int]:
        """The counts to consider, fewest first."""
        if self.wanted - self.least < MAX_COUNTS:
            return list(range(self.least, self.wanted + 1))
        spread = np.linspace(self.least, self.wanted, MAX_COUNTS - 1).round().astype(int).tolist()
        return sorted({*spread, self.kept} if self.kept >= self.least else {*spread})


def busy(load: float, counts: npt.NDArray[np.int_]) -> Floats:
    """The part of a load, in replicas, that finds one of ``counts`` replicas."""
    if load <= 0:
        return np.ones(len(counts))
    found = np.concatenate([[0.0], np.cumsum(pdtrc(np.arange(int(counts.max(initial=0))), load))])
    return np.asarray(np.minimum(found[counts] / load, 1.0))


@lru_cache(maxsize=1024)
def options(pools: tuple[PoolRange, ...], in_time: tuple[tuple[float, ...] | None, ...]) -> tuple[Option, ...]:
    """The options of a model that are worth more than any other that uses no more, the least first and what it wants
    last; with what it has among them.

    ``in_time`` is the share of the requests that each count of a pool serves in time, where it is known. Most models
    ask for the same as in the tick before, so the options are kept.
    """
    counts = [np.array(pool.counts()) for pool in pools]
    served = [_served(*own) for own in zip(pools, counts, in_time, strict=True)]
    use = _uses(pools)
    one_way = use.shape[1] <= 1 or np.linalg.matrix_rank(use) <= 1  # what uses more of one budget uses more of each
    most = MAX_COUNTS**2 if one_way else MAX_MIXED
    places = [_spread(len(own), max(int(most ** (1 / len(pools))), 2)) for own in counts]
    if np.prod([len(own) for own in counts]) <= most:
        places = [range(len(own)) for own in counts]
    grid = np.array(list(product(*places)))
    roles = dict.fromkeys(pool.role for pool in pools)
    total = np.ones(len(grid))
    zero, some = np.zeros(len(grid), bool), np.zeros(len(grid), bool)
    for role in roles:
        own = [n for n, pool in enumerate(pools) if pool.role == role]
        loads = np.array([max(pools[n].load, 0.0) for n in own])
        shares = loads / loads.sum() if loads.sum() > 0 else np.full(len(own), 1 / len(own))
        total *= sum(share * served[n][grid[:, n]] for share, n in zip(shares, own, strict=True))
        count = sum(counts[n][grid[:, n]] for n in own)
        if any(pools[n].wanted for n in own):
            zero |= count == 0
            some |= count > 0
    chosen = np.column_stack([own[grid[:, n]] for n, own in enumerate(counts)])
    together = ~(zero & some)  # prefill and decode go to zero together
    work = max(sum(pool.load * max(pool.gpus, 1) for pool in pools), LEAST_WORK)
    chosen, total = chosen[together], work * total[together]
    return _efficient(pools, chosen, chosen @ use, total, one_way=one_way)


def _served(pool: PoolRange, counts: npt.NDArray[np.int_], in_time: Sequence[float] | None) -> Floats:
    """What each count serves of the pool's load, late requests for a part of their worth."""
    if pool.held:
        return np.ones(len(counts))
    found = busy(pool.load or float(pool.wanted), counts)
    if in_time is not None:
        predicted = np.maximum.accumulate(np.nan_to_num(np.asarray(in_time, float)))
        found = (predicted + LATE_WORTH * found) / (1 + LATE_WORTH)
    return found


def _spread(length: int, most: int) -> Sequence[int]:
    """Places in a list, evenly spread, with both ends."""
    if length <= most:
        return range(length)
    return sorted(set(np.linspace(0, length - 1, max(most, 2)).round().astype(int).tolist()))


def _uses(pools: Sequence[PoolRange]) -> Floats:
    """What a replica of each pool (rows) holds of each budget (columns)."""
    budgets = sorted({budget for pool in pools for budget in pool.uses})
    return np.array([[pool.uses.get(budget, 0.0) for budget in budgets] for pool in pools]).reshape(len(pools), -1)


def _efficient(
    pools: Sequence[PoolRange], chosen: npt.NDArray[np.int_], use: Floats, worth: Floats, *, one_way: bool
) -> tuple[Option, ...]:
    """The options that no other is better than, with what the model has, and what it wants as the last."""
    order = np.lexsort((-worth, use.sum(axis=1)))
    chosen, use, worth = chosen[order], use[order], worth[order]
    if one_way:
        good = np.concatenate([[True], worth[1:] > np.maximum.accumulate(worth)[:-1]])
    else:
        less = np.all(use[:, None, :] <= use[None, :, :], axis=2)  # [n, m]: n uses no more than m
        good = ~np.any(np.tril(np.ones(less.shape, bool), -1).T & less & (worth[:, None] >= worth[None, :]), axis=0)
    places = np.flatnonzero(good)[_spread(int(good.sum()), MAX_OPTIONS)]
    kept = np.flatnonzero(np.all(chosen == [pool.kept for pool in pools], axis=1))
    wanted = tuple(pool.wanted for pool in pools)
    found = [Option(tuple(chosen[n].tolist()), float(worth[n])) for n in sorted({*places.tolist(), *kept.tolist()})]
    return (*[option for option in found if option.counts != wanted], Option(wanted, float(worth.max())))
