"""The page about metrics names every metric of the planner, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from dynamo_planner.runtime.metrics import PlannerMetrics

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"


def test_the_page_has_every_metric() -> None:
    found = PlannerMetrics(leading=lambda: True).registry.collect()
    own = {
        each.name + ("_total" if each.type == "counter" else "")
        for each in found
        if each.name.startswith("dynamo_planner_")
    }
    table = PAGE.read_text(encoding="utf-8").split("## Metrics")[1]
    rows = "".join(line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `dynamo"))
    assert set(re.findall(r"`(dynamo_planner_\w+)", rows)) == own
