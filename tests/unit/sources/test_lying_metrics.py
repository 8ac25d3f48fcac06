"""Metrics that lie: each quantity is right within its stated error or unknown, and known where it is not touched.

A few situations here; ``python -m tests.support.sources.lies --situations 10000`` judges many and prints the table.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sources.lies import TOUCHED, Table, judge, show
from tests.support.sources.situations import KINDS

IN_EACH_KIND = 36


@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
def test_no_quantity_is_wrong(kind: str, seed: int) -> None:
    table = judge(kind, seed)
    assert not [entry for entry in table if entry[2] == "wrong"], show(table)


@pytest.fixture(scope="module")
def table() -> Table:
    """The same situations in every run."""
    judged: Table = Counter()
    for kind in KINDS:
        for seed in range(IN_EACH_KIND):
            judged += judge(kind, seed)
    return judged


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_touched_stays_known(kind: str, table: Table) -> None:
    for quantity in sorted({quantity for each, quantity, _ in table if each == kind}):
        known, unknown, wrong = (table[kind, quantity, outcome] for outcome in ("known", "unknown", "wrong"))
        assert wrong == 0, show(table)
        assert known + unknown > 0
        if quantity not in TOUCHED[kind]:
            assert unknown <= (0 if kind == "no fault" else 0.05 * known), show(table)
