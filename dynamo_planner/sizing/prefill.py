"""Prefill sizing: the queue of prompts with the service times of a profile, under a TTFT target."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.arrivals import Arrivals
from dynamo_planner.sizing.batching import PromptSteps
from dynamo_planner.sizing.load import Load
from dynamo_planner.sizing.prompt_queue import PrefillQueue
from dynamo_planner.sizing.stage import Stage
from dynamo_planner.sizing.waiting import Routing

MIN_TARGET_S = 1e-6
"""Shortest target, in seconds, where the KV transfer takes all of it."""

FINE_LENGTHS = 256
"""Lengths in a sample that has to show the rare longest prompts."""


class PrefillStage(Stage):
    """Prompts with the service times of a profile, under a TTFT target.

    Args:
        steps: how long prompts take, and the steps that compute them.
        load: lengths, prefix hit rate and KV transfer.
        sla: the targets.
        factor: how much longer prompts take than the profile says. Default 1.
        routing: which replica a prompt goes to. Default ``least_loaded``.
    """

    def __init__(
        self,
        steps: PromptSteps,
        load: Load,
        sla: Sla,
        factor: float = 1.0,
        routing: Routing = "least_loaded",
    ) -> None:
        # What is late is late for being long, or behind the longest prompts, however rare they are.
        tokens = load.computed.finer(FINE_LENGTHS)
        within_s = (sla.ttft_ms - load.kv_transfer_ms) / 1000
        service_s, batching = steps.prompts(tokens, factor, within_s)
        self._ranks = steps.curve.points.ranks  # each is a server of its own
        self.extrapolated = bool(steps.curve.extrapolated(load.computed.mean))
        self.unattainable = float(np.mean(service_s > within_s))
        self.residence_s = float(service_s.mean())
        self._queue = PrefillQueue(Arrivals(0.0), service_s, max(within_s, MIN_TARGET_S), routing, batching)

    def _at(self, arrivals: Arrivals) -> PrefillQueue:
        if self._queue.arrivals is not arrivals:
            self._queue = self._queue.at(arrivals)
        return self._queue

    def load(self, arrivals: Arrivals) -> float:
        return self._at(arrivals).load / self._ranks

    def attainable(self, arrivals: Arrivals, replicas: npt.ArrayLike) -> Floats:
        if self.unattainable == 1:
            return np.zeros(np.shape(replicas))
        return self._at(arrivals).attainable(np.asarray(replicas) * self._ranks)

    def binding(self, arrivals: Arrivals, replicas: int) -> str:
        return "waiting"
