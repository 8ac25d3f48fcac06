"""The log of `run` and `serve`: what is shown, and as what."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator

import pytest

from dynamo_planner.cli.logs import LogFormat, LogLevel, start_log

Logged = Callable[[LogLevel, LogFormat], list[str]]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Logged]:
    """The lines of a log in which two things happen, under a root logger that nothing else was set up for."""
    root = logging.getLogger()
    level = root.level

    def lines(least: LogLevel, form: LogFormat) -> list[str]:
        monkeypatch.setattr(root, "handlers", [])
        start_log(least, form)
        logging.getLogger("planner").info("3 replicas")
        logging.getLogger("planner").warning("no metrics")
        return capsys.readouterr().err.splitlines()

    yield lines
    root.setLevel(level)


@pytest.mark.parametrize(("level", "shown"), [("info", ["info", "warning"]), ("warning", ["warning"]), ("error", [])])
def test_lines_of_json_have_the_level_and_what_is_less_severe_is_left_out(
    level: str, shown: list[str], logged: Logged
) -> None:
    lines = [json.loads(line) for line in logged(LogLevel(level), LogFormat.JSON)]
    assert [line["level"] for line in lines] == shown
    assert all(line["logger"] == "planner" and line["message"] in {"3 replicas", "no metrics"} for line in lines)


def test_lines_of_text_name_the_level_and_the_logger(logged: Logged) -> None:
    (line,) = logged(LogLevel.WARNING, LogFormat.TEXT)
    assert line.endswith("WARNING planner: no metrics")
