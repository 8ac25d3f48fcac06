"""The state of :class:`~dynamo_planner.policies.sla.SlaPolicy`: the states of its parts and of its pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from dynamo_planner.core.decision import State
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.policies.sla.losses import LossRate


class LastPlan(Frozen):
    """What the last decision for a pool came to.

    Args:
        target: The replicas that were proposed.
        required: The replicas that the demand required.
        load: The fractional requirement.
        attained: The share that the sizing predicted for ``required``.
        unattainable: The share of requests that miss a target even when served alone.
        losses: How often its replicas were lost, and in how many replica-seconds.
        drained_per_s: Requests per second of a backlog that are drained beside those that arrive.
    """

    target: int
    required: int
    load: float
    attained: float = 1.0
    unattainable: float = 0.0
    losses: LossRate = LossRate()
    drained_per_s: float = 0.0


class PoolMemory(Frozen):
    """The memory of one pool.

    Args:
        startup: The state of the start-up part.
        capacity: The state of the capacity part.
        plan: The state of the plan.
        queue_seen: Whether its queue was ever reported.
        last: What the last decision came to; ``None`` where the pool was idle or could not be sized.
    """

    startup: State | None = None
    capacity: State | None = None
    plan: State | None = None
    queue_seen: bool = False
    last: LastPlan | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_0_2(cls, data: Any) -> Any:
        """Read a state of 0.2 and before, which had no parts. Its correction is dropped: it names no profile."""
        if not isinstance(data, Mapping) or "needs" not in data:
            return data
        return {
            "startup": {"kind": "observed", "version": 1, "data": data["startup"]},
            "plan": {"kind": "ski_rental", "version": 1, "data": data["needs"]},
            "queue_seen": data["queue_seen"],
        }


class ServiceMemory(Frozen):
    """The memory of the service.

    Args:
        seen_s: When the last window of traffic ended, in Unix seconds.
        queue_seen: Whether the queue at the frontend was ever reported.
        forecaster: The state of the forecaster.
        workload: The state of the workload.
        attainment: The state of the attainment.
        pools: The memory of each pool.
    """

    seen_s: float | None = None
    queue_seen: bool = False
    forecaster: State | None = None
    workload: State | None = None
    attainment: State | None = None
    pools: ReadOnly[str, PoolMemory] = Field(default_factory=FrozenMap)

    @model_validator(mode="before")
    @classmethod
    def _of_0_2(cls, data: Any) -> Any:
        """Read a state of 0.2 and before, which had no parts."""
        if not isinstance(data, Mapping) or "slots" not in data:
            return data
        requests = {name: data[name] for name in ("window_rate", "surge", "slots", "isl", "osl", "hit_rate")}
        return {
            "seen_s": data["seen_s"],
            "queue_seen": data["queue_seen"],
            "forecaster": data["rate"] and {"kind": "ensemble", "version": 1, "data": data["rate"]},
            "workload": {"kind": "recent", "version": 1, "data": requests},
            "pools": data["pools"],
        }
