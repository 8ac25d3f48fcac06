"""The number of prefill replicas with batches, judged by the exact simulation of :mod:`tests.support.prefill_steps`.

A family has 200 cases with fixed seeds. ``tests/run long`` runs them all; otherwise it is the first few, whose shares
are coarse and held to less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from dynamo_planner import Profile, Sla
from dynamo_planner.sizing import Arrivals, Load, PercentileSizing
from dynamo_planner.sizing.waiting import Routing
from tests.support.laws import scaled
from tests.support.lengths import log_uniform, seen
from tests.support.prefill_steps import Floats, Ints, PrefillEngine, ttft_ms
from tests.support.traffic import lognormal, mmpp, renewal

REQUESTS, ATTAINMENT = 60_000, 0.99
ALL = 200
CASES = ALL if scaled(1) > 1 else 8

LENGTHS = {  # mean ISL, and its squared coefficient of variation
    "short": ((80, 400), (0.3, 2.0)),
    "chat": ((500, 1500), (0.5, 3.0)),
    "rag": ((3000, 10_000), (0.2, 1.0)),
    "code": ((1500, 4000), (0.5, 2.0)),
}
ENGINES = ((6.0, 0.02), (40.0, 0.17), (38.0, 0.055))  # ms per step and per token: small, large, many experts
ARRIVALS = ("poisson", "hyperexponential", "gamma", "mmpp")


@dataclass
class Case:
    """An engine, a target, prompts that come, and what is known of prompts like them that came before."""

    engine: PrefillEngine
    within_ms: float
    arrival_s: Floats
    isl: Ints
    load: Load

    def sizing(self, routing: Routing = "least_loaded") -> PercentileSizing:
        """From a profile that was measured without noise, also where chunks end."""
        chunk = self.engine.chunk
        isl = np.unique(np.concatenate([np.geomspace(16, chunk, 12).round(), chunk * np.array([2, 3, 4, 6, 8, 16])]))
        profile = Profile.from_points(
            isl=isl,
            ttft_ms=self.engine.alone_ms(isl),
            max_kv_tokens=1e6,
            batch=[1, 8, 64],
            context=[500] * 3,
            itl_ms=[5, 6, 9],
        )
        return PercentileSizing(profile, self.engine.chunk, routing)

    def in_time(self, replicas: int, routing: Routing) -> bool:
        """Whether enough of the prompts are in time, of those that would be with no other beside them."""
        attainable = self.engine.alone_ms(self.isl) <= self.within_ms
        served = ttft_ms(self.engine, replicas, self.arrival_s, self.isl, routing)
        return bool((served <= self.within_ms)[attainable].mean() >= ATTAINMENT)

    def right_count(self, guess: int, routing: Routing) -> int:
        """The smallest replica count that does."""
        step = 1 if self.in_time(guess, routing) else -1  # downwards, or upwards
        while guess - step > 0 and self.in_time(guess - step, routing) == (step > 0):
            guess -= step
        return guess if step > 0 else guess + 1


def case(family: str, seed: int) -> Case:
    """2-50 replicas, from targets of a step and a half to many, with attention that is linear or up to a third more."""
    rng = np.random.default_rng([list(LENGTHS).index(family), seed])
    (low, high), (narrow, wide) = LENGTHS[family]
    while True:
        base, token = ENGINES[rng.integers(len(ENGINES))]
        base, token = base * log_uniform(0.6, 1.6, rng), token * log_uniform(0.7, 1.4, rng)
        chunk = int(rng.choice([1024, 2048, 4096, 8192, 16_384]))
        isl, cv2 = log_uniform(low, high, rng), rng.uniform(narrow, wide)
        attention = float(rng.random() < 0.5) * token / 8192 * rng.uniform(0.02, 0.35)
        engine = PrefillEngine(base, token, attention, chunk)
        long = isl / math.sqrt(1 + cv2) * math.exp(rng.choice([1.5, 2.3]) * math.sqrt(math.log1p(cv2)))
        step = base + token * min(chunk, max(long, isl))
        within = max(float(engine.alone_ms(long)) * log_uniform(1.05, 10, rng), step * log_uniform(1.3, 6, rng))
        if within < 20_000:
            break
    each_s = (base / max(chunk / isl, 1) + token * isl + attention * isl**2 * (1 + cv2)) / 1000
    rate = min(0.8 * log_uniform(2, 50, rng) / each_s, 3000.0)
    kind = ARRIVALS[seed % len(ARRIVALS)]
    gap_cv2 = rng.uniform(1.5, 9) if kind == "hyperexponential" else rng.uniform(0.25, 6)
    cycle_s = min(within / 1000 * log_uniform(3, 300, rng), REQUESTS / rate / 300)
    ratio, busy = rng.uniform(1.5, 4), rng.uniform(0.1, 0.5)

    def arrivals(count: int) -> Floats:
        if kind == "mmpp":
            return mmpp(rate, ratio, busy, cycle_s, count, rng)
        return renewal("gamma" if kind == "poisson" else kind, rate, 1.0 if kind == "poisson" else gap_cv2, count, rng)

    before_s, slot_s = arrivals(3 * REQUESTS), max(within / 2000, 2 / rate)
    counts = np.histogram(before_s, np.arange(before_s[0], before_s[-1], slot_s))[0]
    prompts = lognormal(isl, cv2, 20 * isl, 4 * REQUESTS, rng)
    return Case(
        engine=engine,
        within_ms=within,
        arrival_s=arrivals(REQUESTS),
        isl=prompts[:REQUESTS],
        load=Load.of(Arrivals.observed(counts, slot_s), seen(prompts[REQUESTS:]), 1),
    )


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("family", LENGTHS)
@pytest.mark.parametrize("routing", ["least_loaded", "round_robin"])
def test_the_count_is_the_right_one(routing: Routing, family: str) -> None:
    ratios, over = [], []
    for seed in range(CASES):
        given = case(family, seed)
        sla = Sla(ttft_ms=given.within_ms, itl_ms=1e5, attainment=ATTAINMENT)
        replicas = given.sizing(routing).replicas_for(given.load, sla, ("prefill",))["prefill"].replicas
        right = given.right_count(replicas, routing)
        ratios.append(replicas / right)
        over.append(replicas > max(1.3 * right, right + 1))
    mean, few, many = math.exp(np.log(ratios).mean()), np.mean(np.array(ratios) < 1), np.mean(over)
    print(f"{family}, {routing}: {mean:.3f} times, too few in {few:.3f}, over 1.3 times in {many:.3f}")  # noqa: T201
    slack = 0.0 if CASES >= ALL else 0.15  # of a few cases the share is known to about one in ten
    if routing == "least_loaded":
        assert 0.97 - slack < mean < 1.06 + slack
        assert few <= 0.12 + slack  # of short prompts; of the others about 0.05
        assert many <= 0.025 + slack
    else:  # within about a seventh either way
        assert 0.93 - slack < mean < 1.08 + slack
        assert few <= 0.55 + slack
        assert many <= 0.1 + slack


def test_the_simulation_by_hand() -> None:
    engine = PrefillEngine(base_ms=10, token_ms=0.1, attention_ms=0.0, chunk=300)
    # 100 tokens take 20 ms; the others come meanwhile and share the next steps: 300 of 200 + 250 tokens, and 150.
    arrivals, isl = np.array([0.0, 0.005, 0.01]), np.array([100, 200, 250])
    assert ttft_ms(engine, 1, arrivals, isl) == pytest.approx([20, 20 + 40 - 5, 20 + 40 + 25 - 10])
    # Two replicas: the third prompt goes to the one that has 100 tokens, or in turn; both are the first.
    for routing in ("least_loaded", "round_robin"):
        assert ttft_ms(engine, 2, arrivals, isl, routing) == pytest.approx([20, 30, 20 + 35 - 10])
    quadratic = PrefillEngine(base_ms=10, token_ms=0.1, attention_ms=1e-4, chunk=100)
    assert ttft_ms(quadratic, 1, np.zeros(1), np.array([150])) == pytest.approx(quadratic.alone_ms(150))
    assert quadratic.alone_ms(150) == pytest.approx(20 + 15 + 2.25)
