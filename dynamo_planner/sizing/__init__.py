"""Sizing: replicas for a load and an SLA, by queueing models, and the share of requests in time for given replicas.

>>> import numpy as np
>>> queue = PrefillQueue(Arrivals(requests_per_s=20), service_s=np.array([0.1, 0.2, 0.3]), within_s=0.5)
>>> queue.replicas_for(0.99)
6
"""

from dynamo_planner.core.lazy import lazy_exports
from dynamo_planner.sizing.aggregated import AggregatedStage
from dynamo_planner.sizing.arrivals import Arrivals
from dynamo_planner.sizing.classic import ClassicSizing, fit_budget
from dynamo_planner.sizing.decode import DecodeStage
from dynamo_planner.sizing.load import Lengths, Load
from dynamo_planner.sizing.percentile import PercentileSizing
from dynamo_planner.sizing.prefill import PrefillStage
from dynamo_planner.sizing.prompt_queue import PrefillQueue
from dynamo_planner.sizing.result import DISAGGREGATED, Fact, Requirement
from dynamo_planner.sizing.waiting import Routing

__all__ = [
    "DISAGGREGATED",
    "AggregatedStage",
    "Arrivals",
    "ClassicSizing",
    "DecodeStage",
    "Fact",
    "Lengths",
    "Load",
    "PercentileSizing",
    "PrefillQueue",
    "PrefillStage",
    "Requirement",
    "Routing",
    "fit_budget",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {},
    renamed={"DecodeBatch": "DecodeStage", "MixedStep": "AggregatedStage", "Need": "Requirement"},
    removed_in="0.3.0",
)
