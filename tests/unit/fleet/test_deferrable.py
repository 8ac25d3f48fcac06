"""Interactive and deferrable requests on one pool: what is released, and which replicas deadlines take."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner import Deferred, PoolSpec, PoolStatus, Profile, Replicas, Sla, Snapshot, StaticLaw, Traffic
from dynamo_planner.conformance import check_policy
from dynamo_planner.core.decision import Decision
from dynamo_planner.evaluation import deferrable_backtest
from dynamo_planner.fleet import DeferrablePolicy, deferrable
from dynamo_planner.simulator.cluster import ClusterSetup, SimulatedCluster
from dynamo_planner.simulator.gateway import Job, SimulatedGateway
from dynamo_planner.sizing import Load
from dynamo_planner.workloads.generators import poisson
from dynamo_planner.workloads.trace import Trace

PROFILE = Profile.bundled("llama31-8b_h100_vllm_tp1")
SLA = Sla(ttft_ms=500, itl_ms=25)
INTERACTIVE, BATCH = 10.0, 5.0
"""Requests per second of a replica in these tests, of prompts of 1,000 tokens and of others."""


@pytest.fixture
def _rates(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_time(_: object, load: Load, *__: object) -> tuple[float, ...]:
        each = INTERACTIVE if round(load.isl.mean, -2) == 1000 else BATCH
        return tuple(each * count for count in range(9))

    monkeypatch.setattr(deferrable, "rates_in_time", in_time)


def policy(replicas: int, **more: object) -> DeferrablePolicy:
    own = {"policy": StaticLaw(replicas={"workers": replicas}), "classes": ("batch",), "sla": SLA, "profile": PROFILE}
    return DeferrablePolicy.model_validate({**own, **more})


def decide(own: DeferrablePolicy, rate: float | None, replicas: int | Replicas, **classes: Deferred | None) -> Decision:
    spec = PoolSpec(role="aggregated", startup_s=100, min_replicas=0)
    traffic = Traffic(requests_per_s=rate, window_s=60, isl=1000, osl=200)
    known = {name: each for name, each in classes.items() if each is not None}
    pools = {"workers": PoolStatus(spec=spec, replicas=replicas)}
    return own.decide(Snapshot(at_s=0, traffic=traffic, pools=pools, deferred=known))


def waiting(due: dict[float, float], **more: float) -> Deferred:
    return Deferred(due=due, isl=3000, osl=300, running=0, observed_at_s=0, **more)


@pytest.mark.usefixtures("_rates")
def test_what_is_idle_is_filled_and_what_is_not_stays_for_the_interactive() -> None:
    """26 of 40 requests/s are 0.65 of four replicas; a reserve of 0.1 leaves 0.25, which is 5 of 20 requests/s. The
    rate is rounded in steps of 4 %."""
    free = decide(policy(4), 26.0, 4, batch=waiting({1e6: 6000.0})).release_rates["batch"]
    assert free == pytest.approx(5.0, abs=0.5)
    assert decide(policy(4), 39.0, 4, batch=waiting({1e6: 6000.0})).release_rates == {"batch": 0.0}
    short = decide(policy(4), 26.0, Replicas(ready=3, target=3), batch=waiting({1e6: 6000.0}))
    assert short.release_rates["batch"] == pytest.approx(0.9 * 15 - 26 / 2, abs=0.5)
    assert decide(policy(4), 0.0, 4, batch=waiting({1e6: 60.0})).release_rates == {"batch": 1.0}


@pytest.mark.usefixtures("_rates")
def test_replicas_are_added_only_where_a_deadline_would_be_missed() -> None:
    """Four replicas have about a quarter free. 24,000 requests take 24,000 / 20 = 1,200 s of all of them: with 10,000 s
    left it is 0.12, with 1,100 s after a start it is 1.09. n replicas have 0.9 - 2.6 / n free and need 4.36 / n: 8."""
    assert decide(policy(4), 26.0, 4, batch=waiting({10_100.0: 24_000.0})).targets["workers"] == 4
    assert decide(policy(4), 26.0, 4, batch=waiting({1200.0: 24_000.0})).targets["workers"] == 8
    overdue = decide(policy(4), 26.0, 4, batch=waiting({-50.0: 12_000.0}))  # 2,400 s of one replica in 600 s
    assert overdue.targets["workers"] == 8


@pytest.mark.usefixtures("_rates")
def test_the_class_with_the_soonest_deadline_goes_first() -> None:
    """About 5 requests/s are free: 120 requests take 2 of them for a minute, and the other class gets the rest."""
    both = {"batch": waiting({9e5: 6000.0}), "soon": waiting({1e5: 120.0})}
    rates = decide(policy(4, classes=("batch", "soon")), 26.0, 4, **both).release_rates
    assert rates["soon"] == 2.0
    assert rates["batch"] == pytest.approx(3.0, abs=0.5)


@pytest.mark.usefixtures("_rates")
def test_what_is_unknown_lowers_no_pool_and_releases_nothing() -> None:
    assert decide(policy(2), 26.0, 4, batch=waiting({1e6: 60.0})).targets["workers"] < 4
    unknown = decide(policy(2), 26.0, 4, batch=None)
    assert unknown.targets["workers"] == 4
    assert unknown.release_rates == {}
    blind = decide(policy(2), None, 4, batch=waiting({1e6: 60.0}))
    assert (blind.targets["workers"], blind.release_rates) == (4, {})


@pytest.mark.slow  # a search
@pytest.mark.timeout(600)
def test_it_keeps_the_laws() -> None:
    check_policy(policy(3), modes="aggregated", examples=4)


@pytest.mark.parametrize("compiled", [False, True])
def test_requests_that_are_sent_later_are_served_as_if_they_had_been_in_the_trace(*, compiled: bool) -> None:
    setup = ClusterSetup.aggregated(PROFILE, replicas=2, startup_s=30)
    trace = poisson(5, 60, seed=1)
    more = Trace(np.array([30.5, 30.6, 41.0]), np.array([900, 80, 700]), np.array([50, 60, 70]))
    late = SimulatedCluster(setup, trace, compiled=compiled)
    late.advance_to(30)
    places = late.send(more)
    whole = Trace(
        np.concatenate([trace.arrival_s, more.arrival_s]),
        np.concatenate([trace.isl, more.isl]),
        np.concatenate([trace.osl, more.osl]),
    )
    known = SimulatedCluster(setup, whole, compiled=compiled)
    for cluster in (late, known):
        cluster.finish()
    assert late.served().osl[places].tolist() == [50, 60, 70]
    assert np.array_equal(late.served().finished_s, known.served().finished_s)
    with pytest.raises(ValueError, match="arrive after"):
        late.send(more)


def test_the_gateway_shows_the_interactive_requests_apart() -> None:
    setup = ClusterSetup.aggregated(PROFILE, replicas=2, startup_s=30)
    cluster = SimulatedCluster(setup, poisson(5, 60, seed=1))
    gateway = SimulatedGateway(cluster, {"batch": [Job(0, 50, [3000] * 20, [100] * 20)]})
    cluster.advance_to(10)
    assert gateway.release({"batch": 1.0}, 10) == 10
    cluster.advance_to(20)
    seen = gateway.observe(20)
    assert seen.traffic.isl is not None
    assert seen.traffic.isl.mean < 2000
    assert dict(seen.deferred["batch"].due) == {50.0: 10.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rates", "message"),
    [({"batch": -2.0}, "at least 0, got -2"), ({"batch": np.nan}, "got nan"), ({"bulk": 1.0}, "there are batch")],
)
def test_the_gateway_refuses_what_it_cannot_send(rates: dict[str, float], message: str) -> None:
    cluster = SimulatedCluster(
        ClusterSetup.aggregated(PROFILE, replicas=1, startup_s=30), poisson(1, 10, seed=1), compiled=False
    )
    gateway = SimulatedGateway(cluster, {"batch": [Job(0.0, 60.0, isl=[500], osl=[100])]})
    with pytest.raises(ValueError, match=message):
        gateway.release(rates, seconds=10)
    with pytest.raises(ValueError, match="2 isl and 1 osl"):
        SimulatedGateway(cluster, {"batch": [Job(0.0, 60.0, isl=[500, 500], osl=[100])]})


def test_a_batch_rides_on_what_a_chat_leaves_idle() -> None:
    """Two replicas of 10 requests/s in time each, with 4 requests/s of chat."""
    chat = poisson(4, 600, seed=1)
    cluster = ClusterSetup.aggregated(PROFILE, replicas=2, startup_s=30)
    batch = Job(0, 600, [1000] * 1500, [150] * 1500)
    run = deferrable_backtest(policy(2), chat, {"batch": [batch]}, cluster)
    assert run.interactive.attainment(SLA) >= SLA.attainment
    assert run.late == {"batch": 0}
    assert run.gpu_hours == pytest.approx(2 / 6, rel=0.01)
