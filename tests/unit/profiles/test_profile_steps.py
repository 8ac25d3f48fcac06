"""Step times for simulators: mixed steps where they were measured, composed ones where not, and the linear costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dynamo_planner.profiles import MixedPoints, MixedSteps, Profile
from tests.support.profiles import NAMES, PROFILES, law_itl, load_sample


def test_decoding_alone_is_the_decode_surface(own: Profile) -> None:
    assert own.step_ms(0, 32, 32 * 4000) == pytest.approx(law_itl(32, 4000), rel=1e-6)
    assert own.step_ms(0, 0, 0) == pytest.approx(law_itl(1, 500), rel=1e-6), "a step never takes no time"


def test_prompts_alone_take_their_ttft(own: Profile) -> None:
    assert own.step_ms(1024, 0, 0) == pytest.approx(own.prefill.ttft_ms(1024), rel=1e-6)


def test_both_read_the_weights_once(own: Profile) -> None:
    expected = law_itl(32, 4000) + 40 - law_itl(1, 500)
    assert own.step_ms(1024, 32, 32 * 4000) == pytest.approx(expected, rel=1e-6)


def test_a_few_prompt_tokens_cost_their_share_of_the_shortest_prompt(own: Profile) -> None:
    whole = own.step_ms(128, 8, 8000) - own.step_ms(0, 8, 8000)
    assert own.step_ms(16, 8, 8000) - own.step_ms(0, 8, 8000) == pytest.approx(whole / 8)


def test_more_work_never_takes_less_time(own: Profile) -> None:
    prefill, requests = np.meshgrid(np.arange(0, 9000, 37.0), [0.0, 1, 5, 60], indexing="ij")
    steps = own.step_ms(prefill, requests, requests * 3000)
    assert (np.diff(steps, axis=0) >= 0).all()
    assert (np.diff(steps, axis=1) >= -1e-9).all()


def test_one_and_many_agree(own: Profile) -> None:
    queries = np.array([[0, 0, 0], [0, 8, 8000], [100, 0, 0], [100, 8, 8000], [9000, 300, 9e6]], dtype=float)
    together = own.step_ms(*queries.T)
    for query, step in zip(queries, together, strict=True):
        assert own.step_ms(*query.tolist()) == pytest.approx(step, rel=1e-12)


def test_measured_mixed_steps_are_used() -> None:
    points = [(p, n, c) for p in (0, 256, 1024, 4096) for n in (0, 1, 8, 64) for c in (1000, 8000) if p or n]
    steps = MixedSteps(
        MixedPoints(
            prefill_tokens=[p for p, _, _ in points],
            num_decode=[n for _, n, _ in points],
            context=[c for _, _, c in points],
            step_ms=[6 + 0.02 * p + 1e-7 * p * p + 0.05 * n + 2e-5 * n * c for p, n, c in points],
        )
    )
    for p, n, c in ((512, 16, 2000), (2048, 40, 6000), (0, 32, 4000), (300, 0, 1000)):
        expected = 6 + 0.02 * p + 1e-7 * p * p + 0.05 * n + 2e-5 * n * c
        assert steps.step_ms(p, n, c) == pytest.approx(expected, rel=0.01)
    assert steps.extrapolated([512, 9000, 512, 512], [16, 16, 100, 16], [2000, 2000, 2000, 500]).tolist() == [
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if (PROFILES / name / "mixed_step.npz").exists()])
def test_steps_of_every_profile(name: str) -> None:
    profile = load_sample(name)
    points = profile.mixed_points
    assert points is not None
    prefill, requests, context = (np.asarray(c) for c in (points.prefill_tokens, points.num_decode, points.context))
    measured, mixing = np.asarray(points.step_ms), (prefill > 0) & (requests > 0)
    steps = profile.step_ms(prefill, requests, requests * context)
    assert np.abs(steps / measured - 1)[mixing].max() < 0.02
    composed = profile.replace(mixed_points=None).step_ms(prefill, requests, requests * context)
    assert np.median(np.abs(composed / measured - 1)[mixing]) < 0.2


def test_costs_of_a_linear_engine() -> None:
    isl, batch, context = np.array([500, 2000, 8000]), np.array([1, 16, 128, 16]), np.array([500, 500, 500, 4000])
    profile = Profile.from_points(
        isl=isl,
        ttft_ms=6 + 0.02 * isl,
        max_kv_tokens=1e6,
        batch=batch,
        context=context,
        itl_ms=6 + 0.05 * batch + 2e-5 * batch * context,
    )
    costs = profile.costs
    assert costs.base_ms == pytest.approx(6)
    assert costs.ms_per_prefill_token == pytest.approx(0.02)
    assert costs.ms_per_request == pytest.approx(0.05)
    assert costs.ms_per_kv_token == pytest.approx(2e-5)
    assert costs.step_ms(1000, 16, 16_000) == pytest.approx(6 + 20 + 0.8 + 0.32)
    assert costs.step_ms(np.array([0, 1000]), 0, 0).tolist() == pytest.approx([6, 26])


def test_costs_of_every_profile_are_positive_and_finite(each_profile: Profile, tmp_path: Path) -> None:
    costs = each_profile.costs
    assert costs.base_ms > 0
    assert costs.ms_per_prefill_token > 0
    assert costs.ms_per_request + costs.ms_per_kv_token > 0
