"""What GpuBudget keeps for any pools, replicas and proposals, and that it settles in a plant where starting and
draining take time."""

from __future__ import annotations

import itertools
import math
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from dynamo_planner import Hold, PoolSpec, PoolStatus, Proposal, Replicas, ScaleTo, Snapshot, Traffic, Want
from dynamo_planner.core.invariants import within_specs
from dynamo_planner.core.policy import Policy
from dynamo_planner.guards import GpuBudget
from dynamo_planner.guards.fair_share import REBALANCE_MARGIN
from tests.support.laws import examples

law = examples(derandomize=True)

NAMES = "abcdef"


@st.composite
def specs(draw: st.DrawFn) -> PoolSpec:
    least = draw(st.integers(0, 3))
    return PoolSpec(
        role=draw(st.sampled_from(["prefill", "decode", "aggregated"])),
        gpus=draw(st.sampled_from([0, 1, 1, 2, 4, 8])),
        min_replicas=least,
        max_replicas=draw(st.none() | st.integers(least, 12)),
    )


replicas = st.builds(
    Replicas,
    ready=st.integers(0, 6),
    starting=st.integers(0, 3),
    draining=st.sampled_from([0, 0, 0, 1, 3]),
    target=st.none() | st.integers(0, 9),
)
entries = st.builds(Want, replicas=st.integers(0, 14), load=st.none() | st.floats(0, 14, allow_nan=False)) | st.builds(
    Hold, reason=st.just("its metrics are stale")
)


@st.composite
def worlds(draw: st.DrawFn, *, tidy: bool = False) -> tuple[Snapshot, Proposal, int]:
    """Any snapshot, proposal and budget; where ``tidy`` all is known and the present targets mostly keep the specs."""
    names = NAMES[: draw(st.integers(1, 6))]
    fewest = draw(st.sampled_from([0, 1, 1]))
    pools = {}
    for name in names:
        spec = draw(specs())
        present = draw(replicas if tidy else st.one_of(replicas, replicas, replicas, st.none()))
        if tidy and present is not None:
            most = 9 if spec.max_replicas is None else spec.max_replicas
            target = draw(st.integers(min(max(spec.min_replicas, fewest), most), most))
            present = present.replace(target=target)
        pools[name] = PoolStatus(spec=spec, replicas=present)
    traffic = Traffic(requests_per_s=draw(st.sampled_from([None, 0, 3])))
    proposal = Proposal(pools={name: draw(entries) for name in names if draw(st.integers(0, 9))})
    return Snapshot(at_s=0, traffic=traffic, pools=pools), proposal, draw(st.integers(0, 60))


def limited(snapshot: Snapshot, proposal: Proposal, max_gpus: int) -> Proposal:
    return GpuBudget(max_gpus=max_gpus).limit(snapshot, proposal, None)[0]


def targets(snapshot: Snapshot, proposal: Proposal) -> dict[str, int]:
    """What each pool that could be read would have."""
    found = {name: proposal.wanted(snapshot, name) for name, pool in snapshot.pools.items() if pool.replicas}
    return {name: count for name, count in found.items() if count is not None}


def present(snapshot: Snapshot) -> dict[str, int]:
    return {name: pool.replicas.target for name, pool in snapshot.pools.items() if pool.replicas}


def peak(snapshot: Snapshot, counts: dict[str, int]) -> int:
    """Worked out from the replicas alone: what is there or promised or wanted, and what is draining."""
    total = 0
    for name, count in counts.items():
        pool = snapshot.pools[name]
        assert pool.replicas is not None
        there = max(pool.replicas.target, pool.replicas.ready + pool.replicas.starting, count)
        total += pool.spec.gpus * (there + pool.replicas.draining)
    return total


def raised(snapshot: Snapshot, proposal: Proposal) -> list[str]:
    before = present(snapshot)
    return [name for name, count in targets(snapshot, proposal).items() if count > before[name]]


