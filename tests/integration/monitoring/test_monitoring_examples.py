"""The alert rules and the dashboard of examples/monitoring, by the real promtool and against a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from dynamo_planner import Decision, Outcome, PoolSpec, PoolStatus, Reason, ScaleTo, Snapshot
from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.metrics import PlannerMetrics
from tests.support.prometheus_server import ask, backfill, binary, prometheus

MONITORING = Path(__file__).parents[3] / "examples" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
VARIABLES = {"$__rate_interval": "5m", "$__range_s": "3600", "$__range": "1h", "$instance": ".*", "$pool": ".*"}


@pytest.mark.parametrize("command", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_the_rules_hold(command: tuple[str, ...]) -> None:
    done = subprocess.run([binary("promtool"), *command], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def page(replicas: int, at_s: float) -> list[str]:
    """The metrics of a planner that has made so many steps, in the OpenMetrics text format with times."""
    metrics = PlannerMetrics()
    numbers = {"expected": 4.0, "planned": 5.0, "now": 4.0}
    reasons = [
        Reason(code="DemandForecast", pool="workers", message="arrivals", values=numbers),
        Reason(code="PromiseKept", message="kept", values={"attained": 0.995, "promised": 0.99}),
        Reason(code="Unhealthy", pool="workers", message="silent", values={"began_at_s": at_s - 60}),
    ]
    for _ in range(replicas):
        move = ScaleTo(pool="workers", replicas=replicas + 1, expected=replicas)
        status = PoolStatus(spec=PoolSpec(role="aggregated", gpus=4), replicas=replicas)
        held = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=1)
        snapshot = Snapshot(at_s=at_s, pools={"workers": status, "idle": held})
        decision = Decision(at_s=at_s, actions=[move], targets={"workers": replicas + 1}, reasons=reasons)
        outcome = Outcome(action=move, status="applied", message="done")
        metrics.record(
            Step(at_s=at_s, name="planner", snapshot=snapshot, decision=decision, outcomes=[outcome], took_s=0.01)
        )
    lines = [line for line in generate_latest(metrics.registry).decode().splitlines() if not line.startswith("#")]
    found = []
    for each in lines:
        name, value = each.rsplit(" ", 1)
        labelled = f'{name[:-1]},instance="here"}}' if name.endswith("}") else f'{name}{{instance="here"}}'
        found.append(f"{labelled} {value} {at_s:.3f}")
    return found


def test_every_query_of_the_dashboard_finds_series_in_prometheus(tmp_path: Path) -> None:
    now_s = float(int(time.time()) - 60)
    by_series: dict[str, list[str]] = {}
    for step in range(1, 6):
        for each in page(step, now_s - 60 * (5 - step)):
            by_series.setdefault(each.rsplit(" ", 2)[0], []).append(each)
    backfill(tmp_path, [each for series in by_series.values() for each in series])
    with prometheus(tmp_path) as url:
        for query in QUERIES:
            filled = re.sub(r"\$\w+", lambda found: VARIABLES[found[0]], query)
            assert ask(url, filled, now_s), filled
        cost = next(query for query in QUERIES if "$__range_s" in query)
        filled = re.sub(r"\$\w+", lambda found: VARIABLES[found[0]], cost)
        by_pool = {each["metric"]["pool"]: float(each["value"][1]) for each in ask(url, filled, now_s)}
        assert by_pool == {"workers": 4 * 3, "idle": 1}, "1, 2, ... 5 replicas of 4 GPUs each are 12 GPUs on average"


def test_the_dashboard_can_be_imported() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= DASHBOARD.keys()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(places) == len(set(places))
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])
