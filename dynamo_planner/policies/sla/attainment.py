"""Attainment: the part that says what share of the requests each role has to serve in time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import SerializeAsAny

from dynamo_planner.core.component import Kinds
from dynamo_planner.core.decision import Reason
from dynamo_planner.core.snapshot import Role, Sla, Snapshot
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.part import Part
from dynamo_planner.policies.sla.state import LastPlan
from dynamo_planner.policies.sla.tick import Queue, Tick


class PoolActivity(NamedTuple):
    """What one pool is doing.

    Args:
        tick: Its status, its replicas, and how long a start takes.
        queue: What waits for it.
        last: What the decision before came to; ``None`` where there was none.
        others: What it came to for the other pools. Default no others.
    """

    tick: Tick
    queue: Queue
    last: LastPlan | None
    others: tuple[LastPlan, ...] = ()


class PromiseEvidence(NamedTuple):
    """What one tick says of the promise.

    Args:
        snapshot: The whole snapshot.
        sla: The targets, and the share of requests that is promised.
        arrivals: The window of traffic; its ``elapsed_s`` is 0 where it was seen before.
        pools: What each pool is doing.
    """

    snapshot: Snapshot
    sla: Sla
    arrivals: ArrivalWindow
    pools: Sequence[PoolActivity]


class AskedShares(NamedTuple):
    """The share of requests that each role is sized to serve in time.

    Args:
        by_role: The share, by role; every role has one.
        reasons: How they came to be. Default none.
        caution: By how much more careful each role has to be than the promise says, in log-odds. Default 0.
        late_s: Seconds of traffic that were late since the tick before: late requests over the arrival rate. Default 0.
    """

    by_role: Mapping[Role, float]
    reasons: tuple[Reason, ...] = ()
    caution: Mapping[Role, float] = FrozenMap()
    late_s: float = 0.0


class Attainment(Part):
    """How careful the sizing has to be, so that the promised share is met and no more is paid for."""

    @abstractmethod
    def ask(self, state: Any, evidence: PromiseEvidence) -> tuple[AskedShares, Any]:
        """The share to ask of each role, and the new state."""


class EvenSplit(Attainment, kind="even_split"):
    """What the SLA says: all of it of an aggregated role; of prefill and decode each may miss half of what both may
    miss together, however the misses fall. 99 % in all are 99.5 % of each."""

    def ask(self, state: Any, evidence: PromiseEvidence) -> tuple[AskedShares, Any]:
        promised = evidence.sla.attainment
        of_two = (1 + promised) / 2
        return AskedShares({"prefill": of_two, "decode": of_two, "aggregated": promised}), state


ATTAINMENTS = Kinds(
    "attainment",
    Attainment,
    "dynamo_planner.sla.attainment",
    {
        "kept_promise": "dynamo_planner.policies.sla.promise:KeptPromise",
        "even_split": "dynamo_planner.policies.sla.attainment:EvenSplit",
    },
    default="kept_promise",
)

AnyAttainment = Annotated[SerializeAsAny[Attainment], ATTAINMENTS.validator()]
"""A field that holds an attainment of any kind: one that is built, or its data."""
