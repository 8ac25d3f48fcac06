"""LoadPolicy: reactive scaling on queue and KV-cache thresholds.

>>> from dynamo_planner import PoolSpec, PoolStatus, Traffic
>>> def seen(at_s, kv_usage):
...     pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=2, kv_usage=kv_usage, queued=0, running=40)
...     return Snapshot(at_s=at_s, traffic=Traffic(requests_per_s=9), pools={"decode": pool})
>>> policy = LoadPolicy(adjustment_interval_s=60)
>>> for decision in policy.replay([seen(0, 0.94), seen(30, 0.95), seen(60, 0.99)]):
...     print(decision.explain())
decode: held
  Collecting: the next adjustment is in 60 s (target=2)
decode: held
  Collecting: the next adjustment is in 30 s (target=2)
decode: 2 -> 3 replicas
  KvUsageHigh: KV usage over the threshold (load=0.96, up=0.9, down=0.5, ready=2, samples=3)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import STUCK_AFTER_STARTUPS, PoolStatus, Role, Sla, Snapshot
from dynamo_planner.core.values import Count, FrozenMap
from dynamo_planner.policies.reactive_samples import Interval, LoadSample, PoolSamples, read, unknown_metric
from dynamo_planner.policies.reactive_verdict import Thresholds, learned_from, verdict

CLOCK_S = 1e-3
"""Unix seconds as floats are exact to less than this; an interval that ends sooner ends now."""

URGENT_AFTER_S, URGENT_TIMES = 30.0, 5.0
"""With an SLA a rise waits for no more than this many seconds of samples where five times as many requests are late as
may be."""


class LoadPolicy(Policy, kind="load"):
    """Reactive scaling: prefill pools on waiting requests per ready replica, others on mean KV usage.

    The rules began as those of the load-based planner of Dynamo 0.2 to 0.4 (``examples/llm/components/planner.py``),
    and the defaults are those of 0.3.2. It needs no profile. KV usage says nothing of latency, so give it the ``sla``
    where the source reports TTFT and ITL: as distributions, or as means, for which an exponential TTFT and an even ITL
    are assumed. Each decision takes a sample of every pool's load:

    - prefill: ``queued`` per ready replica. At one replica this is the size of the prefill queue, which is what the
      original compares with its thresholds however many replicas there are;
    - decode and aggregated: ``kv_usage + kv_per_waiting * queued`` per ready replica.

    Queues are sums over the workers that were observed, and so are divided by ``ready * coverage``. At the end of every
    ``adjustment_interval_s`` the mean load of each pool, prefill first, is compared with its thresholds; until then
    everything is held. A pool falls by one replica. It rises by one, or to where its KV usage would be at the
    threshold, at most by as many as are ready. ``Want.load`` is the number of replicas, fractional, that would be just
    at the up-threshold.

    - With an ``sla`` a pool also rises where more requests missed its target than may, TTFT for prefill, ITL for
      decode, either for aggregated pools, while its replicas have something to do. It falls only where no more would
      with latencies ``1 + 0.5 / (n - 1)`` times as long. Of two roles each may miss half. Where five times as many are
      late as may be, a rise waits for 30 s of samples only, and not for replicas that are starting.
    - A rise says that so few replicas do not do at this demand. They are refused for 80 intervals, twice as long each
      time, or until the demand is 15 % lower (:mod:`~dynamo_planner.policies.reactive_memory`); so a constant load
      settles.
    - A rise counts from the ready replicas: what is starting, failed or stuck is not requested again, but for one.

    - The interval starts anew while a pool starts or drains replicas, and when the number of ready ones changes. A
      start older than three start-up times is not waited for, and nothing is for longer than that and two intervals.
    - There is no scale-up for a load that this trend takes under the threshold within ``prefill_trend_intervals``.
    - There is no scale-down of a decode or aggregated pool for ``decode_grace_intervals`` full intervals after it got
      a new ready replica. The original counts the interval that sets the grace, and protects one less than it says.

    What the original is known to get wrong, and this does not:

    - Flapping between flat thresholds. A pool is scaled down only if its load on the replicas that remain, ``load * n /
      (n - 1)``, stays under the up-threshold. A queue does not show how busy the replicas are, so a prefill pool
      must also have fewer requests waiting and running than replicas that remain.
    - Unknown metrics. A metric that is unknown, or older than the interval, holds its pool. Scaling up needs only the
      pool's own metric; scaling down also ``queued`` of decode and ``running`` of prefill.
    - Idling. A service with no requests per second, freshly observed, and none known to be queued or running, has no
      load, also when its workers no longer report one. The last replica goes only after an idle interval, and where
      ``min_replicas`` is 0. A pool without capacity wakes up at once when requests arrive or wait at the frontend.
    - Ticks further apart than the interval: each decides by its own sample.
    With ``state=None`` an interval begins, and nothing but a pool without capacity changes.

    Args:
        adjustment_interval_s: Seconds between adjustments. Default 180.
        prefill_queue_up: Waiting requests per replica above which a prefill pool rises. Default 5.
        prefill_queue_down: Waiting requests per replica below which it falls. Default 0.2.
        decode_kv_up: The KV usage above which other pools rise. Default 0.9.
        decode_kv_down: The KV usage below which they fall. Default 0.5.
        kv_per_waiting: KV usage that a waiting request counts as. Default 0.02.
        decode_grace_intervals: Full intervals without a scale-down after a new ready replica. Default 3.
        prefill_trend_intervals: Intervals ahead at which a falling load is judged. Default 3.
        sla: Targets for TTFT and ITL, and the share of requests that must meet them. Default ``None``: load alone.
    """

    adjustment_interval_s: float = Field(default=180.0, gt=0)
    prefill_queue_up: float = Field(default=5.0, ge=0)
    prefill_queue_down: float = Field(default=0.2, ge=0)
    decode_kv_up: float = Field(default=0.9, ge=0, le=1)
    decode_kv_down: float = Field(default=0.5, ge=0, le=1)
    kv_per_waiting: float = Field(default=0.02, ge=0)
    decode_grace_intervals: Annotated[Count, Field(le=1000)] = 3
    prefill_trend_intervals: Annotated[Count, Field(le=1000)] = 3
    sla: Sla | None = None

    state_type: ClassVar[Any] = Interval

    @model_validator(mode="after")
    def _thresholds_are_ordered(self) -> Self:
        for name in ("prefill_queue", "decode_kv"):
            up, down = getattr(self, f"{name}_up"), getattr(self, f"{name}_down")
            if up <= down:
                raise ValueError(
                    f"{name}_up ({up}) must be above {name}_down ({down}), or replicas would come and go: "
                    f"raise {name}_up or lower {name}_down"
                )
        return self

    def propose(self, snapshot: Snapshot, state: Interval | None) -> tuple[Proposal, Interval]:
        at_s = snapshot.at_s
        pools = snapshot.with_role("prefill", "decode", "aggregated")
        readings = {name: self._read(snapshot, pool) for name, pool in pools.items()}
        last = state or Interval(started_s=at_s, completed_s=at_s, tick_s=at_s, pools={})
        moving = _moving(snapshot, pools, state)
        waits = moving is not None and at_s - last.completed_s <= self._patience_s(pools)
        samples = self._sampled(snapshot, pools, readings, last, anew=waits)
        interval = Interval(
            started_s=at_s if waits else last.started_s, completed_s=last.completed_s, tick_s=at_s, pools=samples
        )
        left_s = interval.started_s + self.adjustment_interval_s - at_s
        if waits:
            proposal = Proposal.hold(pools, f"the interval starts anew: {moving}", "ReplicasMoving")
            proposal, interval = self._urgent(snapshot, pools, readings, interval, proposal)
        elif left_s > CLOCK_S:
            proposal = Proposal.hold(pools, f"the next adjustment is in {left_s:.0f} s", "Collecting")
            proposal, interval = self._urgent(snapshot, pools, readings, interval, proposal)
        else:
            proposal, samples = self._adjusted(snapshot, pools, readings, samples)
            if moving is not None:
                message = f"it adjusts although {moving}: no interval was completed for {at_s - last.completed_s:.0f} s"
                proposal = proposal.because(Reason(code="WaitedLongEnough", message=message))
            cleared = {name: own.cleared(grace=max(own.grace - 1, 0)) for name, own in samples.items()}
            interval = Interval(started_s=at_s, completed_s=at_s, tick_s=at_s, pools=cleared)
        return self._awake(snapshot, pools, proposal), interval

    def _read(self, snapshot: Snapshot, pool: PoolStatus) -> LoadSample:
        fresh_s = self.adjustment_interval_s
        return read(snapshot, pool, kv_per_waiting=self.kv_per_waiting, fresh_s=fresh_s, sla=self.sla)

    def _patience_s(self, pools: Mapping[str, PoolStatus]) -> float:
        startup_s = max((pool.spec.startup_s for pool in pools.values()), default=0.0)
        return STUCK_AFTER_STARTUPS * startup_s + 2 * self.adjustment_interval_s

    def _sampled(
        self,
        snapshot: Snapshot,
        pools: Mapping[str, PoolStatus],
        readings: Mapping[str, LoadSample],
        last: Interval,
        *,
        anew: bool,
    ) -> dict[str, PoolSamples]:
        """The memory of each pool with the sample of this tick; samples before a gap are dropped."""
        gap = snapshot.at_s - last.tick_s > self.adjustment_interval_s
        moved = last.started_s == last.tick_s > last.completed_s
        drop = gap or (anew if self.sla is None else moved and not anew)
        protected = self.decode_grace_intervals if anew else self.decode_grace_intervals + 1  # this one is not full
        sampled = {}
        for name, pool in pools.items():
            own = last.pools.get(name)
            if pool.replicas is None:
                if own is not None:
                    sampled[name] = own
                continue
            ready = pool.replicas.ready
            if own is None:
                own = PoolSamples(ready=ready)
            elif ready != own.ready:
                new = ready > own.ready and pool.spec.role != "prefill"
                own = own.replace(ready=ready, grace=protected if new else own.grace)
                own = own.cleared(grace=own.grace) if anew else own
            own = own.cleared(grace=own.grace) if drop else own
            sampled[name] = own.plus(readings[name], snapshot.at_s, self.adjustment_interval_s)
        return sampled

    def _adjusted(
        self,
        snapshot: Snapshot,
        pools: Mapping[str, PoolStatus],
        readings: Mapping[str, LoadSample],
        samples: Mapping[str, PoolSamples],
        *,
        urgent: float = 1.0,
    ) -> tuple[Proposal, dict[str, PoolSamples]]:
        """The adjustment of each pool by its samples, and what is learned from it; where it is ``urgent``, late
        requests count only beyond that many times the share that may be late."""
        learned = dict(samples)
        entries: dict[str, Want | Hold] = {}
        reasons: list[Reason] = []
        for name, pool in pools.items():
            if pool.replicas is None:
                continue
            if stuck := pool.stuck(snapshot.at_s):
                message = f"{stuck} of its starts take too long, and are not waited for"
                reasons.append(Reason(code="StartsStuck", pool=name, message=message))
            reading, own = readings[name], samples[name]
            unknown = None if reading.idle else unknown_metric(snapshot, name, pool, self.adjustment_interval_s)
            if reading.load is None or not own.samples:
                entries[name] = Hold(unknown or "nothing new was observed of it in this interval", "MetricUnknown")
                continue
            limits = self._thresholds(pool.spec.role)
            limits = limits._replace(missed=None if limits.missed is None else urgent * limits.missed)
            entries[name], reason = verdict(snapshot.at_s, pool, pool.replicas, own, limits, unknown)
            learned[name] = learned_from(own, entries[name], pool.replicas, snapshot.at_s, self.adjustment_interval_s)
            if reason is not None:
                reasons.append(reason.replace(pool=name))
        return Proposal(pools=entries, reasons=tuple(reasons)), learned

    def _urgent(
        self,
        snapshot: Snapshot,
        pools: Mapping[str, PoolStatus],
        readings: Mapping[str, LoadSample],
        interval: Interval,
        proposal: Proposal,
    ) -> tuple[Proposal, Interval]:
        """The proposal with the rises that do not wait for the end of the interval."""
        if self.sla is None:
            return proposal, interval
        adjusted, learned = self._adjusted(snapshot, pools, readings, interval.pools, urgent=URGENT_TIMES)
        rises = {
            name: entry
            for name, entry in adjusted.pools.items()
            if isinstance(entry, Want)
            and (replicas := pools[name].replicas)
            and entry.replicas > replicas.target
            and snapshot.at_s - interval.pools[name].began_s >= URGENT_AFTER_S
        }
        reasons = [reason for reason in adjusted.reasons if reason.pool in rises]
        kept = {name: learned[name] if name in rises else own for name, own in interval.pools.items()}
        return proposal.with_pools(rises, reasons), interval.replace(pools=FrozenMap(kept))

    def _thresholds(self, role: Role) -> Thresholds:
        """The thresholds of a pool; where two roles share the requests that may miss, each may miss half."""
        prefill = role == "prefill"
        missed = None if self.sla is None else (1 - self.sla.attainment) / (1 if role == "aggregated" else 2)
        return Thresholds(
            up=self.prefill_queue_up if prefill else self.decode_kv_up,
            down=self.prefill_queue_down if prefill else self.decode_kv_down,
            missed=missed,
            trend_intervals=self.prefill_trend_intervals,
        )

    def _awake(self, snapshot: Snapshot, pools: Mapping[str, PoolStatus], proposal: Proposal) -> Proposal:
        """The proposal with pools that have no capacity, present or coming, woken up where requests come."""
        changes: dict[str, Want | Hold] = {}
        reasons = []
        for name, pool in pools.items():
            replicas = pool.replicas
            if replicas is None or replicas.ready or pool.coming(snapshot.at_s):
                continue
            requested = self._requests_come(snapshot, pool)
            if requested:
                wanted = max(replicas.target, min(pool.stuck(snapshot.at_s), 1) + 1)
                changes[name] = Want(wanted)
                message = "requests come, and no replica is ready or can be expected to be"
                reasons.append(Reason(code="NoCapacity", pool=name, message=message))
            elif replicas.target == 0:
                asleep = Hold("asleep: no requests come", "Asleep")
                unknown = Hold("traffic.requests_per_s and traffic.queued are unknown", "MetricUnknown")
                changes[name] = unknown if requested is None else asleep
        return proposal.with_pools(changes, reasons)

    def _requests_come(self, snapshot: Snapshot, pool: PoolStatus) -> bool | None:
        traffic = snapshot.traffic
        if snapshot.age_s(traffic.observed_at_s) > self.adjustment_interval_s:
            return None
        if traffic.requests_per_s is None and traffic.queued is None:
            return None
        return bool(traffic.requests_per_s or traffic.queued or pool.queued)


def _moving(snapshot: Snapshot, pools: Mapping[str, PoolStatus], state: Interval | None) -> str | None:
    """The first pool whose replicas are changing, and how; ``None`` where none is."""
    for name, pool in pools.items():
        replicas = pool.replicas
        if replicas is None:
            return f"the replicas of {name} could not be read"
        if coming := pool.coming(snapshot.at_s):
            return f"{name} has {coming} replicas starting"
        if replicas.draining:
            return f"{name} has {replicas.draining} replicas draining"
        there = replicas.ready + replicas.starting + replicas.failed
        if there != replicas.target:
            return f"{name} has {there} of {replicas.target} replicas"
        before = state.pools.get(name) if state else None
        if state and (before is None or before.ready != replicas.ready):
            return f"{name} now has {replicas.ready} replicas ready" + (f", not {before.ready}" if before else "")
    return None
