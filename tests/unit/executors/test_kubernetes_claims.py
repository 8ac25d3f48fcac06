"""The claim on the replicas of a pool: who wrote them, and when it stops taking them back."""

from __future__ import annotations

import pytest

from dynamo_planner.executors.kubernetes.ownership import ReplicaClaim


def test_replicas_are_taken_back_twice_and_then_left_alone_for_a_while() -> None:
    """A writer that is not known by name, such as another planner on an old server, sets 3 each time."""
    claim = ReplicaClaim("decode", "retake", yield_s=100.0)
    claim.observe(3, "uid", 0.0, None)
    yielded = []
    for at_s in (10.0, 20.0, 30.0):
        claim.wrote(5, at_s)
        claim.observe(3, "uid", at_s + 5.0, None)
        yielded.append(claim.yields(at_s + 5.0) is not None)
    assert yielded == [False, False, True]
    assert claim.yields(136.0) is None
    claim.wrote(5, 200.0)
    claim.observe(3, "uid", 205.0, None)
    assert claim.yields(205.0) is None, "the others were long ago"


def test_who_wrote_before_the_change_did_not_make_it(caplog: pytest.LogCaptureFixture) -> None:
    """Before Kubernetes 1.22 a server keeps no account of writes to a scale: its latest entry is of an older one."""
    claim = ReplicaClaim("decode", "yield", yield_s=100.0)
    kubectl, helm = ("kubectl", "2026-01-01T00:00:00Z"), ("helm", "2026-01-01T00:01:00Z")
    for replicas, writer in ((2, kubectl), (3, kubectl), (4, helm)):
        claim.observe(replicas, "uid", 10.0 * replicas, writer)
    said = [record.message.partition(": ")[2].partition(" from")[0] for record in caplog.records]
    assert said == ["another writer changed the replicas", "helm changed the replicas"]
