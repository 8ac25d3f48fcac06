"""Four runs of the fault campaign of a graph; ``tests/long/fault_campaign.py --graph`` has more."""

from __future__ import annotations

import pytest

from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.faulty_proxy import Proxy
from tests.support.kubernetes.graph_faults import campaign


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(4))
def test_after_three_troubles_everything_is_as_the_policy_wants(kubernetes: Place, proxy: Proxy, seed: int) -> None:
    campaign(kubernetes, proxy, seed)
