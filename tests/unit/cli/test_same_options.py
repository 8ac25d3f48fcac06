"""An option means the same for every command that has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from dynamo_planner.cli.app import app
from dynamo_planner.cli.options import targets
from dynamo_planner.config.problems import ConfigError


def _commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for each, command in getattr(group, "commands", {}).items():
        yield f"{name}{each}", command
        yield from _commands(command, f"{each} ")


def test_json_is_printed_in_place_of_the_text() -> None:
    found = {
        name: option
        for name, command in _commands(typer.main.get_command(app))
        for option in command.params
        if "--json" in option.opts
    }
    local = {"check", "explain", "queries", "status"}
    assert set(found) == local | {"backtest", "shadow", "tune", "profile show", "profile compare", "profile verify"}
    assert [name for name, option in found.items() if not getattr(option, "is_flag", False)] == []


@pytest.mark.parametrize("command", ["backtest", "tune"])
def test_targets_are_options_of_the_same_names_and_defaults(command: str) -> None:
    options = {option.name: option.default for option in dict(_commands(typer.main.get_command(app)))[command].params}
    assert {name: options[name] for name in ("ttft_ms", "itl_ms", "attainment")} == {
        "ttft_ms": 2000.0,
        "itl_ms": 50.0,
        "attainment": 0.99,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((-1.0, 25.0, 0.99), "targets.ttft_ms: Input should be greater than 0 (got -1.0)"),
        ((500.0, float("nan"), 0.99), "targets.itl_ms: Input should be a finite number (got nan)"),
        ((500.0, 25.0, 99.0), "targets.attainment: Input should be less than 1 (got 99.0; 99.0 % is 0.99)"),
    ],
)
def test_values_that_are_no_targets_are_named_with_the_mend(given: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        targets(*given)
    assert message in str(error.value)
