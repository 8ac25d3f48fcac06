"""What tuning knobs is worth: ``python -m benchmarks.knobs`` (``--quick`` for two profiles and three seeds).

SlaPolicy with KnobPolicy, begun at a chunk (``max_num_batched_tokens``) of 2048 and of 8192, against SlaPolicy alone at
2048, at 8192, and at the best fixed chunk in hindsight. A seed is a window of one of the recorded traces, brought to
the same mean load; all contenders serve the same requests on the same cluster. Each runs with two quantiles of
SlaPolicy, so that GPU-hours can be read off at equal attainment, and attainment at equal GPU-hours. Differences are
paired over the seeds, with 95 % intervals (Student's t). What learning costs is in the windows: a changed knob
replaces one worker after the other, which takes a minute each and is paid for.

Then the same configuration where the world is unkind: a profile that is 30 % off either way, noise, load steps,
broken metrics; against the same fleet whose knobs are left alone. Ends with 1 where the lower bound of the difference
in attainment is below -0.5 points.

Last, aggregated services that promise the worst gap between two tokens (2.5 times the ITL target) and not their mean,
with ``KnobPolicy(gap_ms=...)``. The worst gap of a request is that of the longest step of a prompt beside it on its
worker, which is how long the prompt took over the number of its chunks.

``--parts`` chooses of ``worth``, ``harm`` and ``gap``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

from benchmarks.knobs.comparing import FLOOR, report, report_dangers, report_gaps  # noqa: E402  # after the number of threads is set
from benchmarks.knobs.runs import PARTS, PROFILES, TEST_S, run, tasks  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two profiles, three seeds")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--live", action="store_true", help="as if engines took knobs while they run")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    began_s = time.monotonic()
    profiles = list(PROFILES)[:2] if options.quick else list(PROFILES)
    seeds = range(3 if options.quick else options.seeds)
    chosen = {
        part: [replace(task, live=options.live) for task in tasks(part, profiles, seeds)] for part in options.parts
    }
    with ProcessPoolExecutor(options.processes) as processes:
        every = iter(processes.map(run, list(itertools.chain(*chosen.values())), chunksize=12))
        results = {part: [next(every) for _ in own] for part, own in chosen.items()}
    lines, fine = [], True
    if "worth" in results:
        lines += [*report(results["worth"]), ""]
    if "harm" in results:
        dangers, fine = report_dangers(results["harm"])
        lines += [*dangers, ""]
    if "gap" in results:
        lines += report_gaps(results["gap"])
    text = "\n".join(lines)
    print(text)
    count = sum(map(len, results.values()))
    print(f"{count} runs of {TEST_S / 60:.0f} min in {(time.monotonic() - began_s) / 60:.1f} min")
    if options.markdown:
        options.markdown.write_text(text + "\n")
    if options.json:
        told = [asdict(result) for own in results.values() for result in own]
        options.json.write_text(json.dumps(told, indent=1))
    if not fine:
        print(f"attainment may fall by more than {-100 * FLOOR:g} points where knobs are tuned", file=sys.stderr)
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
