"""check_policy: search for a case in which a policy breaks a law, by hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TypeVar

from dynamo_planner.conformance.laws import Case, ConformanceError, judged
from dynamo_planner.conformance.loops import check_monotone, check_state_size
from dynamo_planner.conformance.plant import Plant
from dynamo_planner.conformance.strategies import POOLS, Mode, Pools, as_service, pool_names, some_fields, timelines
from dynamo_planner.conformance.surroundings import Surroundings, nodes
from dynamo_planner.core.decision import State
from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.policy import PlainFunction, Policy, as_policy
from dynamo_planner.core.snapshot import PoolSpec, Snapshot

with needs_extra("testing"):
    import hypothesis
    from hypothesis import strategies as st

T = TypeVar("T")

TIMELINES = (1, 6)
"""The largest numbers of snapshots in a timeline, in the order in which they are tried."""

SIMPLIFICATIONS = 100
"""Simpler cases that are tried once one has failed."""

EXAMPLES_PER_PAIR = 5
"""Timelines for each pair of loads that is tried: each is run until it settles, which takes as long as several."""


def check_policy(
    policy: Policy | PlainFunction,
    *,
    modes: Collection[Mode] | Mode = ("aggregated", "disaggregated"),
    pools: Mapping[str, PoolSpec] | Snapshot | None = None,
    plant: Plant | None = None,
    examples: int = 40,
) -> None:
    """Look for a case in which a policy, or a plain function, breaks one of the laws.

    It is deterministic, and no examples are stored. Raises :class:`ConformanceError`, an ``AssertionError``, for the
    first law that is found broken.

    Args:
        policy: The policy, or a plain function.
        modes: ``aggregated`` has a pool ``workers``, ``disaggregated`` has ``prefill`` and ``decode``, with specs of
            any kind. Default both.
        pools: The pools of your own service instead: their specs by name, or a snapshot, of which specs and knobs are
            taken.
        plant: What the replicas can do; loads from none to 12 times its own are tried.
        examples: Timelines that are tried for each mode. Default 40.
    """
    policy = as_policy(policy)
    plant = plant or Plant()
    monotone = _is_monotone(policy)
    for given in _services(modes, pools):
        _check_decisions(policy, given, examples)
        service = as_service(_typical(given) if isinstance(given, str) else given)
        check_state_size(policy, service, plant)
        if monotone:
            _check_loads(policy, service, plant, max(examples // EXAMPLES_PER_PAIR, 1))


def _services(modes: Collection[Mode] | Mode, pools: Mapping[str, PoolSpec] | Snapshot | None) -> list[Pools]:
    if pools is not None:
        if not pool_names(pools):
            raise ValueError("pools: there are none, and a policy decides on one at least")
        return [pools]
    chosen: list[Mode] = [modes] if isinstance(modes, str) else list(modes)
    for mode in chosen:
        if mode not in POOLS:
            raise ValueError(f"modes: {mode!r} is no mode; allowed: {', '.join(POOLS)}")
    return [*chosen]


def _typical(mode: Mode) -> dict[str, PoolSpec]:
    return {name: PoolSpec(role=role, max_replicas=32) for name, role in POOLS[mode].items()}


def _is_monotone(policy: Policy) -> bool:
    for node in nodes(policy):
        if isinstance(node, Policy) and not node.monotone:
            if not node.monotone_reason.strip():
                message = f"{node.kind!r} declares monotone = False without a reason: set monotone_reason"
                raise ConformanceError("monotone", policy, message)
            return False
    return True


def _check_decisions(policy: Policy, pools: Pools, examples: int) -> None:
    surroundings = Surroundings(policy)

    def check(drawn: tuple[tuple[Snapshot, ...], frozenset[str]], only: str | None) -> None:
        timeline, hidden = drawn
        state: State | None = None
        for number, snapshot in enumerate(timeline):
            case = Case(policy, surroundings, timeline[:number], state, snapshot, hidden)
            state = judged(case, only).state

    for ticks in TIMELINES:  # what fails on a single snapshot is reported with a single snapshot
        search(st.tuples(timelines(pools, ticks=ticks, unknown=False), some_fields(pools)), check, examples // 2)


def _check_loads(policy: Policy, service: Snapshot, plant: Plant, examples: int) -> None:
    factors = st.tuples(*[st.sampled_from([0.0, 0.2, 1.0, 4.0]) | st.floats(0, 12)] * 2)
    starts = st.fixed_dictionaries({name: st.integers(1, 6) for name in service.pools})
    search(st.tuples(factors, starts), lambda drawn, _: check_monotone(policy, service, plant, *drawn), examples)


class _EnoughError(BaseException):
    """Ends a search. It is no Exception, so that hypothesis does not take it for a failure of the policy."""


def search(cases: st.SearchStrategy[T], check: Callable[[T, str | None], None], examples: int) -> None:
    """Check many cases, and raise for the simplest that is found to fail, of the law that fails first.

    A policy that is not deterministic need not fail again on the same case; then what was observed counts.
    """
    broken: list[ConformanceError] = []
    simpler = iter(range(SIMPLIFICATIONS))

    @hypothesis.settings(
        max_examples=max(examples, 1),
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        suppress_health_check=list(hypothesis.HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )
    @hypothesis.given(cases)
    def tried(case: T) -> None:
        if broken and next(simpler, None) is None:
            raise _EnoughError
        try:
            check(case, broken[0].law if broken else None)  # the other laws need not be checked any more
        except ConformanceError as error:
            broken.append(error)
            raise

    with suppress(ConformanceError, hypothesis.errors.Flaky, _EnoughError):
        tried()
    if broken:
        simplest = min(broken, key=lambda error: (len(error.snapshots), len(str(error))))
        raise simplest.with_traceback(None)