def in_good_order(snapshot: Snapshot) -> bool:
    """Whether all is known and the present targets keep the specs, as after any decision that was carried out."""
    if any(pool.replicas is None for pool in snapshot.pools.values()):
        return False
    as_it_is = Proposal.hold(snapshot.pools, "as it is")
    return within_specs(snapshot, as_it_is) == as_it_is


@law
@given(worlds())
def test_a_move_never_holds_more_gpus_than_there_are(world: tuple[Snapshot, Proposal, int]) -> None:
    snapshot, proposal, max_gpus = world
    after = limited(snapshot, proposal, max_gpus)
    assert peak(snapshot, present(snapshot)) == sum(pool.gpus_held() or 0 for pool in snapshot.pools.values())
    if peak(snapshot, present(snapshot)) <= max_gpus:
        assert peak(snapshot, targets(snapshot, after)) <= max_gpus
    else:
        assert raised(snapshot, after) == []


@law
@given(worlds())
def test_gpus_held_by_pools_that_could_not_be_read_are_unknown_so_nothing_is_raised(
    world: tuple[Snapshot, Proposal, int],
) -> None:
    snapshot, proposal, max_gpus = world
    if any(pool.replicas is None and pool.spec.gpus for pool in snapshot.pools.values()):
        assert raised(snapshot, limited(snapshot, proposal, max_gpus)) == []


@law
@given(worlds())
def test_nothing_is_raised_beyond_the_proposal(world: tuple[Snapshot, Proposal, int]) -> None:
    snapshot, proposal, max_gpus = world
    wanted = targets(snapshot, within_specs(snapshot, proposal))
    for name, count in targets(snapshot, limited(snapshot, proposal, max_gpus)).items():
        last_of_its_stage = (wanted[name], count) == (0, 1) and present(snapshot)[name] > 0
        assert count <= wanted[name] or last_of_its_stage


@law
@given(worlds())
def test_minimums_are_kept_and_nothing_that_is_wanted_is_lowered_to_zero(
    world: tuple[Snapshot, Proposal, int],
) -> None:
    snapshot, proposal, max_gpus = world
    wanted = targets(snapshot, within_specs(snapshot, proposal))
    for name, count in targets(snapshot, limited(snapshot, proposal, max_gpus)).items():
        fewest = max(snapshot.pools[name].spec.min_replicas, min(wanted[name], 1))
        assert count >= min(fewest, present(snapshot)[name])


@law
@given(worlds())
def test_a_held_pool_is_lowered_only_where_the_pools_have_too_much(world: tuple[Snapshot, Proposal, int]) -> None:
    snapshot, proposal, max_gpus = world
    before = present(snapshot)
    bounded = within_specs(snapshot, proposal)
    settled = {name: min(count, before[name]) for name, count in targets(snapshot, bounded).items()}
    assume(sum(snapshot.pools[name].spec.gpus * count for name, count in settled.items()) <= max_gpus)
    after = targets(snapshot, limited(snapshot, proposal, max_gpus))
    held = [name for name in after if isinstance(bounded.pools[name], Hold)]
    assert {name: after[name] for name in held} == {name: before[name] for name in held}


@law
@given(worlds())
def test_what_fits_is_left_alone(world: tuple[Snapshot, Proposal, int]) -> None:
    snapshot, proposal, max_gpus = world
    bounded = within_specs(snapshot, proposal)
    unread = any(pool.replicas is None for pool in snapshot.pools.values())
    if not unread and peak(snapshot, targets(snapshot, bounded)) <= max_gpus:
        assert limited(snapshot, proposal, max_gpus) == bounded


