"""The runs: which there are, and what became of one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.quality.cells import STALE, TRACES, Cell, Stage, recorded, shaped, stages, step
from dynamo_planner import KnobPolicy, Policy, SetKnob, Sla, SlaPolicy, together
from dynamo_planner.engines import catalogue
from dynamo_planner.engines.standard_knobs import CHUNK
from dynamo_planner.evaluation.backtest import run_policy
from dynamo_planner.evaluation.run import Run
from dynamo_planner.policies.sla import SkiRental
from dynamo_planner.simulator.results import Served

PARTS = ("worth", "harm", "gap")
PROFILES = {
    "llama31-8b_h100_vllm_tp1": Sla(ttft_ms=500, itl_ms=15),
    "llama31-8b_l40s_trtllm_tp1": Sla(ttft_ms=1500, itl_ms=45),
    "llama31-70b_h100_vllm_tp4": Sla(ttft_ms=1500, itl_ms=40),
    "llama31-70b-fp8_h200_trtllm_tp2": Sla(ttft_ms=1500, itl_ms=40),
    "qwen3-32b-fp8_h100_sglang_tp1": Sla(ttft_ms=1500, itl_ms=40),
    "gpt-oss-120b_h100_vllm_tp2": Sla(ttft_ms=1000, itl_ms=20),
}
CHUNKS = (512, 2048, 8192, 32_768)
STARTS = (2048, 8192)
QUANTILES = (0.3, 0.95)
MEAN, STARTUP_S, TRAIN_S, TEST_S = 3.0, 60.0, 600.0, 3600.0
LIVE = tuple(knob.replace(applied="live") for knob in catalogue("vllm").values())
"""vLLM's knobs, if it took them while it runs."""

GAP_OVER_ITL = 2.5


@dataclass(frozen=True)
class Task:
    """One run: a cell at a chunk, a contender, its quantile, and the seed."""

    profile: str
    aggregated: bool
    seed: int
    chunk: int
    tuned: bool
    quantile: float
    trouble: str = ""
    gap: bool = False
    live: bool = False

    @property
    def contender(self) -> str:
        return f"knobs from {self.chunk}" if self.tuned else f"chunk {self.chunk}"


@dataclass(frozen=True)
class Result:
    """What became of a run, how often knobs were turned, and in the third part the share that kept TTFT and gap."""

    task: Task
    attainment: float
    gpu_hours: float
    turns: int
    gap_attainment: float | None


