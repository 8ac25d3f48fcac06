"""Our policies and Dynamo's own planner in Dynamo's own simulator: ``python -m benchmarks.arena_dynamo``.

Three set-ups (``peers/setups.py``), start-up 60 s, the same requests, engines, targets and start for every row. The
decisions of Dynamo are those of ai-dynamo 1.6.1, unchanged. Ends with 1 where SlaPolicy, with one setting for all, has
less than 97 % of the requests in time, or takes more than 1.15 times the GPU-hours that hindsight does.

Needs an environment of its own, which ``--python`` or ``ARENA_PYTHON`` names:

    python3.11 -m venv DIR && DIR/bin/pip install --no-deps -r benchmarks/peers/arena-requirements.txt
    python -m benchmarks.arena_dynamo --python DIR/bin/python
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers.setups import SETUPS
from benchmarks.peers.simulator import write_mooncake

ROOT = Path(__file__).resolve().parents[1]
SLA_OPTIONS = {
    "attainment": 0.985,
    "plan": {"quantile": 0.92, "restart_cost": 1.0},
    "capacity": {"max_correction": 1.2},
}
"""The one setting of SlaPolicy."""

LEAST_JOINT, MOST_RATIO = 0.97, 1.15


def _dynamo_sla(load: bool, predictor: str, interval_s: int = 60) -> dict[str, Any]:
    return {
        "dynamo": {
            "optimization_target": "sla",
            "enable_throughput_scaling": True,
            "enable_load_scaling": load,
            "load_predictor": predictor,
            "throughput_adjustment_interval_seconds": interval_s,
        }
    }


ROWS: dict[str, dict[str, Any]] = {
    "SlaPolicy": {"policy": "sla", "options": SLA_OPTIONS},
    "SlaPolicy, defaults": {"policy": "sla_defaults"},
    "LoadPolicy": {"policy": "load", "options": {"adjustment_interval_s": 60}},
    "LoadPolicy, sla": {"policy": "load", "options": {"targets": True}},
    "plain law 1.6, 1.0, 240 s": {"policy": "plain"},
    "plain law 2.2, 1.2, 600 s": {
        "policy": "plain",
        "options": {"prefill_factor": 2.2, "decode_factor": 1.2, "hold_s": 600},
    },
    "Dynamo easy": {"dynamo": {"optimization_target": "throughput"}},
    "Dynamo SLA, constant": _dynamo_sla(False, "constant"),
    "Dynamo SLA, ARIMA": _dynamo_sla(False, "arima"),
    "Dynamo SLA + load, constant": _dynamo_sla(True, "constant"),
    "Dynamo SLA + load, ARIMA": _dynamo_sla(True, "arima"),
    "constant, by hindsight": {"policy": "constant"},
}
HEADER = (
    f"  {'':28} {'joint':>6} {'TTFT':>6} {'ITL':>6} {'TTFT p50/p90/p99 s':>20} {'GPU-h':>6} {'mean P/D':>11} "
    f"{'events':>6} {'ratio':>5}"
)


def line(name: str, score: dict[str, Any]) -> str:
    ttft = " / ".join(f"{value / 1000:.1f}" for value in score["ttft_ms"])
    shares = " ".join(f"{score[share]:6.3f}" for share in ("joint", "ttft", "itl"))
    mean = f"{score['prefill']:.1f} {score['decode']:.1f}"
    cost = f"{score['gpu_hours']:6.1f} {mean:>11} {score['events']:6} {score['ratio']:5.2f}"
    return f"  {name:28} {shares} {ttft:>20} {cost}"


def play(python: str, scratch: Path, name: str, row: str, shared: dict[str, Any]) -> dict[str, Any]:
    """One row in one set-up, in a process of its own."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    job = {**shared, "setup": name, "row": ROWS[row], "scratch": str(place), "out": str(place / "scores.json")}
    (place / "job.json").write_text(json.dumps(job))
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "DYN_LOG": "error"}
    command = [python, "-m", "benchmarks.peers.closed_loop", str(place / "job.json")]
    began_s = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **one_thread}, check=False, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{row} in {name} failed:\n{done.stderr[-3000:]}")
    score: dict[str, Any] = json.loads((place / "scores.json").read_text())
    score["ratio"] = score["gpu_hours"] / SETUPS[name].hindsight_gpu_hours
    print(f"{name}, {time.monotonic() - began_s:.0f} s:{line(row, score)}", file=sys.stderr, flush=True)
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=os.environ.get("ARENA_PYTHON"), help="the interpreter with ai-dynamo 1.6.1")
    parser.add_argument("--setups", nargs="+", default=list(SETUPS), choices=list(SETUPS), metavar="NAME")
    parser.add_argument("--rows", nargs="+", default=["*"], metavar="PATTERN", help="rows by name: 'Sla*' 'Dynamo*'")
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time")
    parser.add_argument("--seconds", type=float, help="only so much of each window; ratios then mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores, to compare a later run with")
    arguments = parser.parse_args()
    if not arguments.python:
        parser.error("which interpreter has ai-dynamo 1.6.1? --python or ARENA_PYTHON (--help says how to make one)")
    rows = [row for row in ROWS if any(fnmatch.fnmatch(row, pattern) for pattern in arguments.rows)]
    if not rows:
        parser.error(f"no row is named so; the rows are {', '.join(ROWS)}")
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(arguments.jobs) as workers:
        scores: dict[str, dict[str, Any]] = {}
        for name in arguments.setups:
            trace = SETUPS[name].requests(arguments.seconds)
            path = Path(scratch) / f"{name}.jsonl"
            write_mooncake(trace, path)
            shared = {"trace": str(path), "requests": len(trace), "last_s": float(trace.arrival_s[-1])}
            played = [workers.submit(play, arguments.python, Path(scratch), name, row, shared) for row in rows]
            scores[name] = {row: future.result() for row, future in zip(rows, played, strict=True)}
            setup = SETUPS[name]
            print(f"\n{name}: {len(trace)} requests, TTFT {setup.ttft_ms:g} ms, ITL {setup.itl_ms:g} ms", end="")
            print(f", hindsight {setup.hindsight_gpu_hours} GPU-hours\n{HEADER}")
            for row, score in scores[name].items():
                print(line(row, score), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(scores, indent=1))
    ours = {name: rows["SlaPolicy"] for name, rows in scores.items() if "SlaPolicy" in rows}
    missed = [n for n, score in ours.items() if score["joint"] < LEAST_JOINT or score["ratio"] > MOST_RATIO]
    if missed:
        sys.exit(f"\nSlaPolicy misses {LEAST_JOINT:.0%} in time at {MOST_RATIO} x hindsight in: {', '.join(missed)}")


if __name__ == "__main__":
    main()
