"""The recent past of a planner for its status page: the last step, and a thinned history of each pool.

>>> from dynamo_planner import Decision, Snapshot
>>> from dynamo_planner.runtime.decision_log import Step
>>> overview = Overview(most=4)
>>> for at_s in range(0, 60, 10):
...     snapshot = Snapshot(at_s=at_s, pools={"decode": {"spec": {"role": "decode"}, "replicas": 2}})
...     overview.record(Step(at_s=at_s, name="planner", snapshot=snapshot, decision=Decision(at_s=at_s)))
>>> [moment.at_s for moment in overview.history]
[0.0, 20.0, 50.0]
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from dynamo_planner.core.decision import Reason
from dynamo_planner.runtime.decision_log import Step

MOST_MOMENTS = 720
"""Moments that the history keeps; when it is full, every second one goes."""

PROMISE_CODES = frozenset({"PromiseKept", "PromiseMissed"})


class PoolMoment(NamedTuple):
    """A pool at one moment; ``None`` where it was unknown, or held."""

    ready: int | None
    wanted: int | None
    gpus: int | None


class Moment(NamedTuple):
    """One step in the history.

    Attributes:
        at_s: When, in Unix seconds.
        requests_per_s: Arrivals; ``None`` where unknown.
        attained: The share of requests in time over the promise's window; ``None`` where no policy says.
        pools: The pools by name.
    """

    at_s: float
    requests_per_s: float | None
    attained: float | None
    pools: dict[str, PoolMoment]


class Overview:
    """The last step and the history, filled by :meth:`record`; read from other threads.

    Args:
        most: Moments to keep. Default 720, which is two hours at 10 s, then four, then eight at a coarser grain.
    """

    def __init__(self, most: int = MOST_MOMENTS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._last: Step | None = None
        self._history: list[Moment] = []
        self._every, self._skipped = 1, 0

    @property
    def last(self) -> Step | None:
        """The last step; ``None`` before the first."""
        return self._last

    @property
    def history(self) -> list[Moment]:
        """The moments that are kept, oldest first; the last one is the last step."""
        with self._lock:
            last = [] if self._last is None else [_moment(self._last)]
            return [each for each in self._history if not last or each.at_s != last[0].at_s] + last

    def record(self, step: Step) -> None:
        """Record a step."""
        with self._lock:
            self._last = step
            self._skipped += 1
            if self._skipped < self._every and self._history:
                return
            self._skipped = 0
            self._history.append(_moment(step))
            if len(self._history) >= self._most:
                self._history = self._history[::2]
                self._every *= 2


def promise(step: Step) -> Reason | None:
    """The reason that has the share in time and what is promised; ``None`` where no policy promises a share."""
    return next((reason for reason in step.decision.reasons if reason.code in PROMISE_CODES), None)


def _moment(step: Step) -> Moment:
    told = promise(step)
    attained = told.values.get("attained") if told is not None else None
    pools = {
        name: PoolMoment(
            pool.replicas.ready if pool.replicas else None, step.decision.targets.get(name), pool.gpus_held()
        )
        for name, pool in step.snapshot.pools.items()
    }
    return Moment(
        step.at_s, step.snapshot.traffic.requests_per_s, attained if isinstance(attained, float) else None, pools
    )
