"""The status page in a real Chromium: its style is let in by its own policy, and nothing else is."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from dynamo_planner import Decision, PoolSpec, PoolStatus, Reason, Snapshot, Traffic
from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.status_page import Monitor, page

MISSING = "Chromium is not installed (Debian: apt-get install chromium)"


@pytest.fixture
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI"):
        pytest.fail(MISSING)
    if found is None:
        pytest.skip(MISSING)
    return found


@pytest.fixture
def monitor() -> Monitor:
    found = Monitor(10)
    for at_s in range(0, 600, 10):
        pool = PoolStatus(spec=PoolSpec(role="decode", gpus=2), replicas=3)
        snapshot = Snapshot(at_s=at_s, traffic=Traffic(requests_per_s=at_s / 60), pools={"decode": pool})
        reasons = [
            Reason(code="PromiseKept", message="kept", values={"attained": 0.995, "promised": 0.99}),
            Reason(code="DemandForecast", pool="decode", message="<img src=x onerror=document.title='run'>"),
        ]
        decision = Decision(at_s=at_s, targets={"decode": 3}, reasons=reasons)
        found.record(Step(at_s=at_s, name="llama", snapshot=snapshot, decision=decision))
    return found


def run(chromium: str, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [
        chromium,
        "--headless",
        "--no-sandbox",  # the tests may run as root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        *flags,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


def test_the_page_is_shown_as_it_is_meant(chromium: str, monitor: Monitor, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    with page("127.0.0.1", 0, monitor) as url:
        dom = run(chromium, tmp_path / "dom", "--dump-dom", url)
        shot = run(chromium, tmp_path / "shot", f"--screenshot={picture}", "--window-size=420,900", url)
    assert "<title>llama</title>" in dom.stdout, dom.stderr
    assert dom.stdout.count("<polyline") == 4, "arrivals, the share in time, ready and wanted replicas"
    assert "Content Security Policy" not in dom.stderr + shot.stderr
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert (width, height) == (420, 900)
