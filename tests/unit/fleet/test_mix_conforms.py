"""MixPolicy keeps the laws of every policy, and a pool whose requests are all late is no endless search."""

from __future__ import annotations

import pytest

from dynamo_planner import PoolSpec, PoolStatus, Profile, Sla, Snapshot, Traffic
from dynamo_planner.conformance import check_policy
from dynamo_planner.core.decision import Decision
from dynamo_planner.fleet import MixPolicy, PoolHardware, rates_in_time
from dynamo_planner.sizing import Load, PercentileSizing
from tests.support.laws import scaled

PROFILE = Profile.bundled("llama31-70b_h100_vllm_tp4")
SLA = Sla(ttft_ms=1800, itl_ms=55)
HARDWARE = {"steady": PoolHardware(profile=PROFILE), "spot": PoolHardware(profile=PROFILE, spot=True, lost_per_h=0.5)}


@pytest.mark.slow  # a search
@pytest.mark.timeout(600)
def test_it_keeps_the_laws() -> None:
    specs = {
        "steady": PoolSpec(role="aggregated", gpus=4, startup_s=300, cost=10),
        "spot": PoolSpec(role="aggregated", gpus=4, startup_s=60, cost=4, max_replicas=6),
    }
    check_policy(MixPolicy(pools=HARDWARE, sla=SLA, on_demand=0.5), pools=specs, examples=scaled(4))


def decided(traffic: Traffic, sla: Sla = SLA) -> Decision:
    """On six replicas, after 40 requests/s of known lengths."""
    policy = MixPolicy(pools={"steady": HARDWARE["steady"]}, sla=sla)
    pools = {"steady": PoolStatus(spec=PoolSpec(role="aggregated", gpus=4), replicas=6)}
    first = policy.decide(
        Snapshot(at_s=0, traffic=Traffic(requests_per_s=40, window_s=30, isl=1000, osl=200), pools=pools)
    )
    return policy.decide(Snapshot(at_s=30, traffic=traffic, pools=pools), first.state)


def test_lengths_that_are_unknown_lower_no_pool() -> None:
    """Six replicas serve 50 requests/s in time, one 8."""
    assert decided(Traffic(requests_per_s=5, window_s=30, isl=1000, osl=200)).targets["steady"] < 6
    assert decided(Traffic(requests_per_s=5, window_s=30, isl=1000)).targets["steady"] == 6


def test_where_no_request_is_in_time_the_search_ends_and_the_pool_is_held() -> None:
    """No step of this model takes less than 5 ms."""
    tight = Sla(ttft_ms=1800, itl_ms=5)
    assert rates_in_time(PercentileSizing(PROFILE), Load.of(1.0, 1000, 200), tight, most=3) == (0.0, 0.0, 0.0, 0.0)
    decision = decided(Traffic(requests_per_s=5, window_s=30, isl=1000, osl=200), tight)
    assert not decision.targets
    assert "Unattainable" in decision.explain()
