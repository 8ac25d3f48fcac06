"""Hypothesis profiles, and what the summary says of tests that were left out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.laws import ORDINARY
from tests.support.paths import SHARED

UNHURRIED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
"""How long an example takes depends on what else the machine does."""

settings.register_profile("ordinary", max_examples=ORDINARY, derandomize=True, **UNHURRIED)
settings.register_profile("fast", max_examples=ORDINARY // 10, derandomize=True, **UNHURRIED)
settings.register_profile("long", max_examples=10 * ORDINARY, **UNHURRIED)
settings.load_profile("ordinary")

REAL = (Path(__file__).parent / "integration", Path(__file__).parent / "e2e")
"""Where tests start real processes and servers. One that fails is run once more, and the summary names it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow tests of real components a second run; a wrong line fails both."""
    for item in items:
        if any(item.path.is_relative_to(directory) for directory in REAL):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out because it is not on this machine."""
    if not SHARED.is_dir():
        terminalreporter.write_line(f"left out: what reads whole traces, not in {SHARED} (DYNAMO_PLANNER_SHARED)")
    if skipped := len(terminalreporter.stats.get("skipped", ())):
        terminalreporter.write_line(f"left out: {skipped} tests that were skipped, each with its reason above")
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.write_line(f"failed at its first run, to be mended: {report.nodeid}\n{report.longreprtext}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that was skipped is a failure: something that it needs is missing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
