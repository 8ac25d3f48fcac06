"""The first moments of new workers: one that ends at once was not started."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dynamo_planner.executors.circus.processes import alive
from dynamo_planner.executors.circus.records import WorkerRecord
from dynamo_planner.executors.circus.store import Store

DIES_AT_ONCE_S = 0.3
"""How long new workers are watched before their start counts as successful."""

_LAUNCHES_WITHIN_S = 3.0


def watch_first_moments(workers: Sequence[WorkerRecord], store: Store) -> None:
    """Wait until the new workers were launched and some time has passed, or one of them has ended."""
    launched_by = time.monotonic() + _LAUNCHES_WITHIN_S
    good_at: float | None = None
    while all(alive(worker.process) for worker in workers):
        now = time.monotonic()
        if good_at is None and (now > launched_by or all(store.noted(worker) for worker in workers)):
            good_at = now + DIES_AT_ONCE_S
        if good_at is not None and now >= good_at:
            return
        time.sleep(0.02)
