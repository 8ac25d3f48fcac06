"""A simulated gateway: deferrable requests that are held back in front of a cluster and sent at the rate that is set.

>>> from dynamo_planner import Profile
>>> from dynamo_planner.simulator.cluster import ClusterSetup, SimulatedCluster
>>> from dynamo_planner.workloads.generators import poisson
>>> setup = ClusterSetup.aggregated(Profile.bundled("llama31-8b_h100_vllm_tp1"), replicas=2, startup_s=30)
>>> cluster = SimulatedCluster(setup, poisson(requests_per_s=5, duration_s=60, seed=1), compiled=False)
>>> gateway = SimulatedGateway(cluster, {"batch": [Job(0.0, 3600.0, isl=[500] * 30, osl=[100] * 30)]})
>>> cluster.advance_to(10)
>>> dict(gateway.observe(10.0).deferred["batch"].due)
{3600.0: 30.0}
>>> gateway.release({"batch": 2.0}, seconds=10)
20
>>> cluster.advance_to(60)
>>> gateway.observe(60.0).deferred["batch"].waiting, len(gateway.interactive()), len(gateway.sent("batch"))
(10.0, 301, 20)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from dynamo_planner.core.metrics import Deferred, Dist, InTime, Traffic
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.results import Served
from dynamo_planner.workloads.trace import Trace

QUANTILES = (0.5, 0.9, 0.99)
"""The quantiles of latencies that are shown."""


class Job(NamedTuple):
    """Deferrable requests that are submitted together and due together.

    Args:
        submitted_s: when they come to the gateway, in seconds of the trace.
        due_s: when they are to be done.
        isl: their prompt tokens.
        osl: the tokens to generate.
    """

    submitted_s: float
    due_s: float
    isl: Sequence[int]
    osl: Sequence[int]


class SimulatedGateway:
    """Holds the jobs of deferrable classes back, and is the source of a planner in place of the cluster's.

    What it shows as ``traffic`` is of the interactive requests alone, those of the cluster's trace; the pools are as
    they are, with what was sent.

    Args:
        cluster: serves.
        jobs: the jobs of each class. Those with the soonest deadline are sent first.

    Raises ``ValueError`` for a job without an ``osl`` for each ``isl``.
    """

    def __init__(self, cluster: SimulatedCluster, jobs: Mapping[str, Sequence[Job]]) -> None:
        for name, own in jobs.items():
            for job in own:
                if len(job.isl) != len(job.osl):
                    raise ValueError(f"jobs[{name!r}]: {len(job.isl)} isl and {len(job.osl)} osl: give one for each")
        self._cluster = cluster
        self._jobs = {name: sorted(own, key=lambda job: job.due_s) for name, own in jobs.items()}
        self._left = {name: [len(job.isl) for job in own] for name, own in self._jobs.items()}
        self._owner = np.zeros(len(cluster.trace), np.int64)
        """The class of each request of the cluster by its number, from 1 on; 0 is interactive."""

    def release(self, rates: Mapping[str, float], seconds: float) -> int:
        """Send requests at these rates (1/s) over the next seconds, evenly; returns how many.

        Raises ``ValueError`` for a class that has no jobs, and for a rate that is no finite number of at least 0.
        """
        for name, rate in rates.items():
            if name not in self._jobs:
                raise ValueError(f"rates[{name!r}]: there is no such class; there are {', '.join(self._jobs)}")
            if not 0 <= rate < math.inf:
                raise ValueError(f"rates[{name!r}] must be a finite number of at least 0, got {rate}")
        now_s = self._cluster.elapsed_s
        chosen = []
        for number, (name, jobs) in enumerate(self._jobs.items(), 1):
            count = math.ceil(rates.get(name, 0.0) * seconds)
            own: list[tuple[int, int, int]] = []
            for place, job in enumerate(jobs):
                left = self._left[name]
                taken = min(count - len(own), left[place]) if job.submitted_s <= now_s else 0
                first = len(job.isl) - left[place]
                own += [(number, job.isl[n], job.osl[n]) for n in range(first, first + taken)]
                left[place] -= taken
            chosen += [(now_s + seconds * (n + 0.5) / len(own), *request) for n, request in enumerate(own)]
        if not chosen:
            return 0
        at_s, owner, isl, osl = (np.array(column) for column in zip(*sorted(chosen), strict=True))
        places = self._cluster.send(Trace(at_s, isl, osl))
        self._owner = np.insert(self._owner, places - np.arange(len(places)), owner)
        return len(chosen)

    @property
    def empty(self) -> bool:
        """Whether nothing waits any more, now or later."""
        return not any(map(sum, self._left.values()))

    def observe(self, at_s: float) -> Observation:
        """The cluster's metrics, with the traffic of the interactive requests and with what waits."""
        found, traffic = self._cluster.source.observe(at_s), None
        if found.traffic.observed_at_s is not None and found.traffic.window_s:
            end_s = found.traffic.observed_at_s - self._cluster.origin_s
            traffic = self._traffic(found.traffic, end_s - found.traffic.window_s, end_s)
        deferred = {name: self._deferred(number, name) for number, name in enumerate(self._jobs, 1)}
        return found.replace(traffic=traffic or found.traffic, deferred=FrozenMap(deferred))

    def interactive(self) -> Served:
        """The interactive requests that have arrived."""
        return self._of(0)

    def sent(self, name: str) -> Served:
        """The requests of a class that were sent."""
        return self._of(1 + list(self._jobs).index(name))

    def _of(self, number: int) -> Served:
        served = self._cluster.served()
        own = self._owner[: len(served)] == number
        return Served(**{field.name: getattr(served, field.name)[own] for field in fields(Served)})

    def _deferred(self, number: int, name: str) -> Deferred:
        due: dict[float, float] = {}
        for job, left in zip(self._jobs[name], self._left[name], strict=True):
            if left and job.submitted_s <= self._cluster.elapsed_s:
                due_s = self._cluster.origin_s + job.due_s
                due[due_s] = due.get(due_s, 0.0) + left
        own = self._of(number)
        coming = int((self._owner == number).sum()) - len(own)
        isl, osl = (np.concatenate([getattr(job, part) for job in self._jobs[name]]) for part in ("isl", "osl"))
        return Deferred(
            due=due,
            running=float(coming + np.isnan(own.finished_s).sum()),
            isl=_dist(isl),
            osl=_dist(osl),
            observed_at_s=self._cluster.now_s,
        )

    def _traffic(self, whole: Traffic, from_s: float, to_s: float) -> Traffic:
        """The traffic of the interactive requests over a window."""
        own, seconds = self.interactive(), to_s - from_s
        first_s = own.arrival_s + own.ttft_ms / 1000
        came = _within(own.arrival_s, from_s, to_s)
        begun, ended = _within(first_s, from_s, to_s), _within(own.finished_s, from_s, to_s)
        known: dict[str, Any] = {
            "requests_per_s": float(came.sum()) / seconds,
            "isl": _dist(own.isl[came]),
            "osl": _dist(own.osl[ended]),
            "ttft_ms": _dist(own.ttft_ms[begun], QUANTILES),
            "itl_ms": _dist(own.itl_ms[ended & (own.osl > 1)], QUANTILES),
            "token_gap_ms": None,
            "request_duration_s": _dist((own.finished_s - own.arrival_s)[ended]),
            "arrival_dispersion": None,
            "in_time": None,
        }
        sla = self._cluster.setup.metrics.sla
        if sla is not None and ended.any():
            share = float(own.meets(sla)[ended].mean())
            known["in_time"] = InTime(ttft_ms=sla.ttft_ms, itl_ms=sla.itl_ms, share=share)
        return whole.replace(**known)


def _within(at_s: np.ndarray, from_s: float, to_s: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray((at_s > from_s) & (at_s <= to_s))


def _dist(values: np.ndarray, quantiles: Sequence[float] = ()) -> Dist | None:
    """A distribution out of its values."""
    if not len(values):
        return None
    mean = float(values.mean())
    return Dist(
        mean=mean,
        count=len(values),
        cv2=float(values.var()) / mean**2 if mean else None,
        quantiles=dict(zip(quantiles, np.quantile(values, quantiles).tolist(), strict=True)) if quantiles else {},
    )
