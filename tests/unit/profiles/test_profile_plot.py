"""The figure of a profile, drawn for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynamo_planner.profiles import Profile
from tests.support.profiles import load_sample

pytest.importorskip("matplotlib")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["MEASURED_llama31-8b-fp8_h200_dynamo_tp1", "MEASURED_bloom-176b_h100_splitwise_tp8", None]
)
def test_figure(name: str | None, own: Profile, tmp_path: Path) -> None:
    profile = load_sample(name) if name else own
    figure = profile.plot()
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    for curve in ("TTFT", "Prefill throughput", "ITL", "Decode throughput"):
        assert any(curve in title for title in titles)
    assert profile.name in figure.get_suptitle()
    figure.savefig(tmp_path / "profile.png")
    assert (tmp_path / "profile.png").stat().st_size > 20_000


def test_two_points_are_drawn_too(tmp_path: Path) -> None:
    profile = Profile.from_points(
        isl=[100, 200], ttft_ms=[10, 12], max_kv_tokens=1e4, batch=[1, 2], context=[500, 500], itl_ms=[7, 7]
    )
    profile.plot().savefig(tmp_path / "profile.png")
