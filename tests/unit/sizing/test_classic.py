"""Dynamo 0.5.1's sizing, by golden values that are worked out here from the profile's points with scipy alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.interpolate import griddata, interp1d

from dynamo_planner import Profile, ProfileError, Sla
from dynamo_planner.sizing import ClassicSizing, Load, fit_budget
from tests.support.profiles import load_sample

BUNDLED = ("llama31-70b-fp8_h200_trtllm_tp2", "llama31-70b_h100_vllm_tp4", "llama31-8b_h100_vllm_tp1")
DIP = "MEASURED_llama31-8b-fp8_h200_dynamo_tp1"


def golden_prefill(profile: Profile, rate: float, isl: float, correction: float) -> int:
    points = profile.prefill_points
    throughput = points.throughput_per_gpu or 1000 * np.divide(points.isl, points.ttft_ms) / points.gpus
    tokens_per_s = float(interp1d(points.isl, throughput, kind="cubic")(np.clip(isl, min(points.isl), max(points.isl))))
    return math.ceil(rate * isl * correction / tokens_per_s / points.gpus)


def golden_decode(profile: Profile, rate: float, isl: float, osl: float, itl_ms: float, last: bool) -> int:
    """``last``: the highest KV usage under the target counts, whatever is before it."""
    points = profile.decode_points
    throughput = points.throughput_per_gpu or 1000 * np.divide(points.batch, points.itl_ms) / points.gpus
    xs, ys = np.linspace(0, 1, 100), np.linspace(0, max(points.context), 100)
    grids = []
    for values in (points.itl_ms, throughput):
        place = np.array([points.kv_usage, points.context]).T
        found = griddata(place, np.array(values), tuple(np.meshgrid(xs, ys)), method="cubic")
        nearest = griddata(place, np.array(values), tuple(np.meshgrid(xs, ys)), method="nearest")
        found[np.isnan(found)] = nearest[np.isnan(found)]
        grids.append(found[round((isl + osl / 2) / (ys[1] - ys[0]))])
    itl, tokens = grids
    if last:
        cell = max((x for x in range(100) if itl[x] <= itl_ms), default=0)
    else:
        cell = 0
        while cell < 99 and itl[cell + 1] <= itl_ms:
            cell += 1
    return math.ceil(rate * osl / float(tokens[cell]) / points.gpus)


@pytest.mark.parametrize("name", [*BUNDLED, DIP])
@pytest.mark.parametrize("defects", [False, True])
@pytest.mark.parametrize(("rate", "isl", "osl", "ttft", "itl"), [(40, 3000, 300, 1.0, 1.0), (9.5, 800, 150, 1.4, 0.9)])
def test_counts_are_those_of_the_formulas(
    name: str, defects: bool, rate: float, isl: float, osl: float, ttft: float, itl: float
) -> None:
    profile = Profile.bundled(name) if name in BUNDLED else load_sample(name)
    sla = Sla(ttft_ms=500, itl_ms=35)
    factors: dict[str, float] = {"prefill": ttft, "decode": itl}
    needs = ClassicSizing(profile, defects).replicas_for(Load.of(rate, isl, osl), sla, service_factor=factors)  # type: ignore[arg-type]
    assert needs["prefill"].replicas == golden_prefill(profile, rate, isl, min(1, ttft) if defects else ttft)
    assert needs["decode"].replicas == golden_decode(profile, rate, isl, osl, 35 / itl, last=defects)


def test_a_dip_of_itl_is_capacity_only_with_the_defect() -> None:
    profile = load_sample(DIP)
    load, sla = Load.of(200, 250, 200), Sla(ttft_ms=500, itl_ms=43)
    right = ClassicSizing(profile).replicas_for(load, sla)["decode"]
    wrong = ClassicSizing(profile, defects=True).replicas_for(load, sla)["decode"]
    assert right.load > wrong.load
    assert wrong.replicas == golden_decode(profile, 200, 250, 200, 43, last=True)


def test_corrections_are_observed_over_expected(h100: Profile) -> None:
    sizing = ClassicSizing(h100)
    found = sizing.corrections(
        requests_per_s=10, isl=3000, osl=300, ttft_ms=200, itl_ms=20, request_duration_s=6, decode_replicas=2
    )
    points = h100.prefill_points
    assert found["prefill"] == pytest.approx(200 / float(interp1d(points.isl, points.ttft_ms, kind="cubic")(3000)))
    assert found["decode"] == pytest.approx(20 / h100.decode.itl_ms(30 * 3150 / 432992, 3150), rel=0.1)


def test_with_nothing_to_do_the_defect_says_nothing(h100: Profile) -> None:
    idle, sla = Load.of(0, 3000, 300), Sla(ttft_ms=500, itl_ms=20)
    assert ClassicSizing(h100, defects=True).replicas_for(idle, sla) == {}
    assert {need.replicas for need in ClassicSizing(h100).replicas_for(idle, sla).values()} == {0}


@pytest.mark.parametrize(
    ("counts", "gpus", "budget", "right", "wrong"),
    [
        ((10, 1), (8, 1), 40, (4, 1), (5, 1)),  # 41 GPUs of 40
        ((3, 3), (1, 2), 5, (1, 2), (2, 2)),  # round(1.5) is 2: 6 GPUs of 5
        ((0, 0), (4, 4), 4, (0, 1), (1, 1)),  # the minimum of one each is 8 GPUs of 4
        ((2, 2), (1, 1), 8, (2, 2), (2, 2)),
    ],
)
def test_the_budget_holds_without_the_defects(
    counts: tuple[int, int], gpus: tuple[int, int], budget: int, right: tuple[int, int], wrong: tuple[int, int]
) -> None:
    def fitted(defects: bool) -> tuple[int, int]:
        return fit_budget(*counts, budget, prefill_gpus=gpus[0], decode_gpus=gpus[1], defects=defects)

    assert fitted(False) == right
    assert fitted(True) == wrong


def test_more_replicas_are_said_to_attain_more(h100: Profile) -> None:
    sizing, load, sla = ClassicSizing(h100), Load.of(40, 3000, 300), Sla(ttft_ms=500, itl_ms=20)
    share = sizing.attainable(load, sla, {"prefill": [1, 2, 3, 9], "decode": 9})
    assert share[-1] == 1
    assert np.all(np.diff(share) >= 0)


def test_what_it_cannot_do_is_said(h100: Profile) -> None:
    with pytest.raises(ValueError, match="ClassicSizing knows no aggregated replicas"):
        ClassicSizing(h100).replicas_for(Load.of(1, 1, 1), Sla(ttft_ms=1, itl_ms=1), ("aggregated",))
    few = Profile.from_points(
        isl=[1, 2], ttft_ms=[1, 2], max_kv_tokens=1e5, batch=[1, 2], context=[9, 9], itl_ms=[1, 2]
    )
    with pytest.raises(ProfileError, match="has 2 prompts: a cubic spline needs 4"):
        ClassicSizing(few)
    line = Profile.from_points(
        isl=[1, 2, 3, 4],
        ttft_ms=[1, 2, 3, 4],
        max_kv_tokens=1e5,
        batch=[1, 2, 3, 4],
        context=[9] * 4,
        itl_ms=[1, 2, 3, 4],
    )
    with pytest.raises(ProfileError, match="are on one line"):
        ClassicSizing(line)
