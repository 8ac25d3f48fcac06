"""A lower bound on the replica time of a request on an engine, however it is batched.

A step of p prompt tokens and a token each of d requests, which attend to k tokens of context, is taken to last at least
(:func:`step_floor`)::

    step >= base + x p + y d + z k

A request then pays at least, for each token and its share of the base::

    prompt token          decoded token
    x + x base / largest  y + z context + u base / min(T - base, largest)    by what the target lets into a step
    x                     y + z context + base context / kv_tokens           by KV cache
    x                     y + z context + base / max_num_seqs                by places in the batch

| symbol | meaning |
|---|---|
| base, x, y, z | the coefficients of the floor, in ms |
| largest | what the largest step takes beyond the base, in ms |
| context | the tokens before this one, prompt included |
| T | the ITL target, in ms |
| u | y + z isl, what a decoded token takes itself at the least |

Each way to share gives a step no more than the whole base; the one that gives the most over all requests holds. The
first holds because a token in a step of duration T pays at least ``u base / (T - base)``, which is convex in T: over
the tokens of a request whose mean is the target, it is least where all steps last equally long (Jensen). With a base of
10 ms, u = 0.1 ms and a target of 25 ms, a token pays 0.1 + 0.1 * 10 / 15 = 0.167 ms: a step of 25 ms has 150 requests,
which share it. ``T - base`` is at least 1e-9 ms: a target of 8 ms, which no step meets, costs without bound.

So the work is a lower bound in a simulator whose steps last that long, and near what a full replica does where steps
are nearly linear.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.evaluation.lower_bound import PoolWork
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import StepTiming
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.trace import Trace

Floats = NDArray[np.float64]

GRID = 16
"""Steps are compared on a grid of this many values each of prompt tokens, requests and context."""

CELL_TOKENS = 64
"""Prompt tokens between two points of a step time, as in the simulator's tables."""

TRIALS = 500
"""Steps drawn at random to see that what holds on the grid holds between its points."""


class StepFloor(NamedTuple):
    """A linear lower bound on step times, in ms.

    Args:
        base_ms: what each step takes.
        per_token: what it takes more per prompt token.
        per_request: what it takes more per request that decodes.
        per_kv: what it takes more per token of context.
    """

    base_ms: float
    per_token: float
    per_request: float
    per_kv: float

    def ms(self, tokens: Floats, requests: Floats, kv: Floats) -> Floats:
        """The least duration of steps, in ms."""
        return self.base_ms + self.per_token * tokens + self.per_request * requests + self.per_kv * kv


def step_floor(timing: StepTiming, limits: EngineLimits, role: Role, context: float, itl_ms: float) -> StepFloor:
    """The linear function below every step that comes closest to the steps that matter.

    Those are full prompt steps and, for decode, steps of ``context`` tokens a request that last about ``itl_ms``.
    """
    tokens, requests, kv = _grid(limits, role)
    lasts = _ms(timing, tokens, requests, kv)
    terms = np.column_stack([np.ones_like(lasts), tokens, requests, kv])
    matters = _weights(limits, role, (tokens, requests, kv), lasts, context, itl_ms)
    size = terms.max(axis=0)
    size[size == 0] = 1.0
    scaled = terms / size / lasts[:, None]
    found = linprog(-(matters @ scaled), A_ub=scaled, b_ub=np.ones(len(lasts)), bounds=(0, None), method="highs")
    floor = StepFloor(*(found.x / size).tolist())
    random = np.random.default_rng(0)
    trial = [random.choice(axis, TRIALS) for axis in (tokens, requests)]
    trial_kv = np.where(trial[1] > 0, trial[1] + random.random(TRIALS) * (limits.kv_tokens - trial[1]), 0.0)
    steps = (trial[0], trial[1], np.floor(trial_kv))
    possible = (steps[0] + steps[1] > 0) & (steps[0] + steps[1] <= limits.max_num_batched_tokens)
    steps = tuple(column[possible] for column in steps)
    over = float(np.max(floor.ms(*steps) / _ms(timing, *steps), initial=1.0))
    return StepFloor(*(part / over for part in floor))


def _grid(limits: EngineLimits, role: Role) -> tuple[Floats, Floats, Floats]:
    """Steps that an engine of this role can make: prompt tokens, requests that decode, and their context."""
    budget = limits.max_num_batched_tokens
    prompts = np.unique(np.rint(np.linspace(0, budget, GRID))) if role != "decode" else np.zeros(1)
    batch = np.unique(np.rint(np.geomspace(1, limits.max_num_seqs, GRID)))
    batch = np.concatenate([[0.0], batch]) if role != "prefill" else np.zeros(1)
    share = np.linspace(0, 1, GRID) ** 2
    p, d, s = (axis.ravel() for axis in np.meshgrid(prompts, batch, share, indexing="ij"))
    kv = np.where(d > 0, np.floor(d + s * (limits.kv_tokens - d)), 0.0)
    possible = (p + d > 0) & (p + d <= budget) & ((d > 0) | (s == 0)) & (kv >= d)
    return p[possible], d[possible], kv[possible]


