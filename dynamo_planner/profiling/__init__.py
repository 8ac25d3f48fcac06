"""Measuring an engine until its profile is known well enough.

- :mod:`~dynamo_planner.profiling.engine`: the protocol that is measured; ``simulated`` has the simulator's engine.
- :mod:`~dynamo_planner.profiling.session`: the loop that a caller iterates over.
- :mod:`~dynamo_planner.profiling.plan`: which experiment is next; ``experiments`` builds them, ``capacity`` finds how
  many tokens the KV cache holds.
- :mod:`~dynamo_planner.profiling.readings`: points from the times of tokens.
- :mod:`~dynamo_planner.profiling.fit`: curves without noise, and their errors; ``measured`` holds it all.
- :mod:`~dynamo_planner.profiling.verification`: whether the profile predicts a load that it was not measured with.

>>> from dynamo_planner.profiling.experiments import Domain
>>> from dynamo_planner.simulator.engine.engine import EngineLimits
>>> from dynamo_planner.simulator.engine.step_time import LinearTiming
>>> law = LinearTiming(base_ms=10, prefill_ms_per_token=0.05, kv_ms_per_token=1e-4)
>>> engine = SimulatedEngine(law, EngineLimits(max_num_seqs=8, max_num_batched_tokens=1024, kv_tokens=30_000))
>>> limits = Limits(kv_tokens=30_000, max_num_batched_tokens=1024)
>>> domain = Domain(max_isl=4000, max_context=4000, max_batch=8, kv_tokens=30_000, step_tokens=1024)
>>> *_, last = measure(engine, domain, Goal(minutes=0.3), Measured(limits=limits))
>>> round(last.measured.profile().decode.step_ms(4, 1000), 1)  # 10 + 1e-4 * 4 * 1000
10.4
"""

from dynamo_planner.profiling.engine import Answer, Answers, Burst, Engine, Limits, ProfilingError, Prompt
from dynamo_planner.profiling.measured import Measured
from dynamo_planner.profiling.session import Goal, Progress, measure
from dynamo_planner.profiling.simulated import NoisyTiming, SimulatedEngine

__all__ = [
    "Answer",
    "Answers",
    "Burst",
    "Engine",
    "Goal",
    "Limits",
    "Measured",
    "NoisyTiming",
    "ProfilingError",
    "Progress",
    "Prompt",
    "SimulatedEngine",
    "measure",
]
