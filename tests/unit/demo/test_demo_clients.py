"""The planner of a demo knows the share of requests in time as the clients saw it."""

from __future__ import annotations

from dynamo_planner import Observation, Sla, Traffic
from dynamo_planner.core.metrics import InTime
from dynamo_planner.demo.clients import WithClients
from dynamo_planner.demo.record import Recording, RequestRecord


class Workers:
    def observe(self, at_s: float) -> Observation:
        return Observation(traffic=Traffic(requests_per_s=3, observed_at_s=at_s))


def test_requests_that_ended_in_the_window_count() -> None:
    """One is from before the window; of the others one was in time, one late, and one lost."""
    requests = [
        RequestRecord(due_s=0, done_s=5, tokens=10, ttft_ms=100, itl_ms=5),
        RequestRecord(due_s=0, done_s=25, tokens=10, ttft_ms=100, itl_ms=5),
        RequestRecord(due_s=0, done_s=26, tokens=10, ttft_ms=900, itl_ms=5),
        RequestRecord(due_s=0, done_s=27, tokens=10, lost="answered 503"),
    ]
    recording = Recording("demo", Sla(ttft_ms=500, itl_ms=25), due_s=(), requests=requests)
    found = WithClients(Workers(), recording, now_s=lambda: 30.0, window_s=10.0).observe(1000.0)
    assert found.traffic.in_time == InTime(ttft_ms=500, itl_ms=25, share=1 / 3)
    assert found.traffic.requests_per_s == 3
    later = WithClients(Workers(), recording, now_s=lambda: 60.0, window_s=10.0).observe(1000.0)
    assert later.traffic.in_time is None
