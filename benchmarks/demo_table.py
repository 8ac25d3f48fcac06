"""The demo's table on several seeds, aggregated and disaggregated: ``python -m benchmarks.demo_table``.

Every policy runs in the simulator, on the requests and the engines of ``dynamo-planner demo``. A row is one seed in one
mode: the share of requests in time and the worker-seconds of SlaPolicy, of LoadPolicy, of the constant that suits the
mean, and of the cheapest constant that keeps the promise. Exits with 1 where SlaPolicy does not keep it or is not
cheaper than the latter.
"""

from __future__ import annotations

import argparse
import sys

from dynamo_planner.demo.comparison import Simulation
from dynamo_planner.demo.scenario import generated
from dynamo_planner.demo.simulated import simulated_stage

MAX_WORKERS = 6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    failed = False
    print("| mode, seed | SlaPolicy | LoadPolicy | constant of the mean | constant of the peak | saved |")
    print("|---|---|---|---|---|---|")
    seeds = range(parser.parse_args().seeds)
    for mode in ("aggregated", "disaggregated"):
        for seed in seeds:
            scenario = generated(seed)
            stage = simulated_stage(scenario.requests, MAX_WORKERS, disaggregated=mode == "disaggregated")
            outcomes = Simulation(stage, scenario.length_s).outcomes()
            sla, peak = outcomes[0], outcomes[-1]
            cells = [f"{each.attainment:.1%}, {each.worker_s:.0f} s" for each in outcomes]
            print(f"| {mode}, {seed} | {' | '.join(cells)} | {1 - sla.worker_s / peak.worker_s:.0%} |", flush=True)
            failed |= sla.attainment < stage.sla.attainment or sla.worker_s >= peak.worker_s
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
