"""What stands before workers besides Dynamo: llm-d's endpoint picker, Ray Serve, vLLM's production-stack router."""

from __future__ import annotations

import re

import pytest

from dynamo_planner.core.snapshot import Observation
from dynamo_planner.sources import FrontendSource, ScrapeSource, SourceError
from tests.support.paths import DATA
from tests.support.sources.farm import Farm, Vllm

CAPTURED = DATA / "metrics"
SECONDS = 10.0


def observe(farm: Farm, *pages: str, model: str | None = None) -> Observation:
    """What the frontend tells after these pages, each ``SECONDS`` after the one before."""
    source = FrontendSource([farm.url("front")], model=model, timeout_s=10)
    for turn, page in enumerate(pages):
        farm.pages = {"front": page}
        observation = source.observe(1000.0 + SECONDS * turn)
    return observation


def histogram(name: str, labels: str, count: float, total: float) -> str:
    parts = {f'bucket{{{labels},le="+Inf"}}': count, f"count{{{labels}}}": count, f"sum{{{labels}}}": total}
    return "".join(f"{name}_{part} {value}\n" for part, value in parts.items())


def picker(passed: int, queue: dict[str, int] | None = None, left: dict[str, int] | None = None) -> str:
    """A page of llm-d's picker: requests that were passed on, and with flow control the queue and what left it.

    Each streamed answer has its first token after 0.3 s, 0.02 s for each further one, 800 prompt tokens of which 200
    are cached, and 100 tokens.
    """
    model = 'model_name="tiny",target_model_name="tiny-1"'
    flow = f'{model},fairness_id="default",priority="0"'
    name = "llm_d_epp_{}".format
    text = f'{name("ready_endpoints")}{{name="pool"}} 2\n{name("request_total")}{{{flow}}} {passed}\n'
    text += histogram(name("request_ttft_seconds"), f'{flow},streaming="true"', passed, 0.3 * passed)
    text += histogram(name("request_ttft_seconds"), f'{flow},streaming="false"', passed, 7.0 * passed)
    text += histogram(name("request_streaming_tpot_seconds"), flow, passed, 0.02 * passed)
    text += histogram(name("request_input_tokens"), flow, passed, 800 * passed)
    text += histogram(name("request_cached_tokens"), flow, passed, 200 * passed)
    text += histogram(name("request_output_tokens"), flow, passed, 100 * passed)
    text += histogram(name("request_duration_seconds"), flow, passed, 2.5 * passed)
    for who, size in (queue or {}).items():
        text += f'{name("flow_control_queue_size")}{{{model},fairness_id="{who}",priority="0"}} {size}\n'
    for outcome, count in (left or {}).items():
        labels = f'{model},fairness_id="default",priority="0",outcome="{outcome}"'
        text += histogram(name("flow_control_request_queue_duration_seconds"), labels, count, count * 0.5)
    return text + "process_start_time_seconds 5\n"


def test_llm_d_without_flow_control_counts_requests_as_they_come(farm: Farm) -> None:
    observation = observe(farm, picker(40), picker(90), model="Tiny")
    traffic = observation.traffic
    assert traffic.requests_per_s == pytest.approx(50 / SECONDS)
    assert {
        name: getattr(traffic, name).mean for name in ("ttft_ms", "itl_ms", "isl", "osl", "request_duration_s")
    } == {
        "ttft_ms": pytest.approx(300),
        "itl_ms": pytest.approx(20),
        "isl": pytest.approx(800),
        "osl": pytest.approx(100),
        "request_duration_s": pytest.approx(2.5),
    }
    assert traffic.prefix_hit_rate == pytest.approx(0.25)
    assert traffic.queued is None
    assert "featureGates: [flowControl]" in observation.missing["traffic.queued"]


def test_llm_d_with_flow_control_counts_those_that_wait_or_were_turned_away(farm: Farm) -> None:
    """50 were passed on, 6 refused, 2 gave up, and 42 more wait: 100 came, and passing on alone would say 50."""
    before = picker(40, {"default": 3}, {"Dispatched": 40, "RejectedCapacity": 1})
    after = picker(
        90, {"default": 30, "alice": 15}, {"Dispatched": 90, "RejectedCapacity": 7, "EvictedContextCancelled": 2}
    )
    observation = observe(farm, before, after)
    traffic = observation.traffic
    assert traffic.requests_per_s == pytest.approx(100 / SECONDS)
    assert traffic.queued == 45
    assert traffic.rejected_per_s == pytest.approx(6 / SECONDS)
    assert traffic.aborted_per_s is None


def test_flows_of_llm_d_go_while_it_lives(farm: Farm) -> None:
    """Series of a fairness id that nobody used for a while are dropped: no other process answers."""
    pages = (
        picker(40, {"default": 3, "alice": 0}, {"Dispatched": 40}).replace('"default",priority="0",', '"alice",'),
        picker(60, {"default": 5}, {"Dispatched": 20}),
    )
    assert observe(farm, *pages).traffic.requests_per_s == pytest.approx((20 + 2) / SECONDS)
    fallen = observe(farm, picker(40, {"a": 1}, {"Dispatched": 40}), picker(20, {"a": 1}, {"Dispatched": 20}))
    assert fallen.traffic.requests_per_s is None
    assert "another process answers" in fallen.missing["traffic.requests_per_s"]


