"""A small recorded run."""

from __future__ import annotations

import pytest

from dynamo_planner import Replicas, Sla
from dynamo_planner.demo.record import Move, Recording, RequestRecord, Sample


@pytest.fixture
def short_run() -> Recording:
    """Two pools, forty requests (every tenth too late, the last one lost), one worker added and drained."""
    due_s = tuple(index / 2 for index in range(40))
    requests = [
        RequestRecord(due_s=at_s, done_s=at_s + 2, tokens=50, ttft_ms=900 if index % 10 == 9 else 150, itl_ms=20)
        for index, at_s in enumerate(due_s[:-1])
    ]
    requests.append(RequestRecord(due_s=due_s[-1], done_s=due_s[-1] + 1, tokens=50, lost="the connection broke"))
    stairs = [(0, Replicas(ready=1)), (6, Replicas(ready=1, starting=1)), (9, Replicas(ready=2))]
    stairs += [(15, Replicas(ready=1, draining=1)), (20, Replicas(ready=1))]
    return Recording(
        title="a short run",
        sla=Sla(ttft_ms=500, itl_ms=30),
        due_s=due_s,
        requests=requests,
        first_tokens=[(request.due_s + 0.15, 150.0) for request in requests],
        samples=[
            Sample(at_s=at_s, pools={"prefill": replicas, "decode": Replicas(ready=1)}, in_flight=3, held=0)
            for at_s, replicas in stairs
        ],
        moves=[Move(6, "prefill", 1, 2, "QueueLong: busy"), Move(15, "prefill", 2, 1, "QueueShort: idle")],
    )
