"""The scenarios S1 to S15 at three hours: troubles on drawn loads and on windows of traces that are a day long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import cells
from benchmarks.quality.blind.targets import AGGREGATED_CHUNK, PREFILL_CHUNK, TABLE
from benchmarks.quality.cells import Cell, Stage, shaped, whole
from benchmarks.shared import SHARED
from dynamo_planner.simulator.setup import Outage
from dynamo_planner.workloads.trace import Trace

HOURS = 3.0
CHAT_LONG_PROMPT = 6000.0
"""The long prompts of the drawn lengths, in tokens, and of the traces of chat."""

HIT_SHARE, MEAN_HIT = 0.6, 0.5
"""With a prefix cache this share of the prompts finds something in it: this share of itself, on average."""

A100 = "MEASURED_llama2-70b_a100_splitwise_tp4"
H100 = "llama31-70b_h100_vllm_tp4"
SMALL = "llama31-8b_a100_vllm_tp1"

STALE = {"delay_s": 60.0, "missing_share": 0.1, "frozen": ((5400.0, 5580.0),)}
CRASHES = {"crash_mtbf_s": 7200.0, "outages": (Outage(at_s=6000.0, share=0.3),)}


@dataclass(frozen=True)
class Scenario:
    """A load and its troubles.

    Args:
        name: Its name.
        load: Makes the requests from one second to another at a rate, with a seed.
        profile: The name of the profile.
        startup_s: How long a start takes, in seconds.
        aggregated: Whether one pool does both.
        options: What is out of the ordinary, as fields of a :class:`~benchmarks.quality.cells.Cell`.
        seconds: How long it is.
    """

    name: str
    load: Callable[[float, float, float, int], Trace]
    profile: str = A100
    startup_s: float = 120.0
    aggregated: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float = HOURS * 3600
    group: str = "scenario"

    def stage(self) -> tuple[Cell, Stage]:
        """The cell, with its trace and its cluster."""
        sla = TABLE[self.profile].sla(CHAT_LONG_PROMPT, aggregated=self.aggregated)
        chunk = AGGREGATED_CHUNK if self.aggregated else PREFILL_CHUNK
        cell = Cell(
            self.name,
            self.load,
            startup_s=self.startup_s,
            model=(self.profile, sla, chunk),
            aggregated=self.aggregated,
            **self.options,
        )
        return cell, whole(cell, self.seconds)


@dataclass(frozen=True)
class DayLoad:
    """Some hours of a trace of a day, from a second on; with a prefix cache, part of the prompts is in it."""

    trace: str
    at_s: float
    cached: bool = False

    def __call__(self, from_s: float, to_s: float, rate: float, seed: int) -> Trace:
        part = Trace.load(_path(self.trace)).between(self.at_s + from_s, self.at_s + to_s).at_rate(rate, seed)
        if not self.cached:
            return part
        random = np.random.default_rng(seed)
        share = random.beta(2.0, 2.0 / MEAN_HIT - 2.0, len(part)) * (random.random(len(part)) < HIT_SHARE)
        return Trace(part.arrival_s, part.isl, part.osl, (share * part.isl).astype(int), part.name, part.duration_s)


def _path(name: str) -> Path:
    return SHARED / "traces" / f"{name}.npz"


TUESDAY = DayLoad("azure2024_conv_tue_x0.2_recon", 9 * 3600.0)
EVENING = DayLoad("azure2024_conv_tue_x0.2_recon", 17 * 3600.0)
CACHED = DayLoad("azure2024_conv_tue_x0.2_recon", 12 * 3600.0, cached=True)
LARGE = DayLoad("servegen_mlarge_day0_x0.03", 13 * 3600.0)

SCENARIOS = (
    Scenario("S1 stationary", shaped(cells.flat), H100),
    Scenario("S2 wave of 30 min", shaped(cells.wave)),
    Scenario("S3 flash crowd x5", shaped(cells.flash)),
    Scenario("S4 steps x2", shaped(cells.step), SMALL, 60.0),
    Scenario("S5 on/off 10 min", shaped(cells.on_off), H100, 30.0, aggregated=True),
    Scenario("S6 ramp x4", shaped(cells.ramp), SMALL),
    Scenario("S7 lengths drift x2", shaped(cells.flat, cells.drift), startup_s=60.0),
    Scenario("S9 azure 2024, Tuesday", TUESDAY, SMALL, aggregated=True),
    Scenario("S10 prefix cache", CACHED, H100),
    Scenario("S11 servegen m-large", LARGE),
    Scenario("S12 stale metrics", TUESDAY, options={"metrics": STALE}),
    Scenario("S13 crashes, zone loss", EVENING, H100, options={"faults": CRASHES}),
    Scenario("S14 profile 30 % off, slow nodes", TUESDAY, options={"profile_error": 1.3, "faults": cells.SLOW}),
    Scenario("S15 failing launches, quota", LARGE, SMALL, options={"faults": cells.FAILING, "max_gpus_over_mean": 2.0}),
)  # fmt: skip
"""S8 (Azure code) has no trace here, and S16 (models that share GPUs) is in ``benchmarks.fleet_quality``."""
