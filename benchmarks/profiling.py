"""How well a few minutes of measuring know an engine: profiles measured in simulated time, and the truth beside them.

    python -m benchmarks.profiling [DIRECTORY OF PROFILES] [--minutes 5] [--only NAME ...] [--untold]

The engine is the simulator's with the steps of a published profile, at most 256 requests at once and 8192 tokens a
step, behind 20 ms of network. Its steps vary by 2 %, one in 200 takes four times as long, and the client sees tokens
0.5 ms late on average. It is measured as a whole (``aggregated``), and its prefill and its decode worker apart.

Errors are relative to the engine's own model, without noise: TTFT at the profile's prompt lengths, ITL at its points of
at most 256 requests that fit into 95 % of the KV cache, steps at its mixed points. Sizings are those of
``PercentileSizing`` for random loads, with what was measured and with the truth. ``--untold`` hides the KV capacity.

Exits with 1 where a median is above 3 %, a 95th percentile above 10 %, the offset off by more than 5 ms, the KV
capacity by more than 2 % (10 % untold), or where fewer than 95 % of the sizings are within one replica.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.shared import SHARED
from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.profiles import Profile
from dynamo_planner.profiling.capacity import kv_capacity
from dynamo_planner.profiling.engine import Limits
from dynamo_planner.profiling.experiments import Domain, prompts
from dynamo_planner.profiling.measured import Measured
from dynamo_planner.profiling.session import Goal, measure
from dynamo_planner.profiling.simulated import NoisyTiming, SimulatedEngine
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import ProfileTiming
from dynamo_planner.sizing import Load, PercentileSizing

Floats = NDArray[np.float64]

MAX_BATCH, STEP_TOKENS, WHOLE_PROMPTS = 256, 8192, 1 << 16
OFFSET_S, JITTER_S, NOISE, OUTLIERS = 0.02, 0.0005, 0.02, 0.005
LOADS = 200
SLOWEST = 4.0
"""Targets are up to so many times what a request sees alone."""


class Error(NamedTuple):
    """Relative errors of a curve."""

    median: float
    p95: float

    @classmethod
    def of(cls, measured: Floats, truth: Floats) -> Error:
        errors = np.abs(measured / truth - 1)
        return cls(float(np.median(errors)), float(np.quantile(errors, 0.95)))

    def __str__(self) -> str:
        return f"{100 * self.median:5.1f} {100 * self.p95:5.1f}"


@dataclass
class Judged:
    """One engine, measured and judged."""

    name: str
    way: str
    curves: dict[str, Error]
    offset_ms: float
    kv: float
    sized: float
    spent_s: float

    def misses(self, *, told: bool) -> list[str]:
        found = [f"{curve} {error}" for curve, error in self.curves.items() if error.median > 0.03 or error.p95 > 0.1]
        found += [f"offset {self.offset_ms:+.1f} ms"] * (abs(self.offset_ms) > 5)
        found += [f"KV {100 * self.kv:+.1f} %"] * (abs(self.kv) > (0.02 if told else 0.1))
        return found + [f"sizing {100 * self.sized:.0f} %"] * (self.sized < 0.95)


class Subject:
    """A published profile as an engine: noisy for measuring, and without noise for judging."""

    def __init__(self, truth: Profile, *, told: bool = True) -> None:
        self.truth = truth
        self.kv_tokens = int(truth.decode_points.max_kv_tokens)
        self.told = told
        self.max_isl = int(min(max(truth.prefill_points.isl), 0.9 * self.kv_tokens))
        self.max_context = int(min(max(truth.decode_points.context), 0.9 * self.kv_tokens))

    def engine(self, role: Role, *, noisy: bool = True) -> SimulatedEngine:
        """Its engine in a role."""
        step_tokens = STEP_TOKENS if role == "aggregated" else WHOLE_PROMPTS
        limits = EngineLimits(max_num_seqs=MAX_BATCH, max_num_batched_tokens=step_tokens, kv_tokens=self.kv_tokens)
        timing = ProfileTiming(profile=self.truth)
        if not noisy:
            return SimulatedEngine(timing, limits, role=role)
        return SimulatedEngine(
            NoisyTiming(timing, NOISE, OUTLIERS), limits, role=role, offset_s=OFFSET_S, jitter_s=JITTER_S
        )

    def measured(self, role: Role, minutes: float) -> Measured:
        """What a session of these minutes finds out."""
        engine = self.engine(role)
        step_tokens = STEP_TOKENS if role == "aggregated" else None
        measured = Measured(limits=Limits(kv_tokens=self.kv_tokens, max_num_batched_tokens=step_tokens))
        if not self.told:
            found = kv_capacity(engine, self.max_context, MAX_BATCH)
            measured = measured.replace(limits=measured.limits.replace(kv_tokens=found), spent_s=engine.busy_s)
        domain = Domain(
            role=role,
            max_isl=self.max_isl,
            max_context=self.max_context,
            max_batch=MAX_BATCH,
            kv_tokens=measured.limits.kv_tokens or self.kv_tokens,
            step_tokens=step_tokens,
        )
        for progress in measure(engine, domain, Goal(minutes=minutes, error=0.0), measured):
            measured = progress.measured
        return measured

    def judged(self, measured: Measured, way: str) -> Judged:
        """The profile of what was measured, beside the truth."""
        profile = measured.profile(gpus=self.truth.decode_points.gpus)
        roles: tuple[Role, ...] = ("aggregated",) if way == "aggregated" else ("prefill", "decode")
        return Judged(
            name=self.truth.name,
            way=way,
            curves=self.curves(profile, roles[0]),
            offset_ms=measured.offset_ms - 1000 * OFFSET_S,
            kv=profile.decode.max_kv_tokens / self.kv_tokens - 1,
            sized=self.sized(profile, roles),
            spent_s=measured.spent_s,
        )

    def curves(self, profile: Profile, first: Role) -> dict[str, Error]:
        """The errors of each curve."""
        isl = [int(isl) for isl in self.truth.prefill_points.isl if isl <= self.max_isl]
        alone = self.engine(first, noisy=False).run(prompts(isl)).chain
        ttft = np.array([answer.ttft_ms for answer in alone])
        batch, context = np.array(self.truth.decode_points.batch), np.array(self.truth.decode_points.context)
        here = (batch <= MAX_BATCH) & (batch * context <= 0.95 * self.kv_tokens) & (context <= self.max_context)
        at = batch[here], context[here]
        found = {
            "ttft": Error.of(profile.prefill.ttft_ms(np.array([answer.isl for answer in alone], float)), ttft),
            "itl": Error.of(profile.decode.step_ms(*at), self.truth.decode.step_ms(*at)),
        }
        points = self.truth.mixed_points
        if first == "aggregated" and points is not None:
            tokens, batch, context = map(np.array, (points.prefill_tokens, points.num_decode, points.context))
            here = (tokens > 0) & (tokens + batch <= STEP_TOKENS) & (batch * context <= 0.95 * self.kv_tokens)
            step = tokens[here], batch[here], (batch * context)[here]
            found["step"] = Error.of(profile.step_ms(*step), self.truth.step_ms(*step))
        return found

    def sized(self, profile: Profile, roles: tuple[Role, ...], loads: int = LOADS) -> float:
        """The share of random loads whose replicas are within one of those that the truth asks for."""
        random = np.random.default_rng(1)
        ours, theirs = (
            PercentileSizing(each, chunk_tokens=STEP_TOKENS, max_num_seqs=MAX_BATCH) for each in (profile, self.truth)
        )
        near = 0
        for _ in range(loads):
            isl = float(np.exp(random.uniform(np.log(256), np.log(min(8000, self.max_isl / 3)))))
            osl = float(np.exp(random.uniform(np.log(50), np.log(800))))
            load = Load.of(float(np.exp(random.uniform(np.log(0.5), np.log(20)))), isl, osl)
            slack = random.uniform(2, SLOWEST, 2)
            sla = Sla(
                ttft_ms=float(slack[0] * self.truth.prefill.ttft_ms(3 * isl)),
                itl_ms=float(slack[1] * self.truth.decode.step_ms(1, isl)),
            )
            pair = [sizing.replicas_for(load, sla, roles) for sizing in (ours, theirs)]
            near += all(abs(pair[0][role].replicas - pair[1][role].replicas) <= 1 for role in roles)
        return near / loads


def main(arguments: list[str]) -> int:
    """Print a line for each engine, and what is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiling")
    parser.add_argument("directory", nargs="?", type=Path, default=SHARED / "profiles")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--ways", nargs="*", default=("aggregated", "apart"))
    parser.add_argument("--untold", action="store_true")
    options = parser.parse_args(arguments)
    print(
        f"{'profile':40}{'way':12}{'TTFT %':>12}{'ITL %':>12}{'step %':>12}{'offset':>8}{'KV %':>7}"
        f"{'sized %':>9}{'engine s':>10}{'here s':>8}"
    )
    missed = []
    for path in sorted(path for path in options.directory.iterdir() if path.is_dir()):
        if options.only and path.name not in options.only:
            continue
        subject = Subject(Profile.load(path), told=not options.untold)
        for way in options.ways:
            if way == "aggregated" and subject.truth.mixed_points is None:
                continue
            began_s = time.monotonic()
            if way == "aggregated":
                measured = subject.measured("aggregated", options.minutes)
            else:
                measured = subject.measured("decode", options.minutes / 2).joined(
                    subject.measured("prefill", options.minutes / 2)
                )
            one = subject.judged(measured, way)
            curves = "".join(f"{one.curves.get(curve, '')!s:>12}" for curve in ("ttft", "itl", "step"))
            print(
                f"{one.name:40}{way:12}{curves}{one.offset_ms:>+8.1f}{100 * one.kv:>+7.1f}{100 * one.sized:>9.0f}"
                f"{one.spent_s:>10.0f}{time.monotonic() - began_s:>8.0f}",
                flush=True,
            )
            missed += [f"{one.name} {way}: {miss}" for miss in one.misses(told=subject.told)]
    print("\n".join(["", "missed:", *missed]) if missed else "all targets met")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
