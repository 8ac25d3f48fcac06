"""Dynamo's own planners, timed on a series of ticks: in an interpreter of their own, which has ``ai-dynamo``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dynamo_planner import Sla

DRIVER = Path(__file__).with_name("planner_driver.py")


def timed(
    python: str, wheel_051: str | None, profile: Path, ticks: Sequence[tuple[Any, ...]], sla: Sla
) -> Iterator[tuple[str, float, float]]:
    """Version, and median and 99th percentile of the CPU milliseconds of a decision, for each version that is there."""
    for version, folder in (("1.6.1", None), ("0.5.1", wheel_051)):
        if version == "0.5.1" and folder is None:
            continue
        asked = {"version": version, "folder": folder, "profile": str(profile), "ticks": [list(tick) for tick in ticks]}
        asked |= {"ttft_ms": sla.ttft_ms, "itl_ms": sla.itl_ms}
        done = subprocess.run(
            [python, str(DRIVER)], input=json.dumps(asked), capture_output=True, text=True, timeout=900, check=False
        )
        if done.returncode:
            raise SystemExit(f"Dynamo {version} did not run in {python}:\n{done.stderr[-2000:]}")
        answer = json.loads(done.stdout.splitlines()[-1])
        yield version, answer["median_ms"], answer["p99_ms"]
