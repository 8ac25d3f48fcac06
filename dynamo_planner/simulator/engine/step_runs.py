"""Steps that are all alike, taken together: where a run of them has got to at any time, in closed form.

The k-th of ``steps`` steps from ``start_s`` on lasts ``first_step_s + (k - 1) * growth_s``, so the end of the n-th is
the sum of an arithmetic series: ``start_s + n * first_step_s + growth_s * n * (n - 1) / 2``.

>>> run = EngineState(1, 1, 1)
>>> run.start_s = 10.0
>>> plan_run(run, steps=4, first_step_s=1.0, growth_s=0.5)
>>> [end_of(run, n) for n in (1, 2, 3, 4)], done(run, 12.4), done(run, 12.5)
([11.0, 12.5, 14.5, 17.0], 1, 2)
"""

from __future__ import annotations

import math

from dynamo_planner.simulator.engine.state import EngineState


def end_of(e: EngineState, step: int) -> float:
    """When the step of the run of this number ends; the first is number 1."""
    return e.start_s + step * e.first_step_s + e.growth_s * (step * (step - 1) // 2)


def done(e: EngineState, at_s: float) -> int:
    """How many steps of the run have ended by ``at_s``."""
    if not e.steps or at_s < end_of(e, 1):
        return 0
    if at_s >= e.end_s:
        return e.steps
    elapsed_s = at_s - e.start_s
    half = e.first_step_s - e.growth_s / 2
    root = math.sqrt(max(half * half + 2 * e.growth_s * elapsed_s, 0.0))
    step = min(int(2 * elapsed_s / (half + root)), e.steps)
    while end_of(e, step) > at_s:  # what rounding did to the root
        step -= 1
    while end_of(e, step + 1) <= at_s:
        step += 1
    return step


def plan_run(e: EngineState, steps: int, first_step_s: float, growth_s: float) -> None:
    """Plan a run from ``start_s`` on; each of its steps lasts longer than 0."""
    e.steps = steps
    e.first_step_s = first_step_s
    e.growth_s = growth_s
    e.end_s = end_of(e, steps)


def cut_run(e: EngineState, at_s: float) -> None:
    """End the run with the step that is in progress at ``at_s``, or at ``at_s`` where one has just ended."""
    ended = done(e, at_s)
    steps = ended if ended and end_of(e, ended) == at_s else ended + 1
    if steps < e.steps:
        e.steps = steps
        e.end_s = end_of(e, steps)
