"""The page of constants says what the code has."""

from __future__ import annotations

import re
from ast import literal_eval
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "constants.md"
ROW = re.compile(r"^\| `([\w.]+)` \| (.+?) \| .+? \| `([\w/]+)\.py` \| .+ \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text(encoding="utf-8"))


def _in_code(name: str, module: str) -> Any:
    found = import_module("dynamo_planner." + module.replace("/", "."))
    owner, _, field = name.rpartition(".")
    return getattr(found, owner).model_fields[field].default if owner else getattr(found, name)


@pytest.mark.parametrize(("name", "value", "module"), ROWS, ids=[f"{module}:{name}" for name, _, module in ROWS])
def test_a_value_on_the_page_is_that_of_the_code(name: str, value: str, module: str) -> None:
    assert literal_eval(value) == _in_code(name, module)


def test_every_row_of_the_page_is_read() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) == len(ROWS)
