"""What our side of the benchmark in Dynamo's simulator sees and says; the simulator itself is not needed."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.hook import PolicyHook
from benchmarks.peers.plain_law import PlainLaw
from dynamo_planner import Policy, Profile, Sla
from dynamo_planner.policies import StaticLaw

PROFILE = Profile.from_points(
    isl=[100, 1100, 2100],
    ttft_ms=[30, 130, 230],
    max_kv_tokens=100_000,
    kv_usage=[0.01, 0.1, 0.1, 0.8],
    context=[1000, 1000, 5000, 1000],
    itl_ms=[10 + 0.1 * batch + 1e-4 * held for batch, held in ((1, 1e3), (10, 1e4), (2, 1e4), (80, 8e4))],
)
"""A prompt takes 20 ms and 0.1 ms a token, a step 10 ms, 0.1 ms a request and 0.1 us a token held."""


def forward_pass(worker: int, **what: int) -> dict[str, Any]:
    nothing = dict.fromkeys(
        (
            "num_prefill_requests",
            "num_decode_requests",
            "sum_decode_kv_tokens",
            "num_queued_prefill",
            "num_queued_decode",
        ),
        0,
    )
    return {"worker_id": worker, **nothing, **what}


def tick(now_s: float, requests: int, **more: Any) -> dict[str, Any]:
    """What the simulator hands over, with two ready workers of each role and the traffic of 5 s."""
    traffic = {"duration_s": 5.0, "num_req": requests, "avg_isl": 980.0, "avg_osl": 40.0, "shape_count": 100}
    unknown = {"avg_ttft_ms": 0.0, "ttft_count": 0, "avg_itl_ms": 0.0, "itl_count": 0}
    seen: dict[str, Any] = {"now_ms": now_s * 1000, "traffic": {**traffic, **unknown}}
    for role, first in (("prefill", 1), ("decode", 11)):
        seen |= {f"active_{role}_ids": [first, first + 1], f"starting_{role}_ids": [], f"draining_{role}_count": 0}
        seen[f"{role}_fpm_snapshots"] = []
    return seen | more


def hook(policy: Policy | None = None) -> PolicyHook:
    return PolicyHook(policy or StaticLaw(replicas={"prefill": 3}), gpus=4, kv_tokens=1000)


def test_a_tick_becomes_a_snapshot() -> None:
    passes = [forward_pass(11, num_decode_requests=3, sum_decode_kv_tokens=600), forward_pass(12, num_queued_decode=2)]
    snapshot = hook().snapshot(tick(35, 60, decode_fpm_snapshots=passes, draining_decode_count=1))
    assert snapshot.at_s == 35
    assert snapshot.traffic.requests_per_s == 12
    assert snapshot.traffic.isl is not None
    assert (snapshot.traffic.isl.mean, snapshot.traffic.isl.count) == (980, 100)
    assert snapshot.traffic.ttft_ms is None  # none was finished: unknown, not 0
    decode = snapshot.pools["decode"]
    assert decode.replicas is not None
    assert (decode.replicas.ready, decode.replicas.draining) == (2, 1)
    assert (decode.queued, decode.running, decode.kv_usage) == (2, 3, 0.3)
    assert snapshot.pools["prefill"].running is None


def test_what_a_worker_showed_last_still_holds_until_it_is_gone() -> None:
    seeing = hook()
    first = [forward_pass(1, num_queued_prefill=4), forward_pass(2, num_queued_prefill=5)]
    assert seeing.snapshot(tick(5, 9, prefill_fpm_snapshots=first)).pools["prefill"].queued == 9
    later = [forward_pass(2, num_queued_prefill=1)]
    assert seeing.snapshot(tick(10, 9, prefill_fpm_snapshots=later)).pools["prefill"].queued == 5
    assert seeing.snapshot(tick(15, 9, active_prefill_ids=[2])).pools["prefill"].queued == 1


def test_starts_are_counted_from_when_they_were_first_seen() -> None:
    seeing = hook()
    seeing.snapshot(tick(5, 9, starting_prefill_ids=[3]))
    replicas = seeing.snapshot(tick(10, 9, starting_prefill_ids=[3, 4])).pools["prefill"].replicas
    assert replicas is not None
    assert replicas.starting_since_s == (5, 10)


def test_a_held_pool_has_no_target() -> None:
    assert hook().on_tick(tick(5, 9)) == {"target_prefill": 3, "target_decode": None, "next_tick_ms": 10_000}


def test_the_plain_law_by_hand() -> None:
    """A prompt of 980 tokens takes 118 ms. With 40 tokens more the mean context is 1000 tokens, so that a request adds
    0.2 ms to a step, and 50 fit within 20 ms; 40 tokens * 20 ms / 50 are 16 ms of a replica.
    """
    driven = hook(PlainLaw(sla=Sla(ttft_ms=500, itl_ms=20), profile=PROFILE, max_num_seqs=256))

    def targets(first_s: int, last_s: int, requests: int) -> tuple[int | None, int | None]:
        for at_s in range(first_s, last_s + 1, 5):
            said = driven.on_tick(tick(at_s, requests))
        return said["target_prefill"], said["target_decode"]

    assert targets(5, 55, 500) == (None, None)  # two times 30 s make a trend
    assert targets(60, 60, 500) == (19, 2)  # 100 a second: 1.6 * 100 * 0.118 = 18.9 and 100 * 0.016 = 1.6
    assert targets(65, 300, 250) == (19, 2)  # kept for 240 s
    assert targets(305, 305, 250) == (18, 2)  # (5 * 100 + 50) / 6 = 91.7 a second at 65 s: 17.3 and 1.47
    assert targets(310, 600, 250) == (10, 1)  # 50 a second: 9.4 and 0.8
    # (5 * 50 + 110) / 6 = 60 a second, 10 more than before, within 60 s: 70 are 13.2 and 1.1
    assert targets(605, 605, 550) == (14, 2)
