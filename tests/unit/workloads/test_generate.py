"""Traces from a seed: their rates, their dispersion, and lengths that drift."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner.workloads.generators import drifting, following, poisson
from dynamo_planner.workloads.rate_curves import constant, diurnal, flash_crowd, on_off, ramp


@pytest.mark.parametrize(
    "rate_curve",
    [
        constant(20),
        diurnal(20, period_s=2000),
        flash_crowd(10, at_s=500),
        ramp(5, 40, from_s=300, over_s=600),
        ramp(5, 40, from_s=300, over_s=0),
        on_off(30, 3, on_s=200, off_s=100),
    ],
)
def test_arrivals_follow_the_course(rate_curve: object) -> None:
    made = following(rate_curve, 2000, seed=1)  # type: ignore[arg-type]
    expected = rate_curve(np.arange(0.5, 2000)).reshape(20, 100).sum(axis=1)  # type: ignore[operator]
    counts = np.histogram(made.arrival_s, bins=20, range=(0, 2000))[0]
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
    assert counts.sum() == pytest.approx(expected.sum(), rel=0.03)


def test_the_same_seed_gives_the_same_trace() -> None:
    first, second, other = (following(constant(5), 100, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.arrival_s, second.arrival_s) and np.array_equal(first.isl, second.isl)
    assert not np.array_equal(first.arrival_s[:50], other.arrival_s[:50])


@pytest.mark.parametrize(("overdispersion", "dispersion"), [(0.0, 1.0), (0.5, 1 + 0.5 * 20)])
def test_overdispersion_is_the_dispersion_of_the_counts(overdispersion: float, dispersion: float) -> None:
    made = following(constant(20), 20_000, seed=3, overdispersion=overdispersion)
    counts = np.bincount(made.arrival_s.astype(int), minlength=20_000)
    assert counts.var() / counts.mean() == pytest.approx(dispersion, rel=0.05)


def test_lengths_drift_to_their_new_size() -> None:
    before = poisson(10, 1000, seed=4)
    made = drifting(before, from_s=300, over_s=400, isl_factor=2.0, osl_factor=0.5)
    early, late = before.arrival_s < 300, before.arrival_s > 700
    assert np.array_equal(made.isl[early], before.isl[early])
    assert np.array_equal(made.isl[late], 2 * before.isl[late])
    assert made.osl[late].sum() == pytest.approx(before.osl[late].sum() / 2, rel=0.02)
    assert made.osl.min() >= 1


def test_courses_and_drifts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="from 1 to 2"):
        diurnal(5, peak_to_mean=3)
    with pytest.raises(ValueError, match="at least 0 for each time"):
        following(constant(-1), 100, seed=1)
    with pytest.raises(ValueError, match="must be above 0"):
        drifting(poisson(1, 10, seed=1), 0, 10, isl_factor=0)
