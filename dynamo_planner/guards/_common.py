"""What the guards read of a snapshot and a proposal."""

from __future__ import annotations

from collections.abc import Iterator

from dynamo_planner.core.decision import Proposal, Want
from dynamo_planner.core.invariants import within_specs
from dynamo_planner.core.snapshot import Replicas, Snapshot
from dynamo_planner.core.values import FrozenMap


def wants(snapshot: Snapshot, proposal: Proposal) -> Iterator[tuple[str, Want, Replicas]]:
    """Every pool that is wanted at a number and whose replicas could be read: its name, the wish, and what it has."""
    for name, pool in snapshot.pools.items():
        entry = proposal.pools.get(name)
        if isinstance(entry, Want) and pool.replicas is not None:
            yield name, entry, pool.replicas


def within_service(snapshot: Snapshot, proposal: Proposal) -> Proposal:
    """The proposal within the specs, and without pools that this service does not have.

    They are told of once, here: left in, every later look at the specs would tell of them again.
    """
    proposal = within_specs(snapshot, proposal)
    pools = FrozenMap({name: entry for name, entry in proposal.pools.items() if name in snapshot.pools})
    return proposal.replace(pools=pools)
