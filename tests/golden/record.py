"""Writes ``golden.json``: ``python -m tests.golden.record``. Only where a change of behaviour is meant."""

from __future__ import annotations

from pathlib import Path

from tests.golden.plain import dumped
from tests.golden.timelines import SCENARIOS

GOLDEN = Path(__file__).with_name("golden.json")

if __name__ == "__main__":
    GOLDEN.write_text(dumped({name: list(scenario()) for name, scenario in SCENARIOS.items()}))
