"""A report of backtests as one page of HTML without other files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What the page may load: nothing."""

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1f2933; margin: 2em auto; max-width: 1500px; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .3em .5em; border-bottom: 1px solid #e5e9ef; text-align: right }
th { white-space: nowrap } td:first-child, th:first-child { text-align: left }
pre { background: #f6f8fa; padding: .8em; white-space: pre-wrap }
.wide { overflow-x: auto } .wide + .wide { margin-top: 1.5em }
svg { width: 100%; min-width: 800px; height: auto; background: #fff }
@media (prefers-color-scheme: dark) {
body { background: #14191f; color: #e5e9ef } td, th { border-color: #36414d } pre { background: #1d242c }
svg { filter: invert(.91) hue-rotate(180deg) }
}
"""


def page(title: str, sla: Sla, table: str, figure: Figure, runs: Sequence[Run]) -> str:
    """The page: scores, the picture, and for each policy its decisions around its worst minute.

    Args:
        title: the heading.
        sla: the targets.
        table: the scores as :meth:`~dynamo_planner.evaluation.report.Report.table` gives them.
        figure: the picture.
        runs: the runs in order.
    """
    lines = [line.strip("|").split("|") for line in table.splitlines()]
    rows = "".join(
        f"<tr>{''.join(f'<{tag}>{escape(cell.strip())}</{tag}>' for cell in cells)}</tr>"
        for tag, cells in [("th", lines[0]), *(("td", line) for line in lines[2:])]
    )
    targets = f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms, to be met by {sla.attainment:.1%} of the requests"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(targets)}</p>"
        f"<div class='wide'><table>{rows}</table></div><div class='wide'>{_svg(figure)}</div>"
        f"{''.join(_worst_minute(run) for run in runs)}"
        "</body></html>\n"
    )


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _worst_minute(run: Run) -> str:
    worst = run.worst()
    if not worst.missed:
        return f"<h2>{escape(run.name)}</h2><p>{escape(str(worst))}</p>"
    heading = f"{run.name}: what was decided before and in its worst minute"
    story = "<br>".join(escape(line) for line in str(worst).splitlines()[:2])
    reasons = escape(run.explain(worst.at_s - 120, worst.at_s + 60))
    return f"<h2>{escape(heading)}</h2><p>{story}</p><pre>{reasons}</pre>"
