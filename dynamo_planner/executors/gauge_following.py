"""Whether the autoscaler that reads a gauge follows it: its own bounds, a quota or its tolerance may keep it elsewhere.

>>> following = Following(up_s=120, down_s=600, again_s=600)
>>> for now_s in (0, 60, 120):
...     following.observe("decode", requested=6, actual=4, now_s=now_s, gap_s=60)
>>> following.limit("decode", 5)
Limit(replicas=4, requested=6, since_s=0)
"""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    """Where an autoscaler stays, whatever is requested beyond that.

    Args:
        replicas: Where it stays.
        requested: What was requested.
        since_s: Since when it has not followed (seconds of the caller's clock).
    """

    replicas: int
    requested: int
    since_s: float

    def excludes(self, replicas: int) -> bool:
        """Whether a number is on the side that the autoscaler does not go to."""
        up = self.requested > self.replicas
        return replicas > self.replicas if up else replicas < self.replicas


class _Pool(NamedTuple):
    requested: int
    actual: int
    since_s: float
    observed_s: float
    limit: Limit | None = None


class Following:
    """Finds where an autoscaler stays, from what was requested of it and what it set.

    Args:
        up_s: Seconds within which it begins to follow a rise.
        down_s: Seconds within which it begins to follow a fall, its stabilization included.
        again_s: Seconds after which a number beyond its limit is tried again.
    """

    def __init__(self, up_s: float, down_s: float, again_s: float) -> None:
        self._up_s, self._down_s, self._again_s = up_s, down_s, again_s
        self._pools: dict[str, _Pool] = {}

    def observe(self, pool: str, *, requested: int, actual: int, now_s: float, gap_s: float) -> None:
        """Take what is requested of a pool and the target that it has; a gap in the observations proves nothing."""
        last = self._pools.get(pool)
        limit = last.limit if last else None
        if limit is not None and (actual != limit.replicas or now_s - limit.since_s > self._again_s + self._up_s):
            limit = None
        same = last is not None and (requested, actual) == (last.requested, last.actual)
        since_s = last.since_s if last and same and now_s - last.observed_s <= gap_s else now_s
        within_s = self._up_s if requested > actual else self._down_s
        if requested != actual and now_s - since_s >= within_s:
            limit = Limit(actual, requested, since_s)
        self._pools[pool] = _Pool(requested, actual, since_s, now_s, limit)

    def limit(self, pool: str, replicas: int) -> Limit | None:
        """The limit that excludes a number of replicas, or ``None``."""
        limit = self.current(pool)
        return limit if limit is not None and limit.excludes(replicas) else None

    def current(self, pool: str) -> Limit | None:
        """The limit of a pool, or ``None``."""
        known = self._pools.get(pool)
        return known.limit if known else None
