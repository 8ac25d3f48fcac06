"""check_policy passes what keeps the laws, for any pools, and leaves nothing behind."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings

from dynamo_planner import (
    Guard,
    Policy,
    PoolSpec,
    PoolStatus,
    Proposal,
    Replicas,
    Role,
    SetKnob,
    Sla,
    Snapshot,
    Want,
    highest,
    together,
)
from dynamo_planner.conformance import ConformanceError, Plant, check_policy, snapshots, timelines
from dynamo_planner.guards import Bounds, GpuBudget, Override, Pending, Stabilization, Staleness, StepLimit
from dynamo_planner.policies import LoadPolicy
from tests.support.laws import scaled

LOAD = LoadPolicy()
QUICK = LoadPolicy(adjustment_interval_s=10, decode_grace_intervals=0, prefill_trend_intervals=0)
FAR_S = 2e9


class ByRate(Policy, kind="by_rate"):
    """A replica for every four requests per second."""

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        rate = snapshot.traffic.requests_per_s
        if rate is None:
            return Proposal.hold(snapshot.pools, "traffic.requests_per_s is unknown", "MetricUnknown"), state
        return Proposal(pools={name: Want(math.ceil(rate / 4), rate / 4) for name in snapshot.pools}), state


def by_kv(snapshot: Snapshot) -> dict[str, int | None]:
    """Takes what is unknown for zero."""
    return {name: math.ceil(8 * (pool.kv_usage or 0)) for name, pool in snapshot.pools.items()}


def fewer(snapshot: Snapshot) -> dict[str, int | None]:
    rate = snapshot.traffic.requests_per_s
    return dict.fromkeys(snapshot.pools, None if rate is None else 1 if rate > 40 else 2)


def fixed(snapshot: Snapshot) -> dict[str, int | None]:
    return {"workers": 3, "prefill": 2, "decode": None}


class Chunks(Policy, kind="chunks"):
    """Larger chunks for longer prompts."""

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        isl = snapshot.traffic.isl
        value = 8192 if isl and isl.mean > 2000 else 2048
        knobs = [SetKnob(knob="chunk", value=value, pool=pool) for pool in snapshot.pools]
        return Proposal(knobs=tuple(knobs)), state


ALL_GUARDS = (Staleness(), Stabilization(), StepLimit(), Pending(), Override(), Bounds(), GpuBudget(max_gpus=16))


def guarded(policy: Policy, *guards: Guard) -> Policy:
    for guard in guards:
        policy = policy | guard
    return policy


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        LOAD,
        QUICK,
        LoadPolicy(adjustment_interval_s=600, decode_kv_up=0.6, decode_kv_down=0.55, kv_per_waiting=1.0),
        LoadPolicy(adjustment_interval_s=20, sla=Sla(ttft_ms=500, itl_ms=25)),
        fixed,
        lambda snapshot: {},
        highest(QUICK, ByRate()),
        highest(LOAD, fixed) | Stabilization() | GpuBudget(max_gpus=8),
        together(Chunks(), QUICK | Stabilization(down_window_s=60)) | Bounds() | GpuBudget(max_gpus=12),
    ],
)
def test_what_keeps_the_laws_passes(policy: Any) -> None:
    check_policy(policy, examples=scaled(15))


@pytest.mark.slow
@pytest.mark.parametrize("policy", [LOAD, ByRate()])
def test_all_guards_together_keep_the_laws(policy: Policy) -> None:
    check_policy(guarded(policy, *ALL_GUARDS), examples=scaled(15))


class RackLimit(Guard, kind="tests:rack_limit"):
    """A guard of another package that limits GPUs, and keeps its limit or does not."""

    gpus: int
    kept: bool

    rank: ClassVar[int] = 2

    def gpu_limit(self, snapshot: Snapshot) -> int:
        return self.gpus

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        return GpuBudget(max_gpus=self.gpus).limit(snapshot, proposal, state) if self.kept else (proposal, state)


@pytest.mark.slow
def test_a_gpu_limit_of_another_package_that_is_not_kept_is_found() -> None:
    with pytest.raises(ConformanceError, match=r"of 4") as caught:
        check_policy(ByRate() | RackLimit(gpus=4, kept=False))
    assert caught.value.law == "within-budget"


@pytest.mark.slow
def test_a_gpu_limit_of_another_package_that_is_kept_passes() -> None:
    check_policy(ByRate() | RackLimit(gpus=4, kept=True), examples=16)


# Services of one's own


def sized(snapshot: Snapshot) -> dict[str, int | None]:
    rate = snapshot.traffic.requests_per_s
    return {"h100": None if rate is None else math.ceil(rate / 3), "a10": None if rate is None else math.ceil(rate)}


@pytest.mark.slow
def test_pools_of_ones_own_by_their_specs() -> None:
    pools = {"h100": PoolSpec(role="aggregated", gpus=4, max_replicas=9), "a10": PoolSpec(role="aggregated")}
    check_policy(sized, pools=pools)
    with pytest.raises(ConformanceError, match="'h100' goes from"):
        check_policy(lambda snapshot: {"h100": round(snapshot.traffic.requests_per_s or 0)}, pools=pools)


@pytest.mark.slow
def test_a_snapshot_of_ones_own_gives_specs_and_knobs() -> None:
    def by_knob(snapshot: Snapshot) -> dict[str, int | None]:
        return {"decode": int(snapshot.pools["decode"].knobs["chunk"]) // 1024 + int(snapshot.knobs["spare"])}

    pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=7, knobs={"chunk": 2048})
    check_policy(by_knob, pools=Snapshot(at_s=5, pools={"decode": pool}, knobs={"spare": 1}))


@pytest.mark.slow
def test_replicas_of_ones_own() -> None:
    with pytest.raises(ConformanceError, match="settles on") as caught:
        check_policy(fewer, modes=["aggregated"])
    assert caught.value.law == "monotone"
    check_policy(fewer, modes=["aggregated"], plant=Plant(requests_per_s=0.05))  # never as many as 40


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ValueError, match="modes: 'agg' is no mode; allowed: aggregated, disaggregated"):
        check_policy(fixed, modes=["agg"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="pools: there are none"):
        check_policy(fixed, pools={})
    with pytest.raises(TypeError, match="expected a Policy or a function"):
        check_policy(Bounds())  # type: ignore[arg-type]
    check_policy(fixed, modes="aggregated", examples=1)


# What it says, and what it leaves behind


@pytest.mark.slow
def test_the_message_has_the_law_the_reason_and_a_snapshot_that_can_be_used() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_policy(by_kv, modes=["aggregated"])
    message, snapshot = str(caught.value).split("\nwith the snapshot ")
    assert "breaks the law 'missing-never-lowers': without pools.workers.kv_usage: 'workers' goes from" in message
    assert Snapshot.model_validate_json(snapshot) == caught.value.snapshots[-1]
    assert len(caught.value.snapshots) == 1


def test_what_was_raised_is_the_cause() -> None:
    with pytest.raises(ConformanceError, match="decide raised AttributeError") as caught:
        check_policy(lambda snapshot: {"workers": round(snapshot.traffic.isl.mean / 500)})  # type: ignore[union-attr]
    assert isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.slow
def test_it_finds_the_same_each_time() -> None:
    def message() -> str:
        with pytest.raises(ConformanceError) as caught:
            check_policy(by_kv, modes=["disaggregated"])
        return str(caught.value)

    assert message() == message()


@pytest.mark.slow
def test_it_works_inside_a_hypothesis_test_of_ones_own() -> None:
    @settings(max_examples=1, deadline=None, database=None, suppress_health_check=[HealthCheck.nested_given])
    @given(snapshots("aggregated"))
    def check(snapshot: Snapshot) -> None:
        check_policy(ByRate(), modes=["aggregated"], examples=2)
        with pytest.raises(ConformanceError):
            check_policy(by_kv, modes=["aggregated"])

    check()


# The strategies and the plant


@settings(max_examples=60, deadline=None, derandomize=True)
@given(timelines("disaggregated", ticks=4, unknown=False))
def test_timelines_go_forward_and_know_everything(timeline: tuple[Snapshot, ...]) -> None:
    assert [snapshot.at_s for snapshot in timeline] == sorted({snapshot.at_s for snapshot in timeline})
    for snapshot in timeline:
        assert list(snapshot.pools) == ["prefill", "decode"]
        assert None not in (snapshot.traffic.requests_per_s, snapshot.traffic.isl, snapshot.pools["decode"].kv_usage)
        assert Snapshot.model_validate_json(snapshot.model_dump_json()) == snapshot


@functools.cache
def many_snapshots() -> tuple[Snapshot, ...]:
    seen = []

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(snapshots({"d": PoolSpec(role="decode", startup_s=100)}))
    def look(snapshot: Snapshot) -> None:
        seen.append(snapshot)

    look()
    return tuple(seen)


@pytest.mark.slow
@pytest.mark.parametrize(
    "condition",
    [
        lambda s: s.pools["d"].replicas is None,
        lambda s: s.pools["d"].kv_usage is None and s.pools["d"].queued is not None,
        lambda s: s.traffic.observed_at_s is None,
        lambda s: s.age_s(s.pools["d"].observed_at_s) > 1000,
        lambda s: s.pools["d"].stuck(s.at_s) > 0,
        lambda s: s.pools["d"].coming(s.at_s) > 0,
        lambda s: s.pools["d"].replicas is not None and s.pools["d"].replicas.draining > 0,
        lambda s: s.pools["d"].replicas is not None and s.pools["d"].replicas.target == 0,
        lambda s: s.traffic.isl is not None and len(s.traffic.isl.quantiles) > 0,
        lambda s: s.traffic.requests_per_s == 0,
    ],
)
def test_snapshots_hold_what_a_policy_must_bear(condition: Callable[[Snapshot], bool]) -> None:
    assert any(condition(snapshot) for snapshot in many_snapshots())


def service(*roles: Role) -> Snapshot:
    return Snapshot(at_s=0, pools={role: PoolStatus(spec=PoolSpec(role=role)) for role in roles})


def test_the_plant_keeps_littles_law_and_knows_everything() -> None:
    """Worked by hand: 10 requests of 1000 and 200 tokens a second on 2 replicas each."""
    plant = Plant(requests_per_s=10, itl_ms_per_request=0)
    two = {"prefill": Replicas(ready=2), "decode": Replicas(ready=2)}
    seen = plant.snapshot(service("prefill", "decode"), 60, 30, two)
    prefill, decode = seen.pools["prefill"], seen.pools["decode"]
    # prefill: 10 * 1000 / 8000 = 1.25 replicas busy of 2; .625 ** sqrt(6) / .375 = .8434 wait, each .0843 s
    assert prefill.running == 1.25
    assert prefill.queued == pytest.approx(0.625 ** math.sqrt(6) / 0.375)
    # decode: 10 * 200 tokens/s * 20 ms = 40 requests, of 1000 + 200 / 2 tokens each, 20 per replica of 100 000
    assert decode.running == pytest.approx(40)
    assert decode.kv_usage == pytest.approx(20 * 1100 / 100_000)
    traffic = seen.traffic
    assert (traffic.requests_per_s, traffic.queued, traffic.window_s) == (10, 0, 30)
    means = {name: getattr(traffic, name).mean for name in ("isl", "osl", "ttft_ms", "itl_ms", "request_duration_s")}
    ttft_s = 0.125 + 0.08434
    assert means == pytest.approx(
        {"isl": 1000, "osl": 200, "ttft_ms": 1000 * ttft_s, "itl_ms": 20, "request_duration_s": ttft_s + 4}, rel=1e-3
    )
    assert traffic.isl is not None
    assert traffic.isl.count == 300
    assert seen.age_s(seen.pools["decode"].observed_at_s) == 0


@pytest.mark.parametrize("roles", [("aggregated",), ("prefill", "decode"), ("decode",)])
def test_the_plant_gets_no_better_with_more_load_or_fewer_replicas(roles: tuple[Role, ...]) -> None:
    def pressed(rate: float, ready: int) -> list[float]:
        replicas: dict[str, Replicas] = {role: Replicas(ready=ready) for role in roles}
        seen = Plant(requests_per_s=rate).snapshot(service(*roles), 0, 60, replicas)
        latencies = [0.0 if dist is None else dist.mean for dist in (seen.traffic.ttft_ms, seen.traffic.itl_ms)]
        return [*latencies, *(value or 0.0 for p in seen.pools.values() for value in (p.queued, p.kv_usage))]

    rates, counts = [0, 0.1, 1, 5, 7.7, 7.9, 12, 20, 50, 400], [1, 2, 3, 5, 8, 30]
    for rate, more in itertools.pairwise(rates):
        for fewer, count in itertools.pairwise(counts):
            here = pressed(rate, count)
            assert all(a <= b + 1e-9 for a, b in zip(here, pressed(more, count), strict=True))
            assert all(a <= b + 1e-9 for a, b in zip(here, pressed(rate, fewer), strict=True))


def test_a_plant_without_replicas_queues_at_the_frontend() -> None:
    seen = Plant(requests_per_s=2).snapshot(service("aggregated"), 0, 60, {"aggregated": Replicas(ready=0)})
    assert (seen.traffic.queued, seen.traffic.ttft_ms) == (120, None)
    assert (seen.pools["aggregated"].kv_usage, seen.pools["aggregated"].running) == (0, 0)


@pytest.mark.slow
def test_traffic_that_is_known_to_be_nothing_excuses() -> None:
    """No requests, freshly observed: then nothing else needs to be known to go down."""

    def eager(snapshot: Snapshot) -> dict[str, int | None]:
        idle = snapshot.traffic.requests_per_s == 0 and snapshot.age_s(snapshot.traffic.observed_at_s) < 30
        return dict.fromkeys(snapshot.pools, 0 if idle else None)

    check_policy(eager)
    with pytest.raises(ConformanceError, match="missing-never-lowers"):
        check_policy(lambda s: dict.fromkeys(s.pools, None if s.traffic.isl else 0))
