"""The engine beside measured runs of vLLM 0.19: 300 ShareGPT requests, 10 per second, which saturates it.

Coefficients: fitted by Nelder-Mead to the inter-token and end-to-end latencies of the first half of each run. What is
asserted is the second half.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from dynamo_planner.simulator.engine.engine import Engine, EngineLimits
from dynamo_planner.simulator.engine.step_time import LinearTiming
from tests.support.paths import DATA

RUNS = DATA / "validation"


@pytest.mark.parametrize(
    ("run", "max_num_seqs", "timing"),
    [
        (
            "RTXPRO6000_Llama-3.1-8B",
            128,
            LinearTiming(base_ms=10.8, prefill_ms_per_token=0.049, kv_ms_per_token=1.12e-4),
        ),
        ("RTXPRO6000_Qwen3-32B", 128, LinearTiming(base_ms=15.7, prefill_ms_per_token=0.166, kv_ms_per_token=3.09e-4)),
        (  # its records show 256 requests in the batch at once, twice what its metadata says
            "RTXPRO6000_Qwen3-30B-A3B-Instruct-2507",
            256,
            LinearTiming(base_ms=19.45, prefill_ms_per_token=0.0418, kv_ms_per_token=8.4e-5),
        ),
    ],
)
def test_latencies_of_real_runs_within_five_percent(run: str, max_num_seqs: int, timing: LinearTiming) -> None:
    rows = sorted(
        map(json.loads, (RUNS / run / "requests.jsonl").read_text().splitlines()),
        key=lambda row: float(row["queued_ts"]),
    )
    engine = Engine(EngineLimits(max_num_seqs=max_num_seqs), timing)
    start_s = rows[0]["queued_ts"]
    requests = [engine.submit(row["input_toks"], row["output_toks"], row["queued_ts"] - start_s) for row in rows]
    engine.advance(math.inf)

    steps = np.array([row["output_toks"] - 1 for row in rows])
    first, last = (
        np.array([row[name] - row["queued_ts"] for row in rows]) for name in ("first_token_ts", "last_token_ts")
    )
    modelled_first = np.array([request.first_token_s for request in requests])
    modelled_last = np.array([request.finished_s for request in requests])
    arrival = np.array([request.arrival_s for request in requests])
    second = np.arange(len(rows)) >= len(rows) // 2
    itl_error = np.abs((modelled_last - modelled_first) / (last - first) - 1)[second & (steps > 0)]
    latency_error = np.abs((modelled_last - arrival) / last - 1)[second]
    assert itl_error.mean() < 0.05
    assert latency_error.mean() < 0.05
    assert (modelled_first - arrival)[second].mean() == pytest.approx(first[second].mean(), rel=0.1)
