"""Workload: the part that knows what requests are like: how they arrive, how long they are, how much is cached."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import SerializeAsAny

from dynamo_planner.core.component import Kinds
from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.snapshot import Role
from dynamo_planner.core.values import Frozen
from dynamo_planner.forecasting.experts.base import decayed
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.burstiness import (
    Pattern,
    Slots,
    certain_rate,
    counted,
    dispersion,
    pattern,
    recent_rate,
    steady_dispersion,
)
from dynamo_planner.policies.sla.lengths import ObservedLengths, learned, rounded
from dynamo_planner.policies.sla.part import Part
from dynamo_planner.sizing import Lengths, Load
from dynamo_planner.sizing.memo import Latest

HIT_RATE_HALF_LIFE_S = 300.0
"""The prefix hit rate that is remembered goes half the way to the observed one in this time, in seconds."""

HIT_RATE_DECIMALS = 2
"""Decimals of the prefix hit rate, so that one sizing serves for many ticks."""

RATE_STEP = 0.04
"""Sizes are worked out for rates in steps of this share, so that one serves for many ticks."""

CROWD_WINDOWS, MIN_SHARE_OF_CROWD = 4.0, 0.67
"""Arrivals below this share of their mean over so many windows leave the last answers of a crowd, which are long."""

REPORTED_DISPERSION = 1.5
"""Arrivals that vary more than this many times as much as a Poisson process are reported."""

Facts = list[tuple[str, str, dict[str, float]]]
"""Codes, messages and values of reasons that hold for every pool."""


class Workload(Part):
    """What the requests of a service are like."""

    @abstractmethod
    def observe(self, state: Any, traffic: Traffic, arrivals: ArrivalWindow) -> Any:
        """The state after a window of traffic that was not counted before."""

    @abstractmethod
    def load(self, state: Any, requests_per_s: float, traffic: Traffic, level_s: float) -> Load | None:
        """Requests like the recent ones, at about this rate, which is a mean over ``level_s``; ``None`` where no
        lengths were ever observed."""

    def recent_per_s(self, state: Any, level_s: float) -> float:
        """The arrival rate that is certain already: over the last ``level_s``, or since the last tick. Default 0."""
        return 0.0

    def drift(self, state: Any, role: Role) -> float:
        """The standard deviation of the logarithm of the work of a request for a role, as a mean of a minute or so,
        about the one that loads have. Default 0."""
        return 0.0

    def facts(self, state: Any, level_s: float) -> Facts:
        """What a reader of the numbers has to know. Default nothing."""
        return []


class WorkloadMemory(Frozen):
    """The memory of the requests of a service.

    Args:
        window_rate: The arrival rate of the last window, in requests per second.
        surge: The arrival rate that the last window makes certain, in requests per second.
        slots: Past arrivals, for their burstiness.
        dispersion: Their dispersion, as a source reported it last while their level stood.
        isl: The lengths of prompts.
        osl: The lengths of answers.
        hit_rate: The share of prompt tokens served from the prefix cache.
    """

    window_rate: float | None = None
    surge: float = 0.0
    slots: Slots | None = None
    dispersion: float | None = None
    isl: ObservedLengths | None = None
    osl: ObservedLengths | None = None
    hit_rate: float | None = None


class Requests(NamedTuple):
    """What of a load does not depend on its rate."""

    bursts: Pattern
    isl: Lengths
    osl: Lengths
    prefix_hit_rate: float

    def at(self, requests_per_s: float) -> Load:
        """These requests at a rate."""
        return Load(self.bursts.at(requests_per_s), self.isl, self.osl, self.prefix_hit_rate)


class RecentWorkload(Workload, kind="recent"):
    """The recent lengths, with the last minutes counting most, and the burstiness of the last half hour."""

    state_type: ClassVar[Any] = WorkloadMemory

    @cached_property
    def _requests(self) -> Latest[Requests | None]:
        return Latest()

    @cached_property
    def _bursts(self) -> Latest[Pattern]:
        return Latest()

    def _pattern(self, state: WorkloadMemory, level_s: float) -> Pattern:
        return self._bursts.get(_pattern, state, level_s)

    def observe(self, state: WorkloadMemory | None, traffic: Traffic, arrivals: ArrivalWindow) -> WorkloadMemory:
        memory = state or WorkloadMemory()
        rate, requests, elapsed_s = arrivals.requests_per_s, arrivals.new_requests, arrivals.elapsed_s
        usual = recent_rate(memory.slots, arrivals.window_s)
        reported = steady_dispersion(memory.dispersion, traffic.arrival_dispersion, arrivals, memory.window_rate)
        varies = dispersion(memory.slots, arrivals.window_s, reported)
        # After a crowd those with the longest answers leave last: that is no growth.
        leaves = rate < MIN_SHARE_OF_CROWD * recent_rate(memory.slots, CROWD_WINDOWS * arrivals.window_s)
        return WorkloadMemory.unchecked(
            window_rate=rate,
            surge=certain_rate(arrivals, memory.window_rate, usual, varies),
            slots=counted(memory.slots, arrivals.at_s, rate, arrivals.window_s),
            dispersion=reported,
            isl=learned(memory.isl, traffic.isl, requests, elapsed_s),
            osl=learned(memory.osl, traffic.osl, requests, elapsed_s, may_grow=not leaves),
            hit_rate=_followed(memory.hit_rate, traffic.prefix_hit_rate, elapsed_s),
        )

    def load(
        self, state: WorkloadMemory | None, requests_per_s: float, traffic: Traffic, level_s: float
    ) -> Load | None:
        requests = None if state is None else self._requests.get(self._recent, state, level_s)
        return None if requests is None else requests.at(rounded(requests_per_s, RATE_STEP))

    def _recent(self, state: WorkloadMemory, level_s: float) -> Requests | None:
        """The recent requests; ``None`` where no lengths were ever observed."""
        if state.isl is None or state.osl is None:
            return None
        hit_rate = round(state.hit_rate or 0.0, HIT_RATE_DECIMALS)
        return Requests(self._pattern(state, level_s), state.isl.lengths(), state.osl.lengths(), hit_rate)

    def recent_per_s(self, state: WorkloadMemory | None, level_s: float) -> float:
        if state is None:
            return 0.0
        # The last window is newer than the last slot of a past that is counted in windows as long.
        long = state.slots is not None and state.slots.slot_s >= level_s
        recent = (state.window_rate or 0.0) if long else recent_rate(state.slots, level_s)
        return max(recent, state.surge)

    def drift(self, state: WorkloadMemory | None, role: Role) -> float:
        """Prefill works on prompts, decode on answers, and an aggregated pool on both."""
        memory = state or WorkloadMemory()
        prompts, answers = [0.0 if each is None else each.drift.spread() for each in (memory.isl, memory.osl)]
        return {"prefill": prompts, "decode": answers}.get(role, (prompts + answers) / 2)

    def facts(self, state: WorkloadMemory | None, level_s: float) -> Facts:
        memory = state or WorkloadMemory()
        facts: Facts = []
        bursts = self._pattern(memory, level_s)
        if bursts.dispersion > REPORTED_DISPERSION:
            message = f"counts of arrivals vary {bursts.dispersion:.2g} times as much as those of a Poisson process"
            peak = float(bursts.path.max()) if len(bursts.path) else 1.0
            facts.append(("ArrivalsBursty", message, {"dispersion": bursts.dispersion, "peak": peak}))
        for field, lengths in (("isl", memory.isl), ("osl", memory.osl)):
            cv2 = lengths.estimated_cv2() if lengths is not None and lengths.estimated else None
            if cv2 is not None:
                message = f"the spread of {field} is estimated from the means of intervals"
                facts.append(("SpreadEstimated", message, {"cv2": cv2}))
        return facts


def _pattern(state: WorkloadMemory, level_s: float) -> Pattern:
    """The burstiness of the recent arrivals."""
    return pattern(state.slots, level_s, state.dispersion)


def _followed(before: float | None, observed: float | None, elapsed_s: float) -> float | None:
    if observed is None or before is None:
        return before if observed is None else observed
    return observed + decayed(elapsed_s, HIT_RATE_HALF_LIFE_S) * (before - observed)


WORKLOADS = Kinds(
    "workload",
    Workload,
    "dynamo_planner.sla.workload",
    {"recent": "dynamo_planner.policies.sla.workload:RecentWorkload"},
    default="recent",
)

AnyWorkload = Annotated[SerializeAsAny[Workload], WORKLOADS.validator()]
"""A field that holds a workload of any kind: one that is built, or its data."""
