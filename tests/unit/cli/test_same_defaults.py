"""The command line has the defaults of the functions and models behind it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from dynamo_planner import PoolSpec, Sla
from dynamo_planner import backtest as run_backtest
from dynamo_planner.cli.backtest import backtest
from dynamo_planner.cli.profile.measure import measure
from dynamo_planner.cli.tune import tune
from dynamo_planner.evaluation.tune import tune as run_tune
from dynamo_planner.profiling.session import Goal


def _numbers(called: Callable[..., Any]) -> dict[str, Any]:
    """The defaults that are numbers, or ``None`` for no limit."""
    parameters = inspect.signature(called).parameters.items()
    return {name: each.default for name, each in parameters if isinstance(each.default, float | int | None)}


@pytest.mark.parametrize(
    ("command", "behind", "count"),
    [
        (backtest, run_backtest, 3),
        (backtest, PoolSpec, 2),
        (backtest, Sla, 1),
        (tune, run_tune, 5),
        (tune, Sla, 1),
        (measure, Goal, 2),
    ],
)
def test_the_defaults_are_the_same(command: Callable[..., Any], behind: Callable[..., Any], count: int) -> None:
    of_command, own = _numbers(command), _numbers(behind)
    both = of_command.keys() & own.keys()
    assert {name: of_command[name] for name in both} == {name: own[name] for name in both}
    assert len(both) == count, sorted(both)
