"""A policy in the loop of Dynamo's simulator: ``python -m benchmarks.peers.closed_loop JOB.json``.

Runs in the environment of ``arena-requirements.txt``. A job is a JSON object with ``setup``, ``trace`` (a Mooncake
file), ``last_s`` (the last arrival), ``scratch`` (a directory), ``out`` (a file for the scores) and ``row``: either
``dynamo``, the options of its planner, or ``policy``, the name of one of ours, with ``options``.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import dynamo._core as core
import numpy as np

from benchmarks.peers.hook import ROLES, PolicyHook
from benchmarks.peers.plain_law import PlainLaw
from benchmarks.peers.setups import BLOCK_TOKENS, DRAIN_S, MAX_NUM_SEQS, SETUPS, STARTUP_S, WARM_UP_S, Setup
from dynamo_planner import LoadPolicy, Policy, Profile, Sla, SlaPolicy
from dynamo_planner.policies import StaticLaw
from dynamo_planner.policies.sla import LearnedCapacity


def policy_of(setup: Setup, profile: Profile, name: str, options: dict[str, Any]) -> Policy:
    """The policy, told of the engines what an operator knows: the first token comes with the first step of decode.

    With its defaults SlaPolicy is told the targets, the profile, how requests are routed, and the most sequences alone.
    """
    targets = {"ttft_ms": setup.ttft_ms, "itl_ms": setup.itl_ms}
    if name == "constant":
        return StaticLaw(replicas=dict(zip(ROLES, setup.constant, strict=True)))
    if name == "load":
        return LoadPolicy(sla=Sla(**targets) if options.pop("targets", False) else None, **options)
    if name == "plain":
        return PlainLaw(sla=Sla(**targets), profile=profile, max_num_seqs=MAX_NUM_SEQS, **options)
    told: dict[str, Any] = {"profile": profile, "routing": "round_robin", "max_num_seqs": MAX_NUM_SEQS}
    if name == "sla_defaults":
        return SlaPolicy(sla=Sla(**targets), **told)
    attainment = options.pop("attainment")
    return SlaPolicy(
        sla=Sla(**targets, attainment=attainment),
        capacity=LearnedCapacity(offset_ms=setup.itl_ms, **options.pop("capacity", {})),
        **told,
        **options,
    )


class Meter:
    """Ignores the targets of the warm-up, as for every policy, and counts what is changed later."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.events, self.cpu_s = 0, 0.0
        self.ready: list[tuple[int, int]] = []

    def initial_tick_ms(self) -> float:
        return float(self.inner.initial_tick_ms())

    def on_tick(self, seen: dict[str, Any]) -> dict[str, Any]:
        began_s = time.process_time()
        decision: dict[str, Any] = self.inner.on_tick(seen)
        self.cpu_s += time.process_time() - began_s
        if seen["now_ms"] < WARM_UP_S * 1000:
            decision = decision | {f"target_{role}": None for role in ROLES}
            if not isinstance(self.inner, PolicyHook):
                self.inner.forget_targets()
        for role in ROLES:
            self.events += decision[f"target_{role}"] not in (None, seen[f"non_draining_{role}_count"])
        self.ready.append((seen["active_prefill_count"], seen["active_decode_count"]))
        return decision


def save_step_times(profile: Profile, path: Path) -> None:
    """As the mocker reads them: the straight lines that Dynamo's planner fits to the profile, over all KV tokens."""
    prompts, points = profile.prefill_points, profile.decode_points
    isl = np.linspace(min(prompts.isl), max(prompts.isl), 100)
    ttft_ms = np.maximum(np.polyval(np.polyfit(prompts.isl, prompts.ttft_ms, 1), isl), 1e-3)
    held = np.multiply(points.kv_usage, points.max_kv_tokens)
    columns = np.column_stack([np.ones_like(held), points.batch, held])
    fit = np.linalg.lstsq(columns, np.array(points.itl_ms), rcond=None)[0]
    kv, context = np.linspace(0, points.max_kv_tokens, 200), np.geomspace(32, 131_072, 120)
    batch = np.maximum(kv[:, None] / context, 1.0)
    itl_ms = np.maximum(fit[0] + fit[1] * batch + fit[2] * kv[:, None], 1e-3)
    columns = {"decode_active_kv_tokens": kv, "decode_context_length": context, "decode_itl": itl_ms}
    np.savez(path, prefill_isl=isl, prefill_ttft_ms=ttft_ms, **columns)


