"""Which experiment is next: the one that lowers the uncertainty of the curves most for each second that it takes.

The uncertainty of a curve at a place is the posterior variance of the Gaussian process that the curves are fitted with
(:mod:`dynamo_planner.profiles.kriging`), times the squared error that cross-validation finds. It depends on where was
measured and not on what, so the gain of an experiment is known before it is made (Krause et al., *Near-Optimal Sensor
Placements in Gaussian Processes*, JMLR 9, 2008)::

    gain(experiment) = sum over curves of  error**2 mean over targets of (variance now**2 - variance then**2) / seconds

The squares let the places that are known least count most, since a curve is judged by its 95th percentile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

from dynamo_planner.profiles import PrefillCurve
from dynamo_planner.profiles.decode_surface import fit_itl
from dynamo_planner.profiles.kriging import Fit
from dynamo_planner.profiling.engine import Burst
from dynamo_planner.profiling.experiments import MARGIN_S, REPEATS, Domain, Staircase, prompts, staircase
from dynamo_planner.profiling.fit import CurveError
from dynamo_planner.profiling.measured import Measured

Floats = NDArray[np.float64]

FULLEST = 0.92
"""The share of the KV cache that a staircase fills at most."""

LONGEST = 0.9
"""The share of the longest context that a staircase begins with at most."""

NOISE = 0.01
"""Variance of a measurement, relative to that of a curve that was not measured."""

FIRST_ISLS = 12
"""Prompt lengths that are measured of every engine."""

CHAINS, CHAINED = 12, 4
"""Chains of prompts to choose from, and the prompt lengths of each, spread over the range."""

FIRST_CONTEXT, FIRST_BATCH, FIRST_ITL_S = 256, 4, 0.02
"""The first staircase, which only gives a notion of the times; that with the most requests follows."""

BETWEEN = 1.0, 0.71
"""Two staircases of one kind start from the full batch and the next two from this share of it, so that batches between
the powers of 2 are measured too: kernels take steps there."""

GROWTH = 100
"""Tokens by which requests grow at their largest batch."""

FEATURES = {"ttft": ((0.0,), (1.0,)), "itl": ((0.0, 0.0), (2.0, 1.0)), "step": ((64.0, 1.0, 0.0), (2.0, 4.0, 4.0))}
"""Offsets and correlation lengths of the curves' coordinates, as they are fitted with."""


class Experiment(NamedTuple):
    """A burst, and what was thought of it: what it is for, and the seconds that it takes."""

    burst: Burst
    purpose: str
    seconds: float


