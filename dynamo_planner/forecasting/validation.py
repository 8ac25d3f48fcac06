"""Checks of the samples and questions that a forecaster takes."""

from __future__ import annotations

import math

from dynamo_planner.core.values import known

LONGEST_S = 1e9
"""Longest duration; pauses that are longer count as this."""

SHORTEST_SPAN_S = 1e-3
"""Shortest span of a sample."""


def checked_sample(at_s: float, rate_per_s: float | None, span_s: float) -> tuple[float, float | None, float]:
    """A sample as plain numbers; a rate that is missing, NaN or infinite is ``None``.

    Raises ``ValueError`` for a negative rate, a time that is not finite, or a span that is not 1 ms to 1e9 s.
    """
    rate = known(rate_per_s)
    if not math.isfinite(at_s):
        raise ValueError(f"at_s must be a finite time, got {at_s!r}")
    if not SHORTEST_SPAN_S <= span_s <= LONGEST_S:
        raise ValueError(f"span_s must be a duration of 0.001 to 1e9 seconds, got {span_s!r}")
    if rate is not None and rate < 0:
        raise ValueError(f"rate_per_s must be at least 0, or None where it is unknown, got {rate_per_s!r}")
    return float(at_s), None if rate is None else float(rate), float(span_s)


def seconds_ahead(last_s: float, at_s: float, horizon_s: float) -> float:
    """Seconds from the last sample to ``horizon_s`` after ``at_s``; a time before the last sample counts as its own.

    Raises ``ValueError`` for a horizon that is not 0 to 1e9 s, or a time that is not finite.

    >>> seconds_ahead(last_s=100, at_s=130, horizon_s=60), seconds_ahead(last_s=100, at_s=90, horizon_s=60)
    (90.0, 60.0)
    """
    if not 0 <= horizon_s <= LONGEST_S:
        raise ValueError(f"horizon_s must be 0 to {LONGEST_S:g} seconds, got {horizon_s!r}")
    if not math.isfinite(at_s):
        raise ValueError(f"at_s must be a finite time, got {at_s!r}")
    return float(min(max(at_s - last_s, 0.0), LONGEST_S) + horizon_s)


def checked_window(window_s: float) -> float:
    """The length of a window. Raises ``ValueError`` where it is not above 0 and at most 1e9 s."""
    if not 0 < window_s <= LONGEST_S:
        raise ValueError(f"window_s must be positive and at most {LONGEST_S:g} seconds, got {window_s!r}")
    return window_s
