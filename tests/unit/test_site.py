"""The site of the docs: what its reference is made from is complete, and every page is in its navigation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from site_docstrings import described
from site_hooks import configuration_models

ROOT = Path(__file__).parents[2]


def test_every_field_of_a_configuration_is_described_where_it_is_declared() -> None:
    named, parts = configuration_models()
    fields = {(model, name) for model in (*named, *parts) for name in model.model_fields if name != "kind"}
    assert len(fields) > 200
    missing = [f"{model.__name__}.{name}" for model, name in fields if name not in described(model)]
    assert not missing, "describe them under Args"


def _pages(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in _pages(each)]


def test_every_page_is_in_the_navigation() -> None:
    listed = _pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    there = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert there <= set(listed), "add them to nav in mkdocs.yml"
