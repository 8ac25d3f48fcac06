"""What a policy remembers, across restarts and damaged files."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from dynamo_planner.core.decision import State
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.runtime.state_file import DamagedStateError, SavedState, StateFile
from tests.support.laws import examples
from tests.support.loop_parts import Climbing, Clock, Cluster, Metrics


def planner_with(state_file: Path, clock: Clock) -> Planner:
    return Planner(Climbing(), Metrics(), Cluster(), clock=clock, state_file=state_file, advisory=True)


def test_a_restart_goes_on_from_the_file(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "state.json"
    for wanted in (1, 2, 3):
        assert planner_with(path, clock).step().decision.targets["workers"] == wanted
        clock.now_s += 10
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"], "no half-written file is left"


def test_a_restart_at_an_earlier_time_starts_the_policy_anew(tmp_path: Path, clock: Clock) -> None:
    planner_with(tmp_path / "state", clock).step()
    clock.now_s -= 1e6
    decision = planner_with(tmp_path / "state", clock).step().decision
    assert [reason.code for reason in decision.reasons] == ["StateReset"]
    assert decision.targets["workers"] == 1


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"\xff\xfe",
        b'{"version": 2, "at_s": 1, "state": null}',
        b'{"version": 1, "at_s": NaN, "state": null}',
        b'{"version": 1, "at_s": 1, "state": {"kind": "decision"}}',
        b"[" * 100_000,
    ],
    ids=["empty", "cut off", "null", "not text", "of another version", "without a time", "half a state", "deep"],
)
def test_a_damaged_file_is_told_and_set_aside(
    text: bytes, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"
    path.write_bytes(text)
    planner = planner_with(path, clock)
    assert "set aside as state.damaged-1" in caplog.text
    assert (tmp_path / "state.damaged-1").read_bytes() == text
    decision = planner.step().decision
    assert [reason.code for reason in decision.reasons] == ["StateReset"]
    assert str(path) in decision.explain()
    assert decision.targets["workers"] == 1
    clock.now_s += 10
    assert planner.step().decision.reasons == (), "it is told once"
    assert planner_with(path, clock)

    path.write_bytes(b"again")
    planner_with(path, clock)
    assert (tmp_path / "state.damaged-2").read_bytes() == b"again"


def test_a_state_of_another_policy_is_reset_with_a_reason(tmp_path: Path, clock: Clock) -> None:
    StateFile(tmp_path / "state").save(SavedState(at_s=1, state=State(kind="other", version=3, data={"x": 1})))
    decision = planner_with(tmp_path / "state", clock).step().decision
    assert [reason.code for reason in decision.reasons] == ["StateReset"]


def test_what_cannot_be_read_is_refused_at_once(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(IsADirectoryError):
        planner_with(tmp_path, clock)
    with pytest.raises(FileNotFoundError, match="create it first"):
        planner_with(tmp_path / "nowhere" / "state", clock)


def test_a_write_that_fails_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(tmp_path / "state")
    file.save(SavedState(at_s=1, state=None))

    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        file.save(SavedState(at_s=2, state=None))
    assert file.load() == SavedState(at_s=1, state=None)
    assert len(list(tmp_path.iterdir())) == 1


@contextmanager
def full_disk() -> Iterator[None]:
    """A limit on the size of files stands for the end of the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_is_a_reason_of_each_decision_until_it_can(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "state"
    planner = planner_with(path, clock)
    planner.step()
    before = path.read_bytes()
    for wanted in (2, 3):
        clock.now_s += 10
        with full_disk():
            decision = planner.step().decision
        assert decision.targets["workers"] == wanted, "the loop goes on"
        assert [reason.code for reason in decision.reasons] == ["StateFileFailed"]
        assert f"{path} could not be written: File too large" in decision.explain()
        assert path.read_bytes() == before
    clock.now_s += 10
    assert planner.step().decision.reasons == ()
    assert planner_with(path, clock).step().decision.targets["workers"] == 4
    assert [file.name for file in tmp_path.iterdir()] == ["state"], "no half-written file is left"


@examples(150, suppress=[HealthCheck.function_scoped_fixture])
@given(st.binary() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(lambda x: json.dumps(x).encode()))
def test_no_contents_raise_anything_else(tmp_path: Path, contents: bytes) -> None:
    file = StateFile(tmp_path / "state")
    file.path.write_bytes(contents)
    with pytest.raises(DamagedStateError):
        file.load()
    for aside in tmp_path.iterdir():
        aside.unlink()
