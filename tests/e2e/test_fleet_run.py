"""Several models with real processes under one budget, one loop and one log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dynamo_planner.executors.circus.inspection import inspect
from dynamo_planner.runtime import Step, read_log
from tests.support.cli import planner, running, until
from tests.support.fleet_clients import FleetClients
from tests.support.run_config import WORKER

BUDGET = 4


def model(directory: Path, name: str, replicas: int, **more: Any) -> dict[str, Any]:
    spec = {"role": "aggregated", "gpus": 0, "max_replicas": 3}
    pool = {"spec": spec, "command": WORKER, "graceful_timeout_s": 10, **more.pop("pool", {})}
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


def count_steps(directory: Path) -> int:
    return len(list(read_log(directory / "log.jsonl")))


def targets(directory: Path, name: str) -> list[int]:
    """The targets that a model was given, from its first on."""
    steps = [step.decision.targets for step in read_log(directory / "log.jsonl") if step.name == name]
    return [own["workers"] for own in steps if "workers" in own]


def pids(directory: Path, name: str) -> list[int]:
    workers = inspect(name, directory / "state").workers
    return [worker.pid for worker in workers if worker.state == "ready" and worker.pid is not None]


def fails_once(directory: Path) -> list[str]:
    """The command of a worker whose first start fails."""
    tried = directory / "tried"
    return ["sh", "-c", f'if [ ! -e {tried} ]; then touch {tried}; exit 1; fi; exec "$@"', "worker", *WORKER]


@pytest.mark.timeout(300)
def test_no_request_is_lost_while_workers_starts_and_the_planner_fail(tmp_path: Path) -> None:
    """Two models under load, of which one has a floor, and a third that is added; never more than the budget."""
    chat, batch = model(tmp_path, "chat", 3, priority=1), model(tmp_path, "batch", 3, floor={"slots": 1})
    extra = model(tmp_path, "extra", 1, priority=2, pool={"command": fails_once(tmp_path)})
    path, full = write(tmp_path, chat=chat, batch=batch), {"chat": 3, "batch": 1}
    shared = {"chat": 2, "batch": 1, "extra": 1}
    clients = FleetClients(["chat", "batch"], tmp_path / "state")
    try:
        with ExitStack() as planners:
            with clients:
                process = planners.enter_context(running(path))
                until(lambda: ready(tmp_path) == full, "chat first, but for the floor", within_s=90)
                until(lambda: all(clients.answered[name] for name in full), "answers")
                os.kill(pids(tmp_path, "chat")[0], signal.SIGKILL)
                until(lambda: ready(tmp_path).get("chat", 3) < 3, "the loss of a worker", within_s=60)
                until(lambda: ready(tmp_path) == full, "a worker in its place", within_s=60)
                write(tmp_path, chat=chat, batch=batch, extra=extra)
                until(lambda: ready(tmp_path) == shared, "one more model, at the second try", within_s=90)
                kept = {name: pids(tmp_path, name) for name in shared}
                process.kill()
                process.wait()
                steps, answered = count_steps(tmp_path), clients.answered.copy()
                until(lambda: all(clients.answered[name] > answered[name] for name in full), "answers without planner")
                process = planners.enter_context(running(path))
                until(lambda: count_steps(tmp_path) > steps and ready(tmp_path) == shared, "it goes on", within_s=90)
                assert {name: pids(tmp_path, name) for name in shared} == kept, "the workers are adopted"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert not list((tmp_path / "state").glob("*.json")), "all workers are gone"
    finally:
        for left in (tmp_path / "state").glob("*.json"):
            planner("stop", left.stem, "--state-dir", tmp_path / "state")
    assert clients.lost == []
    assert (tmp_path / "tried").exists()
    assert peak(tmp_path) <= BUDGET
    assert min(targets(tmp_path, "batch")) >= 1, "the floor"
