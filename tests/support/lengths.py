"""What is known of lengths, as a histogram tells it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dynamo_planner.core.metrics import Dist


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def seen(lengths: npt.NDArray[np.int64]) -> Dist:
    """Mean, variation and nine quantiles."""
    shares = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
    mean = float(lengths.mean())
    quantiles = dict(zip(shares, np.quantile(lengths, shares).tolist(), strict=True))
    return Dist(mean=mean, cv2=float(lengths.var()) / mean**2, quantiles=quantiles)
