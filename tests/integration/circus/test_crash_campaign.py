"""A part of the crash campaign of ``tests/long/crash_campaign.py``: what its named points at other passes have not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.circus.campaign import Kill, carry_out
from tests.support.circus.crash import POINTS

if TYPE_CHECKING:
    from tests.support.circus.place import Place

KILLS = [
    *(Kill("planner", point=f"{where}:2") for where in POINTS),
    *(Kill("planner", after_s=after_s) for after_s in (0.45, 1.1)),
    *(Kill("arbiter", after_s=after_s) for after_s in (0.0, 0.7, 1.3)),
    Kill("arbiter", after_s=0.5, planner_after_s=0.0),
    Kill("arbiter", after_s=0.9, planner_after_s=0.25),
]


@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_the_next_start_makes_everything_whole(place: Place, kill: Kill) -> None:
    assert carry_out(place, kill) or kill.point is None
