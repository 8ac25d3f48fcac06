"""A plain step in the load is answered once and rightly, whatever the window that it is reported in."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner import Planner, Sla, SlaPolicy
from dynamo_planner.policies.sla import EvenSplit
from dynamo_planner.simulator import ClusterSetup, SimulatedCluster
from dynamo_planner.sizing import Load, PercentileSizing
from dynamo_planner.workloads import Trace
from tests.support.sla_service import POLICY, PROFILE, Service


def need(rate: float) -> int:
    load = Load.of(rate, 1500, 250)
    return PercentileSizing(PROFILE).replicas_for(load, POLICY.sla, ("aggregated",))["aggregated"].replicas


@pytest.mark.parametrize("window_s", [None, 30.0, 10.0, 3.0])
def test_exact_rates_with_any_window_ask_for_at_most_half_as_much_again(window_s: float | None) -> None:
    """2, 40, then 4 requests/s, exact at each tick of 10 s, and reported as means over windows that they are not of."""
    service, most = Service(roles=("aggregated",)), 0
    for tick in range(200):
        rate = 2.0 if tick < 60 else 40.0 if tick < 120 else 4.0
        service.see(rate, window_s=window_s, isl=1500, osl=250, ttft_ms=60, pools={"aggregated": {"running": 2 * rate}})
        most = max(most, service.target("aggregated"))
        if tick == 119:
            assert service.target("aggregated") >= need(40)
    assert most <= 1.5 * need(40)
    assert service.target("aggregated") == need(4)


def test_a_fall_raises_nothing_in_windows_of_five_minutes() -> None:
    """10 and 14 requests/s by turns, then 40, then 5: what changes between long windows is no burstiness."""
    service = Service()
    for tick in range(160):
        rate = 10.0 + 4 * (tick // 30 % 2) if tick < 100 else 40.0 if tick < 130 else 5.0
        service.see(rate, window_s=300.0)
        if tick == 129:
            before = {role: service.target(role) for role in service.specs}
    for _ in range(200):
        service.see(5.0, window_s=300.0)
        assert all(service.target(role) <= before[role] for role in service.specs)


@pytest.mark.slow
def test_a_step_in_a_cluster_is_answered_once() -> None:
    """From 2 to 40 requests/s for 15 minutes: the overload of the first minute is learned from in nothing, so that no
    more than 1.3 times the count that keeps the share is asked for at any time, where what was missed is not made up
    for."""
    rng = np.random.default_rng(3)
    spans = ((0, 300, 2), (300, 1200, 40))
    times = np.concatenate([np.sort(rng.uniform(a, b, rng.poisson(rate * (b - a)))) for a, b, rate in spans])
    isl = np.clip(rng.lognormal(np.log(1200), 0.6, len(times)), 10, 12_000).astype(int)
    osl = np.clip(rng.lognormal(np.log(200), 0.6, len(times)), 1, 1500).astype(int)
    sla = Sla(ttft_ms=500, itl_ms=20)
    setup = ClusterSetup.aggregated(PROFILE, replicas=1, startup_s=60, max_replicas=64)
    cluster = SimulatedCluster(setup, Trace(times, isl, osl, name="step", duration_s=1200), seed=1, origin_s=1.8e9)
    policy = SlaPolicy(sla=sla, profile=PROFILE, attainment=EvenSplit())
    planner = Planner(policy, cluster.source, cluster.executor, clock=lambda: cluster.now_s)
    targets = []
    while cluster.elapsed_s < 1200:
        cluster.advance(10)
        targets.append(planner.step().decision.targets["workers"])
    assert max(targets) <= 1.3 * 5
    assert 4 <= targets[-1] <= 5
