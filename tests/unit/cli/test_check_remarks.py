"""``check`` tells what is to be said of workers that are observed, apart from what is unknown."""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from typer.testing import CliRunner

from dynamo_planner.cli.app import app
from dynamo_planner.cli.check.findings import Findings, show
from dynamo_planner.core.metrics import PoolMetrics, StageTimes, WorkerStatus
from dynamo_planner.core.snapshot import Observation


def test_copies_and_clocks_are_named() -> None:
    workers = (WorkerStatus(name="a", observed_at_s=95), WorkerStatus(name="b", observed_at_s=None))
    observation = Observation(
        pools={"decode": PoolMetrics(observed_at_s=95, coverage=0.5, workers=workers)},
        missing={
            "pools.decode.workers.a": "its series come twice",
            "pools.decode.workers.b": "it could not be scraped",
            "clock": "90 s ahead",
            "traffic.requests_per_s.workers": "the frontends count more",
        },
    )
    text = StringIO()
    show(Console(file=text, width=200), Findings(100, observation, {}), {})
    lines = [line.strip() for line in text.getvalue().splitlines()]
    assert "a: its series come twice" in lines
    assert "unknown: b: it could not be scraped" in lines
    assert "clocks: 90 s ahead" in lines
    assert "the frontends count more" in lines


def test_backlog_and_stages_are_told_as_far_as_they_are_known() -> None:
    workers = (WorkerStatus(name="a", observed_at_s=95), WorkerStatus(name="b", observed_at_s=95))
    stages = StageTimes(queue_ms=40, decode_ms=2500)
    pool = PoolMetrics(coverage=1, workers=workers, queued_tokens=1800, kv_usage_max=0.97, asleep=0, stages=stages)
    text = StringIO()
    show(Console(file=text, width=200), Findings(100, Observation(pools={"decode": pool}), {}), {})
    assert "  queued_tokens 1,800, kv_usage_max 97%, queue_ms 40, decode_ms 2,500\n" in text.getvalue()


def test_a_url_in_place_of_a_configuration_says_how_to_give_it() -> None:
    result = CliRunner().invoke(app, ["check", "http://127.0.0.1:9"])
    assert result.exit_code == 2
    assert "--worker" in result.output
