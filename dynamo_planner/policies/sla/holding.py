"""What was needed in the last while: a replica goes only after nobody needed it for as long as a start would cost."""

from __future__ import annotations

BUCKETS = 24

Needs = tuple[tuple[float, float], ...]
"""The most that was needed in each stretch of time with the time when that was, oldest first; each less than the one
before, since what is less than something newer never counts."""


def noted(needs: Needs, at_s: float, need: float, hold_s: float) -> Needs:
    """With what is needed now, and without what is older than ``hold_s``; at most some two dozen entries.

    What is needed within one twenty-fourth of ``hold_s`` is taken together.
    """
    bucket_s = max(hold_s / BUCKETS, 1e-3)
    kept = tuple(entry for entry in needs if entry[0] > at_s - hold_s and entry[1] > need)
    if kept and kept[-1][0] // bucket_s == at_s // bucket_s:
        return (*kept[:-1], (at_s, kept[-1][1]))
    return (*kept, (at_s, need))


def most(needs: Needs) -> float:
    """The most that was needed."""
    return max((need for _, need in needs), default=0.0)
