"""The outcome of a demo in numbers, and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from dynamo_planner.core.snapshot import Replicas, Sla
from dynamo_planner.core.values import Frozen
from dynamo_planner.demo.comparison import Outcome
from dynamo_planner.demo.record import Recording, Sample

REASONS_SHOWN = 3

BUSY_MS = 50.0
"""How late a client sends its requests where its machine is busy with something else."""


class Latency(Frozen):
    """Percentiles of a latency over the requests that were answered, in milliseconds; ``None`` where there are none."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Latency:
        """The percentiles of the values that are known.

        >>> Latency.of([30.0, None, 10.0, 20.0]).p50
        20.0
        """
        known = [value for value in values if value is not None]
        if not known:
            return cls()
        p50, p95, p99 = (float(value) for value in np.percentile(known, (50, 95, 99)))
        return cls(p50=p50, p95=p95, p99=p99)


class PoolSummary(Frozen):
    """What became of one pool.

    ``worker_s`` are the seconds that its workers were there, starting and draining ones too, and ``peak`` the most
    of them that took requests at once. ``static_peak_s`` is what ``peak`` workers would have cost all along.
    """

    scale_ups: int
    scale_downs: int
    lowest: int
    peak: int
    last: int
    worker_s: float
    static_peak_s: float

    @property
    def went_up_and_down(self) -> bool:
        """Whether workers came, and went again."""
        return self.peak > self.lowest and self.last < self.peak


class Summary(Frozen):
    """What came of a run.

    ``attainment`` is the share of requests that were answered in full and met both targets of ``sla``; a lost one
    missed it. ``lost_because`` has the most frequent causes, each with its number of requests. ``client_late_ms`` is
    the 95th percentile of how late the client was to send them, which a busy machine makes long; it is in their TTFT.
    ``outcomes`` are those of this run and of other policies on the same requests.
    """

    title: str
    wall_s: float
    requests: int
    lost: int
    lost_because: tuple[tuple[str, int], ...]
    sla: Sla
    attainment: float | None
    ttft_ms: Latency
    itl_ms: Latency
    pools: dict[str, PoolSummary]
    client_late_ms: float | None = None
    outcomes: tuple[Outcome, ...] = ()

    @property
    def worker_s(self) -> float:
        """Seconds that workers were there, over all pools."""
        return sum(pool.worker_s for pool in self.pools.values())

    @property
    def static_peak_s(self) -> float:
        """What the peak of each pool would have cost all along."""
        return sum(pool.static_peak_s for pool in self.pools.values())

    @property
    def failures(self) -> tuple[str, ...]:
        """Why this run is no success: nothing where no request was lost and workers came and went."""
        found = []
        if not self.requests:
            found.append("no request was sent")
        if self.lost:
            causes = "; ".join(f"{number} x {cause}" for cause, number in self.lost_because)
            found.append(f"{self.lost} of {self.requests} requests were lost: {causes}")
        if not any(pool.went_up_and_down for pool in self.pools.values()):
            ready = ", ".join(
                f"{name}: {pool.lowest} to {pool.peak}, {pool.last} at the end" for name, pool in self.pools.items()
            )
            found.append(f"the workers never scaled up and down again (ready {ready or 'never'})")
        return tuple(found)


def measured_outcome(policy: str, recording: Recording, length_s: float) -> Outcome:
    """A recording as one of the outcomes: its worker-seconds are those while requests came."""
    samples = [sample for sample in recording.samples if 0 <= sample.at_s <= length_s]
    names = samples[0].pools if samples else {}
    return Outcome(
        policy=policy,
        attainment=_attainment(recording) or 0.0,
        worker_s=sum(_integral(samples, name) for name in names),
        simulated=False,
    )


def summarize(recording: Recording, wall_s: float = 0.0, outcomes: tuple[Outcome, ...] = ()) -> Summary:
    """The summary of a recording. A request that was due and has no record, because the run ended early, is lost."""
    lost = Counter(request.lost for request in recording.requests if request.lost is not None)
    missing = len(recording.due_s) - len(recording.requests)
    if missing > 0:
        lost["not answered when the run ended"] += missing
    names = recording.samples[0].pools if recording.samples else {}
    return Summary(
        title=recording.title,
        wall_s=wall_s,
        requests=len(recording.due_s),
        lost=lost.total(),
        lost_because=tuple(lost.most_common(REASONS_SHOWN)),
        sla=recording.sla,
        attainment=_attainment(recording),
        ttft_ms=Latency.of(request.ttft_ms for request in recording.requests),
        itl_ms=Latency.of(request.itl_ms for request in recording.requests),
        pools={name: _pool_summary(recording, name) for name in names},
        client_late_ms=Latency.of(recording.sent_late_ms).p95,
        outcomes=outcomes,
    )


