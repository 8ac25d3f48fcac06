"""How far the engine is from its profile, learned from what is served."""

from __future__ import annotations

import math
from typing import NamedTuple

from dynamo_planner.forecasting.experts.expert import decayed

HALF_LIFE_S = 600.0

TRUST = 50.0
"""After so many requests what was seen weighs as much as the profile."""

ODD = 4.0
"""What is further off than this many times is taken for a fault of the metrics, and counts as this."""


class Correction(NamedTuple):
    """Requests that were compared (fading), and sums over them of what was seen and of what the profile says."""

    requests: float = 0.0
    seen: float = 0.0
    expected: float = 0.0

    def factor(self, most: float) -> float:
        """How many times longer than profiled the work takes: from ``1 / most`` to ``most``, and 1 where little was
        seen."""
        if self.seen <= 0 or self.expected <= 0:
            return 1.0
        ratio = min(max(self.seen / self.expected, 1 / ODD), ODD)
        trusted = self.requests / (self.requests + TRUST) * math.log(ratio)
        return min(max(math.exp(trusted), 1 / most), most)


def compared(correction: Correction, seen: float, expected: float, requests: float, elapsed_s: float) -> Correction:
    """With a comparison of so many requests; ``seen`` and ``expected`` are sums over them."""
    keep = decayed(elapsed_s, HALF_LIFE_S)
    return Correction(
        keep * correction.requests + requests, keep * correction.seen + seen, keep * correction.expected + expected
    )
