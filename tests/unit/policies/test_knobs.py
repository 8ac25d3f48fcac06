"""KnobPolicy over time: what it tries, what it keeps, and what it takes back."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner import (
    Dist,
    LoadPolicy,
    PoolSpec,
    PoolStatus,
    Profile,
    Replicas,
    SetKnob,
    Sla,
    SlaPolicy,
    Snapshot,
    Traffic,
    load_policy,
    together,
)
from dynamo_planner.conformance import check_policy
from dynamo_planner.policies.knobs.analytic import largest_batch, largest_chunk, longest_local_prompt, work_of
from tests.support.knob_service import LIVE, SLA, TICK_S, Latencies, Service, knob, restarting, tuner
from tests.support.laws import examples, scaled

CHUNK, SEQS = "max_num_batched_tokens", "max_num_seqs"


def best_at(value: float, name: str = CHUNK) -> Latencies:
    """TTFT binds, and is least where the knob has this value."""

    def latencies(knobs: Mapping[str, float], _: float) -> tuple[float, float]:
        return 500 + 200 * abs(math.log2(knobs[name] / value)), 10.0

    return latencies


def test_it_climbs_to_the_best_value_a_notch_at_a_time_and_stays() -> None:
    service = Service(best_at(4096), {CHUNK: 1024})
    changes = service.run(tuner(), 60)
    assert [value for _, _, value in changes] == [2048, 4096, 8192, 4096]
    assert changes[0][0] == 3 * TICK_S  # four windows first
    assert service.codes() == ["KnobsSettled"]
    assert service.run(tuner(), 200) == []


def test_a_breach_takes_a_value_back_at_the_next_tick() -> None:
    service = Service(lambda knobs, _: (900.0 if knobs[CHUNK] == 1024 else 1500.0, 10.0), {CHUNK: 1024})
    changes = service.run(tuner(), 40)
    (tried_s, _, _), (back_s, _, back) = changes
    assert back == 1024
    assert back_s - tried_s <= TICK_S
    reverted = service.decisions[int(back_s / TICK_S)]
    assert "KnobReverted: max_num_batched_tokens goes back to 1024: a target is breached" in reverted.explain()


def test_what_failed_is_tried_again_only_under_another_load() -> None:
    def latencies(knobs: Mapping[str, float], at_s: float) -> tuple[float, float]:
        worth = 0.7 if at_s > 6000 else 1.1
        return 600 * (worth if knobs[CHUNK] > 1024 else 1.0), 10.0

    service = Service(latencies, {CHUNK: 1024})
    assert len(service.run(tuner(), 100)) == 2
    assert service.run(tuner(), 100) == []
    service.requests_per_s = 35.0
    service.run(tuner(), 100)
    assert service.knobs[CHUNK] > 1024


def test_back_off_doubles_the_wait_after_each_failure() -> None:
    """TTFT binds, and three knobs each make it worse: the second trial comes later than the first wait, and so on."""
    more = tuple(knob(name=name, own_name=name) for name in ("one", "two", "three"))
    names = [each.name for each in more]
    service = Service(
        lambda knobs, _: (600 + 100 * sum(knobs[name] > 8 for name in names), 10.0), dict.fromkeys(names, 8.0)
    )
    changes = service.run(tuner(more=more), 150)
    tries = [at_s for at_s, _, value in changes if value > 8]
    backs = [at_s for at_s, _, value in changes if value == 8]
    assert len(tries) == len(backs) == 3
    waits = [after - before for before, after in zip(backs, tries[1:], strict=False)]
    assert waits[1] > waits[0] >= 4 * TICK_S


def test_nothing_is_tried_while_replicas_change_and_a_trial_waits_for_them() -> None:
    service = Service(best_at(8192), {CHUNK: 1024}, replicas=Replicas(ready=3, starting=1))
    assert service.run(tuner(), 30) == []
    assert service.codes() == ["ReplicasChanging"]
    service.replicas = Replicas(ready=4)
    (change,) = service.run(tuner(), 5)
    assert change[2] == 2048
    service.replicas = Replicas(ready=4, draining=1)
    assert service.run(tuner(), 6) == []
    assert "KnobKept" not in {reason.code for decision in service.decisions for reason in decision.reasons}


def test_nothing_is_tried_on_metrics_that_could_not_take_it_back_in_time() -> None:
    service = Service(best_at(4096), {CHUNK: 1024}, late_s=TICK_S + 1)
    assert service.run(tuner(), 30) == []
    assert service.codes() == ["MetricsLate"]
    service.late_s = TICK_S
    service.run(tuner(), 60)
    assert service.knobs[CHUNK] == 4096


def test_a_trial_under_another_load_says_nothing_and_is_taken_back() -> None:
    service = Service(best_at(8192), {CHUNK: 1024})
    service.run(tuner(), 4)
    service.requests_per_s = 8.0
    changes = service.run(tuner(), 8)
    assert [value for _, _, value in changes] == [1024]
    assert "LoadChanged" in {reason.code for decision in service.decisions for reason in decision.reasons}


def test_a_lighter_load_is_no_gain() -> None:
    """TTFT falls with the load, not by the knob."""
    service = Service(lambda _, at_s: (800.0 if at_s < 120 else 720.0, 10.0), {CHUNK: 1024})
    service.run(tuner(), 4)
    service.requests_per_s = 17.0
    service.run(tuner(), 10)
    assert service.knobs[CHUNK] == 1024


def test_a_trial_that_cannot_be_seen_is_taken_back() -> None:
    service = Service(best_at(8192), {CHUNK: 1024})
    service.run(tuner(), 4)
    service.missing = True
    changes = service.run(tuner(), 12)
    assert [value for _, _, value in changes] == [1024]


def test_where_nothing_obeys_it_gives_up_and_asks_for_what_there_was() -> None:
    service = Service(best_at(8192), {CHUNK: 1024}, obedient=False)
    changes = service.run(tuner(), 60)
    assert {value for _, _, value in changes} == {2048}
    service.obedient = True
    assert service.knobs == {CHUNK: 1024}


def test_somebody_elses_value_is_left_alone() -> None:
    service = Service(best_at(8192), {CHUNK: 1024})
    service.run(tuner(), 5)
    service.knobs[CHUNK] = 3000
    service.run(tuner(), 1)
    assert service.knobs[CHUNK] == 3000
    assert service.codes() == ["KnobTaken"]


def test_far_from_its_targets_it_leaves_knobs_alone() -> None:
    service = Service(lambda *_: (100.0, 3.0), {CHUNK: 1024})
    assert service.run(tuner(), 50) == []
    assert service.codes() == ["RoomEnough"]


def test_few_requests_prove_nothing() -> None:
    service = Service(best_at(8192), {CHUNK: 1024}, requests_per_s=0.2)
    assert service.run(tuner(), 50) == []


# Knobs that restart workers


def test_full_batches_with_a_queue_get_the_batch_that_itl_bears() -> None:
    """4 requests at once on each of 4 replicas, and a queue: ITL would bear many more."""

    def latencies(knobs: Mapping[str, float], _: float) -> tuple[float, float]:
        return (800.0 if knobs[SEQS] < 16 else 300.0), 9.0

    service = Service(latencies, {SEQS: 4, CHUNK: 2048}, running=16, queued=20)
    changes = service.run(restarting(), 30)
    assert changes == [(3 * TICK_S, SEQS, 16)]
    assert "KnobKept" in {reason.code for decision in service.decisions for reason in decision.reasons}


def test_a_restart_has_to_be_worth_it() -> None:
    service = Service(best_at(8192), {SEQS: 256, CHUNK: 256})
    assert service.run(restarting(lasts_s=10), 30) == []
    assert "RestartCosts" in service.codes()
    assert "is not worth a restart" in service.decisions[-1].explain()
    (change,) = service.run(restarting(), 5)
    assert change[1] == CHUNK
    assert 900 < change[2] < 1100, "where a step takes 25 ms"


def test_a_worst_gap_bounds_the_chunk_at_once() -> None:
    service = Service(lambda *_: (400.0, 10.0), {SEQS: 256, CHUNK: 8192})
    policy = restarting(gap_ms=40)
    (change,) = service.run(policy, 20)
    assert change[0] == 0
    work = work_of(service.snapshot(), service.snapshot().pools["workers"], Profile.bundled("llama31-8b_h100_vllm_tp1"))
    assert work is not None
    mixed = Profile.bundled("llama31-8b_h100_vllm_tp1").mixed
    assert mixed is not None
    assert mixed.step_ms(change[2] - work.batch, work.batch, work.context) <= 40
    assert mixed.step_ms(1.2 * change[2], work.batch, work.context) > 40


# The analytic values, against the profile itself


@pytest.mark.parametrize("name", ["llama31-8b_h100_vllm_tp1", "llama31-70b_h100_vllm_tp4"])
def test_analytic_values_keep_the_targets(name: str) -> None:
    profile, sla = Profile.bundled(name), Sla(ttft_ms=1000, itl_ms=40)
    service = Service(lambda *_: (500.0, 20.0), {CHUNK: 2048})
    snapshot = service.snapshot()
    pool = snapshot.pools["workers"]
    work = work_of(snapshot, pool, profile)
    assert work is not None
    assert (work.batch, work.context, work.osl) == (8, 1100, 200)
    batch = largest_batch(profile, work, sla, pool)
    mixed = profile.mixed
    assert mixed is not None
    assert mixed.step_ms(5 * batch, batch, 1100) <= 40 < mixed.step_ms(5 * 1.2 * batch, 1.2 * batch, 1100)
    chunk = largest_chunk(profile, work, 40, 131_072)
    assert chunk is not None
    assert mixed.step_ms(chunk - work.batch, work.batch, 1100) <= 40
    assert mixed.step_ms(1.2 * chunk, work.batch, 1100) > 40
    snapshot = snapshot.replace(traffic=snapshot.traffic.replace(ttft_ms=Dist(mean=3000)))
    local = longest_local_prompt(profile, work, snapshot, sla, 50.0, 131_072)
    assert local is not None
    assert 0 < mixed.step_ms(local, work.batch, 1100) - profile.step_ms(0, work.batch, 8800) <= 20 + 1e-6


# Together, and the laws


def test_together_knobs_come_first_and_their_pool_keeps_its_replicas_meanwhile() -> None:
    service = Service(best_at(4096), {CHUNK: 1024})
    policy = together(tuner(), lambda _: {"workers": 6})
    snapshots = []
    state = None
    for _ in range(5):
        decision = policy.decide(service.snapshot(), state)
        state = decision.state
        snapshots.append(decision)
        service.at_s += TICK_S
    assert [bool(decision.knobs) for decision in snapshots] == [False, False, False, True, True]
    assert dict(snapshots[2].targets) == {"workers": 6}
    assert dict(snapshots[3].targets) == {}
    assert "KnobChanging" in {reason.code for reason in snapshots[3].reasons}


def test_sla_policy_sizes_for_the_knobs_that_are_set() -> None:
    """Eight requests at once for each replica take more replicas than what ITL would bear."""
    profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
    policy = SlaPolicy(sla=SLA, profile=profile)

    def replicas(**knobs: int) -> int:
        pool = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=4, queued=0, knobs=knobs)
        traffic = Traffic(requests_per_s=20, window_s=30, isl=1000, osl=200)
        return policy.decide(Snapshot(at_s=0, traffic=traffic, pools={"workers": pool})).targets["workers"]

    assert replicas(max_num_seqs=8) > replicas(max_num_seqs=64) == replicas()


def with_knobs(mode: str) -> Snapshot:
    roles = ("aggregated",) if mode == "aggregated" else ("prefill", "decode")
    knobs = {CHUNK: 2048, SEQS: 64}
    pools = {role: PoolStatus(spec=PoolSpec.model_validate({"role": role}), knobs=knobs) for role in roles}
    return Snapshot(at_s=0, pools=pools, knobs={} if len(roles) == 1 else {"max_local_prefill_length": 512})


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["aggregated", "disaggregated"])
def test_it_keeps_the_laws(mode: str) -> None:
    profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
    check_policy(tuner(profile=profile), pools=with_knobs(mode), examples=scaled(10))
    check_policy(together(tuner(), LoadPolicy()), pools=with_knobs(mode), examples=scaled(10))


@pytest.mark.long
@pytest.mark.parametrize("mode", ["aggregated", "disaggregated"])
def test_restarts_keep_the_laws(mode: str) -> None:
    """What a restart saves is sized anew at each tick: minutes, over all ticks that the check of the state takes."""
    check_policy(together(restarting(), LoadPolicy()), pools=with_knobs(mode), examples=10)


COSTS = st.lists(st.floats(50, 3000), min_size=11, max_size=11)


@pytest.mark.slow
@examples(60)
@given(ttfts=COSTS, itls=st.lists(st.floats(1, 80), min_size=11, max_size=11), noise=st.integers(0, 10**6))
def test_whatever_the_engine_does_knobs_settle_within_their_range(
    ttfts: list[float], itls: list[float], noise: int
) -> None:
    """Latencies are any function of the chunk, with noise of 5 %; the load is constant."""
    chunk = LIVE[0]
    options = {CHUNK: 1024.0, SEQS: 64.0}

    def latencies(knobs: Mapping[str, float], at_s: float) -> tuple[float, float]:
        chunk.check(knobs[CHUNK])
        place = min(int(math.log2(knobs[CHUNK])) - 6, 10)
        shaken = 1 + 0.05 * math.sin(noise + at_s)
        return ttfts[place] * shaken, itls[place] * shaken

    service = Service(latencies, options)
    service.run(tuner(), 250)
    assert service.run(tuner(), 150) == []


@pytest.mark.slow
@given(value=st.integers(64, 131_072), ttft=st.floats(1, 1e4), itl=st.floats(0.1, 1e3), osl=st.floats(1, 1e4))
@examples(60)
def test_what_it_asks_for_is_in_range(value: int, ttft: float, itl: float, osl: float) -> None:
    service = Service(lambda *_: (ttft, itl), {CHUNK: value, SEQS: 64}, running=256, queued=9)
    policy = tuner(profile=Profile.bundled("llama31-8b_h100_vllm_tp1"), worth=0, gap_ms=50)
    for _, name, asked in service.run(policy, 20):
        assert policy.catalogue[name].check(asked) == asked
        assert service.knobs[CHUNK] >= service.knobs[SEQS]


def test_it_is_data() -> None:
    policy = load_policy(
        {
            "kind": "together",
            "knobs": {
                "kind": "knobs",
                "engine": "llamacpp",
                "sla": {"ttft_ms": 500, "itl_ms": 50},
                "knobs": ["max_num_seqs"],
            },
            "replicas": {"kind": "load"},
        }
    )
    knobs = policy.knobs  # type: ignore[attr-defined]
    assert list(knobs.catalogue) == ["max_num_seqs"]
    assert knobs.catalogue["max_num_seqs"].argument == "--parallel"
    assert isinstance(policy.decide(Snapshot(at_s=0)).actions, tuple)
    assert SetKnob(knob="max_num_seqs", value=4)
