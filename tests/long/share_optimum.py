"""Shares against the optimum of many small instances: ``python -m tests.long.share_optimum [--instances N]``.

Each instance is two to four models of one or two pools, with sizes of 0 to 4 GPUs, one to three budgets, some with node
sizes, floors, weights and priorities. The optimum is found by trying every choice. Exits with 1 where a share is worth
less, exceeds a budget or leaves a floor unserved.
"""

from __future__ import annotations

import argparse
import sys

from dynamo_planner.fleet import share
from tests.support.share_instances import instance, problem_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=2000)
    problems = 0
    for seed in range(parser.parse_args().instances):
        claims, budgets = instance(seed)
        if problem := problem_of(claims, budgets, share(claims, budgets, margin=0.0)):
            problems += 1
            print(f"instance {seed}: {problem}")
    print(f"{problems} shares differ from the optimum")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
