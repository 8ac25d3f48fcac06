"""Which constants are halved and doubled, and that a change reaches every module and part that has them."""

from __future__ import annotations

import pytest

from benchmarks.constants_worth import Constant, changed, constants, doubled, halved, ordered
from dynamo_planner import Sla, SlaPolicy
from dynamo_planner.forecasting import Forecaster, Step
from dynamo_planner.policies.sla.plan import SkiRental
from dynamo_planner.sizing import concurrency, decode

POLICY = SlaPolicy(sla=Sla(ttft_ms=500, itl_ms=25), profile=None)


def test_every_constant_of_these_rooms_has_a_half_and_a_double() -> None:
    found = constants()
    assert len(found) > 150
    for constant in found:
        assert (halved(constant.value), doubled(constant.value)) != (constant.value, constant.value), constant.title


def test_patterns_choose_and_order() -> None:
    titles = [constant.title for constant in ordered("*:SURGE_Z|*/plan:SkiRental.*")]
    assert titles[0] == "policies/sla/burstiness:SURGE_Z"
    assert titles[1:] == [f"policies/sla/plan:SkiRental.{field}" for field in ("quantile", "drain_s", "restart_cost")]


def test_a_change_reaches_the_copies_of_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "CLASSES", concurrency.CLASSES)  # undone afterwards
    monkeypatch.setattr(decode, "CLASSES", concurrency.CLASSES)
    assert changed(POLICY, Constant("CLASSES", "sizing/concurrency"), 8) is POLICY
    assert (concurrency.CLASSES, decode.__dict__["CLASSES"]) == (8, 8)


def test_a_change_of_a_default_reaches_the_part_that_has_it() -> None:
    plan = changed(POLICY, Constant("SkiRental.quantile", "policies/sla/plan"), 0.45)
    assert isinstance(plan, SlaPolicy) and isinstance(plan.plan, SkiRental) and plan.plan.quantile == 0.45
    slack = changed(POLICY, Constant("Step.slack", "forecasting/experts/step"), 1.5)
    assert isinstance(slack, SlaPolicy) and isinstance(slack.forecaster, Forecaster)
    assert [expert.slack for expert in slack.forecaster.experts if isinstance(expert, Step)] == [1.5]
    level = changed(POLICY, Constant("SlaPolicy.level_s", "policies/sla/policy"), 30.0)
    assert isinstance(level, SlaPolicy) and level == POLICY.replace(level_s=30.0)


def test_what_becomes_a_default_at_import_is_known() -> None:
    assert Constant("IGNORED_LOG", "policies/sla/correction").is_read_at_import
    assert not Constant("SURGE_Z", "policies/sla/burstiness").is_read_at_import
