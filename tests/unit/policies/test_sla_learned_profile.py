"""Profiles out of a policy's state and out of a history."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dynamo_planner import Dist, GpuBudget, PoolSpec, PoolStatus, Profile, Sla, SlaPolicy, Snapshot, Traffic
from dynamo_planner.cli.app import app
from dynamo_planner.core.metrics import StageTimes
from dynamo_planner.policies.sla import profile_of
from dynamo_planner.profiles import ProfileError
from dynamo_planner.runtime.state_file import SavedState, StateFile

POLICY = SlaPolicy(sla=Sla(ttft_ms=1000, itl_ms=50)) | GpuBudget(max_gpus=64)


def day() -> list[Snapshot]:
    """An hour of a service: steps of 8 ms and 0.1 ms for each request, prompts of 20 ms and 1000 * 0.05 ms."""
    found = []
    for minute in range(60):
        batch = 10.0 + minute
        stages = StageTimes(prefill_ms=Dist(mean=70, count=600), queue_ms=Dist(mean=0))
        pools = {
            "prompts": PoolStatus(spec=PoolSpec(role="prefill"), replicas=2, queued=0, running=1, stages=stages),
            "tokens": PoolStatus(spec=PoolSpec(role="decode"), replicas=1, queued=0, running=batch),
        }
        itl = Dist(mean=8 + 0.1 * batch, count=600, buckets={50: 1})
        traffic = Traffic(window_s=60, requests_per_s=10, isl=1000, osl=200, itl_ms=itl, ttft_ms=90)
        found.append(Snapshot(at_s=60.0 * minute, traffic=traffic, pools=pools))
    return found


def is_the_service(profile: Profile) -> None:
    assert profile.prefill.ttft_ms(1000) == pytest.approx(70, rel=0.06)
    for batch in (15, 40, 65):
        assert profile.step_ms(0, batch, 1200 * batch) == pytest.approx(8 + 0.1 * batch, rel=0.06)


def test_a_history_and_a_state_give_the_profile_of_the_service(tmp_path: Path) -> None:
    is_the_service(Profile.from_history(day()))
    *_, last = POLICY.replay(day())
    is_the_service(profile_of(last.state))
    StateFile(tmp_path / "state.json").save(SavedState(at_s=last.at_s, state=last.state))
    arguments = ["profile", "learned", str(tmp_path / "state.json"), "-o", str(tmp_path / "own.json"), "--gpus", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    profile = Profile.load(tmp_path / "own.json")
    is_the_service(profile)
    assert profile.decode_points.gpus == 2


def test_nothing_learned_is_said(tmp_path: Path) -> None:
    decision = POLICY.decide(day()[0].replace(traffic=Traffic(requests_per_s=1, isl=10, osl=10)))
    with pytest.raises(ProfileError, match="no learned curves"):
        profile_of(decision.state)
    with pytest.raises(ProfileError, match="no calm pool"):
        Profile.from_history(day()[:1])
    (tmp_path / "state.json").write_text("{}")
    result = CliRunner().invoke(app, ["profile", "learned", str(tmp_path / "state.json")])
    assert result.exit_code == 2 and "no learned curves" in result.output
