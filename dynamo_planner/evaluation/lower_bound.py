"""A lower bound on the replica time of any schedule, by linear programming: no policy can go below it.

>>> import numpy as np
>>> every_second = np.arange(3600.0)
>>> work = PoolWork(arrival_s=every_second, deadline_s=every_second + 10, work_s=np.full(3600, 2.5))
>>> bound = least_replica_time(work, attainment=0.99, startup_s=60, start=4, slot_s=10)
>>> round(bound.replica_s / 3600, 2)  # 2.5 at a time, of which 1 % may be dropped
2.48
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import bmat, csr_array, diags, eye, kron  # not eye_array and the like: they need scipy 1.12

Floats = NDArray[np.float64]

MOST_SLOTS = 1800
"""A longer time is cut into longer slots; the bound is then lower, and as valid."""

SHORTEST_SLOT_S = 1.0

CLASSES = (0.0, 0.5, 0.9, 0.97, 0.99)
"""Requests are classed by their work at these quantiles: how much work goes with a dropped request."""


class PoolWork(NamedTuple):
    """The work of one pool; all arrays have the shape ``(requests,)``.

    Args:
        arrival_s: when each request arrives.
        deadline_s: until when its work must be done.
        work_s: the least replica time that its work takes.
    """

    arrival_s: Floats
    deadline_s: Floats
    work_s: Floats


class LowerBound(NamedTuple):
    """The least replica time, and the replicas that reach it.

    Args:
        replica_s: the least replica time in seconds, with that of starting.
        replicas: the replicas of each slot that reach it, in fractions.
        slot_s: the length of a slot in seconds.
    """

    replica_s: float
    replicas: Floats
    slot_s: float


def least_replica_time(
    work: PoolWork,
    *,
    attainment: float,
    startup_s: float,
    start: int,
    duration_s: float | None = None,
    min_replicas: int = 0,
    max_replicas: int | None = None,
    slot_s: float | None = None,
) -> LowerBound:
    """The least replica time with which the share ``attainment`` of the requests can be done in time.

    Replicas are fractions, work can be split and done in any order, and is known beforehand. The program is::

        minimise  sum(n) * slot + startup * sum(v)
        C[t] - C[t-1] <= n[t] * slot          the capacity of n replicas in a slot
        D[t] - Z[t] <= C[t] <= A[t] - Z[t]    work is done after it came and before it is due
        n[t] - n[t-1] <= v[t]                 launches are paid from their start; n[-1] = start, none is ready sooner

    | symbol | meaning, up to the end of slot t |
    |---|---|
    | A[t] | work that came |
    | D[t] | work that is due |
    | C[t] | work that is done |
    | Z[t] | work of requests that are given up |
    | n[t], v[t] | replicas, and launches, in slot t |

    A request that is given up counts as one of its class at the most work in that class, so at most
    ``(1 - attainment) * requests`` may be. Time that is billed for draining and for what ends late is not in it.

    Args:
        work: the work of the pool.
        attainment: the share of requests to be done in time.
        startup_s: seconds from launch to readiness.
        start: replicas at the beginning.
        duration_s: the time to be covered; up to the last deadline by default.
        min_replicas: the least replicas in any slot; 0 by default.
        max_replicas: the most replicas in any slot; no limit by default.
        slot_s: the length of a slot; by default such that there are at most :data:`MOST_SLOTS`.

    Raises ``ValueError`` where no schedule is enough.
    """
    duration_s = float(duration_s if duration_s is not None else work.deadline_s.max())
    slot_s = slot_s or max(SHORTEST_SLOT_S, duration_s / MOST_SLOTS)
    slots = max(int(np.ceil(duration_s / slot_s)), 1)
    due_slot = np.ceil(work.deadline_s / slot_s).astype(np.int64) - 1
    due, heaviest = _due(work, due_slot, slots)
    came = _per_slot(work.arrival_s, work.work_s, slot_s, slots)
    ends_s = slot_s * (1 + np.arange(slots))

    each, change = eye(slots), diags([1.0, -1.0], offsets=[0, -1], shape=(slots, slots))
    of_slot = kron(each, np.ones((1, len(CLASSES))))
    requests = np.divide(1.0, heaviest, out=np.zeros_like(heaviest), where=heaviest > 0)
    no_more_than = bmat(
        [  # n, v, C, Z, what is given up per slot and class
            [-slot_s * each, None, change, None, None],
            [None, None, -each, -each, None],
            [None, None, each, each, None],
            [change, -each, None, None, None],
            [None, None, None, None, csr_array(np.tile(requests, slots)[None, :])],
        ]
    )
    limits = [
        np.zeros(slots),
        -np.cumsum(due.sum(axis=1)),
        np.cumsum(came),
        start * (np.arange(slots) == 0),
        [_may_miss(work, attainment)],
    ]
    nothing = csr_array((slots, slots))
    most = np.inf if max_replicas is None else max(max_replicas, min_replicas)
    lowest = [np.full(slots, float(min_replicas)), np.zeros(slots * (3 + len(CLASSES)))]
    highest = [
        np.full(slots, most),
        np.where(ends_s > startup_s, np.inf, 0.0),
        np.full(2 * slots, np.inf),
        due.ravel(),
    ]
    result = linprog(
        np.repeat([slot_s, startup_s, 0.0], [slots, slots, slots * (2 + len(CLASSES))]),
        A_ub=no_more_than.tocsr(),
        b_ub=np.concatenate(limits),
        A_eq=bmat([[nothing, nothing, nothing, change, -of_slot]]).tocsr(),
        b_eq=np.zeros(slots),
        bounds=np.column_stack([np.concatenate(lowest), np.concatenate(highest)]),
        method="highs",
    )
    if result.status != 0:
        raise ValueError(
            f"no schedule is enough, with {start} replicas and {startup_s:g} s to start more: {result.message}"
        )
    return LowerBound(replica_s=float(result.fun), replicas=result.x[:slots], slot_s=slot_s)


def _may_miss(work: PoolWork, attainment: float) -> float:
    return (1 - attainment) * len(work.work_s)


def _per_slot(at_s: Floats, values: Floats, slot_s: float, slots: int) -> Floats:
    slot = np.minimum((at_s // slot_s).astype(np.int64), slots - 1)
    return np.asarray(np.bincount(slot, weights=values, minlength=slots), float)


def _due(work: PoolWork, due_slot: NDArray[np.int64], slots: int) -> tuple[Floats, Floats]:
    """The work that is due in each slot by class, and the most work that a request of each class has."""
    classes = np.searchsorted(np.quantile(work.work_s, CLASSES[1:]), work.work_s, side="right")
    heaviest = np.array([work.work_s[classes == c].max(initial=0.0) for c in range(len(CLASSES))])
    due = np.zeros((slots, len(CLASSES)))
    within = due_slot < slots
    np.add.at(due, (due_slot[within], classes[within]), work.work_s[within])
    return due, heaviest
