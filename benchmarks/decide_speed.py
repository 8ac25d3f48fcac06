"""How long ``SlaPolicy.decide`` takes: ``OMP_NUM_THREADS=1 python -m benchmarks.decide_speed [--quick]``.

Ticks of 5 s with Poisson arrivals whose rate goes up and down over a day around 30 requests/s, and of each tick the
mean lengths. A decision includes the new state. What is counted is CPU time. Decisions are the same every time, so each
series is decided several times, by a process of its own each, and of each tick the least counts: other programs on the
machine slow it down, and nothing makes it faster than it is.

Beside it: ``LoadPolicy``, the state's round trip through JSON, its size after one day and after fourteen, and on the
same series Dynamo's own planners, where ``--dynamo-python`` (or ``DYNAMO_PYTHON``) is an interpreter with ``ai-dynamo``
1.6.1, and ``--dynamo-051`` (or ``DYNAMO_051``) a folder in which the wheel of ``ai-dynamo`` 0.5.1 is unzipped. Exits
with 1 where the budget is missed.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np

from benchmarks.peers import planners
from benchmarks.shared import SHARED
from dynamo_planner import Dist, LoadPolicy, Policy, PoolSpec, PoolStatus, Profile, Sla, SlaPolicy, Snapshot, Traffic
from dynamo_planner.core.decision import State

MEASURED = SHARED / "profiles" / "MEASURED_llama2-70b_a100_splitwise_tp4"
BUNDLED = ("llama31-8b_h100_vllm_tp1", "llama31-70b_h100_vllm_tp4", "llama31-70b-fp8_h200_trtllm_tp2")

TICK_S, RATE, DAY_S = 5.0, 30.0, 86_400.0
SLA = Sla(ttft_ms=1000, itl_ms=60)
MODES = {"disaggregated": ("prefill", "decode"), "aggregated": ("aggregated",)}

MEDIAN_MS, P99_MS, STATE_KIB = 0.6, 2.0, 64.0
"""The budget, of a disaggregated service."""


class Tick(NamedTuple):
    """Arrivals in the 5 s to ``at_s``, and their mean lengths."""

    at_s: float
    requests: int
    isl: float
    osl: float


def series(ticks: int) -> Iterator[Tick]:
    """Poisson arrivals around a rate that follows the day, with log-normal lengths."""
    random = np.random.default_rng(1)
    for number in range(1, ticks + 1):
        at_s = TICK_S * number
        rate = RATE * (1 + 0.5 * math.sin(2 * math.pi * at_s / DAY_S))
        requests = int(random.poisson(rate * TICK_S))
        isl = random.lognormal(math.log(1200), 0.9, max(requests, 1)).mean()
        osl = random.lognormal(math.log(180), 0.8, max(requests, 1)).mean()
        yield Tick(at_s, requests, float(isl), float(osl))


def seen(tick: Tick, targets: dict[str, int]) -> Snapshot:
    """A service that has what it was told to have."""
    pools = {
        role: PoolStatus(
            spec=PoolSpec(role=role, startup_s=120),
            replicas=count,
            queued=0,
            running=10 * count,
            observed_at_s=tick.at_s,
        )
        for role, count in targets.items()
    }
    count = tick.requests
    traffic = Traffic(
        requests_per_s=count / TICK_S,
        window_s=TICK_S,
        observed_at_s=tick.at_s,
        isl=Dist(mean=tick.isl, count=count),
        osl=Dist(mean=tick.osl, count=count),
        ttft_ms=Dist(mean=300, count=count),
        itl_ms=Dist(mean=30, count=count),
    )
    return Snapshot(at_s=tick.at_s, traffic=traffic, pools=pools)


def profile_of(name: str) -> Profile:
    return Profile.load(MEASURED) if name == MEASURED.name else Profile.bundled(name)


def policy_of(kind: str, name: str) -> Policy:
    return LoadPolicy() if kind == "load" else SlaPolicy(sla=SLA, profile=profile_of(name))


def decided(kind: str, profile: str, mode: str, ticks: int) -> tuple[list[float], str]:
    """CPU milliseconds of each decision, and the last state as JSON."""
    policy, state, targets, took_ms = policy_of(kind, profile), None, dict.fromkeys(MODES[mode], 2), list[float]()
    for tick in series(ticks):
        snapshot = seen(tick, targets)
        began_ns = time.process_time_ns()
        decision = policy.decide(snapshot, state)
        took_ms.append((time.process_time_ns() - began_ns) / 1e6)
        state = decision.state
        targets.update(decision.targets)
    return took_ms, state.model_dump_json() if state else "null"


def measured(kind: str, profile: str, mode: str, ticks: int, times: int) -> tuple[float, float, str]:
    """Median and 99th percentile over the ticks in milliseconds, without the first tick, and the last state."""
    runs = []
    for _ in range(times):
        # A process of its own: nothing is left of the run before.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            runs.append(process.submit(decided, kind, profile, mode, ticks).result())
    least = np.min([took_ms for took_ms, _ in runs], axis=0)[1:]
    return float(np.median(least)), float(np.percentile(least, 99)), runs[-1][1]


def round_trip_ms(state: str) -> float:
    """To JSON and back, the median."""
    value, took_ms = State.model_validate_json(state), list[float]()
    for _ in range(50):
        began_ns = time.process_time_ns()
        value = State.model_validate_json(value.model_dump_json())
        took_ms.append((time.process_time_ns() - began_ns) / 1e6)
    return float(np.median(took_ms))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one profile, once, a short series, no days")
    parser.add_argument("--dynamo-python", default=os.environ.get("DYNAMO_PYTHON"))
    parser.add_argument("--dynamo-051", default=os.environ.get("DYNAMO_051"))
    options = parser.parse_args()
    ticks, times = (600, 2) if options.quick else (3000, 3)
    names = [*([MEASURED.name] if MEASURED.exists() else []), *BUNDLED][: 1 if options.quick else None]
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1: numpy's threads would be counted, and slow each other down")
    good = True
    print(f"{ticks} decisions a row, CPU ms{'':35} median     p99")
    for mode in MODES:
        for name in names:
            if mode == "aggregated" and profile_of(name).mixed is None:
                continue
            median, p99, state = measured("sla", name, mode, ticks, times)
            met = mode == "aggregated" or (median <= MEDIAN_MS and p99 <= P99_MS)
            good &= met
            print(f"SlaPolicy {mode:14} {name:42} {median:6.3f} {p99:7.3f}{'' if met else '  over the budget'}")
        median, p99, _ = measured("load", names[0], mode, ticks, times)
        print(f"LoadPolicy {mode:56} {median:6.3f} {p99:7.3f}")
    print(f"the state's round trip through JSON, apart: {round_trip_ms(state):.2f} ms")
    for days in () if options.quick else (1, 14):
        _, state = decided("sla", names[0], "disaggregated", int(days * DAY_S / TICK_S))
        kib = len(state.encode()) / 1024
        good &= kib <= STATE_KIB
        print(f"state after {days} days: {kib:.1f} KiB")
    if options.dynamo_python:
        for version, median, p99 in planners.timed(
            options.dynamo_python, options.dynamo_051, MEASURED, [*series(ticks)], SLA
        ):
            print(f"Dynamo {version:60} {median:6.3f} {p99:7.3f}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
