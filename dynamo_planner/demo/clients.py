"""What the clients of a demo know beside what its workers report: the exact share of requests in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dynamo_planner.core.metrics import InTime
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.demo.record import Recording
from dynamo_planner.sources.source import Source


@dataclass(frozen=True)
class WithClients:
    """A source whose traffic has the share in time of the requests that ended in the window, as their clients saw it.

    Args:
        source: what the workers report.
        recording: what the clients saw.
        now_s: seconds since the replay began; called in the planner's thread.
        window_s: the length of the window, in seconds.
    """

    source: Source
    recording: Recording
    now_s: Callable[[], float]
    window_s: float

    def observe(self, at_s: float) -> Observation:
        observation = self.source.observe(at_s)
        since_s, sla = self.now_s() - self.window_s, self.recording.sla
        met = [request.meets(sla) for request in self.recording.requests if request.done_s > since_s]
        if not met:
            return observation
        in_time = InTime(ttft_ms=sla.ttft_ms, itl_ms=sla.itl_ms, share=sum(met) / len(met))
        return observation.replace(traffic=observation.traffic.replace(in_time=in_time))
