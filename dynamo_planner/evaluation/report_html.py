"""A report of backtests as one page of HTML that needs nothing else."""

from __future__ import annotations

import io
from html import escape

from dynamo_planner.evaluation.report import Report, Run

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1f2933; margin: 2em auto; max-width: 1500px; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .3em .7em; border-bottom: 1px solid #e5e9ef; text-align: right }
td:first-child, th:first-child { text-align: left } pre { background: #f6f8fa; padding: .8em; overflow-x: auto }
svg { max-width: 100%; height: auto }
"""


def page(report: Report) -> str:
    """The page: scores, the picture, and for each policy what it decided around its worst minute."""
    sla = report.sla
    lines = [line.strip("|").split("|") for line in report.table().splitlines()]
    rows = "".join(
        f"<tr>{''.join(f'<{tag}>{escape(cell.strip())}</{tag}>' for cell in cells)}</tr>"
        for tag, cells in [("th", lines[0]), *(("td", line) for line in lines[2:])]
    )
    targets = f"TTFT {sla.ttft_ms:g} ms, ITL {sla.itl_ms:g} ms, to be met by {sla.attainment:.1%} of the requests"
    title = f"Backtest on {report.trace}"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1><p>{escape(targets)}</p>"
        f"<table>{rows}</table>{_picture(report)}{''.join(_worst(report, run) for run in report.runs.values())}"
        "</body></html>\n"
    )


def _picture(report: Report) -> str:
    buffer = io.StringIO()
    report.plot().savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _worst(report: Report, run: Run) -> str:
    at_s = run.worst_minute(report.sla)
    told = run.explain(at_s - 120, at_s + 60)
    heading = f"{run.name}: what was decided before and in its worst minute, from {at_s:.0f} s"
    return f"<h2>{escape(heading)}</h2><pre>{escape(told)}</pre>"
