"""The samples that benchmarks are tested with: those in the repository, not the whole traces beside it."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
