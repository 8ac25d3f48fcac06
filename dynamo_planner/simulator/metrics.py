"""What a source shows of a simulated cluster: counters over a window and gauges, late, lost or frozen."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynamo_planner.core.metrics import Dist, InTime, PoolMetrics, StageTimes, Traffic, WorkerStatus
from dynamo_planner.core.share import cumulative_shares
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.simulator.backends import ObjectBackend
from dynamo_planner.simulator.gauges import PoolGauges
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.simulator.state import BUCKET_RATIO, FIRST_BUCKET_S, LATENCY_BUCKETS, ClusterState
from dynamo_planner.simulator.workers import SimulatedFleet
from dynamo_planner.workloads.trace import Trace

DISPERSION_BIN_S = 1.0
"""Arrivals are counted in bins of this width for their dispersion."""

BOUNDS_MS = tuple(1e3 * FIRST_BUCKET_S * BUCKET_RATIO**bucket for bucket in range(LATENCY_BUCKETS - 1))
"""The upper bounds of the buckets of latencies. The last bucket has all that is longer."""

NOT_YET = "nothing has been measured yet"
LOST = "the metrics of this pool were lost (a fault of the simulation)"


@dataclass(frozen=True)
class ClusterSample:
    """The counters and gauges of the cluster at one moment.

    Args:
        at_s: the moment, in seconds of the trace.
        counters: the counters of the cluster.
        pools: the gauges of each pool.
        workers: the gauges of each worker, by pool, where the setup shows them.
        ttft_counts: first tokens by bucket of TTFT.
        itl_counts: finished requests by bucket of ITL.
    """

    at_s: float
    counters: ClusterState
    pools: dict[str, PoolGauges]
    workers: dict[str, tuple[WorkerStatus, ...]]
    ttft_counts: Any
    itl_counts: Any


class SimulatedMetrics:
    """Takes samples of a cluster and makes observations of them."""

    def __init__(
        self, setup: ClusterSetup, backend: ObjectBackend, fleet: SimulatedFleet, trace: Trace, seed: int
    ) -> None:
        self._setup = setup
        self._backend = backend
        self._fleet = fleet
        self.expect(trace)
        self._random = np.random.default_rng([seed, 2])
        self._samples: deque[ClusterSample] = deque()
        self._last: Observation | None = None
        self._tokens = next(name for name, pool in setup.pools.items() if pool.spec.role != "prefill")
        self._sample(0.0)

    def expect(self, trace: Trace) -> None:
        """The requests that arrive."""
        self._isl = _sums(trace.isl)
        self._arrivals = _sums(np.bincount((trace.arrival_s // DISPERSION_BIN_S).astype(np.int64)))

    def observe(self, now_s: float, origin_s: float) -> Observation:
        """What the source shows at ``now_s`` (seconds of the trace), with times counted from ``origin_s``."""
        metrics = self._setup.metrics
        if any(start <= now_s < end for start, end in metrics.frozen) and self._last is not None:
            return self._last
        if self._samples[-1].at_s < now_s:
            self._sample(now_s)
        samples = self._samples
        shown_s = now_s - metrics.delay_s
        while len(samples) > 2 and samples[1].at_s <= shown_s - metrics.window_s:
            samples.popleft()
        new = next((sample for sample in reversed(samples) if sample.at_s <= shown_s), None)
        if new is None or new.at_s <= samples[0].at_s:
            return self._nothing_yet()
        lost = {name for name in self._setup.pools if self._is_lost()}
        pools = {
            name: self._pool_metrics(name, samples[0], new, origin_s) for name in self._setup.pools if name not in lost
        }
        missing = {f"pools.{name}": LOST for name in lost}
        self._last = Observation.unchecked(
            traffic=self._traffic(samples[0], new, origin_s), pools=FrozenMap(pools), missing=FrozenMap(missing)
        )
        return self._last

    def _is_lost(self) -> bool:
        share = self._setup.metrics.missing_share
        return share > 0 and bool(self._random.random() < share)

    def _nothing_yet(self) -> Observation:
        missing = {"traffic": NOT_YET, **{f"pools.{name}": NOT_YET for name in self._setup.pools}}
        return Observation(traffic=Traffic(observed_at_s=None), missing=missing)

    def _sample(self, now_s: float) -> None:
        backend = self._backend
        pools = {name: backend.gauges[place] for name, place in backend.places.items()}
        self._samples.append(
            ClusterSample(
                now_s,
                backend.counters(),
                pools,
                self._workers() if self._setup.metrics.workers else {},
                np.array(backend.world.ttft_counts),
                np.array(backend.world.itl_counts),
            )
        )

    def _workers(self) -> dict[str, tuple[WorkerStatus, ...]]:
        return {
            name: tuple(self._backend.status(worker.place) for worker in pool.in_state("ready"))
            for name, pool in self._fleet.pools.items()
        }

    def _pool_metrics(self, name: str, old: ClusterSample, new: ClusterSample, origin_s: float) -> PoolMetrics:
        gauges = new.pools[name]
        return PoolMetrics.unchecked(
            observed_at_s=origin_s + new.at_s,
            coverage=1.0,
            asleep=0.0,
            queued=float(gauges.queued),
            queued_tokens=float(gauges.queued_tokens),
            running=float(gauges.running),
            kv_usage=min(float(gauges.kv_usage), 1.0),
            kv_usage_max=min(float(gauges.kv_usage_max), 1.0),
            kv_capacity_tokens=float(self._backend.limits(self._backend.places[name]).kv_tokens),
            stages=self._stage_times(name, old.pools[name], new.pools[name]),
            traffic=Traffic.unchecked(
                window_s=new.at_s - old.at_s,
                observed_at_s=origin_s + new.at_s,
                preemptions_per_s=(gauges.preemptions - old.pools[name].preemptions) / (new.at_s - old.at_s),
            ),
            workers=new.workers.get(name, ()),
        )

    def _stage_times(self, name: str, then: PoolGauges, now: PoolGauges) -> StageTimes:
        """How long the requests were in each stage that the pool was done with in the window."""
        left, prefills, handed = now.left - then.left, now.prefills - then.prefills, now.handed - then.handed
        finished = 0 if self._setup.pools[name].spec.role == "prefill" else left
        return StageTimes.unchecked(
            queue_ms=_dist(left, 1e3 * (now.queue_s - then.queue_s), None),
            prefill_ms=_dist(prefills, 1e3 * (now.prefill_s - then.prefill_s), None),
            transfer_ms=_dist(handed, 1e3 * (now.transfer_s - then.transfer_s), None),
            first_token_ms=_dist(handed, 1e3 * (now.first_token_s - then.first_token_s), None),
            decode_ms=_dist(finished, 1e3 * (now.decode_s - then.decode_s), None),
        )

    def _traffic(self, old: ClusterSample, new: ClusterSample, origin_s: float) -> Traffic:
        span_s = new.at_s - old.at_s
        then, now = old.counters, new.counters
        first, last = then.next_arrival, now.next_arrival
        finished = now.finished - then.finished
        prompt_tokens = now.prompt_tokens - then.prompt_tokens
        tokens = new.pools[self._tokens].tokens - old.pools[self._tokens].tokens
        token_time_s = new.pools[self._tokens].token_time_s - old.pools[self._tokens].token_time_s
        known: dict[str, Any] = {
            "window_s": span_s,
            "observed_at_s": origin_s + new.at_s,
            "requests_per_s": (last - first) / span_s,
            "rejected_per_s": 0.0,
            "aborted_per_s": 0.0,
            "preemptions_per_s": (new.pools[self._tokens].preemptions - old.pools[self._tokens].preemptions) / span_s,
            "queued": float(sum(gauges.in_front for gauges in new.pools.values())),
            "queued_tokens": float(sum(gauges.in_front_tokens for gauges in new.pools.values())),
            "isl": _dist(
                last - first,
                *_between(self._isl, first, last),
            ),
            "osl": _dist(finished, now.osl - then.osl, now.osl2 - then.osl2),
            "ttft_ms": self._latency(
                now.first_tokens - then.first_tokens,
                now.ttft_s - then.ttft_s,
                now.ttft_s2 - then.ttft_s2,
                old.ttft_counts,
                new.ttft_counts,
            ),
            "itl_ms": self._latency(
                now.itls - then.itls,
                now.itl_s - then.itl_s,
                now.itl_s2 - then.itl_s2,
                old.itl_counts,
                new.itl_counts,
            ),
            "request_duration_s": _dist(finished, now.duration_s - then.duration_s, now.duration_s2 - then.duration_s2),
        }
        if prompt_tokens > 0:
            known["prefix_hit_rate"] = (now.hit_tokens - then.hit_tokens) / prompt_tokens
        if tokens > 0 and token_time_s > 0:
            known["token_gap_ms"] = _dist(tokens, token_time_s * 1e3, None)
        sla, ended = self._setup.metrics.sla, finished + now.dropped - then.dropped
        if sla is not None and ended > 0:
            share = (now.in_time - then.in_time) / ended
            known["in_time"] = InTime.unchecked(ttft_ms=sla.ttft_ms, itl_ms=sla.itl_ms, share=share)
        if last > first:
            known["arrival_dispersion"] = self._dispersion(old.at_s, new.at_s)
        return Traffic.unchecked(**known)

    def _latency(self, count: float, total_s: float, squares: float | None, old: Any, new: Any) -> Dist | None:
        if count <= 0:
            return None
        scaled = None if squares is None else squares * 1e6
        dist = _dist(count, total_s * 1e3, scaled)
        below = np.cumsum(new - old)
        total = below.item(-1)
        if dist is None or total <= 0:
            return dist
        quantiles = {share: _quantile(below, share) for share in self._setup.metrics.quantiles}
        # Of the empty buckets, one on either side says all.
        first, last = max(int(below.searchsorted(1)) - 1, 0), int(below.searchsorted(total)) + 1
        counted = dict(zip(BOUNDS_MS[first:last], below[first:last].tolist(), strict=False))
        return dist.replace(quantiles=FrozenMap(quantiles), buckets=FrozenMap(cumulative_shares(counted, total)))

    def _dispersion(self, from_s: float, to_s: float) -> float | None:
        """Variance over mean of the arrivals in each whole bin of this time."""
        most = self._arrivals.shape[1] - 1
        first, last = (min(round(time_s / DISPERSION_BIN_S), most) for time_s in (from_s, to_s))
        bins = last - first
        total, squares = _between(self._arrivals, first, last)
        return squares / total - total / bins if bins > 1 and total else None


def _sums(column: np.ndarray) -> np.ndarray:
    """The sums of the first 0, 1, ... values and of their squares: shape (2, values + 1)."""
    sums = np.zeros((2, len(column) + 1))
    np.cumsum(column, out=sums[0, 1:])
    np.cumsum(np.square(column, dtype=float), out=sums[1, 1:])
    return sums


def _between(sums: np.ndarray, first: int, last: int) -> tuple[float, float]:
    """The sum of the values from the first up to the last, without it, and of their squares."""
    return sums.item(0, last) - sums.item(0, first), sums.item(1, last) - sums.item(1, first)


def _dist(count: float, total: float, squares: float | None) -> Dist | None:
    """A distribution out of a count, a sum and a sum of squares."""
    if count <= 0:
        return None
    mean = float(total / count)
    cv2 = None if squares is None or mean <= 0 else max(float(squares / count) / mean**2 - 1.0, 0.0)
    return Dist.unchecked(mean=mean, count=float(count), cv2=cv2)


def _quantile(below: Any, share: float) -> float:
    """A quantile in ms from cumulative counts in buckets, linear inside a bucket as in Prometheus."""
    wanted = share * below.item(-1)
    bucket = int(below.searchsorted(wanted))
    upper = FIRST_BUCKET_S * BUCKET_RATIO**bucket
    lower = upper / BUCKET_RATIO if bucket else 0.0
    under = below.item(bucket - 1) if bucket else 0
    inside = (wanted - under) / (below.item(bucket) - under) if below.item(bucket) > under else 1.0
    return 1e3 * (lower + (upper - lower) * inside)