def first_experiments(domain: Domain, measured: Measured) -> Iterator[Experiment]:
    """What is measured of every engine before there is something to go by, less what an earlier session has of it."""
    if domain.role != "decode":
        isls = np.unique(np.geomspace(domain.min_isl, domain.max_isl, FIRST_ISLS).round().astype(int)).tolist()
        if left := isls[len(measured.ttfts) :]:
            yield Experiment(prompts(left), f"TTFT of {len(left)} prompts up to {left[-1]} tokens", 0.0)
    if domain.role != "prefill":
        context = min(FIRST_CONTEXT, domain.max_context // 2)
        for batch in _first_batches(domain)[len(measured.decode) :]:
            steps = staircase(domain, context, batch, lambda batches, _: np.full(len(batches), FIRST_ITL_S))
            yield Experiment(steps.burst(domain), _purpose(context, batch), 0.0)


def _first_batches(domain: Domain) -> list[int]:
    largest = largest_batch(domain, min(FIRST_CONTEXT, domain.max_context // 2))
    return sorted({min(FIRST_BATCH, largest), largest})


def fullest_experiment(measured: Measured, domain: Domain, most_s: float) -> Experiment | None:
    """A staircase that fills the KV cache, or as much of it as ``most_s`` allows; None where that is next to nothing,
    and where more than the first staircases were measured already.

    Its context is in the middle, in the logarithm, of those at which the cache can be filled at all. With a cache of
    430,000 tokens, 256 requests and contexts up to 29,000: 1,550 to 26,100, so 60 requests of 6,360 tokens.
    """
    if len(measured.decode) > len(_first_batches(domain)):
        return None
    longest = LONGEST * domain.max_context
    shortest = min(FULLEST * domain.kv_tokens / domain.max_batch, longest)
    context, curves = round((shortest * longest) ** 0.5), _Curves.of(measured)
    batch = largest_batch(domain, context)
    while batch > 1:
        steps = staircase(domain, context, batch, curves.itl_s)
        experiment, _ = _candidate(domain, curves, steps)
        if experiment.seconds <= most_s and steps.longest <= domain.max_context:
            return experiment
        batch = batch * 3 // 4
    return None


def largest_batch(domain: Domain, context: int) -> int:
    """The most requests of a context, and of what they get, that are measured at once; at least 1.

    One place in the batch is left for the prompts on the way.

    >>> largest_batch(Domain(max_isl=8000, max_context=8000, max_batch=256, kv_tokens=100_000), 900)
    92
    """
    most = domain.max_batch - 1 if domain.is_mixed else domain.max_batch
    return max(min(most, int(FULLEST * domain.kv_tokens / (context + GROWTH))), 1)


def next_experiment(
    measured: Measured,
    domain: Domain,
    errors: Mapping[str, CurveError],
    most_s: float,
    made: Collection[str] = (),
) -> Experiment | None:
    """The experiment of the highest gain that takes at most ``most_s`` and is not among the purposes ``made`` already;
    None where there is none."""
    curves = _Curves.of(measured)
    views = {curve: _View(_known(measured, curve), _targets(domain, curve), curve) for curve in errors}
    best, highest = None, 0.0
    for experiment, points in _candidates(domain, curves, len(measured.decode)):
        if experiment.seconds > most_s or experiment.purpose in made:
            continue
        gain = sum(errors[curve].rms ** 2 * views[curve].gain(new) for curve, new in points.items() if curve in views)
        if gain / experiment.seconds > highest:
            best, highest = experiment, gain / experiment.seconds
    return best


class _Curves(NamedTuple):
    """What is known of the times so far."""

    prefill: PrefillCurve | None
    decode: Fit | None

    @classmethod
    def of(cls, measured: Measured) -> Self:
        prefill, decode = measured.prefill_points(), measured.decode_points()
        return cls(None if prefill is None else PrefillCurve(prefill), None if decode is None else fit_itl(decode))

    def ttft_s(self, isl: Floats) -> Floats:
        return np.zeros(len(isl)) if self.prefill is None else np.asarray(self.prefill.ttft_ms(isl)) / 1000

    def itl_s(self, batch: Floats, context: Floats) -> Floats:
        if self.decode is None:
            return np.full(len(batch), FIRST_ITL_S)
        return self.decode(np.column_stack([batch, context])) / 1000


def _candidates(domain: Domain, curves: _Curves, turn: int) -> Iterator[tuple[Experiment, dict[str, Floats]]]:
    if domain.role != "decode":
        isls = np.unique(np.geomspace(domain.min_isl, domain.max_isl, CHAINS * CHAINED).round().astype(int))
        for first in range(min(CHAINS, len(isls))):
            chain = isls[first::CHAINS]
            seconds = REPEATS * float(np.sum(curves.ttft_s(chain.astype(float)) + MARGIN_S))
            purpose = f"TTFT of {', '.join(map(str, chain))} tokens"
            yield Experiment(prompts(chain.tolist()), purpose, seconds), {"ttft": chain[:, None].astype(float)}
    if domain.role == "prefill":
        return
    between = BETWEEN[turn // 2 % 2]
    for context in np.unique(np.geomspace(32, LONGEST * domain.max_context, 14).round().astype(int)).tolist():
        largest = largest_batch(domain, context)
        smaller = [size for part in (4, 16) if 0 < (size := domain.max_batch // part) < largest]
        for batch in sorted({1, *(max(round(size * between), 1) for size in (largest, *smaller))}):
            steps = staircase(domain, context, batch, curves.itl_s, turn)
            if steps.longest <= domain.max_context:
                yield _candidate(domain, curves, steps)


def _candidate(domain: Domain, curves: _Curves, steps: Staircase) -> tuple[Experiment, dict[str, Floats]]:
    batches, tokens = np.array(steps.batches, float), np.array(steps.tokens, float)
    itls = curves.itl_s(batches, steps.contexts)
    seconds = float(tokens @ itls)
    if domain.role == "aggregated":
        seconds += steps.batches[0] * float(curves.ttft_s(np.array([float(steps.context)]))[0])
    points = {"itl": np.column_stack([batches, steps.contexts])}
    if steps.sizes:
        each = float(np.mean(curves.ttft_s(np.array(steps.sizes, float))))
        turns = float(tokens @ itls) / (steps.pause_s + MARGIN_S + float(itls.mean()))
        seconds += turns * each
        sizes = sorted(set(steps.sizes))
        points["step"] = np.array([(p, n, c) for p in sizes for n, c in zip(batches, steps.contexts, strict=True)])
    return Experiment(steps.burst(domain), _purpose(steps.context, steps.batches[0]), seconds), points


def _purpose(context: int, batch: int) -> str:
    return f"ITL of up to {batch} requests of {context} tokens"


def _known(measured: Measured, curve: str) -> Floats:
    if curve == "ttft":
        return np.array([[isl] for isl in measured.ttfts])
    bursts = measured.decode if curve == "itl" else measured.mixed
    return np.array([reading[:-1] for burst in bursts for reading in burst], float)


def _targets(domain: Domain, curve: str) -> Floats:
    """The places at which a curve is to be known."""
    if curve == "ttft":
        return np.geomspace(domain.min_isl, domain.max_isl, 24)[:, None]
    contexts = np.geomspace(min(64, domain.max_context / 2), LONGEST * domain.max_context, 8)
    batches = np.geomspace(1, domain.max_batch, 7)
    rows = [(n, c) for n in batches for c in contexts if n * c <= FULLEST * domain.kv_tokens]
    if curve == "itl":
        return np.array(rows)
    sizes = np.geomspace(16, domain.step_tokens or 2048, 4)
    return np.array([(p, n, c) for p in sizes for n, c in rows])


class _View:
    """What is known of a curve, and how much more places would explain of its variance at the targets."""

    def __init__(self, known: Floats, targets: Floats, curve: str) -> None:
        self._offsets, self._scales = (np.array(values) for values in FEATURES[curve])
        self._known, self._targets = self._features(known), self._features(targets)
        self._factor = cho_factor(_covariance(self._known, self._known) + NOISE * np.eye(len(known)))
        self._across = _covariance(self._known, self._targets)
        self._solved = cho_solve(self._factor, self._across)
        self._variance = 1 - np.sum(self._across * self._solved, axis=0)

    def _features(self, places: Floats) -> Floats:
        return np.asarray(np.log(places + self._offsets) / self._scales)

    def gain(self, new: Floats) -> float:
        """By how much measurements at new places lower the mean square of the variances at the targets."""
        places = self._features(new)
        to_known = _covariance(places, self._known)
        left = _covariance(places, places) + NOISE * np.eye(len(places))
        left -= to_known @ cho_solve(self._factor, to_known.T)
        across = _covariance(places, self._targets) - to_known @ self._solved
        less = np.sum(across * np.linalg.solve(left, across), axis=0)
        return float(np.mean(less * (2 * self._variance - less)))  # v**2 - (v - less)**2


def _covariance(first: Floats, second: Floats) -> Floats:
    return np.asarray(np.exp(-cdist(first, second)))
