"""What the workload remembers of a few windows, worked by hand."""

from __future__ import annotations

import math

import pytest

from dynamo_planner import Traffic
from dynamo_planner.policies.sla import RecentWorkload
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.burstiness import Slots
from dynamo_planner.policies.sla.lengths import LENGTHS_HALF_LIFE_S, ObservedLengths
from dynamo_planner.policies.sla.workload import WorkloadMemory

PART = RecentWorkload()
SLOTS = Slots(30.0, 90.0, number=3, rates=(8.0, 10.0, 12.0))
LENGTHS = ObservedLengths(100.0, 200.0, last_mean=400.0, last_count=100.0)


def test_a_window_is_counted_with_its_rate_surge_and_lengths() -> None:
    memory = WorkloadMemory(window_rate=12.0, slots=SLOTS, dispersion=1.0, isl=LENGTHS, osl=LENGTHS, hit_rate=0.4)
    traffic = Traffic(requests_per_s=20, window_s=30, isl=400, osl=400, prefix_hit_rate=0.6)
    found = PART.observe(memory, traffic, ArrivalWindow(120.0, 20.0, 30.0, 30.0))
    assert (found.window_rate, found.slots) == (20.0, Slots(30.0, 120.0, number=4, rates=(8.0, 10.0, 12.0, 20.0)))
    assert found.surge == pytest.approx(20 - 3 * (20 / 30) ** 0.5)
    assert found.hit_rate == pytest.approx(0.6 - 0.2 * 2 ** (-30 / 300))
    assert found.osl == found.isl  # they have grown
    assert found.osl is not None and found.osl.weight == pytest.approx(
        600 + min(0.25 * 600, 100 * 2 ** (-30 / LENGTHS_HALF_LIFE_S))
    )


@pytest.mark.parametrize(("rate", "grown"), [(6.6, False), (6.8, True)])
def test_after_a_crowd_long_answers_are_no_growth(rate: float, grown: bool) -> None:
    """Of the last four windows of 30 s, 10 requests/s on average, 67 % are 6.7."""
    lengths = LENGTHS._replace(weight=10_000.0)
    memory = WorkloadMemory(window_rate=10.0, slots=SLOTS, isl=lengths, osl=lengths)
    traffic = Traffic(requests_per_s=rate, window_s=30, isl=400, osl=400)
    found = PART.observe(memory, traffic, ArrivalWindow(120.0, rate, 30.0, 30.0))
    assert found.isl is not None and found.osl is not None
    assert (found.isl.weight < 1000, found.osl.weight < 1000) == (True, grown)


def test_the_recent_rate_is_that_of_the_level_or_of_a_longer_window() -> None:
    memory = WorkloadMemory(window_rate=7.0, slots=SLOTS)
    assert PART.recent_per_s(memory, 60.0) == 11.0
    assert PART.recent_per_s(memory, 30.0) == 7.0  # a slot is as long as the level: the window is newer
    assert PART.recent_per_s(memory.replace(surge=15.0), 60.0) == 15.0
    assert PART.recent_per_s(None, 60.0) == 0.0


def test_a_load_is_at_a_rounded_rate_with_rounded_lengths() -> None:
    memory = WorkloadMemory(isl=LENGTHS, osl=LENGTHS, hit_rate=0.456, dispersion=2.5)
    load = PART.load(memory, 10.0, Traffic(), 60.0)
    assert load is not None
    assert load.arrivals.requests_per_s == pytest.approx(math.exp(0.04 * 58))  # ln 10 / 0.04 = 57.6
    assert (load.prefix_hit_rate, load.arrivals.dispersion) == (0.46, 2.5)
    assert PART.load(memory.replace(osl=None), 10.0, Traffic(), 60.0) is None
    assert PART.load(None, 10.0, Traffic(), 60.0) is None


@pytest.mark.parametrize(("dispersion", "codes"), [(1.5, []), (1.6, ["ArrivalsBursty"])])
def test_bursty_arrivals_and_estimated_spreads_are_reported(dispersion: float, codes: list[str]) -> None:
    assert [code for code, _, _ in PART.facts(WorkloadMemory(dispersion=dispersion), 60.0)] == codes
    known = LENGTHS._replace(intervals=12.0, between=40_000.0)
    (fact,) = PART.facts(WorkloadMemory(isl=known), 60.0)
    assert fact[0] == "SpreadEstimated"
    assert fact[2]["cv2"] == pytest.approx(1.0)
    assert PART.facts(None, 60.0) == []
