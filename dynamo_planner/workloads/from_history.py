"""A trace from the history of a served model: arrivals and lengths as measured, for a closed-loop backtest.

>>> from dynamo_planner import Traffic
>>> snapshots = [Snapshot(at_s=60.0 * n, traffic=Traffic(requests_per_s=n, isl=800, osl=100)) for n in range(1, 4)]
>>> trace = trace_of(snapshots, seed=1)
>>> len(trace), trace.duration_s, [len(trace.between(60.0 * n, 60.0 * n + 60)) for n in (0, 1)]
(300, 120.0, [120, 180])
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.workloads.formats.base import MAX_TOKENS, start_at
from dynamo_planner.workloads.trace import Trace, TraceError

LOG = logging.getLogger(__name__)

UNKNOWN_CV2 = 1.0
"""The squared coefficient of variation of lengths of which only the mean is known."""


def trace_of(snapshots: Iterable[Snapshot], seed: int, name: str = "history") -> Trace:
    """Requests that fit what was measured: between two snapshots, as many as the later one's arrival rate says.

    Their times are drawn evenly between the two, and their lengths from log-normal distributions with the mean and the
    variation that were measured (``cv2``, or the median among the quantiles; otherwise a variation of 1). Time counts
    from the first snapshot. Where the rate is unknown none come, and where a length is, the last one that was known
    goes on; how much of the time that was is logged.

    Raises :class:`TraceError` where there is nothing to draw from.
    """
    random = np.random.default_rng(seed)
    recorded = list(snapshots)
    if len(recorded) < 2:
        raise TraceError(f"{name}: {len(recorded)} snapshots; at least two are needed to know for how long a rate held")
    isl, osl = (next((d for s in recorded if (d := getattr(s.traffic, field))), None) for field in ("isl", "osl"))
    if isl is None or osl is None:
        raise TraceError(f"{name}: traffic.{'osl' if isl else 'isl'} is unknown in every snapshot")
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    carried = blind_s = 0.0
    for before, after in pairwise(recorded):
        lasted_s, rate = after.at_s - before.at_s, after.traffic.requests_per_s
        isl, osl = after.traffic.isl or isl, after.traffic.osl or osl
        blind_s += lasted_s if rate is None else 0.0
        carried += lasted_s * (rate or 0.0)
        count = int(carried + 1e-9)
        carried -= count
        at_s = before.at_s - recorded[0].at_s + np.sort(random.random(count)) * lasted_s
        parts.append((at_s, _lengths(isl, count, random), _lengths(osl, count, random)))
    if blind_s:
        LOG.warning("%s: the rate is unknown for %.0f s, in which no requests come", name, blind_s)
    arrival_s, isls, osls = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    began_s = recorded[0].at_s
    return Trace(arrival_s, isls, osls, None, name, recorded[-1].at_s - began_s, start_at(began_s))


def _lengths(dist: Dist, count: int, random: np.random.Generator) -> np.ndarray:
    mean = max(dist.mean, 1.0)
    median = dist.quantiles.get(0.5)
    if dist.cv2 is not None:
        sigma = math.sqrt(math.log1p(dist.cv2))
    elif median is not None and median > 0:
        sigma = math.sqrt(2 * max(math.log(mean / median), 0.0))
    else:
        sigma = math.sqrt(math.log1p(UNKNOWN_CV2))
    drawn = random.lognormal(math.log(mean) - sigma**2 / 2, sigma, count)
    return np.clip(np.rint(drawn), 1, MAX_TOKENS).astype(np.int64)
