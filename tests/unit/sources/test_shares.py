"""Shares of requests in time from scraped pages, and what a snapshot with buckets costs."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner import PoolSpec, Replicas, Share, Sla, Snapshot, share_in_time
from dynamo_planner.core.share import DIGITS
from dynamo_planner.core.snapshot import Observation, PoolStatus
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.engine.step_time import LinearTiming
from dynamo_planner.simulator.setup import ClusterSetup, MetricsSetup
from dynamo_planner.sources import ScrapeSource
from dynamo_planner.workloads.generators import LogNormalLengths, poisson
from tests.support.sources.engine_cases import SGLANG
from tests.support.sources.farm import Farm, Vllm

IDLE = Vllm(running=2, waiting=1, done=5, ttft_s=(0.3,), itl_s=(0.05, 0.06))
BUSY = IDLE.but(
    running=4, waiting=6, done=11, ttft_s=(*IDLE.ttft_s, 0.2, 0.4, 0.9, 3.0), itl_s=(*IDLE.itl_s, 0.02, 0.03, 0.04, 0.6)
)
SPEC = PoolSpec(role="aggregated")


def observed(farm: Farm, *pages: dict[str, Vllm], step_s: float = 10.0) -> Observation:
    """The last observation of pages that are scraped one after the other."""
    source = ScrapeSource({"workers": farm.urls(*pages[0])}, {"workers": "aggregated"})
    for number, workers in enumerate(pages):
        farm.pages.update({name: worker.page() for name, worker in workers.items()})
        found = source.observe(1000.0 + step_s * number)
    return found


def as_snapshot(observation: Observation) -> Snapshot:
    pools = {
        name: PoolStatus(spec=SPEC, replicas=Replicas(ready=1), **dict(pool))
        for name, pool in observation.pools.items()
    }
    return Snapshot(at_s=1010.0, traffic=observation.traffic, pools=pools, missing=observation.missing)


def test_two_pages_give_the_shares_worked_by_hand(farm: Farm) -> None:
    """TTFT: 0.2, 0.4, 0.9 and 3 s, in buckets up to 0.1, 0.5, 1 and 5 s: 3/4 within 1 s, all within 5 s."""
    traffic = observed(farm, {"w0": IDLE}, {"w0": BUSY}).traffic
    assert traffic.ttft_ms is not None
    assert traffic.ttft_ms.buckets == {100.0: 0.0, 500.0: 0.5, 1000.0: 0.75, 5000.0: 1.0}
    assert traffic.ttft_ms.share_within(2000) == pytest.approx(Share(0.8125, 0.75, 1.0))
    assert traffic.isl is None or not traffic.isl.buckets


def test_workers_of_which_one_began_anew_add_up(farm: Farm) -> None:
    """One has two more requests within 0.5 s, and the other began since and has one of 3 s: 2/3."""
    before = {"w0": IDLE, "w1": BUSY.but(started_s=100.0)}
    after = {
        "w0": IDLE.but(done=7, ttft_s=(*IDLE.ttft_s, 0.2, 0.4)),
        "w1": Vllm(done=1, ttft_s=(3.0,), started_s=1005.0),
    }
    traffic = observed(farm, before, after).traffic
    assert traffic.ttft_ms is not None
    assert traffic.ttft_ms.share_within(1000) == pytest.approx(Share(2 / 3, 2 / 3, 2 / 3), abs=10.0**-DIGITS)


def test_the_share_falls_while_a_queue_grows_and_no_first_token_tells_of_it(farm: Farm) -> None:
    """300 requests came in 10 s, 200 of them wait: of 30/s 30 are younger than 1 s, so that 170 are overdue."""
    shares = []
    for waiting in (0.0, 200.0):
        after = Vllm(done=100, running=100 - waiting / 2, waiting=waiting, ttft_s=(0.4,) * 100, itl_s=(0.02,) * 100)
        share = share_in_time(as_snapshot(observed(farm, {"w0": Vllm()}, {"w0": after})), Sla(ttft_ms=1000, itl_ms=100))
        assert share is not None
        shares.append(share)
    quiet, growing = shares
    assert quiet == pytest.approx(Share(1.0, 1.0, 1.0))
    came = 100 + 200  # and none is running
    assert growing.estimate == pytest.approx(100 / (100 + 200 - came / 10))
    assert growing.lower == pytest.approx(100 / 300)


def test_sglang_counts_requests_that_were_given_up(farm: Farm) -> None:
    """Four in ten seconds. Without the counter on the page its rate is unknown."""

    def aborted(number: int) -> str:
        return f'sglang:num_aborted_requests_total{{engine_type="unified",model_name="tiny"}} {number}\n'

    for counters, rate in (((aborted(3), aborted(7)), 0.4), (("", ""), None)):
        source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"})
        for at_s, page, counter in zip((1000.0, 1010.0), (SGLANG.before, SGLANG.after), counters, strict=True):
            farm.pages["w0"] = page["/metrics"] + counter
            observation = source.observe(at_s)
        assert observation.traffic.aborted_per_s == rate
        assert (rate is None) == ("traffic.aborted_per_s" in observation.missing)


def test_what_is_scraped_agrees_with_the_simulated_truth(farm: Farm) -> None:
    """A simulated cluster that is too small; its requests on a page of vLLM's; both bound the share that it counts."""
    sla = Sla(ttft_ms=1000, itl_ms=30)
    lengths = LogNormalLengths(median=400, mean=500, maximum=2000)
    trace = poisson(12, 60, 3, lengths, lengths.scaled(0.2))
    timing = LinearTiming(base_ms=8, prefill_ms_per_token=0.12, kv_ms_per_token=2e-4)
    metrics = MetricsSetup(window_s=40, sla=sla)
    setup = ClusterSetup.aggregated(timing, 1, kv_tokens=60_000, max_num_seqs=32, metrics=metrics)
    cluster = SimulatedCluster(setup, trace, compiled=False)
    cluster.advance(10)
    cluster.source.observe(cluster.now_s)
    cluster.advance(40)
    seen = cluster.source.observe(cluster.now_s)
    exact = share_in_time(as_snapshot(seen), sla)
    bounded = share_in_time(as_snapshot(seen.replace(traffic=seen.traffic.replace(in_time=None))), sla)
    served = cluster.served()

    def page(until_s: float) -> Vllm:
        first = served.ttft_ms[served.arrival_s + served.ttft_ms / 1e3 <= until_s] / 1e3
        ended = served.finished_s <= until_s
        itl = served.itl_ms[ended & (served.osl > 1)] / 1e3
        waiting = int((served.arrival_s <= until_s).sum() - len(first))
        return Vllm(
            done=int(ended.sum()),
            waiting=waiting,
            running=int(len(first) - ended.sum()),
            ttft_s=tuple(first.tolist()),
            itl_s=tuple(itl.tolist()),
        )

    scraped = observed(farm, {"w0": page(10.0)}, {"w0": page(50.0)}, step_s=40.0)
    from_pages = share_in_time(as_snapshot(scraped), sla)

    def truth() -> float:
        """In time of those that ended from 10 to 50 s, or wait for longer than the target at 50 s."""
        first_s = served.arrival_s + served.ttft_ms / 1e3
        in_window = (served.finished_s > 10) & (served.finished_s <= 50)
        unserved = ~(first_s <= 50)
        overdue = unserved & (served.arrival_s < 50 - sla.ttft_ms / 1e3)
        return float((served.meets(sla) & in_window).sum() / (in_window.sum() + overdue.sum()))

    assert exact is not None and bounded is not None and from_pages is not None
    assert 0.02 < truth() < 0.9, "the load is wrong for this test"
    assert seen.traffic.in_time is not None
    assert seen.traffic.ttft_ms is not None and scraped.traffic.ttft_ms is not None
    assert seen.traffic.ttft_ms.mean == pytest.approx(scraped.traffic.ttft_ms.mean, rel=1e-6)
    for share in (exact, bounded, from_pages):
        assert share.lower - 0.03 <= truth() <= share.upper + 0.03  # requests that have a first token and no last one
    assert exact.estimate == pytest.approx(truth(), abs=0.05)
    ttft = np.asarray(served.ttft_ms)[(served.arrival_s + served.ttft_ms / 1e3 > 10) & np.isfinite(served.ttft_ms)]
    for dist in (seen.traffic.ttft_ms, scraped.traffic.ttft_ms):
        within = dist.share_within(sla.ttft_ms)
        assert within is not None
        assert within.lower - 1e-6 <= float((ttft <= sla.ttft_ms).mean()) <= within.upper + 1e-6


def test_a_snapshot_stays_small(farm: Farm) -> None:
    """The buckets of TTFT and ITL, of the service and of its pool."""
    snapshot = as_snapshot(observed(farm, {"w0": IDLE}, {"w0": BUSY}))
    assert len(snapshot.model_dump_json()) < 4500
    assert Snapshot.model_validate_json(snapshot.model_dump_json()) == snapshot
