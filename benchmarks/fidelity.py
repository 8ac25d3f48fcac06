"""How far our simulator is from others and from real engines: ``python -m benchmarks.fidelity [--quick]``.

Beside Dynamo's simulator: five traces, each on twenty static fleets from 30 % to 120 % of their capacity, ten
disaggregated and ten aggregated, with the same requests, step times, limits and routing. What counts is whether both
put the fleets in the same order (Kendall's tau-b of mean TTFT and of goodput) and, for loads that are stable, how far
the means are apart.

Beside measured runs of vLLM: coefficients fitted to the first half of each run, errors on the second half.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.stats import kendalltau

from benchmarks.peers.simulator import MockerTiming, simulate
from benchmarks.shared import SHARED
from benchmarks.speed import LIMITS, setup_of
from dynamo_planner import Profile, Sla
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.engine.engine import Engine, EngineLimits
from dynamo_planner.simulator.engine.step_time import LinearTiming
from dynamo_planner.workloads.trace import Trace

A100, H200 = "MEASURED_llama2-70b_a100_splitwise_tp4", "MEASURED_llama31-8b-fp8_h200_dynamo_tp1"
STABLE = 0.85
"""Up to this load, means are compared."""


@dataclass(frozen=True)
class Case:
    """A part of a trace, at a rate for which about eight workers are needed, and the targets that goodput counts by."""

    trace: str
    profile: str
    from_s: float
    requests_per_s: float
    sla: Sla
    seconds: float = 300.0


CASES = (
    Case("azure2023_conv", A100, 0, 16, Sla(ttft_ms=2000, itl_ms=100)),
    Case("mooncake_conversation", H200, 600, 20, Sla(ttft_ms=3000, itl_ms=25)),
    Case("azure2024_conv_tue_x0.2_recon", A100, 36_000, 16, Sla(ttft_ms=2000, itl_ms=100)),
    Case("servegen_mlarge_day0_x0.03", A100, 47_400, 24, Sla(ttft_ms=2000, itl_ms=100)),
    Case("servegen_mmid_day4_x0.004", A100, 43_200, 100, Sla(ttft_ms=2000, itl_ms=100)),
)
LOADS = np.linspace(0.3, 1.2, 10)


def needs(trace: Trace, profile: Profile, sla: Sla) -> tuple[float, float]:
    """The prefill and the decode workers that would be busy all the time, at the batch that just keeps the ITL."""
    timing, limits = MockerTiming(profile), EngineLimits(**LIMITS)
    most = limits.max_num_batched_tokens
    full, rest = np.divmod(trace.isl, most)
    prompts_s = (full * timing.prefill_ms(most) + timing.prefill_ms(np.maximum(rest, 1))) / 1e3
    context = float(np.average(trace.isl + trace.osl / 2, weights=trace.osl))
    batches = np.arange(1, limits.max_num_seqs + 1)
    steps_ms = timing.decode_ms(batches, batches * context)
    fits = (steps_ms <= sla.itl_ms) & (batches * context <= profile.decode.max_kv_tokens)
    batch = max(int(fits.sum()), 1)
    tokens_s = trace.osl * steps_ms[batch - 1] / batch / 1e3
    return float(prompts_s.sum() / trace.duration_s), float(tokens_s.sum() / trace.duration_s)


def fleets_for(prefill: float, decode: float) -> list[tuple[float, dict[str, int]]]:
    """Fleets with the highest load of their pools."""
    fleets: list[tuple[float, dict[str, int]]] = []
    for load in LOADS:
        counts = [max(round(need / load), 1) for need in (prefill, decode)]
        fleet = {"prefill": counts[0], "decode": counts[1]}
        fleets.append((max(prefill / counts[0], decode / counts[1]), fleet))
    for load in LOADS:
        workers = max(round((prefill + decode) / load), 1)
        fleets.append(((prefill + decode) / workers, {"workers": workers}))
    return fleets


def beside_dynamo(case: Case, quick: bool) -> bool:
    seconds = case.seconds / 3 if quick else case.seconds
    profile = Profile.load(SHARED / "profiles" / case.profile)
    part = Trace.load(SHARED / "traces" / f"{case.trace}.npz").between(case.from_s, case.from_s + seconds)
    trace = part.at_rate(case.requests_per_s, seed=1, jitter_s=5.0)
    loaded = fleets_for(*needs(trace, profile, case.sla))
    theirs = simulate(trace, profile, [fleet for _, fleet in loaded], LIMITS)
    rows = []
    for (load, fleet), ran in zip(loaded, theirs, strict=True):
        cluster = SimulatedCluster(setup_of(profile, fleet), trace)
        cluster.finish(at_most_s=1e5)
        served = cluster.served()
        itl = np.nan_to_num(ran.itl_ms)
        good = (ran.ttft_ms <= case.sla.ttft_ms) & (itl <= case.sla.itl_ms)
        several = trace.osl > 1
        rows.append(
            (
                load,
                served.ttft_ms.mean(),
                ran.ttft_ms.mean(),
                served.itl_ms[several].mean(),
                itl[several].mean(),
                served.attainment(case.sla),
                good.mean(),
            )
        )
    table = np.array(rows)
    print(f"\n{case.trace}, {len(trace)} requests, {trace.duration_s:.0f} s, {case.profile}")
    print(f"  {'fleet':>12} {'load':>5} {'mean TTFT ms':>19} {'mean ITL ms':>15} {'in time':>13}   (ours, Dynamo's)")
    for (_, fleet), row in zip(loaded, table, strict=True):
        name = f"{fleet['workers']} agg" if "workers" in fleet else f"{fleet['prefill']}P {fleet['decode']}D"
        ttft, itl = f"{row[1]:9.0f} {row[2]:9.0f}", f"{row[3]:7.1f} {row[4]:7.1f}"
        print(f"  {name:>12} {row[0]:5.2f} {ttft} {itl} {row[5]:6.3f} {row[6]:6.3f}")
    taus = []
    for what, ours, other in (("mean TTFT", 1, 2), ("goodput", 5, 6)):
        taus.append(float(kendalltau(table[:, ours], table[:, other]).statistic))
        ties = [20 - len(np.unique(np.round(table[:, column], 6))) for column in (ours, other)]
        print(f"  tau-b of {what}: {taus[-1]:.3f} (ties: ours {ties[0]}, Dynamo's {ties[1]})")
    stable = table[:, 0] <= STABLE
    ttft_error = np.abs(table[stable, 1] / table[stable, 2] - 1)
    itl_error = np.abs(table[stable, 3] / table[stable, 4] - 1)
    print(
        f"  {stable.sum()} stable fleets: mean TTFT off by {ttft_error.mean():.1%} (at most {ttft_error.max():.1%}), "
        f"mean ITL by {itl_error.mean():.1%} (at most {itl_error.max():.1%})"
    )
    return min(taus) >= 0.9 and ttft_error.mean() <= 0.15 and itl_error.mean() <= 0.10


RUNS = {"RTXPRO6000_Llama-3.1-8B": 128, "RTXPRO6000_Qwen3-32B": 128, "RTXPRO6000_Qwen3-30B-A3B-Instruct-2507": 256}
"""Measured runs and how many requests they had in a batch; the last shows twice what its metadata says."""


def beside_vllm(run: str, max_num_seqs: int) -> bool:
    rows = [json.loads(line) for line in (SHARED / "validation" / run / "requests.jsonl").read_text().splitlines()]
    rows.sort(key=lambda row: float(row["queued_ts"]))
    start_s = rows[0]["queued_ts"]
    queued, first, last = (
        np.array([row[name] - start_s for row in rows]) for name in ("queued_ts", "first_token_ts", "last_token_ts")
    )
    steps = np.array([row["output_toks"] - 1 for row in rows])
    half = len(rows) // 2

    def errors(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        base, prefill, kv = np.exp(coefficients)
        timing = LinearTiming(base_ms=base, prefill_ms_per_token=prefill, kv_ms_per_token=kv)
        engine = Engine(EngineLimits(max_num_seqs=max_num_seqs), timing)
        requests = [
            engine.submit(row["input_toks"], row["output_toks"], at_s)
            for row, at_s in zip(rows, queued.tolist(), strict=True)
        ]
        engine.advance(math.inf)
        our_first, our_last = (
            np.array([getattr(request, name) for request in requests]) for name in ("first_token_s", "finished_s")
        )
        itl = np.where(steps > 0, np.abs((our_last - our_first) / np.maximum(last - first, 1e-9) - 1), np.nan)
        return itl, np.abs((our_last - queued) / (last - queued) - 1)

    def loss(coefficients: np.ndarray) -> float:
        itl, latency = errors(coefficients)
        return float(np.nanmean(itl[:half]) + np.mean(latency[:half]))

    start = np.log([12.0, 0.08, 1e-4])
    fitted = minimize(loss, start, method="Nelder-Mead", options={"maxfev": 200, "xatol": 1e-3, "fatol": 1e-4}).x
    itl, latency = errors(fitted)
    itl_error, latency_error = float(np.nanmean(itl[half:])), float(latency[half:].mean())
    print(f"  {run}: ITL off by {itl_error:.1%}, end-to-end latency by {latency_error:.1%}")
    return itl_error <= 0.15 and latency_error <= 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of each trace")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    passed = [beside_dynamo(case, arguments.quick) for case in CASES]
    print("\nmeasured runs of vLLM, second halves")
    passed += [beside_vllm(run, batch) for run, batch in RUNS.items()]
    print(f"\n{sum(passed)} of {len(passed)} comparisons are as near as they should be")


if __name__ == "__main__":
    main()
