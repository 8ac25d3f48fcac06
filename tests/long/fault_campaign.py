"""The fault campaign of a local service or of a graph: many seeds, each with three random troubles at random times.

From the root of the repository: ``python -m tests.long.fault_campaign --seeds 200 --log faults.jsonl``, and with
``--graph`` on a real API server, of which :mod:`tests.support.kubernetes.graph_faults` tells what is a stand-in. A seed
repeats a run; those in the log already are left out, so that a campaign that was interrupted goes on. Exits with 1
where one was not mended.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dynamo_planner.executors import ExecutorError
from tests.support.circus.campaign import place_of_its_own
from tests.support.circus.faults import campaign

Campaign = Callable[[int], tuple[list[str], float]]
"""One run of a seed: its troubles, and the seconds until all was whole again."""


def local(seed: int) -> tuple[list[str], float]:
    """A local service in a place of its own."""
    with place_of_its_own() as place:
        return campaign(place, seed)


@contextmanager
def graphs() -> Iterator[Campaign]:
    """Graphs in namespaces of one API server, which ends with the campaign."""
    from tests.support.kubernetes import graph_faults as faults  # needs the extra kubernetes
    from tests.support.kubernetes.cluster import install_crds, new_place
    from tests.support.kubernetes.control_plane import ControlPlane
    from tests.support.kubernetes.faulty_proxy import Proxy

    with TemporaryDirectory(prefix="dp-faults-") as directory:
        server = ControlPlane(Path(directory))

        def of_a_graph(seed: int) -> tuple[list[str], float]:
            tmp = Path(directory, f"seed-{seed}")
            tmp.mkdir()
            proxy = Proxy(server)
            with proxy.serving():
                return faults.campaign(new_place(server, tmp), proxy, seed)

        try:
            server.start()
            install_crds(server)
            yield of_a_graph
        finally:
            server.stop()


def main() -> int:
    """Run the seeds that are not in the log."""
    parser = argparse.ArgumentParser(description="Three random troubles, and see whether the planner mends them.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--log", type=Path, default=Path("faults.jsonl"))
    parser.add_argument("--graph", action="store_true", help="a graph on the API server, not a local service")
    asked = parser.parse_args()
    lines = asked.log.read_text().splitlines() if asked.log.exists() else []
    rows = {row["seed"]: row for row in map(json.loads, lines)}
    with graphs() if asked.graph else nullcontext(local) as run:
        for seed in range(asked.first, asked.first + asked.seeds):
            if seed in rows:
                continue
            began_s = time.monotonic()
            row: dict[str, Any] = {"seed": seed}
            try:
                row["troubles"], row["whole_after_s"] = run(seed)
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
