"""What the parts hand to each other: the facts of one tick of one pool."""

from __future__ import annotations

from typing import NamedTuple

from dynamo_planner.core.decision import Reason
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Snapshot
from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.engines.standard_knobs import CHUNK, SEQUENCES
from dynamo_planner.sizing.percentile import CHUNK_TOKENS
from dynamo_planner.sizing.waiting import Routing

LARGEST_KNOB = 1e9
"""Knob values from here on are taken for "no limit"."""

MIN_COVERAGE = 0.1
"""Queues are scaled up for workers that were not observed by at most the inverse of this share."""


REPORTED_CHANGE = 0.03
"""What was learned is reported where it differs from the profile or the spec by more than this share."""


class Engine(NamedTuple):
    """The settings of the engines of a pool.

    Args:
        chunk_tokens: The budget of tokens per step.
        max_num_seqs: The limit on requests per step; ``None``: the largest measured batch.
        routing: How requests reach the replicas.
    """

    chunk_tokens: int = CHUNK_TOKENS
    max_num_seqs: int | None = None
    routing: Routing = "least_loaded"

    def of(self, pool: PoolStatus, measured: float) -> Engine:
        """The same with what the knobs of a pool say; ``measured`` is the largest measured batch."""
        chunk, seqs = _whole(pool.knobs.get(CHUNK)), _whole(pool.knobs.get(SEQUENCES))
        if chunk is None and seqs is None:
            return self
        limit = self.max_num_seqs if seqs is None else min(seqs, self.max_num_seqs or int(measured))
        return Engine(chunk or self.chunk_tokens, limit, self.routing)

    def within(self, batch: float) -> Engine:
        """The same with at most this many requests per step."""
        return self._replace(max_num_seqs=min(self.max_num_seqs or int(batch), max(int(batch), 1)))


def _whole(value: KnobValue | None) -> int | None:
    """A knob as a whole number, where it is a number of at least 1."""
    return int(value) if isinstance(value, int | float) and 1 <= value < LARGEST_KNOB else None


class Tick(NamedTuple):
    """One pool at one tick.

    Args:
        name: The name of the pool.
        pool: Its status.
        replicas: Its replicas, which are known; those that sleep are among the failed ones (:func:`serving`).
        snapshot: The whole snapshot.
        share: The share of the service's requests that it gets.
        engine: The settings of its engines.
        lead_s: Seconds that a start is planned to take.
    """

    name: str
    pool: PoolStatus
    replicas: Replicas
    snapshot: Snapshot
    share: float
    engine: Engine
    lead_s: float


def serving(replicas: Replicas, asleep: float | None) -> Replicas:
    """The replicas of a pool, of which as many serve nothing as sleep: like failed ones, they hold their GPUs.

    >>> left = serving(Replicas(ready=4), asleep=1)
    >>> left.ready, left.failed, left.target
    (3, 1, 4)
    """
    sleeping = min(int(asleep or 0), replicas.ready)
    if not sleeping:
        return replicas
    return replicas.replace(ready=replicas.ready - sleeping, failed=replicas.failed + sleeping)


class Queue(NamedTuple):
    """The requests that wait for a pool.

    Args:
        requests: How many; ``None`` where that is unknown.
        unknown: Why it is unknown although it was known before.
    """

    requests: float | None
    unknown: str | None = None


def queue_of(tick: Tick, pool_seen: bool, service_seen: bool, max_age_s: float) -> Queue:
    """The requests that wait for a pool, in it and in front of it; ``*_seen`` is whether each was ever reported.

    What waits in front of the pools waits for a prompt to be computed, and so not for a decode pool.
    """
    pool, snapshot, traffic = tick.pool, tick.snapshot, tick.snapshot.traffic
    queued = pool.queued if snapshot.age_s(pool.observed_at_s) <= max_age_s else None
    unknown = None
    if queued is None and pool_seen:
        unknown = why_unknown(snapshot, f"pools.{tick.name}.queued")
    if queued is not None and pool.reporting:
        queued /= max(pool.reporting, MIN_COVERAGE)
    if pool.spec.role == "decode":
        return Queue(queued, unknown)
    if traffic.queued is None:
        return Queue(queued, unknown or (why_unknown(snapshot, "traffic.queued") if service_seen else None))
    return Queue((queued or 0.0) + tick.share * traffic.queued, unknown)


def why_unknown(snapshot: Snapshot, field: str) -> str:
    """That a field is unknown, and why if the source says so."""
    reason = snapshot.missing.get(field)
    return f"{field} is unknown" + (f": {reason}" if reason else "")


def reason(code: str, pool: str, message: str, **values: KnobValue | None) -> Reason:
    """A reason from values that are valid by construction, which saves most of its time."""
    return Reason.unchecked(code=code, pool=pool, message=message, values=FrozenMap(values))
