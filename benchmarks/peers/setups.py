"""The set-ups of ``benchmarks.arena_dynamo``: which requests, on which engines, with which targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.shared import SHARED
from dynamo_planner import Profile
from dynamo_planner.workloads.trace import Trace

A100, H200 = "MEASURED_llama2-70b_a100_splitwise_tp4", "MEASURED_llama31-8b-fp8_h200_dynamo_tp1"
JITTER_S, EDGE_S = 10.0, 50.0
"""Copies of a request come this much apart (standard deviation); what comes from beyond the edges fills them."""

STARTUP_S, WARM_UP_S, DRAIN_S = 60.0, 60.0, 300.0
"""How long starts take, targets are ignored at first (the simulator starts empty), and requests may take at last."""

MAX_WORKERS, MAX_NUM_SEQS, BLOCK_TOKENS = 64, 256, 64


@dataclass(frozen=True)
class Setup:
    """Copies of a window of a trace, the targets that attainment counts by, and the replicas at the start.

    The start is the mean need of the first five minutes at 65 % use. ``hindsight_gpu_hours`` is the cheaper of the
    least constant fleet that has 99 % in time, and of a schedule that knows the minutes to come; ``constant`` is that
    fleet.
    """

    trace: str
    profile_name: str
    copies: int
    from_s: float
    to_s: float
    ttft_ms: float
    itl_ms: float
    start: tuple[int, int]
    max_num_batched_tokens: int
    constant: tuple[int, int]
    hindsight_gpu_hours: float

    @property
    def profile_path(self) -> Path:
        return SHARED / "profiles" / self.profile_name

    @property
    def profile(self) -> Profile:
        return Profile.load(self.profile_path)

    def requests(self, seconds: float | None = None) -> Trace:
        """The requests of the window, or of its first ``seconds``."""
        with np.load(SHARED / "traces" / f"{self.trace}.npz") as columns:
            arrival_s = columns["arrival_s_spread" if "arrival_s_spread" in columns.files else "arrival_s"]
            edge_s = EDGE_S if self.copies > 1 else 0.0
            near = (arrival_s >= self.from_s - edge_s) & (arrival_s < self.to_s + edge_s)
            arrival_s, isl, osl = arrival_s[near], columns["isl"][near], columns["osl"][near]
        random = np.random.default_rng(0)
        moved = [arrival_s + random.normal(0.0, JITTER_S, len(arrival_s)) for _ in range(self.copies - 1)]
        copied_s = np.concatenate([arrival_s, *moved]) - self.from_s
        inside = (copied_s >= 0) & (copied_s < min(self.to_s - self.from_s, seconds or np.inf))
        lengths = [np.maximum(np.tile(column, self.copies)[inside], 1) for column in (isl, osl)]
        return Trace(np.round(copied_s[inside], 6), *lengths)


SETUPS = {
    "azure": Setup("azure2023_conv", A100, 5, 120, 1920, 2000, 100, (11, 13), 2048, (25, 10), 60.4),
    "mooncake": Setup("mooncake_conversation", H200, 8, 120, 1320, 3000, 25, (12, 8), 8192, (15, 11), 8.7),
    "servegen": Setup("servegen_mlarge_day0_x0.03", A100, 3, 47400, 50400, 2000, 100, (6, 7), 2048, (15, 8), 84.3),
}