def _ms(timing: StepTiming, tokens: Floats, requests: Floats, kv: Floats) -> Floats:
    steps = zip(tokens.tolist(), requests.tolist(), kv.tolist(), strict=True)
    return np.array([timing.line(int(p), int(d), int(k)).ms for p, d, k in steps])


def _weights(
    limits: EngineLimits,
    role: Role,
    grid: tuple[Floats, Floats, Floats],
    lasts: Floats,
    context: float,
    itl_ms: float,
) -> Floats:
    tokens, requests, kv = grid
    prompts = (requests == 0) & (tokens >= 0.9 * limits.max_num_batched_tokens)
    away = np.abs(np.log(np.maximum(kv, 1.0) / np.maximum(requests, 1.0) / context)) + np.abs(np.log(lasts / itl_ms))
    decodes = np.where((requests > 0) & (tokens == 0), np.exp(-4 * away), 0.0)
    weights = np.zeros_like(lasts)
    if role != "decode":
        weights += prompts / max(prompts.sum(), 1)
    if role != "prefill":
        weights += decodes / max(decodes.sum(), 1e-300)
    return weights


def pool_work(trace: Trace, timing: StepTiming, limits: EngineLimits, role: Role, sla: Sla) -> PoolWork:
    """The least work of a pool of this role with a trace.

    A prompt is due within the TTFT target, decoded tokens within that and the ITL target for each. An aggregated pool
    has both as items of their own. Prompt tokens that an unbounded prefix cache would hold cost nothing.
    """
    context = float(np.mean(trace.isl + trace.osl / 2))
    floor = step_floor(timing, limits, role, context, sla.itl_ms)
    cached = 0 if trace.prefix_hit is None else trace.prefix_hit
    tokens = np.maximum(trace.isl - cached, 1).astype(float) * (role != "decode")
    decoded = (trace.osl - 1).astype(float) * (role != "prefill")
    prompt_ms, decode_ms = _least_ms(floor, limits, tokens, decoded, trace.isl.astype(float), sla.itl_ms)
    prompt_due_s = trace.arrival_s + sla.ttft_ms / 1000
    prompts = PoolWork(trace.arrival_s, prompt_due_s, prompt_ms / 1000)
    outputs = PoolWork(trace.arrival_s, prompt_due_s + decoded * sla.itl_ms / 1000, decode_ms / 1000)
    parts = {"prefill": (prompts,), "decode": (outputs,), "aggregated": (prompts, outputs)}[role]
    return PoolWork(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _least_ms(
    floor: StepFloor, limits: EngineLimits, tokens: Floats, decoded: Floats, isl: Floats, itl_ms: float
) -> tuple[Floats, Floats]:
    """The replica time of prompts and of decoded tokens, with their shares of the base.

    Each way to share the base gives a step no more than the whole of it: by what is in the step as a part of the most
    that can be in it, by KV cache, or by places in the batch. The one that gives the most holds for all.
    """
    base = floor.base_ms
    contexts = decoded * (isl + np.maximum(decoded - 1, 0) / 2)
    prompt, own = floor.per_token * tokens, floor.per_request * decoded + floor.per_kv * decoded * isl
    grown = floor.per_kv * (contexts - decoded * isl)
    most_ms = floor.per_token * limits.max_num_batched_tokens * bool(tokens.any())
    if decoded.any():
        most_ms += floor.per_request * limits.max_num_seqs + floor.per_kv * limits.kv_tokens
    spare_ms = min(most_ms, max(itl_ms - base, 1e-9)) if decoded.any() else most_ms
    ways = [
        (prompt * (base / most_ms if most_ms else 0.0), own * (base / spare_ms if spare_ms else 0.0)),
        (0 * prompt, base * contexts / limits.kv_tokens),
        (0 * prompt, base * decoded / limits.max_num_seqs),
    ]
    prompt_share, own_share = max(ways, key=lambda way: float(way[0].sum() + way[1].sum()))
    return prompt + prompt_share, own + grown + own_share


def unattainable(trace: Trace, cluster: ClusterSetup, sla: Sla) -> NDArray[np.bool_]:
    """Which requests miss the TTFT target even on an idle cluster, because their prompt alone takes longer.

    A step of up to ``CELL_TOKENS`` is as it is measured; between multiples of that, as in the simulator's tables, step
    times are straight lines.
    """
    pool = next(pool for pool in cluster.pools.values() if pool.spec.role != "decode")
    budget = pool.limits.max_num_batched_tokens
    cached = 0 if trace.prefix_hit is None else trace.prefix_hit
    lengths, which = np.unique(np.maximum(trace.isl - cached, 1), return_inverse=True)
    full, rest = np.divmod(lengths, budget)
    corners = np.unique([*np.arange(1, min(CELL_TOKENS, budget)), *np.arange(CELL_TOKENS, budget, CELL_TOKENS), budget])
    corners_ms = [pool.timing.line(int(tokens), 0, 0).ms for tokens in corners]
    alone_ms = full * corners_ms[-1] + np.where(rest > 0, np.interp(rest, corners, corners_ms), 0.0)
    if pool.spec.role == "prefill":
        transfer_s = cluster.kv_transfer_s + cluster.kv_transfer_s_per_token * lengths
        alone_ms = alone_ms + 1000 * transfer_s
    return np.asarray(alone_ms[which] > sla.ttft_ms)
