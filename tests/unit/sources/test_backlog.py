"""The backlog in prompt tokens, which an engine tells, or a router in front of it."""

from __future__ import annotations

import json

from dynamo_planner.core.snapshot import Observation, Role
from dynamo_planner.sources import FrontendSource, ScrapeSource
from dynamo_planner.sources.scraping.config import ScrapeConfig
from tests.support.sources import engine_pages as pages
from tests.support.sources.farm import Farm, Vllm

PAGE = pages.dynamo(started=80, done=30, inflight=45, route=6, seen=(), hits=())
"""300 prompt tokens wait for each of 6 requests that are to be routed; two workers have 50 and 30 for each of 45."""


def test_a_router_tells_the_prompt_tokens_that_workers_were_given(farm: Farm) -> None:
    """vLLM does not; several routers may count the same, and of two pools that take in prompts it is neither's."""

    def observed(frontends: int, **roles: Role) -> Observation:
        fronts = [farm.url(f"front{number}") for number in range(frontends)]
        urls = {pool: farm.urls(pool) for pool in roles}
        source = ScrapeSource(urls, roles, model="tiny", frontend=FrontendSource(fronts, model="tiny"))
        farm.pages = dict.fromkeys([f"front{number}" for number in range(frontends)], PAGE)
        farm.pages |= {pool: Vllm(waiting=3).page() for pool in roles}
        return source.observe(1000.0)

    split = observed(1, p="prefill", d="decode")
    assert (split.traffic.queued_tokens, split.pools["p"].queued_tokens) == (1800, 80 * 45)
    assert split.pools["d"].queued_tokens is None
    assert "pools.p.queued_tokens" not in split.missing and "vLLM" in split.missing["pools.d.queued_tokens"]
    assert observed(1, p="prefill", a="aggregated").pools["p"].queued_tokens is None
    two = observed(2, p="prefill", d="decode")
    assert (two.traffic.queued_tokens, two.pools["p"].queued_tokens) == (3600, None)
    assert "several routers" in two.missing["traffic.prefill_tokens"]


def test_sglang_tells_the_prompt_tokens_that_wait_where_it_is_asked(farm: Farm) -> None:
    loads = {
        "timestamp": "now",
        "loads": [{"dp_rank": 0, "num_waiting_uncached_tokens": 700}, {"num_waiting_uncached_tokens": 50}],
    }
    gauges = {"sglang:num_running_reqs": 1, "sglang:num_queue_reqs": 4}
    farm.pages = {"w0/metrics": pages.page('tp_rank="0"', gauges, {}, {}), "w0/v1/loads": json.dumps(loads)}
    source = ScrapeConfig.model_validate({"engine": "sglang_loads"}).build({"w": "aggregated"}, {"w": farm.urls("w0")})
    observation = source.observe(1000.0)
    assert (observation.pools["w"].queued, observation.pools["w"].queued_tokens) == (4, 750)
    assert observation.pools["w"].workers[0].queued_tokens == 750
