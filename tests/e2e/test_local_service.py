"""The systemd unit of ``examples/local``: it verifies, and what it starts reports itself and drains at the end."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.support.cli import until
from tests.support.paths import EXAMPLES
from tests.support.run_config import WORKER

LOCAL = EXAMPLES / "local"
PROGRAM = Path(sys.executable).with_name("dynamo-planner")


def installed(directory: Path) -> dict[str, str]:
    """The unit as installed below a directory, and its settings; the workers are simulated."""
    config = yaml.safe_load((LOCAL / "planner.yaml").read_text())
    pool = config["executor"]["pools"]["workers"]
    pool["spec"]["gpus"], pool["command"], config["monitoring"]["port"] = 0, WORKER, 0
    config["interval_s"] = 0.3
    (directory / "planner.yaml").write_text(yaml.safe_dump(config))
    unit = (
        (LOCAL / "dynamo-planner.service")
        .read_text()
        .replace("/opt/dynamo-planner/bin/dynamo-planner", str(PROGRAM))
        .replace("/etc/dynamo-planner", str(directory))
        .replace("/var/lib/dynamo-planner", str(directory))
    )
    (directory / "dynamo-planner.service").write_text(unit)
    return dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    installed(tmp_path)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "dynamo-planner.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    about_it = [line for line in done.stderr.splitlines() if "dynamo-planner.service" in line]
    assert (done.returncode, about_it) == (0, []), done.stderr


@pytest.mark.timeout(240)
def test_what_the_unit_starts_is_ready_reloads_and_drains(tmp_path: Path) -> None:
    settings = installed(tmp_path)
    with tempfile.TemporaryDirectory(prefix="dp") as short, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{short}/notify")
        manager.settimeout(0.1)
        name, _, value = settings["Environment"].partition("=")
        environment = {**os.environ, name: value, "NOTIFY_SOCKET": f"{short}/notify"}
        validated = subprocess.run(
            shlex.split(settings["ExecStartPre"]), env=environment, capture_output=True, check=False
        )
        assert validated.returncode == 0, validated.stderr
        reports: list[str] = []

        def reported(line: str) -> bool:
            try:
                reports.extend(manager.recv(4096).decode().splitlines())
            except TimeoutError:
                return False
            return line in reports

        started = subprocess.Popen(
            shlex.split(settings["ExecStart"]), env=environment, cwd=tmp_path, start_new_session=True
        )
        try:
            until(lambda: reported("STATUS=replicas ready: workers 1 of 1"), "a ready worker", within_s=90)
            assert {"READY=1", "WATCHDOG=1"} <= set(reports)
            started.send_signal(signal.SIGHUP)
            until(lambda: reported("RELOADING=1"), "reloading")
            started.send_signal(signal.SIGTERM)
            until(lambda: reported("STOPPING=1"), "stopping")
            assert started.wait(30) == 0
        finally:
            started.kill()
            started.wait()
    assert not (tmp_path / "llama.json").exists(), "all workers are gone"