@law
@given(worlds())
def test_every_change_has_a_reason_and_every_reason_of_a_pool_a_change(world: tuple[Snapshot, Proposal, int]) -> None:
    snapshot, proposal, max_gpus = world
    bounded = within_specs(snapshot, proposal)
    after = limited(snapshot, proposal, max_gpus)
    own = [reason for reason in after.reasons[len(bounded.reasons) :] if reason.pool is not None]
    holds = [name for name, entry in after.pools.items() if isinstance(entry, Hold) and entry != bounded.pools[name]]
    changed = [name for name, count in targets(snapshot, after).items() if count != targets(snapshot, bounded)[name]]
    assert sorted([*(reason.pool for reason in own if reason.pool), *holds]) == sorted(changed)
    for reason in own:
        assert reason.values["granted"] == targets(snapshot, after)[reason.pool or ""]


@law
@given(worlds())
def test_loads_are_kept(world: tuple[Snapshot, Proposal, int]) -> None:
    snapshot, proposal, max_gpus = world
    for name, entry in limited(snapshot, proposal, max_gpus).pools.items():
        before = proposal.pools.get(name)
        if isinstance(entry, Want) and isinstance(before, Want):
            assert entry.load == before.load


@law
@given(worlds(tidy=True), st.randoms(use_true_random=False))
def test_the_order_of_the_pools_does_not_matter(world: tuple[Snapshot, Proposal, int], random: Any) -> None:
    snapshot, proposal, max_gpus = world
    assume(in_good_order(snapshot))
    names = list(snapshot.pools)
    random.shuffle(names)
    shuffled = snapshot.replace(pools={name: snapshot.pools[name] for name in names})
    bounded = within_specs(snapshot, proposal)
    assert targets(shuffled, limited(shuffled, bounded, max_gpus)) == targets(
        snapshot, limited(snapshot, bounded, max_gpus)
    )


@law
@given(worlds(tidy=True))
def test_the_specs_have_nothing_to_add(world: tuple[Snapshot, Proposal, int]) -> None:
    snapshot, proposal, max_gpus = world
    assume(in_good_order(snapshot))
    after = limited(snapshot, proposal, max_gpus)
    assert within_specs(snapshot, after) == after


class Fixed(Policy):
    """Proposes the same thing whatever it sees."""

    proposal: Proposal

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return self.proposal, state


@law
@given(worlds(tidy=True))
def test_the_actions_of_a_decision_keep_it_too(world: tuple[Snapshot, Proposal, int]) -> None:
    snapshot, proposal, max_gpus = world
    assume(in_good_order(snapshot))
    decision = (Fixed(proposal=proposal) | GpuBudget(max_gpus=max_gpus)).decide(snapshot)
    after = present(snapshot) | {a.pool: a.replicas for a in decision.actions if isinstance(a, ScaleTo)}
    if peak(snapshot, present(snapshot)) <= max_gpus:
        assert peak(snapshot, after) <= max_gpus
    else:
        assert not any(a.replicas > (a.expected or 0) for a in decision.actions if isinstance(a, ScaleTo))


class Plant:
    """Pools whose new replicas start for two ticks, and whose removed ones drain for three."""

    STARTING, DRAINING = 2, 3

    def __init__(self, pools: dict[str, PoolSpec], start: dict[str, int]) -> None:
        self.specs, self.tick = pools, 0
        self.started = {name: [-9] * count for name, count in start.items()}
        self.leaving: dict[str, list[int]] = {name: [] for name in pools}

    def seen(self) -> Snapshot:
        pools = {}
        for name, spec in self.specs.items():
            ready = sum(self.tick - since >= self.STARTING for since in self.started[name])
            draining = sum(self.tick - since < self.DRAINING for since in self.leaving[name])
            starting = len(self.started[name]) - ready
            pools[name] = PoolStatus(spec=spec, replicas=Replicas(ready=ready, starting=starting, draining=draining))
        return Snapshot(at_s=self.tick, traffic=Traffic(requests_per_s=1), pools=pools)

    def apply(self, counts: dict[str, int]) -> None:
        for name, count in counts.items():
            gone = max(len(self.started[name]) - count, 0)
            self.leaving[name] += [self.tick] * gone
            self.started[name] = [*self.started[name], *[self.tick] * count][:count]
        self.tick += 1

    def gpus(self) -> int:
        return peak(self.seen(), {name: len(started) for name, started in self.started.items()})


