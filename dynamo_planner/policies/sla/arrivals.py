"""Arrivals: the rate of one window of traffic, and how much of the window is new."""

from __future__ import annotations

from typing import NamedTuple

from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.policies.sla.tick import why_unknown

DEFAULT_WINDOW_S = 60.0
"""The length in seconds of a window that is not reported, where no window was observed before either."""

WINDOW_RANGE_S = (1e-3, 86_400.0)
"""The shortest and the longest window that is believed, in seconds."""


class ArrivalWindow(NamedTuple):
    """The arrivals that one snapshot reports.

    Args:
        at_s: When the window ended, in Unix seconds.
        requests_per_s: The mean rate over the window.
        window_s: The length of the window, in seconds.
        elapsed_s: Seconds since the window before ended; 0 where this is the same one.
    """

    at_s: float
    requests_per_s: float
    window_s: float
    elapsed_s: float

    @property
    def new_requests(self) -> float:
        """Requests that the window before did not count."""
        return self.requests_per_s * min(self.window_s, self.elapsed_s)

    def times(self, share: float) -> ArrivalWindow:
        """The arrivals at a pool that gets this share of them."""
        return self if share == 1 else self._replace(requests_per_s=share * self.requests_per_s)


def arrivals_in(snapshot: Snapshot, before_s: float | None, max_age_s: float) -> ArrivalWindow | None:
    """The arrivals of a snapshot after a window that ended at ``before_s``; ``None`` where unknown or too old."""
    traffic = snapshot.traffic
    at_s, rate = traffic.observed_at_s, traffic.requests_per_s
    if at_s is None or rate is None or snapshot.at_s - at_s > max_age_s:
        return None
    at_s = min(at_s, snapshot.at_s)
    since_s = None if before_s is None else max(at_s - before_s, 0.0)
    window_s = traffic.window_s or since_s or DEFAULT_WINDOW_S
    window_s = min(max(window_s, WINDOW_RANGE_S[0]), WINDOW_RANGE_S[1])
    elapsed_s = window_s if since_s is None else min(since_s, WINDOW_RANGE_S[1])
    return ArrivalWindow(at_s, rate, window_s, elapsed_s)


def why_no_arrivals(snapshot: Snapshot, max_age_s: float) -> str:
    """Why :func:`arrivals_in` found none."""
    if snapshot.traffic.requests_per_s is None:
        return why_unknown(snapshot, "traffic.requests_per_s")
    return f"traffic is {snapshot.age_s(snapshot.traffic.observed_at_s):.0f} s old, and {max_age_s:.0f} s are allowed"


def what_is_unknown(snapshot: Snapshot) -> str | None:
    """What is unknown of the traffic without which a pool that has requests is not lowered; ``None`` where nothing is,
    or where no requests come.

    >>> from dynamo_planner import Traffic
    >>> what_is_unknown(Snapshot(at_s=0, traffic=Traffic(requests_per_s=3, isl=800)))
    'traffic.osl is unknown'
    """
    if not snapshot.traffic.requests_per_s:
        return None
    if more := snapshot.at_least("traffic.requests_per_s"):
        return f"traffic.requests_per_s is a lower bound: {more}"
    unknown = [field for field in ("isl", "osl") if getattr(snapshot.traffic, field) is None]
    return why_unknown(snapshot, f"traffic.{unknown[0]}") if unknown else None
