"""The story of a planner that a kill cuts short, and what must be whole after the next start."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from dynamo_planner.executors.circus import CircusExecutor, CircusPool
from dynamo_planner.executors.circus.client import ArbiterClient
from tests.support.circus.place import Place
from tests.support.paths import ROOT

STEPS = ("start", {"decode": 3, "prefill": 2}, {"decode": 1, "prefill": 1}, "close")
GPUS = list(range(8))


def pools_of(place: Place) -> dict[str, CircusPool]:
    return {"decode": place.pool(gpus=2, drain_s=0.1), "prefill": place.pool(gpus=1)}


def run_planner(
    place: Place,
    steps: Any = STEPS,
    crash_at: str | None = None,
    pools: Mapping[str, CircusPool] | None = None,
) -> subprocess.Popen[str]:
    pools = pools_of(place) if pools is None else pools
    given = {
        "namespace": place.namespace,
        "state_dir": str(place.state_dir),
        "tmp": str(place.tmp),
        "gpus": GPUS,
        "steps": steps,
        "crash_at": crash_at,
        "pools": {name: pool.model_dump(mode="json") for name, pool in pools.items()},
    }
    program = [sys.executable, "-m", "tests.support.circus.planner_program", json.dumps(given)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def arbiters_list(place: Place) -> set[str]:
    endpoint = json.loads(place.file.read_text())["arbiter"]["endpoint"]
    client = ArbiterClient(endpoint)
    watchers = set(client.call("list")["watchers"])
    client.close()
    return watchers


def check_is_whole(place: Place, executor: CircusExecutor) -> dict[str, int]:
    """What runs, what is written and what the arbiter has agree; returns the targets."""
    seen = {name: found for name, found in executor.observe().items() if found}
    targets = {name: found.target for name, found in seen.items()}
    place.settled(executor, **targets)
    infos = executor.workers()
    assert sorted(info.pid or 0 for info in infos) == place.worker_pids(), "an orphan, or one too few"
    gpus = [gpu for info in infos for gpu in info.gpus]
    assert len(set(gpus)) == len(gpus) == 2 * targets["decode"] + targets["prefill"], "a GPU twice"
    assert arbiters_list(place) <= {info.name for info in infos}, "a watcher of nobody"
    place.arbiter_pid()
    return targets


ALLOWED: dict[str, list[dict[str, int]]] = {
    "start": [{"decode": 1, "prefill": 1}],
    json.dumps(STEPS[1]): [{"decode": d, "prefill": p} for d in (1, 3) for p in (1, 2)],
    json.dumps(STEPS[2]): [{"decode": d, "prefill": p} for d in (1, 3) for p in (1, 2)],
    "close": [{"decode": 1, "prefill": 1}],
}
