"""Results of a simulation: how each request was served, and the history of each worker."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.core.snapshot import Sla

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Served:
    """The requests that have arrived, in the order of their arrival.

    All arrays have the shape ``(requests,)``; times are seconds of the trace, NaN for what has not happened so far.

    Args:
        arrival_s: when they arrived.
        isl: prompt tokens.
        osl: tokens to generate.
        ttft_ms: from arrival to the first token, with queueing and KV transfer.
        itl_ms: (last token - first token) / (output tokens - 1), and 0 for a single token.
        scheduled_s: the beginning of the first step that a request was in.
        finished_s: when the last token came.
        place: the place of the worker that had it last; once a worker is gone, another may get its place.
        dropped: whether it can never fit into the KV cache.
        preemptions: how often it lost its KV cache to others.
        retries: how many crashes it was in.
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
        """Which of them meet both targets; one that is not finished or was dropped does not."""
        with np.errstate(invalid="ignore"):
            in_time = (self.ttft_ms <= sla.ttft_ms) & (self.itl_ms <= sla.itl_ms)
        return np.asarray(in_time & np.isfinite(self.finished_s))

    def attainment(self, sla: Sla) -> float:
        """The share that meets both targets; NaN where there is no request."""
        return float(self.meets(sla).mean()) if len(self) else math.nan


@dataclass
class WorkerLifecycle:
    """A worker from launch to release; times are seconds of the trace, NaN until then.

    Args:
        pool: the pool it belongs to.
        number: its number among all workers, in the order of launches.
        gpus: the GPUs it holds.
        launched_s: when it got its GPUs, and billing began.
        ready_s: when it was ready.
        draining_s: when it began to drain.
        released_s: when it gave its GPUs back, and billing ended.
        end: how it ended: ``drained``, ``cancelled`` (while it started), ``crashed`` or ``failed`` (its start).
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
class ReplicaCounts:
    """The replicas of a pool from a time on.

    Args:
        at_s: that time, in seconds of the trace.
        pool: the pool.
        ready: replicas that serve.
        starting: replicas that start, those that wait for GPUs included.
        draining: replicas that finish what they have.
        failed: replicas whose start has failed.
        target: the replicas that were asked for.
    """

    at_s: float
    pool: str
    ready: int
    starting: int
    draining: int
    failed: int
    target: int
