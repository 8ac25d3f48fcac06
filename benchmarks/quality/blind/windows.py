"""Windows: a piece of a trace on a cluster of one engine, scaled to a mean need of so many replicas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.quality.blind.targets import AGGREGATED_CHUNK, PREFILL_CHUNK, TABLE, Targets, by_rule
from benchmarks.quality.cells import Cell, Stage, whole
from dynamo_planner.profiles import Profile
from dynamo_planner.workloads.trace import Trace

LONG_PROMPT = 0.99
"""The quantile of prompt lengths that the TTFT target is for."""

SMALL_BATCH = 4
LONG_FOR_AGGREGATED = 8192


class Source:
    """A trace file and what the draw of windows has to know of it."""

    def __init__(self, path: Path) -> None:
        trace = Trace.load(path)
        self.path = path
        self.duration_s = trace.duration_s
        self.isl, self.osl = float(trace.isl.mean()), float(trace.osl.mean())
        self.long_prompt = float(np.quantile(trace.isl, LONG_PROMPT))


class Engine:
    """A profile and what the draw of windows has to know of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        profile = Profile.load(path)
        self.targets = TABLE[path.name] if path.name in TABLE else by_rule(profile)
        self.kv_tokens = profile.decode.max_kv_tokens
        self._gpus = profile.decode_points.gpus
        self._prefill, self._decode = profile.prefill, profile.decode

    def requests_per_s(self, source: Source, replicas: float) -> float:
        """About the rate that keeps so many replicas busy, with full chunks of prompts and full batches of decode."""
        prompt_s = source.isl * float(self._prefill.ttft_ms(PREFILL_CHUNK)) / PREFILL_CHUNK / 1000
        context = source.isl + source.osl / 2
        token_s = 1 / max(self._gpus * float(self._decode.best(self.targets.itl_ms, context).throughput), 1e-9)
        return replicas / (prompt_s + source.osl * token_s)

    def window(
        self,
        source: Source,
        at_s: float,
        seconds: float,
        mean: float,
        startup_s: float,
        *,
        aggregated: bool,
        group: str = "window",
    ) -> Window:
        """A window of a trace on this engine."""
        return Window(
            trace=source.path,
            profile=self.path,
            targets=self.targets,
            long_prompt=source.long_prompt,
            at_s=at_s,
            seconds=seconds,
            mean=mean,
            startup_s=startup_s,
            aggregated=aggregated,
            group=group,
        )

    def fits(self, source: Source, *, aggregated: bool) -> bool:
        """Whether the engine can serve a trace.

        Two of the long prompts must fit into its KV cache, and a small batch keep the ITL target. That of aggregated
        engines is for contexts of 2,048 tokens, so that it takes profiles with mixed steps, and no very long prompts.
        """
        batch = float(self._decode.best(self.targets.itl_ms, source.isl + source.osl).batch)
        if aggregated and (self.targets.aggregated_itl_ms is None or source.long_prompt > LONG_FOR_AGGREGATED):
            return False
        return 2 * source.long_prompt <= self.kv_tokens and batch >= SMALL_BATCH


@dataclass(frozen=True)
class Window:
    """One window.

    Args:
        trace: The trace file.
        profile: The folder of the profile.
        targets: The targets of the profile.
        long_prompt: The 99th percentile of the prompt lengths of the trace.
        at_s: Where in the trace it begins, in seconds.
        seconds: How long it is.
        mean: The replicas that it requires on average, over all pools, if every request took its least time.
        startup_s: How long a start takes, in seconds.
        aggregated: Whether one pool does both.
        group: ``window``, or ``apart`` where the trace or the profile is kept out of tuning.
    """

    trace: Path
    profile: Path
    targets: Targets
    long_prompt: float
    at_s: float
    seconds: float
    mean: float
    startup_s: float
    aggregated: bool
    group: str = "window"

    @cached_property
    def name(self) -> str:
        mode = "agg" if self.aggregated else "disagg"
        hours = f"{self.seconds / 3600:.3g}h at {self.at_s / 3600:g}h"
        return f"{self.trace.stem} {hours}, {self.profile.name}, {mode}, n={self.mean:g}, L={self.startup_s:g}"

    def cell(self) -> Cell:
        sla = self.targets.sla(self.long_prompt, aggregated=self.aggregated)
        chunk = AGGREGATED_CHUNK if self.aggregated else PREFILL_CHUNK
        return Cell(
            self.name,
            self._load,
            self.mean,
            self.startup_s,
            (str(self.profile.resolve()), sla, chunk),
            self.aggregated,
        )

    def stage(self) -> tuple[Cell, Stage]:
        """The cell, with its trace and its cluster."""
        cell = self.cell()
        return cell, whole(cell, self.seconds)

    def _load(self, from_s: float, to_s: float, rate: float, seed: int) -> Trace:
        part = Trace.load(self.trace).between(self.at_s + from_s, self.at_s + to_s)
        return part.at_rate(rate, seed)
