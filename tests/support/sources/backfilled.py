"""A real Prometheus server with series written into its storage beforehand: every ten seconds, and growing evenly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dynamo_planner.sources.prometheus.source import PrometheusSource
from tests.support.prometheus_server import backfill, line, prometheus

T0 = 1_700_000_000
AT = T0 + 600
STEP = 10
WINDOW = 60.0


def always(value: float, start: int = T0, end: int = AT) -> list[tuple[float, float]]:
    return [(at, value) for at in range(start, end + 1, STEP)]


def growing(per_s: float, start: int = T0, end: int = AT, base: float = 0.0) -> list[tuple[float, float]]:
    return [(at, base + per_s * (at - start)) for at in range(start, end + 1, STEP)]


def vllm(
    labels: dict[str, str],
    *,
    running: float = 2,
    waiting: float = 1,
    kv: float | None = 0.5,
    done_per_s: float = 1.0,
    start: int = T0,
    end: int = AT,
    old: bool = False,
    without: tuple[str, ...] = (),
) -> Iterator[str]:
    """A worker: half of its requests have a TTFT up to 0.25 s, all up to 0.5 s; 0.2 s and 100 tokens on average."""
    seen = {**labels, "model_name": labels.get("model_name", "tiny"), "engine": "0"}
    target = {label: value for label, value in labels.items() if label != "model_name"}
    prefix = "gpu_" if old else ""

    def of(name: str, points: Any, **more: str) -> Iterator[str]:
        if not any(name.startswith(gone) for gone in without):
            yield from line(f"vllm:{name}", {**seen, **more}, points)

    yield from line("up", target, always(1, start, end))
    yield from of("num_requests_running", always(running, start, end))
    yield from of("num_requests_waiting", always(waiting, start, end))
    if kv is not None:
        yield from of("gpu_cache_usage_perc" if old else "kv_cache_usage_perc", always(kv, start, end))
    yield from of("engine_sleep_state", always(1, start, end), sleep_state="awake")
    for part, value in (("count", 1.0), ("sum", 0.05)):
        yield from of(f"request_queue_time_seconds_{part}", growing(value * done_per_s, start, end))
    if "cache_config_info" not in without:  # which has no name of a model
        cache = {**target, "num_gpu_blocks": "500", "block_size": "16", "engine": "0"}
        yield from line("vllm:cache_config_info", cache, always(1, start, end))
    for reason, share in (("stop", 0.75), ("abort", 0.25)):
        yield from of("request_success_total", growing(share * done_per_s, start, end), finished_reason=reason)
    yield from of("num_preemptions_total", growing(0.1 * done_per_s, start, end))
    yield from of("admission_rejections_total", growing(0.2 * done_per_s, start, end), reason="max_num_queued_reqs")
    yield from of(f"{prefix}prefix_cache_hits_total", growing(30 * done_per_s, start, end))
    yield from of(f"{prefix}prefix_cache_queries_total", growing(120 * done_per_s, start, end))
    yield from of("time_to_first_token_seconds_count", growing(done_per_s, start, end))
    yield from of("time_to_first_token_seconds_sum", growing(0.2 * done_per_s, start, end))
    for bound, share in (("0.25", 0.5), ("0.5", 1.0), ("+Inf", 1.0)):
        yield from of("time_to_first_token_seconds_bucket", growing(share * done_per_s, start, end), le=bound)
    yield from of("request_generation_tokens_count", growing(done_per_s, start, end))
    yield from of("request_generation_tokens_sum", growing(100 * done_per_s, start, end))


def target(pod: str, **more: str) -> dict[str, str]:
    return {"namespace": "llm", "pod": pod, **more}


Served = Callable[..., str]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Starts a server that knows these series."""
    running = []

    def start(*series: Iterator[str]) -> str:
        backfill(tmp_path, (text for lines in series for text in lines))
        running.append(prometheus(tmp_path))
        return running[-1].__enter__()

    yield start
    for server in running:
        server.__exit__(None, None, None)


def source(url: str, roles: dict[str, Any] | None = None, **settings: Any) -> PrometheusSource:
    settings = {"labels": {"namespace": "llm"}, "worker_label": "pod", "window_s": WINDOW, **settings}
    return PrometheusSource(url, roles or {"workers": "aggregated"}, **settings)
