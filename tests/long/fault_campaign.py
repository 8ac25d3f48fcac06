"""The fault campaign of a local service: many seeds, each with three random troubles at random times.

From the root of the repository: ``python -m tests.long.fault_campaign --seeds 200 --log faults.jsonl``. A seed
repeats a run; those in the log already are left out, so that a campaign that was interrupted goes on. Exits with 1
where one was not mended.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from dynamo_planner.executors import ExecutorError
from tests.support.circus.campaign import place_of_its_own
from tests.support.circus.faults import campaign


def main() -> int:
    """Run the seeds that are not in the log."""
    parser = argparse.ArgumentParser(description="Three random troubles, and see whether the planner mends them.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--log", type=Path, default=Path("faults.jsonl"))
    asked = parser.parse_args()
    lines = asked.log.read_text().splitlines() if asked.log.exists() else []
    rows = {row["seed"]: row for row in map(json.loads, lines)}
    for seed in range(asked.first, asked.first + asked.seeds):
        if seed in rows:
            continue
        began_s = time.monotonic()
        row: dict[str, Any] = {"seed": seed}
        try:
            with place_of_its_own() as place:
                row["troubles"], row["whole_after_s"] = campaign(place, seed)
        except (AssertionError, ExecutorError) as error:
            row["error"] = f"{type(error).__name__}: {error}"
        rows[seed] = row | {"took_s": round(time.monotonic() - began_s, 1)}
        with asked.log.open("a") as log:
            log.write(json.dumps(rows[seed]) + "\n")
        sys.stderr.write(f"{json.dumps(rows[seed])}\n")
    failed = [seed for seed, row in rows.items() if "error" in row]
    print(f"{len(rows)} runs, {len(failed)} not mended: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
