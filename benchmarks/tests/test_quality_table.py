"""The benchmark of decision quality: its table, worked by hand, and its cells, which are as large as they say."""

from __future__ import annotations

import math

import pytest

from benchmarks.quality.cells import SCENARIOS, stages
from benchmarks.quality.comparing import CellResult, Outcome, rows
from benchmarks.quality.contenders import Configurations, contenders, spread
from benchmarks.quality.shown import against, cells, table
from benchmarks.tests.data import DATA
from dynamo_planner import StaticLaw


def result(name: str, feasible: float | None, **policies: tuple[float, float]) -> CellResult:
    outcomes = {
        policy: Outcome("as it is", 1.0, attainment, attainment, hours, 3)
        for policy, (attainment, hours) in policies.items()
    }
    return CellResult(name, 0.99, 1000, 4.0, feasible, "search", outcomes, (), 1.0)


RESULTS = [
    result("calm", 5.0, good=(0.995, 6.0), cheap=(0.97, 5.0)),
    result("wild", 8.0, good=(0.99, 16.0), cheap=(0.99, 12.0)),
    result("hopeless", None, good=(0.5, 6.0), cheap=(0.5, 5.0)),
]


def test_cost_is_the_ratio_to_the_best_schedule_and_the_price_of_what_was_missed() -> None:
    cheap, good = rows(RESULTS)
    assert (cheap.policy, good.policy) == ("cheap", "good")
    assert good.cost == pytest.approx(math.sqrt(1.2 * 2.0))
    assert cheap.cost == pytest.approx(math.sqrt(1.0 * 1.2 * 1.5))  # 2 % too few cost 20 %
    assert (good.attained, cheap.attained, good.cells) == (2, 1, 2)  # a cell without a feasible schedule says nothing
    assert good.ratio == pytest.approx(math.sqrt(2.4))
    assert cheap.ratio == pytest.approx(1.5)
    assert good.to_bound == pytest.approx(math.sqrt(1.5 * 4))
    assert good.low <= good.cost <= good.high


def test_the_tables_say_what_was_missed_and_a_later_run_is_compared() -> None:
    found = rows(RESULTS)
    assert "| cheap | 1 of 2 | 0.9800 / 0.970 | 1.50 |" in table(found)
    assert "| calm | 4.00 | 5.00 | 1.25 | search | 1.20 | 1.00 (97.0 %) |" in cells(RESULTS)
    told = against(found, {"rows": [{"policy": "good", "cost": 2.0, "attained": 1}]})
    assert told == "good: cost 2.000 -> 1.549, attained 1 -> 2 of 2"


def test_configurations_are_spread_from_the_first_to_the_last() -> None:
    choices: Configurations = [(str(number), StaticLaw(replicas={})) for number in range(20)]
    assert [name for name, _ in spread(choices, 4)] == ["0", "6", "13", "19"]
    assert len(spread(choices, 50)) == 20


def test_a_cell_has_the_mean_need_that_it_says_and_every_policy_as_many_configurations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.quality.cells.SHARED", DATA)
    cell = SCENARIOS[0]
    train, test = stages(cell, 300, 300)
    assert sum(train.need.values()) == pytest.approx(cell.mean, rel=0.2)  # from 300 requests
    assert test.need == train.need
    ours = contenders(cell, train, ablations=True)
    assert {len(choices) for name, choices in ours.items() if "," not in name} == {20}
