"""What all pools of a tick share: what is expected of the arrivals, and what the requests are like."""

from __future__ import annotations

from functools import cached_property

from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.forecasting import Forecast, Forecaster
from dynamo_planner.policies.sla.burstiness import Pattern, pattern, recent_rate
from dynamo_planner.policies.sla.demand import Demand, demand
from dynamo_planner.policies.sla.state import ServiceMemory
from dynamo_planner.policies.sla.workload import rounded
from dynamo_planner.sizing import Lengths, Load
from dynamo_planner.sizing.decode import context_in_flight

RATE_STEP = 0.02
"""What is needed is worked out for rates in steps of this share, so that it serves for many ticks."""


class Outlook:
    """What is expected after a snapshot by what is remembered of the service; each thing is worked out once."""

    def __init__(
        self, memory: ServiceMemory, snapshot: Snapshot, forecaster: Forecaster, level_s: float, quantile: float
    ) -> None:
        self._memory, self._snapshot = memory, snapshot
        self._forecaster, self._level_s, self._quantile = forecaster, level_s, quantile
        self.hit_rate = round(memory.hit_rate or 0.0, 2)
        self._demands: dict[float, Demand] = {}

    def demand(self, lead_s: float) -> Demand:
        """What is asked of the service now, and by the time that a start would be ready."""
        if lead_s not in self._demands:
            then = self._forecast(lead_s)
            self._demands[lead_s] = demand(self._now, then, self._recent, lead_s, self._level_s, self._quantile)
        return self._demands[lead_s]

    def load(self, requests_per_s: float, kv_transfer_ms: float) -> Load:
        """Requests like those of late at about this rate. Raises ``ValueError`` where no lengths were seen."""
        if self.isl is None or self.osl is None:
            raise ValueError("no lengths were seen")
        return Load(
            self._pattern.at(rounded(requests_per_s, RATE_STEP)), self.isl, self.osl, self.hit_rate, kv_transfer_ms
        )

    @cached_property
    def isl(self) -> Lengths | None:
        """The lengths of prompts to size for."""
        return None if self._memory.isl is None else self._memory.isl.lengths()

    @cached_property
    def osl(self) -> Lengths | None:
        """The lengths of answers to size for."""
        return None if self._memory.osl is None else self._memory.osl.lengths()

    @cached_property
    def context(self) -> float:
        """Tokens that a request in flight attends to on average; 0 where no lengths were seen."""
        return 0.0 if self.isl is None or self.osl is None else context_in_flight(self.isl, self.osl)[0]

    @cached_property
    def _pattern(self) -> Pattern:
        return pattern(self._memory.slots, self._level_s, self._snapshot.traffic.arrival_dispersion)

    @cached_property
    def _now(self) -> Forecast | None:
        return self._forecast(0.0)

    @cached_property
    def _recent(self) -> float:
        return max(recent_rate(self._memory.slots, self._level_s), self._memory.surge)

    def _forecast(self, horizon_s: float) -> Forecast | None:
        return self._forecaster.forecast(self._memory.rate, self._snapshot.at_s, horizon_s, self._level_s)
