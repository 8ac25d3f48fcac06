"""The hard cases by name, on the profiles beside the repository; where a number is quoted, it was measured."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.interpolate import CloughTocher2DInterpolator, NearestNDInterpolator

from dynamo_planner.profiles import Profile
from tests.support.profiles import load_sample


@pytest.fixture(scope="module")
def zigzag() -> Profile:
    """ITL falls 12 % as the KV cache fills at context 350, and throughput goes up and down."""
    return load_sample("MEASURED_llama31-8b-fp8_h200_dynamo_tp1")


def test_a_dip_at_context_350_is_not_taken_for_capacity(zigzag: Profile) -> None:
    best = zigzag.decode.best(itl_ms=43, context=350)
    # Measured: 42.5 ms at a KV usage of 0.29, 46.6 at 0.39, 41.0 at 0.49, 42.6 at 0.58, and nothing beyond.
    assert 0.29 < best.kv_usage < 0.39
    assert best.itl_ms == pytest.approx(43)
    assert not best.extrapolated
    below = np.linspace(0, best.kv_usage, 500)
    assert (zigzag.decode.itl_ms(below, 350) <= 43 * (1 + 1e-9)).all()


def test_the_method_of_a_table_and_a_scan_from_the_top_does_take_it(zigzag: Profile) -> None:
    points = zigzag.decode_points
    where = np.column_stack([points.kv_usage, points.context])
    column = np.column_stack([np.linspace(0, 1, 100), np.full(100, round(350 / 13585 * 99) * 13585 / 99)])
    itl = CloughTocher2DInterpolator(where, points.itl_ms)(column)
    itl = np.where(np.isnan(itl), NearestNDInterpolator(where, points.itl_ms)(column), itl)
    assert column[np.flatnonzero(itl <= 43)[-1], 0] == 1.0


def test_measured_throughput_is_kept_where_it_zigzags(zigzag: Profile) -> None:
    points = zigzag.decode_points
    throughput = zigzag.decode.throughput(points.kv_usage, points.context)
    assert throughput == pytest.approx(np.array(points.throughput_per_gpu), rel=2e-3)
    # At context 350 and a KV usage of 0.58 only half of the requests are in the batch.
    assert zigzag.decode.throughput(0.5826, 350) == pytest.approx(18_969, rel=2e-3)
    assert points.gpus == 1
    # The best that was measured is 19,288 tokens/s with 1049 requests and 19,235 with 1311, although 1573 are allowed.
    best = zigzag.decode.best(itl_ms=60, context=350)
    assert 1049 <= best.batch <= 1311
    assert best.throughput == pytest.approx(19_300, rel=1e-2)


def test_dips_of_a_few_percent_do_not_let_the_batch_jump() -> None:
    profile = load_sample("llama31-70b_h100_vllm_tp4")
    points = profile.decode_points
    rows = sorted(zip(points.context, points.batch, points.itl_ms, strict=True))
    dips = [
        (context, batch, before, after)
        for (context, batch, before), (other, _, after) in pairwise(rows)
        if other == context and after < 0.99 * before
    ]
    assert len(dips) > 3
    for context, batch, before, after in dips:
        assert profile.decode.best(itl_ms=(before + after) / 2, context=context).batch < batch * 1.001


@pytest.mark.parametrize("name", ["MEASURED_bloom-176b_h100_splitwise_tp8", "MEASURED_llama2-70b_a100_splitwise_tp4"])
def test_nineteen_points_on_two_lines(name: str) -> None:
    decode = load_sample(name).decode
    points = decode.points
    assert len(points.itl_ms) == 19
    batch, context = np.meshgrid(np.geomspace(1, 64, 40), np.geomspace(192, 8256, 40))
    usage = batch * context / points.max_kv_tokens
    itl = decode.itl_ms(usage, context)
    assert (itl > 0.9 * min(points.itl_ms)).all()
    assert (itl < 2.5 * max(points.itl_ms)).all()
    # Batches of 64 were measured at context 576 only, and contexts of 8256 with a single request only.
    assert decode.extrapolated(
        [64 * 576 / points.max_kv_tokens, 0, 64 * 4000 / points.max_kv_tokens], 576
    ).tolist() == [
        False,
        False,
        True,
    ]
    assert decode.itl_ms(40 * 8256 / points.max_kv_tokens, 8256) > decode.itl_ms(1 * 8256 / points.max_kv_tokens, 8256)


def test_prefill_beyond_8192_tokens_is_answered_and_marked() -> None:
    prefill = load_sample("MEASURED_llama2-70b_a100_splitwise_tp4").prefill
    assert prefill.extrapolated(12_000)
    assert 1 < prefill.ttft_ms(16_384) / prefill.ttft_ms(8192) / 2 <= 2


def test_a_cliff_is_not_sold_before_it_is_measured() -> None:
    profile = load_sample("deepseek-v31-nvfp4_b200_trtllm_tp4")
    # Measured at context 750: 17.7 ms with 102 requests, and 39.6 ms with 129.
    assert 95 < profile.decode.best(itl_ms=20, context=750).batch < 129


def test_every_surface_is_positive_and_finite_everywhere(each_profile: Profile) -> None:
    decode, prefill = each_profile.decode, each_profile.prefill
    usage, context = np.meshgrid([0, 1e-9, 1e-3, 0.1, 0.5, 0.9, 1, 1.5, 100], [0, 1, 100, 777, 5e3, 3e4, 1e6, 1e9])
    for values in (decode.itl_ms(usage, context), prefill.ttft_ms(np.geomspace(1, 1e9, 100))):
        assert np.isfinite(values).all()
        assert (values > 0).all()
    assert np.isfinite(decode.throughput(usage, context)).all()
    best = decode.best(np.geomspace(0.1, 1e5, 30)[:, None], context[:, 0])
    assert all(np.isfinite(part).all() for part in best)
    assert (best.kv_usage <= 1 + 1e-9).all()
    assert ((best.throughput > 0) == (best.batch > 0)).all()


def test_measured_points_are_kept(each_profile: Profile) -> None:
    points, prefill = each_profile.decode_points, each_profile.prefill_points
    assert each_profile.decode.itl_ms(points.kv_usage, points.context) == pytest.approx(
        np.array(points.itl_ms), rel=5e-3
    )
    assert each_profile.prefill.ttft_ms(prefill.isl) == pytest.approx(np.array(prefill.ttft_ms), rel=1e-9)
    assert not each_profile.decode.extrapolated(points.kv_usage, points.context).any()
    assert not each_profile.prefill.extrapolated(prefill.isl).any()


def test_gpus_of_a_worker_are_those_of_its_tensor_parallelism(each_profile: Profile) -> None:
    assert each_profile.prefill_points.gpus == each_profile.decode_points.gpus == each_profile.about["tp"]


def test_every_smaller_batch_keeps_the_target_too(each_profile: Profile) -> None:
    for context in (400.0, 3000.0, 20_000.0):
        single = each_profile.decode.step_ms(1, context)
        for factor in (1.05, 1.3, 2.0, 4.0):
            best = each_profile.decode.best(factor * single, context)
            batches = np.linspace(1, max(best.batch, 1), 300)
            assert (each_profile.decode.step_ms(batches, context) <= factor * single * (1 + 1e-9)).all()
            assert best.itl_ms == pytest.approx(each_profile.decode.itl_ms(best.kv_usage, context), rel=1e-9)
            assert best.throughput == pytest.approx(each_profile.decode.throughput(best.kv_usage, context), rel=1e-3)
