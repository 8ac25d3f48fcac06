"""What is told at the end of a demo."""

from __future__ import annotations

from dynamo_planner.demo.summary import Latency, Summary


def report(summary: Summary) -> str:
    """The summary in a few lines."""
    sla = summary.sla
    within = "-" if summary.attainment is None else f"{summary.attainment:.1%}"
    lines = [
        f"requests      {summary.requests} sent, {summary.requests - summary.lost} answered, {summary.lost} lost",
        f"attainment    {within} within TTFT {sla.ttft_ms:g} ms and ITL {sla.itl_ms:g} ms",
        f"TTFT          {_percentiles(summary.ttft_ms)}",
        f"ITL           {_percentiles(summary.itl_ms)}",
    ]
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
    return "\n".join(lines)


def _percentiles(latency: Latency) -> str:
    values = (("p50", latency.p50), ("p95", latency.p95), ("p99", latency.p99))
    return ", ".join(f"{name} {'-' if value is None else f'{value:.0f} ms'}" for name, value in values)
