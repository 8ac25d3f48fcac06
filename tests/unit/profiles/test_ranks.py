"""Workers that compute several prompts at once, one on each rank of attention data parallelism."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamo_planner import Profile, Sla
from dynamo_planner.profiles.points import GPUS_ASSUMED, PrefillPoints
from dynamo_planner.sizing import ClassicSizing, Load, PercentileSizing

ISL = np.array([250.0, 1000, 4000, 9000])
TTFT_MS = np.array([60.0, 150, 500, 1300])
THROUGHPUT = 1000 * ISL / TTFT_MS
"""Of each GPU, where each is a rank."""


@pytest.mark.parametrize(
    ("given", "gpus", "ranks"),
    [({}, 1, 1), ({"gpus": 4}, 4, 4), ({"ranks": 4}, 4, 4), ({"gpus": 4, "ranks": 2}, 4, 2)],
)
def test_gpus_and_ranks_follow_from_the_throughput_and_each_other(given: dict[str, int], gpus: int, ranks: int) -> None:
    points = PrefillPoints.model_validate({"isl": ISL, "ttft_ms": TTFT_MS, "throughput_per_gpu": THROUGHPUT} | given)
    assert (points.gpus, points.ranks) == (gpus, ranks)
    halved = {"isl": ISL, "ttft_ms": TTFT_MS, "throughput_per_gpu": THROUGHPUT / 2, "gpus": 4}
    two = PrefillPoints.model_validate(halved)
    assert two.ranks == 2, "each rank has two GPUs"


def written(folder: Path, decode_gpus: int, about: dict[str, object] | None = None) -> Profile:
    """A profile as Dynamo's profiler writes it: throughput per GPU, and no number of GPUs."""
    batch, context = np.meshgrid([4.0, 32, 128], [1000.0, 5000])
    itl = 15 + 0.05 * batch + 1e-6 * batch * context
    prefill = {"prefill_isl": ISL, "prefill_ttft": TTFT_MS, "prefill_thpt_per_gpu": THROUGHPUT}
    decode = {
        "x_kv_usage": batch * context / 1e6,
        "y_context_length": context,
        "z_itl": itl,
        "z_thpt_per_gpu": 1000 * batch / itl / decode_gpus,
    }
    for stage, columns in (("prefill", prefill), ("decode", decode)):
        where = folder / f"selected_{stage}_interpolation"
        where.mkdir()
        arrays: dict[str, Any] = {name: values.ravel() for name, values in columns.items()}
        if stage == "decode":
            arrays["max_kv_tokens"] = np.array([1e6])
        np.savez(where / "raw_data.npz", **arrays)
    if about is not None:
        (folder / "meta.json").write_text(json.dumps(about))
    return Profile.load(folder)


LOAD, SLA = Load.of(requests_per_s=20, isl=4000, osl=100), Sla(ttft_ms=2000, itl_ms=60)


def test_a_prefill_worker_of_ranks_computes_as_many_prompts_at_once(tmp_path: Path) -> None:
    """20 requests/s of 0.5 s are 10 busy ranks: two workers of eight."""
    profile = written(tmp_path, decode_gpus=8)
    assert (profile.prefill_points.gpus, profile.prefill_points.ranks, profile.about[GPUS_ASSUMED]) == (8, 8, 8)
    required = PercentileSizing(profile).replicas_for(LOAD, SLA)["prefill"]
    assert required.replicas == 2
    assert 10 / 8 < required.load < 12 / 8, "prompts are not all of the mean length"
    assert [fact.code for fact in required.facts if fact.code == "GpusAssumed"]
    assert ClassicSizing(profile).replicas_for(LOAD, SLA)["prefill"].replicas == 2, "Dynamo 0.5.1: 80,000 / 8000 / 8"
    assert profile.prefill.throughput(4000) == pytest.approx(8000)


def test_meta_json_says_how_many_gpus_a_worker_has(tmp_path: Path) -> None:
    profile = written(tmp_path, decode_gpus=8, about={"prefill_gpus": 1})
    assert (profile.prefill_points.gpus, profile.prefill_points.ranks) == (1, 1)
    assert GPUS_ASSUMED not in profile.about
    required = PercentileSizing(profile).replicas_for(LOAD, SLA)["prefill"]
    assert required.replicas > 10
    assert "GpusAssumed" not in [fact.code for fact in required.facts]


def test_small_workers_are_taken_as_the_throughput_implies(tmp_path: Path) -> None:
    assert written(tmp_path, decode_gpus=2).prefill_points.gpus == 1


def test_a_profile_of_single_requests_is_said_to_be_thin() -> None:
    """10 requests/s of 2 s each are 20 in flight; none gets a second one on its replica while another has none."""
    profile = Profile.from_points(
        isl=[100, 9000],
        ttft_ms=[30, 900],
        max_kv_tokens=1e5,
        batch=[1, 1, 1],
        context=[500, 2500, 9000],
        itl_ms=[10, 10, 11],
    )
    load = Load.of(requests_per_s=10, isl=1000, osl=200)
    required = PercentileSizing(profile).replicas_for(load, Sla(ttft_ms=2000, itl_ms=30))
    assert 25 < required["decode"].replicas < 45
    assert "ThinProfile" in [fact.code for fact in required["decode"].facts]
    assert "ThinProfile" not in [fact.code for fact in required["prefill"].facts]


def test_a_profile_of_one_batch_is_said_to_be_thin_and_one_of_several_is_not() -> None:
    for batch, thin in (([8, 8, 8], True), ([8, 9, 40], False)):
        profile = Profile.from_points(
            isl=[100, 9000],
            ttft_ms=[30, 900],
            max_kv_tokens=1e6,
            batch=batch,
            context=[500, 2500, 9000],
            itl_ms=[10, 11, 14],
            gpus=4,
            prefill_ranks=2,
        )
        assert profile.prefill_points.ranks == 2
        required = PercentileSizing(profile).replicas_for(LOAD, SLA)["decode"]
        assert ("ThinProfile" in [fact.code for fact in required.facts]) == thin
