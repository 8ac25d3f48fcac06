"""What became of each request and of each worker of a simulated cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.core.snapshot import Sla

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Served:
    """The requests that have arrived, in the order of their arrival; all arrays have the shape ``(requests,)``.

    Times are seconds of the trace. ``ttft_ms`` counts from arrival, with queueing and KV transfer; ``itl_ms`` is (last
    token - first token) / (output tokens - 1), and 0 for a single token. Both are NaN where it has not come so far, and
    so are ``finished_s`` and ``scheduled_s``, the beginning of the first step that a request was in. ``retries`` counts
    the crashes that it was in, ``preemptions`` how often it lost its KV cache to others. ``place`` tells those apart
    that were on different workers last; the place of a worker that is gone is another's later on.
    """

    arrival_s: Floats
    isl: NDArray[np.int64]
    osl: NDArray[np.int64]
    ttft_ms: Floats
    itl_ms: Floats
    scheduled_s: Floats
    finished_s: Floats
    place: NDArray[np.int64]
    dropped: NDArray[np.bool_]
    preemptions: NDArray[np.int64]
    retries: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.arrival_s)

    def meets(self, sla: Sla) -> NDArray[np.bool_]:
        """Which of them meet both targets; what is not finished or was dropped does not."""
        with np.errstate(invalid="ignore"):
            in_time = (self.ttft_ms <= sla.ttft_ms) & (self.itl_ms <= sla.itl_ms)
        return np.asarray(in_time & np.isfinite(self.finished_s))

    def attainment(self, sla: Sla) -> float:
        """The share that meets both targets; NaN where there is no request."""
        return float(self.meets(sla).mean()) if len(self) else math.nan


@dataclass
class WorkerLife:
    """A worker from launch to release; times are seconds of the trace, NaN until then.

    It is billed from ``launched_s`` (when it got its GPUs) to ``released_s``. ``end`` says what ended it: ``drained``,
    ``cancelled`` (while it started), ``crashed`` or ``failed`` (its start).
    """

    pool: str
    number: int
    gpus: int
    launched_s: float
    ready_s: float = math.nan
    draining_s: float = math.nan
    released_s: float = math.nan
    end: str = ""

    def gpu_seconds(self, until_s: float) -> float:
        """GPU seconds billed up to a time."""
        end_s = until_s if math.isnan(self.released_s) else min(self.released_s, until_s)
        return self.gpus * max(end_s - self.launched_s, 0.0)


@dataclass(frozen=True)
class Counts:
    """The replicas of a pool from ``at_s`` (seconds of the trace) on."""

    at_s: float
    pool: str
    ready: int
    starting: int
    draining: int
    failed: int
    target: int
