"""The crash campaign: planners and arbiters are killed, and after each kill the next start must make all whole again.

From the root of the repository: ``python -m tests.long.crash_campaign``. Each kill cuts short a planner that starts
five workers on eight GPUs, drains three, and closes: at its crash points (before and after every state write, arbiter
command and signal, at passes spread over its story), at random times, and by way of its arbiter, with the planner going
on or killed as well. Then a new planner starts, and process table, state file and the arbiter's list are compared: no
orphan, no GPU twice, the wanted workers; after its close nothing is left.

Exits with 1 where one kill was not mended.
"""

from __future__ import annotations

import argparse
import io
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace

from dynamo_planner.executors import ExecutorError
from tests.support.circus.campaign import Kill, carry_out, place_of_its_own
from tests.support.circus.crash import POINTS, crash_points
from tests.support.circus.planner_program import main as story
from tests.support.circus.recovery import GPUS, STEPS, pools_of

ATTEMPTS = 5
"""How often a kill that came too late is tried again, earlier each time."""


@dataclass
class Row:
    """What became of the kills of one kind."""

    kills: int = 0
    mended: int = 0
    seconds: list[float] = field(default_factory=list)


def measured() -> tuple[Counter[str], float]:
    """How often an undisturbed story comes by each crash point, and how many seconds it takes."""
    with place_of_its_own() as place, crash_points() as passed, redirect_stdout(io.StringIO()):
        given = {"namespace": place.namespace, "state_dir": str(place.state_dir), "tmp": str(place.tmp)}
        pools = {name: pool.model_dump(mode="json") for name, pool in pools_of(place).items()}
        began = time.monotonic()
        story({**given, "gpus": GPUS, "steps": STEPS, "pools": pools})
        return passed, time.monotonic() - began


def at_points(count: int, passes: Counter[str]) -> Iterator[Kill]:
    """Kills at all crash points in turn, at passes from the first to the last."""
    each = -(-count // len(POINTS))
    for number in range(count):
        turn, position = divmod(number, len(POINTS))
        where = POINTS[position]
        passed = 1 + round(turn * (passes[where] - 1) / max(each - 1, 1))
        yield Kill("planner", point=f"{where}:{passed}")


def at_random(count: int, lasts_s: float, chance: random.Random) -> Iterator[Kill]:
    """Kills of the planner at any time of its story."""
    for _ in range(count):
        yield Kill("planner", after_s=chance.uniform(0, lasts_s))


def of_arbiters(count: int, lasts_s: float, chance: random.Random) -> Iterator[Kill]:
    """Kills of the arbiter at any time; every other one takes the planner along a little later."""
    for number in range(count):
        after_s = chance.uniform(0, 0.8 * lasts_s)
        yield Kill("arbiter", after_s=after_s, planner_after_s=chance.uniform(0, 0.5) if number % 2 else None)


def sooner(kill: Kill) -> Kill:
    """The same kill, at an earlier time."""
    if kill.point is None:
        return replace(kill, after_s=0.7 * kill.after_s)
    where, _, passed = kill.point.partition(":")
    return replace(kill, point=f"{where}:{max(int(passed) - 1, 1)}")


def kind(kill: Kill) -> str:
    """The row that a kill belongs to."""
    if kill.point is not None:
        return kill.point.partition(":")[0]
    if kill.victim == "planner":
        return "planner at random"
    return "arbiter, planner goes on" if kill.planner_after_s is None else "arbiter and planner"


def run(kills: list[Kill]) -> dict[str, Row]:
    """Carry the kills out, one after the other, telling of each that is not mended."""
    rows: dict[str, Row] = defaultdict(Row)
    for number, planned in enumerate(kills, start=1):
        kill, row = planned, rows[kind(planned)]
        began = time.monotonic()
        try:
            for _ in range(ATTEMPTS):
                with place_of_its_own() as place:
                    if carry_out(place, kill):
                        row.kills += 1
                        row.mended += 1
                        break
                kill = sooner(kill)
        except (AssertionError, ExecutorError, subprocess.TimeoutExpired) as error:
            row.kills += 1
            print(f"NOT MENDED: {kill}: {type(error).__name__}: {error}", flush=True)
        row.seconds.append(time.monotonic() - began)
        print(f"{number}/{len(kills)} {kill}: {row.seconds[-1]:.1f} s", file=sys.stderr, flush=True)
    return rows


def main() -> int:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(description="Kill planners and arbiters, and see whether the next start mends it.")
    parser.add_argument("--planner", type=int, default=100, help="kills of the planner at crash points")
    parser.add_argument("--random", type=int, default=20, help="kills of the planner at random times")
    parser.add_argument("--arbiter", type=int, default=20, help="kills of the arbiter at random times")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    passes, lasts_s = measured()
    print(f"an undisturbed story takes {lasts_s:.1f} s; passes: {dict(passes)}; seed {asked.seed}", flush=True)
    kills = [
        *at_points(asked.planner, passes),
        *at_random(asked.random, lasts_s, chance),
        *of_arbiters(asked.arbiter, lasts_s, chance),
    ]
    rows = run(kills)
    print(f"{'killed':<26}{'kills':>6}{'mended':>8}{'mean s':>8}{'most s':>8}")
    for name, row in rows.items():
        mean_s = sum(row.seconds) / len(row.seconds)
        print(f"{name:<26}{row.kills:>6}{row.mended:>8}{mean_s:>8.1f}{max(row.seconds):>8.1f}")
    total, mended = (sum(getattr(row, name) for row in rows.values()) for name in ("kills", "mended"))
    print(f"{'all':<26}{total:>6}{mended:>8}")
    return 0 if mended == total == len(kills) else 1


if __name__ == "__main__":
    raise SystemExit(main())
