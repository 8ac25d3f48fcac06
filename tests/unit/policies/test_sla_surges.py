"""SlaPolicy and steps in the load: what a window does not show in full yet is seen at the first look."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner.policies.sla.burstiness import surge
from tests.support.sla_service import Service

WINDOW_S = 30.0


def planned(service: Service, rate: float) -> float:
    """What prefill is planned for after a window of 30 s at this rate."""
    decision = service.see(rate, window_s=WINDOW_S)
    (reason,) = [each for each in decision.reasons if each.code == "DemandForecast" and each.pool == "prefill"]
    value = reason.values["now"]
    assert isinstance(value, float)
    return value


def test_a_step_is_answered_at_the_first_look() -> None:
    """From 5 to 50 requests/s: ten seconds later a window of 30 s shows 20; 50 less three deviations are certain."""
    service = Service()
    for _ in range(60):
        planned(service, 5.0)
    assert planned(service, 20.0) == pytest.approx(50 - 3 * 500**0.5 / 10, rel=0.05)
    assert planned(service, 35.0) > 40
    assert service.target("prefill") == 4  # and 1 is what 5 requests/s need


def test_a_burst_within_chance_is_none() -> None:
    service = Service()
    for _ in range(60):
        planned(service, 5.0)
    assert planned(service, 5.8) < 12  # 74 requests in ten seconds, and 50 before: within the forecast's quantile


@given(before=st.floats(0, 1e4), after=st.floats(0, 1e4), elapsed_s=st.floats(0.1, 120), usual=st.floats(0, 1e4))
def test_it_is_never_more_than_can_have_come(before: float, after: float, elapsed_s: float, usual: float) -> None:
    found = surge(after, WINDOW_S, before, elapsed_s, usual)
    assert 0 <= found <= after * WINDOW_S / min(elapsed_s, WINDOW_S) + 1e-6
