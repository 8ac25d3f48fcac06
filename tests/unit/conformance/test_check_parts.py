"""check_forecaster and check_capacity: ours keep the laws, and each law is broken by something that is wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from dynamo_planner.conformance import ConformanceError, check_capacity, check_forecaster
from dynamo_planner.forecasting import Forecaster, RateForecaster
from dynamo_planner.policies.sla import LearnedCapacity, StepModelCapacity
from dynamo_planner.policies.sla.capacity import EngineEstimate, EngineEvidence
from dynamo_planner.policies.sla.learned_capacity import EngineMemory
from dynamo_planner.policies.sla.tick import Tick
from dynamo_planner.profiles import Profile


class Spread(NamedTuple):
    mean: float
    width: float = 0.2

    def quantile(self, level: float) -> float:
        return self.mean * (1 + self.width * (level - 0.5))


class LastValue(RateForecaster):
    state_type = float
    width: float = 0.2
    factor: float = 1.0

    def update(self, state: Any, at_s: float, rate_per_s: float | None, span_s: float) -> Any:
        return state if rate_per_s is None else rate_per_s

    def forecast(self, state: Any, at_s: float, horizon_s: float, window_s: float | None = None) -> Spread | None:
        return None if state is None else Spread(self.factor * state, self.width)


class Forgetful(LastValue):
    def update(self, state: Any, at_s: float, rate_per_s: float | None, span_s: float) -> Any:
        return rate_per_s


class Endless(LastValue):
    state_type = tuple[float, ...]

    def update(self, state: Any, at_s: float, rate_per_s: float | None, span_s: float) -> Any:
        return state if rate_per_s is None else (*(state or ()), *[rate_per_s] * 20)

    def forecast(self, state: Any, at_s: float, horizon_s: float, window_s: float | None = None) -> Spread | None:
        return None if state is None else Spread(state[-1])


def test_the_ensemble_keeps_the_laws_of_forecasters() -> None:
    check_forecaster(Forecaster())
    check_forecaster(LastValue())


@pytest.mark.parametrize(
    ("law", "forecaster"),
    [
        ("quantiles", LastValue(width=-0.1)),
        ("constant", LastValue(factor=1.5)),
        ("missing", Forgetful()),
        ("state-size", Endless()),
    ],
)
def test_a_wrong_forecaster_is_found_out(law: str, forecaster: RateForecaster) -> None:
    with pytest.raises(ConformanceError) as broken:
        check_forecaster(forecaster)
    assert broken.value.law == law


class NoOffset(LearnedCapacity):
    def estimate(
        self, state: EngineMemory | None, tick: Tick, queued: float | None, profile: Profile
    ) -> EngineEstimate:
        return super().estimate(state, tick, queued, profile)._replace(offset_ms=5.0)


class AnyProfile(LearnedCapacity):
    def estimate(
        self, state: EngineMemory | None, tick: Tick, queued: float | None, profile: Profile
    ) -> EngineEstimate:
        return super().estimate(state and state._replace(profile=profile.digest), tick, queued, profile)


class LearnsOfQueues(LearnedCapacity):
    def learn(self, state: EngineMemory | None, evidence: EngineEvidence) -> EngineMemory:
        own = super().learn(state, evidence)
        late = (evidence.queued or 0) > 100
        return own._replace(speed=own.speed.with_sample(2.0, 1.0, 100, 30.0)) if late else own


@pytest.mark.slow
def test_what_is_learned_keeps_the_laws_of_capacities() -> None:
    check_capacity(LearnedCapacity())
    check_capacity(StepModelCapacity())


@pytest.mark.parametrize(
    ("law", "capacity"),
    [
        ("speed", LearnedCapacity(max_correction=1.2)),
        ("offset", NoOffset()),
        ("other-profile", AnyProfile()),
        ("overload", LearnsOfQueues()),
    ],
)
def test_a_wrong_capacity_is_found_out(law: str, capacity: LearnedCapacity) -> None:
    with pytest.raises(ConformanceError) as broken:
        check_capacity(capacity)
    assert broken.value.law == law
