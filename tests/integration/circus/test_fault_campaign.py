"""Four runs of the fault campaign of ``tests/long/fault_campaign.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.circus.faults import campaign

if TYPE_CHECKING:
    from tests.support.circus.place import Place


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(4))
def test_after_three_troubles_everything_is_as_the_policy_wants(place: Place, seed: int) -> None:
    campaign(place, seed)
