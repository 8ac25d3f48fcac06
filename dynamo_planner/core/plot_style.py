"""Style of the plots: their colours, and a panel with few lines."""

from __future__ import annotations

from typing import Any

INK, QUIET, GRID = "#1f2933", "#64748b", "#e5e9ef"


def plain(panel: Any) -> None:
    """Give a matplotlib panel horizontal grid lines behind what is drawn, and no frame on the right and above."""
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=QUIET)
    panel.yaxis.label.set_color(INK)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        panel.spines[side].set_color(GRID)
