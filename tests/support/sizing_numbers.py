"""The numbers of the sizings for some loads, as they were when simulations judged the formulas.

``python -m tests.support.sizing_numbers`` records them anew, where a change of a formula is meant: look at the
differences, and let the slow tests of ``tests/unit/sizing`` judge it again first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dynamo_planner import Profile, Sla
from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.snapshot import Role
from dynamo_planner.sizing import Arrivals, ClassicSizing, Lengths, Load, PercentileSizing
from dynamo_planner.sizing.classic import fit_budget
from tests.support.paths import DATA

FILE = DATA / "sizing_numbers.json"
CHAT = Sla(ttft_ms=500, itl_ms=20)
ROLES: tuple[Role, ...] = ("prefill", "decode", "aggregated")
PATH = np.array([0.5, 0.6, 0.8, 1.0, 1.7, 1.9, 1.2, 0.8, 0.9, 0.6])


@dataclass(frozen=True)
class Case:
    """A load, its targets, and what a sizing is told beside them."""

    load: Load
    sla: Sla = CHAT
    factor: float = 1.0
    roles: tuple[Role, ...] = ROLES
    sizing: dict[str, Any] = field(default_factory=dict)


SPREAD = Dist(mean=900, quantiles={0.5: 600, 0.9: 2000, 0.99: 6000})
CASES: dict[str, Case] = {
    "plain": Case(Load.of(40, 3000, 300)),
    "many": Case(Load.of(600, Dist(mean=500, cv2=0.5), Dist(mean=150, cv2=2))),
    "bursty": Case(Load.of(Arrivals(120, 3.0, 2.0, PATH), SPREAD, Dist(mean=200, cv2=1.5))),
    "even": Case(Load.of(Arrivals(250, 0.2), SPREAD, Dist(mean=200, cv2=0.2))),
    "cached and slow": Case(Load.of(90, SPREAD, Dist(mean=400, cv2=1), 0.4, 40.0), factor=1.3),
    "long prompts": Case(Load.of(1.5, Dist(mean=16_000, cv2=1), Dist(mean=250, cv2=1)), Sla(ttft_ms=3000, itl_ms=25)),
    "long answers": Case(Load.of(4, Dist(mean=2000, cv2=1), Dist(mean=3000, cv2=0.5)), Sla(ttft_ms=800, itl_ms=15)),
    "short": Case(Load.of(1500, Dist(mean=60, cv2=1), Dist(mean=12, cv2=1)), Sla(ttft_ms=100, itl_ms=12)),
    "one token": Case(Load.of(300, Dist(mean=700, cv2=1), 1)),
    "out of reach": Case(Load.of(20, Dist(mean=4000, cv2=2), Dist(mean=300, cv2=1)), Sla(ttft_ms=300, itl_ms=8)),
    "full caches": Case(Load.of(6, Dist(mean=24_000, cv2=0.3), Dist(mean=900, cv2=0.5)), Sla(ttft_ms=9000, itl_ms=60)),
    "few at once": Case(Load.of(40, 1500, 300), sizing={"max_num_seqs": 24, "chunk_tokens": 512}),
    "one in ten": Case(Load.of(40, 1500, 300), CHAT.replace(attainment=0.9)),
    "round robin": Case(Load.of(Arrivals(120, 2.0, 2.0, PATH), SPREAD, 200), sizing={"routing": "round_robin"}),
    "random": Case(Load.of(Arrivals(120, 2.0, 2.0, PATH), SPREAD, 200), sizing={"routing": "random"}),
    "fewest requests": Case(Load.of(Arrivals(120, 2.0, 2.0, PATH), SPREAD, 200), sizing={"routing": "fewest_requests"}),
}


def found() -> dict[str, Any]:
    """What the code of today says."""
    return dict([*_percentile(), *_classic(), *_lengths()])


def _percentile() -> Iterator[tuple[str, Any]]:
    profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
    for name, case in CASES.items():
        sizing = PercentileSizing(profile, **case.sizing)
        for role in case.roles:
            factor = {role: case.factor}
            need = sizing.replicas_for(case.load, case.sla, (role,), factor)[role]
            counts = [max(need.replicas + more, 1) for more in (-2, -1, 0, 1, 3)]
            shares = sizing.attainable(case.load, case.sla, {role: counts}, factor)
            yield (
                f"{name}, {role}",
                {
                    "limit": need.limit,
                    "extrapolated": bool(need.extrapolated),
                    "facts": [fact.code for fact in need.facts],
                    "numbers": [need.replicas, need.load, need.attained, need.unattainable, need.residence_s],
                    "late": (1 - shares).tolist(),
                },
            )


def _classic() -> Iterator[tuple[str, Any]]:
    profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
    for defects in (False, True):
        sizing = ClassicSizing(profile, defects)
        for name in ("plain", "cached and slow", "long prompts", "long answers", "short", "out of reach"):
            case = CASES[name]
            factors: dict[Role, float] = {"prefill": 1.5, "decode": 1.2}
            needs = sizing.replicas_for(case.load, case.sla, ("prefill", "decode"), factors)
            shares = sizing.attainable(case.load, case.sla, {"prefill": [1, 2, 3], "decode": 2}, factors)
            numbers = [[each.replicas, each.load, each.unattainable, each.extrapolated] for each in needs.values()]
            yield f"classic, {name}, {defects}", {"numbers": np.ravel(numbers).tolist(), "late": (1 - shares).tolist()}
        corrections = sizing.corrections(
            requests_per_s=8, isl=2500, osl=400, ttft_ms=300, itl_ms=14, request_duration_s=6, decode_replicas=3
        )
        budgets = [
            fit_budget(prefill, decode, most, prefill_gpus=2, decode_gpus=3, min_replicas=least, defects=defects)
            for prefill, decode, most, least in (
                (4, 6, 40, 1),
                (4, 6, 26, 1),
                (4, 6, 13, 1),
                (9, 1, 9, 1),
                (5, 5, 11, 2),
            )
        ]
        yield f"classic, {defects}", {"numbers": [*corrections.values(), *np.ravel(budgets).tolist()]}


def _lengths() -> Iterator[tuple[str, Any]]:
    for name, dist in (("spread", SPREAD), ("mean", Dist(mean=200)), ("cv2", Dist(mean=200, cv2=0.3))):
        lengths = Lengths.of(dist)
        finer = lengths.finer(256)
        values = [lengths.mean, lengths.cv2, *lengths.values[[0, 20, 40, 63]], *finer[[0, 100, 200, 250, 255]]]
        yield f"lengths, {name}", {"numbers": [float(value) for value in values]}


if __name__ == "__main__":
    FILE.write_text(json.dumps(found(), indent=1) + "\n", encoding="utf-8")
