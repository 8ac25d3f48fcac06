"""The cheapest mix of two kinds of hardware against search in hindsight: ``python -m benchmarks.mix_quality``.

For three pairs of profiles and two demands each: the mix that ``cheapest_mix`` chooses by its sizing, and the cheapest
that serves the same requests in time in the simulated cluster. Searched are, in the order of their cost, all mixes
whose rate is at least 85 % of the demand by the sizing; requests go to the pools by the weights of the mix. A chosen
mix that costs less than the one in hindsight missed the promise, by as much as the row says.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product

import numpy as np

from benchmarks.shared import SHARED
from dynamo_planner import Dist, Profile, Sla
from dynamo_planner.fleet import Hardware, cheapest_mix, rates_in_time
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.sizing import Load, PercentileSizing
from dynamo_planner.workloads.trace import Trace

PAIRS: tuple[tuple[Sla, dict[str, float]], ...] = (
    (Sla(ttft_ms=1000, itl_ms=40), {"llama31-8b_a100_vllm_tp1": 1.6, "llama31-8b_h100_vllm_tp1": 2.6}),
    (Sla(ttft_ms=2000, itl_ms=60), {"llama31-70b_h100_vllm_tp4": 10.4, "llama31-70b-fp8_h200_trtllm_tp2": 7.0}),
    (Sla(ttft_ms=2000, itl_ms=60), {"qwen3-32b_h100_vllm_tp2": 5.2, "qwen3-32b-fp8_h200_vllm_tp1": 3.5}),
)
"""The targets, and the profiles with the price of a replica-hour, in dollars of a public cloud."""

DEMANDS = (1.6, 4.3)
"""Demands, in replicas of the first kind."""

MOST, LEAST_RATE, DRAIN_S = 8, 0.85, 300.0
ISL, OSL = (800.0, 1200.0), (120.0, 180.0)
"""Medians and means of log-normal lengths."""


def drawn(requests_per_s: float, duration_s: float, seed: int) -> Trace:
    """Poisson arrivals."""
    random = np.random.default_rng(seed)
    arrival_s = np.cumsum(random.exponential(1 / requests_per_s, int(1.2 * requests_per_s * duration_s) + 50))
    arrival_s = arrival_s[arrival_s < duration_s]
    isl, osl = [
        np.maximum(np.exp(np.log(median) + np.sqrt(2 * np.log(mean / median)) * random.normal(size=len(arrival_s))), 1)
        for median, mean in (ISL, OSL)
    ]
    return Trace(arrival_s, isl.astype(int), osl.astype(int), None, "poisson", duration_s)


def in_time(trace: Trace, sla: Sla, profiles: list[Profile], counts: tuple[int, ...], weights: list[float]) -> float:
    """The share of the requests in time, each pool with its part of them."""
    pool_of = np.random.default_rng(7).choice(len(weights), len(trace), p=weights)
    met = 0
    for n, (profile, count) in enumerate(zip(profiles, counts, strict=True)):
        own = pool_of == n
        if not own.any():
            continue
        part = Trace(trace.arrival_s[own], trace.isl[own], trace.osl[own], None, "part", trace.duration_s)
        cluster = SimulatedCluster(ClusterSetup.aggregated(profile, replicas=count), part)
        cluster.advance_to(trace.duration_s + DRAIN_S)
        met += int(cluster.served().meets(sla).sum())
    return met / len(trace)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    seconds = parser.parse_args().seconds
    worst = 1.0
    for sla, prices in PAIRS:
        profiles = [Profile.load(SHARED / "profiles" / name) for name in prices]
        lengths = [Dist(mean=mean, cv2=(mean / median) ** 2 - 1) for median, mean in (ISL, OSL)]
        load = Load.of(1.0, isl=lengths[0], osl=lengths[1])
        kinds = [
            Hardware(name, price, rates_in_time(PercentileSizing(profile), load, sla, "aggregated", MOST))
            for profile, (name, price) in zip(profiles, prices.items(), strict=True)
        ]
        for size in DEMANDS:
            demand = size * kinds[0].rates[4] / 4
            trace = drawn(demand, seconds, seed=3)
            mix = cheapest_mix(kinds, demand)
            chosen = tuple(mix.replicas.values())
            mixes = []
            for counts in product(range(MOST + 1), repeat=2):
                rates = [kind.rates[count] for kind, count in zip(kinds, counts, strict=True)]
                cost = sum(kind.cost * count for kind, count in zip(kinds, counts, strict=True))
                if sum(rates) >= LEAST_RATE * demand:
                    mixes.append((cost, counts, [rate / sum(rates) for rate in rates]))
            had = in_time(trace, sla, profiles, chosen, list(mix.weights.values()))
            tried = ((each, in_time(trace, sla, profiles, *each[1:])) for each in sorted(mixes))
            (cost, counts, _), share = next((each, own) for each, own in tried if own >= sla.attainment)
            worst = max(worst, mix.cost / cost)
            print(
                f"{' + '.join(prices)} at {demand:.1f}/s: chosen {chosen} for {mix.cost:.1f} with {had:.2%} in time, "
                f"in hindsight {counts} for {cost:.1f} with {share:.2%}: {mix.cost / cost - 1:+.1%}",
                flush=True,
            )
    print(f"at most {worst - 1:.1%} more than in hindsight")
    return int(worst > 1.05)


if __name__ == "__main__":
    sys.exit(main())
