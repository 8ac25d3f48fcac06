"""The number of prefill replicas, judged by an exact simulation of the queue that shares nothing with the formulas."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit
from scipy.stats import norm

from dynamo_planner.sizing import Arrivals, PrefillQueue
from dynamo_planner.sizing.queueing import erlang_c
from tests.support.laws import scaled
from tests.support.traffic import FAMILIES, mmpp, renewal

Floats = npt.NDArray[np.float64]

REQUESTS, CASES, ATTAINMENT = 100_000, min(scaled(60), 200), 0.99


@njit(cache=True)
def in_time(arrival_s: Floats, service_s: Floats, within_s: float, servers: int) -> float:
    """First come, first served by whichever server is free first: the share that is done within the time."""
    free = [0.0] * servers
    late = 0
    for i in range(len(arrival_s)):
        start = max(free[0], arrival_s[i])
        heapq.heapreplace(free, start + service_s[i])
        late += start + service_s[i] - arrival_s[i] > within_s
    return 1 - late / len(arrival_s)


@dataclass
class Case:
    """Requests that come, requests like them that came before, and how long a prompt takes and may take."""

    arrival_s: Floats
    service_s: Floats
    before_s: Floats
    quantiles_s: Floats
    within_s: float
    rate: float


def case(family: str, seed: int) -> Case:
    """1-100 requests per second for roughly 2-64 servers, with log-normal service times."""
    rng = np.random.default_rng([FAMILIES.index(family), seed])
    rate = math.exp(rng.uniform(0, math.log(100)))
    mean_s = math.exp(rng.uniform(math.log(2), math.log(64))) * rng.uniform(0.5, 0.9) / rate
    within_s = mean_s * math.exp(rng.uniform(math.log(3), math.log(20)))
    sigma = math.sqrt(math.log(1 + rng.uniform(0.2, 2)))

    def service(normal: Floats) -> Floats:
        return np.minimum(np.exp(math.log(mean_s) - sigma**2 / 2 + sigma * normal), 0.6 * within_s)

    cv2 = rng.uniform(1.5, 9) if family == "hyperexponential" else rng.uniform(0.25, 6)
    cycle_s = min(mean_s * math.exp(rng.uniform(math.log(5), math.log(300))), REQUESTS / rate / 1000)
    ratio, busy = rng.uniform(1.5, 4), rng.uniform(0.1, 0.5)

    def arrivals(count: int) -> Floats:
        if family == "mmpp":
            return mmpp(rate, ratio, busy, cycle_s, count, rng)
        return renewal(family, rate, cv2, count, rng)

    return Case(
        arrival_s=arrivals(REQUESTS),
        service_s=service(rng.standard_normal(REQUESTS)),
        before_s=arrivals(3 * REQUESTS),
        quantiles_s=service(norm.ppf((np.arange(400) + 0.5) / 400)),
        within_s=within_s,
        rate=rate,
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_count_suffices_and_one_fewer_does_not(family: str) -> None:
    enough, several, tight = 0, 0, 0
    for seed in range(CASES):
        given = case(family, seed)
        slot_s = max(given.within_s / 2, 2 / given.rate)
        counts = np.histogram(given.before_s, np.arange(given.before_s[0], given.before_s[-1], slot_s))[0]
        queue = PrefillQueue(Arrivals.observed(counts, slot_s), given.quantiles_s, given.within_s)
        replicas = queue.replicas_for(ATTAINMENT)
        enough += in_time(given.arrival_s, given.service_s, given.within_s, replicas) >= ATTAINMENT
        if replicas >= 2:
            several += 1
            tight += in_time(given.arrival_s, given.service_s, given.within_s, replicas - 1) < ATTAINMENT
    print(f"{family}: suffices in {enough / CASES:.3f}, one fewer misses in {tight / several:.3f}")  # noqa: T201
    assert enough / CASES >= 0.95
    assert tight / several >= 0.60


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (3, 2.4), (20, 17.0), (64, 60.0)])
def test_erlang_c_is_the_textbooks(servers: int, load: float) -> None:
    blocked = 1.0
    for count in range(1, servers + 1):  # the recursion of Erlang B
        blocked = load * blocked / (count + load * blocked)
    assert erlang_c(servers, load) == pytest.approx(blocked / (1 - load / servers * (1 - blocked)), rel=1e-9)


def test_more_replicas_never_attain_less_and_the_count_is_the_first_that_attains() -> None:
    queue = PrefillQueue(Arrivals(30.0, dispersion=3.0), np.array([0.2, 0.5, 1.1]), 2.0)
    attained = queue.attainable(np.arange(1, 60))
    assert np.all(np.diff(attained) >= -1e-12)
    assert queue.replicas_for(0.99) == 1 + int(np.argmax(attained >= 0.99))


def test_prompts_that_can_never_be_in_time_are_said_and_not_paid_for() -> None:
    queue = PrefillQueue(Arrivals(10.0), np.array([0.1] * 9 + [5.0]), 1.0)
    assert queue.unattainable == pytest.approx(0.1)
    assert queue.replicas_for(0.99) < 20
    assert PrefillQueue(Arrivals(10.0), np.array([5.0]), 1.0).replicas_for(0.99) == 0


def test_arrivals_that_were_as_even_as_can_be_are_those_without_a_past() -> None:
    services_s, counts = np.array([0.1, 0.2, 0.3]), np.arange(3, 9)
    even = PrefillQueue(Arrivals(10.0, path=np.ones(100)), services_s, 0.5).attainable(counts)
    assert even == pytest.approx(PrefillQueue(Arrivals(10.0), services_s, 0.5).attainable(counts), abs=0.02)


def test_nothing_to_do_needs_nobody() -> None:
    assert PrefillQueue(Arrivals(0.0), np.array([0.1]), 1.0).replicas_for(0.99) == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Arrivals(math.nan), "requests_per_s must be a finite number of at least 0, got nan"),
        (lambda: Arrivals(1.0, slot_s=0.0), "slot_s must be above 0"),
        (lambda: PrefillQueue(Arrivals(1.0), np.array([]), 1.0), "service_s must be one or more finite times"),
        (lambda: PrefillQueue(Arrivals(1.0), np.array([1.0]), 0.0), "within_s must be above 0"),
    ],
)
def test_bad_input_is_refused_by_name(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message):
        build()
