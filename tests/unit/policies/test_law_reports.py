"""What the laws of other systems report beside their counts: fractional loads, the values of reasons, why they hold."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo_planner import (
    Dist,
    Hold,
    HpaLaw,
    KedaSloLaw,
    KpaLaw,
    LlmdQueueLaw,
    LlmdTokensLaw,
    Policy,
    PoolSpec,
    PoolStatus,
    RayServeLaw,
    Replicas,
    Role,
    Sla,
    Snapshot,
    Traffic,
    Want,
    WvaLaw,
)
from dynamo_planner.policies.laws.hpa import HpaMetric
from tests.support.timeline import Timeline

SPEC = PoolSpec(role="aggregated", min_replicas=0)
BUSY = Traffic(requests_per_s=30, queued=6, isl=1000, osl=600, prefix_hit_rate=0.5)
STARTING = Replicas(ready=3, starting=1)
HPA = HpaLaw(aggregated=(HpaMetric(name="kv_usage", target=0.5),))
HPA_RATE = HpaLaw(aggregated=(HpaMetric(name="requests_per_s", target=5),))
HPA_REQUESTS = HpaLaw(aggregated=(HpaMetric(name="requests", target=5),))
HPA_RUNNING = HpaLaw(aggregated=(HpaMetric(name="running", target=5),))
TOKENS = LlmdTokensLaw(prefill_tokens_per_s=4_000)
KEDA = KedaSloLaw(sla=Sla(ttft_ms=1000, itl_ms=50))


def pool(replicas: Any, **more: Any) -> PoolStatus:
    return PoolStatus(spec=SPEC, replicas=replicas, **more)


def latencies(ttft_ms: float, itl_ms: float) -> Traffic:
    quantiles = [Dist(mean=p90 / 2, quantiles={0.9: p90}) for p90 in (ttft_ms, itl_ms)]
    return Traffic(requests_per_s=5, ttft_ms=quantiles[0], itl_ms=quantiles[1])


def proposed(law: Policy, status: PoolStatus, traffic: Traffic = BUSY) -> Any:
    return law.propose(Snapshot(at_s=0, traffic=traffic, pools={"workers": status}), None)[0]


@pytest.mark.parametrize(
    ("law", "status", "replicas", "load", "values"),
    [
        # 1.8 * 3 ready = 5.4; with one that starts as nothing 3 * 1.8 / 4 = 1.35, and 1.35 * 4 is 5.4 as well
        (HPA, pool(STARTING, kv_usage=0.9), 6, 5.4, {"value": 0.9, "ratio": 1.8, "ready": 3}),
        # coverage 0.5 of 5 is 2.5, which rounds to 2: those seen have 2 * 1.6 of 5, 0.64, and so nothing changes
        (HPA, pool(5, kv_usage=0.8, coverage=0.5), 5, 8.0, {"ratio": 1.6}),
        # the target is 2, and one of four was not seen: (3 * 0.6 + 1) / 4 is three, but a low metric raises nothing
        (HPA, pool(Replicas(ready=4, target=2), kv_usage=0.3, coverage=0.75), 2, 2.4, {"ratio": 0.6}),
        (HPA, pool(1, kv_usage=0.8, coverage=0.3), 2, 1.6, {"ratio": 1.6}),  # less than one that was seen counts as one
        # it keeps its target of 2 where the ratio crosses 1 with what starts, or with what was not seen
        (HPA_RUNNING, pool(Replicas(ready=2, starting=2, target=2), running=15), 2, 3.0, {"ratio": 1.5}),
        (HPA, pool(Replicas(ready=4, target=2), kv_usage=0.5, coverage=0.75), 2, 4.0, {"ratio": 1.0}),
        # 2.15 * 10 / 20 = 1.075 is within the tolerance
        (HPA_RUNNING, pool(Replicas(ready=10, starting=10), running=107.5), 20, 21.5, {"ratio": 2.15}),
        # the target is 8, of which 4 are missing: 2 * 3 / 4 * 4 is 6, but a high metric lowers nothing
        (HPA_RUNNING, pool(Replicas(ready=2, starting=2, target=8), running=30), 8, 6.0, {"ratio": 3.0}),
        (HPA_RATE, pool(STARTING), 6, 4.5, {"value": 30, "ratio": 1.5}),  # 30 / (5 * 4), of 3 ready
        (HPA_RATE, pool(Replicas(ready=0, starting=2)), 6, 3.0, {"ratio": 3.0}),  # no ready one counts as one
        (HPA_RATE, pool(Replicas(ready=0, failed=2)), 6, 6.0, {"ratio": 6.0}),  # and so does none at all
        (HPA_REQUESTS, pool(2, queued=4, running=12), 4, 3.2, {"value": 8, "ratio": 1.6}),
        # 2 of 3 were seen, so 6 + 12 of them are 27 of all
        (HPA_REQUESTS, pool(3, queued=6, running=12, coverage=2 / 3), 4, 5.4, {"value": 9, "ratio": 1.8}),
        (KpaLaw(targets={"aggregated": 10}), pool(1, queued=5, running=14), 2, 1.9, {"stable": 19, "panic": 19}),
        # 90 / 10 are 9, of which the rate permits 2 * 3
        (KpaLaw(targets={"aggregated": 10}, up_rate=2), pool(3, queued=0, running=90), 6, 9.0, {"panic": 90}),
        (RayServeLaw(targets={"aggregated": 4}, upscale_delay_s=0), pool(2, queued=2, running=12), 4, 3.5, {"wish": 4}),
        # 66 % of TTFT, 3 of 4 ready: 4 * 0.66 * 0.75 / 0.55 = 3.6, and 4 + ceil(-0.4) = 4
        (KEDA, pool(STARTING), 4, 3.6, {"saturation": 0.66, "credit": 0.75}),
        (LlmdQueueLaw(), pool(4, queued=2, running=160), 10, 10.0, {"queued": 8, "for_queued": 8, "for_running": 10}),
        (LlmdQueueLaw(), pool(4, queued=6, running=160), 12, 12.0, {"queued": 12, "for_queued": 12}),
        (LlmdQueueLaw(queue_target=2), pool(4, queued=18, running=16), 12, 12.0, {"queued": 24, "for_queued": 12}),
        # (18 + 6) * 1000 * 0.5 / 4000 = 3 s at 1.5 s each, and 0.8 * 2 / 0.8 of the KV cache
        (TOKENS, pool(2, queued=18, running=9, kv_usage=0.8), 2, 2.0, {"backlog_s": 3.0, "for_backlog": 2}),
        (TOKENS, pool(2, queued=0, running=9, kv_usage=1.0), 3, 2.5, {"kv_full": 2.0, "for_kv": 3}),
        # 2 * (50,000 + 2 * 1000) = 104,000; / 0.85 = 122,353, less than 3 * 80,000 and 1.53 of one
        (
            WvaLaw(),
            pool(Replicas(ready=2, starting=1), kv_usage=0.5, queued=4, kv_capacity_tokens=100_000),
            3,
            104 / 0.85 / 80,
            {"demand": 104_000, "capacity": 80_000},
        ),
        # 2 * (90,000 + 2 * 1000) = 184,000; / 0.85 = 216,471 - 160,000 = 56,471: one
        (
            WvaLaw(),
            pool(2, kv_usage=0.9, queued=4, kv_capacity_tokens=100_000),
            3,
            184 / 0.85 / 80,
            {"required": 184_000 / 0.85 - 160_000},
        ),
    ],
)
def test_a_law_reports_the_load_and_the_numbers_that_its_count_comes_from(
    law: Policy, status: PoolStatus, replicas: int, load: float, values: dict[str, float]
) -> None:
    found = proposed(law, status, latencies(660, 20) if law is KEDA else BUSY)
    want = found.pools["workers"]
    assert (want.replicas, want.load) == (replicas, pytest.approx(load))
    assert {name: found.reasons[0].values[name] for name in values} == pytest.approx(values)


@pytest.mark.parametrize("law", [HPA_REQUESTS, KpaLaw(), RayServeLaw(), LlmdQueueLaw(), TOKENS, WvaLaw()])
def test_metrics_as_old_as_fresh_s_count_and_older_ones_hold(law: Policy) -> None:
    metrics = {"queued": 2, "running": 4, "kv_usage": 0.5, "kv_capacity_tokens": 1e5}
    assert isinstance(proposed(law, pool(2, **metrics, observed_at_s=-60)).pools["workers"], Want)
    assert isinstance(proposed(law, pool(2, **metrics, observed_at_s=-60.5)).pools["workers"], Hold)


@pytest.mark.parametrize("law", [HPA_RATE, KEDA])
def test_traffic_as_old_as_fresh_s_counts_and_older_traffic_holds(law: Policy) -> None:
    for observed_at_s, kind in ((-60, Want), (-60.5, Hold)):
        traffic = latencies(660, 20).replace(observed_at_s=observed_at_s)
        assert isinstance(proposed(law, pool(2), traffic).pools["workers"], kind)


def test_a_pool_at_zero_wakes_up_by_traffic_as_old_as_fresh_s() -> None:
    assert proposed(KpaLaw(), pool(0), BUSY.replace(observed_at_s=-60)).pools["workers"] == Want(1)
    assert isinstance(proposed(KpaLaw(), pool(0), BUSY.replace(observed_at_s=-60.5)).pools["workers"], Hold)


def test_what_waits_in_front_counts_up_to_the_age_of_fresh_s() -> None:
    status = pool(2, queued=1, running=4)
    assert proposed(LlmdQueueLaw(), status, BUSY.replace(observed_at_s=-60)).pools["workers"].replicas == 7
    unknown = proposed(LlmdQueueLaw(), status, BUSY.replace(observed_at_s=-60.5)).pools["workers"]
    assert unknown == Hold("traffic.queued is unknown, and may speak against fewer", "MetricUnknown")


@pytest.mark.parametrize(
    ("missing", "cause"),
    [
        ({}, ""),
        ({"pools.workers.kv_usage": "no such series"}, ": no such series"),
        ({"pools.workers": "gone"}, ": gone"),
    ],
)
def test_an_unknown_metric_is_named_with_its_cause(missing: dict[str, str], cause: str) -> None:
    snapshot = Snapshot(at_s=0, pools={"workers": pool(2)}, missing=missing)
    assert HPA.propose(snapshot, None)[0].pools["workers"] == Hold("kv_usage is unknown" + cause, "MetricUnknown")


def test_absurd_metrics_are_cut_off() -> None:
    """A number of 1e300 neither overflows nor becomes a target."""
    found = proposed(HPA_REQUESTS, pool(1, queued=1e300, running=0))
    assert found.reasons[0].values["value"] == 1e12
    assert found.pools["workers"].load == 1e9
    found = proposed(HPA_RATE, pool(1), Traffic(requests_per_s=1e300))
    assert (found.reasons[0].values["value"], found.pools["workers"]) == (1e12, Want(10**9, load=1e9))
    found = proposed(LlmdQueueLaw(), pool(1, queued=0, running=0), BUSY.replace(queued=1e300))
    assert found.reasons[0].values["queued"] == 1e12
    assert proposed(TOKENS.replace(kv_target=1e-12), pool(1, queued=0, kv_usage=1.0)).pools["workers"].load == 1e9
    for law in (KpaLaw(targets={"aggregated": 1e-3}, up_rate=1e15), LlmdQueueLaw(queue_target=0.01), TOKENS, WvaLaw()):
        status = pool(1, queued=1e300, running=0, kv_usage=0.5, kv_capacity_tokens=1)
        want = proposed(law, status).pools["workers"]
        assert (want.replicas <= 10**9, want.load <= 1e9) == (True, True)


@pytest.mark.parametrize(
    ("kv_usage", "replicas", "message"),
    [
        (0.75, 6, "kv_usage over its target"),
        (0.625, 4, "kv_usage within its target and tolerance"),  # 1.25 of it, and 0.25 is the tolerance
        (0.25, 2, "kv_usage under its target"),
    ],
)
def test_hpa_says_on_which_side_of_its_target_a_metric_is(kv_usage: float, replicas: int, message: str) -> None:
    found = proposed(HPA.replace(tolerance=0.25), pool(4, kv_usage=kv_usage))
    assert (found.pools["workers"].replicas, found.reasons[0].message) == (replicas, message)


def test_an_unknown_metric_holds_what_would_fall_and_not_what_stays() -> None:
    two = HpaLaw(aggregated=(HpaMetric(name="requests", target=10), HpaMetric(name="kv_usage", target=0.5)))
    assert proposed(two, pool(4, queued=20, running=20)).pools["workers"].replicas == 4
    assert proposed(two, pool(4, queued=0, running=20)).pools["workers"] == Hold("kv_usage is unknown", "MetricUnknown")
    blind = BUSY.replace(queued=None)
    assert proposed(LlmdQueueLaw(), pool(4, queued=1, running=56), blind).pools["workers"].replicas == 4
    assert isinstance(proposed(LlmdQueueLaw(), pool(4, queued=1, running=48), blind).pools["workers"], Hold)


def test_keda_slo_stays_on_the_edges_of_its_band_and_keeps_one() -> None:
    for p90, codes in ((550, ["WithinBand", "WithinBand"]), (400, ["WithinBand", "WithinBand"])):
        timeline = Timeline(KEDA, latencies(p90, 1))
        found = []
        for at_s in (0, 15):
            timeline.expect(at_s, {"workers": 8}, workers=pool(8))
            found += timeline.codes("workers")
        assert found == codes
    timeline = Timeline(KEDA, Traffic(requests_per_s=0))
    timeline.expect(0, {"workers": 8}, workers=pool(8))
    timeline.expect(15, {"workers": 1}, workers=pool(8))  # 8 - floor(8 * (1 - 0 / 0.4)) are none


@pytest.mark.parametrize("role", ["prefill", "decode", "aggregated"])
def test_llmd_keeps_one_of_an_idle_pool(role: Role) -> None:
    status = PoolStatus(spec=SPEC.replace(role=role), replicas=4, queued=0, running=0, kv_usage=0)
    idle = Traffic(requests_per_s=1, queued=0, isl=1000)
    for law in (LlmdQueueLaw(), TOKENS):
        assert proposed(law, status, idle).pools["workers"] == Want(1, load=0.0)


def test_llmd_names_the_queue_where_both_triggers_wish_the_same() -> None:
    found = proposed(LlmdQueueLaw(), pool(4, queued=0, running=96))  # 6 in front, and 96 / 16
    assert (found.pools["workers"].replicas, found.reasons[0].code) == (6, "QueuedRequests")


def test_kpa_does_not_panic_below_twice_what_is_ready() -> None:
    timeline = Timeline(KpaLaw(targets={"aggregated": 10}))
    for at_s, running, code in ((0, 30, "Panicking"), (60, 30, "Panicking"), (61, 50, "Stable"), (67, 60, "Panicking")):
        timeline.see(at_s, workers=pool(3, queued=0, running=running))
        assert timeline.codes("workers") == [code]  # 5 / 3 is less than 2; 6 s later the 50 no longer count, and 6 / 3


def test_kpa_goes_to_zero_a_stable_window_after_it_was_first_observed() -> None:
    timeline = Timeline(KpaLaw(targets={"aggregated": 10}))
    for at_s, replicas in ((1000, 1), (1059, 1), (1060, 0)):
        timeline.expect(at_s, {"workers": replicas}, workers=pool(1, queued=0, running=0))


def test_ray_serve_counts_its_delay_from_the_first_wish() -> None:
    """The look-back is 30 s, so the second sample stands alone: of 40 requests ten replicas, of 4 one."""
    for running, delay_s, wish in ((40, 30, 10), (4, 120, 1)):
        timeline = Timeline(RayServeLaw(targets={"aggregated": 4}, downscale_delay_s=120))
        for at_s in (1000, 1200, 1210):
            timeline.expect(at_s, {"workers": 2}, workers=pool(2, queued=0, running=8))
            assert timeline.decision.reasons[0].values["since_s"] == at_s - 1000
        for waited_s, replicas in ((0, 2), (delay_s - 1, 2), (delay_s, wish)):
            timeline.expect(1300 + waited_s, {"workers": replicas}, workers=pool(2, queued=0, running=running))
            assert timeline.decision.reasons[0].values["since_s"] == waited_s


def test_ray_serve_lowers_nothing_at_the_first_look() -> None:
    timeline = Timeline(RayServeLaw(targets={"aggregated": 4}, downscale_delay_s=0))
    timeline.expect(0, {"workers": 4}, workers=pool(4, queued=0, running=4))
    timeline.expect(1, {"workers": 1}, workers=pool(4, queued=0, running=4))


WVA_POOL = {"kv_usage": 0.4, "queued": 0, "kv_capacity_tokens": 100_000}


@pytest.mark.parametrize(
    ("metrics", "traffic", "capacity"),
    [
        # a step of 40 tokens holds 40 * 600 / 1600 = 15 requests of 1000 + 600 / 2 tokens
        ({"knobs": {"max_num_batched_tokens": 40, "max_num_seqs": 32}}, BUSY, 15 * 1300),
        ({"knobs": {"max_num_batched_tokens": 40, "max_num_seqs": 10}}, BUSY, 10 * 1300),
        ({"knobs": {"max_num_batched_tokens": 40}}, BUSY, 80_000),
        ({"queued": 24}, BUSY, 40_000),  # saturated: what it holds now
        ({"queued": 24}, Traffic(requests_per_s=5, isl=100, osl=600), 40_000),
        ({"queued": 19}, BUSY, 80_000),
        ({"queued": 24, "kv_usage": 0.0}, BUSY, 80_000),  # nothing that it holds says nothing
        ({"knobs": {"max_num_batched_tokens": 40, "max_num_seqs": 32}}, Traffic(requests_per_s=0), 80_000),
    ],
)
def test_wva_takes_the_capacity_of_a_replica_from(metrics: dict[str, Any], traffic: Traffic, capacity: float) -> None:
    found = proposed(WvaLaw(), pool(4, **{**WVA_POOL, **metrics}), traffic)
    assert found.reasons[0].values["capacity"] == pytest.approx(capacity)


@pytest.mark.parametrize(
    ("queued", "traffic"), [(0, Traffic(requests_per_s=5, isl=1000)), (3, Traffic(requests_per_s=0))]
)
def test_wva_holds_where_requests_of_unknown_lengths_run_or_wait(queued: float, traffic: Traffic) -> None:
    entry = proposed(WvaLaw(), pool(4, **{**WVA_POOL, "queued": queued}), traffic).pools["workers"]
    assert entry == Hold("traffic.isl or traffic.osl is unknown", "MetricUnknown")


@pytest.mark.parametrize(("osl", "same", "other"), [(100, 400, 99), (500, 600, 499)])
def test_wva_remembers_by_classes_of_output_lengths(osl: float, same: float, other: float) -> None:
    """Saturated replicas held 40,000 tokens at this length: the class begins with it."""
    for later, capacity in ((same, 40_000), (other, 80_000)):
        timeline = Timeline(WvaLaw(), BUSY.replace(osl=Dist(mean=osl)))
        timeline.see(0, workers=pool(4, **{**WVA_POOL, "queued": 24}))
        timeline.traffic = BUSY.replace(osl=Dist(mean=later))
        timeline.see(15, workers=pool(4, **WVA_POOL))
        assert timeline.decision.reasons[0].values["capacity"] == capacity


def test_wva_stays_where_its_demand_is_just_its_capacity() -> None:
    """4 * 40,000 tokens at half of the capacity are just the 4 * 80,000 that there are."""
    for law in (WvaLaw(up_utilization=0.5), WvaLaw(up_utilization=1.0, down_utilization=0.5)):
        timeline = Timeline(law, BUSY)
        for at_s, code in ((0, "TokensWithin"), (15, "TokensLow" if law.up_utilization < 1 else "TokensWithin")):
            timeline.see(at_s, workers=pool(4, **WVA_POOL))
            assert timeline.codes("workers") == [code]


def test_kpa_begins_calm_at_one_replica_and_in_a_panic_at_two() -> None:
    for replicas, code in ((1, "Stable"), (2, "Panicking")):
        found = proposed(KpaLaw(targets={"aggregated": 10}), pool(replicas, queued=0, running=5))
        assert found.reasons[0].code == code


def test_a_window_of_samples_has_sixty_slots() -> None:
    """Of a stable window of 600 s slots are 10 s wide: samples of 61, 64 and 69 s share one, 70 s begins another."""
    timeline = Timeline(KpaLaw(targets={"aggregated": 10}, stable_window_s=600))
    for at_s, running in ((0, 4), (61, 10), (64, 20), (69, 30), (70, 6)):
        timeline.see(at_s, workers=pool(1, queued=0, running=running))
    assert timeline.state is not None
    dumped = timeline.state.model_dump(mode="json")
    assert "[[0.0, 4.0, 1], [69.0, 60.0, 3], [70.0, 6.0, 1]]" in str(dumped)
    assert timeline.decision.reasons[0].values["stable"] == pytest.approx(70 / 5)
    assert timeline.decision.reasons[0].values["panic"] == pytest.approx(66 / 4)  # after 10 s
    timeline = Timeline(KpaLaw(targets={"aggregated": 10}, stable_window_s=6))
    for tick in range(3):  # none is shorter than a second
        timeline.see(0.4 * tick, workers=pool(1, queued=0, running=4))
    assert timeline.state is not None
    assert "[[0.8, 12.0, 3]]" in str(timeline.state.model_dump(mode="json"))


def test_what_is_as_old_as_a_window_no_longer_counts() -> None:
    timeline = Timeline(KpaLaw(targets={"aggregated": 10}))
    for at_s, running in ((0, 4), (54, 10), (60, 20)):
        timeline.see(at_s, workers=pool(1, queued=0, running=running))
    values = timeline.decision.reasons[0].values
    assert (values["stable"], values["panic"]) == (15, 20)
