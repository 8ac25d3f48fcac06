"""What two pages of one worker mean, worked out in the plainest way, with none of the code that is tested.

Sums over label sets by a regular expression per metric; no resets, no restarts, one worker.
"""

from __future__ import annotations

import re


def total(text: str, name: str, having: str = "") -> float:
    """The sum of a metric over its label sets, or those in which a text stands."""
    found = re.findall(rf"^{re.escape(name)}((?:\{{.*\}})?) (\S+)(?: \d+)?$", text, flags=re.MULTILINE)
    picked = [float(value) for labels, value in found if having in labels]
    assert picked, name
    return sum(picked)


def buckets(text: str, name: str, having: str = "") -> list[tuple[float, float]]:
    sums: dict[float, float] = {}
    line = rf'^{re.escape(name)}_bucket(\{{[^}}]*le="([^"]+)"[^}}]*\}}) (\S+)(?: #.*)?$'
    for labels, bound, value in re.findall(line, text, re.MULTILINE):
        if having in labels:
            sums[float(bound)] = sums.get(float(bound), 0.0) + float(value)
    return sorted(sums.items())


def distribution(before: str, after: str, name: str, scale: float, having: str = "") -> dict[str, float]:
    count = total(after, f"{name}_count", having) - total(before, f"{name}_count", having)
    grown = total(after, f"{name}_sum", having) - total(before, f"{name}_sum", having)
    values = {"count": count, "mean": grown / count * scale}
    then = dict(buckets(before, name, having))
    cumulative = [(bound, up_to - then[bound]) for bound, up_to in buckets(after, name, having)]
    for share in (0.5, 0.9, 0.99):
        rank, lower, below = share * count, 0.0, 0.0
        for bound, up_to in cumulative:
            if up_to >= rank:
                value = lower if bound == float("inf") else lower + (bound - lower) * (rank - below) / (up_to - below)
                values[str(share)] = value * scale
                break
            lower, below = bound, up_to
    return values


STAGES = ("queue_ms", "prefill_ms", "transfer_ms", "first_token_ms", "decode_ms")


def mean(before: str, after: str, name: str, having: str = "") -> dict[str, float]:
    """The mean of a histogram of seconds, in milliseconds."""
    counted, summed = (
        total(after, name + end, having) - total(before, name + end, having) for end in ("_count", "_sum")
    )
    return {"count": counted, "mean": 1000 * summed / counted}


def capacity(text: str) -> float:
    line = re.search(r"^vllm:cache_config_info\{(.*)\} 1(?:\.0)?$", text, re.MULTILINE)
    assert line
    blocks, size = (re.search(rf'(?:^|,){label}="(\d+)"', line[1]) for label in ("num_gpu_blocks", "block_size"))
    assert blocks
    assert size
    return float(blocks[1]) * float(size[1])


OF_REQUESTS, OF_STEPS = "vllm:request_time_per_output_token_seconds", "vllm:inter_token_latency_seconds"


def worked_out(before: str, after: str, seconds: float) -> dict[str, object]:
    """All that the second of two pages tells, ``seconds`` after the first."""

    def inside(text: str) -> float:
        return total(text, "vllm:num_requests_running") + total(text, "vllm:num_requests_waiting")

    def grown(name: str) -> float:
        return total(after, name) - total(before, name)

    return {
        "running": total(after, "vllm:num_requests_running"),
        "queued": total(after, "vllm:num_requests_waiting"),
        "kv_usage": total(after, "vllm:kv_cache_usage_perc"),
        "kv_usage_max": total(after, "vllm:kv_cache_usage_perc"),
        "asleep": 1 - total(after, "vllm:engine_sleep_state", 'sleep_state="awake"'),
        "kv_capacity_tokens": capacity(after),
        "requests_per_s": (grown("vllm:request_success_total") + inside(after) - inside(before)) / seconds,
        "rejected_per_s": grown("vllm:admission_rejections_total") / seconds,
        "preemptions_per_s": grown("vllm:num_preemptions_total") / seconds,
        "prefix_hit_rate": grown("vllm:prefix_cache_hits_total") / grown("vllm:prefix_cache_queries_total"),
        "ttft_ms": distribution(before, after, "vllm:time_to_first_token_seconds", 1000),
        "itl_ms": distribution(before, after, OF_REQUESTS if OF_REQUESTS in before else OF_STEPS, 1000),
        "token_gap_ms": distribution(before, after, OF_STEPS, 1000),
        "isl": distribution(before, after, "vllm:request_prompt_tokens", 1),
        "osl": distribution(before, after, "vllm:request_generation_tokens", 1),
        "request_duration_s": distribution(before, after, "vllm:e2e_request_latency_seconds", 1),
        "queue_ms": mean(before, after, "vllm:request_queue_time_seconds"),
        "prefill_ms": mean(before, after, "vllm:request_prefill_time_seconds"),
        "decode_ms": mean(before, after, "vllm:request_decode_time_seconds"),
        "transfer_ms": None,
        "first_token_ms": None,
    }
