"""A run configuration with simulated workers under Circus, and what its decision log says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dynamo_planner.runtime.decision_log import Step, read_log

WORKER = [
    sys.executable,
    "-m",
    "dynamo_planner.mock_workers.main",
    "--port",
    "{port}",
    "--role",
    "aggregated",
    "--model",
    "simulated",
]


def config(directory: Path, **changes: Any) -> dict[str, Any]:
    pool = {"spec": {"role": "aggregated", "gpus": 0, "max_replicas": 3}, "command": WORKER, "graceful_timeout_s": 10}
    return {
        "policy": [{"kind": "load", "adjustment_interval_s": 3600}],
        "executor": {
            "kind": "circus",
            "namespace": "run",
            "pools": {"workers": pool},
            "state_dir": str(directory / "state"),
        },
        "interval_s": 0.3,
        "log": str(directory / "log.jsonl"),
        "state_file": str(directory / "memory.json"),
        **changes,
    }


def pinned(replicas: int) -> list[Any]:
    pin = {"pool": "workers", "replicas": replicas, "until_s": 4e9, "reason": "a test"}
    return [{"kind": "load", "adjustment_interval_s": 3600}, {"kind": "override", "pins": [pin]}]


def last_step(directory: Path) -> Step | None:
    steps = list(read_log(directory / "log.jsonl")) if (directory / "log.jsonl").exists() else []
    return steps[-1] if steps else None


def ready(directory: Path) -> int:
    step = last_step(directory)
    replicas = step.snapshot.pools["workers"].replicas if step and "workers" in step.snapshot.pools else None
    return replicas.ready if replicas else 0
