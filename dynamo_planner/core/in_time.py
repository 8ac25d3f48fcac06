"""The share of requests in time: those that met both targets of an SLA, of all whose outcome is known by now.

A histogram of TTFT counts a request once its first token comes, so that it looks good while a queue grows. Requests
that already wait past the target, and those that were turned away or given up, are missed as well::

    in time = n s / (n + o + r + b)

======  ====================================================================  ==========================================
``n``   requests with a first token in the window                             ``traffic.ttft_ms.count``
``s``   the share of them that met both targets: as the source counts it      ``traffic.in_time``
        where its targets are the same, else within the bounds that the two   ``traffic.ttft_ms``, ``traffic.itl_ms``
        shares give (:func:`~dynamo_planner.core.share.share_of_both`); at
        most, requests without an ITL are of a single token and meet it
``r``   requests that were turned away in it                                  ``traffic.rejected_per_s window_s``
``b``   requests that were given up in it, before their first token           ``traffic.aborted_per_s window_s``
``o``   requests that wait for longer than the TTFT target ``T``              from the following
``q``   requests that wait, in front of the pools and in them, by worker      ``traffic.queued``, ``pools.*.queued``,
        where each is known                                                   ``pools.*.workers``
``a``   arrivals per second                                                   ``traffic.requests_per_s``
``p``   requests that were preempted: these wait, but had a first token       ``traffic.preemptions_per_s window_s``
======  ====================================================================  ==========================================

No metrics page has the age of what waits. But only what came in the last ``T`` can have waited for less:

- At least ``max(0, q - p - a window_s)`` are overdue, where the window is as long as ``T``.
- The estimate takes queues for first come, first served, and arrivals for even over the window and over the workers of
  a pool. Of the young ones, ``a T``, as many as possible are in front of the pools, then in prefill and aggregated
  pools, then in decode pools: ``o`` is the sum of ``max(0, q_i - young / workers)``. Where arrivals are unknown, all
  that wait are overdue.
- At most all ``q`` are.

Nor is it known whether those that were given up had a first token. The lower bound takes all for counted as in time,
``(n s - b) / (n + o + r)``, and the upper bound all for counted as late, without ``b``.

With 10 requests/s over 30 s, 160 waiting in front, a target of 2 s, and 240 first tokens of which 216 met both targets:
140 are overdue, and ``216 / (240 + 140) = 0.57`` are in time, not 0.9.

What no one counts is not in it: requests that are turned away or given up where their rate is unknown, and those that
wait in front of the pools where ``traffic.queued`` is. The queue of a pool that is unknown makes the share unknown.
Where no first token is known, as many wait as came in the window, and some of them are overdue, nothing is served: the
estimate is 0.

>>> from dynamo_planner.core.metrics import Dist
>>> ttft_ms = Dist(mean=900, count=240, buckets={1000: 0.6, 2500: 1})
>>> itl_ms = Dist(mean=20, buckets={25: 0.9, 50: 1})
>>> traffic = Traffic(window_s=30, requests_per_s=10, queued=160, ttft_ms=ttft_ms, itl_ms=itl_ms)
>>> share = share_in_time(Snapshot(at_s=0, traffic=traffic), Sla(ttft_ms=2500, itl_ms=25))
>>> round(share.estimate, 3), round(share.lower, 3), round(share.upper, 3)  # 135 of 160 wait for longer than 2.5 s
(0.576, 0.54, 0.9)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.share import Share, share_of_both
from dynamo_planner.core.snapshot import PoolStatus, Sla, Snapshot

Queues = tuple[tuple[float, ...], ...]
"""Requests that wait, by stage and by worker: in front of the pools, in those that prompts go to, in decode pools."""


def share_in_time(snapshot: Snapshot, sla: Sla) -> Share | None:
    """The share of requests in time, with bounds; ``None`` where it is unknown."""
    return share_of_all(snapshot, sla, served_in_time(snapshot.traffic, sla))


def share_of_all(snapshot: Snapshot, sla: Sla, served: Share | None) -> Share | None:
    """The share of all requests in time, by that of those that were served."""
    traffic = snapshot.traffic
    queues = queues_by_stage(traffic, snapshot.pools.values())
    if queues is None:
        return None
    overdue = _overdue(traffic, sla.ttft_ms / 1000, queues)
    rejected = _count(traffic, traffic.rejected_per_s) or 0.0
    aborted = _count(traffic, traffic.aborted_per_s) or 0.0
    came = _count(traffic, traffic.requests_per_s)
    if served is None:
        waiting = sum(map(sum, queues))
        stalled = traffic.ttft_ms is None and came is not None and waiting >= came and overdue.estimate >= 1
        return Share(0.0, 0.0, 1.0) if stalled else None
    count = came if traffic.ttft_ms is None or traffic.ttft_ms.count is None else traffic.ttft_ms.count
    if not count:
        return served if overdue.upper + rejected + aborted == 0 else Share(0.0, 0.0, served.upper)

    known = count + rejected
    return Share(
        served.estimate * count / (known + overdue.estimate + aborted),
        max(0.0, served.lower * count - aborted) / (known + overdue.upper),
        served.upper * count / (known + overdue.lower),
    )


def queues_by_stage(traffic: Traffic, pools: Iterable[PoolStatus]) -> Queues | None:
    """The queues of a service; ``None`` where that of a pool is unknown."""
    prompts: list[float] = []
    tokens: list[float] = []
    for pool in pools:
        stage = tokens if pool.spec.role == "decode" else prompts
        if pool.queued is not None:
            each = [worker.queued for worker in pool.workers if worker.queued is not None]
            stage += each if each and abs(sum(each) - pool.queued) < 1 else [pool.queued]
        elif pool.replicas is None or pool.replicas.ready:
            return None
    return (traffic.queued or 0.0,), tuple(prompts), tuple(tokens)


def served_in_time(traffic: Traffic, sla: Sla) -> Share | None:
    """The share in time of the requests that were served, ``s``; ``None`` where TTFT or ITL is unknown."""
    known = traffic.in_time
    if known is not None and (known.ttft_ms, known.itl_ms) == (sla.ttft_ms, sla.itl_ms):
        return Share(known.share, known.share, known.share)
    if traffic.ttft_ms is None or traffic.itl_ms is None:
        return None
    first, tokens = traffic.ttft_ms.share_within(sla.ttft_ms), traffic.itl_ms.share_within(sla.itl_ms)
    if first is None or tokens is None:
        return None
    return share_of_both(first, _with_single_tokens(tokens, traffic.itl_ms.count, traffic.ttft_ms.count))


def _with_single_tokens(tokens: Share, with_itl: float | None, served: float | None) -> Share:
    """The share that meets the ITL target, where requests without an ITL may be of a single token and meet it."""
    if with_itl is None or served is None or with_itl >= served:
        return tokens
    return tokens._replace(upper=1.0 - (1.0 - tokens.upper) * with_itl / served)


class _Overdue(NamedTuple):
    """How many requests wait for longer than the target, ``o``."""

    estimate: float
    lower: float
    upper: float


def _overdue(traffic: Traffic, target_s: float, queues: Queues) -> _Overdue:
    waiting = sum(map(sum, queues))
    came = _count(traffic, traffic.requests_per_s)
    if came is None or not traffic.window_s:
        return _Overdue(waiting, 0.0, waiting)
    preempted = _count(traffic, traffic.preemptions_per_s) or 0.0
    least = max(0.0, waiting - preempted - came) if traffic.window_s >= target_s else 0.0
    young, estimate = came / traffic.window_s * target_s, 0.0
    for stage in queues:
        estimate += sum(max(0.0, queue - young / len(stage)) for queue in stage)
        young = max(0.0, young - sum(stage))
    return _Overdue(max(estimate, least), least, waiting)


def _count(traffic: Traffic, rate: float | None) -> float | None:
    return None if rate is None or traffic.window_s is None else rate * traffic.window_s
