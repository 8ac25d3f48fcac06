"""Runs Dynamo's offline simulator on jobs: ``python mocker.py JOBS.json``, in the environment of ``simulator.py``.

A job is a JSON object with ``trace`` (a Mooncake file), ``timing`` (an npz file), ``prefill`` and ``decode`` workers or
``workers``, ``gpus``, ``kv_tokens``, ``max_num_seqs`` and ``max_num_batched_tokens``, and ``out``: an npz file that
gets ``ttft_ms`` and ``itl_ms`` of each request by arrival, and the CPU seconds that the simulator took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import dynamo._core as core
import numpy as np

BLOCK_TOKENS = 16


def engine(job: dict[str, Any], role: str) -> dict[str, Any]:
    timing = {"type": "external", "provider": "dynamo_profile", "config": {"path": job["timing"]}}
    limits = {
        "num_gpu_blocks": job["kv_tokens"] // BLOCK_TOKENS,
        "block_size": BLOCK_TOKENS,
        "max_num_batched_tokens": job["max_num_batched_tokens"],
        "max_num_seqs": job["max_num_seqs"],
        "enable_prefix_caching": False,
    }
    return {
        "startup_time": 60.0,
        "tensor_parallel_size": job["gpus"],
        "engine": {"backend": "vllm", "worker_type": role, "timing_model": timing, **limits},
    }


def run(job: dict[str, Any]) -> None:
    if "workers" in job:
        fleet = {"extra_engine_args": engine(job, "aggregated"), "num_workers": job["workers"]}
    else:
        fleet = {
            "prefill_engine_args": engine(job, "prefill"),
            "decode_engine_args": engine(job, "decode"),
            "num_prefill_workers": job["prefill"],
            "num_decode_workers": job["decode"],
        }
    began_s = time.process_time()
    report = core.run_mocker_trace_replay(
        [job["trace"]], trace_format="mooncake", trace_block_size=512, capture_per_request=True, **fleet
    )
    took_s = time.process_time() - began_s
    rows = sorted(report.per_request, key=lambda row: row["arrival_time_ms"])
    columns = {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], float)
        for name in ("arrival_time_ms", "ttft_ms", "itl_ms", "terminal_time_ms", "input_length", "output_length")
        if name in rows[0]
    }
    np.savez(job["out"], took_s=took_s, **columns)


for job in json.loads(Path(sys.argv[1]).read_text()):
    run(job)
