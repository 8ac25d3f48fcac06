"""A planner in a process of its own, to be killed: starts, scales up and down, and ends, saying before each step what
the targets may be from then on.

Its argument is a JSON object: ``namespace``, ``state_dir``, ``tmp``, ``pools`` and ``gpus`` for the executor, and
``steps``: ``start``, ``close``, ``stay``, targets by pool, or knobs of a pool (``{"decode.max_num_seqs": 4}``).
``crash_at`` is the point where it dies, as :mod:`tests.support.circus.crash` has them.
"""

# ruff: noqa: T201

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

from dynamo_planner import Action, ScaleTo, SetKnob
from dynamo_planner.executors.circus import CircusExecutor, CircusPool
from tests.support.circus.crash import crash_points


def main(given: dict[str, Any]) -> None:
    """Take the steps."""
    tempfile.tempdir = given["tmp"]
    pools = {name: CircusPool.model_validate(pool) for name, pool in given["pools"].items()}
    executor = CircusExecutor(given["namespace"], pools, state_dir=given["state_dir"], gpus=given["gpus"])
    for step in given["steps"]:
        print(json.dumps(step), flush=True)
        if step == "start":
            executor.start()
        elif step == "close":
            executor.close()
        elif step == "stay":
            while True:
                executor.observe()
                time.sleep(0.05)
        else:
            executor.apply([_action(*entry) for entry in step.items()])
        while step != "close" and not _settled(executor):
            time.sleep(0.02)
    print('"done"', flush=True)


def _action(what: str, value: int) -> Action:
    pool, _, knob = what.partition(".")
    return SetKnob(pool=pool, knob=knob, value=value) if knob else ScaleTo(pool=pool, replicas=value)


def _settled(executor: CircusExecutor) -> bool:
    return all(seen and seen.ready == seen.target and not seen.draining for seen in executor.observe().values())


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    with crash_points(arguments["crash_at"]):
        main(arguments)
