"""SlaPolicy plans for mean lengths that wander, as it does for rates."""

from __future__ import annotations

import math

import pytest

from dynamo_planner.policies.sla.demand import Demand
from dynamo_planner.policies.sla.length_drift import LengthDrift, drifted
from tests.support.sla_service import Service


def test_a_window_of_longer_prompts_counts_beyond_chance() -> None:
    """ln(1.25)**2 = 0.0498, less 2 / 3000 for chance, is 0.0491. 3,000 requests tell 30/31 of a minute, which after 5
    minutes without weighs ``58.06 / 358.06 = 0.162``."""
    after = drifted(LengthDrift(1000, 3000), mean=1250, count=3000, cv2=1, elapsed_s=60)
    assert after.seen_s == pytest.approx(60 * 30 / 31)
    assert after.variance == pytest.approx(0.04912 * 0.16216, rel=1e-3)
    assert after.spread() == pytest.approx(0.0892, rel=1e-2)
    kept = 3000 * 0.5 ** (60 / 600)
    assert after.mean == pytest.approx(1000 + 250 * 3000 / (3000 + kept))
    assert after.weight == pytest.approx(3000 + kept)


def test_a_quiet_night_does_not_forget_the_drift_of_the_day() -> None:
    """Eight hours of a request in 100 s, as long as the others: 28,800 s tell 28.5 s."""
    drift = LengthDrift(1000, 30_000, variance=0.04, seen_s=86_400)
    for _ in range(2880):
        drift = drifted(drift, mean=drift.mean, count=0.1, cv2=1, elapsed_s=10)
    assert drift.seen_s == pytest.approx(86_400 + 28_800 * 0.1 / 100.1)
    assert drift.spread() > 0.1


def test_what_few_requests_vary_by_is_chance() -> None:
    """Means of 100 requests differ by ``sqrt(2 / 100) = 14 %``; a tenth is less."""
    assert drifted(LengthDrift(1000, 100), mean=1100, count=100, cv2=1, elapsed_s=10).spread() == 0


def test_a_drift_that_is_over_is_half_forgotten_in_half_an_hour() -> None:
    before = LengthDrift(1000, 1e6, variance=0.04, seen_s=86_400)
    assert drifted(before, mean=1000, count=1e6, cv2=0, elapsed_s=1800).variance == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize(
    ("quantile", "rate", "planned"), [(0.9, 12, 13.03), (0.1, 8, 7.45), (0.5, 10, 10), (0.9, 9, 12.12)]
)
def test_drift_and_rate_are_independent(quantile: float, rate: float, planned: float) -> None:
    """``10 exp(sqrt(ln(1.2)**2 + (1.2816 * 0.15)**2)) = 13.03``; a rate below the expected one counts as that."""
    plain = Demand(lead_s=60, expected=10, now=rate, then=rate, certain=0)
    widened = plain.with_drift(0.15, quantile, expected_now=10)
    assert (widened.now, widened.then) == pytest.approx((planned, planned), rel=1e-3)
    assert plain.with_drift(0.0, quantile, 10) == plain


def test_what_is_certain_is_planned_for_whatever_drifts() -> None:
    plain = Demand(lead_s=60, expected=10, now=10, then=10, certain=10)
    assert plain.with_drift(0.3, 0.1, 10) == plain


def test_prompts_that_wander_raise_prefill_and_not_decode() -> None:
    """Means of 2,400 and 3,750 tokens in turns of a minute are 3,000 in geometric mean, and 22 % about it."""
    steady, wandering = Service(prefill=4, decode=4), Service(prefill=4, decode=4)
    for minute in range(24):
        steady.run(40, 60)
        wandering.run(40, 60, isl=2400 if minute % 2 else 3750)
    planned = {}
    for name, service in (("steady", steady), ("wandering", wandering)):
        for reason in service.decision.reasons:
            if reason.code == "DemandForecast":
                planned[name, reason.pool] = reason.values
    drift = planned["wandering", "prefill"]["drift"]
    assert isinstance(drift, float)
    assert drift == pytest.approx(math.log(3750 / 2400) / 2, rel=0.25)
    assert planned["steady", "prefill"]["drift"] == planned["wandering", "decode"]["drift"] == 0
    assert planned["wandering", "decode"] == planned["steady", "decode"]
    assert planned["wandering", "prefill"]["planned"] > 1.2 * 40  # type: ignore[operator]
