"""What holds for any points that pass the checks."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner.profiles import DecodePoints, DecodeSurface, PrefillCurve, PrefillPoints, Profile
from tests.support.laws import examples


def finite(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


@st.composite
def prefill_points(draw: st.DrawFn, rising: bool = False) -> PrefillPoints:
    isl = draw(st.lists(st.integers(1, 1_000_000), min_size=2, max_size=12, unique=True))
    ttft = draw(st.lists(finite(1, 1e6), min_size=len(isl), max_size=len(isl)))
    if rising:
        isl, ttft = sorted(isl), sorted(ttft)
    return PrefillPoints(isl=isl, ttft_ms=ttft)


@st.composite
def decode_points(draw: st.DrawFn) -> DecodePoints:
    """Scattered, in rows or on a line; after a law with noise, or at random."""
    batches = st.integers(1, 512)
    contexts = st.sampled_from(draw(st.lists(st.integers(1, 100_000), min_size=1, max_size=6)))
    where = draw(st.lists(st.tuples(batches, contexts), min_size=2, max_size=15, unique=True))
    max_kv_tokens = 1.0 * max(100, *(batch * context for batch, context in where))
    noise = draw(st.lists(finite(0.3, 3), min_size=len(where), max_size=len(where)))
    per_request, per_token = draw(finite(0, 1)), draw(finite(0, 1e-3))
    itl = [min((5 + per_request * b + per_token * b * c) * n, 1e5) for (b, c), n in zip(where, noise, strict=True)]
    return DecodePoints(
        max_kv_tokens=max_kv_tokens,
        kv_usage=[batch * context / max_kv_tokens for batch, context in where],
        context=[context for _, context in where],
        itl_ms=itl,
    )


@given(prefill_points(rising=True))
def test_rising_ttft_rises_everywhere_and_never_overshoots(points: PrefillPoints) -> None:
    curve = PrefillCurve(points)
    isl = np.geomspace(1, 1e7, 500)
    ttft = curve.ttft_ms(isl)
    assert (np.diff(ttft) >= -1e-9 * ttft[:-1]).all()
    inside = ~curve.extrapolated(isl)
    assert (ttft[inside] >= min(points.ttft_ms) * (1 - 1e-9)).all()
    assert (ttft[inside] <= max(points.ttft_ms) * (1 + 1e-9)).all()


@given(prefill_points(), finite(0.1, 1e8))
def test_any_prefill_curve_is_positive_and_inverts(points: PrefillPoints, target: float) -> None:
    curve = PrefillCurve(points)
    ttft = curve.ttft_ms(np.geomspace(1, 1e7, 200))
    assert np.isfinite(ttft).all()
    assert (ttft > 0).all()
    longest = curve.max_isl(target)
    if longest:
        shorter = np.geomspace(min(points.isl), longest, 50)
        assert (curve.ttft_ms(shorter) <= target * 1.01).all()
    else:
        assert curve.ttft_ms(min(points.isl)) > target * (1 - 1e-9)


@examples(60)
@given(decode_points(), finite(0.1, 1e4), finite(1, 1e6))
def test_any_decode_surface_is_positive_and_inverts(points: DecodePoints, target: float, context: float) -> None:
    surface = DecodeSurface(points)
    usage, contexts = np.meshgrid([0, 0.01, 0.2, 0.7, 1, 3], [1, 50, 3000, context, 1e8])
    itl = surface.itl_ms(usage, contexts)
    assert np.isfinite(itl).all()
    assert (itl > 0).all()
    best = surface.best(target, context)
    assert all(np.isfinite(part) for part in best)
    assert 0 <= best.kv_usage <= 1 + 1e-9
    batches = np.linspace(1, max(best.batch, 1), 60)
    if best.batch:
        assert (surface.step_ms(batches, context) <= target * (1 + 1e-6)).all()
    assert surface.best(2 * target, context).throughput >= best.throughput


@examples(60)
@given(decode_points(), finite(0, 2), finite(1, 1e6))
def test_a_number_and_an_array_get_the_same_answer(points: DecodePoints, usage: float, context: float) -> None:
    surface = DecodeSurface(points)
    many = surface.itl_ms([usage, 0.5], [context, 100.0])
    assert surface.itl_ms(usage, context) == pytest.approx(many[0], rel=1e-9)
    alone, together = surface.best(30, context), surface.best([30, 30], [context, 77.0])
    assert list(alone) == pytest.approx([part[0] for part in together], rel=1e-9)


@examples(40)
@given(
    finite(2, 50),
    finite(0, 0.5),
    finite(0, 1e-4),
    st.integers(1, 300),
    finite(600, 9000),
)
def test_a_linear_engine_is_recovered(base: float, request: float, token: float, batch: int, context: float) -> None:
    where = [(b, c) for b in (1, 4, 30, 300) for c in (600, 2500, 9000)]
    surface = DecodeSurface(
        DecodePoints(
            max_kv_tokens=2_700_000,
            kv_usage=[b * c / 2_700_000 for b, c in where],
            context=[c for _, c in where],
            itl_ms=[base + request * b + token * b * c for b, c in where],
        )
    )
    expected = base + request * batch + token * batch * context
    assert surface.step_ms(batch, context) == pytest.approx(expected, rel=1e-4)


@examples(40)
@given(prefill_points(), decode_points(), st.text(min_size=1), st.dictionaries(st.text(), st.integers() | st.text()))
def test_round_trips(prefill: PrefillPoints, decode: DecodePoints, name: str, about: dict[str, Any]) -> None:
    profile = Profile(name=name, prefill_points=prefill, decode_points=decode, about=about)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile
    assert pickle.loads(pickle.dumps(profile)) == profile
