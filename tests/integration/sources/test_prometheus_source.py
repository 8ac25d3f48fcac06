"""What a real Prometheus server with known series tells of a pool equals what they were written to mean.

The series are put into its storage beforehand, every ten seconds and growing evenly, so that the numbers are exact
whatever the server does at the edges of a window.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamo_planner import PoolSpec, Replicas
from dynamo_planner.engines.registry import frontend_vocabularies, worker_vocabularies
from dynamo_planner.sources.history import HistorySource
from tests.support.prometheus_server import ask, line
from tests.support.sources.backfilled import AT, STEP, WINDOW, Served, always, growing, source, target, vllm


def test_a_pool_with_workers_of_two_versions_beside_others_that_are_none_of_its(served: Served) -> None:
    url = served(
        vllm(target("a"), running=2, waiting=1, kv=0.4),
        vllm(target("b"), running=4, waiting=3, kv=0.8, done_per_s=2, old=True),
        vllm(target("c", model_name="other"), running=50),
        vllm({"namespace": "elsewhere", "pod": "d"}, running=70),
    )
    seen = source(url, model="Tiny").observe(AT)
    pool, traffic = seen.pools["workers"], seen.traffic
    assert (pool.running, pool.queued) == (6, 4)
    assert pool.kv_usage == pytest.approx(0.6)
    assert pool.kv_capacity_tokens == 8000
    assert pool.observed_at_s == AT
    assert [worker.name for worker in pool.workers if worker.running is not None] == ["a", "b"]
    assert pool.coverage == 1
    assert traffic == pool.traffic
    assert (traffic.window_s, traffic.observed_at_s) == (WINDOW, AT)
    assert traffic.requests_per_s == pytest.approx(3)
    assert traffic.prefix_hit_rate == pytest.approx(0.25)
    assert traffic.preemptions_per_s == pytest.approx(0.3)
    assert traffic.rejected_per_s == pytest.approx(0.6)
    assert traffic.osl is not None
    assert traffic.osl.mean == pytest.approx(100)
    assert traffic.osl.count == pytest.approx(180)
    assert traffic.ttft_ms is not None
    assert traffic.ttft_ms.mean == pytest.approx(200)
    assert dict(traffic.ttft_ms.quantiles) == {
        0.5: pytest.approx(250),
        0.9: pytest.approx(450),
        0.99: pytest.approx(495),
    }
    assert traffic.isl is None
    assert "vllm:request_prompt_tokens_count" in seen.missing["traffic.isl"]


def test_what_came_but_is_not_done_counts_as_arrived(served: Served) -> None:
    filling = line("vllm:num_requests_waiting", {**target("a"), "model_name": "tiny"}, growing(0.5))
    url = served(vllm(target("a"), done_per_s=1, without=("num_requests_waiting",)), iter(filling))
    assert source(url).observe(AT).traffic.requests_per_s == pytest.approx(1.5)


def test_one_that_cannot_be_scraped_lowers_the_coverage_and_one_that_is_starting_does_not(served: Served) -> None:
    def fails(pod: str, since: int) -> Iterator[str]:
        return iter(line("up", target(pod), always(0, since)))

    url = served(
        vllm(target("a")),
        vllm(target("lost"), end=AT - 200),
        fails("lost", AT - 190),
        fails("starting", AT - 100),
    )
    seen = source(url).observe(AT)
    pool = seen.pools["workers"]
    assert (pool.coverage, pool.running) == (0.5, 2)
    assert (
        seen.missing["pools.workers.workers.lost"]
        == "Prometheus could not scrape it (up is 0): its page of targets says why"
    )
    assert not any("starting" in field for field in seen.missing)


def test_without_targets_known_as_up_coverage_is_unknown_and_the_rest_is_not(served: Served) -> None:
    url = served(text for text in vllm(target("a")) if not text.startswith("up"))
    seen = source(url).observe(AT)
    assert (seen.pools["workers"].coverage, seen.pools["workers"].running) == (None, 2)
    assert "'up'" in seen.missing["pools.workers.coverage"]


def test_what_a_worker_did_that_has_gone_still_counts(served: Served) -> None:
    url = served(vllm(target("a")), vllm(target("gone"), end=AT - 30))
    seen = source(url, window_s=20.0).observe(AT)
    assert seen.traffic.requests_per_s == pytest.approx(1)
    seen = source(url).observe(AT)
    assert seen.pools["workers"].running == 4, "not marked as gone, so still within the window"
    assert seen.traffic.requests_per_s == pytest.approx(1 + 0.5, abs=STEP / WINDOW)


def test_samples_from_before_the_window_are_of_no_worker_that_is_seen(served: Served) -> None:
    seen = source(served(vllm(target("a"), end=AT - 100))).observe(AT)
    pool = seen.pools["workers"]
    assert (pool.running, pool.coverage, pool.traffic) == (None, 0, None)
    assert "no recent sample of vLLM" in seen.missing["pools.workers.workers.a"]


@pytest.mark.parametrize(
    ("gone", "fields"),
    [
        ("num_requests_running", {"running", "traffic.requests_per_s"}),
        ("num_requests_waiting", {"queued", "traffic.requests_per_s"}),
        ("kv_cache_usage_perc", {"kv_usage", "kv_usage_max"}),
        ("engine_sleep_state", {"asleep"}),
        ("request_queue_time_seconds", {"stages.queue_ms"}),
        ("cache_config_info", {"kv_capacity_tokens"}),
        ("request_success_total", {"traffic.requests_per_s"}),
        ("num_preemptions_total", {"traffic.preemptions_per_s"}),
        ("admission_rejections_total", {"traffic.rejected_per_s"}),
        ("prefix_cache_hits_total", {"traffic.prefix_hit_rate"}),
        ("time_to_first_token_seconds", {"traffic.ttft_ms"}),
        ("request_generation_tokens", {"traffic.osl"}),
    ],
)
def test_a_metric_that_is_gone_blinds_nothing_else(served: Served, gone: str, fields: set[str]) -> None:
    seen = source(served(vllm(target("a"), without=(gone,)))).observe(AT)
    own = {
        field: why.removeprefix("pools.workers.") for field, why in seen.missing.items() if field.startswith("pools.")
    }
    untold = {"isl", "itl_ms", "token_gap_ms", "request_duration_s", "queued", "arrival_dispersion", "aborted_per_s"}
    stages = {f"stages.{stage}_ms" for stage in ("prefill", "transfer", "first_token", "decode")}
    always_unknown = {*(f"traffic.{field}" for field in untold), *stages, "queued_tokens"}
    assert {field.removeprefix("pools.workers.") for field in own} - always_unknown == fields
    for field in fields:
        assert f"vllm:{gone}" in own[f"pools.workers.{field}"]


def test_a_quantity_that_only_some_workers_tell_is_a_mean_but_no_sum(served: Served) -> None:
    url = served(vllm(target("a"), kv=0.4), vllm(target("b"), kv=None, without=("num_requests_running",)))
    seen = source(url).observe(AT)
    pool = seen.pools["workers"]
    assert (pool.running, pool.queued) == (None, 2)
    assert pool.kv_usage == pytest.approx(0.4)
    assert seen.traffic.requests_per_s is None


def test_values_that_cannot_be_are_unknown(served: Served) -> None:
    bad = {**target("a"), "model_name": "tiny"}
    url = served(
        vllm(target("a"), waiting=-1, without=("kv_cache_usage_perc", "num_requests_running")),
        iter(line("vllm:kv_cache_usage_perc", bad, always(37.0))),
        iter(line("vllm:num_requests_running", bad, always(float("nan")))),
    )
    seen = source(url).observe(AT)
    pool = seen.pools["workers"]
    assert (pool.running, pool.queued, pool.kv_usage) == (None, None, None)
    assert "which it cannot be" in seen.missing["pools.workers.running"]


def test_idle_is_zero_and_not_unknown(served: Served) -> None:
    seen = source(served(vllm(target("a"), running=0, waiting=0, kv=0, done_per_s=0))).observe(AT)
    assert seen.traffic.requests_per_s == 0
    assert seen.pools["workers"].running == 0
    assert seen.missing["traffic.ttft_ms"] == "no request finished in the window"


def test_rates_are_unknown_until_prometheus_knows_the_pool_for_a_window(served: Served) -> None:
    seen = source(served(vllm(target("a"), start=AT - 50))).observe(AT)
    assert seen.traffic.requests_per_s is None
    assert "not yet for the 60 s" in seen.missing["traffic.requests_per_s"]
    assert seen.pools["workers"].running == 2


def test_a_window_without_two_samples_says_so(served: Served) -> None:
    seen = source(served(vllm(target("a"))), window_s=5.0).observe(AT)
    assert seen.traffic.requests_per_s is None
    assert "is window_s too short?" in seen.missing["traffic.requests_per_s"]


def test_labels_that_nothing_has(served: Served) -> None:
    url = served(vllm(target("a")))
    seen = source(url, labels={"namespace": "no-such"}).observe(AT)
    assert seen.pools["workers"].observed_at_s is None
    assert 'namespace="no-such"' in seen.missing["pools.workers"]
    seen = source(url, worker_label="hostname").observe(AT)
    assert "no label 'hostname'" in seen.missing["pools.workers"]


def test_prefill_and_decode_count_no_request_twice(served: Served) -> None:
    url = served(vllm(target("p-0"), done_per_s=2), vllm(target("d-0")), vllm(target("d-1")))
    pools = {"prefill": {"pod": "=~p-.*"}, "decode": {"pod": "=~d-.*"}}
    seen = source(url, {"prefill": "prefill", "decode": "decode"}, pools=pools).observe(AT)
    assert seen.traffic.requests_per_s == pytest.approx(2)
    assert seen.traffic.osl is not None
    assert seen.traffic.osl.count == pytest.approx(120)
    assert (seen.pools["prefill"].running, seen.pools["decode"].running) == (2, 4)


def test_pools_that_would_have_the_same_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="'prefill' and 'decode' have the same labels"):
        source("http://127.0.0.1:1", {"prefill": "prefill", "decode": "decode"})
    with pytest.raises(ValueError, match="'x' is in no role"):
        source("http://127.0.0.1:1", pools={"x": {}})


def test_a_frontend_tells_what_clients_saw(served: Served) -> None:
    front = {"namespace": "llm", "pod": "front", "app": "frontend", "model": "tiny"}
    at_front = [
        *line("dynamo_frontend_requests_started_total", front, growing(5)),
        *line("dynamo_frontend_stage_requests", {**front, "stage": "route"}, always(3)),
        *line("dynamo_frontend_stage_requests", {**front, "stage": "dispatch"}, always(9)),
        *line("dynamo_frontend_time_to_first_token_seconds_count", front, growing(5)),
        *line("dynamo_frontend_time_to_first_token_seconds_sum", front, growing(2)),
        *line("dynamo_frontend_router_queue_pending_isl_tokens", {**front, "worker_type": "decode"}, always(900)),
        *line("dynamo_frontend_worker_active_prefill_tokens", {**front, "worker_id": "1"}, always(500)),
        *line("dynamo_frontend_worker_active_prefill_tokens", {**front, "worker_id": "2"}, always(200)),
    ]
    url = served(vllm(target("w", app="worker")), iter(at_front))
    seen = source(url, pools={"workers": {"app": "worker"}}, frontend={"app": "frontend"}).observe(AT)
    assert seen.traffic.requests_per_s == pytest.approx(5)
    assert seen.traffic.queued == 3
    assert (seen.traffic.queued_tokens, seen.pools["workers"].queued_tokens) == (900, 700)
    assert seen.traffic.ttft_ms is not None
    assert seen.traffic.ttft_ms.mean == pytest.approx(400)
    assert seen.traffic.osl is not None
    assert seen.traffic.osl.mean == pytest.approx(100), "the frontend does not tell it, the workers do"
    assert seen.pools["workers"].traffic is not None
    assert seen.pools["workers"].traffic.requests_per_s == pytest.approx(1)


def test_an_engine_that_was_given_is_read_by_role_and_model_as_one_that_was_found_out(served: Served) -> None:
    lines = []
    for model, running in (("tiny", 6.0), ("other", 50.0)):
        own = {**target(model), "model_name": model}
        lines += line("sglang:num_running_reqs", own, always(running))
        lines += line("sglang:num_prefill_inflight_queue_reqs", own, always(2))
    url = served(iter(lines))
    for vocabulary in (None, worker_vocabularies()["sglang"]):
        seen = source(url, {"prefill": "prefill"}, vocabulary=vocabulary, model="tiny").observe(AT)
        assert seen.pools["prefill"].running == 6 + 2


def test_ranks_of_sglang_that_tell_the_same_count_once(served: Served) -> None:
    lines = []
    for rank in ("0", "1"):
        own = {**target("s"), "tp_rank": rank}
        lines += line("sglang:num_running_reqs", own, always(6))
        lines += line("sglang:num_running_reqs", {**own, "priority": "1"}, always(2))
        lines += line("sglang:num_queue_reqs", own, always(1))
        lines += line("sglang:token_usage", own, always(0.5))
    lines += line("sglang:num_requests_total", {**target("s"), "is_streaming": "True"}, growing(2))
    lines += line("sglang:num_requests_total", {**target("s"), "is_streaming": "False"}, growing(1))
    seen = source(served(iter(lines))).observe(AT)
    assert (seen.pools["workers"].running, seen.pools["workers"].queued) == (6, 1)
    assert seen.traffic.requests_per_s == pytest.approx(3)


def test_metrics_that_come_with_the_first_request_are_zero_before_it(served: Served) -> None:
    lines = [*line("sglang:num_running_reqs", target("s"), always(0))]
    lines += line("sglang:num_queue_reqs", target("s"), always(0))
    seen = source(served(iter(lines))).observe(AT)
    assert seen.traffic.requests_per_s == 0


def test_a_server_understands_all_that_it_is_asked_of_every_engine(served: Served) -> None:
    url = served(vllm(target("a")))
    for vocabulary in (*worker_vocabularies().values(), *frontend_vocabularies().values()):
        for role in ("prefill", "decode", "aggregated"):
            mine = source(url, {"workers": role}, vocabulary=vocabulary, labels={"pod": '=~a"\\d.*é'}, model="m")
            (asked,) = mine.queries().values()
            assert len(asked) > 8
            for query in asked.values():
                assert ask(url, query, AT) == []


def test_a_history_with_moments_between_seconds(served: Served) -> None:
    mine = source(served(vllm(target("a"))))
    past = HistorySource.of(
        mine, {"workers": PoolSpec(role="aggregated")}, start_s=AT - 300.00049, end_s=AT, step_s=0.3336
    )
    snapshots = list(past)
    assert len(snapshots) == past.length == 899, "every 0.334 s"
    assert all(snapshot.pools["workers"].running == 2 for snapshot in snapshots)


def test_history_is_what_would_have_been_observed(served: Served) -> None:
    url = served(vllm(target("a")), vllm(target("b"), end=AT - 100))
    mine = source(url)
    past = HistorySource.of(mine, {"workers": PoolSpec(role="aggregated")}, start_s=AT - 300, end_s=AT, step_s=25)
    snapshots = list(past)
    assert len(snapshots) == past.length == 13
    for snapshot in snapshots:
        seen = mine.observe(snapshot.at_s)
        pool = snapshot.pools["workers"]
        assert snapshot.traffic == seen.traffic
        assert snapshot.missing == seen.missing
        assert pool.model_dump(exclude={"spec", "replicas", "knobs"}) == seen.pools["workers"].model_dump()
    replicas = [snapshot.pools["workers"].replicas for snapshot in snapshots]
    assert (replicas[0], replicas[-1]) == (Replicas(ready=2), Replicas(ready=1))
