"""The table of mutants is up to date, and what is drawn is a change that compiles."""

from __future__ import annotations

import pytest

from benchmarks.mutants import ROOT, drawn, named
from benchmarks.mutants_judge import Mutant, judged


def test_each_named_mutant_has_its_place() -> None:
    assert len(named()) >= 11


def test_drawn_mutants_are_changes_that_compile() -> None:
    mutants = drawn(40, seed=3)
    assert len({mutant.name for mutant in mutants}) == 40
    for mutant in mutants:
        assert mutant.text != (ROOT / mutant.path).read_text()
        compile(mutant.text, mutant.path, "exec")


@pytest.mark.slow
def test_a_mutant_is_noticed_by_a_test_that_has_a_number_for_it() -> None:
    path = "dynamo_planner/guards/step_limit.py"
    text = (ROOT / path).read_text()
    changes = {
        "code": ("start + self.up_replicas", "start - self.up_replicas"),
        "constant": ("ROUNDING = 1e-9", "ROUNDING = 0.9"),
        "nothing": ("default=0)", "default=-0)"),
    }
    mutants = [Mutant(name, path, text.replace(*change)) for name, change in changes.items()]
    assert all(mutant.text != text for mutant in mutants)
    verdicts = {verdict.name: verdict for verdict in judged(mutants, ROOT, "tests/unit/guards/test_step_limit.py")}
    assert {name: verdict.noticed for name, verdict in verdicts.items()} == {
        "code": True,
        "constant": True,
        "nothing": False,
    }
    assert verdicts["code"].by.startswith("tests/unit/guards/test_step_limit.py::")
