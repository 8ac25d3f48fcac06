"""Bursty arrivals and log-normal lengths, drawn with fixed seeds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FAMILIES = ("hyperexponential", "gamma", "mmpp")


def renewal(family: str, rate: float, cv2: float, count: int, rng: np.random.Generator) -> Floats:
    """Arrivals with independent gaps of this squared coefficient of variation."""
    if family == "gamma":
        return np.cumsum(rng.gamma(1 / cv2, cv2 / rate, count))
    share = 0.5 * (1 + math.sqrt((cv2 - 1) / (cv2 + 1)))  # two phases with balanced means
    fast = rng.random(count) < share
    gaps = np.where(fast, rng.exponential(1 / (2 * share), count), rng.exponential(1 / (2 * (1 - share)), count))
    return np.cumsum(gaps / rate)


def mmpp(rate: float, ratio: float, busy: float, cycle_s: float, count: int, rng: np.random.Generator) -> Floats:
    """A Poisson process with two rates, ``ratio`` apart, at the higher one for the share ``busy`` of the time."""
    low = rate / (busy * ratio + 1 - busy)
    pieces, now, high, drawn = [], 0.0, bool(rng.random() < busy), 0
    while drawn < count:
        stay = rng.exponential(cycle_s * (busy if high else 1 - busy))
        arrivals = rng.poisson((ratio * low if high else low) * stay)
        pieces.append(now + np.sort(rng.random(arrivals)) * stay)
        now, high, drawn = now + stay, not high, drawn + arrivals
    return np.concatenate(pieces)[:count]


def lognormal(mean: float, cv2: float, most: float, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Whole numbers from 1 to ``most``, log-normal between."""
    sigma = math.sqrt(math.log1p(cv2))
    drawn = rng.lognormal(math.log(mean) - sigma**2 / 2, sigma, count)
    return np.clip(drawn.round(), 1, most).astype(np.int64)
