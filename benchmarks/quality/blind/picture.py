"""The picture of the blind benchmark: what each policy costs against how often it keeps its promise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.quality.blind.results import Row
from dynamo_planner.core.plot_style import INK, QUIET, plain

OURS = "SlaPolicy"


def draw_rows(found: Sequence[Row], path: Path) -> None:
    """Write a point for each policy: GPU-hours over the best schedule, and the share of windows with the promise kept.

    Ours and the best schedule stand out; peers tuned in hindsight are hollow.
    """
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    panel = figure.subplots()
    for row in found:
        tuned, ours = "hindsight" in row.policy, row.policy.startswith(OURS)
        panel.scatter(
            [row.gpu_hours],
            [row.held],
            s=60 if ours else 36,
            color=INK if ours else "none" if tuned else QUIET,
            edgecolors=INK if ours else QUIET,
            zorder=3,
        )
        below = tuned and not ours  # a policy and itself in hindsight may be close together
        place = {"xytext": (5, -10 if below else 4), "textcoords": "offset points"}
        panel.annotate(row.policy, (row.gpu_hours, row.held), fontsize=7.5, **place)
    panel.scatter([1.0], [1.0], marker="*", s=140, color=INK, zorder=3)
    panel.annotate("best schedule", (1.0, 1.0), (-9, -3), textcoords="offset points", fontsize=7.5, ha="right")
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(0.5, 0.7, 1, 1.5, 2, 3)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("GPU-hours over the best schedule's, geometric mean")
    panel.set_ylabel("share of windows in which the promise held")
    plain(panel)
    figure.savefig(path, dpi=110)
