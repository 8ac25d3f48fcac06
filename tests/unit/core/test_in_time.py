"""The share of requests in time: values worked by hand, and the law that the truth lies within the bounds."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner import Dist, PoolSpec, PoolStatus, Share, Sla, Snapshot, Traffic, WorkerStatus, share_in_time
from dynamo_planner.core.metrics import InTime
from dynamo_planner.core.share import cumulative_shares, share_within
from tests.support.laws import examples

SLA = Sla(ttft_ms=2000, itl_ms=25)
TTFT = Dist(mean=900, count=240, buckets={1000: 0.8, 2500: 1})
ITL = Dist(mean=20, buckets={25: 0.9, 50: 1})
TRAFFIC = Traffic(window_s=30, requests_per_s=10, ttft_ms=TTFT, itl_ms=ITL)
VLLM_TTFT_S = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
    2560,
)

TOLERANCE = 2e-6
"""Shares are kept to six decimal places."""

searched = examples(200)


def approx(share: Share | None) -> object:
    return pytest.approx(share, abs=TOLERANCE)


def snapshot(traffic: Traffic = TRAFFIC, **queued: float | None) -> Snapshot:
    roles = {"prefill": "prefill", "decode": "decode"}
    pools = {
        name: PoolStatus(spec=PoolSpec(role=roles.get(name, "aggregated")), replicas=2, queued=value)
        for name, value in queued.items()
    }
    return Snapshot(at_s=0, traffic=traffic, pools=pools)


@pytest.mark.parametrize(
    ("dist", "target", "share"),
    [
        (Dist(mean=1, buckets={1000: 0.6, 2500: 0.9}), 2000, (0.8, 0.6, 0.9)),
        (Dist(mean=1, buckets={1000: 0.6, 2500: 0.9}), 2500, (0.9, 0.9, 0.9)),
        (Dist(mean=1, buckets={1000: 0.6, 2500: 0.9}), 500, (0.3, 0.0, 0.6)),
        (Dist(mean=1, buckets={1000: 0.6, 2500: 0.9}), 9000, (0.9, 0.9, 1.0)),  # of the rest nothing is known
        (Dist(mean=1, buckets={1000: 0.6, 2500: 1.0}), 9000, (1.0, 1.0, 1.0)),
        (Dist(mean=1, quantiles={0.5: 100, 0.9: 300}), 200, (0.7, 0.5, 0.9)),
        (Dist(mean=1, quantiles={0.5: 100, 0.9: 300}), 400, (0.9, 0.9, 1.0)),
        (Dist(mean=1, quantiles={0.5: 100, 0.9: 100}), 100, (0.9, 0.9, 0.9)),
        (Dist(mean=1, quantiles={0.9: 300}, buckets={200: 0.5, 400: 1.0}), 300, (0.75, 0.5, 1.0)),
    ],
)
def test_share_within_worked_by_hand(dist: Dist, target: float, share: tuple[float, float, float]) -> None:
    assert dist.share_within(target) == approx(Share(*share))


def test_a_mean_alone_gives_no_share() -> None:
    assert Dist(mean=100).share_within(200) is None
    assert share_in_time(snapshot(TRAFFIC.replace(itl_ms=Dist(mean=20))), SLA) is None
    assert share_in_time(Snapshot(at_s=0), SLA) is None


@searched
@given(
    st.lists(st.floats(0.0005, 3000), min_size=1, max_size=60),
    st.lists(st.sampled_from(VLLM_TTFT_S), unique=True, min_size=1),
    st.floats(0.001, 4000) | st.sampled_from(VLLM_TTFT_S),
)
def test_the_true_share_lies_within_the_bounds(values: list[float], bounds: list[float], target: float) -> None:
    counts = {bound: float(sum(value <= bound for value in values)) for bound in sorted(bounds)}
    kept = cumulative_shares(counts, len(values))
    every = {bound: count / len(values) for bound, count in counts.items()}
    share = share_within(kept, target)
    truth = sum(value <= target for value in values) / len(values)
    assert share.lower - TOLERANCE <= truth <= share.upper + TOLERANCE
    assert share.lower <= share.estimate <= share.upper
    assert share == approx(share_within(every, target)), "what is left out adds something"
    dist = Dist(mean=1, buckets=kept)
    assert Dist.model_validate_json(dist.model_dump_json()) == dist


def test_buckets_stay_small() -> None:
    """A thousand values over three decades in all of vLLM's buckets; and what repeated bounds cost: nothing."""
    counts = {1e3 * bound: 1000 * min(1.0, bound / 10) for bound in VLLM_TTFT_S}
    assert len(Dist(mean=1, buckets=cumulative_shares(counts, 1000)).model_dump_json()) < 450
    narrow = {1e3 * bound: 1000.0 * (bound >= 0.5) for bound in VLLM_TTFT_S}
    assert cumulative_shares(narrow, 1000) == {250.0: 0.0, 500.0: 1.0}


