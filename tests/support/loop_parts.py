"""The smallest source, executor, policy and clock that a loop can turn with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dynamo_planner.core.decision import Action, Outcome, Proposal, ScaleTo, Want
from dynamo_planner.core.metrics import PoolMetrics, Traffic
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import Observation, PoolSpec, Replicas, Snapshot
from dynamo_planner.core.values import FrozenMap


class Clock:
    """A clock that stands still until it is told, or until somebody sleeps."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


class Metrics:
    """A source that tells what it is set to, or raises it."""

    def __init__(self, requests_per_s: float | None = 10.0) -> None:
        self.requests_per_s = requests_per_s
        self.error: BaseException | None = None
        self.answer: Any = None
        self.asked_s: list[float] = []

    def observe(self, at_s: float) -> Observation:
        self.asked_s.append(at_s)
        if self.error is not None:
            raise self.error
        if self.answer is not None:
            return self.answer  # type: ignore[no-any-return]
        seen = PoolMetrics(queued=2, running=3, kv_usage=0.5, coverage=1)
        return Observation(traffic=Traffic(requests_per_s=self.requests_per_s), pools={"workers": seen})


class Cluster:
    """An executor that does at once what it is told, or raises."""

    def __init__(self, replicas: int = 2) -> None:
        self.specs: Mapping[str, PoolSpec] = {"workers": PoolSpec(role="aggregated", min_replicas=0, max_replicas=9)}
        self.replicas = replicas
        self.pools_error: Exception | None = None
        self.observe_error: Exception | None = None
        self.apply_error: Exception | None = None
        self.applied: list[Action] = []

    @property
    def pools(self) -> Mapping[str, PoolSpec]:
        if self.pools_error is not None:
            raise self.pools_error
        return FrozenMap(self.specs)

    def observe(self) -> Mapping[str, Replicas | None]:
        if self.observe_error is not None:
            raise self.observe_error
        return {"workers": Replicas(ready=self.replicas)}

    def apply(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        if self.apply_error is not None:
            raise self.apply_error
        for action in actions:
            self.applied.append(action)
            if isinstance(action, ScaleTo):
                self.replicas = action.replicas
        return tuple(Outcome(action=action, status="applied") for action in actions)


class Climbing(Policy):
    """Wants one replica more each time it is asked: 1, 2, 3, ..., so that what it remembers shows in what it wants."""

    state_type: ClassVar[Any] = int

    def propose(self, snapshot: Snapshot, state: int | None) -> tuple[Proposal, int]:
        wanted = (state or 0) + 1
        return Proposal(pools={pool: Want(wanted) for pool in snapshot.pools}), wanted


def per_ten(snapshot: Snapshot) -> dict[str, int]:
    """A plain function as a policy, as careless as users' are: a replica for ten requests per second."""
    rate = snapshot.traffic.requests_per_s
    assert rate is not None
    return {"workers": round(rate / 10)}
