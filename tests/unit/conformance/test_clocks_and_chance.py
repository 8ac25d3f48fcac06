"""A policy that reads a clock or draws a random number is found, wherever it gets it from."""

from __future__ import annotations

import datetime
import itertools
import math
import os
import random
import secrets
import time
import uuid
from collections.abc import Callable
from time import monotonic, perf_counter_ns
from typing import Any

import numpy as np
import pytest

from dynamo_planner import Policy, Proposal, Snapshot, Want
from dynamo_planner.conformance import ConformanceError, check_policy

pytestmark = pytest.mark.slow  # each is a search


@pytest.fixture(autouse=True)
def few_simplifications(monkeypatch: pytest.MonkeyPatch) -> None:
    """A law that is broken is found as surely; only the case that is shown is less simple."""
    monkeypatch.setattr("dynamo_planner.conformance.check.SIMPLIFICATIONS", 5)


class Reads(Policy, kind="reads"):
    """Replicas by requests per second, and by a number that it gets from elsewhere."""

    source: str

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        rate = snapshot.traffic.requests_per_s
        if rate is None:
            return Proposal.hold(snapshot.pools, "traffic.requests_per_s is unknown", "MetricUnknown"), state
        more = (CLOCKS | CHANCE)[self.source]() % 10
        return Proposal(pools={name: Want(math.ceil(rate / 4 + more)) for name in snapshot.pools}), state


CLOCKS: dict[str, Callable[[], float]] = {
    "time.time": lambda: time.time() / 1e6,
    "time.time_ns": lambda: time.time_ns() / 1e15,
    "time.monotonic": lambda: time.monotonic() * 1e3,
    "monotonic, by name": lambda: monotonic() * 1e3,
    "time.perf_counter": lambda: time.perf_counter() * 1e3,
    "perf_counter_ns, by name": lambda: perf_counter_ns() / 1e6,
    "time.clock_gettime": lambda: time.clock_gettime(time.CLOCK_MONOTONIC) * 1e3,
    "datetime.now": lambda: datetime.datetime.now().timestamp() / 1e6,
    "datetime.now in UTC": lambda: datetime.datetime.now(datetime.UTC).hour,
    "date.today": lambda: datetime.date.today().toordinal(),
    "the day of the week": lambda: time.localtime().tm_wday,
    "time.strftime": lambda: float(time.strftime("%H")),
}

COUNT = itertools.count()

CHANCE: dict[str, Callable[[], float]] = {
    "random.random": lambda: random.random() * 10,
    "random.Random": lambda: random.Random().random() * 10,
    "random.SystemRandom": lambda: random.SystemRandom().random() * 10,
    "numpy.random.rand": lambda: float(np.random.rand()) * 10,
    "numpy.random.default_rng": lambda: float(np.random.default_rng().random()) * 10,
    "os.urandom": lambda: os.urandom(1)[0],
    "secrets": lambda: secrets.randbelow(10),
    "uuid4": lambda: uuid.uuid4().int,
    "a draw that seldom matters": lambda: 1 if random.random() < 1e-6 else 0,
    "a count of its own calls": lambda: next(COUNT),
}


def law_against(source: str) -> str:
    with pytest.raises(ConformanceError) as caught:
        check_policy(Reads(source=source))
    return caught.value.law


@pytest.mark.parametrize("source", CLOCKS)
def test_a_clock_that_is_read_is_found(source: str) -> None:
    assert law_against(source) == "no-clock"


@pytest.mark.parametrize("source", CHANCE)
def test_chance_and_hidden_memory_are_found(source: str) -> None:
    assert law_against(source) == "same-input"


def test_plain_functions_are_looked_at_too() -> None:
    with pytest.raises(ConformanceError, match="'no-clock'"):
        check_policy(lambda snapshot: {"workers": int(monotonic()) % 7})
    with pytest.raises(ConformanceError, match="it draws from random"):
        check_policy(lambda snapshot: {"workers": random.randrange(7)})


def test_clocks_and_generators_are_left_as_they_were() -> None:
    random.seed(7)
    np.random.seed(7)
    before = [time.monotonic, time.time, monotonic, random.getstate(), repr(np.random.get_state())]
    for source in ("time.monotonic", "monotonic, by name", "random.random", "numpy.random.rand"):
        law_against(source)
    assert [time.monotonic, time.time, monotonic, random.getstate(), repr(np.random.get_state())] == before
    assert time.monotonic() < monotonic() + 1
