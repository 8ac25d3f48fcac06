"""``dynamo-planner run`` with real workers under a real arbiter: reload, refusal of a bad file, and an orderly end."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.support.cli import running, until
from tests.support.run_config import config, last_step, pinned, ready


@pytest.mark.timeout(120)
def test_it_scales_by_a_reloaded_file_keeps_the_old_one_when_it_is_bad_and_ends_in_order(tmp_path: Path) -> None:
    path = tmp_path / "planner.json"
    path.write_text(json.dumps(config(tmp_path)))
    with running(path) as process:
        until(lambda: ready(tmp_path) == 1, "one worker ready")
        path.write_text(json.dumps(config(tmp_path, policy=pinned(2))))
        until(lambda: ready(tmp_path) == 2, "a second worker ready")
        path.write_text(json.dumps(config(tmp_path, policy=[{"kind": "load", "kv": 1}])))
        time.sleep(1)
        path.write_text(json.dumps(config(tmp_path, policy=pinned(1), interval_s=5)))
        time.sleep(1)
        assert ready(tmp_path) == 2
        workers = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "policy[0].kv: unknown field" in told
    assert "interval_s: takes a restart to change" in told
    assert not [pid for pid in workers if psutil.pid_exists(pid)]
    assert not (tmp_path / "state" / "run.json").exists()
    assert (tmp_path / "memory.json").exists()


def test_once_is_one_step_and_advisory_acts_on_nothing(tmp_path: Path) -> None:
    path = tmp_path / "planner.json"
    dry = {"kind": "dry_run", "pools": {"workers": {"role": "aggregated", "max_replicas": 8}}}
    path.write_text(json.dumps(config(tmp_path, policy=pinned(3), executor=dry, source={"workers": {"workers": {}}})))
    with running(path, "--once", "--advisory") as process:
        told, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "workers: 1 -> 3 replicas" in told
    step = last_step(tmp_path)
    assert step is not None
    assert (step.advisory, step.outcomes) == (True, ())


def test_more_gpus_than_there_are_is_wrong_input(tmp_path: Path) -> None:
    path = tmp_path / "planner.json"
    bad = config(tmp_path)
    bad["executor"]["pools"]["workers"]["spec"]["gpus"] = 4
    bad["executor"]["gpus"] = [0, 1]
    path.write_text(json.dumps(bad))
    with running(path, "--once") as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: executor: the pools' minimums need 4 GPUs (workers 1 x 4) and there are 2" in told
    assert not (tmp_path / "state").exists()


def test_what_cannot_start_says_so_and_exits_1_with_nothing_left(tmp_path: Path) -> None:
    path = tmp_path / "planner.json"
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a directory should be")
    bad = config(tmp_path)
    bad["executor"] = {**bad["executor"], "state_dir": str(blocked)}
    path.write_text(json.dumps(bad))
    with running(path, "--once") as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "blocked" in told
    assert "Traceback" not in told
