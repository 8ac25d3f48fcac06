"""The cells of the benchmark: a load, a cluster and its troubles; a part to tune on, and the rest to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks.shared import SHARED
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.work_floor import pool_work
from dynamo_planner.profiles import Profile
from dynamo_planner.simulator.engine.step_time import ProfileTiming
from dynamo_planner.simulator.setup import ClusterSetup, Faults, MetricsSetup, Outage
from dynamo_planner.workloads.generators import AZURE_CONVERSATION_ISL, AZURE_CONVERSATION_OSL
from dynamo_planner.workloads.trace import Trace

MARGIN_S = 120.0
"""Between what is tuned on and what is scored."""

BEGINNING_S = 120.0
"""A part begins with what is needed for so long, or on average where that is more: it is a piece of a longer day."""

MORE_AT_FIRST = 1.4
"""A whole window starts with so many times the replicas that a part of a cell does."""

MOST_REPLICAS = 8.0
"""The most replicas of a pool, over the mean need: what an operator would allow."""

A100 = ("MEASURED_llama2-70b_a100_splitwise_tp4", Sla(ttft_ms=2000, itl_ms=100), 2048)
H200 = ("MEASURED_llama31-8b-fp8_h200_dynamo_tp1", Sla(ttft_ms=3000, itl_ms=25), 8192)
AGGREGATED = ("llama31-70b_h100_vllm_tp4", Sla(ttft_ms=2000, itl_ms=50), 2048)


@dataclass(frozen=True)
class Cell:
    """A load on a cluster.

    ``load`` makes the trace of a window (from, to) at a rate; ``model`` is a profile, its SLA and the token budget of a
    step; ``mean`` is the mean need in replicas, over all pools, if every request took its least time.
    """

    name: str
    load: Callable[[float, float, float, int], Trace]
    mean: float = 4.0
    startup_s: float = 60.0
    model: tuple[str, Sla, int] = A100
    aggregated: bool = False
    profile_error: float = 1.0
    metrics: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, Any] = field(default_factory=dict)
    max_gpus_over_mean: float | None = None

    @property
    def sla(self) -> Sla:
        return self.model[1]

    def profile(self) -> Profile:
        return Profile.load(SHARED / "profiles" / self.model[0])


@dataclass(frozen=True)
class Stage:
    """A cell made ready: the trace and the cluster of one part of it, and the mean need of each pool."""

    trace: Trace
    cluster: ClusterSetup
    need: dict[str, float]


def stages(cell: Cell, train_s: float, test_s: float) -> tuple[Stage, Stage]:
    """The part to tune on and the part to score, with the load scaled so that the first has the mean need."""
    probe = cell.load(0.0, train_s, 1.0, 1)
    rate = cell.mean / sum(_need(cell, probe).values())
    parts: list[Stage] = []
    for number, (from_s, to_s) in enumerate([(0.0, train_s), (train_s + MARGIN_S, train_s + MARGIN_S + test_s)]):
        trace = cell.load(from_s, to_s, rate, 2 + number)
        parts.append(_stage(cell, trace, parts[0].need if parts else None))
    return parts[0], parts[1]


def whole(cell: Cell, seconds: float) -> Stage:
    """A cell of so many seconds, with the load scaled so that all of it has the mean need.

    It starts with more replicas than parts do, so that the start-up time at the beginning, in which no policy can do
    anything, does not decide.
    """
    rate = cell.mean / sum(_need(cell, cell.load(0.0, seconds, 1.0, 1)).values())
    return _stage(cell, cell.load(0.0, seconds, rate, 2), None, MORE_AT_FIRST)


def _stage(cell: Cell, trace: Trace, need: dict[str, float] | None, more: float = 1.0) -> Stage:
    need = need or _need(cell, trace)
    begins = _need(cell, trace.between(0.0, min(BEGINNING_S, trace.duration_s)))
    at_first = {name: more * max(need[name], begins[name]) for name in need}
    return Stage(trace, _cluster(cell, need, at_first), need)


def _need(cell: Cell, trace: Trace) -> dict[str, float]:
    cluster = _cluster(cell, dict.fromkeys(_pools(cell), 1.0), dict.fromkeys(_pools(cell), 1.0))
    return {
        name: float(
            pool_work(trace, pool.timing, pool.limits, pool.spec.role, cell.sla).work_s.sum() / trace.duration_s
        )
        for name, pool in cluster.pools.items()
    }


def _pools(cell: Cell) -> tuple[str, ...]:
    return ("workers",) if cell.aggregated else ("prefill", "decode")


def _cluster(cell: Cell, need: dict[str, float], at_first: dict[str, float]) -> ClusterSetup:
    """The cluster for a mean need, with 1.5 times the replicas that are needed at first."""
    profile = cell.profile()
    engine = ProfileTiming(profile=profile if cell.profile_error == 1.0 else _slower(profile, cell.profile_error))
    start = {name: max(int(np.ceil(1.5 * level)), 1) for name, level in at_first.items()}
    gpus = profile.decode_points.gpus
    limit = cell.max_gpus_over_mean
    options: dict[str, Any] = {
        "startup_s": cell.startup_s,
        "max_replicas": max(int(np.ceil(MOST_REPLICAS * max(need.values()))), 4),
        "gpus": gpus,
        "max_num_batched_tokens": cell.model[2],
        "kv_tokens": int(profile.decode.max_kv_tokens),
        "metrics": MetricsSetup(quantiles=(0.9,), **cell.metrics),
        "faults": Faults(**cell.faults),
        "max_gpus": None if limit is None else int(np.ceil(limit * sum(start.values()))) * gpus,
    }
    if cell.aggregated:
        return ClusterSetup.aggregated(engine, start["workers"], **options)
    return ClusterSetup.disaggregated(engine, start["prefill"], start["decode"], **options)


def _slower(profile: Profile, factor: float) -> Profile:
    """The engine as it is, where the profile that the policies have is too good by a factor."""
    prefill, decode = profile.prefill_points, profile.decode_points
    return Profile.from_points(
        isl=prefill.isl,
        ttft_ms=factor * np.asarray(prefill.ttft_ms),
        max_kv_tokens=decode.max_kv_tokens,
        context=decode.context,
        itl_ms=factor * np.asarray(decode.itl_ms),
        kv_usage=decode.kv_usage,
        gpus=decode.gpus,
    )


# Loads.


def recorded(name: str, at_s: float = 0.0) -> Callable[[float, float, float, int], Trace]:
    """A window of a recorded trace, ``at_s`` into it, or as much of it as there is.

    The rate is that of the first 15 minutes; a window that is busier in the recording is as much busier here.
    """

    def load(from_s: float, to_s: float, rate: float, seed: int) -> Trace:
        whole = Trace.load(SHARED / "traces" / f"{name}.npz")
        first = whole.between(at_s, min(at_s + 900.0, whole.duration_s))
        part = whole.between(at_s + from_s, min(at_s + to_s, whole.duration_s))
        busier = len(part) / part.duration_s / (len(first) / first.duration_s)
        return part.at_rate(rate * busier, seed)

    return load


def shaped(
    level: Callable[[np.ndarray], np.ndarray], lengthen: Callable[[np.ndarray], np.ndarray] | None = None
) -> Callable[[float, float, float, int], Trace]:
    """Arrivals with the rate ``level(seconds)`` times the mean rate, of the lengths of the Azure conversation trace.

    The rate of each second is multiplied by a gamma variable of variance 0.1, as production traffic is uneven.
    """
    return partial(_shaped, level, lengthen)


def _shaped(
    level: Callable[[np.ndarray], np.ndarray],
    lengthen: Callable[[np.ndarray], np.ndarray] | None,
    from_s: float,
    to_s: float,
    rate: float,
    seed: int,
) -> Trace:
    random = np.random.default_rng(seed)
    seconds = np.arange(from_s, to_s)
    counts = random.poisson(rate * level(seconds) * random.gamma(10.0, 0.1, len(seconds)))
    arrival = np.repeat(seconds - from_s, counts) + random.random(counts.sum())
    longer = np.ones(len(arrival)) if lengthen is None else lengthen(arrival + from_s)
    isl = np.maximum(AZURE_CONVERSATION_ISL.draw(random, len(arrival)) * longer, 1).astype(np.int64)
    osl = np.maximum(AZURE_CONVERSATION_OSL.draw(random, len(arrival)) * longer, 1).astype(np.int64)
    return Trace(arrival, isl, osl, None, "shaped", to_s - from_s)


def flat(seconds: np.ndarray) -> np.ndarray:
    return np.ones(len(seconds))


def wave(seconds: np.ndarray) -> np.ndarray:
    return 1 + 0.6 * np.sin(2 * np.pi * seconds / 1800)


def flash(seconds: np.ndarray) -> np.ndarray:
    """Five times the load for five minutes, reached in 30 s, every 20 minutes."""
    phase = np.mod(seconds - 300, 1200)
    return np.where(phase < 30, 1 + 4 * phase / 30, np.where(phase < 330, 5.0, 1.0))


def step(seconds: np.ndarray) -> np.ndarray:
    return np.where(np.mod(seconds, 1200) < 600, 1.0, 2.0)


def on_off(seconds: np.ndarray) -> np.ndarray:
    return np.where(np.mod(seconds, 1200) < 600, 1.8, 0.2)


def ramp(seconds: np.ndarray) -> np.ndarray:
    """Four times the load in 20 minutes, and down again."""
    phase = np.mod(seconds, 2400) / 1200
    return np.asarray(0.6 + 1.8 * np.minimum(phase, 2 - phase))


def drift(seconds: np.ndarray) -> np.ndarray:
    return 1 + np.minimum(seconds / 3600, 1.0)


STALE = {"delay_s": 60.0, "missing_share": 0.1, "frozen": ((300.0, 480.0),)}
CRASHES = {"crash_mtbf_s": 7200.0, "outages": (Outage(at_s=600.0, share=0.3),)}
SLOW = {"slow_share": 0.2}
FAILING = {"launch_failure_share": 0.1, "startup_cv": 0.3}

SCENARIOS = (
    Cell("S1 stationary", shaped(flat)),
    Cell("S2 wave of 30 min", shaped(wave), startup_s=120),
    Cell("S3 flash crowd x5", shaped(flash), startup_s=120),
    Cell("S4 steps x2", shaped(step)),
    Cell("S5 on/off 10 min", shaped(on_off), startup_s=30),
    Cell("S6 ramp x4", shaped(ramp), startup_s=120),
    Cell("S7 lengths drift x2", shaped(flat, drift)),
    Cell("S9 azure conv", recorded("azure2023_conv")),
    Cell("S10 mooncake, prefix cache", recorded("mooncake_conversation"), model=H200),
    Cell("S11 servegen m-large", recorded("servegen_mlarge_day0_x0.03", 47_000)),
    Cell("S12 stale metrics", recorded("azure2023_conv"), metrics=STALE),
    Cell("S13 crashes, zone loss", recorded("azure2023_conv"), faults=CRASHES),
    Cell("S14 profile 30 % off, slow nodes", recorded("azure2023_conv"), profile_error=1.3, faults=SLOW),
    Cell("S15 failing launches, quota", recorded("azure2023_conv"), faults=FAILING, max_gpus_over_mean=1.6),
    Cell("aggregated azure conv", recorded("azure2023_conv"), model=AGGREGATED, aggregated=True),
)

TRACES = {
    "azure2023_conv": (0.0, A100),
    "azure2024_conv_tue_x0.2_recon": (30_000.0, A100),
    "azure2024_conv_week_x0.04_recon": (120_000.0, A100),
    "mooncake_conversation": (0.0, H200),
    "servegen_mlarge_day0_x0.03": (47_000.0, A100),
    "servegen_mlarge_wk1_x0.008": (200_000.0, A100),
    "servegen_mmid_day4_x0.004": (30_000.0, A100),
    "servegen_msmall_day1_x0.008": (30_000.0, A100),
}
STARTUPS = (5.0, 30.0, 120.0, 300.0)


def trace_cells(startups: tuple[float, ...], means: tuple[float, ...]) -> list[Cell]:
    """Every trace at every start-up time and mean need."""
    return [
        Cell(f"{name} L={startup_s:g} n={mean:g}", recorded(name, at_s), mean, startup_s, model)
        for mean in means
        for startup_s in startups
        for name, (at_s, model) in TRACES.items()
    ]


DAYS = tuple(
    Cell(f"{name}, 23 h L=120", recorded(name, at_s), startup_s=120.0, model=model)
    for name, at_s, model in (
        ("azure2024_conv_week_x0.04_recon", 172_800.0, A100),
        ("servegen_mlarge_wk1_x0.008", 172_800.0, A100),
    )
)
"""A night and a day each: what was tuned in the first hour after midnight meets the peak of noon."""


NOT_COVERED = (
    "S8 (Azure code) has no trace here",
    "S16 (models that share GPUs) is in benchmarks.fleet_quality",
    "mooncake_synthetic (17 minutes) is too short to be split",
)
