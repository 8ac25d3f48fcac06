"""SlaPolicy: at this time, with these metrics, expect this."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from dynamo_planner import (
    Dist,
    GpuBudget,
    LoadPolicy,
    PoolSpec,
    Sla,
    SlaPolicy,
    Snapshot,
    highest,
    load_policy,
)
from dynamo_planner.conformance.strategies import snapshots
from dynamo_planner.forecasting import Forecaster
from dynamo_planner.policies.sla import Classic
from tests.support.laws import examples
from tests.support.sla_service import POLICY, PROFILE, STARTUP_S, TICK_S, Service


def test_it_sizes_both_roles_for_the_load_and_says_why() -> None:
    service = Service()
    service.run(40, 300)
    prefill, decode = service.target("prefill"), service.target("decode")
    assert prefill >= 3
    assert decode >= 2
    assert {"DemandForecast", "Sized"} <= set(service.codes("prefill"))
    assert "s ahead, when a start would be ready (expected=40" in service.decision.explain()


def test_a_higher_load_gets_more() -> None:
    few, many = Service(), Service()
    few.run(10, 300)
    many.run(80, 300)
    assert few.target("prefill") < many.target("prefill")
    assert few.target("decode") < many.target("decode")


def test_a_rise_is_answered_at_once_and_a_fall_after_what_a_start_costs() -> None:
    """What 80 requests/s used stays for 4 start-up times; what was planned for beyond that goes after one."""
    service = Service()
    service.run(10, 300)
    low = service.target("prefill")
    service.run(80, 120)
    high = service.target("prefill")
    assert high > low
    service.run(10, 4 * STARTUP_S - 2 * TICK_S)
    assert low < service.target("prefill") <= high
    service.run(10, 120)
    assert service.target("prefill") < high
    service.run(10, 900)
    assert service.target("prefill") <= low + 1


def test_a_ramp_is_planned_for_when_a_start_is_ready() -> None:
    """Rising by 0.1 requests/s each second, it plans for more than there is now, and expects no less."""
    service = Service()
    rate = 10.0
    for _ in range(60):
        rate += 0.1 * TICK_S
        service.see(rate)
    forecast = next(reason for reason in service.decision.reasons if reason.code == "DemandForecast")
    planned = forecast.values["planned"]
    assert isinstance(planned, float)
    assert planned > rate


def test_a_step_up_is_planned_for_at_once_whatever_experience_says() -> None:
    service = Service()
    service.run(10, 3600)
    service.run(60, 60)
    forecast = next(reason for reason in service.decision.reasons if reason.code == "DemandForecast")
    assert forecast.values["planned"] >= 60 * 0.99  # type: ignore[operator]


def test_starts_that_take_longer_are_learned_and_planned_with() -> None:
    service = Service()
    service.starts_take_s = 200.0
    for rate in (5, 20, 40, 60, 80, 100):
        service.run(rate, 300)
    learned = [reason for reason in service.decision.reasons if reason.code == "StartupLearned"]
    assert learned
    assert "not 60 s" in learned[0].message
    lead_s = next(reason.values["lead_s"] for reason in service.decision.reasons if reason.code == "DemandForecast")
    assert isinstance(lead_s, float)
    assert 150 < lead_s < 260


def test_a_backlog_is_drained_and_what_is_coming_counts() -> None:
    calm, behind = Service(prefill=2, decode=3), Service(prefill=2, decode=3)
    calm.run(15, 100)
    behind.run(15, 90)
    behind.see(15, pools={"prefill": {"queued": 3000}})
    assert behind.target("prefill") > calm.target("prefill")
    assert "BacklogDrained" in behind.codes("prefill")
    wanted = behind.target("prefill")
    behind.see(15, pools={"prefill": {"queued": 3000}})
    assert behind.target("prefill") <= wanted + 1


def test_a_backlog_does_not_ask_for_more_and_more_of_what_cannot_start() -> None:
    """60 requests/s need 7; two replicas serve 9 each, no start ever ends, and after 15 minutes 36,000 wait.

    9 were required when the first start was overdue; a quarter more are requested for what does not start: 12.
    """
    service, queued = Service(prefill=2, decode=6), 0.0
    service.run(20, 300)
    service.starts_take_s = 1e9
    for _ in range(90):
        queued += (60 - 9 * service.ready["prefill"]) * TICK_S
        service.see(60, pools={"prefill": {"queued": queued}})
    assert 9 <= service.target("prefill") <= 12
    assert {"BacklogDrained", "ReplicasLost"} <= set(service.codes("prefill"))


def test_a_backlog_in_front_of_decode_is_drained_too() -> None:
    service = Service(prefill=2, decode=2)
    service.run(15, 90)
    before = service.target("decode")
    service.see(15, pools={"decode": {"queued": 20_000}})
    assert service.target("decode") > before


def test_replicas_that_sleep_are_no_capacity_and_have_no_queue() -> None:
    """One of 4 sleeps: what waits at the other 3 is all, and one more is requested for it, as for a failed one."""
    awake, asleep = Service(prefill=8, decode=4), Service(prefill=8, decode=4)
    awake.see(80, pools={"decode": {"queued": 9000, "coverage": 1.0}})
    asleep.see(80, pools={"decode": {"queued": 9000, "coverage": 0.75, "asleep": 1}})
    (backlog,) = (
        reason for reason in asleep.decision.reasons if (reason.code, reason.pool) == ("BacklogDrained", "decode")
    )
    assert backlog.values["queued"] == 9000
    assert "0 starts take too long and 1 replicas failed or sleep" in asleep.decision.explain()
    assert asleep.target("decode") > awake.target("decode")


def test_idle_goes_to_the_minimum_and_an_idle_start_too() -> None:
    service = Service(prefill=3, decode=3)
    service.run(0, 600)
    assert (service.target("prefill"), service.target("decode")) == (1, 1)
    assert "Idle" in service.codes("prefill")


def test_to_zero_and_back() -> None:
    service = Service(prefill=1, decode=1)
    service.specs = {role: spec.replace(min_replicas=0) for role, spec in service.specs.items()}
    service.run(5, 100)
    service.run(0, 3000)
    assert (service.target("prefill"), service.target("decode")) == (0, 0)
    service.see(2)
    assert service.target("prefill") >= 1
    assert service.target("decode") >= 1


@pytest.mark.parametrize("lost", ["requests_per_s", "isl", "osl"])
def test_what_is_unknown_lowers_nothing(lost: str) -> None:
    service = Service(prefill=9, decode=9)
    service.run(5, 60)
    for _ in range(60):
        rate = None if lost == "requests_per_s" else 5.0
        service.see(rate, isl=None if lost == "isl" else 3000, osl=None if lost == "osl" else 250)
    assert (service.target("prefill"), service.target("decode")) == (9, 9)
    assert "MetricUnknown" in service.codes("prefill")


def test_a_rate_that_is_a_lower_bound_raises_and_does_not_lower() -> None:
    service = Service(prefill=9, decode=1)
    service.run(40, 60)
    for _ in range(60):
        service.see(40, missing={"traffic.requests_per_s.at_least": "clients give up"})
    assert service.target("prefill") == 9
    assert service.target("decode") > 1
    assert "not lowered: traffic.requests_per_s is a lower bound: clients give up" in service.decision.explain()


def test_lengths_that_are_unknown_do_not_keep_a_pool_from_being_raised() -> None:
    service = Service()
    service.run(5, 100)
    before = service.target("prefill")
    for _ in range(30):
        service.see(80, isl=None, osl=None)
    assert service.target("prefill") > before
    assert "MetricUnknown" not in service.codes("prefill")  # that says why a pool is not lowered


def test_a_queue_that_was_seen_and_is_not_any_more_lowers_nothing() -> None:
    service = Service(prefill=9, decode=9)
    service.run(5, 100)
    for _ in range(60):
        service.see(5, pools={"prefill": {"queued": None}})
    assert service.target("prefill") == 9
    assert service.target("decode") < 9


def test_stale_traffic_holds() -> None:
    service = Service(prefill=4, decode=4)
    service.run(5, 50)
    service.see(5, observed_at_s=service.at_s - 1000)
    assert dict(service.decision.targets) == {}
    assert "traffic is 1000 s old" in service.decision.explain()


def test_without_its_state_nothing_falls_suddenly() -> None:
    service = Service(prefill=9, decode=9)
    for _ in range(5):
        service.state = None
        service.see(5)
    assert (service.target("prefill"), service.target("decode")) == (9, 9)


def test_a_window_that_overlaps_is_not_counted_twice() -> None:
    """Ten ticks of the same 60 s window say no more of how bursty arrivals are than one does."""
    service = Service()
    for _ in range(10):
        service.see(20, window_s=600.0)
    data = json.loads(service.state.model_dump_json()) if service.state else {}
    slots = data["data"]["policy"]["data"]["workload"]["data"]["slots"]
    assert slots[4] <= 1


def test_prompts_that_can_never_be_in_time_are_told_and_not_paid_for() -> None:
    spread = Dist(mean=20_000, cv2=3.0)
    service, usual = Service(), Service()
    service.run(2, 300, isl=spread)
    usual.run(2, 300, isl=Dist(mean=20_000, cv2=0.01))
    assert "Unattainable" in service.codes("prefill")
    assert service.target("prefill") <= 4 * usual.target("prefill")


def test_cached_prompts_need_no_prefill() -> None:
    cold, warm = Service(), Service()
    cold.run(80, 300)
    warm.run(80, 300, prefix_hit_rate=0.8)
    assert warm.target("prefill") < cold.target("prefill")
    assert warm.target("decode") == cold.target("decode")


def test_an_aggregated_pool_is_sized_too() -> None:
    service = Service(roles=("aggregated",))
    service.run(40, 300)
    assert service.target("aggregated") >= 3


def test_a_profile_without_mixed_steps_holds_an_aggregated_pool_and_says_so() -> None:
    plain = PROFILE.replace(mixed_points=None)
    service = Service(POLICY.replace(profile=plain), roles=("aggregated",))
    service.see(40)
    assert dict(service.decision.targets) == {}
    assert "mixed_points" in service.decision.explain()


def test_a_predictive_floor_under_a_reactive_policy() -> None:
    """highest: SlaPolicy alone would leave 1, and KV usage asks for more; and the other way round."""
    reactive = LoadPolicy(adjustment_interval_s=TICK_S)
    service = Service(highest(POLICY, reactive), prefill=2, decode=2)
    for _ in range(30):
        service.see(2, pools={"decode": {"kv_usage": 0.97, "running": 30}, "prefill": {"running": 0}})
    assert service.target("decode") > 2
    service = Service(highest(POLICY, reactive), prefill=1, decode=1)
    for _ in range(30):
        service.see(80, pools={"decode": {"kv_usage": 0.6, "running": 30}, "prefill": {"running": 0}})
    assert service.target("prefill") >= 5


def test_the_classic_method_sizes_for_means() -> None:
    service = Service(POLICY.replace(sizing=Classic()))
    service.run(40, 300)
    percentile = Service()
    percentile.run(40, 300)
    assert 1 < service.target("prefill") <= percentile.target("prefill")


def test_it_is_data() -> None:
    policy = load_policy({"kind": "sla", "sla": {"ttft_ms": 500, "itl_ms": 25}, "profile": PROFILE.name})
    assert policy == POLICY
    assert load_policy(json.loads(POLICY.model_dump_json())) == POLICY


def test_budget_is_shared_by_need() -> None:
    """10 prefill replicas of 8 GPUs and 1 decode replica of 1 GPU under 40 GPUs: decode is not raised for it."""
    policy = SlaPolicy(sla=Sla(ttft_ms=500, itl_ms=25), profile=PROFILE) | GpuBudget(max_gpus=40)
    service = Service(policy, prefill=4, decode=1)
    service.specs["prefill"] = PoolSpec(role="prefill", gpus=8, startup_s=STARTUP_S)
    service.run(110, 300, osl=20)
    assert 8 * service.target("prefill") + service.target("decode") <= 40
    wanted = Service(prefill=4, decode=1)
    wanted.run(110, 300, osl=20)
    assert service.target("decode") <= wanted.target("decode")


GUARDED = POLICY.replace(forecaster=Forecaster(horizons_s=(60.0,))) | GpuBudget(max_gpus=24)


@examples(60, derandomize=True)
@given(snapshots("disaggregated"))
def test_whatever_is_seen_the_decision_is_within_bounds_and_explained(snapshot: Snapshot) -> None:
    decision = GUARDED.decide(snapshot)
    explained = {reason.pool for reason in decision.reasons}
    for name, pool in snapshot.pools.items():
        target = decision.targets.get(name)
        assert target is not None or name in explained
        if target is not None:
            assert pool.spec.min_replicas <= target <= (pool.spec.max_replicas or target)
