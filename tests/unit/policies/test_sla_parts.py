"""The parts of SlaPolicy: each can be exchanged alone, from Python and from data, and keeps a state of its own."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import pytest

from dynamo_planner import ConfigError, Sla, SlaPolicy, Snapshot, State, load_policy
from dynamo_planner.forecasting import Forecaster, RateForecaster
from dynamo_planner.policies.sla import (
    Classic,
    EvenSplit,
    LearnedCapacity,
    ObservedStartup,
    Percentile,
    RecentWorkload,
    Sizing,
    SizingRequest,
    SkiRental,
)
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.attainment import PromiseEvidence
from dynamo_planner.sizing import Requirement
from tests.support.sla_service import POLICY, PROFILE, Service

DATA = {"kind": "sla", "sla": {"ttft_ms": 500, "itl_ms": 25}, "profile": PROFILE.name}


class Known(NamedTuple):
    """A rate that is known for certain."""

    mean: float

    def quantile(self, level: float) -> float:
        return self.mean


class LastValue(RateForecaster, kind="last_value"):
    """The rate stays what it was."""

    state_type = float

    def update(self, state: Any, at_s: float, rate_per_s: float | None, span_s: float) -> Any:
        return rate_per_s

    def forecast(self, state: Any, at_s: float, horizon_s: float, window_s: float | None = None) -> Known | None:
        return None if state is None else Known(state)


class PerReplica(Sizing, kind="per_replica"):
    """A replica for every so many requests per second."""

    requests_per_s: float = 4.0

    def required(self, request: SizingRequest) -> Requirement:
        load = request.load.arrivals.requests_per_s / self.requests_per_s
        return Requirement(request.role, load, math.ceil(load))


def test_a_forecaster_and_a_sizing_of_ones_own() -> None:
    """39 requests/s, which are 39.25 or so once rounded, need 10 replicas of 4 requests/s each, from the first look."""
    service = Service(POLICY.replace(forecaster=LastValue(), sizing=PerReplica()))
    service.see(39)
    assert (service.target("prefill"), service.target("decode")) == (10, 10)
    assert service.state is not None
    assert service.state.data.policy.data.forecaster == State(kind="last_value", version=1, data=39.0)


def test_parts_are_data_and_those_of_other_packages_are_found_where_that_is_allowed() -> None:
    own = {**DATA, "sizing": {"kind": f"{__name__}:PerReplica", "requests_per_s": 2}}
    policy = load_policy(own, allow_custom=True)
    assert isinstance(policy, SlaPolicy)
    assert policy.sizing == PerReplica(requests_per_s=2)
    assert load_policy(json.loads(policy.model_dump_json()), allow_custom=True) == policy
    with pytest.raises(ConfigError, match=r"sizing.kind: .*not allowed here"):
        load_policy(own)
    with pytest.raises(ConfigError, match=r"plan.quantil: unknown field, did you mean 'quantile'"):
        load_policy({**DATA, "plan": {"quantil": 0.5}})


def test_fields_that_moved_to_a_part_work_for_a_release_and_warn() -> None:
    old = {"method": "classic", "kv_transfer_ms": 7, "max_correction": 1, "quantile": 0.5, "drain_s": 9}
    with pytest.warns(DeprecationWarning, match=r"SlaPolicy.drain_s is deprecated .*: use plan: {drain_s: ...}"):
        policy = SlaPolicy.model_validate({**DATA, **old, "plan": SkiRental(restart_cost=1)})
    capacity, plan = LearnedCapacity(max_correction=1, offset_ms=7), SkiRental(quantile=0.5, drain_s=9, restart_cost=1)
    assert policy == POLICY.replace(sizing=Classic(), capacity=capacity, plan=plan)


def test_the_state_of_a_part_that_is_exchanged_is_reset_alone() -> None:
    service = Service()
    service.run(10, 600)
    service.run(60, 120)
    service.policy = POLICY.replace(forecaster=LastValue())
    service.see(60)
    assert [reason.code for reason in service.decision.reasons if reason.code == "StateReset"] == ["StateReset"]
    before, after = service.target("prefill"), service.see(10).targets["prefill"]
    assert after == before > 1  # the plan has not forgotten what was required


def test_each_part_has_its_default_kind() -> None:
    policy = load_policy({**DATA, "forecaster": {"horizons_s": [60]}, "startup": {}, "capacity": {"max_correction": 1}})
    assert policy == POLICY.replace(
        forecaster=Forecaster(horizons_s=(60.0,)), startup=ObservedStartup(), capacity=LearnedCapacity(max_correction=1)
    )


def test_an_even_split_halves_what_may_be_missed_between_two_roles() -> None:
    sla = Sla(ttft_ms=500, itl_ms=25, attainment=0.98)
    evidence = PromiseEvidence(Snapshot(at_s=0), sla, ArrivalWindow(0, 1, 30, 30), ())
    assert EvenSplit().ask(None, evidence)[0].by_role == {"prefill": 0.99, "decode": 0.99, "aggregated": 0.98}


def test_what_is_cached_changes_no_decision() -> None:
    """Sizes, loads and patterns are kept from tick to tick: a policy that has none of them decides the same."""
    warm, cold = Service(), Service()
    for tick in range(12):
        cold.policy = POLICY.replace(
            forecaster=Forecaster(), workload=RecentWorkload(), capacity=LearnedCapacity(), sizing=Percentile()
        )
        rate = 40.0 + 8 * (tick % 5)
        seen: dict[str, Any] = {"isl": 3000 * 1.02**tick, "ttft_ms": 300 + 5 * tick, "itl_ms": 15}
        assert warm.see(rate, **seen) == cold.see(rate, **seen), tick
