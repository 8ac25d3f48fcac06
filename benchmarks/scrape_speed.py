"""How fast workers are scraped: one page read, beside ``prometheus_client``'s own parser, and many local endpoints.

    python benchmarks/scrape_speed.py [--endpoints 1000] [--page FILE]

The endpoints are ports of this machine, each with a page of its own of at least 400 samples in vLLM's names; a process
of its own serves them. ``--page`` is a page of a real worker to read besides, such as a captured one. Fails where a
page takes more than 2 ms, or 1,000 endpoints more than 3 s, at best: a busy machine makes single turns slower.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from dynamo_planner.engines.vllm import VLLM
from dynamo_planner.sources import ScrapeSource
from dynamo_planner.sources.aggregation.sample import read_page
from dynamo_planner.sources.scraping.exposition import parse_page

SAMPLES = 400
MOST_PAGE_MS, MOST_ENDPOINT_S = 2.0, 3.0 / 1000
HISTOGRAMS = {
    "time_to_first_token_seconds": 22,
    "inter_token_latency_seconds": 19,
    "e2e_request_latency_seconds": 21,
    "request_prompt_tokens": 17,
    "request_generation_tokens": 17,
    "request_queue_time_seconds": 21,
    "request_inference_time_seconds": 21,
    "request_prefill_time_seconds": 21,
    "request_decode_time_seconds": 21,
    "request_time_per_output_token_seconds": 19,
    "iteration_tokens_total": 15,
    "request_params_max_tokens": 17,
    "request_max_num_generation_tokens": 17,
    "request_params_n": 5,
    "request_num_preemptions": 11,
    "request_prefill_kv_computed_tokens": 17,
}


def page_of(worker: int) -> str:
    """The page of one worker; no two are the same."""
    labels = f'engine="0",model_name="model-{worker}"'
    lines = [
        f"process_start_time_seconds {1.7e9 + worker}",
        f"vllm:num_requests_running{{{labels}}} {worker % 32}",
        f"vllm:num_requests_waiting{{{labels}}} {worker % 7}",
        f"vllm:kv_cache_usage_perc{{{labels}}} {worker % 100 / 100}",
        f'vllm:cache_config_info{{block_size="16",engine="0",num_gpu_blocks="{1000 + worker}"}} 1.0',
    ]
    lines += [
        f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {worker}.0'
        for reason in ("stop", "length", "abort", "error", "repetition")
    ]
    for name, count in {"prefix_cache_queries": 9, "prefix_cache_hits": 4, "num_preemptions": 0}.items():
        lines.append(f"vllm:{name}_total{{{labels}}} {count * worker}.0")
    for name, buckets in HISTOGRAMS.items():
        lines += [f"# HELP vllm:{name} Histogram of {name}.", f"# TYPE vllm:{name} histogram"]
        lines += [
            f'vllm:{name}_bucket{{{labels},le="{bound}"}} {min(worker, bound * worker / 9):.0f}.0'
            for bound in range(1, buckets + 1)
        ]
        lines += [
            f'vllm:{name}_bucket{{{labels},le="+Inf"}} {worker}.0',
            f"vllm:{name}_count{{{labels}}} {worker}.0",
            f"vllm:{name}_sum{{{labels}}} {worker * 2.5}",
            f"vllm:{name}_created{{{labels}}} 1.7e+09",
        ]
    samples = sum(not line.startswith("#") for line in lines)
    lines += [f'vllm:other_total{{{labels},number="{number}"}} 1.0' for number in range(SAMPLES - samples)]
    return "\n".join(lines) + "\n"


async def serve(endpoints: int) -> None:
    """Serve so many pages, each on a port of its own, and print the ports."""
    raise_open_files()
    ports = []
    for worker in range(endpoints):
        body = page_of(worker).encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )

        async def answer(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, page: bytes = head.encode() + body
        ) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(page)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await asyncio.Event().wait()


def raise_open_files() -> None:
    """Let this process have as many open files as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def median_ms(what: Callable[[], object], times: int = 30) -> float:
    """How long it takes, in milliseconds, after a first time."""
    what()
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        what()
        took.append(time.perf_counter() - began_s)
    return 1000 * statistics.median(took)


def one_page(name: str, text: str) -> bool:
    """Read a page as it is read here, and as by the library; whether that is fast enough."""
    names = VLLM.names()
    ours = median_ms(lambda: read_page(parse_page(text, names), VLLM, 0.0))
    library = median_ms(lambda: list(text_string_to_metric_families(text)), times=5)
    samples = sum(bool(line) and not line.startswith("#") for line in text.splitlines())
    print(f"{name}: {samples} samples, {ours:.2f} ms; prometheus_client's parser: {library:.1f} ms")
    return ours <= MOST_PAGE_MS


def many(endpoints: int) -> bool:
    """Scrape them all, five times; whether that is fast enough."""
    raise_open_files()
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", "--endpoints", str(endpoints)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        ports = server.stdout.readline().split()
        urls = {"workers": {f"w{port}": f"http://127.0.0.1:{port}" for port in ports}}
        source = ScrapeSource(urls, {"workers": "aggregated"}, timeout_s=10, window_s=30)
        took: list[float] = []
        cpu: list[float] = []
        for turn in range(5):
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            pool = source.observe(1.8e9 + 10 * turn).pools["workers"]
            took.append(time.perf_counter() - began_s)
            cpu.append(time.process_time() - began_cpu_s)
            assert pool.coverage == 1, "not all of them were seen"
        turns = ", ".join(f"{wall:.2f} ({busy:.2f})" for wall, busy in zip(took, cpu, strict=True))
        print(f"{endpoints} endpoints: {turns} s (of them busy)")
        return min(took) <= MOST_ENDPOINT_S * endpoints
    finally:
        server.terminate()
        server.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.endpoints))
    fast = [one_page("a page of 400 samples", page_of(7))]
    if options.page is not None:
        fast.append(one_page(options.page.name, options.page.read_text()))
    fast.append(many(options.endpoints))
    return 0 if all(fast) else 1


if __name__ == "__main__":
    sys.exit(main())
