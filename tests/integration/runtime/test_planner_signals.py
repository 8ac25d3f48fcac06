"""A planner in a process of its own, and signals to it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from dynamo_planner.runtime.decision_log import read_log
from tests.support.paths import ROOT

LOOP = textwrap.dedent("""
    import sys, time
    sys.path.insert(0, sys.argv[1])
    from tests.support.loop_parts import Climbing, Cluster, Metrics
    from dynamo_planner.runtime.planner import Planner

    class Unhurried(Metrics):
        def observe(self, at_s):
            print("looking", flush=True)
            time.sleep(0.3)
            return super().observe(at_s)

    planner = Planner(Climbing(), Unhurried(), Cluster(), interval_s=0.4, log=sys.argv[2], state_file=sys.argv[3])
    planner.run()
    print("ended in good order", flush=True)
""")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_a_signal_ends_a_process_after_its_step_and_a_restart_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    log, state = tmp_path / "decisions.jsonl", tmp_path / "state.json"
    command = [sys.executable, "-c", LOOP, str(ROOT), str(log), str(state)]
    for run in (1, 2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "looking\n"
                process.send_signal(number)
                rest, _ = process.communicate(timeout=60)
            finally:
                process.kill()
        assert (process.returncode, rest) == (0, "ended in good order\n")
        assert [step.decision.targets["workers"] for step in read_log(log)] == list(range(1, run + 1))
    assert log.stat().st_mode & 0o777 == state.stat().st_mode & 0o777 == 0o600


def test_a_second_signal_ends_a_process_at_once(tmp_path: Path) -> None:
    endless = LOOP.replace("time.sleep(0.3)", "time.sleep(100)")
    command = [
        sys.executable,
        "-c",
        endless,
        str(ROOT),
        str(tmp_path / "log"),
        str(tmp_path / "state"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "looking\n"
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            assert process.poll() is None
            # Of two signals that are pending at once the system keeps one: the first may not have been handled yet.
            while process.poll() is None:
                process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
            assert process.returncode == -signal.SIGTERM
        finally:
            process.kill()
