"""Desired replicas published as a gauge, for an HPA, KEDA or KServe to act upon (extra ``prometheus``).

``dynamo_planner_desired_replicas{namespace,target,pool}`` is a number of replicas, so the autoscaler's target is 1 per
replica. What is unknown, or older than ``valid_s``, is absent and never 0: then the autoscaler holds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple, Self

from dynamo_planner.core.decision import Action, Outcome, Reason, ScaleTo
from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.snapshot import PoolSpec, Replicas
from dynamo_planner.executors import ElectsLeader, Executor, ReportsEndpoints, ReportsTroubles, ReportsUnknown
from dynamo_planner.executors.gauge_following import Following, Limit

with needs_extra("prometheus"):
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector

NAME = "dynamo_planner_desired_replicas"
LABELS = ("namespace", "target", "pool")


class _Published(NamedTuple):
    replicas: int
    until_s: float


class GaugeExecutor:
    """Publishes desired replicas, and leaves it to an autoscaler to reach them.

    The target of a pool is what was last published; at the start that is the target first observed, as if it had been
    desired all along, so that the autoscaler has a number while nothing is to change. A number is published as long as
    the pool can be read, and for ``valid_s`` after that: a planner that is stuck, or has no data, does not go on
    publishing an old one.

    An autoscaler that does not follow, because of a bound of its own, a quota or its tolerance, is believed: the number
    is brought back to where it stays, which is the pool's ``max_replicas`` (or ``min_replicas``) until it moves or
    ``again_s`` has passed. So a fall takes effect at once, and ``NotFollowed`` says what was requested. For example,
    with a maximum of 4 in the HPA and 6 published, 4 is published again after 120 s.

    Args:
        namespace: Label of the gauge, by which the autoscaler finds it.
        target: Label of the gauge, by which the autoscaler finds it.
        observed: Executor that reports the actual replicas. It never acts, and is started and ended with this one.
        registry: Where the gauge is registered; ``None`` leaves that to the one that serves the page.
        valid_s: Seconds that a number is published after the pool was last read (60).
        follow_up_s: Seconds that the autoscaler may take to begin to follow a rise (120).
        follow_down_s: Seconds that it may take to begin to follow a fall, its stabilization included (600).
        again_s: Seconds after which a number that it did not follow is published again (600).
        clock: A monotonic clock, in seconds.
        unix: The clock of the system, in Unix seconds, for what is reported.

    >>> from dynamo_planner.executors.dry_run import DryRunExecutor
    >>> registry = CollectorRegistry()
    >>> actual = DryRunExecutor({"decode": PoolSpec(role="decode")}, {"decode": 2})
    >>> gauge = GaugeExecutor("llm", "llama", actual, registry)
    >>> gauge.observe()["decode"].target
    2
    >>> gauge.apply([ScaleTo(pool="decode", replicas=5, expected=2)])[0].message
    'decode: 5 replicas are requested, and no longer 2'
    >>> registry.get_sample_value(NAME, {"namespace": "llm", "target": "llama", "pool": "decode"})
    5.0
    >>> gauge.observe()["decode"]
    Replicas(ready=2, starting=0, starting_since_s=None, failed=0, draining=0, target=5)
    """

    def __init__(
        self,
        namespace: str,
        target: str,
        observed: Executor,
        registry: CollectorRegistry | None = None,
        *,
        valid_s: float = 60.0,
        follow_up_s: float = 120.0,
        follow_down_s: float = 600.0,
        again_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        unix: Callable[[], float] = time.time,
    ) -> None:
        self._labels = (namespace, target)
        self._observed = observed
        self._valid_s = valid_s
        self._clock, self._unix = clock, unix
        self._following = Following(follow_up_s, follow_down_s, again_s)
        self._lock = threading.Lock()
        self._published: dict[str, _Published] = {}
        self._started = ExitStack()
        if registry is not None:
            registry.register(_Gauge(self))

    def __enter__(self) -> Self:
        if isinstance(self._observed, AbstractContextManager):
            self._started.enter_context(self._observed)
        return self

    def __exit__(self, *exception: object) -> None:
        self._started.close()

    @property
    def pools(self) -> Mapping[str, PoolSpec]:
        """The pools, within the limits of an autoscaler that does not follow."""
        return {name: self._within_limit(name, spec) for name, spec in self._observed.pools.items()}

    def _within_limit(self, pool: str, spec: PoolSpec) -> PoolSpec:
        limit = self._following.current(pool)
        if limit is None:
            return spec
        least, most, stays = spec.min_replicas, spec.max_replicas, limit.replicas
        if limit.requested > stays:
            return spec.replace(min_replicas=min(least, stays), max_replicas=stays)
        return spec.replace(min_replicas=stays, max_replicas=None if most is None else max(most, stays))

    @property
    def unknown(self) -> Mapping[str, str]:
        """Why the replicas of a pool were unknown when they were last observed."""
        return self._observed.unknown if isinstance(self._observed, ReportsUnknown) else {}

    def observe(self) -> Mapping[str, Replicas | None]:
        """What there is, with what was last published as the target."""
        actual = self._observed.observe()
        with self._lock:
            for pool, replicas in actual.items():
                if replicas is not None:
                    self._publish(pool, self._confirmed(pool, replicas.target))
            return {pool: replicas and self._with_published_target(pool, replicas) for pool, replicas in actual.items()}

    @property
    def troubles(self) -> Sequence[Reason]:
        """What keeps replicas from starting, serving or ending; the pools whose autoscaler does not follow among it."""
        with self._lock:
            limits = {pool: limit for pool in self._published if (limit := self._following.current(pool)) is not None}
            reasons = tuple(self._not_followed(pool, limit) for pool, limit in limits.items())
        own = self._observed.troubles if isinstance(self._observed, ReportsTroubles) else ()
        return (*own, *reasons)

    def _not_followed(self, pool: str, limit: Limit) -> Reason:
        for_s = self._clock() - limit.since_s
        message = (
            f"its autoscaler stays at {limit.replicas} replicas, and {limit.requested} were requested {for_s:.0f} s "
            "ago: look at its own bounds, at quotas, and at its tolerance"
        )
        values = {"replicas": limit.replicas, "requested": limit.requested, "began_at_s": self._unix() - for_s}
        return Reason(code="NotFollowed", pool=pool, message=message, values=values)

    def apply(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        with self._lock:
            return tuple(self._begin(action) for action in actions)

    def endpoints(self) -> Mapping[str, Mapping[str, str]]:
        return self._observed.endpoints() if isinstance(self._observed, ReportsEndpoints) else {}

    @property
    def leading(self) -> bool | None:
        return self._observed.leading if isinstance(self._observed, ElectsLeader) else None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The metric as it is now, for a registry of prometheus_client."""
        return _Gauge(self).collect()

    def samples(self) -> Iterator[tuple[list[str], float]]:
        """The labels and the value of each pool with a valid number."""
        with self._lock:
            published, now_s = dict(self._published), self._clock()
        for pool, (replicas, until_s) in published.items():
            if now_s < until_s:
                yield [*self._labels, pool], float(replicas)

    def _begin(self, action: Action) -> Outcome:
        if not isinstance(action, ScaleTo):
            message = f"a gauge of replicas cannot set knobs, and {action.knob!r} stays as it is"
            return Outcome(action=action, status="refused", message=message)
        if action.pool not in self._published:
            message = f"{action.pool} could not be read yet, so it is not known what it has"
            return Outcome(action=action, status="refused", message=message)
        before = self._published[action.pool].replicas
        if action.expected not in {None, before}:
            message = f"{action.pool} requests {before} and not {action.expected} replicas, which this was decided for"
            return Outcome(action=action, status="refused", message=message)
        if (limit := self._following.limit(action.pool, action.replicas)) is not None and before != action.replicas:
            return Outcome(action=action, status="refused", message=self._not_followed(action.pool, limit).message)
        self._publish(action.pool, action.replicas)
        if before == action.replicas:
            return Outcome(action=action, status="unchanged", message=f"{action.pool}: {before} replicas are requested")
        message = f"{action.pool}: {action.replicas} replicas are requested, and no longer {before}"
        return Outcome(action=action, status="applied", message=message)

    def _confirmed(self, pool: str, actual: int) -> int:
        """The number to publish until another is desired: the last one, where the autoscaler follows it."""
        known = self._published.get(pool)
        if known is None:
            return actual
        self._following.observe(pool, requested=known.replicas, actual=actual, now_s=self._clock(), gap_s=self._valid_s)
        return known.replicas if self._following.limit(pool, known.replicas) is None else actual

    def _publish(self, pool: str, replicas: int) -> None:
        self._published[pool] = _Published(replicas, self._clock() + self._valid_s)

    def _with_published_target(self, pool: str, replicas: Replicas) -> Replicas:
        return replicas.replace(target=self._published[pool].replicas)


class _Gauge(Collector):
    """Collected at each scrape, so that what is no longer valid disappears by itself."""

    def __init__(self, executor: GaugeExecutor) -> None:
        self._executor = executor

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(NAME, "Replicas that the planner desires; absent while unknown", labels=LABELS)
        for labels, value in self._executor.samples():
            family.add_metric(labels, value)
        yield family
