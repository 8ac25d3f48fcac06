"""Classic sizing, as in Dynamo's SLA planner 0.5.1: mean rates over the throughput of an engine that is always busy."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.interpolate import griddata, interp1d
from scipy.spatial import QhullError

from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.profiles import Profile, ProfileError
from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.doubts import doubts_of
from dynamo_planner.sizing.load import Load
from dynamo_planner.sizing.result import DISAGGREGATED, Fact, Requirement

CELLS = 100
"""Cells of the grid over KV usage and over context, as in Dynamo 0.5.1."""

MIN_SPLINE_POINTS = 4
"""Prompts that a cubic spline takes."""


class ClassicSizing:
    """Prefill and decode replicas by the formulas of Dynamo 0.5.1 (``planner_core.py``, ``perf_interpolation.py``).

    ::

        prefill replicas = ceil(r isl k / (P(isl) gpus))
        decode replicas  = ceil(r osl / (D(itl_ms / k, isl + osl / 2) gpus))

    ======  ==============================================================================================
    symbol  meaning
    ======  ==============================================================================================
    r       requests per second
    k       correction of the role: observed over expected latency
    P(isl)  prompt tokens/s per GPU, by a cubic spline over ISL
    D(t,c)  highest output tokens/s per GPU that keeps an ITL of t at context c, by a cubic ``griddata`` on 100 by 100
            cells of KV usage and context, of which the nearest is looked up
    ======  ==============================================================================================

    Args:
        profile: the measured profile, with at least 4 prompts and decode points that are not on one line.
        defects: whether the known defects below are reproduced. Default False.

    Known defects of 0.5.1:

    - The correction of prefill can only make it smaller (``min(1, correction)``).
    - An ITL that comes down again at a higher KV usage is taken for capacity.
    - Without requests there is no answer (an empty mapping), so that nothing is ever scaled down to idle. The correct
      answer is no replica, and the minimum of the pool.
    - :func:`fit_budget` rounds half to even, and raises to the minimum after it has shared out the budget, both of
      which can go over the budget.
    - A negative forecast counts as it is. Here :class:`~dynamo_planner.sizing.arrivals.Arrivals` refuses it.

    Without the defects the method is left: means rather than percentiles, engines that are always busy, no waiting.

    >>> sizing = ClassicSizing(Profile.bundled("llama31-8b_h100_vllm_tp1"))
    >>> required = sizing.replicas_for(Load.of(requests_per_s=40, isl=3000, osl=300), Sla(ttft_ms=500, itl_ms=20))
    >>> {role: each.replicas for role, each in required.items()}
    {'prefill': 3, 'decode': 3}
    """

    def __init__(self, profile: Profile, defects: bool = False) -> None:
        self.profile, self.defects = profile, defects
        prefill, decode = profile.prefill_points, profile.decode_points
        if len(prefill.isl) < MIN_SPLINE_POINTS:
            raise ProfileError(
                f"profile {profile.name!r} has {len(prefill.isl)} prompts: a cubic spline needs {MIN_SPLINE_POINTS}"
            )
        order = np.argsort(prefill.isl)
        isl, ttft = np.asarray(prefill.isl)[order], np.asarray(prefill.ttft_ms)[order]
        throughput = _measured(prefill.throughput_per_gpu, order, 1000 * prefill.ranks * isl / ttft / prefill.gpus)
        self._shortest, self._longest = float(isl[0]), float(isl[-1])
        self._ttft_ms = interp1d(isl, ttft, kind="cubic")
        self._prompt_tokens = interp1d(isl, throughput, kind="cubic")
        usage, context = np.asarray(decode.kv_usage), np.asarray(decode.context)
        tokens = 1000 * np.asarray(decode.batch) / np.asarray(decode.itl_ms) / decode.gpus
        output = _measured(decode.throughput_per_gpu, np.arange(len(usage)), tokens)
        self._contexts = np.linspace(0.0, context.max(), CELLS)
        self._itl_ms = self._grid(usage, context, np.asarray(decode.itl_ms))
        self._output_tokens = self._grid(usage, context, output)

    def replicas_for(
        self,
        load: Load,
        sla: Sla,
        roles: tuple[Role, ...] = DISAGGREGATED,
        service_factor: Mapping[Role, float] | None = None,
        near: Mapping[Role, int] | None = None,
    ) -> dict[Role, Requirement]:
        """The replicas of each role. ``service_factor`` takes the :meth:`corrections`; ``near`` has no effect.

        Raises ``ValueError`` for aggregated replicas, which Dynamo 0.5.1 does not have.
        """
        if "aggregated" in roles:
            raise ValueError("ClassicSizing knows no aggregated replicas: use PercentileSizing")
        if self.defects and not load.arrivals.requests_per_s:
            return {}
        factors = service_factor or {}
        return {role: self._required(role, load, sla, factors.get(role, 1.0)) for role in roles}

    def attainable(
        self,
        load: Load,
        sla: Sla,
        replicas: Mapping[Role, npt.ArrayLike],
        service_factor: Mapping[Role, float] | None = None,
    ) -> Floats:
        """The share of the tokens that these replicas can compute in time on average, for arrays of counts too.

        The method says nothing more of the share of requests that meet the SLA.
        """
        required = self.replicas_for(load, sla, tuple(replicas), service_factor)
        shares = [
            np.minimum(np.asarray(count) / max(required[role].load, 1e-12), 1.0) if role in required else np.ones(1)
            for role, count in replicas.items()
        ]
        return np.asarray(np.minimum.reduce(np.broadcast_arrays(*shares)))

    def corrections(
        self,
        *,
        requests_per_s: float,
        isl: float,
        osl: float,
        ttft_ms: float,
        itl_ms: float,
        request_duration_s: float,
        decode_replicas: int,
    ) -> dict[Role, float]:
        """Observed over expected TTFT and ITL, of one interval.

        A TTFT that contains waiting is taken for a slow engine, which is why ``PercentileSizing`` does not learn so.
        """
        concurrency = requests_per_s / max(decode_replicas, 1) * request_duration_s
        context = isl + osl / 2
        usage = concurrency * context / self.profile.decode_points.max_kv_tokens
        expected = self._itl_ms[self._row(context), int(np.clip(round(usage * (CELLS - 1)), 0, CELLS - 1))]
        return {"prefill": ttft_ms / float(self._ttft_ms(self._inside(isl))), "decode": itl_ms / float(expected)}

    def _required(self, role: Role, load: Load, sla: Sla, correction: float) -> Requirement:
        rate = load.arrivals.requests_per_s
        if role == "prefill":
            factor = min(1.0, correction) if self.defects else correction
            isl = self._inside(load.computed.mean)
            busy = rate * load.computed.mean * factor / float(self._prompt_tokens(isl))
            busy /= self.profile.prefill_points.gpus
            outside, limit, met = isl != load.computed.mean, "stability", True
        else:
            itl_ms = sla.itl_ms if correction <= 0 else sla.itl_ms / correction
            context = load.isl.mean + load.osl.mean / 2
            tokens, met = self._best(itl_ms, context)
            busy = rate * load.osl.mean / tokens / self.profile.decode_points.gpus
            outside, limit = context > self._contexts[-1], "itl"
        replicas = math.ceil(busy)
        fact = Fact("Sized", f"{busy:.3g} {role} replicas would be busy all the time", {"load": busy})
        facts = (fact, *doubts_of(self.profile, role))
        return Requirement(role, busy, replicas, 1.0, float(not met), limit, outside, facts)

    def _best(self, itl_ms: float, context: float) -> tuple[float, bool]:
        """Tokens/s per GPU at the highest KV usage that keeps the ITL, and whether any does."""
        row, tokens = self._itl_ms[self._row(context)], self._output_tokens[self._row(context)]
        within = row <= itl_ms
        if not self.defects:
            within = np.logical_and.accumulate(within)
            # An empty cache makes no tokens; it stands for a single request, where there is no measured cell.
            within &= tokens > 0
        found = np.flatnonzero(within)
        cell = int(found[-1]) if found.size else 0
        return max(float(tokens[cell]), 1e-9), bool(found.size)

    def _inside(self, isl: float) -> float:
        return float(np.clip(isl, self._shortest, self._longest))

    def _row(self, context: float) -> int:
        return int(np.clip(round(context / float(self._contexts[1])), 0, CELLS - 1))

    def _grid(self, usage: Floats, context: Floats, values: Floats) -> Floats:
        """Shape (contexts, usages)."""
        where = np.column_stack([usage, context])
        cells = tuple(np.meshgrid(np.linspace(0.0, 1.0, CELLS), self._contexts))
        try:
            cubic = griddata(where, values, cells, method="cubic")
        except QhullError:
            raise ProfileError(
                f"the decode points of profile {self.profile.name!r} are on one line, through which there is no cubic "
                "surface: measure several contexts, or use PercentileSizing"
            ) from None
        return np.asarray(np.where(np.isnan(cubic), griddata(where, values, cells, method="nearest"), cubic))


def fit_budget(
    prefill: int,
    decode: int,
    max_gpus: int,
    *,
    prefill_gpus: int = 1,
    decode_gpus: int = 1,
    min_replicas: int = 1,
    defects: bool = False,
) -> tuple[int, int]:
    """Prefill and decode replicas shrunk in proportion until they fit into the budget.

    Without ``defects`` counts are rounded down, never raised, and never over the budget, also where the minimum is:
    41 GPUs in the example with them.

    >>> fit_budget(10, 1, 40, prefill_gpus=8), fit_budget(10, 1, 40, prefill_gpus=8, defects=True)
    ((4, 1), (5, 1))
    """
    prefill, decode = max(prefill, min_replicas), max(decode, min_replicas)
    total = prefill * prefill_gpus + decode * decode_gpus
    if total <= max_gpus:
        return prefill, decode
    share = max_gpus / total
    if defects:
        fewer = max(min_replicas, round(prefill * share))
        return fewer, max(min_replicas, round((max_gpus - fewer * prefill_gpus) / decode_gpus))
    left = max_gpus - min(min_replicas, decode) * decode_gpus
    fewer = max(min(max(math.floor(prefill * share), min_replicas), left // prefill_gpus), 0)
    return fewer, max(min(decode, (max_gpus - fewer * prefill_gpus) // decode_gpus), 0)


def _measured(values: tuple[float, ...] | None, order: npt.NDArray[np.intp], otherwise: Floats) -> Floats:
    return otherwise if values is None else np.asarray(values)[order]
