"""Coming down: kept as long as starting again would cost, and nothing goes while requests run."""

from __future__ import annotations

from tests.support.sla_service import STARTUP_S, TICK_S, Service


def test_nothing_goes_while_requests_run() -> None:
    service = Service(prefill=2, decode=4)
    service.specs = {role: spec.replace(min_replicas=0) for role, spec in service.specs.items()}
    service.run(5, 100)
    before = service.target("decode")
    for _ in range(300):
        service.see(0, {"decode": {"running": 40}})
    assert service.target("decode") == before
    assert "RequestsRun" in service.codes("decode")


def test_to_zero_after_four_start_ups_without_a_request() -> None:
    service = Service(prefill=1, decode=1)
    service.specs = {role: spec.replace(min_replicas=0) for role, spec in service.specs.items()}
    service.run(5, 1000)
    service.run(0, 4 * STARTUP_S - TICK_S)
    assert (service.target("prefill"), service.target("decode")) == (1, 1)
    service.run(0, 2 * TICK_S)
    assert (service.target("prefill"), service.target("decode")) == (0, 0)
