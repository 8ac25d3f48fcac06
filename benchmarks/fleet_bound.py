"""What any sharing could do at most in S16: ``python -m benchmarks.fleet_bound``.

The models of :mod:`benchmarks.fleet_quality`, window by window, with what no rule has: the arrivals and lengths of each
window are known before it begins, and replicas move between models in no time. With ``share(m, w, n)`` the share of the
requests of model ``m`` in window ``w`` that ``n`` replicas serve in time, as the percentile sizing predicts it,

- sharing chooses counts anew for each window with ``sum over m of n(m, w) <= size``,
- quotas choose counts once for all windows, with ``sum over m of n(m) <= size``,

each so that the most requests are in time, exactly. The least sizes at which both have a share in time say how much
smaller a set can be by sharing at all. The GPU-hours are those of the fewest replicas with which each window has the
promise.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from benchmarks.fleet_quality import PROFILE, SLA, least_total, services
from benchmarks.shared import SHARED
from dynamo_planner import Dist, Profile
from dynamo_planner.sizing import Load, PercentileSizing

SIZES = range(4, 21)
"""Replicas in all that are tried."""


def in_time(hours: float, window_s: float) -> tuple[np.ndarray, np.ndarray, int]:
    """The requests of each model and window, the share of them that each count serves in time, and GPUs a replica."""
    sizing = PercentileSizing(Profile.load(SHARED / "profiles" / PROFILE))
    counts = np.arange(1, SIZES[-1] + 1)
    models = services(hours)
    windows = int(hours * 3600 / window_s)
    requests = np.zeros((len(models), windows))
    shares = np.zeros((len(models), windows, len(counts) + 1))
    for m, service in enumerate(models.values()):
        trace = service.trace
        for w in range(windows):
            own = (trace.arrival_s >= w * window_s) & (trace.arrival_s < (w + 1) * window_s)
            requests[m, w] = own.sum()
            if own.any():
                isl, osl = (
                    Dist(mean=float(part.mean()), cv2=float(part.var() / part.mean() ** 2))
                    for part in (trace.isl[own], trace.osl[own])
                )
                load = Load.of(float(own.sum()) / window_s, isl, osl)
                shares[m, w, 1:] = sizing.attainable(load, SLA, {"aggregated": counts})
    return requests, np.maximum.accumulate(shares, axis=2), service.cluster.pools["workers"].spec.gpus


def most(values: np.ndarray, size: int) -> np.ndarray:
    """The most that models have together with a size, by dynamic programming: ``values`` has the shape (models,
    windows, counts), the result (windows,)."""
    best = np.zeros((values.shape[1], size + 1))
    for own in values:
        best = np.stack(
            [np.max([best[:, left - n] + own[:, n] for n in range(left + 1)], axis=0) for left in range(size + 1)],
            axis=1,
        )
    return np.asarray(best[:, size])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--window-s", type=float, default=60.0)
    options = parser.parse_args()
    requests, shares, gpus = in_time(options.hours, options.window_s)
    values, total = requests[:, :, None] * shares, requests.sum()
    sharing = [float(most(values, size).sum() / total) for size in SIZES]
    quotas = [float(most(values.sum(axis=1, keepdims=True), size).sum() / total) for size in SIZES]
    print(f"{'replicas':>9}{'sharing':>10}{'quotas':>10}")
    for size, shared, fixed in zip(SIZES, sharing, quotas, strict=True):
        print(f"{size:9}{shared:10.2%}{fixed:10.2%}")
    for target in (0.98, 0.985, SLA.attainment):
        least = [least_total(list(SIZES), own, target) for own in (sharing, quotas)]
        print(f"replicas for {target:.1%} in time: sharing {least[0]:.1f}, quotas {least[1]:.1f}")
    fewest = np.argmax(shares >= SLA.attainment, axis=2) * (requests > 0)
    hours = fewest.sum() * options.window_s / 3600 * gpus
    peaks = fewest.sum(axis=0).max(), fewest.max(axis=1).sum()
    print(f"the promise in every window: {hours:.1f} GPU-hours, {peaks[0]} replicas by sharing, {peaks[1]} by quotas")
    return 0


if __name__ == "__main__":
    sys.exit(main())
