"""Coming down: kept as long as starting again would cost, and nothing goes while requests run."""

from __future__ import annotations

import pytest

from dynamo_planner.core.metrics import Dist
from tests.support.sla_service import STARTUP_S, TICK_S, Service

ITL = Dist(mean=10, count=100, buckets={25: 1.0})


def test_nothing_goes_while_requests_run() -> None:
    service = Service(prefill=2, decode=4)
    service.specs = {role: spec.replace(min_replicas=0) for role, spec in service.specs.items()}
    service.run(5, 100)
    before = service.target("decode")
    for _ in range(300):
        service.see(0, {"decode": {"running": 40}})
    assert service.target("decode") == before
    assert "RequestsRun" in service.codes("decode")


def test_to_zero_after_two_start_ups_without_a_request() -> None:
    service = Service(prefill=1, decode=1)
    service.specs = {role: spec.replace(min_replicas=0) for role, spec in service.specs.items()}
    service.run(5, 1000)
    service.run(0, 2 * STARTUP_S - TICK_S)
    assert (service.target("prefill"), service.target("decode")) == (1, 1)
    service.run(0, 2 * TICK_S)
    assert (service.target("prefill"), service.target("decode")) == (0, 0)


@pytest.mark.parametrize(("late", "stays"), [(0.0, False), (0.9, True)])
def test_what_floods_need_stays_from_the_second_on_where_requests_were_late_without_it(
    late: float, stays: bool
) -> None:
    """0.9 of 70 s of traffic are late while 6 of 7 prefill replicas start: worth ``10 * 63 / (6 / 7) = 735 s``."""
    service = Service(prefill=1, decode=1)
    good, bad = ({"ttft_ms": Dist(mean=100, count=100, buckets={500: share})} for share in (1.0, 1 - late))
    service.run(5, 1000, itl_ms=ITL, **good)
    for kept in (False, stays):
        service.run(60, STARTUP_S + TICK_S, itl_ms=ITL, **bad)
        service.run(60, 300, itl_ms=ITL, **good)
        service.run(5, 500, itl_ms=ITL, **good)
        assert (service.target("prefill") >= 6) == kept
