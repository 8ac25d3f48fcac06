"""Today's behaviour equals what was recorded: one case for each scenario, which names the first difference."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest

from tests.golden.plain import differences, dumped
from tests.golden.record import GOLDEN
from tests.golden.timelines import SCENARIOS


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(GOLDEN.read_text())
    return recorded


def test_every_scenario_is_recorded(golden: dict[str, Any]) -> None:
    assert list(golden) == list(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_golden(name: str, golden: dict[str, Any]) -> None:
    found = json.loads(dumped({name: list(SCENARIOS[name]())}))[name]
    added = name.startswith("source ")  # what sources observe gains fields; decisions and states must not
    first = list(islice(differences(found, golden[name], added=added), 3))
    assert not first, f"{name}: " + "; ".join(first)
