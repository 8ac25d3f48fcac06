"""The laws of other systems against tables that were worked out by hand from their published formulas."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo_planner import (
    Dist,
    HpaLaw,
    KedaSloLaw,
    KpaLaw,
    Policy,
    PoolSpec,
    PoolStatus,
    RayServeLaw,
    Replicas,
    Sla,
    Snapshot,
    StaticLaw,
    Traffic,
    Want,
    WvaLaw,
)
from dynamo_planner.policies.laws.hpa import HpaMetric
from tests.support.timeline import Timeline

SPEC = PoolSpec(role="aggregated", min_replicas=0)


def pool(replicas: Any, **more: Any) -> PoolStatus:
    return PoolStatus(spec=SPEC, replicas=replicas, **more)


def busy(replicas: int, running: float) -> dict[str, PoolStatus]:
    return {"workers": pool(replicas, queued=0, running=running)}


def wanted(policy: Policy, status: PoolStatus, traffic: Traffic | None = None) -> int | None:
    snapshot = Snapshot(at_s=0, traffic=traffic or Traffic(requests_per_s=5), pools={"workers": status})
    return policy.decide(snapshot).targets.get("workers")


def test_static_names_some_pools_and_leaves_the_others() -> None:
    decision = StaticLaw(replicas={"workers": 7, "other": 2}).decide(Snapshot(at_s=0, pools={"workers": pool(1)}))
    assert decision.targets == {"workers": 7}
    assert wanted(StaticLaw(replicas={"other": 2}), pool(1)) is None


# HPA: by hand from replica_calculator.go. The target is 0.5 of KV usage.

HPA = HpaLaw(aggregated=(HpaMetric(name="kv_usage", target=0.5),))


@pytest.mark.parametrize(
    ("replicas", "kv_usage", "coverage", "want"),
    [
        (4, 0.5, 1.0, 4),
        (4, 0.549, 1.0, 4),  # ratio 1.098, just tolerated
        (4, 0.56, 1.0, 5),  # 1.12 * 4 = 4.48
        (4, 0.44, 1.0, 4),  # 0.88 * 4 = 3.52
        (4, 0.37, 1.0, 3),  # 0.74 * 4 = 2.96
        (4, 0.0, 1.0, 1),  # to zero never
        (4, 1.0, 1.0, 8),
        # two of four not seen: scaling down they count as at their target: (2 * 0.4 + 2) / 4 = 0.7, 2.8
        (4, 0.2, 0.5, 3),
        # scaling up as nothing: 2 * 1.4 / 4 = 0.7 turns the direction
        (4, 0.7, 0.5, 4),
        (4, 1.0, 0.5, 4),  # 2 * 2 / 4 = 1
        # two ready and two starting: 2 * 1.8 / 4 = 0.9, within the tolerance
        (Replicas(ready=2, starting=2), 0.9, 1.0, 4),
        (Replicas(ready=3, starting=1), 0.9, 1.0, 6),  # 3 * 1.8 / 4 = 1.35, * 4 = 5.4
        # scaling down looks at ready ones alone: 0.4 * 2 = 0.8
        (Replicas(ready=2, starting=2), 0.2, 1.0, 1),
        (Replicas(ready=0, starting=2), 0.2, 1.0, None),
        (0, 0.0, 1.0, None),  # scaled to zero: an HPA is off
    ],
)
def test_hpa_per_replica(replicas: Any, kv_usage: float, coverage: float, want: int | None) -> None:
    assert wanted(HPA, pool(replicas, kv_usage=kv_usage, coverage=coverage)) == want


@pytest.mark.parametrize(
    ("replicas", "rate", "want"),
    [
        (4, 20.0, 4),
        (4, 21.9, 4),  # 21.9 / 20 = 1.095
        (4, 22.1, 5),  # ceil(22.1 / 5)
        (Replicas(ready=2, starting=2), 22.1, 5),
        (4, 9.0, 2),
        (4, 0.0, 1),
    ],
)
def test_hpa_on_arrivals(replicas: Any, rate: float, want: int) -> None:
    policy = HpaLaw(aggregated=(HpaMetric(name="requests_per_s", target=5),))
    assert wanted(policy, pool(replicas), Traffic(requests_per_s=rate)) == want


def test_hpa_tolerates_as_much_as_it_says() -> None:
    policy = HpaLaw(aggregated=(HpaMetric(name="requests_per_s", target=5),), tolerance=0.25)
    assert wanted(policy, pool(4), Traffic(requests_per_s=25)) == 4  # 25 / 20 = 1.25
    assert wanted(policy, pool(4), Traffic(requests_per_s=25.1)) == 6


def test_hpa_raises_and_does_not_lower_by_a_rate_that_may_be_higher() -> None:
    policy = HpaLaw(aggregated=(HpaMetric(name="requests_per_s", target=5),))
    for replicas, want in ((1, 3), (8, None)):
        snapshot = Snapshot(
            at_s=0,
            traffic=Traffic(requests_per_s=15),
            pools={"workers": pool(replicas)},
            missing={"traffic.requests_per_s.at_least": "clients give up"},
        )
        assert policy.decide(snapshot).targets.get("workers") == want


def test_hpa_takes_the_largest_wish_and_does_not_go_down_where_a_metric_is_unknown() -> None:
    policy = HpaLaw(aggregated=(HpaMetric(name="requests", target=10), HpaMetric(name="kv_usage", target=0.5)))
    assert wanted(policy, pool(4, queued=20, running=40, kv_usage=0.9)) == 8  # requests: 6; KV: 7.2
    assert wanted(policy, pool(4, queued=20, running=40)) == 6
    assert wanted(policy, pool(4, queued=0, running=10)) is None
    assert wanted(policy, pool(4, queued=0, running=10, kv_usage=0.2)) == 2


# Knative: 10 requests in flight per replica.

KPA = KpaLaw(targets={"aggregated": 10})


def test_kpa_follows_the_stable_mean_and_panics_at_twice_what_is_ready() -> None:
    timeline = Timeline(KPA)
    timeline.expect(0, {"workers": 1}, **busy(1, 8))
    timeline.expect(30, {"workers": 2}, **busy(1, 14))  # panic mean 14: 2 >= 2 * 1, so panic; stable (8 + 14) / 2 = 11
    assert timeline.codes("workers") == ["Panicking"]
    timeline.expect(50, {"workers": 4}, **busy(2, 32))  # ceil(3.2) >= 2 * 2
    timeline.expect(80, {"workers": 4}, **busy(4, 5))  # still panicking: never down
    timeline.expect(110, {"workers": 4}, **busy(4, 5))  # 50 + 60 is not before 110
    # stable mean of 80, 110, 111 is 5: one; but not below floor(4 / 2)
    timeline.expect(111, {"workers": 2}, **busy(4, 5))
    assert timeline.codes("workers") == ["Stable"]
    timeline.expect(150, {"workers": 1}, **busy(2, 5))


def test_kpa_begins_in_a_panic_at_the_present_target() -> None:
    timeline = Timeline(KPA)
    timeline.expect(0, {"workers": 6}, workers=pool(6, queued=0, running=1))
    timeline.expect(60, {"workers": 6}, workers=pool(6, queued=0, running=1))
    timeline.expect(61, {"workers": 3}, workers=pool(6, queued=0, running=1))


def test_kpa_goes_to_zero_after_a_stable_window_and_wakes_up() -> None:
    timeline = Timeline(KPA, Traffic(requests_per_s=0))
    timeline.expect(0, {"workers": 1}, workers=pool(1, queued=0, running=0))
    timeline.expect(59, {"workers": 1}, workers=pool(1, queued=0, running=0))
    timeline.expect(60, {"workers": 0}, workers=pool(1, queued=0, running=0))
    timeline.expect(61, {}, workers=pool(0, queued=0, running=0))
    timeline.traffic = Traffic(requests_per_s=0, queued=1)
    timeline.expect(62, {"workers": 1}, workers=pool(0, queued=0, running=0))


# Ray Serve: 4 ongoing requests per replica.

RAY = RayServeLaw(targets={"aggregated": 4}, downscale_delay_s=120)


def test_ray_serve_waits_for_its_delays_and_an_opposite_wish_starts_them_anew() -> None:
    timeline = Timeline(RAY)
    timeline.expect(0, {"workers": 2}, **busy(2, 12))
    timeline.expect(20, {"workers": 2}, **busy(2, 12))
    timeline.expect(30, {"workers": 3}, **busy(2, 12))
    for at_s in (40, 100, 159):  # from 100 on the look-back of 30 s holds 4 alone: one replica
        timeline.expect(at_s, {"workers": 3}, **busy(3, 4))
    assert timeline.decision.reasons[0].values["wish"] == 1
    timeline.expect(160, {"workers": 3}, **busy(3, 40))  # (4 + 40) / 2 = 22: six, and so the delay starts anew
    timeline.expect(200, {"workers": 3}, **busy(3, 4))
    timeline.expect(319, {"workers": 3}, **busy(3, 4))
    timeline.expect(320, {"workers": 1}, **busy(3, 4))


def test_ray_serve_takes_the_mean_of_samples_that_come_within_a_second() -> None:
    timeline = Timeline(RAY)
    for at_s, running in ((0.0, 12), (0.4, 0), (0.8, 0)):
        timeline.see(at_s, **busy(2, running))
    assert timeline.decision.reasons[0].values["wish"] == 1  # of 4 on average, and not of 12


@pytest.mark.parametrize(
    ("running", "up", "down", "wish"),
    [
        (40, 1.0, 1.0, 10),
        (40, 0.5, 1.0, 7),  # 4 + 0.5 * 6
        (10, 1.0, 0.5, 4 - 1),  # 4 + 0.5 * (2.5 - 4) = 3.25, rounded up to 4, and ceil(2.5) < 4 makes it 3
        (2, 1.0, 0.6, 2),  # 4 + 0.6 * (0.5 - 4) = 1.9
        (16, 1.0, 1.0, 4),
    ],
)
def test_ray_serve_factors(running: float, up: float, down: float, wish: int) -> None:
    policy = RayServeLaw(targets={"aggregated": 4}, upscaling_factor=up, downscaling_factor=down)
    decision = policy.decide(Snapshot(at_s=0, pools={"workers": pool(4, queued=0, running=running)}))
    assert decision.reasons[0].values["wish"] == wish


def test_ray_serve_to_zero_only_from_one_and_up_from_zero_at_once() -> None:
    policy = RayServeLaw(targets={"aggregated": 4}, downscale_delay_s=10, upscaling_factor=2)
    timeline = Timeline(policy, Traffic(requests_per_s=0))
    timeline.expect(0, {"workers": 3}, workers=pool(3, queued=0, running=0))
    timeline.expect(10, {"workers": 1}, workers=pool(3, queued=0, running=0))
    timeline.expect(20, {"workers": 1}, workers=pool(1, queued=0, running=0))
    timeline.expect(30, {"workers": 0}, workers=pool(1, queued=0, running=0))
    timeline.expect(40, {}, workers=pool(0))
    timeline.traffic = Traffic(requests_per_s=1)
    timeline.expect(50, {"workers": 2}, workers=pool(0))
    timeline.expect(60, {"workers": 3}, workers=pool(Replicas(ready=0, starting=3)))


# llm-d's KEDA law: TTFT 1000 ms, ITL 50 ms.

KEDA = KedaSloLaw(sla=Sla(ttft_ms=1000, itl_ms=50))


def latencies(ttft_ms: float, itl_ms: float) -> Traffic:
    quantiles = [Dist(mean=p90 / 2, quantiles={0.9: p90}) for p90 in (ttft_ms, itl_ms)]
    return Traffic(requests_per_s=5, ttft_ms=quantiles[0], itl_ms=quantiles[1])


@pytest.mark.parametrize(
    ("replicas", "ttft_ms", "itl_ms", "want"),
    [
        (8, 500, 20, 8),  # 0.5, in the band
        (8, 400, 20, 8),
        (8, 660, 20, 10),  # 8 + ceil(8 * (0.66 / 0.55 - 1)) = 8 + ceil(1.6)
        (8, 100, 33, 10),  # by ITL: 33 / 50
        (8, 90_000, 20, 30),  # clamped to 2: 8 + ceil(8 * 2.6363) = 8 + 22
        # 6 of 8 ready: 0.66 * 0.75 / 0.55 - 1 = -0.1, ceil(-0.8) = 0
        (Replicas(ready=6, starting=2), 660, 20, 8),
        (Replicas(ready=6, starting=2), 1100, 20, 12),  # 1.1 * 0.75 / 0.55 = 1.5
    ],
)
def test_keda_slo_up(replicas: Any, ttft_ms: float, itl_ms: float, want: int) -> None:
    assert wanted(KEDA, pool(replicas), latencies(ttft_ms, itl_ms)) == want


def test_keda_slo_down_is_on_the_mean_and_not_at_the_first_look() -> None:
    timeline = Timeline(KEDA, latencies(300, 5))
    timeline.expect(0, {"workers": 8}, workers=pool(8))
    timeline.expect(15, {"workers": 6}, workers=pool(8))  # 8 - floor(8 * (1 - 0.3 / 0.4))
    timeline.traffic = latencies(900, 5)
    timeline.expect(30, {"workers": 8}, workers=pool(8))  # (0.3 + 0.3 + 0.9) / 3 = 0.5
    timeline.traffic = Traffic(requests_per_s=0)
    timeline.expect(45, {"workers": 8}, workers=pool(8))  # the sample of time 0 is gone: (0.3 + 0.9 + 0) / 3 = 0.4
    timeline.traffic = Traffic(requests_per_s=5)
    timeline.expect(60, {}, workers=pool(8))
    assert timeline.codes("workers") == ["MetricUnknown"]


def test_keda_slo_is_not_idle_while_requests_wait() -> None:
    assert wanted(KEDA, pool(8), Traffic(requests_per_s=0)) == 8
    assert wanted(KEDA, pool(8), Traffic(requests_per_s=0, queued=5)) is None  # their latency is unknown


def test_keda_slo_says_how_many_it_needs_in_fractions() -> None:
    proposal, _ = KEDA.propose(Snapshot(at_s=0, traffic=latencies(660, 20), pools={"workers": pool(8)}), None)
    want = proposal.pools["workers"]
    assert isinstance(want, Want)
    assert want.replicas == 10
    assert want.load == pytest.approx(8 * 0.66 / 0.55)


def test_keda_slo_of_a_disaggregated_service() -> None:
    pools = {role: PoolStatus(spec=PoolSpec(role=role), replicas=8) for role in ("prefill", "decode")}
    decision = KEDA.decide(Snapshot(at_s=0, traffic=latencies(660, 20), pools=pools))
    assert decision.targets == {"prefill": 10, "decode": 8}


def test_keda_slo_refuses_a_band_that_is_upside_down() -> None:
    with pytest.raises(ValueError, match=r"down \(0.6\) must be below up \(0.55\)"):
        KedaSloLaw(sla=Sla(ttft_ms=1, itl_ms=1), down=0.6)


# WVA: 100,000 tokens of KV cache, of which 80,000 are to be used; prompts of 1000 tokens and outputs of 600.

LENGTHS = Traffic(requests_per_s=5, isl=1000, osl=600)


def held(replicas: Any, kv_usage: float, queued: float = 0, **more: Any) -> PoolStatus:
    return pool(replicas, kv_usage=kv_usage, queued=queued, kv_capacity_tokens=100_000, **more)


@pytest.mark.parametrize(
    ("status", "want"),
    [
        (held(4, 0.65), 4),  # 260,000 / 0.85 = 305,882 < 320,000; spare 320,000 - 371,429 < 0
        (held(4, 0.70), 5),  # 280,000 / 0.85 = 329,412, 9,412 over: one
        (held(4, 0.70, queued=16), 5),  # 296,000 / 0.85 = 348,235, 28,235 over
        (held(Replicas(ready=4, starting=1), 0.70), 5),  # 400,000 with the one that starts
        # saturated (6 each): k2 is the 50,000 that are held; (200,000 + 24,000) / 0.85 = 263,529 - 200,000: two
        (held(4, 0.50, queued=24), 6),
        # batch min(4096 * 600 / 1600, 32) = 32, 32 * 1300 = 41,600 tokens: 160,000 / 0.85 = 188,235 - 166,400: one
        (held(4, 0.40, knobs={"max_num_batched_tokens": 4096, "max_num_seqs": 32}), 5),
    ],
)
def test_wva_up(status: PoolStatus, want: int) -> None:
    assert wanted(WvaLaw(), status, LENGTHS) == want


def test_wva_down_counts_ready_replicas_alone() -> None:
    timeline = Timeline(WvaLaw(), LENGTHS)
    timeline.expect(0, {"workers": 4}, workers=held(4, 0.20))
    timeline.expect(15, {"workers": 2}, workers=held(4, 0.20))  # 320,000 - 80,000 / 0.7 = 205,714: two
    timeline.expect(30, {"workers": 4}, workers=held(Replicas(ready=2, starting=2), 0.40))  # 160,000 - 114,286 < 80,000
    timeline.expect(45, {"workers": 1}, workers=held(4, 0.0))


def test_wva_remembers_what_saturated_replicas_held() -> None:
    timeline = Timeline(WvaLaw(), LENGTHS)
    timeline.see(0, workers=held(2, 0.40, queued=10))
    timeline.see(15, workers=held(2, 0.60, queued=10))
    # k2 is the mean, 50,000: 90,000 / 0.85 = 105,882 - 100,000: one
    timeline.expect(30, {"workers": 3}, workers=held(2, 0.45))
    timeline.traffic = Traffic(requests_per_s=5, isl=1000, osl=400)  # another length: nothing was observed of it
    timeline.expect(45, {"workers": 2}, workers=held(2, 0.45))


def test_wva_goes_to_zero_after_ten_minutes_without_requests() -> None:
    timeline = Timeline(WvaLaw(), Traffic(requests_per_s=0))
    timeline.expect(10, {"workers": 1}, workers=held(1, 0.0))
    timeline.expect(609, {"workers": 1}, workers=held(1, 0.0))
    timeline.expect(610, {"workers": 0}, workers=held(1, 0.0))
