"""TTFT and prefill throughput over ISL, for prompts that do not wait."""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from dynamo_planner.profiles.points import PrefillPoints, efficiency
from dynamo_planner.profiles.vectorize import Numbers, evaluate, last_within

Floats = NDArray[np.float64]

MIN_POWER, MAX_POWER = 1.0, 2.0
"""Range of the power of ISL by which TTFT grows beyond the longest prompt: projections are linear, attention is
quadratic."""

PIECES = 32
"""Straight pieces between two measured points, where the ISL at a TTFT is computed."""


class PrefillCurve:
    """TTFT and throughput over ISL.

    Between the points TTFT is a monotone cubic in the logarithms of both (PCHIP; Fritsch and Butland, *SIAM J. Sci.
    Stat. Comput.* 5, 1984), so it never overshoots and has no scale of its own. Below the shortest prompt it stays as
    it is there; beyond the longest it goes on as a power of ISL. Throughput is ranks * ISL / TTFT / GPUs, times the
    share of that which was measured.

    Queries are numbers or arrays; numbers give a number. A negative or NaN query raises ``ValueError``.

    >>> curve = PrefillCurve(PrefillPoints(isl=[128, 1024, 8192], ttft_ms=[10, 40, 400]))
    >>> round(curve.ttft_ms(1024), 6), curve.extrapolated(9000), curve.throughput([1024, 8192]).round().tolist()
    (40.0, True, [25600.0, 20480.0])
    >>> round(curve.max_isl(ttft_ms=40))
    1024
    """

    def __init__(self, points: PrefillPoints) -> None:
        order = np.argsort(points.isl)
        isl, ttft = np.asarray(points.isl)[order], np.asarray(points.ttft_ms)[order]
        self.points = points
        self._low, self._high = float(isl[0]), float(isl[-1])
        self._logs = np.log(isl)
        ideal = 1000 * points.ranks * np.asarray(points.isl) / np.asarray(points.ttft_ms)
        self._efficiency = efficiency(points, ideal)[order]
        self._cubic = PchipInterpolator(self._logs, np.log(ttft))
        self._power = float(np.clip(self._cubic(self._logs[-1], 1), MIN_POWER, MAX_POWER))
        self._knots: list[float] = self._logs.tolist()
        self._pieces: list[list[float]] = self._cubic.c.T.tolist()

    def ttft_ms(self, isl: Numbers) -> Any:
        """TTFT in ms of a prompt of ``isl`` tokens that does not wait."""
        return evaluate(self._ttfts, self._ttft, isl=isl)

    def throughput(self, isl: Numbers) -> Any:
        """Prompt tokens per second per GPU, for prompts of ``isl`` tokens one after the other on each rank."""
        return evaluate(self._throughputs, isl=isl)

    def extrapolated(self, isl: Numbers) -> Any:
        """Whether ``isl`` is shorter or longer than every prompt that was measured."""
        return evaluate(self._outside, self._is_outside, isl=isl)

    def max_isl(self, ttft_ms: Numbers) -> Any:
        """The longest prompt up to which every one has its first token within ``ttft_ms``; 0 where none has."""
        return evaluate(self._max_isls, ttft_ms=ttft_ms)

    def _ttft(self, isl: float) -> float:
        log = math.log(max(isl, self._low))
        beyond = max(log - self._knots[-1], 0.0)
        inside = log - beyond
        piece = min(bisect_right(self._knots, inside), len(self._pieces)) - 1
        a, b, c, d = self._pieces[piece]
        x = inside - self._knots[piece]
        return math.exp(((a * x + b) * x + c) * x + d + self._power * beyond)

    def _ttfts(self, isl: Floats) -> Floats:
        log = np.log(np.maximum(isl, self._low))
        beyond = np.maximum(log - self._logs[-1], 0.0)
        return np.asarray(np.exp(self._cubic(log - beyond) + self._power * beyond))

    @cached_property
    def _fine(self) -> tuple[Floats, Floats]:
        """Logarithms of ISL and TTFT, many between each two points."""
        isl = np.unique(np.concatenate([np.linspace(a, b, PIECES + 1) for a, b in pairwise(self._knots)]))
        return isl, self._cubic(isl)

    def _throughputs(self, isl: Floats) -> Floats:
        share = np.interp(np.log(np.maximum(isl, self._low)), self._logs, self._efficiency)
        return np.asarray(1000 * self.points.ranks * isl * share / (self._ttfts(isl) * self.points.gpus))

    def _is_outside(self, isl: float) -> bool:
        return not self._low <= isl <= self._high

    def _outside(self, isl: Floats) -> NDArray[np.bool_]:
        return (isl < self._low) | (isl > self._high)

    def _max_isls(self, ttft_ms: Floats) -> Floats:
        nodes, curve = self._fine
        target = np.log(np.maximum(ttft_ms, np.finfo(float).tiny))
        log, found = last_within(nodes, np.broadcast_to(curve, (len(target), len(curve))), target)
        beyond = np.where(log >= nodes[-1], np.maximum(target - curve[-1], 0.0) / self._power, 0.0)
        return np.where(found, np.exp(log + beyond), 0.0)
