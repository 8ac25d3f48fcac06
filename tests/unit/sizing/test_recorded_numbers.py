"""The sizings still give the numbers that simulations judged: a formula that changed by a sign or a term shows here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.sizing_numbers import FILE, found


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    return found()


RECORDED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", RECORDED)
def test_the_numbers_are_those_that_were_recorded(name: str, now: dict[str, Any]) -> None:
    recorded, today = RECORDED[name], now[name]
    assert today.keys() == recorded.keys()
    for key, values in recorded.items():
        assert today[key] == (pytest.approx(values, rel=1e-6, abs=1e-9) if key in ("numbers", "late") else values), key


def test_every_case_is_recorded(now: dict[str, Any]) -> None:
    assert list(now) == list(RECORDED)
