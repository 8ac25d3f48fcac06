"""From a load and an SLA to replicas, and back.

>>> import numpy as np
>>> queue = PrefillQueue(Arrivals(requests_per_s=20), service_s=np.array([0.1, 0.2, 0.3]), within_s=0.5)
>>> queue.replicas_for(0.99)
6
"""

from dynamo_planner.sizing.aggregated import MixedStep
from dynamo_planner.sizing.arrivals import Arrivals
from dynamo_planner.sizing.classic import ClassicSizing, fit_budget
from dynamo_planner.sizing.decode import DecodeBatch
from dynamo_planner.sizing.load import Lengths, Load
from dynamo_planner.sizing.percentile import PercentileSizing
from dynamo_planner.sizing.prefill import PrefillQueue
from dynamo_planner.sizing.result import Fact, Need

__all__ = [
    "Arrivals",
    "ClassicSizing",
    "DecodeBatch",
    "Fact",
    "Lengths",
    "Load",
    "MixedStep",
    "Need",
    "PercentileSizing",
    "PrefillQueue",
    "fit_budget",
]