def _attainment(recording: Recording) -> float | None:
    """The share of requests that met both targets; ``None`` where there were none."""
    met = sum(request.meets(recording.sla) for request in recording.requests)
    return met / len(recording.due_s) if recording.due_s else None


def _pool_summary(recording: Recording, name: str) -> PoolSummary:
    moves = [move for move in recording.moves if move.pool == name]
    ready = [sample.pools[name].ready for sample in recording.samples]
    peak_at = ready.index(max(ready))
    lasted_s = recording.samples[-1].at_s - recording.samples[0].at_s
    return PoolSummary(
        scale_ups=sum(move.after > move.before for move in moves),
        scale_downs=sum(move.after < move.before for move in moves),
        lowest=min(ready[: peak_at + 1]),
        peak=max(ready),
        last=ready[-1],
        worker_s=_integral(recording.samples, name),
        static_peak_s=max(ready) * lasted_s,
    )


def _integral(samples: Sequence[Sample], name: str) -> float:
    """Worker-seconds of a pool: the number of workers that were there, held constant between samples."""
    return sum(_present(before.pools[name]) * (after.at_s - before.at_s) for before, after in pairwise(samples))


def _present(replicas: Replicas) -> int:
    return replicas.ready + replicas.starting + replicas.draining


def summary_text(summary: Summary) -> str:
    """A summary in a few lines, as a demo ends with them."""
    sla = summary.sla
    within = "-" if summary.attainment is None else f"{summary.attainment:.1%}"
    lines = [
        f"requests      {summary.requests} sent, {summary.requests - summary.lost} answered, {summary.lost} lost",
        f"attainment    {within} within TTFT {sla.ttft_ms:g} ms and ITL {sla.itl_ms:g} ms",
        f"TTFT          {_percentiles(summary.ttft_ms)}",
        f"ITL           {_percentiles(summary.itl_ms)}",
    ]
    if (summary.client_late_ms or 0.0) > BUSY_MS:
        late = f"{summary.client_late_ms:.0f} ms"
        lines.append(f"this machine  is busy: requests were sent up to {late} late (p95), which counts in their TTFT")
    for name, pool in summary.pools.items():
        lines.append(
            f"{name:<13} {pool.lowest} -> {pool.peak} -> {pool.last} ready;"
            f" scaled up {pool.scale_ups} x, down {pool.scale_downs} x"
        )
    saved = f" ({1 - summary.worker_s / summary.static_peak_s:.0%} less)" if summary.static_peak_s else ""
    lines.append(
        f"cost          {summary.worker_s:.0f} worker-seconds, {summary.static_peak_s:.0f} at its peak all along{saved}"
    )
    lines.append(f"wall time     {summary.wall_s:.0f} s")
    if len(summary.outcomes) > 1:
        lines += ["", *outcome_lines(summary.outcomes)]
    return "\n".join(lines)


def outcome_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """A table of outcomes, where the first was measured and the others were simulated.

    >>> for line in outcome_lines([Outcome(policy="sla", attainment=0.995, worker_s=301, simulated=False)]):
    ...     print(line)
    on the same requests        in time  worker-seconds
    sla, measured                 99.5%             301
    """
    names = [f"{each.policy}, {'simulated' if each.simulated else 'measured'}" for each in outcomes]
    width = max(26, *map(len, names))
    rows = [
        f"{name:<{width}}  {each.attainment:>7.1%}  {each.worker_s:>14.0f}"
        for name, each in zip(names, outcomes, strict=True)
    ]
    return [f"{'on the same requests':<{width}}  in time  worker-seconds", *rows]


def _percentiles(latency: Latency) -> str:
    values = (("p50", latency.p50), ("p95", latency.p95), ("p99", latency.p99))
    return ", ".join(f"{name} {'-' if value is None else f'{value:.0f} ms'}" for name, value in values)
