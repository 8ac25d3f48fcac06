"""SIGHUP to ``dynamo-planner run``, and a terminal that is closed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import until
from tests.support.run_config import config, last_step

CONTROLLED = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""Takes its standard input as the controlling terminal and becomes the command."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    dry = {"kind": "dry_run", "pools": {"workers": {"role": "aggregated"}}}
    path = tmp_path / "planner.json"
    path.write_text(json.dumps(config(tmp_path, executor=dry, source={"workers": {"workers": {}}})))
    return path


def test_sighup_reloads_and_a_closed_terminal_ends_in_good_order(tmp_path: Path, path: Path) -> None:
    terminal, theirs = pty.openpty()
    errors = tmp_path / "errors"
    program = str(Path(sys.executable).with_name("dynamo-planner"))
    command = [sys.executable, "-c", CONTROLLED, sys.executable, program, "run", str(path)]
    with errors.open("w") as output:
        process = subprocess.Popen(command, stdin=theirs, stdout=output, stderr=output, start_new_session=True)
    os.close(theirs)
    try:
        until(lambda: last_step(tmp_path), "a first step")
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGHUP)
        until(lambda: f"{path} is reloaded" in errors.read_text(), "reloaded, though it has not changed")
        assert process.poll() is None
        os.close(terminal)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_sighup_without_anything_to_reload_ends_a_loop(tmp_path: Path) -> None:
    loop = (
        "from tests.support.loop_parts import Cluster, Metrics, per_ten\n"
        "from dynamo_planner import Planner\n"
        "Planner(per_ten, Metrics(), Cluster(), interval_s=0.2, log='log.jsonl').run()\n"
        "print('in good order')"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(
        [sys.executable, "-c", loop], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        until((tmp_path / "log.jsonl").exists, "a first step")
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, b"in good order\n")
    finally:
        process.kill()
        process.wait()
