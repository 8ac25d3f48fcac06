"""Scores: how well requests were served, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dynamo_planner.core.notebook import facts_table
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.core.values import Frozen, Known, KnownShare, ReadOnly
from dynamo_planner.simulator.results import Served

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

WINDOW_S = 60.0
WORST_S = 300.0
QUANTILES = (0.5, 0.95, 0.99)


class Score(Frozen):
    """A run in numbers.

    Args:
        requests: how many arrived.
        unfinished: how many of them did not finish.
        unattainable: how many of them no cluster of this kind can serve in time: their prompt alone takes longer than
            the TTFT target.
        attainment: the share of all requests that met both targets; one that did not finish did not.
        attainment_possible: the same without the unattainable ones; ``None`` where there are no others.
        ttft_attainment: the share that met the TTFT target.
        itl_attainment: the share that met the ITL target.
        ttft_ms: quantiles of TTFT over the requests that finished.
        itl_ms: quantiles of ITL over the requests that finished.
        gpu_hours: GPU-hours billed, from launch to release.
        goodput_per_gpu_hour: requests that met both targets per GPU-hour; ``None`` where none was billed.
        starts: launches after the beginning.
        violation_share: the share of minutes (of those in which requests came) with an attainment under the target.
        worst_5_min: the least attainment of five minutes in a row.
        recovery_s: the longest time from a minute under the target to the next at the target.
    """

    requests: int
    unfinished: int
    unattainable: int
    attainment: float
    attainment_possible: KnownShare
    ttft_attainment: float
    itl_attainment: float
    ttft_ms: ReadOnly[float, float]
    itl_ms: ReadOnly[float, float]
    gpu_hours: float = Field(ge=0)
    goodput_per_gpu_hour: Known
    starts: int
    violation_share: float
    worst_5_min: float
    recovery_s: float

    def _repr_html_(self) -> str:
        """The numbers as a table, for notebooks."""
        return facts_table(self.flat().items())

    def flat(self) -> dict[str, Any]:
        """The numbers by name: ``ttft_ms_p95`` for a quantile."""
        flat: dict[str, Any] = {}
        for field, value in self:
            if isinstance(value, Mapping):
                flat.update({f"{field}_p{100 * level:g}": number for level, number in value.items()})
            else:
                flat[field] = value
        return flat


def score(
    served: Served,
    sla: Sla,
    *,
    gpu_s: float,
    starts: int,
    duration_s: float,
    unattainable: Flags | None = None,
) -> Score:
    """The numbers of a run; see :class:`Score`."""
    met = served.meets(sla)
    finished = np.isfinite(served.finished_s)
    possible = np.ones(len(met), bool) if unattainable is None else ~unattainable
    minutes = _windows(served.arrival_s, met, WINDOW_S, duration_s)
    bad = minutes < sla.attainment
    known = np.isfinite(minutes)
    return Score(
        requests=len(met),
        unfinished=int((~finished).sum()),
        unattainable=int((~possible).sum()),
        attainment=_mean(met),
        attainment_possible=float(met[possible].mean()) if possible.any() else None,
        ttft_attainment=_mean(served.ttft_ms <= sla.ttft_ms),
        itl_attainment=_mean(served.itl_ms <= sla.itl_ms),
        ttft_ms=_quantiles(served.ttft_ms[finished]),
        itl_ms=_quantiles(served.itl_ms[finished]),
        gpu_hours=gpu_s / 3600,
        goodput_per_gpu_hour=float(met.sum()) / (gpu_s / 3600) if gpu_s else None,
        starts=starts,
        violation_share=float(bad[known].mean()) if known.any() else 0.0,
        worst_5_min=_worst(served.arrival_s, met, duration_s),
        recovery_s=WINDOW_S * _longest(bad),
    )


def _mean(flags: Flags) -> float:
    return float(flags.mean()) if len(flags) else 1.0


def _quantiles(values: Floats) -> dict[float, float]:
    known = np.quantile(values, QUANTILES).tolist() if len(values) else []
    return dict(zip(QUANTILES, known, strict=False))


def _windows(arrival_s: Floats, met: Flags, window_s: float, duration_s: float) -> Floats:
    """The attainment of each window; NaN where no request came."""
    slots = max(int(np.ceil(duration_s / window_s)), 1)
    slot = np.minimum((arrival_s // window_s).astype(np.int64), slots - 1)
    came = np.bincount(slot, minlength=slots)
    good = np.bincount(slot, weights=met, minlength=slots)
    return np.asarray(np.divide(good, came, out=np.full(slots, np.nan), where=came > 0))


def _worst(arrival_s: Floats, met: Flags, duration_s: float) -> float:
    slots = max(int(np.ceil(duration_s / WINDOW_S)), 1)
    slot = np.minimum((arrival_s // WINDOW_S).astype(np.int64), slots - 1)
    width = min(int(WORST_S // WINDOW_S), slots)
    came, good = (
        np.convolve(np.bincount(slot, weights=weights, minlength=slots), np.ones(width), "valid")
        for weights in (np.ones(len(met)), met)
    )
    shares = good[came > 0] / came[came > 0]
    return float(shares.min(initial=1.0))


def _longest(bad: Flags) -> int:
    """The longest run of windows under the target; one without requests neither ends nor begins it."""
    longest = run = 0
    for under in bad.tolist():
        run = run + 1 if under else 0
        longest = max(longest, run)
    return longest