@st.composite
def plants(draw: st.DrawFn) -> tuple[Plant, dict[str, float], int]:
    names = NAMES[: draw(st.integers(1, 5))]
    pools = {
        name: PoolSpec(
            role="aggregated", gpus=draw(st.sampled_from([1, 2, 4, 8])), min_replicas=draw(st.integers(0, 2))
        )
        for name in names
    }
    start = {name: draw(st.integers(pools[name].min_replicas, 8)) for name in names}
    return Plant(pools, start), {name: draw(st.floats(0, 12)) for name in names}, draw(st.integers(1, 60))


def settle(plant: Plant, loads: dict[str, float], max_gpus: int) -> dict[str, int]:
    """What the pools have after a long time of constant loads."""
    proposal = Proposal(pools={name: Want(math.ceil(load), load) for name, load in loads.items()})
    for _ in range(60):
        plant.apply(targets(plant.seen(), limited(plant.seen(), proposal, max_gpus)))
    return present(plant.seen())


@examples(60, derandomize=True)
@given(plants(), st.booleans())
def test_constant_loads_settle_and_stay(world: tuple[Plant, dict[str, float], int], told: bool) -> None:
    plant, loads, max_gpus = world
    guard = GpuBudget(max_gpus=max_gpus)
    wants = {name: Want(math.ceil(load), load if told else None) for name, load in loads.items()}
    proposal = Proposal(pools=wants)
    history = []
    for _ in range(60):
        snapshot = plant.seen()
        before = plant.gpus()
        counts = targets(snapshot, guard.limit(snapshot, proposal, None)[0])
        history.append(counts)
        plant.apply(counts)
        assert plant.gpus() <= max(before, max_gpus)
    assert history[-40:] == [history[-1]] * 40
    directions = [
        {name: (after[name] > before[name]) - (after[name] < before[name]) for name in after}
        for before, after in itertools.pairwise(history)
    ]
    for name in loads:
        assert len({step[name] for step in directions} - {0}) <= 1, "a pool that moved both ways"


@examples(60, derandomize=True)
@given(plants())
def test_what_is_settled_on_leaves_no_gpu_that_a_pool_could_use(world: tuple[Plant, dict[str, float], int]) -> None:
    plant, loads, max_gpus = world
    wanted = {name: max(math.ceil(load), plant.specs[name].min_replicas) for name, load in loads.items()}
    least = {name: min(count, max(plant.specs[name].min_replicas, 1)) for name, count in wanted.items()}
    assume(sum(plant.specs[name].gpus * count for name, count in least.items()) <= max_gpus)
    counts = settle(plant, loads, max_gpus)
    for name in counts:
        assert counts[name] == wanted[name] or plant.specs[name].gpus > max_gpus - plant.gpus()


@examples(60, derandomize=True)
@given(st.sampled_from([1, 2, 4]), st.integers(2, 8), st.integers(2, 8), st.floats(1, 12), st.floats(1, 12))
def test_between_equal_pools_no_replica_is_left_where_it_is_clearly_needed_less(
    gpus: int, some: int, more: int, load_a: float, load_b: float
) -> None:
    pools = {name: PoolSpec(role="aggregated", gpus=gpus) for name in "ab"}
    loads = {"a": load_a, "b": load_b}
    counts = settle(Plant(pools, {"a": some, "b": more}), loads, max_gpus=gpus * (some + more))
    for pressed, other in ("ab", "ba"):
        if counts[other] > 1 and counts[pressed] < math.ceil(loads[pressed]):
            moved = max(loads[pressed] / (counts[pressed] + 1), loads[other] / (counts[other] - 1))
            assert loads[pressed] / counts[pressed] <= moved * (1 + REBALANCE_MARGIN) * (1 + 1e-9)
