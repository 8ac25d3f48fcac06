"""A figure of TTFT, throughput and ITL curves with their measured points (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.notebook_figure import NotebookFigure, figure_of
from dynamo_planner.core.plot_style import GRID, INK, QUIET
from dynamo_planner.profiles.decode_surface import DecodeSurface
from dynamo_planner.profiles.points import DecodePoints
from dynamo_planner.profiles.prefill_curve import PrefillCurve

with needs_extra("plot"):
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

Floats = NDArray[np.float64]

CURVE = "#1f5fa8"
LINES = 5
"""How many contexts the throughput of decoding is drawn for."""

MARGIN = 1.25
"""How far beyond the measurements to draw."""


def plot_curves(prefill: PrefillCurve, decode: DecodeSurface, title: str, figure: Any = None) -> Figure:
    """Plot TTFT and prefill throughput over ISL, ITL over KV usage and context, and decode throughput over ITL.

    ``figure`` is a figure or subfigure to draw on; a new one by default.
    """
    figure = NotebookFigure(figsize=(11, 7.8), layout="constrained") if figure is None else figure
    (ttft, prefill_rate), (itl, decode_rate) = figure.subplots(2, 2)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    _ttft(ttft, prefill)
    _prefill_throughput(prefill_rate, prefill)
    _itl(itl, decode)
    _decode_throughput(decode_rate, decode)
    for panel in (ttft, prefill_rate, itl, decode_rate):
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(QUIET)
        panel.tick_params(colors=QUIET, which="both", labelsize=9)
        panel.xaxis.label.set_color(QUIET)
        panel.yaxis.label.set_color(QUIET)
        panel.title.set(fontsize=11, color=INK, ha="left", x=0)
    for panel in (ttft, prefill_rate, decode_rate):
        panel.grid(color=GRID, linewidth=0.8)
        panel.set_axisbelow(True)
    return figure_of(ttft)


def _ttft(panel: Any, prefill: PrefillCurve) -> None:
    points = prefill.points
    isl = _around(points.isl)
    _known_and_not(panel, isl, prefill.ttft_ms(isl), prefill.extrapolated(isl), CURVE)
    panel.plot(points.isl, points.ttft_ms, "o", markersize=4, color=INK)
    panel.set(xscale="log", yscale="log", title="TTFT of a prompt that does not wait, ms", xlabel="ISL, tokens")
    _plain_logs(panel.xaxis, panel.yaxis)


def _prefill_throughput(panel: Any, prefill: PrefillCurve) -> None:
    points = prefill.points
    isl = _around(points.isl)
    _known_and_not(panel, isl, prefill.throughput(isl), prefill.extrapolated(isl), CURVE)
    measured = points.throughput_per_gpu or prefill.throughput(points.isl)
    panel.plot(points.isl, measured, "o", markersize=4, color=INK)
    panel.set(xscale="log", title="Prefill throughput, tokens/s per GPU", xlabel="ISL, tokens")
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_formatter(FuncFormatter(_short))
    _plain_logs(panel.xaxis)


def _itl(panel: Any, decode: DecodeSurface) -> None:
    points = decode.points
    usage, context = np.meshgrid(np.linspace(0, _widest(points), 161), _around(points.context, 121, 1.15))
    itl = decode.itl_ms(usage, context)
    norm = LogNorm(min(points.itl_ms), max(*points.itl_ms, 1.01 * min(points.itl_ms)))
    look: dict[str, Any] = {"norm": norm, "cmap": "viridis_r"}
    panel.pcolormesh(usage, context, itl, shading="gouraud", rasterized=True, **look)
    unknown = np.where(decode.extrapolated(usage, context), 1.0, np.nan)
    panel.contourf(usage, context, unknown, levels=[0, 2], colors="white", alpha=0.55)
    lines = panel.contour(usage, context, itl, levels=_levels(points.itl_ms), colors=INK, linewidths=0.6, alpha=0.7)
    panel.clabel(lines, fontsize=8, fmt=lambda value: f"{value:g}")
    dots = panel.scatter(
        points.kv_usage, points.context, c=points.itl_ms, s=16, edgecolors="white", linewidths=0.6, **look
    )
    bar = panel.figure.colorbar(dots, ax=panel, pad=0.02, format=FuncFormatter(_short))
    bar.ax.yaxis.set_minor_formatter(FuncFormatter(_short))
    bar.ax.tick_params(colors=QUIET, which="both", labelsize=8)
    bar.outline.set_visible(False)
    panel.set(yscale="log", xlim=(-0.01 * usage.max(), 1.01 * usage.max()), xlabel="KV usage", ylabel="context, tokens")
    panel.set_title("ITL, ms (pale: nothing measured there)")
    _plain_logs(panel.yaxis)


def _decode_throughput(panel: Any, decode: DecodeSurface) -> None:
    points = decode.points
    contexts = np.unique(points.context)
    chosen = contexts[np.unique(np.linspace(0, len(contexts) - 1, LINES).round().astype(int))]
    colors = colormaps["plasma"](np.linspace(0, 0.85, len(chosen)))
    for context, color in zip(chosen, colors, strict=True):
        usage = np.linspace(context / points.max_kv_tokens, _widest(points), 300)
        itl, throughput = decode.itl_ms(usage, context), decode.throughput(usage, context)
        _known_and_not(
            panel, itl, throughput, decode.extrapolated(usage, context), color, label=f"{_short(context)} tokens"
        )
        here = np.asarray(points.context) == context
        measured = np.asarray(points.throughput_per_gpu or decode.throughput(points.kv_usage, points.context))
        panel.plot(np.asarray(points.itl_ms)[here], measured[here], "o", markersize=4, color=color)
    panel.set(yscale="log", title="Decode throughput, tokens/s per GPU, by context", xlabel="ITL, ms")
    panel.set_xlim(right=MARGIN * max(points.itl_ms))
    panel.legend(fontsize=8, frameon=False, labelcolor=INK)
    _plain_logs(panel.yaxis)


def _known_and_not(panel: Any, x: Floats, y: Floats, unknown: Any, color: Any, label: str | None = None) -> None:
    """A line, dashed where it is extrapolated."""
    panel.plot(x, np.where(unknown, np.nan, y), color=color, linewidth=1.8, label=label)
    panel.plot(x, np.where(unknown, y, np.nan), color=color, linewidth=1.2, linestyle=(0, (3, 2)), alpha=0.8)


def _around(values: Any, count: int = 400, margin: float = 1.6) -> Floats:
    """Values spread evenly in the logarithm, from a little below the smallest to a little above the largest."""
    return np.geomspace(min(values) / margin, max(values) * margin, count)


def _widest(points: DecodePoints) -> float:
    """The KV usage up to which to draw."""
    return min(1.0, MARGIN * max(points.kv_usage))


def _levels(values: Sequence[float]) -> list[float]:
    """Round numbers to draw contours at, between these values and a little above."""
    rounds = [factor * 10.0**power for power in range(-1, 5) for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]
    return [level for level in rounds if min(values) < level < MARGIN * max(values)]


def _short(value: float, _: Any = None) -> str:
    """A number for an axis.

    >>> _short(32768), _short(1500), _short(0.5)
    ('33k', '1.5k', '0.5')
    """
    return f"{value / 1000:.2g}k" if value >= 1000 else f"{value:g}"


def _plain_logs(*axes: Any) -> None:
    """Ticks of logarithmic axes as plain numbers."""
    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(_short))
        axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
