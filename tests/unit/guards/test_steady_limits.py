"""Spare, Ratio, Tolerance, Multiples and a least of GPUs: single decisions, worked by hand."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dynamo_planner import Hold, PoolSpec, PoolStatus, Proposal, Replicas, Snapshot, Want
from dynamo_planner.core.pool_names import pool_names
from dynamo_planner.guards import Calendar, CalendarEntry, GpuBudget, Multiples, Ratio, Spare, Tolerance


def at(max_replicas: int | None = None, gpus: int = 1, **targets: int) -> Snapshot:
    """Pools named by their role, with so many replicas each."""
    pools = {
        role: PoolStatus(
            spec=PoolSpec(role=role, min_replicas=0, max_replicas=max_replicas, gpus=gpus),
            replicas=Replicas(ready=count),
        )
        for role, count in targets.items()
    }
    return Snapshot(at_s=0, pools=pools)


@pytest.mark.parametrize(
    ("guard", "want", "granted"),
    [
        (Spare(), Want(4), 5),
        (Spare(replicas=0, share=0.15), Want(10), 12),
        (Spare(replicas=3, share=0.1), Want(10), 13),
        (Spare(), Want(0), 0),
        (Spare(), Want(6, load=3.2), 6),  # kept for another reason: two beyond the four that are needed
        (Spare(replicas=3), Want(6, load=3.2), 7),
        (Spare(pools=("prefill",)), Want(4), 4),
    ],
)
def test_a_spare(guard: Spare, want: Want, granted: int) -> None:
    snapshot = at(decode=2)
    proposal, _ = guard.limit(snapshot, Proposal(pools={"decode": want}), None)
    assert proposal.wanted(snapshot, "decode") == granted


def test_a_spare_is_not_added_to_itself() -> None:
    """A policy that proposes what is there, and reports no load, means that the pool stays."""
    granted, state, targets = 3, None, []
    for proposed in (4, None, None, 6, None, 3):
        snapshot = at(decode=granted)
        wanted = granted if proposed is None else proposed
        proposal, state = Spare().limit(snapshot, Proposal(pools={"decode": Want(wanted)}), state)
        granted = proposal.wanted(snapshot, "decode") or 0
        targets.append(granted)
    assert targets == [5, 5, 5, 7, 7, 4]


@pytest.mark.parametrize(
    ("guard", "most", "prefill", "decode", "granted"),
    [
        (Ratio(most=2), None, 8, 2, (8, 4)),
        (Ratio(most=2), None, 4, 2, (4, 2)),
        (Ratio(most=2), 3, 8, 2, (6, 3)),
        (Ratio(least=0.5), None, 1, 5, (3, 5)),
        (Ratio(least=0.5), 2, 1, 9, (2, 4)),
        (Ratio(least=1, most=1), None, 3, 5, (5, 5)),
        (Ratio(most=2), None, 8, 0, (8, 0)),
    ],
)
def test_a_ratio_is_repaired_by_raising_first(
    guard: Ratio, most: int | None, prefill: int, decode: int, granted: tuple[int, int]
) -> None:
    snapshot = at(most, prefill=1, decode=1)
    proposal, _ = guard.limit(snapshot, Proposal(pools={"prefill": Want(prefill), "decode": Want(decode)}), None)
    assert (proposal.wanted(snapshot, "prefill"), proposal.wanted(snapshot, "decode")) == granted


@pytest.mark.parametrize(
    ("guard", "bounds", "wanted", "changed"),
    [
        # 9 prefill need 5 decode, 3 more: one fits into a, and the rest is b's
        (Ratio(most=2), {"a": (0, 2)}, {"p": 9, "a": 1, "b": 1}, {"a": 2, "b": 3}),
        (Ratio(most=2), {"a": (0, 2)}, {"p": 9, "a": 2, "b": 1}, {"b": 3}),  # a is full, and is not named
        # 2 decode permit 4 prefill: p keeps its minimum of 2, and q gives the other 7
        (Ratio(most=2), {"p": (2, None), "a": (0, 2)}, {"p": 3, "q": 9, "a": 1}, {"a": 2, "p": 2, "q": 2}),
        # 1 decode permits 1 prefill, but no pool goes to zero for a ratio
        (Ratio(most=1), {"a": (0, 1)}, {"p": 5, "q": 4, "a": 1}, {"p": 1, "q": 1}),
        (Ratio(most=1), {"a": (0, 1)}, {"p": 1, "q": 4, "a": 1}, {"q": 1}),
        # 1.1 * 50 = 55.00000000000001 are 55, and 33 / 1.1 = 29.999999999999996 are 30
        (Ratio(least=1.1), {}, {"p": 54, "a": 50}, {"p": 55}),
        (Ratio(least=1.1), {"p": (0, 33)}, {"p": 33, "a": 40}, {"a": 30}),
    ],
)
def test_a_ratio_is_shared_by_the_pools_of_a_role(
    guard: Ratio, bounds: dict[str, tuple[int, int | None]], wanted: dict[str, int], changed: dict[str, int]
) -> None:
    pools = {}
    for name in wanted:
        least, most = bounds.get(name, (0, None))
        spec = PoolSpec(role="decode" if name in "ab" else "prefill", min_replicas=least, max_replicas=most)
        pools[name] = PoolStatus(spec=spec, replicas=Replicas(ready=1))
    wants = {name: Want(count) for name, count in wanted.items()}
    proposal, _ = guard.limit(Snapshot(at_s=0, pools=pools), Proposal(pools=wants), None)
    assert {reason.pool: reason.values["replicas"] for reason in proposal.reasons} == changed
    assert proposal.pools == {name: Want(changed.get(name, count)) for name, count in wanted.items()}


def test_a_ratio_does_not_lower_a_held_pool() -> None:
    snapshot = at(3, prefill=8, decode=2)
    proposal, _ = Ratio(most=2).limit(snapshot, Proposal(pools={"prefill": Hold("blind"), "decode": Want(2)}), None)
    assert (proposal.wanted(snapshot, "prefill"), proposal.wanted(snapshot, "decode")) == (8, 3)


@pytest.mark.parametrize(
    ("guard", "present", "wanted", "granted"),
    [
        (Tolerance(), 20, 18, 20),
        (Tolerance(), 20, 17, 17),
        (Tolerance(), 20, 21, 21),
        (Tolerance(up=0.1), 20, 22, 20),
        (Tolerance(up=0.1), 20, 23, 23),
        (Tolerance(down=1), 1, 0, 0),
        (Tolerance(up=1), 0, 1, 1),
    ],
)
def test_a_tolerance(guard: Tolerance, present: int, wanted: int, granted: int) -> None:
    snapshot = at(decode=present)
    proposal, _ = guard.limit(snapshot, Proposal(pools={"decode": Want(wanted)}), None)
    assert proposal.wanted(snapshot, "decode") == granted


@pytest.mark.parametrize(
    ("most", "wanted", "granted"), [(None, 9, 12), (None, 8, 8), (10, 9, 8), (3, 2, 2), (None, 0, 0), (10, 5, 8)]
)
def test_multiples(most: int | None, wanted: int, granted: int) -> None:
    snapshot = at(most, decode=8)
    proposal, _ = Multiples(of={"decode": 4}).limit(snapshot, Proposal(pools={"decode": Want(wanted)}), None)
    assert proposal.wanted(snapshot, "decode") == granted


@pytest.mark.parametrize(
    ("wants", "granted"),
    [
        ({"prefill": Want(2, 1.9), "decode": Want(2, 1.1)}, (4, 2)),  # 6 of 8 there: the more loaded fall is undone
        ({"prefill": Want(4, 3.9), "decode": Want(4, 3.1)}, (4, 4)),
        ({"prefill": Want(1), "decode": Hold("blind")}, (2, 4)),
        ({"prefill": Want(6, 5.5), "decode": Want(1, 0.4)}, (6, 1)),
    ],
)
def test_a_least_of_gpus_is_kept_together(wants: dict[str, Want | Hold], granted: tuple[int, int]) -> None:
    snapshot = at(prefill=4, decode=4)
    proposal, _ = GpuBudget(max_gpus=12, min_gpus=6).limit(snapshot, Proposal(pools=wants), None)
    assert (proposal.wanted(snapshot, "prefill"), proposal.wanted(snapshot, "decode")) == granted


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"min_gpus \(9\) is above max_gpus \(8\)"):
        GpuBudget(max_gpus=8, min_gpus=9)
    with pytest.raises(ValidationError, match=r"least \(3\) is above most \(2\)"):
        Ratio(least=3, most=2)
    with pytest.raises(ValidationError, match="neither least nor most"):
        Ratio()


def test_names_of_pools_are_marked_so_that_a_configuration_checks_them() -> None:
    entry = CalendarEntry(pools=("decode",), replicas=1, reason="x")
    for guard in (Spare(pools=("decode",)), Multiples(of={"decode": 2}), Calendar(entries=(entry,))):
        assert [name for _, name in pool_names(guard)] == ["decode"]
