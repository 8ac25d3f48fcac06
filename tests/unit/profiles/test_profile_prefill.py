"""TTFT and prefill throughput, against values that follow from the definition by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner.profiles import PrefillCurve, PrefillPoints


def test_power_law_is_reproduced_between_and_beyond_the_points() -> None:
    isl = np.array([100.0, 1000.0, 10_000.0])
    curve = PrefillCurve(PrefillPoints(isl=isl, ttft_ms=0.02 * isl**1.25))
    # A power law is a straight line in logarithms, which a monotone cubic keeps, and its slope goes on beyond.
    for query in (150.0, 4000.0, 9999.0, 80_000.0):
        assert curve.ttft_ms(query) == pytest.approx(0.02 * query**1.25, rel=1e-9)


def test_monotone_cubic_by_hand() -> None:
    # In units of log 2 the points are (0, 0), (1, 1), (2, 3), (3, 7): slopes 1, 2, 4. PCHIP takes harmonic means, 4/3
    # and 8/3, as the derivatives at the inner points. A cubic Hermite polynomial is, in the middle of the middle piece,
    # the mean of its ends plus 1/8 of the difference of the derivatives: 2 + (4/3 - 8/3) / 8 = 11/6.
    curve = PrefillCurve(PrefillPoints(isl=[100, 200, 400, 800], ttft_ms=[1, 2, 8, 128]))
    assert curve.ttft_ms(100 * 2**1.5) == pytest.approx(2 ** (11 / 6), rel=1e-9)


def test_a_prompt_shorter_than_any_measured_takes_as_long_as_the_shortest() -> None:
    curve = PrefillCurve(PrefillPoints(isl=[128, 1024], ttft_ms=[10, 40]))
    assert curve.ttft_ms(0) == curve.ttft_ms(1) == pytest.approx(10)
    assert curve.extrapolated([1, 127.9, 128, 1024, 1024.1]).tolist() == [True, True, False, False, True]


@pytest.mark.parametrize(("last", "power"), [(20.0, 1.0), (640.0, 2.0)])
def test_beyond_the_longest_prompt_growth_is_between_linear_and_quadratic(last: float, power: float) -> None:
    curve = PrefillCurve(PrefillPoints(isl=[100, 200, 400], ttft_ms=[10, 15, last]))
    assert curve.ttft_ms(4000) == pytest.approx(last * 10**power, rel=1e-9)


def test_throughput_is_isl_over_ttft_over_gpus() -> None:
    points = PrefillPoints(isl=[100, 1000], ttft_ms=[10, 50], gpus=4)
    assert PrefillCurve(points).throughput(1000) == pytest.approx(1000 / 0.050 / 4)
    assert PrefillCurve(points).throughput(0) == 0


def test_gpus_and_efficiency_come_from_the_measured_throughput() -> None:
    # 1000 tokens in 50 ms are 20,000 tokens/s; 4800 per GPU make four GPUs at 96 %.
    points = PrefillPoints(isl=[100, 1000], ttft_ms=[10, 50], throughput_per_gpu=[2400, 4800])
    assert points.gpus == 4
    curve = PrefillCurve(points)
    assert curve.throughput([100, 1000]).tolist() == pytest.approx([2400, 4800])
    assert curve.throughput(2000) == pytest.approx(0.96 * 2000 / (curve.ttft_ms(2000) / 1000) / 4)


def test_longest_prompt_under_a_target() -> None:
    isl = np.array([100.0, 1000.0, 10_000.0])
    curve = PrefillCurve(PrefillPoints(isl=isl, ttft_ms=0.02 * isl**1.25))
    # The inverse of the power law, inside and beyond; below the shortest there is none.
    assert curve.max_isl(100) == pytest.approx((100 / 0.02) ** 0.8, rel=1e-6)
    assert curve.max_isl(10_000) == pytest.approx((10_000 / 0.02) ** 0.8, rel=1e-6)
    assert curve.max_isl([0.0, 1.0]).tolist() == [0.0, 0.0]


def test_a_dip_of_ttft_is_not_taken_for_a_longest_prompt() -> None:
    curve = PrefillCurve(PrefillPoints(isl=[100, 200, 400, 800], ttft_ms=[10, 30, 20, 80]))
    assert 100 < curve.max_isl(25) < 200


def test_numbers_give_numbers_and_arrays_their_shape() -> None:
    curve = PrefillCurve(PrefillPoints(isl=[128, 1024], ttft_ms=[10, 40]))
    assert type(curve.ttft_ms(500)) is float
    assert type(curve.ttft_ms(np.float64(500))) is float
    assert type(curve.ttft_ms(np.int64(500))) is float
    assert type(curve.throughput(500)) is float
    assert type(curve.extrapolated(500)) is bool
    assert curve.ttft_ms(np.full((2, 3), 500.0)).shape == (2, 3)
    assert curve.ttft_ms([]).shape == (0,)
    assert curve.ttft_ms([500])[0] == pytest.approx(curve.ttft_ms(500), rel=1e-12)


@pytest.mark.parametrize("query", [float("nan"), -1, float("inf"), [100, float("nan")]])
def test_a_query_that_is_no_number_of_tokens_is_refused(query: float | list[float]) -> None:
    curve = PrefillCurve(PrefillPoints(isl=[128, 1024], ttft_ms=[10, 40]))
    with pytest.raises(ValueError, match=r"^isl must be .*finite.*(got|at position)"):
        curve.ttft_ms(query)
