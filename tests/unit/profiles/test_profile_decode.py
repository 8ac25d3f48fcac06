"""ITL, decode throughput and its inversion, against a law that the points follow exactly."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner.profiles import DecodePoints, DecodeSurface
from tests.support.profiles import BASE_MS, KV_MS, MAX_KV_TOKENS, REQUEST_MS, law_itl


@pytest.fixture(scope="module")
def surface(law: DecodePoints) -> DecodeSurface:
    return DecodeSurface(law)


@pytest.mark.parametrize(("batch", "context"), [(1, 500), (5, 700), (100, 6000), (128, 8000), (60, 550)])
def test_itl_follows_the_law_between_the_points(surface: DecodeSurface, batch: float, context: float) -> None:
    itl = surface.itl_ms(batch * context / MAX_KV_TOKENS, context)
    assert itl == pytest.approx(law_itl(batch, context), rel=1e-6)
    assert surface.step_ms(batch, context) == pytest.approx(itl, rel=1e-12)


@pytest.mark.parametrize(("batch", "context"), [(1000, 1000), (64, 20_000), (2000, 100_000), (128, 11_000)])
def test_itl_goes_on_as_the_trend_beyond_the_points(surface: DecodeSurface, batch: float, context: float) -> None:
    usage = batch * context / MAX_KV_TOKENS
    assert surface.itl_ms(usage, context) == pytest.approx(law_itl(batch, context), rel=1e-6)
    assert surface.extrapolated(usage, context)


def test_shorter_contexts_than_measured_take_as_long_as_the_shortest(surface: DecodeSurface) -> None:
    assert surface.step_ms(20, 100) == surface.step_ms(20, 500) == pytest.approx(law_itl(20, 500), rel=1e-6)
    assert surface.extrapolated(20 * 100 / MAX_KV_TOKENS, 100)


def test_less_than_one_request_in_flight_has_the_itl_of_one(surface: DecodeSurface) -> None:
    assert surface.itl_ms(0, 1000) == pytest.approx(law_itl(1, 1000), rel=1e-6)
    assert not surface.extrapolated(0, 1000)
    # A request that is there half of the time makes half of the tokens.
    half = surface.throughput(0.5 * 1000 / MAX_KV_TOKENS, 1000)
    assert half == pytest.approx(1000 * 0.5 / law_itl(1, 1000) / 2, rel=1e-6)


def test_throughput_is_batch_over_itl_over_gpus(surface: DecodeSurface) -> None:
    usage = 32 * 4000 / MAX_KV_TOKENS
    assert surface.throughput(usage, 4000) == pytest.approx(1000 * 32 / law_itl(32, 4000) / 2, rel=1e-6)


@pytest.mark.parametrize("itl_ms", [7.0, 10.0, 15.0])
@pytest.mark.parametrize("context", [500, 2500, 8000])
def test_best_is_the_inverse_of_the_law(surface: DecodeSurface, itl_ms: float, context: float) -> None:
    batch = min((itl_ms - BASE_MS) / (REQUEST_MS + KV_MS * context), 128)
    best = surface.best(itl_ms, context)
    assert best.batch == pytest.approx(batch, rel=1e-5)
    assert best.kv_usage == pytest.approx(batch * context / MAX_KV_TOKENS, rel=1e-5)
    assert best.itl_ms == pytest.approx(law_itl(batch, context), rel=1e-5)
    assert best.throughput == pytest.approx(1000 * batch / law_itl(batch, context) / 2, rel=1e-5)
    assert best.extrapolated is False


def test_best_fits_into_the_kv_cache(surface: DecodeSurface) -> None:
    best = surface.best(1000, 6000, max_kv_usage=0.25)
    assert best.kv_usage == pytest.approx(0.25)
    assert best.batch == pytest.approx(0.25 * MAX_KV_TOKENS / 6000)
    assert surface.best(1000, 6000).batch == pytest.approx(128), "not more than was measured at any context"


def test_nothing_is_possible_where_a_single_request_misses_or_does_not_fit(surface: DecodeSurface) -> None:
    for best in (surface.best(5.9, 1000), surface.best(1e6, 2 * MAX_KV_TOKENS), surface.best(8, 1000, max_kv_usage=0)):
        assert (best.batch, best.kv_usage, best.throughput) == (0, 0, 0)
        assert best.itl_ms >= law_itl(1, 1000) * 0.999


def test_best_over_arrays(surface: DecodeSurface) -> None:
    targets, contexts = np.array([[5.0], [7.0], [12.0]]), np.array([500.0, 3000.0, 30_000.0, 4e6])
    best = surface.best(targets, contexts)
    assert all(part.shape == (3, 4) for part in best)
    for row, column in np.ndindex(3, 4):
        alone = surface.best(float(targets[row, 0]), float(contexts[column]))
        assert [part[row, column] for part in best] == pytest.approx(list(alone), rel=1e-9)


def test_a_dip_at_high_usage_is_no_capacity() -> None:
    batches = [1, 10, 20, 30, 40, 50]
    points = DecodePoints(
        max_kv_tokens=50_000,
        kv_usage=[batch / 50 for batch in batches],
        context=[1000] * 6,
        itl_ms=[10, 20, 30, 50, 35, 34],
    )
    best = DecodeSurface(points).best(itl_ms=36, context=1000)
    # A straight line from 30 ms at 20 requests to 50 ms at 30 is at 36 ms at 23, and 20 / 30 is more than 23 / 36. At
    # 40 and 50 requests the target would be met again, with more than twice as many.
    assert best.batch == pytest.approx(20)
    assert best.itl_ms == pytest.approx(30, rel=1e-2)


def test_best_takes_the_highest_throughput_on_the_way() -> None:
    points = DecodePoints(
        max_kv_tokens=100_000,
        kv_usage=[0.01, 0.2, 0.4, 0.8],
        context=[1000] * 4,
        itl_ms=[10, 14, 18, 40],
        throughput_per_gpu=[100, 1428, 2222, 1500],
    )
    best = DecodeSurface(points).best(itl_ms=41, context=1000)
    assert best.batch == pytest.approx(40)
    assert best.throughput == pytest.approx(2222, rel=1e-2)


def test_waiting_requests_show_in_the_throughput_and_not_in_the_gpus() -> None:
    # 100 requests at 20 ms would make 5000 tokens/s; 2500 means that half of them wait.
    points = DecodePoints(
        max_kv_tokens=100_000,
        kv_usage=[0.01, 0.1, 1.0],
        context=[1000] * 3,
        itl_ms=[10, 12, 20],
        throughput_per_gpu=[100, 833, 2500],
    )
    surface = DecodeSurface(points)
    assert points.gpus == 1
    assert surface.throughput(1.0, 1000) == pytest.approx(2500, rel=1e-2)
    assert surface.throughput(0.1, 1000) == pytest.approx(833, rel=1e-2)


def test_points_on_one_line_and_two_points_are_enough() -> None:
    line = DecodeSurface(
        DecodePoints(max_kv_tokens=1e5, kv_usage=[0.01, 0.1, 0.5], context=[1000] * 3, itl_ms=[10, 10.9, 14.9])
    )
    assert line.itl_ms(0.3, 1000) == pytest.approx(12.9, rel=0.01)
    assert not line.extrapolated(0.3, 1000)
    assert line.extrapolated([0.3, 0.6], [1100, 1000]).all()
    pair = DecodeSurface(DecodePoints(max_kv_tokens=1e5, kv_usage=[0.01, 0.5], context=[1000] * 2, itl_ms=[10, 20]))
    assert 10 < pair.itl_ms(0.2, 1000) < 20
    assert pair.best(15, 1000).batch > 1


def test_a_sweep_that_starts_at_a_large_batch_answers_below_it() -> None:
    points = DecodePoints(
        max_kv_tokens=1e6,
        kv_usage=[batch * 1000 / 1e6 for batch in (64, 128, 256)],
        context=[1000] * 3,
        itl_ms=[6 + 0.05 * batch for batch in (64, 128, 256)],
    )
    surface = DecodeSurface(points)
    assert surface.itl_ms(0.008, 1000) == pytest.approx(6.4, rel=0.01)
    assert surface.extrapolated(0.008, 1000)
    assert surface.best(7, 1000).batch == pytest.approx(20, rel=0.05)


def test_numbers_give_numbers(surface: DecodeSurface) -> None:
    assert type(surface.itl_ms(0.1, 1000)) is float
    assert type(surface.itl_ms(np.float32(0.1), 1000)) is float
    assert type(surface.throughput(0.1, 1000)) is float
    assert type(surface.extrapolated(0.1, 1000)) is bool
    assert [type(part) for part in surface.best(9, 1000)] == [float, float, float, float, bool]
    assert surface.itl_ms(np.zeros((2, 1)), [500.0, 1000.0, 9e9]).shape == (2, 3)


@pytest.mark.parametrize(
    ("usage", "context", "message"),
    [
        (float("nan"), 1000, "kv_usage must be a finite number of at least 0, got nan"),
        (0.5, -1, "context must be a finite number of at least 0, got -1"),
        ([0.5, -0.1], 1000, "kv_usage must be finite and at least 0, got -0.1 at position 1"),
    ],
)
def test_queries_that_make_no_sense_are_refused(
    surface: DecodeSurface, usage: float | list[float], context: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        surface.itl_ms(usage, context)
