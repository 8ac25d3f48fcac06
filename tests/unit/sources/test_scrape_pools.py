"""Prefill, decode and aggregated pools, frontends, and vocabularies of one's own."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.snapshot import Observation, PoolSpec, Snapshot
from dynamo_planner.engines.vocabulary import Counter, Gauge, Vocabulary
from dynamo_planner.executors.dry_run import DryRunExecutor
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.sources import ScrapeSource, SourceError
from tests.support.sources.farm import Farm, Vllm


def test_disaggregated_counts_no_request_twice(farm: Farm) -> None:
    """100 requests in 10 s go through prefill (one token each) and then through decode."""
    pools = {"prefill": farm.urls("p0", "p1"), "decode": farm.urls("d0", "d1")}
    source = ScrapeSource(pools, {"prefill": "prefill", "decode": "decode"})
    farm.pages = dict.fromkeys(("p0", "p1", "d0", "d1"), Vllm().page())
    source.observe(0)
    prefill = Vllm(done=45, waiting=5, kv=0.1, ttft_s=(0.3,) * 45, isl=(800,) * 45, osl=(1,) * 45, e2e_s=(0.3,) * 45)
    prefill = prefill.but(hits=100, queries=400)
    decode = Vllm(
        done=40, running=10, kv=0.7, ttft_s=(0.02,) * 50, itl_s=(0.03,) * 99, isl=(801,) * 40, osl=(200,) * 40
    )
    decode = decode.but(e2e_s=(6.0,) * 40, hits=7, queries=9000)
    farm.pages = {"p0": prefill.page(), "p1": prefill.page(), "d0": decode.page(), "d1": decode.page()}
    observation = source.observe(10)
    traffic = observation.traffic
    assert traffic.requests_per_s == pytest.approx(10)
    assert traffic.isl is not None
    assert traffic.osl is not None
    assert traffic.ttft_ms is not None
    assert traffic.itl_ms is not None
    assert (traffic.isl.mean, traffic.isl.count) == (800, 90)
    assert (traffic.osl.mean, traffic.osl.count) == (200, 80)
    assert traffic.ttft_ms.mean == pytest.approx(300)
    assert traffic.itl_ms.mean == pytest.approx(30)
    assert traffic.prefix_hit_rate == pytest.approx(0.25)
    assert traffic.request_duration_s is None
    assert "no worker sees a whole request" in observation.missing["traffic.request_duration_s"]
    pools_seen = observation.pools
    assert (pools_seen["prefill"].queued, pools_seen["decode"].running) == (10, 20)
    assert pools_seen["decode"].kv_usage == pytest.approx(0.7)
    decode_traffic = pools_seen["decode"].traffic
    assert decode_traffic is not None
    assert decode_traffic.requests_per_s == pytest.approx(10), "what this pool's own workers saw"
    assert decode_traffic.request_duration_s is not None


def test_several_aggregated_pools_are_summed(farm: Farm) -> None:
    source = ScrapeSource({"a": farm.urls("a0"), "b": farm.urls("b0")}, {"a": "aggregated", "b": "aggregated"})
    farm.pages = {"a0": Vllm().page(), "b0": Vllm().page()}
    source.observe(0)
    farm.pages = {"a0": Vllm(done=10, isl=(100,) * 10).page(), "b0": Vllm(done=30, isl=(20,) * 30).page()}
    traffic = source.observe(10).traffic
    assert traffic.requests_per_s == pytest.approx(4)
    assert traffic.isl is not None
    assert traffic.isl.mean == pytest.approx((1000 + 600) / 40)


def test_a_pool_that_is_dead_blinds_no_other(farm: Farm) -> None:
    source = ScrapeSource(
        {"prefill": farm.urls("p0"), "decode": farm.urls("d0")}, {"prefill": "prefill", "decode": "decode"}
    )
    farm.pages = {"d0": Vllm(running=3).page()}
    observation = source.observe(0)
    assert observation.pools["decode"].running == 3
    assert (observation.pools["prefill"].coverage, observation.pools["prefill"].observed_at_s) == (0, None)
    assert observation.missing["pools.prefill"] == "none of the 1 workers could be scraped"
    assert observation.missing["traffic.requests_per_s"] == "none of the 1 workers could be scraped"


def test_a_sum_over_some_workers_is_unknown_a_mean_is_not(farm: Farm) -> None:
    """An unknown queue is no empty one."""
    source = ScrapeSource({"workers": farm.urls("w0", "w1")}, {"workers": "aggregated"})
    silent = "".join(
        line
        for line in Vllm().page().splitlines(keepends=True)
        if "num_requests_waiting" not in line and "kv_cache_usage" not in line
    )
    farm.pages = {"w0": Vllm(waiting=9, kv=0.6).page(), "w1": silent}
    observation = source.observe(0)
    pool = observation.pools["workers"]
    assert (pool.queued, pool.kv_usage, pool.running, pool.coverage) == (None, 0.6, 0, 1)
    assert observation.missing["pools.workers.queued"] == "vllm:num_requests_waiting is not on its page (w1)"
    assert "pools.workers.kv_usage" not in observation.missing


class Frontend:
    def __init__(self, traffic: Traffic | Exception) -> None:
        self.traffic = traffic

    def observe(self, at_s: float) -> Observation:
        if isinstance(self.traffic, Exception):
            raise self.traffic
        return Observation(traffic=self.traffic, missing={"traffic.osl": "the frontend does not say"})


def test_a_frontend_knows_better(farm: Farm) -> None:
    frontend = Frontend(Traffic(observed_at_s=10, window_s=30, requests_per_s=7, queued=4))
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"}, frontend=frontend)
    farm.pages = {"w0": Vllm().page()}
    source.observe(0)
    farm.pages = {"w0": Vllm(done=50, isl=(9,) * 50).page()}
    observation = source.observe(10)
    traffic = observation.traffic
    assert (traffic.requests_per_s, traffic.queued, traffic.window_s) == (7, 4, 30)
    assert traffic.isl is not None, "what it does not know is taken from the workers"
    assert observation.missing["traffic.osl"] == "the frontend does not say"
    assert "traffic.queued" not in observation.missing


@pytest.mark.parametrize("error", [SourceError("no answer"), ZeroDivisionError()], ids=["its own", "any"])
def test_a_frontend_that_fails_blinds_no_worker(error: Exception, farm: Farm) -> None:
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"}, frontend=Frontend(error))
    farm.pages = {"w0": Vllm(running=2).page()}
    observation = source.observe(0)
    assert observation.pools["workers"].running == 2
    assert "the frontend could not be read" in observation.missing["traffic.queued"]


def test_a_frontend_sees_when_no_worker_does(farm: Farm) -> None:
    frontend = Frontend(Traffic(observed_at_s=0, requests_per_s=7))
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"}, frontend=frontend)
    observation = source.observe(0)
    assert observation.traffic.requests_per_s == 7
    assert observation.pools["workers"].coverage == 0


def test_a_vocabulary_of_ones_own(farm: Farm) -> None:
    vocabulary = Vocabulary.model_validate(
        {
            "engine": "mine",
            "pages": ["/stats/metrics"],
            "quantities": {
                "running": {"kind": "gauge", "names": ["mine_busy"]},
                "waiting": {"kind": "gauge", "names": ["mine_queue"]},
                "kv_usage": {"kind": "gauge", "names": ["mine_kv_percent"], "scale": 0.01},
                "completions": {"kind": "counter", "names": ["mine_done_total"]},
            },
        }
    )
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"}, vocabulary=vocabulary)
    farm.pages = {"w0/stats": "mine_busy 1\nmine_queue 0\nmine_kv_percent 40\nmine_done_total 5\n"}
    source.observe(0)
    farm.pages = {"w0/stats": "mine_busy 2\nmine_queue 4\nmine_kv_percent 55\nmine_done_total 20\n"}
    observation = source.observe(10)
    assert observation.traffic.requests_per_s == pytest.approx(2)
    assert observation.pools["workers"].kv_usage == pytest.approx(0.55)
    assert observation.missing["traffic.isl"] == "mine has no metric for it (w0)"
    assert Vocabulary.model_validate_json(vocabulary.model_dump_json()) == vocabulary


def test_a_wrong_vocabulary_is_refused_by_field() -> None:
    with pytest.raises(ValidationError, match=r"quantities\.ttft_ms: a counter cannot give it; use histogram"):
        Vocabulary(engine="mine", quantities={"ttft_ms": Counter(names=("mine_ttft",))})
    with pytest.raises(ValidationError, match=r"quantities\.ttft_sec"):
        Vocabulary.model_validate({"engine": "mine", "quantities": {"ttft_sec": {"kind": "gauge", "names": ["x"]}}})
    with pytest.raises(ValidationError, match="names"):
        Gauge(names=())


def test_endpoints_are_checked_before_anything_is_asked(farm: Farm) -> None:
    roles = {"workers": "aggregated"}
    for endpoints, message in (
        ({"others": {}}, "endpoints: 'others' is in no role; roles has workers"),
        ({"workers": {"w0": "127.0.0.1:8000"}}, r"endpoints.workers.w0: .* is not an http"),
        ({"workers": {"w0": "file:///etc/passwd"}}, "is not an http"),
        (
            {"workers": {"w0": "http://me:secret@h:1"}},
            "the URL that ends in 'h:1' holds a user name or password: leave it out",
        ),
        ({"workers": {"w0": "http://me:secret@h:99999999"}}, "holds a user name or password"),
        ({"workers": {"w0": 8000}}, "8000 is not a URL"),
        ({"workers": {"w0": "http://h:1/?key=1"}}, "query"),
        ({"workers": {"w0": "http://h:99999999"}}, "is not a URL"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            ScrapeSource(endpoints, roles)  # type: ignore[arg-type]
        assert "secret" not in str(refused.value)
        with pytest.raises(SourceError, match=message):
            ScrapeSource(lambda endpoints=endpoints: endpoints, roles).observe(0)  # type: ignore[misc, arg-type]
    with pytest.raises(SourceError, match="the workers' endpoints could not be listed: OSError: gone"):
        ScrapeSource(lambda: (_ for _ in ()).throw(OSError("gone")), roles).observe(0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="window_s must be a positive number, got 0"):
        ScrapeSource({}, roles, window_s=0)  # type: ignore[arg-type]


def test_in_the_loop(farm: Farm) -> None:
    specs = {"workers": PoolSpec(role="aggregated", max_replicas=9)}
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"})
    now = [0.0]
    planner = Planner(
        lambda snapshot: {"workers": int((snapshot.traffic.requests_per_s or 10) / 2)},
        source,
        DryRunExecutor(specs),
        clock=lambda: now[-1],
    )
    farm.pages = {"w0": Vllm().page()}
    planner.step()
    now.append(10.0)
    farm.pages = {"w0": Vllm(done=60).page()}
    step = planner.step()
    assert step.decision.targets == {"workers": 3}
    assert step.snapshot.pools["workers"].coverage == 1
    assert Snapshot.model_validate_json(step.snapshot.model_dump_json()) == step.snapshot
