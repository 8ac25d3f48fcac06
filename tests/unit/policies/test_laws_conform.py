"""The laws of other systems keep ours, with the guards that belong to them and without."""

from __future__ import annotations

from typing import Any

import pytest

import dynamo_planner
from dynamo_planner import (
    HpaLaw,
    KedaSloLaw,
    KpaLaw,
    LlmdQueueLaw,
    LlmdTokensLaw,
    Policy,
    RayServeLaw,
    Schedule,
    Sla,
    Stabilization,
    StaticLaw,
    StepLimit,
    WvaLaw,
    load_policy,
    policies,
)
from dynamo_planner.conformance import check_policy
from dynamo_planner.policies import laws
from dynamo_planner.policies.laws.hpa import HpaMetric
from dynamo_planner.policies.registry import POLICIES
from tests.support.laws import scaled

SLA = Sla(ttft_ms=2000, itl_ms=50)
RATE = (HpaMetric(name="requests_per_s", target=5), HpaMetric(name="requests", target=8))
LAWS: dict[str, Policy] = {
    "schedule": Schedule(plan={"workers": ((0, 1), (60, 4)), "prefill": ((0, 2),)}, every_s=90),
    "static": StaticLaw(replicas={"workers": 3, "prefill": 2}),
    "hpa": HpaLaw() | Stabilization() | StepLimit(),
    "hpa_rate": HpaLaw(prefill=RATE, decode=RATE, aggregated=RATE),
    "kpa": KpaLaw(),
    "ray_serve": RayServeLaw(),
    "keda_slo": KedaSloLaw(sla=SLA)
    | Stabilization(up_window_s=30, down_window_s=180)
    | StepLimit(period_s=60)
    | StepLimit(up_replicas=None, up_factor=None, down_replicas=1, period_s=120),
    "keda_slo_alone": KedaSloLaw(sla=SLA),
    "llmd_queue": LlmdQueueLaw(),
    "llmd_tokens": LlmdTokensLaw(prefill_tokens_per_s=16_000),
    "wva": WvaLaw(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_the_laws_keep_the_laws(name: str) -> None:
    check_policy(LAWS[name], examples=scaled(8))


def test_no_law_is_left_out() -> None:
    shipped = {kind for kind, each in POLICIES.items() if each.__module__.startswith(f"{laws.__name__}.")}
    assert shipped <= LAWS.keys()


@pytest.mark.parametrize("name", LAWS)
def test_each_is_data(name: str) -> None:
    assert load_policy(LAWS[name].model_dump(mode="json")) == LAWS[name]


def test_each_can_be_imported_from_the_package_and_from_the_room() -> None:
    for name in policies.__all__:
        exported: Any = getattr(policies, name)
        if issubclass(exported, Policy):
            assert getattr(dynamo_planner, name) is exported
    with pytest.raises(AttributeError, match="NoLaw"):
        getattr(policies, "NoLaw")  # noqa: B009
