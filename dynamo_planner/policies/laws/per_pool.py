"""PerPoolLaw: the base class of laws that scale each pool by its own metrics and keep a memory of each pool.

>>> from dynamo_planner import PoolSpec, PoolStatus
>>> class OneMore(PerPoolLaw):
...     def scale(self, snapshot, name, pool, replicas, own):
...         return Want(replicas.target + 1), None, Reason(code="OneMore", message="always one more")
>>> pools = {"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=2)}
>>> print(OneMore().decide(Snapshot(at_s=0, pools=pools)).explain())
decode: 2 -> 3 replicas
  OneMore: always one more

The laws average their metrics over a window, with a memory of bounded size:

>>> samples = ()
>>> for at_s, value in ((0, 8.0), (10, 2.0), (20, 4.0)):
...     samples = sampled(samples, at_s, value, window_s=60)
>>> mean(samples, since_s=5)
3.0
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import Field

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Role, Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.policies.laws._common import FRESH_S, NO_TARGET, UNREADABLE, asleep, requests

M = TypeVar("M")

WINDOW_SLOTS = 60
"""A window of samples has at most this many slots of time, none shorter than a second."""

Verdict = tuple[Want | Hold, M | None, Reason | None]
"""What becomes of a pool, what the law remembers of it (``None``: nothing), and why."""


class PoolMemories(Frozen, Generic[M]):
    """What a law remembers, pool by pool."""

    pools: ReadOnly[str, M]


class PerPoolLaw(Policy):
    """A law that scales each pool by itself. Subclasses implement :meth:`scale`.

    A pool whose replicas could not be read is held, and a pool at zero replicas wakes up when requests arrive or wait
    at the frontend. Subclasses set ``state_type`` to ``PoolMemories[...]`` of what they remember of a pool.

    Args:
        fresh_s: The age in seconds from which on an observation counts as unknown and holds the pool. Default 60.
    """

    fresh_s: float = Field(default=FRESH_S, gt=0)

    state_type: ClassVar[Any] = PoolMemories[Any]

    @abstractmethod
    def scale(
        self, snapshot: Snapshot, name: str, pool: PoolStatus, replicas: Replicas, own: Any | None
    ) -> Verdict[Any]:
        """The replicas of one pool that is not asleep; ``own`` is what :meth:`scale` last remembered of it."""

    def propose(self, snapshot: Snapshot, state: PoolMemories[Any] | None) -> tuple[Proposal, PoolMemories[Any]]:
        before = state.pools if state else {}
        entries: dict[str, Want | Hold] = {}
        reasons: list[Reason] = []
        kept: dict[str, Any] = {}
        for name, pool in snapshot.pools.items():
            entries[name], own, reason = self.decide_pool(snapshot, name, pool, before.get(name))
            if reason is not None:
                reasons.append(reason.replace(pool=name))
            if own is not None:
                kept[name] = own
        return Proposal(pools=entries, reasons=tuple(reasons)), self.state_type(pools=FrozenMap(kept))

    def decide_pool(self, snapshot: Snapshot, name: str, pool: PoolStatus, own: Any | None) -> Verdict[Any]:
        """The verdict on one pool, which may be unreadable or asleep."""
        if pool.replicas is None:
            return UNREADABLE, own, None
        if self.is_asleep(pool.replicas):
            return self.wake(snapshot, pool.replicas, own)
        return self.scale(snapshot, name, pool, pool.replicas, own)

    def is_asleep(self, replicas: Replicas) -> bool:
        """Whether a pool has no capacity that metrics could tell of."""
        return replicas.target == 0

    def wake(self, snapshot: Snapshot, replicas: Replicas, own: Any | None) -> Verdict[Any]:
        """The verdict on a pool that is asleep."""
        return asleep(snapshot, self.fresh_s), own, None


class RequestsLaw(PerPoolLaw):
    """A law on the requests in a pool, waiting and running. Subclasses implement :meth:`scale_by_requests`.

    Args:
        targets: Requests in flight per replica to aim at, by role. A pool whose role has no target is left alone.
        fresh_s: As in :class:`PerPoolLaw`.
    """

    targets: ReadOnly[Role, Annotated[float, Field(gt=0)]]

    @abstractmethod
    def scale_by_requests(
        self, at_s: float, replicas: Replicas, own: Any | None, total: float, target: float
    ) -> Verdict[Any]:
        """The replicas for ``total`` requests in the pool, at ``target`` requests per replica."""

    def decide_pool(self, snapshot: Snapshot, name: str, pool: PoolStatus, own: Any | None) -> Verdict[Any]:
        if pool.spec.role not in self.targets:
            return NO_TARGET, own, None
        return super().decide_pool(snapshot, name, pool, own)

    def scale(
        self, snapshot: Snapshot, name: str, pool: PoolStatus, replicas: Replicas, own: Any | None
    ) -> Verdict[Any]:
        total = requests(snapshot, name, self.fresh_s)
        if isinstance(total, Hold):
            return total, own, None
        return self.scale_by_requests(snapshot.at_s, replicas, own, total, self.targets[pool.spec.role])


Samples = tuple[tuple[float, float, int], ...]
"""Slots of time, oldest first: when the last sample in it was taken, the sum of its samples, and how many."""


def sampled(samples: Sequence[tuple[float, float, int]], at_s: float, value: float, window_s: float) -> Samples:
    """The samples of the window with one more, without what is older than ``window_s`` seconds."""
    width_s = max(window_s / WINDOW_SLOTS, 1.0)
    kept = [sample for sample in samples if at_s - window_s < sample[0] < at_s]
    if kept and kept[-1][0] // width_s == at_s // width_s:
        _, total, count = kept.pop()
        return (*kept, (at_s, total + value, count + 1))
    return (*kept, (at_s, value, 1))


def mean(samples: Sequence[tuple[float, float, int]], since_s: float) -> float:
    """The mean of the samples taken after ``since_s``, of which there must be at least one."""
    young = [(total, count) for at_s, total, count in samples if at_s > since_s]
    return sum(total for total, _ in young) / sum(count for _, count in young)