def cell_of(task: Task) -> Cell:
    """The cell of a run: the trace and the window follow from the seed."""
    name, (at_s, _) = list(TRACES.items())[task.seed % len(TRACES)]
    sla = PROFILES[task.profile]
    cell = Cell(
        task.trouble or name,
        recorded(name, at_s + 400.0 * (task.seed // len(TRACES))),
        MEAN,
        STARTUP_S,
        (task.profile, sla, task.chunk),
        task.aggregated,
    )
    return TROUBLES[task.trouble](cell)


def _steps(cell: Cell) -> Cell:
    return replace(cell, load=shaped(step))


TROUBLES: Mapping[str, Callable[[Cell], Cell]] = {
    "": lambda cell: cell,
    "profile 30 % too good": lambda cell: replace(cell, profile_error=1.3),
    "profile 30 % too bad": lambda cell: replace(cell, profile_error=1 / 1.3),
    "noise: slow nodes": lambda cell: replace(cell, faults={"slow_share": 0.3}),
    "load steps": _steps,
    "broken metrics": lambda cell: replace(cell, metrics=STALE),
}


@lru_cache(maxsize=2)
def _part(task: Task) -> Stage:
    return stages(cell_of(task), TRAIN_S, TEST_S)[1]


def stage_of(task: Task) -> Stage:
    """The part to score; the load is the same at every chunk, and for every contender."""
    stage = _part(Task(task.profile, task.aggregated, task.seed, STARTS[0], False, 0.0, task.trouble))
    pools = {
        name: pool.replace(limits=pool.limits.replace(max_num_batched_tokens=task.chunk))
        for name, pool in stage.cluster.pools.items()
    }
    metrics = stage.cluster.metrics.replace(quantiles=(0.9, 0.99))
    changes = {"pools": pools, "metrics": metrics, "live_knobs": task.live}
    return Stage(stage.trace, stage.cluster.replace(**changes), stage.need)


def policy_of(task: Task) -> Policy:
    """The contender of a run."""
    cell = cell_of(task)
    profile = cell.profile()
    replicas = SlaPolicy(sla=cell.sla, profile=profile, plan=SkiRental(quantile=task.quantile))
    if not task.tuned:
        return replicas
    gap_ms = GAP_OVER_ITL * cell.sla.itl_ms if task.gap else None
    knobs: dict[str, Any] = {"engine": None, "more": LIVE} if task.live else {"engine": "vllm"}
    return together(KnobPolicy(sla=cell.sla, profile=profile, gap_ms=gap_ms, **knobs), replicas)


def run(task: Task) -> Result:
    """One run, scored."""
    stage = stage_of(task)
    done = run_policy("", policy_of(task), trace=stage.trace, cluster=stage.cluster, sla=PROFILES[task.profile])
    turned = [
        (decision.at_s - done.start_s, float(action.value))
        for decision in done.decisions
        for action in decision.actions
        if isinstance(action, SetKnob) and action.knob == CHUNK
    ]
    attained = 1.0 if done.score.attainment_possible is None else done.score.attainment_possible
    kept = _gaps_kept(done, turned, task) if task.gap else None
    return Result(task, attained, done.score.gpu_hours, len(turned), kept)


def _gaps_kept(done: Run, turned: Sequence[tuple[float, float]], task: Task) -> float:
    """The share of requests that keep TTFT and the worst gap. While workers are replaced, each is taken for one with
    the larger chunk of both, whose steps are longer."""
    chunks = [(0.0, float(task.chunk))]
    for at_s, chunk in turned:
        moving = [count for count in done.counts if count.at_s > at_s]
        over_s = next((count.at_s for count in moving if not count.starting + count.draining), math.inf)
        chunks += [(at_s, max(chunk, chunks[-1][1])), (at_s if task.live else over_s, chunk)]
    sla = PROFILES[task.profile]
    gaps_ms = worst_gaps_ms(done.served, sorted(chunks, key=lambda each: each[0]))
    return float(((done.served.ttft_ms <= sla.ttft_ms) & (gaps_ms <= GAP_OVER_ITL * sla.itl_ms)).mean())


def worst_gaps_ms(served: Served, chunks: Sequence[tuple[float, float]]) -> np.ndarray:
    """The longest gap between two tokens of each request of an aggregated pool: its mean ITL, or the steps of a prompt
    that was computed beside it. ``chunks`` are those from each time on."""
    times, sizes = (np.array(column) for column in zip(*chunks, strict=True))
    first_s = served.arrival_s + served.ttft_ms / 1000
    chunk = sizes[np.maximum(np.searchsorted(times, served.scheduled_s, side="right") - 1, 0)]
    step_ms = 1000 * (first_s - served.scheduled_s) / np.ceil(served.isl / chunk)
    gaps_ms = np.where(np.isfinite(served.itl_ms), served.itl_ms, np.inf)
    for place in np.unique(served.place):
        here = np.flatnonzero((served.place == place) & np.isfinite(served.finished_s))
        here = here[np.argsort(served.scheduled_s[here], kind="stable")]
        ends = np.maximum.accumulate(first_s[here])
        low = np.searchsorted(ends, first_s[here], side="right")
        high = np.searchsorted(served.scheduled_s[here], served.finished_s[here], side="left")
        steps = step_ms[here]
        for request, begin, end in zip(here, low, high, strict=True):
            if end > begin:
                gaps_ms[request] = max(gaps_ms[request], steps[begin:end].max())
    return np.where(served.osl > 1, gaps_ms, 0.0)


def tasks(part: str, profiles: Sequence[str], seeds: Sequence[int]) -> list[Task]:
    """The runs of a part."""
    contenders = [(chunk, False) for chunk in CHUNKS] + [(chunk, True) for chunk in STARTS]
    if part == "worth":
        each = itertools.product(profiles, (True, False), seeds, contenders, QUANTILES)
        return [Task(profile, mode, seed, *contender, quantile) for profile, mode, seed, contender, quantile in each]
    if part == "harm":
        troubles = [name for name in TROUBLES if name]
        again = itertools.product(profiles[::3], (True, False), seeds, troubles, (False, True))
        return [Task(profile, mode, seed, STARTS[0], tuned, 0.95, name) for profile, mode, seed, name, tuned in again]
    beside = itertools.product(profiles, seeds, contenders)
    return [Task(profile, True, seed, *contender, 0.95, gap=True) for profile, seed, contender in beside]
