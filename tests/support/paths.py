"""Where the repository's parts lie, and the whole traces beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
SHARED = Path(os.environ.get("DYNAMO_PLANNER_SHARED", ROOT.parent / "shared"))
"""Whole traces, too large for the repository; only tests marked ``long`` read them."""


def shared(*parts: str) -> Path:
    """A file of ``SHARED``; without it the test is skipped, and the summary says so."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{Path(*parts)} is not in {SHARED} (DYNAMO_PLANNER_SHARED)")
    return path
