"""check_sizing: the laws of whatever says how many replicas a load needs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from dynamo_planner.conformance.laws import ConformanceError
from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.policies.sla.sizing import CannotSizeError, Sizing, SizingRequest
from dynamo_planner.profiles import Profile
from dynamo_planner.sizing import Arrivals, Load, Requirement

ROLES: tuple[Role, ...] = ("prefill", "decode", "aggregated")
RATES = (0.01, 0.3, 1.0, 3.0, 10.0, 11.0, 30.0, 100.0, 300.0)
SLOWNESS = (0.5, 0.9, 1.0, 1.1, 1.5, 2.0, 4.0)
LENGTHS = ((200, 60), (1200, 250), (8000, 250), (1200, 3000), (100_000, 250))
PROMPTS = tuple(round(500 * 1.2**step) for step in range(31))
"""Prompt lengths in steps of a fifth, up to 118,000 tokens."""

TARGETS = ((2000.0, 80.0), (500.0, 25.0), (200.0, 15.0), (50.0, 8.0), (5.0, 2.0))
SHARES = (0.5, 0.9, 0.99, 0.999)

MAX_LOADS, MAX_SPARE = 40.0, 40
"""A count above this many times the load and this many more is the end of a search, not an answer."""

MAX_RISE = 2.0
"""The largest rise for prompts that are a fifth longer, beside two replicas."""


def check_sizing(sizing: Sizing, profile: Profile | None = None) -> None:
    """Look for a case in which a sizing breaks a law. Raises :class:`ConformanceError`.

    ================  ===============================================================================================
    idle              no requests need no replicas
    same-input        the same again, and wherever the search begins
    keeps-up          finite numbers, and at least as many replicas as would be busy all the time
    rate              more requests never need fewer
    slowness          nor do slower engines
    targets           nor do tighter targets or a larger share
    no-cliff          prompts that are a fifth longer never need more than twice as many and two
    bounded           no count is the end of a search: at most 40 times the load and 40
    ================  ===============================================================================================

    Requests that miss a target even alone need none, so slower engines, tighter targets and longer prompts may need
    fewer where more of the requests are ``unattainable``, or all. A role for which it raises
    :class:`~dynamo_planner.policies.sla.sizing.CannotSizeError` is left out.

    Args:
        sizing: The sizing.
        profile: What it sizes with. Default a bundled one.
    """
    profile = profile or Profile.bundled("llama31-8b_h100_vllm_tp1")
    sized = 0
    for role in ROLES:
        try:
            _check_role(sizing, role, profile)
            sized += 1
        except CannotSizeError:
            continue
    if not sized:
        raise ConformanceError("keeps-up", sizing, "it can size no role")


def _check_role(sizing: Sizing, role: Role, profile: Profile) -> None:
    idle = sizing.required(_request(role, profile, rate=0.0))
    if idle.replicas:
        raise ConformanceError("idle", sizing, f"{idle.replicas} {role} replicas for no requests")
    for law, series in _series(role, profile):
        found = [_required(sizing, request) for request in series]
        for (before, fewer), (after, more) in pairwise(zip(series, found, strict=True)):
            if law != "rate" and (more.unattainable > fewer.unattainable or fewer.unattainable == 1):
                continue
            if law == "no-cliff":
                wrong = more.replicas > MAX_RISE * fewer.replicas + 2
            else:
                wrong = more.replicas < fewer.replicas
            if wrong:
                message = f"{fewer.replicas} {role} replicas for {_shown(before)}, {more.replicas} for {_shown(after)}"
                raise ConformanceError(law, sizing, message)


def _series(role: Role, profile: Profile) -> Iterator[tuple[str, Sequence[SizingRequest]]]:
    """Requests of which each asks for more than the one before, and the law that this is for."""
    for isl, osl in LENGTHS:
        for dispersion in (1.0, 8.0):
            yield "rate", [_request(role, profile, rate, isl, osl, dispersion) for rate in RATES]
        yield "slowness", [_request(role, profile, 10.0, isl, osl)._replace(slowness=factor) for factor in SLOWNESS]
        slas = [Sla(ttft_ms=ttft_ms, itl_ms=itl_ms) for ttft_ms, itl_ms in TARGETS]
        yield "targets", [_request(role, profile, 10.0, isl, osl)._replace(sla=sla) for sla in slas]
        slas = [Sla(ttft_ms=500, itl_ms=25, attainment=share) for share in SHARES]
        yield "targets", [_request(role, profile, 10.0, isl, osl)._replace(sla=sla) for sla in slas]
    yield "no-cliff", [_request(role, profile, 2.0, isl) for isl in PROMPTS]


def _request(
    role: Role, profile: Profile, rate: float, isl: float = 1200, osl: float = 250, dispersion: float = 1.0
) -> SizingRequest:
    load = Load.of(Arrivals(rate, dispersion), Dist(mean=isl, cv2=1.0), Dist(mean=osl, cv2=0.5))
    return SizingRequest(role, load, Sla(ttft_ms=500, itl_ms=25), profile)


def _required(sizing: Sizing, request: SizingRequest) -> Requirement:
    """The answer, which keeps the laws of a single one."""
    found = sizing.required(request)
    shown = f"{found.replicas} {request.role} replicas for {_shown(request)}"
    for again in (request, request._replace(near=found.replicas + 7)):
        if sizing.required(again).replicas != found.replicas:
            raise ConformanceError("same-input", sizing, f"{shown}, and then {sizing.required(again).replicas}")
    numbers = (found.load, found.attained, found.unattainable)
    if not all(math.isfinite(number) and number >= 0 for number in numbers) or found.replicas < found.load:
        raise ConformanceError("keeps-up", sizing, f"{shown}, of which {found.load:g} would be busy all the time")
    if found.replicas > MAX_LOADS * found.load + MAX_SPARE:
        raise ConformanceError("bounded", sizing, f"{shown}, where {found.load:.3g} would be busy all the time")
    return found


def _shown(request: SizingRequest) -> str:
    load, sla = request.load, request.sla
    return (
        f"{load.arrivals.requests_per_s:g} requests/s of {load.isl.mean:g} + {load.osl.mean:g} tokens within "
        f"{sla.ttft_ms:g} + {sla.itl_ms:g} ms for {sla.attainment:.1%}, {request.slowness:g} times as slow"
    )
