"""State files and decision logs that version 0.1 wrote still load, and go on as they would have then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynamo_planner.runtime.decision_log import read_log
from tests.golden.saved import KINDS, LOG, MORE, STATES, TICKS, Loop, after, policy_of, run


@pytest.mark.parametrize("name", KINDS)
def test_a_state_file_of_0_1_goes_on_with_the_same_decisions(name: str, tmp_path: Path) -> None:
    saved = json.loads(STATES.read_text())[name]
    path = tmp_path / "state.json"
    path.write_text(json.dumps(saved["file"]))
    loop = Loop(name)
    run(name, TICKS, loop)
    decisions = run(name, MORE - 1, loop, state_file=path)
    assert after(decisions) == saved["next"]
    assert not any("StateReset" in code for step in saved["next"] for code in step["codes"])
    assert sorted(path.parent.iterdir()) == [path]


def test_a_state_that_is_forgotten_would_show() -> None:
    for name in KINDS:
        loop = Loop(name)
        run(name, TICKS, loop)
        assert after(run(name, MORE - 1, loop)) != json.loads(STATES.read_text())[name]["next"]


def test_a_decision_log_of_0_1_reads_and_replays() -> None:
    steps = list(read_log(LOG, strict=True))
    assert len(steps) == TICKS
    replayed = policy_of("sla").replay(step.snapshot for step in steps)
    for step, decision in zip(steps, replayed, strict=True):
        assert decision.targets == step.decision.targets
        assert decision.actions == step.decision.actions
        assert [reason.code for reason in decision.reasons] == [reason.code for reason in step.decision.reasons]
