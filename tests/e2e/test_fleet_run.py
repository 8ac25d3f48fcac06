"""Several models with real processes under one budget, one loop and one log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dynamo_planner.runtime import Step, read_log
from tests.support.cli import until
from tests.support.run_config import WORKER

BUDGET = 4


def model(directory: Path, name: str, replicas: int, **more: Any) -> dict[str, Any]:
    pool = {"spec": {"role": "aggregated", "gpus": 0, "max_replicas": 3}, "command": WORKER, "graceful_timeout_s": 10}
    return {
        "policy": {"kind": "static", "replicas": {"workers": replicas}},
        "executor": {
            "kind": "circus",
            "namespace": name,
            "pools": {"workers": pool},
            "state_dir": str(directory / "state"),
        },
        "gpus": {},
        "uses": {"workers": {"slots": 1}},
        **more,
    }


def write(directory: Path, **models: Any) -> Path:
    path = directory / "fleet.json"
    data = {
        "models": models,
        "budgets": {"slots": {"total": BUDGET}},
        "interval_s": 0.3,
        "log": str(directory / "log.jsonl"),
        "state_file": str(directory / "memory.json"),
    }
    fresh = directory / "fresh.json"
    fresh.write_text(json.dumps(data))
    return fresh.replace(path)


def last(directory: Path) -> dict[str, Step]:
    log = directory / "log.jsonl"
    steps = list(read_log(log))[-6:] if log.exists() else []
    return {step.name: step for step in steps if step.at_s == steps[-1].at_s}


def ready(directory: Path) -> dict[str, int]:
    found = {name: step.snapshot.pools["workers"].replicas for name, step in last(directory).items()}
    return {name: replicas.ready for name, replicas in found.items() if replicas is not None}


def peak(directory: Path) -> int:
    """The most workers that the models of a tick had together."""
    there: dict[float, int] = {}
    for step in read_log(directory / "log.jsonl"):
        replicas = step.snapshot.pools["workers"].replicas
        own = replicas.ready + replicas.starting + replicas.draining if replicas else 0
        there[step.at_s] = there.get(step.at_s, 0) + own
    return max(there.values())


@pytest.mark.timeout(300)
def test_models_share_a_budget_and_come_and_go(tmp_path: Path) -> None:
    chat, batch = model(tmp_path, "chat", 3, priority=1), model(tmp_path, "batch", 3)
    path = write(tmp_path, chat=chat, batch=batch)
    program = str(Path(sys.executable).with_name("dynamo-planner"))
    errors = tmp_path / "errors"
    with errors.open("w") as output:
        process = subprocess.Popen([program, "run", str(path)], stdout=output, stderr=output, start_new_session=True)
    try:
        until(lambda: ready(tmp_path) == {"chat": 3, "batch": 1}, "chat first", within_s=120)
        write(tmp_path, chat=model(tmp_path, "chat", 1, priority=1), batch=batch)
        until(lambda: ready(tmp_path) == {"chat": 1, "batch": 3}, "what chat leaves", within_s=120)
        write(tmp_path, batch=batch, extra=model(tmp_path, "extra", 1, priority=2))
        until(lambda: ready(tmp_path) == {"batch": 3, "extra": 1}, "extra in place of chat", within_s=120)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, errors.read_text()
    finally:
        process.kill()
        process.wait()
    assert peak(tmp_path) <= BUDGET
    assert not list((tmp_path / "state").glob("*.json")), "all workers are gone"
