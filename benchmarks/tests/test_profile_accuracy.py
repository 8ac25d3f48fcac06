"""The targets of ``benchmarks/profile_accuracy.py``: all points of the measured profiles, and some of the others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import griddata

from benchmarks import profile_accuracy as benchmark
from benchmarks.tests.data import DATA
from dynamo_planner.profiles import Profile

PROFILES = DATA / "profiles"
NAMES = sorted(path.name for path in PROFILES.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_itl(name: str) -> None:
    errors = benchmark.itl_errors(Profile.load(PROFILES / name), stride=1 if name.startswith("MEASURED") else 8)
    assert errors.interior.sum() >= 16
    assert benchmark.itl_misses(errors) == []


def test_ttft() -> None:
    every = {name: benchmark.ttft_errors(Profile.load(PROFILES / name)) for name in NAMES}
    assert [benchmark.ttft_misses(errors) for errors in every.values()] == [[]] * len(NAMES)
    better = [e.ours[e.interior].mean() < e.reference[e.interior].mean() for e in every.values()]
    assert np.sum(better) >= 15


def test_the_reference_is_looked_up_in_its_whole_table() -> None:
    """Only the node asked for is computed; that must be the number in the table of 100 x 100 nodes."""
    points = Profile.load(PROFILES / "MEASURED_llama31-8b-fp8_h200_dynamo_tp1").decode_points
    where, itl = np.column_stack([points.kv_usage, points.context]), np.asarray(points.itl_ms)
    x, y = np.linspace(0, 1, 100), np.linspace(0, where[:, 1].max(), 100)
    grid = tuple(np.meshgrid(x, y, indexing="ij"))
    cubic, nearest = (griddata(where, itl, grid, method=method) for method in ("cubic", "nearest"))
    table = np.where(np.isnan(cubic), nearest, cubic)
    for usage, context in ((0.0, 350.0), (0.31, 5000.0), (0.7, 700.0), (0.98, 13_000.0)):
        expected = table[round(usage / x[1]), round(context / y[1])]
        assert benchmark.reference_itl(where, itl, usage, context) == pytest.approx(expected, rel=1e-9)
