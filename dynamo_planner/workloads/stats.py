"""A trace in a few numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from dynamo_planner.core.notebook import facts_table


@dataclass(frozen=True)
class TraceStats:
    """A trace in a few numbers.

    Args:
        requests: how many there are.
        duration_s: the length of the trace in seconds.
        requests_per_s: the mean rate.
        peak_to_mean: of the counts per minute; ``None`` for a trace of less than two minutes.
        dispersion: variance over mean of the counts per minute (1 for Poisson arrivals); ``None`` likewise.
        isl_mean: mean prompt tokens; ``isl_p50`` and ``isl_p99`` are quantiles.
        osl_mean: mean output tokens; ``osl_p50`` and ``osl_p99`` are quantiles.
    """

    requests: int
    duration_s: float
    requests_per_s: float
    peak_to_mean: float | None
    dispersion: float | None
    isl_mean: float
    isl_p50: float
    isl_p99: float
    osl_mean: float
    osl_p50: float
    osl_p99: float

    def _repr_html_(self) -> str:
        return facts_table(asdict(self).items())


def stats_of(arrival_s: np.ndarray, isl: np.ndarray, osl: np.ndarray, duration_s: float) -> TraceStats:
    """The numbers of these requests."""
    minutes = int(duration_s // 60)
    counts = np.bincount((arrival_s // 60).astype(np.int64), minlength=minutes)[:minutes]
    known = minutes >= 2 and counts.sum() > 0
    lengths = [[float(column.mean()), *np.quantile(column, [0.5, 0.99]).tolist()] for column in (isl, osl)]
    return TraceStats(
        len(arrival_s),
        duration_s,
        len(arrival_s) / duration_s if duration_s else math.inf,
        float(counts.max() / counts.mean()) if known else None,
        float(counts.var() / counts.mean()) if known else None,
        *lengths[0],
        *lengths[1],
    )
