"""What importing dynamo_planner costs, beside importing numpy and defining one pydantic model.

Processor time in fresh interpreters, interleaved so that noise hits both alike; medians of 15. Fails where the ratio
is over 1.25, or where the import pulls in what it must not: scipy, or the package of an extra.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

RUNS, MOST = 15, 1.25

FORBIDDEN = (
    "scipy",
    "circus",
    "kubernetes",
    "matplotlib",
    "hypothesis",
    "prometheus_client",
    "aiohttp",
    "typer",
    "yaml",
)

BASELINE = "import numpy, pydantic\nclass Model(pydantic.BaseModel):\n    value: int = 0"

IMPORT = "import dynamo_planner"

DECISION = """
from dynamo_planner import GpuBudget, LoadPolicy, PoolSpec, PoolStatus, Snapshot, Stabilization, Traffic
pool = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=2, queued=3, kv_usage=0.7)
policy = LoadPolicy() | Stabilization() | GpuBudget(max_gpus=8)
policy.decide(Snapshot(at_s=0, traffic=Traffic(requests_per_s=4), pools={"workers": pool}))
"""

MEASURED = """
import json, resource, sys, time
start = time.process_time()
exec(sys.argv[1])
took_s = time.process_time() - start
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"s": took_s, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "loaded": loaded}))
"""


def measure(code: str) -> dict[str, float | list[str]]:
    """Run code in a fresh interpreter: seconds, peak MiB, and the packages that it loaded."""
    done = subprocess.run([sys.executable, "-c", MEASURED, code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main() -> int:
    cases = {
        "numpy + one pydantic model": BASELINE,
        "import dynamo_planner": IMPORT,
        "... to the first decision": DECISION,
    }
    runs: dict[str, list[dict[str, float | list[str]]]] = {name: [] for name in cases}
    for _ in range(RUNS):
        for name, code in cases.items():
            runs[name].append(measure(code))
    medians = {name: statistics.median(float(run["s"]) for run in of) for name, of in runs.items()}  # type: ignore[arg-type]
    for name, of in runs.items():
        peak = max(float(run["mib"]) for run in of)  # type: ignore[arg-type]
        print(f"{name:28s} {1e3 * medians[name]:7.1f} ms   peak {peak:6.1f} MiB")
    ratio = medians["import dynamo_planner"] / medians["numpy + one pydantic model"]
    unwanted = sorted(set(FORBIDDEN) & set(runs["import dynamo_planner"][0]["loaded"]))  # type: ignore[arg-type]
    print(f"ratio {ratio:.2f} (at most {MOST}); loaded that must not be: {', '.join(unwanted) or 'nothing'}")
    return int(ratio > MOST or bool(unwanted))


if __name__ == "__main__":
    sys.exit(main())
