"""State files, decision logs and records of local workers that version 0.1 wrote still load, and go on as then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dynamo_planner.executors.circus.store import Store
from dynamo_planner.runtime.decision_log import read_log
from tests.golden.saved import KINDS, LOG, MORE, STATES, TICKS, Loop, after, policy_of, run


def go_on(name: str, path: Path | None) -> list[dict[str, Any]]:
    """The decisions after a restart, with the state file of then or without one."""
    loop = Loop(name)
    run(name, TICKS, loop)
    return after(run(name, MORE - 1, loop, **({"state_file": path} if path else {})))


@pytest.mark.parametrize("name", KINDS)
def test_a_state_file_of_0_1_is_taken_over(name: str, tmp_path: Path) -> None:
    """What was learned then is known at once: how long starts take, and what the knobs did."""
    saved = json.loads(STATES.read_text())[name]
    path = tmp_path / "state.json"
    path.write_text(json.dumps(saved["file"]))
    decisions = go_on(name, path)
    codes = [code for step in decisions for code in step["codes"]]
    assert not any("StateReset" in code for code in codes)
    if name == "sla":
        learned = {"StartupLearned@prefill", "StartupLearned@decode"}
        assert learned <= set(decisions[0]["codes"])
        assert not learned & set(go_on(name, None)[0]["codes"])
    else:
        assert decisions == saved["next"] != go_on(name, None)
    assert sorted(path.parent.iterdir()) == [path]


def test_a_decision_log_of_0_1_reads_and_replays() -> None:
    steps = list(read_log(LOG, strict=True))
    assert len(steps) == TICKS
    replayed = policy_of("sla").replay(step.snapshot for step in steps)
    for step, decision in zip(steps, replayed, strict=True):
        assert decision.targets.keys() == step.decision.targets.keys()


def without_new_fields(data: Any, old: Any) -> Any:
    """The data without the fields that the old one does not have."""
    if isinstance(data, dict):
        return {name: without_new_fields(value, old[name]) for name, value in data.items() if name in old}
    if isinstance(data, list):
        return [without_new_fields(*pair) for pair in zip(data, old, strict=True)]
    return data


def test_records_of_local_workers_of_0_1_load_and_are_written_alike(tmp_path: Path) -> None:
    written = Path(__file__).with_name("circus_state_0_1.json").read_text()
    store = Store(tmp_path, "saved")
    store.file.touch(mode=0o600)
    store.file.write_text(written)
    records = store.load()
    assert [worker.phase for worker in records.workers] == ["ready", "ready"]
    assert without_new_fields(json.loads(records.model_dump_json()), json.loads(written)) == json.loads(written)
