"""Calls under another clock and with other random numbers, for what must depend on neither."""

from __future__ import annotations

import inspect
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.node import Node
from dynamo_planner.core.policy import FunctionPolicy

with needs_extra("testing"):
    import time_machine

HERE_S = 1_767_225_600.0
ELSEWHEN_S = (200_000_123.457, 1_234_567_890.123, 1_760_000_042.71, 4_000_006_000.999)
"""Times far apart: other hours, other days of the week, other months."""

COUNTERS: dict[str, Any] = {
    name: getattr(time, name)
    for clock in ("monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime")
    for name in (clock, f"{clock}_ns")
    if hasattr(time, name)
}
"""The clocks that time-machine leaves alone, as far as this system has them."""


class Called(NamedTuple):
    """What a call returned, and whether it drew from a random generator that the process shares, and which."""

    result: Any
    drew_from: str | None


class Surroundings:
    """Where a policy is called: every clock stands still, and the shared random generators are seeded.

    Counters such as ``time.monotonic`` are replaced in ``time`` and where the policy's own modules, or the module of a
    plain function, imported them by name.
    """

    def __init__(self, policy: Node) -> None:
        self._places: list[tuple[dict[str, Any], str, str]] = [(vars(time), name, name) for name in COUNTERS]
        for namespace in _namespaces(policy):
            for alias, value in namespace.items():
                self._places += [(namespace, alias, name) for name, counter in COUNTERS.items() if value is counter]

    def call(self, function: Callable[[], Any], *, clock_s: float = HERE_S, seed: int = 0) -> Called:
        """Call at this time, with this seed."""
        before, before_numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        seeded, seeded_numpy = random.getstate(), _comparable(np.random.get_state())
        try:
            with time_machine.travel(clock_s, tick=False), self._stopped(clock_s):
                result = function()
            if random.getstate() != seeded:
                return Called(result, "random")
            drew_numpy = _comparable(np.random.get_state()) != seeded_numpy
            return Called(result, "numpy.random" if drew_numpy else None)
        finally:
            random.setstate(before)
            np.random.set_state(before_numpy)

    @contextmanager
    def _stopped(self, clock_s: float) -> Iterator[None]:
        try:
            for namespace, alias, name in self._places:
                value = int(clock_s * 1e9) if name.endswith("_ns") else clock_s
                namespace[alias] = lambda *_, value=value: value
            yield
        finally:
            for namespace, alias, name in self._places:
                namespace[alias] = COUNTERS[name]


def _comparable(state: Any) -> tuple[Any, ...]:
    kind, keys, *rest = state
    return (kind, keys.tobytes(), *rest)


def nodes(policy: Node) -> Iterator[Node]:
    """A policy or guard and every one inside it."""
    yield policy
    for name in type(policy).model_fields:
        value = getattr(policy, name)
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, Node):
                yield from nodes(inner)


def _namespaces(policy: Node) -> Iterator[dict[str, Any]]:
    """The global names of the code that a policy is made of."""
    for node in nodes(policy):
        code = inspect.unwrap(node.function) if isinstance(node, FunctionPolicy) else type(node)
        module = sys.modules.get(getattr(code, "__module__", None) or "")
        yield getattr(code, "__globals__", vars(module) if module else {})
