"""How many aggregated replicas suffice: prompts and decoding share each step (chunked prefill).

At a steady state a replica computes ``isl / osl`` prompt tokens for each token that it makes, so a batch of ``b`` takes
steps of ``T(b) + b * isl / osl * d(b)`` ms on average, where ``d`` is what a prompt token makes a step longer. With
these steps the ITL is that of :mod:`dynamo_planner.sizing.decode`; that prompts come in lumps is a variance of its own.

A prompt waits for those before it on its replica, which work through their chunks one after the other: the tail of the
wait is ``rho exp(-2 (1 - rho) t / (s (I + c_s**2)))`` (Allen & Cunneen with one server), over the rates that the
arrivals have over times as long as TTFT may be.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.sizing.arrivals import LEAST_DISPERSION, Arrivals
from dynamo_planner.sizing.concurrency import CLASSES, Lives
from dynamo_planner.sizing.decode import DecodeBatch, context_in_flight
from dynamo_planner.sizing.load import Lengths, Load
from dynamo_planner.sizing.queueing import Floats
from dynamo_planner.sizing.search import fewest
from dynamo_planner.sizing.step_curves import DecodeCurves, MixedCurves

CAUTION = 1.1
"""As in :mod:`dynamo_planner.sizing.decode`."""

_SLACKS = 12


class MixedStep:
    """Requests on replicas whose steps compute ``chunk_tokens`` at most, of decoding requests and then of prompts.

    ``factor`` is how much longer steps take than the profile says. ``hopeless`` is the share of requests that miss a
    target with nobody beside them.
    """

    def __init__(
        self,
        curves: DecodeCurves,
        mixed: MixedCurves,
        load: Load,
        sla: Sla,
        chunk_tokens: int,
        factor: float = 1.0,
    ) -> None:
        isl, osl, prompts = load.isl, load.osl, load.computed
        context = context_in_flight(isl, osl)[0]
        steps = curves.at(context, factor)
        per_token = prompts.mean / max(osl.mean, 1.0)  # prompt tokens for each token made
        self.most = chunk_tokens / (1 + per_token)
        typical = prompts.mean * (1 + prompts.cv2) if prompts.mean else 1.0
        lump = min(max(typical, 16.0), max(chunk_tokens - 1.0, 16.0))
        with_prompts = mixed.step_ms(lump, steps.batches, context) * factor
        each_ms = np.maximum(with_prompts - steps.step_ms, 0.0) / lump
        # A request sees the prompts of the others; the replica has to compute all of them.
        seen_ms = steps.step_ms + (steps.batches - 1) * per_token * each_ms
        steps = steps._replace(
            step_ms=seen_ms,
            pace_ms=steps.step_ms + steps.batches * per_token * each_ms,
            per_context=steps.per_context * steps.step_ms / seen_ms,
        )
        at_limit = int(np.argmin(np.abs(steps.step_ms - sla.itl_ms)))
        longer = Lengths(prompts.mean * float(each_ms[at_limit]), prompts.cv2, prompts.values)
        prompts_ms = per_token * steps.batches[at_limit] * float(each_ms[at_limit])
        at_once = prompts_ms / max(float(steps.step_ms[at_limit] - steps.step_ms[0]), prompts_ms, 1e-9)
        self.flight = DecodeBatch(
            steps, curves.room_tokens, isl, osl, sla.itl_ms, longer, at_once, most=max(self.most, 1.0)
        )
        self.osl = osl

        # A prompt alone in the queue: its chunks, after the step that is under way.
        batch = self.flight.batch
        left = max(chunk_tokens - batch, 1.0)
        full_ms = float(mixed.step_ms(max(left, 16.0), np.array([batch]), context)[0]) * factor
        own_ms = float(np.interp(batch, steps.batches, each_ms))
        pure_ms = max(full_ms - own_ms * left, 0.1)
        chunks = np.ceil(np.maximum(prompts.values, 1.0) / left)
        self._service_ms = prompts.values / left * full_ms
        alone_ms = chunks * pure_ms + own_ms * prompts.values
        left_ms = sla.ttft_ms - load.kv_transfer_ms - alone_ms
        chance = left_ms > 0
        self.hopeless = 1 - (1 - self.flight.hopeless) * float(chance.mean())
        under_way_ms = float(np.interp(batch, steps.batches, steps.step_ms)) / 2
        self._slacks_s = np.maximum(left_ms[chance] - under_way_ms, 0.0)[:: max(1, int(chance.sum()) // _SLACKS)] / 1000
        self._recent = Lives(np.full(CLASSES, max(float(self._slacks_s.mean()), 1e-3) if chance.any() else 1.0), 1.0)
        self.extrapolated = self.flight.extrapolated or chunk_tokens > mixed.most_prompt_tokens

    def load(self, arrivals: Arrivals) -> float:
        """How many replicas would do if all were as full as they may be all the time."""
        return self.flight.load(arrivals)

    def missed(self, arrivals: Arrivals, counts: Floats) -> Floats:
        """The share of requests over each limit (rows: ITL, KV, waiting), for each count."""
        return np.vstack([self.flight.missed(arrivals, counts), self._late(arrivals, counts)])

    def binding(self, arrivals: Arrivals, replicas: int) -> str:
        """The limit that most of the requests that miss one are over."""
        names = [*(limit.name for limit in self.flight.limits), "waiting"]
        return names[int(self.missed(arrivals, np.array([float(replicas)]))[:, 0].argmax())]

    def attainable(self, arrivals: Arrivals, replicas: npt.ArrayLike) -> Floats:
        """The share of the requests with a chance that meet both targets, for each number of replicas."""
        counts = np.asarray(replicas, float)
        missed = self.missed(arrivals, counts.ravel()).sum(axis=0)
        return np.asarray(1 - np.minimum(CAUTION * missed, 1.0).reshape(counts.shape))

    def replicas_for(self, arrivals: Arrivals, attainment: float, near: int | None = None) -> tuple[int, float]:
        """The fewest replicas with which at least this share meets both, looked for around ``near`` first, and
        the share that they attain; without hope, those that keep up."""
        least = math.floor(self.load(arrivals)) + 1 if self.load(arrivals) else 0
        if not least or self.hopeless == 1:
            return least, 1.0 - self.hopeless
        return fewest(lambda counts: self.attainable(arrivals, counts), attainment, least, near)

    def _late(self, arrivals: Arrivals, counts: Floats) -> Floats:
        rate = arrivals.requests_per_s / np.maximum(counts, 1e-9)
        if not self.load(arrivals) or not self._slacks_s.size:
            return np.full(len(counts), float(not self._slacks_s.size))
        seen = self._recent.seen(arrivals)
        mean_s = max(float(self._service_ms.mean()) / 1000, 1e-9)
        variation = float(self._service_ms.var()) / 1e6 / mean_s**2
        busy = rate[:, None] * seen.now * mean_s  # (counts, levels)
        fresh = max(arrivals.dispersion, LEAST_DISPERSION) * (1 - seen.captured)
        dispersion = 1 + (fresh - 1) / np.maximum(counts, 1.0)
        pace = 2 * np.maximum(1 - busy, 0.0) / (mean_s * (dispersion + variation))[:, None]
        tail = np.minimum(busy, 1.0)[..., None] * np.exp(-np.minimum(pace[..., None] * self._slacks_s, 700.0))
        return np.asarray((tail.mean(axis=2) * seen.now_shares).sum(axis=1))
