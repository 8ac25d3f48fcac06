"""The decision log: what a line holds, and what becomes of it on bad days."""

from __future__ import annotations

import json
import logging
import resource
import shutil
from pathlib import Path

import pytest

from dynamo_planner.core.decision import Decision, Outcome, Reason, ScaleTo, SetKnob, State
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.runtime.decision_log import DecisionLog, Step, follow_log, read_log
from dynamo_planner.runtime.planner import Planner
from tests.support.loop_parts import Climbing, Clock, Cluster, Metrics, per_ten


def step_at(at_s: float, *, padding: int = 0) -> Step:
    action = ScaleTo(pool="workers", replicas=3, expected=2)
    reason = Reason(code="Told", message="x" * padding, pool="workers", values={"load": 2.5, "why": None})
    decision = Decision(
        at_s=at_s,
        targets={"workers": 3},
        actions=(action, SetKnob(knob="max_num_seqs", value=8)),
        reasons=(reason,),
        state=State(kind="secretive", version=1, data={"seen": [1, 2, 3]}),
    )
    outcomes = (Outcome(action=action, status="refused", message="somebody else scales it"),)
    return Step(at_s=at_s, name="llama", snapshot=Snapshot(at_s=at_s), decision=decision, outcomes=outcomes)


def without_state(step: Step) -> Step:
    return step.replace(decision=step.decision.replace(state=None))


def test_a_line_for_each_step_read_back_as_it_was_but_for_the_state(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    steps = [step_at(1.5), step_at(2.5)]
    for step in steps:
        DecisionLog(path).write(step)
    assert list(read_log(path)) == [without_state(step) for step in steps]
    lines = path.read_text().splitlines()
    assert [json.loads(line)["at_s"] for line in lines] == [1.5, 2.5]
    assert "secretive" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_is_followed_through_its_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = DecisionLog(path, max_bytes=1)  # each line begins a new file
    log.write(step_at(1.0))
    newer = follow_log(path, looks_every_s=0.01)
    log.write(step_at(2.0))
    assert next(newer).at_s == 2.0
    log.write(step_at(3.0))
    assert next(newer).at_s == 3.0


def test_the_log_of_a_planner_explains_itself(tmp_path: Path, clock: Clock, metrics: Metrics, cluster: Cluster) -> None:
    metrics.requests_per_s = 40
    step = Planner(per_ten, metrics, cluster, clock=clock, log=tmp_path / "log").step()
    (read,) = read_log(tmp_path / "log")
    assert read == without_state(step)
    assert read.decision.explain() == "workers: 2 -> 4 replicas"


def test_it_rotates_and_is_read_oldest_first(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = DecisionLog(path, max_bytes=2000, keep=2)
    for at_s in range(20):
        log.write(step_at(at_s, padding=300))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(file.stat().st_size <= 2000 and file.stat().st_mode & 0o777 == 0o600 for file in tmp_path.iterdir())
    read = [step.at_s for step in read_log(path)]
    assert read == list(range(int(read[0]), 20))


def test_keeping_no_rotated_file(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log", max_bytes=1500, keep=0)
    for at_s in range(5):
        log.write(step_at(at_s, padding=500))
    assert [file.name for file in tmp_path.iterdir()] == ["log"]
    assert [step.at_s for step in read_log(tmp_path / "log")] == [4]


def test_a_line_longer_than_a_whole_file_is_still_written(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "log", max_bytes=10, keep=1)
    log.write(step_at(1))
    log.write(step_at(2))
    assert [step.at_s for step in read_log(tmp_path / "log")] == [1, 2]


def test_a_log_that_is_moved_away_or_deleted_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = DecisionLog(path)
    log.write(step_at(1))
    path.rename(tmp_path / "elsewhere")
    log.write(step_at(2))
    path.unlink()
    log.write(step_at(3))
    assert [step.at_s for step in read_log(path)] == [3]


def test_bad_lines_are_named_by_number_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log"
    log = DecisionLog(path)
    log.write(step_at(1))
    with path.open("ab") as file:
        file.write(b'{"at_s": 2}\n\xff\xfe\n[]\n')
    log.write(step_at(3))
    assert [step.at_s for step in read_log(path)] == [1, 3]
    assert [record.message.split(" is not")[0] for record in caplog.records] == [
        f"{path}: line {number}" for number in (2, 3, 4)
    ]
    assert "name: Field required" in caplog.records[0].message
    with pytest.raises(ValueError, match="line 2 is not a step of a decision log: name: Field required"):
        list(read_log(path, strict=True))


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = DecisionLog(path)
    log.write(step_at(1))
    log.write(step_at(2))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 40)
    log.write(step_at(3))
    assert [step.at_s for step in read_log(path)] == [1, 3]


def test_no_log_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such decision log"):
        read_log(tmp_path / "log")
    with pytest.raises(FileNotFoundError, match=r"there is no directory .*; create it first"):
        DecisionLog(tmp_path / "nowhere" / "log")
    with pytest.raises(ValueError, match="max_bytes"):
        DecisionLog(tmp_path / "log", max_bytes=0)


def test_a_full_disk_is_told_once_and_the_loop_goes_on(
    clock: Clock, metrics: Metrics, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    mode = Path("/dev/full").stat().st_mode
    planner = Planner(Climbing(), metrics, cluster, clock=clock, log="/dev/full", advisory=True)
    for wanted in (1, 2, 3):
        assert planner.step().decision.targets["workers"] == wanted
        clock.now_s += 10
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in errors] == [
        "planner: /dev/full could not be written; the loop goes on without it"
    ]
    assert Path("/dev/full").stat().st_mode == mode


def test_a_directory_that_vanishes_is_told_once_and_told_again_when_it_is_back(
    tmp_path: Path, clock: Clock, metrics: Metrics, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    planner = Planner(Climbing(), metrics, cluster, clock=clock, log=home / "log", state_file=home / "state")
    planner.step()
    shutil.rmtree(home)
    for _ in range(3):
        clock.now_s += 10
        planner.step()
    home.mkdir()
    clock.now_s += 10
    step = planner.step()
    assert step.decision.targets["workers"] == 5
    assert [entry.at_s for entry in read_log(home / "log")] == [1040]
    told = [record.message for record in caplog.records if "written" in record.message]
    assert len(told) == 4
    assert sum("again" in message for message in told) == 2


def test_a_line_that_does_not_fit_on_the_disk_spoils_no_other(tmp_path: Path) -> None:
    """A limit on the size of files stands for the end of the disk: it too takes half of a line."""
    path = tmp_path / "log"
    log = DecisionLog(path)
    log.write(step_at(0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
    try:
        for at_s in (1, 2):
            with pytest.raises(OSError, match=r"only 100 of \d+ bytes could be written|File too large"):
                log.write(step_at(at_s))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.write(step_at(3))
    assert [step.at_s for step in read_log(path)] == [0, 3]
