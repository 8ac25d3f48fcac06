"""Readings of a snapshot and a proposal that several guards share."""

from __future__ import annotations

from collections.abc import Iterator

from dynamo_planner.core.decision import Proposal, Want
from dynamo_planner.core.invariants import within_specs
from dynamo_planner.core.snapshot import Replicas, Snapshot
from dynamo_planner.core.values import FrozenMap


def wants(snapshot: Snapshot, proposal: Proposal) -> Iterator[tuple[str, Want, Replicas]]:
    """Every pool with a proposed target and known replicas: its name, the target, and the replicas."""
    for name, pool in snapshot.pools.items():
        entry = proposal.pools.get(name)
        if isinstance(entry, Want) and pool.replicas is not None:
            yield name, entry, pool.replicas


def within_service(snapshot: Snapshot, proposal: Proposal) -> Proposal:
    """The proposal within the specs, and without pools that this service does not have.

    These are reported once, here: left in, every later check of the specs would report them again.
    """
    proposal = within_specs(snapshot, proposal)
    pools = FrozenMap({name: entry for name, entry in proposal.pools.items() if name in snapshot.pools})
    return proposal.replace(pools=pools)
