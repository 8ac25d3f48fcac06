"""Metrics that lie: each quantity is right within its stated error or unknown, and known where it is not touched.

300 situations here; ``python -m tests.support.sources.lies --situations 10000`` judges many and prints the table.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sources.lies import EVERY_KIND, Table, judge, show

IN_EACH_KIND = 12


@pytest.mark.slow
@given(of=st.sampled_from(EVERY_KIND), seed=st.integers(0, 10**9))
@settings(max_examples=300 - IN_EACH_KIND * len(EVERY_KIND), deadline=None)
def test_no_quantity_is_wrong(of: tuple[str, str], seed: int) -> None:
    table = judge(*of, seed)
    assert not [entry for entry in table if entry[-1] == "wrong"], show(table)


@pytest.fixture(scope="module")
def table() -> Table:
    """The same situations in every run."""
    judged: Table = Counter()
    for way, kind in EVERY_KIND:
        for seed in range(IN_EACH_KIND):
            judged += judge(way, kind, seed)
    return judged


@pytest.mark.slow
@pytest.mark.parametrize(("way", "kind"), EVERY_KIND)
def test_what_is_not_touched_stays_known(way: str, kind: str, table: Table) -> None:
    for quantity in sorted({entry[2] for entry in table if entry[:2] == (way, kind)}):
        known, unknown, wrong = (table[way, kind, quantity, outcome] for outcome in ("known", "unknown", "wrong"))
        assert wrong == 0, show(table)
        assert known + unknown > 0
        if not quantity.endswith("*"):
            assert unknown <= (0 if kind == "no fault" else 0.05 * known), show(table)
