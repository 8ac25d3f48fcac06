"""Steps that are all alike, taken together: where a run of them has got to at any time, in closed form."""

from __future__ import annotations

import math


class Run:
    """``steps`` steps from ``start_s`` on, the k-th of them lasting ``first_step_s + (k - 1) * growth_s`` seconds.

    No steps means that none are planned. The end of the n-th step is the sum of an arithmetic series, ``start_s + n *
    first_step_s + growth_s * n * (n - 1) / 2``.

    >>> run = Run()
    >>> run.plan(start_s=10.0, steps=4, first_step_s=1.0, growth_s=0.5)
    >>> [run.end_of(n) for n in (1, 2, 3, 4)], run.done(12.4), run.done(12.5)
    ([11.0, 12.5, 14.5, 17.0], 1, 2)
    """

    __slots__ = ("end_s", "first_step_s", "growth_s", "start_s", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.start_s = -math.inf
        self.end_s = -math.inf
        self.first_step_s = 0.0
        self.growth_s = 0.0

    def plan(self, start_s: float, steps: int, first_step_s: float, growth_s: float) -> None:
        """Plan a run; each of its steps lasts longer than 0."""
        self.start_s = start_s
        self.steps = steps
        self.first_step_s = first_step_s
        self.growth_s = growth_s
        self.end_s = self.end_of(steps)

    def end_of(self, step: int) -> float:
        """When the step of this number ends; the first is number 1."""
        return self.start_s + step * self.first_step_s + self.growth_s * (step * (step - 1) // 2)

    def done(self, at_s: float) -> int:
        """How many steps have ended by ``at_s``."""
        if not self.steps or at_s < self.end_of(1):
            return 0
        if at_s >= self.end_s:
            return self.steps
        elapsed_s = at_s - self.start_s
        half = self.first_step_s - self.growth_s / 2
        root = math.sqrt(max(half * half + 2 * self.growth_s * elapsed_s, 0.0))
        step = min(int(2 * elapsed_s / (half + root)), self.steps)
        while self.end_of(step) > at_s:  # what rounding did to the root
            step -= 1
        while self.end_of(step + 1) <= at_s:
            step += 1
        return step

    def cut(self, at_s: float) -> None:
        """End the run with the step that is in progress at ``at_s``, or at ``at_s`` where one has just ended."""
        done = self.done(at_s)
        steps = done if done and self.end_of(done) == at_s else done + 1
        if steps < self.steps:
            self.steps = steps
            self.end_s = self.end_of(steps)