@pytest.mark.parametrize(
    ("prefix", "of_queue"),
    [
        ("llm_d_router_epp_", "llm_d_router_epp_"),
        ("inference_objective_", "inference_extension_"),
        ("kserve_llm_d_epp_", "kserve_llm_d_epp_"),
    ],
)
def test_older_names_of_the_picker(prefix: str, of_queue: str, farm: Farm) -> None:
    """Those of the Gateway API inference extension and of llm-d until mid-2026, and with more before them."""

    def older(page: str) -> str:
        if not prefix.endswith("llm_d_epp_"):
            for now, then in (
                ("request_input_tokens", "input_tokens"),
                ("request_output_tokens", "output_tokens"),
                ("request_cached_tokens", "prompt_cached_tokens"),
                ("request_streaming_tpot", "request_tpot"),
                (',streaming="true"', ""),
            ):
                page = page.replace(now, then)
            page = "".join(line for line in page.splitlines(keepends=True) if 'streaming="false"' not in line)
        return page.replace("llm_d_epp_flow_control_", f"{of_queue}flow_control_").replace("llm_d_epp_", prefix)

    pages = picker(40, {"a": 1}, {"Dispatched": 40}), picker(90, {"a": 11}, {"Dispatched": 90})
    now, then = (observe(farm, *each).traffic for each in (pages, map(older, pages)))
    assert then == now
    assert then.requests_per_s == pytest.approx(6)


def test_captured_pages_of_ray_serve(farm: Farm) -> None:
    """Ray 2.60: 70 requests came; 8 ended, in 7.5 s each, and 58 have no replica yet. Values taken off the captures."""
    before, after = ((CAPTURED / f"ray_serve{name}.prom").read_text() for name in ("", "_after"))
    traffic = observe(farm, before, after).traffic
    assert traffic.requests_per_s == pytest.approx(70 / SECONDS)
    assert traffic.queued == 58
    assert (traffic.rejected_per_s, traffic.aborted_per_s) == (0, 0)
    assert traffic.request_duration_s is not None
    assert traffic.request_duration_s.count == 8
    assert traffic.request_duration_s.mean == pytest.approx(7.5)
    plain = observe(farm, *(page.replace("OpenAiIngress", "MyApp") for page in (before, after)))
    assert plain.traffic.requests_per_s == pytest.approx((8 + 62) / SECONDS), "what ended, and what goes on"


def test_engines_under_ray_serve_are_read_from_the_page_of_their_node(farm: Farm) -> None:
    """Two replicas on it; one of them goes, which is not another process that answers for the node."""
    before, after = ((CAPTURED / f"ray_serve{name}.prom").read_text() for name in ("", "_after"))
    source = ScrapeSource({"workers": farm.urls("node")}, {"workers": "aggregated"}, timeout_s=10)
    farm.pages = {"node": before}
    source.observe(1000.0)
    farm.pages = {"node": after}
    pool = source.observe(1000.0 + SECONDS).pools["workers"]
    assert pool.running == 2
    assert pool.traffic is not None
    assert pool.traffic.ttft_ms is not None
    assert pool.traffic.ttft_ms.count == 6
    gone = re.search(r'ray_vllm_num_requests_running.*WorkerId="(\w+)".* 0\.0', after)
    assert gone is not None
    farm.pages = {"node": "".join(line for line in after.splitlines(keepends=True) if gone[1] not in line)}
    observation = source.observe(1000.0 + 2 * SECONDS)
    assert observation.pools["workers"].running == 2
    assert "another process" not in "".join(observation.missing.values())


ROUTER = """\
vllm:healthy_pods_total{{server="http://10.0.0.1:8000"}} 1
vllm:num_requests_running{{server="http://10.0.0.1:8000"}} 7
vllm:num_incoming_requests_total{{model="tiny"}} {}
vllm:num_incoming_requests_total{{model="other"}} 9999
vllm:request_latency_seconds_count{{server="http://10.0.0.1:8000",model="tiny",status="success"}} {}
vllm:request_latency_seconds_sum{{server="http://10.0.0.1:8000",model="tiny",status="success"}} {}
"""


def test_the_router_of_vllms_production_stack(farm: Farm) -> None:
    traffic = observe(farm, ROUTER.format(100, 80, 160), ROUTER.format(160, 100, 230), model="tiny").traffic
    assert traffic.requests_per_s == pytest.approx(6)
    assert traffic.request_duration_s is not None
    assert traffic.request_duration_s.mean == pytest.approx(70 / 20)


def test_a_router_is_no_worker(farm: Farm) -> None:
    """It has the metrics of its workers once more; listed as one of them, all would count twice."""
    source = ScrapeSource({"workers": farm.urls("router")}, {"workers": "aggregated"}, timeout_s=10)
    farm.pages = {"router": ROUTER.format(1, 1, 1)}
    with pytest.raises(SourceError, match=r"num_incoming_requests_total.*List it under source\.frontend"):
        source.observe(0.0)


def test_a_page_that_is_listed_in_the_wrong_place_says_where_it_belongs(farm: Farm) -> None:
    source = ScrapeSource({"workers": farm.urls("front")}, {"workers": "aggregated"}, timeout_s=10)
    farm.pages = {"front": picker(3)}
    with pytest.raises(SourceError, match=r"it is that of llm-d endpoint picker: list it under source\.frontend"):
        source.observe(0.0)
    with pytest.raises(SourceError, match=r"it is vLLM's: list it among the workers"):
        observe(farm, Vllm().page())
