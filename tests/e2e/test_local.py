"""status, stop and doctor, beside a planner with real workers that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from dynamo_planner.executors.circus.inspection import inspect
from dynamo_planner.executors.circus.processes import alive
from tests.support.cli import planner, running, until
from tests.support.run_config import config, pinned, ready


def status_of(directory: Path) -> dict[str, Any]:
    (line,) = planner("status", "run", "--state-dir", directory / "state", "--json").stdout.splitlines()
    return json.loads(line)  # type: ignore[no-any-return]


@pytest.fixture
def started(tmp_path: Path) -> Path:
    path = tmp_path / "planner.json"
    path.write_text(json.dumps(config(tmp_path, policy=pinned(2))))
    return path


def workers_of(status: dict[str, Any]) -> list[int]:
    return [worker["pid"] for worker in status["workers"]]


@pytest.mark.timeout(120)
def test_stop_ends_a_planner_and_its_workers(tmp_path: Path, started: Path) -> None:
    state = tmp_path / "state"
    with running(started) as process:
        until(lambda: ready(tmp_path) == 2, "two workers ready")
        seen = status_of(tmp_path)
        assert (seen["planner"], seen["disagreements"], len(seen["watchers"])) == (process.pid, [], 2)
        shown = planner("status", "--state-dir", state).stdout
        assert "run_workers_1" in shown
        assert str(state / "run" / "run_workers_1.log") in shown
        done = planner("stop", "run", "--state-dir", state)
        assert (done.returncode, done.stderr) == (0, "")
        assert process.wait(30) == 0
    assert not [pid for pid in workers_of(seen) if psutil.pid_exists(pid)]
    assert planner("status", "--state-dir", state).stdout == "no planner has left anything here\n"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", [("stop", "run"), ("doctor", "--yes"), ("doctor", "run", "--yes")])
def test_what_a_killed_planner_left_is_told_and_ended(tmp_path: Path, started: Path, command: tuple[str, ...]) -> None:
    state = tmp_path / "state"
    with running(started) as process:
        until(lambda: ready(tmp_path) == 2, "two workers ready")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        shown = planner("status", "run", "--state-dir", state)
        assert shown.returncode == 1
        assert "no planner runs it, so its workers are not supervised" in shown.stdout
        left = workers_of(status_of(tmp_path))
        assert all(psutil.pid_exists(pid) for pid in left)
        done = planner(*command, "--state-dir", state)
        assert done.returncode == 0, done.stderr
    assert not [pid for pid in left if psutil.pid_exists(pid)]
    assert not (state / "run.json").exists()


@pytest.mark.timeout(120)
def test_the_same_namespace_in_another_state_directory_is_none_of_its_business(tmp_path: Path, started: Path) -> None:
    with running(started):
        until(lambda: ready(tmp_path) == 2, "two workers ready")
        elsewhere = inspect("run", tmp_path / "elsewhere")
        assert (elsewhere.orphans, elsewhere.disagreements, elsewhere.workers) == ((), (), ())
        assert planner("doctor", "run", "--yes", "--state-dir", tmp_path / "elsewhere").returncode == 0
        assert len(status_of(tmp_path)["workers"]) == 2


@pytest.mark.timeout(120)
def test_a_damaged_state_file_is_refused_and_mended_when_asked(tmp_path: Path, started: Path) -> None:
    state = tmp_path / "state"
    with running(started) as process:
        until(lambda: ready(tmp_path) == 2, "two workers ready")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        left = workers_of(status_of(tmp_path))
        (state / "run.json").write_text((state / "run.json").read_text()[:-40])
        found = inspect("run", state).orphans
        assert {process.pid for process in found} > set(left), "the arbiter is among them"
        refused = planner("stop", "run", "--state-dir", state)
        assert refused.returncode == 1
        assert "it was cut off or edited" in refused.stderr
        asked = planner("doctor", "run", "--state-dir", state, stdin="n\n")
        assert "end the 3 processes of it, and set the state file aside" in asked.stdout
        assert all(psutil.pid_exists(pid) for pid in left)
        mended = planner("doctor", "run", "--state-dir", state, stdin="y\n")
        assert mended.returncode == 0, mended.stderr
        until(lambda: not [pid for pid in left if psutil.pid_exists(pid)], "workers gone", 10)
    assert not [process for process in found if alive(process)]
    assert not (state / "run.json").exists()
    assert list(state.glob("run.json.damaged-*"))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_what_a_killed_demo_left_is_found_by_doctor(tmp_path: Path) -> None:
    """Its state directory is a temporary one, which no option names."""
    tmp = Path(tempfile.mkdtemp(prefix="dp"))  # a unix socket's path must be short
    environment = {**os.environ, "TMPDIR": str(tmp), "DYN_LOCAL_STATE_DIR": str(tmp_path / "state")}
    command = [str(Path(sys.executable).with_name("dynamo-planner"))]
    demo = subprocess.Popen(
        [*command, "demo", "--no-picture", "--out", str(tmp_path / "out")], env=environment, stdout=subprocess.DEVNULL
    )

    def left() -> list[str]:
        infos = [each.info for each in psutil.process_iter(["cmdline", "environ", "pid"]) if each.pid != demo.pid]
        ours = [info for info in infos if (info["environ"] or {}).get("TMPDIR") == str(tmp)]
        return [" ".join(info["cmdline"] or ()) for info in ours]

    try:
        until(lambda: any("mock_workers" in line for line in left()), "a worker")
        demo.kill()
        demo.wait()
        (tmp / f"dynamo-planner-llamacpp-{demo.pid}-model").mkdir()  # as that of real llama.cpp servers
        done = subprocess.run(
            [*command, "doctor", "--yes"], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, f"demo-{demo.pid}: done" in done.stdout) == (0, True), done.stdout + done.stderr
        assert list(tmp.iterdir()) == []
        assert left() == []
    finally:
        demo.kill()
        demo.wait()
