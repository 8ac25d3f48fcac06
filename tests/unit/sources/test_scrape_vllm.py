"""What is read off vLLM's pages equals what is worked out by hand, and a metric that is gone blinds nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.sources import ScrapeSource
from tests.support.paths import DATA
from tests.support.sources.by_hand import STAGES, worked_out
from tests.support.sources.farm import Farm, Vllm

CAPTURED = DATA / "metrics"

IDLE = Vllm(running=2, waiting=1, done=5, hits=10, queries=40, ttft_s=(0.3,), itl_s=(0.05, 0.06), isl=(50,), osl=(7,))
BUSY = IDLE.but(
    running=4,
    waiting=6,
    kv=0.8,
    done=11,
    aborted=2,
    hits=70,
    preempted=3,
    rejected=5,
    queries=140,
    ttft_s=(*IDLE.ttft_s, 0.2, 0.4, 0.9, 3.0),
    itl_s=(*IDLE.itl_s, 0.02, 0.03, 0.04, 0.6),
    isl=(*IDLE.isl, 5, 80, 800),
    osl=(*IDLE.osl, 20, 200, 300),
    e2e_s=(0.5, 4.0),
    queue_s=(0.1, 0.2, 0.6),
    prefill_s=(0.05, 0.25),
    decode_s=(1.0, 4.0),
)


OF_POOL = ("running", "queued", "kv_usage", "kv_usage_max", "kv_capacity_tokens", "asleep")


def observe_two(farm: Farm, before: str, after: str, seconds: float = 10.0) -> Observation:
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"})
    farm.pages["w0"] = before
    source.observe(1000.0)
    farm.pages["w0"] = after
    return source.observe(1000.0 + seconds)


def as_plain(value: Any) -> Any:
    if isinstance(value, Dist):
        quantiles = {str(share): quantile for share, quantile in value.quantiles.items()}
        return {"count": value.count, "mean": value.mean, **quantiles}
    return value


def told(observation: Observation) -> dict[str, Any]:
    """All that was told of the one pool, and of the service, which must be the same."""
    pool = observation.pools["workers"]
    rates = ("requests_per_s", "rejected_per_s", "preemptions_per_s", "prefix_hit_rate")
    names = (*rates, "ttft_ms", "itl_ms", "token_gap_ms", "isl", "osl", "request_duration_s")
    assert pool.traffic is not None
    for name in names:
        assert getattr(observation.traffic, name) == getattr(pool.traffic, name)
    values = {name: getattr(pool, name) for name in OF_POOL}
    traffic, stages = pool.traffic, pool.stages
    return (
        values
        | {name: as_plain(getattr(traffic, name)) for name in names}
        | {name: as_plain(getattr(stages, name)) for name in STAGES}
    )


def test_two_pages_equal_what_is_worked_out_by_hand(farm: Farm) -> None:
    expected = worked_out(IDLE.page(), BUSY.page(), 10)
    found = told(observe_two(farm, IDLE.page(), BUSY.page()))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


def test_golden_values(farm: Farm) -> None:
    """The same in numbers that can be checked in the head.

    Arrivals: 6 + 2 ended and 10 - 3 more are inside, in 10 s. TTFT: 0.2, 0.4, 0.9 and 3 s, in buckets up to 0.1, 0.5,
    1 and 5 s: the median is the end of the second bucket, and the 99th percentile lies 0.96 into the last one.
    """
    observation = observe_two(farm, IDLE.page(), BUSY.page())
    traffic, pool = observation.traffic, observation.pools["workers"]
    assert traffic.requests_per_s == pytest.approx(1.5)
    assert (traffic.rejected_per_s, traffic.preemptions_per_s) == pytest.approx((0.5, 0.3))
    assert traffic.prefix_hit_rate == pytest.approx(0.6)
    assert as_plain(traffic.ttft_ms) == pytest.approx({"count": 4, "mean": 1125, "0.5": 500, "0.9": 3400, "0.99": 4840})
    assert traffic.isl is not None
    assert traffic.isl.mean == 295
    assert (traffic.window_s, traffic.observed_at_s) == (10, 1010)
    assert (pool.running, pool.queued, pool.kv_usage, pool.kv_capacity_tokens) == (4, 6, 0.8, 16_000)
    assert (pool.coverage, pool.observed_at_s) == (1, 1010)
    stages = (pool.stages.queue_ms, pool.stages.prefill_ms, pool.stages.decode_ms)
    assert [(dist.mean, dist.count) for dist in stages if dist] == [(pytest.approx(300), 3), (150, 2), (2500, 2)]
    (worker,) = pool.workers
    assert (worker.name, worker.queued, worker.running, worker.kv_usage) == ("w0", 6, 4, 0.8)
    assert (worker.kv_capacity_tokens, worker.observed_at_s) == (16_000, 1010)


def test_captured_pages_of_vllm(farm: Farm) -> None:
    """From under load to idle: golden values taken off the two captures (vLLM 0.32) with a calculator."""
    before, after = ((CAPTURED / f"{name}.prom").read_text() for name in ("vllm", "vllm_idle"))
    found = told(observe_two(farm, before, after, seconds=8.0))
    for name, value in worked_out(before, after, 8.0).items():
        assert found[name] == pytest.approx(value), name
    assert found["requests_per_s"] == pytest.approx((16 - 16) / 8)
    assert found["ttft_ms"]["mean"] == pytest.approx(1000 * (25.857340574264526 - 5.519475698471069) / 12)
    assert found["itl_ms"]["count"] == 16, "one value a request, and not one of the 1538 gaps"
    assert found["isl"]["mean"] == 152
    assert found["osl"]["mean"] == 120
    assert found["prefix_hit_rate"] == pytest.approx(1536 / 1824)
    assert found["kv_capacity_tokens"] == 2_097_152


METRICS = {
    "vllm:num_requests_running": {"running", "requests_per_s"},
    "vllm:num_requests_waiting": {"queued", "requests_per_s"},
    "vllm:kv_cache_usage_perc": {"kv_usage", "kv_usage_max"},
    "vllm:engine_sleep_state": {"asleep"},
    "vllm:cache_config_info": {"kv_capacity_tokens"},
    "vllm:request_success": {"requests_per_s"},
    "vllm:prefix_cache_hits": {"prefix_hit_rate"},
    "vllm:prefix_cache_queries": {"prefix_hit_rate"},
    "vllm:admission_rejections": {"rejected_per_s"},
    "vllm:num_preemptions": {"preemptions_per_s"},
    "vllm:time_to_first_token_seconds": {"ttft_ms"},
    "vllm:inter_token_latency_seconds": {"itl_ms", "token_gap_ms"},
    "vllm:request_prompt_tokens": {"isl"},
    "vllm:request_generation_tokens": {"osl"},
    "vllm:e2e_request_latency_seconds": {"request_duration_s"},
    "vllm:request_queue_time_seconds": {"queue_ms"},
    "vllm:request_prefill_time_seconds": {"prefill_ms"},
    "vllm:request_decode_time_seconds": {"decode_ms"},
}
"""What each metric is needed for. Arrivals need three: counting completions alone would hide an overload."""


@pytest.mark.parametrize("change", ["dropped", "renamed", "not a number", "negative"])
@pytest.mark.parametrize(("metric", "fields"), METRICS.items(), ids=METRICS)
def test_a_metric_that_is_gone_is_unknown_and_named_and_nothing_else_is(
    metric: str, fields: set[str], change: str, farm: Farm
) -> None:
    def changed(page: str) -> str:
        if change == "dropped":
            return "".join(line for line in page.splitlines(keepends=True) if metric not in line)
        if change == "renamed":
            return page.replace(metric, f"{metric}_v2")
        if metric == "vllm:cache_config_info":
            return page.replace(
                'num_gpu_blocks="1000"', f'num_gpu_blocks="{"None" if change == "not a number" else -1}"'
            )
        value = "NaN" if change == "not a number" else "-1"
        return re.sub(rf"^({metric}(?:_total|_sum)?\{{.*) \S+$", rf"\1 {value}", page, flags=re.MULTILINE)

    whole = told(observe_two(farm, IDLE.page(), BUSY.page()))
    observation = observe_two(farm, changed(IDLE.page()), changed(BUSY.page()))
    found = told(observation)
    assert {name for name in whole if found[name] is None and whole[name] is not None} == fields
    assert {name: found[name] for name in whole if name not in fields} == {
        name: value for name, value in whole.items() if name not in fields
    }
    for name in fields:
        keys = [f"pools.workers.{name}"] if name in OF_POOL else [f"traffic.{name}", f"pools.workers.traffic.{name}"]
        keys = [f"pools.workers.stages.{name}"] if name in STAGES else keys
        for key in keys:
            assert metric in observation.missing[key], key
            assert "w0" in observation.missing[key], key


def older(page: str) -> str:
    """A page as vLLM of an older release has it."""
    for new, old in (
        ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        ("vllm:prefix_cache_", "vllm:gpu_prefix_cache_"),
        ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    ):
        page = page.replace(new, old)
    return page


def test_older_names(farm: Farm) -> None:
    newer = observe_two(farm, IDLE.page(), BUSY.page())
    assert observe_two(farm, older(IDLE.page()), older(BUSY.page())) == newer
    both = observe_two(farm, IDLE.page() + older(IDLE.page()), BUSY.page() + older(BUSY.page()))
    assert both == newer, "where an engine gives both names, the newer one is read"


def test_two_versions_in_one_pool_while_an_upgrade_rolls(farm: Farm) -> None:
    """The old worker gives 30 tokens 20 ms apart, the new one 10 of 40 ms: 25 ms on average."""
    source = ScrapeSource({"workers": farm.urls("w0", "w1")}, {"workers": "aggregated"})
    farm.pages = {"w0": older(IDLE.page()), "w1": IDLE.page()}
    source.observe(1000)
    old, new = (
        IDLE.but(kv=0.2, itl_s=(*IDLE.itl_s, *(0.02,) * 30)),
        IDLE.but(kv=0.6, itl_s=(*IDLE.itl_s, *(0.04,) * 10)),
    )
    farm.pages = {"w0": older(old.page()), "w1": new.page()}
    pool = source.observe(1010).pools["workers"]
    assert pool.traffic is not None
    assert pool.traffic.itl_ms is not None
    assert pool.traffic.itl_ms.mean == pytest.approx(25)
    assert pool.kv_usage == pytest.approx(0.4)


def test_several_label_sets_are_summed_before_dividing(farm: Farm) -> None:
    """Two engines in one worker: KV usage is their mean, and all else is of both together."""
    first, second = IDLE.but(engine="0"), Vllm(engine="1", kv=0.1)
    after = (BUSY, second.but(running=1, done=9, hits=30, queries=300, kv=0.2, isl=(10,) * 9, ttft_s=(0.5,) * 4))
    found = told(observe_two(farm, first.page() + second.page(), "".join(each.page() for each in after)))
    assert found["prefix_hit_rate"] == pytest.approx((60 + 30) / (100 + 300))
    assert found["isl"]["mean"] == pytest.approx((5 + 80 + 800 + 90) / (3 + 9))
    assert found["ttft_ms"]["mean"] == pytest.approx(1000 * (4.5 + 2.0) / 8)
    assert found["requests_per_s"] == pytest.approx((15 + 9 + 1) / 10)
    assert found["kv_usage"] == pytest.approx(0.5)
    assert found["kv_capacity_tokens"] == 32_000
    assert found["running"] == 5


def test_the_first_scrape_tells_gauges_and_why_not_more(farm: Farm) -> None:
    farm.pages["w0"] = BUSY.page()
    observation = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"}).observe(1000)
    pool = observation.pools["workers"]
    assert (pool.running, pool.queued, pool.kv_usage, pool.kv_capacity_tokens) == (4, 6, 0.8, 16_000)
    assert observation.traffic.requests_per_s is None
    for field in ("requests_per_s", "isl", "osl", "ttft_ms", "itl_ms", "prefix_hit_rate", "request_duration_s"):
        assert "two scrapes" in observation.missing[f"traffic.{field}"]


def test_idle_is_zero_and_fresh_and_its_means_are_unknown(farm: Farm) -> None:
    page = BUSY.but(running=0, waiting=0).page()
    observation = observe_two(farm, page, page)
    assert (observation.traffic.requests_per_s, observation.traffic.observed_at_s) == (0, 1010)
    assert (observation.pools["workers"].running, observation.pools["workers"].queued) == (0, 0)
    for field in ("isl", "osl", "ttft_ms", "itl_ms", "prefix_hit_rate", "request_duration_s"):
        assert getattr(observation.traffic, field) is None
        assert observation.missing[f"traffic.{field}"] == "no request finished in the window"


def test_busy_without_completions_is_arrivals_all_the_same(farm: Farm) -> None:
    """Requests that all hang are load, although none is completed."""
    observation = observe_two(farm, IDLE.page(), IDLE.but(waiting=101).page())
    assert observation.traffic.requests_per_s == pytest.approx(10)


def test_a_metric_that_is_declared_and_has_no_series_yet_counts_from_zero(farm: Farm) -> None:
    """Clients make the series of a labelled metric when it is first used."""

    def without_series(page: str) -> str:
        lines = page.splitlines(keepends=True)
        return "".join(line for line in lines if not re.match(r"vllm:request_(success_total|prompt_tokens)", line))

    observation = observe_two(farm, without_series(Vllm().page()), Vllm(done=20, isl=(5, 15)).page())
    assert observation.traffic.requests_per_s == pytest.approx(2)
    assert observation.traffic.isl is not None
    assert (observation.traffic.isl.mean, observation.traffic.isl.count) == (10, 2)


@pytest.mark.parametrize(
    ("kv", "usage"), [(1.0001, 1.0), (1.01, 1.0), (0.0, 0.0), (1.02, None), (83.0, None), (-0.1, None)]
)
def test_kv_usage_is_a_share_or_unknown(kv: float, usage: float | None, farm: Farm) -> None:
    observation = observe_two(farm, IDLE.page(), IDLE.but(kv=kv).page())
    assert observation.pools["workers"].kv_usage == usage
    assert ("pools.workers.kv_usage" in observation.missing) == (usage is None)


def test_quantiles_beyond_the_last_bound_are_at_least_that(farm: Farm) -> None:
    observation = observe_two(farm, Vllm().page(), Vllm(ttft_s=(0.2, 60, 70, 80), done=4).page())
    assert observation.traffic.ttft_ms is not None
    assert observation.traffic.ttft_ms.quantiles[0.9] == 5000
    assert observation.traffic.ttft_ms.mean == pytest.approx(210.2 / 4 * 1000)


def test_no_buckets_no_quantiles(farm: Farm) -> None:
    def bare(page: str) -> str:
        return "".join(line for line in page.splitlines(keepends=True) if "_bucket" not in line)

    traffic = observe_two(farm, bare(IDLE.page()), bare(BUSY.page())).traffic
    assert as_plain(traffic.ttft_ms) == pytest.approx({"count": 4, "mean": 1125})


def without_bounds(page: str, *bounds: str) -> str:
    lines = page.splitlines(keepends=True)
    return "".join(line for line in lines if not any(f'le="{bound}"' in line for bound in bounds))


def test_workers_with_other_buckets_have_the_quantiles_that_both_can_tell(farm: Farm) -> None:
    """0.3, 0.3 and 4 s in buckets up to 0.1, 0.5, 1 and 5 s; 0.7 and 0.7 s in buckets up to 0.5 and 5 s.

    Together: 2 of 5 up to 0.5 s, and 3 up to 5 s.
    """
    source = ScrapeSource({"workers": farm.urls("w0", "w1")}, {"workers": "aggregated"})
    farm.pages = {"w0": Vllm().page(), "w1": without_bounds(Vllm().page(), "0.1", "1.0")}
    source.observe(0)
    other = without_bounds(Vllm(ttft_s=(0.7, 0.7)).page(), "0.1", "1.0")
    farm.pages = {"w0": Vllm(ttft_s=(0.3, 0.3, 4.0)).page(), "w1": other}
    assert as_plain(source.observe(10).traffic.ttft_ms) == pytest.approx(
        {
            "count": 5,
            "mean": 1200,
            "0.5": 500 + 4500 * 0.5 / 3,
            "0.9": 500 + 4500 * 2.5 / 3,
            "0.99": 500 + 4500 * 2.95 / 3,
        }
    )


def test_buckets_that_are_new_since_the_last_page_are_left_out(farm: Farm) -> None:
    """Their counts of before are not known: here, of 4 values up to 1 s, 2 came before the first page."""
    before = "".join(
        line for line in Vllm(ttft_s=(0.7, 0.7)).page().splitlines(keepends=True) if 'le="1.0"' not in line
    )
    traffic = observe_two(farm, before, Vllm(ttft_s=(0.7, 0.7, 0.7, 3.0)).page()).traffic
    assert as_plain(traffic.ttft_ms) == pytest.approx(
        {"count": 2, "mean": 1850, "0.5": 2750, "0.9": 4550, "0.99": 4955}
    ), "both values lie between 0.5 and 5 s, as far as can be told"


def test_a_histogram_without_buckets_that_is_reset(farm: Farm) -> None:
    def bare(started_s: float, isl: tuple[float, ...]) -> str:
        return without_bounds(Vllm(done=9, isl=isl, started_s=started_s).page(), "10", "100", "1000", "+Inf")

    traffic = observe_two(farm, bare(-100, (10, 10, 10)), bare(1003, (50, 70))).traffic
    assert as_plain(traffic.isl) == {"count": 2, "mean": 60}


def test_more_hits_than_queries_are_all_hits(farm: Farm) -> None:
    """The two counters are read at two moments."""
    assert observe_two(farm, Vllm().page(), Vllm(hits=101, queries=100).page()).traffic.prefix_hit_rate == 1


def test_what_cannot_be_known_says_so(farm: Farm) -> None:
    observation = observe_two(farm, IDLE.page(), BUSY.page())
    assert "frontend" in observation.missing["traffic.queued"]
    assert "arrival_dispersion" in "".join(observation.missing)
    assert "vLLM does not count requests that clients give up" in observation.missing["traffic.aborted_per_s"]
    of_service = {"traffic.queued", "traffic.arrival_dispersion", "traffic.aborted_per_s"}
    assert "a KV router in front does" in observation.missing["pools.workers.queued_tokens"]
    of_service |= {"traffic.queued_tokens", "traffic.prefill_tokens"}
    of_pool = {"traffic.aborted_per_s", "stages.transfer_ms", "stages.first_token_ms", "queued_tokens"}
    assert set(observation.missing) == of_service | {f"pools.workers.{name}" for name in of_pool}
