"""Prefill replicas for prompts of a profile: the queue of :mod:`dynamo_planner.sizing.prefill` with its times."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.profiles import PrefillCurve
from dynamo_planner.sizing.arrivals import Arrivals
from dynamo_planner.sizing.load import Load
from dynamo_planner.sizing.prefill import PrefillQueue, Routing
from dynamo_planner.sizing.queueing import Floats

_LEAST_S = 1e-6

_FINE = 256


class Prompts:
    """Prompts that are to have their first token within the TTFT target; ``factor`` is how much longer they take than
    the profile says."""

    def __init__(
        self, curve: PrefillCurve, load: Load, sla: Sla, factor: float = 1.0, routing: Routing = "least_loaded"
    ) -> None:
        # With a queue for each replica, what is late is late behind the longest prompts, however rare they are.
        tokens = load.computed.values if routing == "least_loaded" else load.computed.finer(_FINE)
        self._service_s = np.maximum(curve.ttft_ms(tokens) * (factor / 1000), _LEAST_S)
        self._within_s = (sla.ttft_ms - load.kv_transfer_ms) / 1000
        self.extrapolated = bool(curve.extrapolated(np.array([load.computed.mean]))[0])
        self.hopeless = float(np.mean(self._service_s > self._within_s))
        self._queue = PrefillQueue(Arrivals(0.0), self._service_s, max(self._within_s, _LEAST_S), routing)

    def load(self, arrivals: Arrivals) -> float:
        """Replicas that are busy on average."""
        return self._queue.at(arrivals).load

    def attainable(self, arrivals: Arrivals, replicas: npt.ArrayLike) -> Floats:
        """The share of the prompts with a chance that are in time, for each number of replicas."""
        counts = np.asarray(replicas)
        return np.zeros(counts.shape) if self.hopeless == 1 else self._queue.at(arrivals).attainable(counts)

    def replicas_for(self, arrivals: Arrivals, attainment: float, near: int | None = None) -> tuple[int, float]:
        """The fewest replicas with which at least this share is in time, looked for around ``near`` first, and the
        share that they attain; without hope, those that keep up."""
        queue = self._queue.at(arrivals)
        if self.hopeless == 1:
            return math.floor(queue.load) + 1 if queue.load else 0, 0.0
        return queue.sized(attainment, near)

    def binding(self, arrivals: Arrivals, replicas: int) -> str:
        """What binds: there is only the waiting."""
        return "waiting"