# All requests of a service


def test_served_requests_meet_both_targets_by_the_bounds_of_frechet() -> None:
    """TTFT: 0.8 + 0.2 x 2/3 within 2 s, at least 0.8; ITL 0.9: at least 0.7, at most 0.9 meet both."""
    assert share_in_time(snapshot(), SLA) == approx(Share(0.84, 0.7, 0.9))


def test_what_a_source_counts_for_these_targets_is_exact() -> None:
    known = InTime(ttft_ms=2000, itl_ms=25, share=0.75)
    assert share_in_time(snapshot(TRAFFIC.replace(in_time=known)), SLA) == approx(Share(0.75, 0.75, 0.75))
    other = InTime(ttft_ms=500, itl_ms=25, share=0.1)
    assert share_in_time(snapshot(TRAFFIC.replace(in_time=other)), SLA) == approx(Share(0.84, 0.7, 0.9))


def test_requests_that_wait_past_the_target_are_missed_at_once() -> None:
    """10 requests/s and 2 s: 20 of the 160 can be young, 140 are overdue, and all 160 may be."""
    exact = TRAFFIC.replace(in_time=InTime(ttft_ms=2000, itl_ms=25, share=0.9))
    found = share_in_time(snapshot(exact, workers=160), SLA)
    assert found == approx(Share(216 / 380, 216 / 400, 0.9))
    assert found == approx(share_in_time(snapshot(exact.replace(queued=160)), SLA)), "wherever they wait"


def test_more_that_wait_than_came_in_the_window_are_overdue_for_certain() -> None:
    """300 came in 30 s, and 500 wait: 200 at least are older than 30 s, and 480 by their order."""
    exact = TRAFFIC.replace(in_time=InTime(ttft_ms=2000, itl_ms=25, share=0.9))
    assert share_in_time(snapshot(exact, workers=500), SLA) == approx(Share(216 / 720, 216 / 740, 216 / 440))
    preempted = exact.replace(preemptions_per_s=1)  # 30 of the 500 may have had their first token
    assert share_in_time(snapshot(preempted, workers=500), SLA) == approx(Share(216 / 720, 216 / 740, 216 / 410))
    longer = Sla(ttft_ms=60_000, itl_ms=25)  # than the window: all of them may be young
    found = share_in_time(
        snapshot(exact.replace(in_time=InTime(ttft_ms=60_000, itl_ms=25, share=0.9)), workers=500), longer
    )
    assert found == approx(Share(0.9, 216 / 740, 0.9))


def test_a_queue_that_is_uneven_is_overdue_at_one_worker() -> None:
    """20 young requests, 10 for each of two workers: of 30 and 0 that wait, 20 are overdue; of 10 and 10 none."""
    exact = TRAFFIC.replace(in_time=InTime(ttft_ms=2000, itl_ms=25, share=1.0))
    for queues, overdue in (((30.0, 0.0), 20), ((10.0, 10.0), 0)):
        workers = tuple(WorkerStatus(name=str(n), queued=queue) for n, queue in enumerate(queues))
        pool = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=2, queued=sum(queues), workers=workers)
        found = share_in_time(Snapshot(at_s=0, traffic=exact, pools={"workers": pool}), SLA)
        assert found is not None
        assert found.estimate == pytest.approx(240 / (240 + overdue))


def test_the_young_are_in_front() -> None:
    """20 are young: 15 in front, 5 of the 10 in prefill; 5 there and 30 in decode are overdue."""
    exact = TRAFFIC.replace(in_time=InTime(ttft_ms=2000, itl_ms=25, share=1.0), queued=15)
    found = share_in_time(snapshot(exact, decode=30, prefill=10), SLA)
    assert found == approx(Share(240 / 275, 240 / 295, 1.0))


def test_requests_that_were_turned_away_are_missed() -> None:
    exact = TRAFFIC.replace(in_time=InTime(ttft_ms=2000, itl_ms=25, share=0.9), rejected_per_s=2)
    assert share_in_time(snapshot(exact), SLA) == approx(Share(0.72, 0.72, 0.72))  # 60 of 300


def test_requests_that_were_given_up_are_missed() -> None:
    """60 were: at the least they are among the 216 that were in time, at the most among the 24 that were late."""
    exact = TRAFFIC.replace(in_time=InTime(ttft_ms=2000, itl_ms=25, share=0.9), aborted_per_s=2)
    assert share_in_time(snapshot(exact), SLA) == approx(Share(216 / 300, 156 / 240, 216 / 240))


