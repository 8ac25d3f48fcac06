"""llm-d's queue and token laws against tables worked by hand from their triggers, and the traps that llm-d names."""

from __future__ import annotations

import pytest

from dynamo_planner import (
    Bounds,
    LlmdQueueLaw,
    LlmdTokensLaw,
    Policy,
    PoolSpec,
    PoolStatus,
    Replicas,
    Role,
    Snapshot,
    Traffic,
)
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.backtest import run_policy
from dynamo_planner.profiles import Profile
from dynamo_planner.simulator.setup import ClusterSetup, MetricsSetup
from dynamo_planner.workloads.generators import poisson


def wanted(policy: Policy, role: Role, traffic: Traffic, replicas: Replicas | int, **metrics: float) -> int | None:
    status = PoolStatus(spec=PoolSpec(role=role), replicas=replicas, **metrics)
    return policy.decide(Snapshot(at_s=0, traffic=traffic, pools={"pool": status})).targets.get("pool")


@pytest.mark.parametrize(
    ("replicas", "in_front", "queued", "running", "want"),
    [
        (4, 0, 0, 64, 4),
        (4, 0, 0, 70, 4),  # 70 / 64 is within 10 %
        (4, 0, 0, 71, 5),  # 71 / 16 = 4.4
        (4, 0, 0, 40, 3),  # 2.5
        (4, 6, 1, 64, 7),  # a replica for each that waits, in front and inside
        (4, 0, 0, 0, 1),
        (Replicas(ready=2, starting=2), 0, 0, 68, 4),  # what starts is in the ratio: 68 / 64
        (0, 3, 0, 0, 1),
    ],
)
def test_the_queue_law_takes_the_larger_of_two_triggers(
    replicas: Replicas | int, in_front: float, queued: float, running: float, want: int
) -> None:
    traffic = Traffic(requests_per_s=9, queued=in_front)
    assert wanted(LlmdQueueLaw(), "aggregated", traffic, replicas, queued=queued, running=running) == want


TOKENS = LlmdTokensLaw(prefill_tokens_per_s=10_000)  # 15,000 tokens of backlog a replica


@pytest.mark.parametrize(
    ("role", "queued", "running", "kv_usage", "want"),
    [
        ("prefill", 20, 10, 0.9, 4),  # 30 * 2,000 tokens = 6 s, 4 replicas; its KV cache says nothing
        ("prefill", 0, 0, 0.9, 1),
        ("decode", 20, 10, 0.8, 4),
        ("decode", 20, 10, 0.95, 5),  # 3.8 / 0.8 = 4.75; its queue says nothing
        ("aggregated", 40, 10, 0.9, 6),  # 40 * 2,000 tokens = 8 s: 5.3; those that run are computed
        ("aggregated", 20, 10, 0.95, 5),
    ],
)
def test_the_token_law_turns_the_backlog_into_seconds_and_the_kv_cache_into_replicas(
    role: Role, queued: float, running: float, kv_usage: float, want: int
) -> None:
    traffic = Traffic(requests_per_s=9, queued=0, isl=4000, prefix_hit_rate=0.5)
    assert wanted(TOKENS, role, traffic, 4, queued=queued, running=running, kv_usage=kv_usage) == want


def test_a_backlog_of_clients_that_wait_for_their_answers_asks_for_as_many_whatever_there_is() -> None:
    traffic = Traffic(requests_per_s=9, isl=2000)
    asked = [wanted(TOKENS, "prefill", traffic, replicas, queued=200, running=100) for replicas in (1, 10, 30)]
    assert asked == [40, 40, 40]  # 300 clients * 2,000 tokens are 60 s
    wrong = LlmdTokensLaw(prefill_tokens_per_s=2_500)  # measured with a chunk of a quarter
    assert wanted(wrong, "prefill", traffic, 10, queued=200, running=100) == 160


def test_a_frozen_backlog_holds_the_pool_and_does_not_ratchet_it_up() -> None:
    cluster = ClusterSetup.disaggregated(
        Profile.bundled("llama31-8b_h100_vllm_tp1"), 2, 2, startup_s=10, metrics=MetricsSetup(frozen=((60.0, 600.0),))
    )
    run = run_policy(
        "",
        TOKENS | Bounds(pools={"prefill": {"max_replicas": 20}, "decode": {"max_replicas": 20}}),
        trace=poisson(requests_per_s=20, duration_s=600, seed=1),
        cluster=cluster,
        sla=Sla(ttft_ms=500, itl_ms=25),
    )
    late = [count.target for count in run.counts if count.at_s > 130]
    assert len(set(late)) <= 2  # one of each pool, as it was when the metrics stopped


@pytest.mark.parametrize("law", [LlmdQueueLaw(), TOKENS])
@pytest.mark.parametrize("known", [{}, {"queued": 50, "observed_at_s": -100}])
def test_a_pool_does_not_fall_while_what_waits_in_front_of_it_is_unknown(law: Policy, known: dict[str, float]) -> None:
    traffic = Traffic.model_validate({"requests_per_s": 9, **known})
    assert wanted(law, "aggregated", traffic, 4, queued=0, running=1, kv_usage=0.1) is None
