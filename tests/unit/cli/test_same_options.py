"""An option means the same for every command that has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from dynamo_planner.cli.app import app


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