def test_where_arrivals_are_unknown_all_that_wait_are_overdue() -> None:
    exact = TRAFFIC.replace(in_time=InTime(ttft_ms=2000, itl_ms=25, share=0.9), requests_per_s=None)
    assert share_in_time(snapshot(exact, workers=60), SLA) == approx(Share(0.72, 0.72, 0.9))


def test_an_unknown_queue_makes_the_share_unknown() -> None:
    assert share_in_time(snapshot(workers=None), SLA) is None
    idle = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=0)
    assert share_in_time(Snapshot(at_s=0, traffic=TRAFFIC, pools={"workers": idle}), SLA) is not None


def test_a_service_that_stands_still_serves_nothing_in_time() -> None:
    still = TRAFFIC.replace(ttft_ms=None, itl_ms=None)
    assert share_in_time(snapshot(still, workers=300), SLA) == Share(0.0, 0.0, 1.0)
    assert share_in_time(snapshot(still, workers=100), SLA) is None, "some were served, and their TTFT is unknown"


def test_requests_of_a_single_token_meet_the_itl() -> None:
    """8 of 10 have no ITL, and the other two are late: at most 8 met both."""
    traffic = TRAFFIC.replace(
        ttft_ms=Dist(mean=1, count=10, buckets={2000: 1.0}), itl_ms=Dist(mean=40, count=2, buckets={25: 0.0, 50: 1.0})
    )
    found = share_in_time(snapshot(traffic), SLA)
    assert found == approx(Share(0.0, 0.0, 0.8))


# The law: the truth of drawn requests lies within the bounds

BOUNDS_MS = (500.0, 1000.0, 2500.0, 5000.0)
ITL_BOUNDS_MS = (10.0, 20.0, 40.0)
latency = st.floats(0, 8000)


def buckets(values: list[float], bounds: tuple[float, ...]) -> dict[float, float]:
    return cumulative_shares({bound: float(sum(value <= bound for value in values)) for bound in bounds}, len(values))


@searched
@given(
    served=st.lists(st.tuples(latency, st.floats(0, 60) | st.none()), min_size=1, max_size=20),
    ages_s=st.lists(st.floats(0, 60), max_size=20),
    rejected=st.integers(0, 5),
    aborted=st.integers(0, 5),
    of_served=st.integers(0, 5),
    ttft_ms=latency.filter(bool),
    parts=st.integers(1, 3),
)
def test_the_truth_lies_within_the_bounds(
    served: list[tuple[float, float | None]],
    ages_s: list[float],
    rejected: int,
    aborted: int,
    of_served: int,
    ttft_ms: float,
    parts: int,
) -> None:
    """Requests that were served in the last 30 s and came in it, others that wait, for any time, some that were
    rejected, and some that were given up, before or after their first token."""
    broken = min(of_served, len(served))
    served = [(ttft, None if n < broken else itl) for n, (ttft, itl) in enumerate(served)]
    sla = Sla(ttft_ms=ttft_ms, itl_ms=25)
    itls = [itl for _, itl in served if itl is not None]
    traffic = Traffic(
        window_s=30,
        requests_per_s=(len(served) + sum(age < 30 for age in ages_s)) / 30,
        rejected_per_s=rejected / 30,
        aborted_per_s=(aborted + broken) / 30,
        ttft_ms=Dist(mean=1, count=len(served), buckets=buckets([ttft for ttft, _ in served], BOUNDS_MS)),
        itl_ms=Dist(mean=1, count=len(itls), buckets=buckets(itls, ITL_BOUNDS_MS)) if itls else None,
    )
    split = [*list(accumulate([len(ages_s) // parts] * (parts - 1), initial=0)), len(ages_s)]
    workers = tuple(WorkerStatus(name=str(n), queued=until - start) for n, (start, until) in enumerate(pairwise(split)))
    pool = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=parts, queued=len(ages_s), workers=workers)
    found = share_in_time(Snapshot(at_s=0, traffic=traffic, pools={"workers": pool}), sla)
    if found is None:
        assert not itls
        return
    good = sum(ttft <= ttft_ms and (itl is None or itl <= 25) for ttft, itl in served[broken:])
    overdue = sum(1000 * age > ttft_ms for age in ages_s)
    truth = good / (len(served) + overdue + rejected + aborted)
    assert found.lower - TOLERANCE <= truth <= found.upper + TOLERANCE
    assert found.lower - TOLERANCE <= found.estimate <= found.upper + TOLERANCE
