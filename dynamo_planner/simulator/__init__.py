"""The discrete-event simulator of a cluster of engines.

``SimulatedCluster`` is a source and an executor on simulated time. ``engine/`` models one engine step by step; the
modules beside it serve requests on many: events, routing, the workers of each pool, transfers and what metrics show.
"""

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports

if TYPE_CHECKING:
    from dynamo_planner.simulator.cluster import SimulatedCluster
    from dynamo_planner.simulator.engine.engine import Engine, EngineLimits
    from dynamo_planner.simulator.engine.step_time import GridTiming, LinearTiming, ProfileTiming, StepTiming
    from dynamo_planner.simulator.setup import ClusterSetup, Faults, MetricsSetup, Outage, PoolSetup

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "SimulatedCluster": "cluster",
        "Engine": "engine.engine",
        "EngineLimits": "engine.engine",
        "GridTiming": "engine.step_time",
        "LinearTiming": "engine.step_time",
        "ProfileTiming": "engine.step_time",
        "StepTiming": "engine.step_time",
        "ClusterSetup": "setup",
        "Faults": "setup",
        "MetricsSetup": "setup",
        "Outage": "setup",
        "PoolSetup": "setup",
    },
)

__all__ = [
    "ClusterSetup",
    "Engine",
    "EngineLimits",
    "Faults",
    "GridTiming",
    "LinearTiming",
    "MetricsSetup",
    "Outage",
    "PoolSetup",
    "ProfileTiming",
    "SimulatedCluster",
    "StepTiming",
]
