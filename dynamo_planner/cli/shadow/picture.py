"""The picture of a replay: the load, and for each pool what was there and what was recommended."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dynamo_planner.cli.shadow.record import Moment, ReplayRecord
from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.notebook_figure import NotebookFigure
from dynamo_planner.core.plot_style import INK, QUIET, plain

with needs_extra("plot"):
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator

LOAD, THERE, RECOMMENDED, HELD = "#4c78a8", "#9d9da8", "#e4572e", "#f3ead2"
INCHES_WIDE, INCHES_HIGH, DPI = 11.0, 2.3, 120


def draw(recording: ReplayRecord, title: str, path: Path) -> None:
    """Write the picture of a replay as a PNG file."""
    count = 1 + len(recording.pools)
    figure = NotebookFigure(figsize=(INCHES_WIDE, INCHES_HIGH * count + 0.5), layout="constrained")
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    _load(panels[0], recording.load)
    for panel, (name, moments) in zip(panels[1:], recording.pools.items(), strict=True):
        _pool(panel, name, moments)
    for panel in panels:
        plain(panel)
        panel.set_ylim(bottom=0)
    locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    panels[-1].set_xlabel("time (UTC)", color=QUIET)
    figure.savefig(path, dpi=DPI)


def _times(at_s: Iterable[float]) -> list[datetime]:
    return [datetime.fromtimestamp(each, UTC) for each in at_s]


def _or_gap(values: Iterable[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _load(panel: Any, load: list[tuple[float, float | None]]) -> None:
    panel.plot(_times(at_s for at_s, _ in load), _or_gap(rate for _, rate in load), color=LOAD, linewidth=1.2)
    panel.set_title("Load", loc="left", fontsize=10, color=INK)
    panel.set_ylabel("requests/s", color=QUIET)


def _pool(panel: Any, name: str, moments: list[Moment]) -> None:
    times = _times(moment.at_s for moment in moments)
    there = _or_gap(moment.there for moment in moments)
    wanted = _or_gap(moment.recommended for moment in moments)
    top = max([1.0, *(value for value in (*there, *wanted) if not math.isnan(value))]) * 1.15
    held = [moment.held for moment in moments]
    panel.fill_between(times, 0, top, where=held, step="post", color=HELD, linewidth=0, label="held")
    panel.step(times, there, where="post", color=THERE, linewidth=2.4, label="there")
    panel.step(times, wanted, where="post", color=RECOMMENDED, linewidth=1.2, label="recommended")
    panel.set_ylim(top=top)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_title(f"Pool '{name}'", loc="left", fontsize=10, color=INK)
    panel.set_ylabel("replicas", color=QUIET)
    panel.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8, frameon=False, borderaxespad=0.2)