def run(job: dict[str, Any]) -> dict[str, Any]:
    setup, row = SETUPS[job["setup"]], job["row"]
    profile = setup.profile
    gpus, kv_tokens = profile.decode_points.gpus, profile.decode_points.max_kv_tokens
    timing = Path(job["scratch"]) / "steps.npz"
    save_step_times(profile, timing)
    start = setup.start
    if "dynamo" in row:
        from benchmarks.peers.planner import DynamoPlanner  # noqa: PLC0415 - slow, and needs the most

        inner: Any = DynamoPlanner(setup, row["dynamo"])
    else:
        inner = PolicyHook(policy_of(setup, profile, row["policy"], dict(row.get("options", {}))), gpus, kv_tokens)
        start = setup.constant if row["policy"] == "constant" else start
    engine = {
        "backend": "vllm",
        "num_gpu_blocks": int(kv_tokens) // BLOCK_TOKENS,
        "block_size": BLOCK_TOKENS,
        "max_num_batched_tokens": setup.max_num_batched_tokens,
        "max_num_seqs": MAX_NUM_SEQS,
        "enable_prefix_caching": False,
        "timing_model": {"type": "external", "provider": "dynamo_profile", "config": {"path": str(timing)}},
    }
    workers = {"startup_time": STARTUP_S, "tensor_parallel_size": gpus}
    meter = Meter(inner)
    report = core.run_mocker_trace_replay(
        [job["trace"]],
        trace_format="mooncake",
        trace_block_size=512,
        prefill_engine_args={**workers, "engine": {**engine, "worker_type": "prefill"}},
        decode_engine_args={**workers, "engine": {**engine, "worker_type": "decode"}},
        num_prefill_workers=start[0],
        num_decode_workers=start[1],
        router_mode="round_robin",
        sla_ttft_ms=setup.ttft_ms,
        sla_itl_ms=setup.itl_ms,
        capture_per_request=True,
        scaling_policy=meter,
        max_sim_time_ms=(job["last_s"] + DRAIN_S) * 1000,
    )
    return scores(setup, report, job["requests"], meter)


def scores(setup: Setup, report: Any, requests: int, meter: Meter) -> dict[str, Any]:
    """Shares of all requests; percentiles of those that were finished. A single token has no ITL, and meets it."""
    done = [row for row in report.per_request if row["terminal_time_ms"] is not None]
    ttft_ms = np.array([np.inf if row["ttft_ms"] is None else row["ttft_ms"] for row in done], float)
    itl_ms = np.array([row["itl_ms"] or 0.0 for row in done], float)
    in_ttft, in_itl = ttft_ms <= setup.ttft_ms, itl_ms <= setup.itl_ms
    prefill, decode = np.mean(meter.ready, axis=0)
    return {
        "requests": requests,
        "unfinished": requests - len(done),
        "joint": float((in_ttft & in_itl).sum() / requests),
        "ttft": float(in_ttft.sum() / requests),
        "itl": float(in_itl.sum() / requests),
        "ttft_ms": [float(value) for value in np.percentile(ttft_ms, [50, 90, 99])],
        "itl_p99_ms": float(np.percentile(itl_ms, 99)),
        "gpu_hours": float(report.summary["gpu_hours"]),
        "prefill": float(prefill),
        "decode": float(decode),
        "events": meter.events,
        "policy_cpu_s": meter.cpu_s,
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    asked = json.loads(Path(sys.argv[1]).read_text())
    Path(asked["out"]).write_text(json.dumps(run(asked)))
