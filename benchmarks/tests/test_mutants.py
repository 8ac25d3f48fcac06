"""The table of mutants is up to date, and what is drawn is a change that compiles."""

from __future__ import annotations

from benchmarks.mutants import ROOT, drawn, named


def test_each_named_mutant_has_its_place() -> None:
    assert len(named()) >= 11


def test_drawn_mutants_are_changes_that_compile() -> None:
    mutants = drawn(40, seed=3)
    assert len({mutant.name for mutant in mutants}) == 40
    for mutant in mutants:
        assert mutant.text != (ROOT / mutant.path).read_text()
        compile(mutant.text, mutant.path, "exec")
