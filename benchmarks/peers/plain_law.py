"""A plain law with head-room: the work that comes, smoothed and with its trend, times a factor, kept for a while.

The floor for every cleverer policy: two straight lines through the profile, no percentiles, no forecaster.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from dynamo_planner import Policy, Profile, Proposal, Sla, Snapshot, Want
from dynamo_planner.core.values import Frozen

LENGTHS_COUNT = 50
"""So many finished requests make the means of lengths anew; fewer, in proportion."""

QUEUE_S = 10.0
"""A queue is to be worked off in so many seconds."""

CLOCK_S = 1e-3
"""Seconds as floats are good to less than this."""


class PlainMemory(Frozen):
    """Windows of arrivals as (end, requests, seconds), the work that was wanted as (when, prefill, decode), lengths."""

    windows: tuple[tuple[float, float, float], ...] = ()
    works: tuple[tuple[float, float, float], ...] = ()
    isl: float | None = None
    osl: float | None = None


class PlainLaw(Policy):
    """``factor * rate * seconds of work per request``, of each role, and the largest of that in the last ``hold_s``.

    The rate is that of the last ``smooth_s``; where it is more than that of the ``smooth_s`` before, it is taken to go
    on so for the time that starts take.
    """

    sla: Sla
    profile: Profile
    max_num_seqs: int
    prefill_factor: float = 1.6
    decode_factor: float = 1.0
    hold_s: float = 240.0
    smooth_s: float = 30.0

    state_type: ClassVar[Any] = PlainMemory

    @cached_property
    def prompt_s(self) -> tuple[float, float]:
        """Seconds per prompt token, and per prompt."""
        slope, fixed = np.polyfit(self.profile.prefill_points.isl, self.profile.prefill_points.ttft_ms, 1) / 1000
        return float(slope), max(float(fixed), 0.0)

    @cached_property
    def step_s(self) -> tuple[float, float, float]:
        """Seconds per step, per request in the batch, and per token of the context of one."""
        points = self.profile.decode_points
        held = np.multiply(points.kv_usage, points.max_kv_tokens)
        columns = np.column_stack([np.ones_like(held), points.batch, held])
        base, request, token = np.linalg.lstsq(columns, np.divide(points.itl_ms, 1000), rcond=None)[0]
        return float(base), float(request), float(token)

    def propose(self, snapshot: Snapshot, state: PlainMemory | None) -> tuple[Proposal, PlainMemory]:
        memory = self._remembered(snapshot, state or PlainMemory())
        if memory.isl is None or memory.osl is None:
            return Proposal.hold(snapshot.pools, "no request has finished", "MetricUnknown"), memory
        if sum(window[2] for window in memory.windows) < 2 * self.smooth_s - CLOCK_S:
            return Proposal.hold(snapshot.pools, "the trend is not known yet", "Collecting"), memory
        works = (*memory.works, (snapshot.at_s, *self._work(snapshot, memory, memory.isl, memory.osl)))
        works = tuple(work for work in works if work[0] >= snapshot.at_s - self.hold_s)
        largest = {role: max(work[index] for work in works) for role, index in (("prefill", 1), ("decode", 2))}
        wants = {role: Want(max(int(np.ceil(work)), 1), load=work) for role, work in largest.items()}
        return Proposal(pools=wants), memory.replace(works=works)

    def _remembered(self, snapshot: Snapshot, before: PlainMemory) -> PlainMemory:
        traffic, at_s = snapshot.traffic, snapshot.at_s
        windows = before.windows
        if traffic.requests_per_s is not None and traffic.window_s:
            windows = (*windows, (at_s, traffic.requests_per_s * traffic.window_s, traffic.window_s))
        lengths: dict[str, float | None] = {}
        for field in ("isl", "osl"):
            mean, seen = getattr(before, field), getattr(traffic, field)
            if seen is not None:
                weight = 1.0 if mean is None else min((seen.count or 0) / LENGTHS_COUNT, 1.0)
                mean = (mean or 0.0) * (1 - weight) + weight * seen.mean
            lengths[field] = mean
        young = tuple(window for window in windows if window[0] > at_s - 2 * self.smooth_s)
        return before.replace(windows=young, **lengths)

    def _work(self, snapshot: Snapshot, memory: PlainMemory, isl: float, osl: float) -> tuple[float, float]:
        """Replicas of prefill and of decode for the rate that is to come."""
        at_s, prefill = snapshot.at_s, snapshot.pools["prefill"]

        def rate(windows: list[tuple[float, float, float]]) -> float:
            seconds = sum(window[2] for window in windows)
            return sum(window[1] for window in windows) / seconds if seconds else 0.0

        recent = rate([window for window in memory.windows if window[0] > at_s - self.smooth_s])
        before = rate([window for window in memory.windows if window[0] <= at_s - self.smooth_s])
        rising = max(recent - before, 0.0) / self.smooth_s / 2
        coming = recent + rising * prefill.spec.startup_s
        (per_token, per_prompt), (base, per_request, per_held) = self.prompt_s, self.step_s
        service_s = per_prompt + per_token * isl
        context, itl_s = isl + osl / 2, (self.sla.itl_ms or 0.0) / 1000
        in_time = max((itl_s - base) / max(per_request + per_held * context, 1e-9), 1.0)
        batch = min(self.max_num_seqs, self.profile.decode_points.max_kv_tokens / context, in_time)
        backlog = (prefill.queued or 0.0) * service_s / QUEUE_S
        return self.prefill_factor * coming * service_s + backlog, self.decode_factor * coming * osl * itl_s / batch
