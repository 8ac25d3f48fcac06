"""Plots of backtests: runs over time, and GPU-hours against attainment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.nearest import did_you_mean
from dynamo_planner.core.notebook_figure import NotebookFigure, axes_or_new, figure_of
from dynamo_planner.core.plot_style import INK, QUIET, plain
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.run import Run
from dynamo_planner.evaluation.score import Score

with needs_extra("plot"):
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

LOAD, LIMIT = "#4c78a8", "#b42318"
READY, STARTING, DRAINING = "#54a24b", "#f2c14e", "#9d9da8"
SHADES = {0.5: "#9ecae1", 0.95: "#4c78a8", 0.99: "#1f2933"}
BINS = 240
LATENCY_BINS = 120
WIDE, HIGH = 8.5, 2.0
HEIGHTS = {"ttft": 1.2, "reasons": 1.2}
"""How much higher a panel is than the others."""


def plot_runs(runs: Sequence[Run], sla: Sla, title: str, figure: Any = None) -> Figure:
    """Load, TTFT and ITL against their targets, the replicas of each pool, and the reasons; a column for each run.

    ``figure`` is a figure or subfigure to draw on; a new one by default.
    """
    pools = list(dict.fromkeys(count.pool for run in runs for count in run.counts))
    rows = ["load", "ttft", "itl", *pools, "reasons"]
    heights = [HEIGHTS.get(row, 1.0) for row in rows]
    wide, high = WIDE * len(runs), HIGH * sum(heights)
    if figure is None:
        figure = NotebookFigure(figsize=(wide, high))
        figure.subplots_adjust(0.8 / wide, 0.6 / high, 1 - 0.2 / wide, 1 - 0.9 / high, wspace=0.06, hspace=0.28)
    panels = figure.subplots(len(rows), len(runs), sharex=True, sharey="row", height_ratios=heights, squeeze=False)
    figure.suptitle(title, x=0.01, ha="left", color=INK)
    for column, run in enumerate(runs):
        for panel, row in zip(panels[:, column], rows, strict=True):
            _draw(panel, run, row, sla)
        panels[0, column].set_title(_headline(run), loc="left", fontsize=10, color=INK)
        run.clock.label(panels[-1, column])
    for panel in panels[:, 1:].ravel():
        panel.set_ylabel("")
    return figure_of(panels[0, 0])


def plot_panel(run: Run, what: str, ax: Any = None) -> Figure:
    """One panel of a run: ``load``, ``ttft``, ``itl``, ``reasons`` or the name of a pool."""
    rows = ["load", "ttft", "itl", *dict.fromkeys(count.pool for count in run.counts), "reasons"]
    if what not in rows:
        raise ValueError(f"no panel {what!r}{did_you_mean(what, rows)} there are {', '.join(rows)}")
    panel = axes_or_new(ax, figsize=(WIDE, 1.6 * HIGH))
    _draw(panel, run, what, run.sla)
    run.clock.label(panel)
    return figure_of(panel)


def _draw(panel: Any, run: Run, row: str, sla: Sla) -> None:
    if row == "load":
        _load(panel, run)
    elif row == "ttft":
        _latency(panel, run, run.served.ttft_ms, sla.ttft_ms, "TTFT ms")
    elif row == "itl":
        _latency(panel, run, run.served.itl_ms, sla.itl_ms, "ITL ms")
    elif row == "reasons":
        _reasons(panel, run)
    else:
        _replicas(panel, run, row)
    panel.set_xlim(*run.clock.axis([0.0, max(run.end_s, 1.0)]))
    plain(panel)


def plot_pareto(
    scores: Mapping[str, Mapping[float, Score]], sla: Sla, feasible: float | None = None, ax: Any = None
) -> Figure:
    """GPU-hours against the share of requests that miss a target, a line for each policy over its one parameter.

    ``ax`` are axes to draw on; a new figure by default.
    """
    panel = axes_or_new(ax, figsize=(9.0, 4.5))
    for name, points in scores.items():
        ordered = sorted(points.items())
        hours = [score.gpu_hours for _, score in ordered]
        missed = [max(1 - score.attainment, 1e-4) for _, score in ordered]
        panel.plot(missed, hours, marker="o", markersize=4, linewidth=1.2, label=name)
    panel.axvline(
        1 - sla.attainment, color=LIMIT, linestyle="--", linewidth=1.0, label=f"{sla.attainment:.1%} attained"
    )
    if feasible is not None:
        panel.scatter(
            [1 - sla.attainment], [feasible], marker="*", s=140, color=INK, zorder=5, label="best schedule found"
        )
    panel.set_xscale("log")
    panel.set_xlabel("share of requests that missed a target")
    panel.set_ylabel("GPU-hours")
    panel.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    plain(panel)
    return figure_of(panel)


def _headline(run: Run) -> str:
    score = run.score
    return f"{run.name}: {score.attainment:.2%} within the SLA, {score.gpu_hours:.2f} GPU-hours, {score.starts} starts"


def _load(panel: Any, run: Run) -> None:
    edges = np.linspace(0, max(run.end_s, 1.0), BINS + 1)
    arrivals, _ = np.histogram(run.served.arrival_s, edges)
    panel.stairs(arrivals / np.diff(edges), run.clock.axis(edges), fill=True, color=LOAD, alpha=0.4)
    panel.set_ylabel("requests/s")


def _latency(panel: Any, run: Run, values: NDArray[np.float64], limit: float, label: str) -> None:
    edges = np.linspace(0, max(run.end_s, 1.0), LATENCY_BINS + 1)
    slot = np.clip(np.digitize(run.served.arrival_s, edges) - 1, 0, LATENCY_BINS - 1)
    known = np.isfinite(values)
    order = np.argsort(slot[known], kind="stable")
    parts = np.split(values[known][order], np.searchsorted(slot[known][order], np.arange(1, LATENCY_BINS)))
    for quantile, colour in SHADES.items():
        level = [np.quantile(part, quantile) if len(part) else np.nan for part in parts]
        panel.step(
            run.clock.axis(edges[:-1]), level, where="post", color=colour, linewidth=1.0, label=f"p{100 * quantile:g}"
        )
    panel.axhline(limit, color=LIMIT, linewidth=1.2, linestyle="--", label=f"SLA {limit:g}")
    worst = float(np.nanmax(values, initial=0.0))
    panel.set_yscale("symlog", linthresh=limit)
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_locator(FixedLocator([0, limit / 2, *(limit * 10**power for power in range(6))]))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.set_ylim(0, max(panel.get_ylim()[1], 1.4 * limit, 1.2 * worst))
    panel.set_ylabel(label)
    _legend(panel)


def _replicas(panel: Any, run: Run, pool: str) -> None:
    own = [count for count in run.counts if count.pool == pool]
    at = run.clock.axis([*(count.at_s for count in own), run.end_s])
    parts = [
        [*(getattr(count, part) for count in own), getattr(own[-1], part)] for part in ("ready", "starting", "draining")
    ]
    labels = ["ready", "starting", "draining"]
    panel.stackplot(at, *parts, colors=[READY, STARTING, DRAINING], labels=labels, step="post", alpha=0.85, linewidth=0)
    targets = [*(count.target for count in own), own[-1].target]
    panel.step(at, targets, where="post", color=INK, linewidth=1.0, label="target")
    panel.set_ylabel(pool)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(panel)


def _reasons(panel: Any, run: Run) -> None:
    points = [(d.at_s - run.start_s, reason.code) for d in run.decisions for reason in d.reasons]
    codes = sorted({code for _, code in points})
    at = run.clock.axis([at_s for at_s, _ in points])
    panel.scatter(at, [codes.index(code) for _, code in points], marker="|", s=30, color=INK)
    for row, code in enumerate(codes):
        panel.annotate(
            code,
            (0.002, row),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=7,
            color=QUIET,
            va="bottom",
        )
    panel.set_yticks([])
    panel.set_ylim(-0.4, max(len(codes) + 0.2, panel.get_ylim()[1]))  # a row shares it: the run with most codes fits
    panel.set_ylabel("why")


def _legend(panel: Any) -> None:
    """One row above the panel, where nothing is drawn."""
    panel.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 0.98),
        ncols=4,
        fontsize=7,
        frameon=False,
        borderaxespad=0.0,
        borderpad=0.1,
    )
