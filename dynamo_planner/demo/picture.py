"""The picture of a run: load, latency against the SLA, and the replicas of each pool with the decisions marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.notebook_figure import NotebookFigure
from dynamo_planner.core.plot_style import INK, QUIET, plain
from dynamo_planner.demo.record import Move, Recording
from dynamo_planner.demo.summary import Summary

with needs_extra("plot"):
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

LOAD, MET, MISSED, LIMIT = "#4c78a8", "#4c78a8", "#e4572e", "#b42318"
READY, STARTING, DRAINING, TARGET = "#54a24b", "#f2c14e", "#9d9da8", "#1f2933"
BIN_S = 2.0
INCHES_WIDE, INCHES_HIGH, DPI = 11.0, 2.1, 120


def draw(recording: Recording, summary: Summary, path: Path) -> None:
    """Write the picture of a run as a PNG file."""
    pools = list(summary.pools)
    heights = [1.0, 1.25, 1.0, *(1.0 for _ in pools)]
    figure = NotebookFigure(figsize=(INCHES_WIDE, INCHES_HIGH * len(heights) + 0.6), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    figure.suptitle(f"{recording.title}\n{_headline(summary)}", x=0.01, ha="left", fontsize=12, color=INK)
    end_s = max([1.0, *(sample.at_s for sample in recording.samples), *recording.due_s])
    _load(panels[0], recording, end_s)
    _latency(panels[1], recording, "TTFT", "ttft_ms")
    _latency(panels[2], recording, "ITL", "itl_ms")
    for panel, pool in zip(panels[3:], pools, strict=True):
        _replicas(panel, recording, pool)
    for panel in panels:
        plain(panel)
    panels[-1].set_xlim(min([0.0, *(sample.at_s for sample in recording.samples)]), end_s)
    panels[-1].set_xlabel("seconds since the replay began", color=INK)
    figure.savefig(path, dpi=DPI)


def _headline(summary: Summary) -> str:
    share = "no requests" if summary.attainment is None else f"{summary.attainment:.1%} of them within the SLA"
    saved = 1 - summary.worker_s / summary.static_peak_s if summary.static_peak_s else 0.0
    cost = f"{saved:.0%} fewer" if saved >= 0 else f"{-saved:.0%} more"
    headline = (
        f"{summary.requests} requests, {summary.lost} lost, {share}"
        f" · {summary.worker_s:.0f} worker-seconds, {cost} than with its peak all along"
    )
    others = [
        f"{each.policy}: {each.attainment:.1%} in time, {each.worker_s:.0f} worker-seconds (simulated, same requests)"
        for each in summary.outcomes[1:]
    ]
    return "\n".join([headline, *others])


def _load(panel: Any, recording: Recording, end_s: float) -> None:
    edges = np.arange(0.0, end_s + BIN_S, BIN_S)
    arrivals, _ = np.histogram(recording.due_s, edges)
    panel.stairs(arrivals / BIN_S, edges, fill=True, color=LOAD, alpha=0.35, label="arrivals")
    if recording.forecast_points:
        at_s = [forecast_points.at_s for forecast_points in recording.forecast_points]
        for label, style, values in (
            ("forecast", "-", [forecast_points.expected_per_s for forecast_points in recording.forecast_points]),
            ("planned for", ":", [forecast_points.planned_per_s for forecast_points in recording.forecast_points]),
        ):
            panel.plot(at_s, values, linestyle=style, color=LIMIT, linewidth=1.2, label=label)
    panel.set_title("Load", **_TITLE)
    panel.set_ylabel("requests/s")
    flying = panel.twinx()
    flying.plot(
        [sample.at_s for sample in recording.samples],
        [sample.in_flight for sample in recording.samples],
        color=INK,
        linewidth=1.2,
        label="in flight",
    )
    flying.set_ylim(bottom=0)
    flying.set_ylabel("requests in flight", color=INK)
    flying.tick_params(colors=QUIET)
    for spine in flying.spines.values():
        spine.set_visible(False)
    handles = [*panel.get_legend_handles_labels()[0], *flying.get_legend_handles_labels()[0]]
    _legend(panel, handles)


def _latency(panel: Any, recording: Recording, name: str, field: str) -> None:
    limit_ms = getattr(recording.sla, field)
    points = [(r.due_s, getattr(r, field)) for r in recording.requests if getattr(r, field) is not None]
    due_s, values = np.array(points, dtype=float).reshape(-1, 2).T
    for chosen, colour, label in ((values <= limit_ms, MET, "met"), (values > limit_ms, MISSED, "missed")):
        panel.scatter(due_s[chosen], values[chosen], s=9, color=colour, alpha=0.6, linewidths=0, label=label)
    lost = [record.due_s for record in recording.requests if record.lost is not None]
    if lost:
        panel.scatter(lost, [limit_ms] * len(lost), marker="x", s=40, color=INK, label="lost", zorder=4)
    panel.axhline(limit_ms, color=LIMIT, linewidth=1.2, linestyle="--", label=f"SLA {limit_ms:g} ms")
    if values.size and values.max() > 20 * max(np.median(values), 1e-9):
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
    else:
        panel.set_ylim(0, 1.1 * max(limit_ms, values.max(initial=0.0)))
    panel.set_title(f"{name} of each request, by its arrival", **_TITLE)
    panel.set_ylabel("ms")
    _legend(panel)


def _replicas(panel: Any, recording: Recording, pool: str) -> None:
    at_s = [sample.at_s for sample in recording.samples]
    pool_samples = [sample.pools[pool] for sample in recording.samples]
    panel.stackplot(
        at_s,
        [one.ready for one in pool_samples],
        [one.starting for one in pool_samples],
        [one.draining for one in pool_samples],
        colors=[READY, STARTING, DRAINING],
        labels=["ready", "starting", "draining"],
        step="post",
        alpha=0.85,
        linewidth=0,
    )
    panel.step(at_s, [one.target for one in pool_samples], where="post", color=TARGET, linewidth=1.3, label="target")
    _decisions(panel, [move for move in recording.moves if move.pool == pool])
    top = max([1, *(one.ready + one.starting + one.draining for one in pool_samples)])
    panel.set_ylim(0, top + 0.9)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_title(f"Workers of pool '{pool}'", **_TITLE)
    panel.set_ylabel("workers")
    _legend(panel)


def _decisions(panel: Any, moves: Sequence[Move]) -> None:
    for up, marker, label in ((True, "^", "scale up"), (False, "v", "scale down")):
        own = [move for move in moves if (move.after > move.before) == up]
        if own:
            heights = [max(move.before, move.after) + 0.35 for move in own]
            panel.scatter([move.at_s for move in own], heights, marker=marker, s=48, color=INK, zorder=5, label=label)


_TITLE = {"loc": "left", "fontsize": 10, "color": INK, "fontweight": "bold"}


def _legend(panel: Any, handles: Sequence[Any] | None = None) -> None:
    """One row above the panel, on the right, where nothing is drawn."""
    own = {} if handles is None else {"handles": handles}
    panel.legend(
        **own, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=7, fontsize=8, frameon=False, borderaxespad=0.2
    )
