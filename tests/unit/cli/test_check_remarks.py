"""``check`` tells what is to be said of workers that are observed, apart from what is unknown."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from dynamo_planner.cli.check.findings import Findings, show
from dynamo_planner.core.metrics import PoolMetrics, WorkerStatus
from dynamo_planner.core.snapshot import Observation


def test_copies_and_clocks_are_named() -> None:
    workers = (WorkerStatus(name="a", observed_at_s=95), WorkerStatus(name="b", observed_at_s=None))
    observation = Observation(
        pools={"decode": PoolMetrics(observed_at_s=95, coverage=0.5, workers=workers)},
        missing={
            "pools.decode.workers.a": "its series come twice",
            "pools.decode.workers.b": "it could not be scraped",
            "clock": "90 s ahead",
        },
    )
    text = StringIO()
    show(Console(file=text, width=200), Findings(100, observation, {}), {})
    lines = [line.strip() for line in text.getvalue().splitlines()]
    assert "a: its series come twice" in lines
    assert "unknown: b: it could not be scraped" in lines
    assert "clocks: 90 s ahead" in lines
