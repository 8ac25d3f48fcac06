"""The report of a backtest: runs side by side, as a table, as pictures, as JSON and as a page of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynamo_planner.core.nearest import did_you_mean
from dynamo_planner.core.notebook import html_table
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.run import Run
from dynamo_planner.evaluation.score import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

COLUMNS = (
    "attainment",
    "possible",
    "GPU-hours",
    "goodput/GPU-h",
    "TTFT p50/p95/p99 ms",
    "ITL p50/p95/p99 ms",
    "starts",
    "violation",
    "worst 5 min",
    "recovery s",
)


@dataclass(frozen=True, repr=False)
class Report:
    """Backtests of several policies on one trace and one cluster.

    A policy that held a pool from the beginning to the end, as without a metric, is marked in the table.

    Args:
        trace: the name of the trace.
        sla: the targets.
        runs: the runs by name, in the order in which the policies were given.
        oracle: in GPU-hours, the ``bound`` below which no schedule can be and the cheapest ``feasible`` one that was
            found; left out by default.
    """

    trace: str
    sla: Sla
    runs: Mapping[str, Run]
    oracle: Mapping[str, float | None] | None = None

    def __getitem__(self, name: str) -> Run:
        if name not in self.runs:
            raise KeyError(f"there is no run {name!r}{did_you_mean(name, self.runs)} there are {', '.join(self.runs)}")
        return self.runs[name]

    def __repr__(self) -> str:
        return f"Report({self.trace!r}: {', '.join(map(repr, self.runs.values()))})"

    def _repr_html_(self) -> str:
        header, *rows = self._rows()
        return html_table(header, rows)

    def to_frame(self) -> DataFrame:
        """The scores as a pandas DataFrame, a row for each policy (pandas is yours to install)."""
        from pandas import DataFrame  # noqa: PLC0415

        return DataFrame.from_dict({name: run.score.flat() for name, run in self.runs.items()}, orient="index")

    def _rows(self) -> list[list[str]]:
        names = [*COLUMNS, *(["to bound", "to oracle"] if self.oracle else [])]
        return [["policy", *names], *([_marked(name, run), *self._cells(run.score)] for name, run in self.runs.items())]

    def table(self) -> str:
        """The scores as a table in plain text, which is Markdown too."""
        header, *scores = self._rows()
        rows = [header, ["---"] * len(header), *scores]
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        rows[1] = ["-" * width for width in widths]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
        ]
        return "\n".join(lines)

    def as_data(self) -> dict[str, Any]:
        """The scores and targets, as JSON takes them."""
        scores = {name: run.score.model_dump(mode="json") for name, run in self.runs.items()}
        return {"trace": self.trace, "sla": self.sla.model_dump(), "oracle": self.oracle, "scores": scores}

    def plot(self, names: Sequence[str] | None = None, figure: Any = None) -> Figure:
        """Load, latency against the SLA, replicas and reasons over time, a column for each policy (extra ``plot``).

        :meth:`plot_panel` draws one panel on axes of your own.

        Args:
            names: the policies; all by default.
            figure: a figure or subfigure of matplotlib to draw on; a new one by default.
        """
        from dynamo_planner.evaluation.report_plot import plot_runs  # noqa: PLC0415

        return plot_runs([self[name] for name in names or self.runs], self.sla, self.trace, figure)

    def plot_panel(self, name: str, what: str = "ttft", ax: Any = None) -> Figure:
        """One panel of the picture of a policy (extra ``plot``).

        Args:
            name: the policy.
            what: ``load``, ``ttft``, ``itl``, ``reasons``, or the name of a pool for its replicas; ``ttft`` by default.
            ax: axes of matplotlib to draw on; a new figure by default.
        """
        from dynamo_planner.evaluation.report_plot import plot_panel  # noqa: PLC0415

        return plot_panel(self[name], what, ax)

    def save(self, path: str | Path) -> None:
        """Write it as one page of HTML with the table, the picture and the worst minute of each (extra ``plot``)."""
        from dynamo_planner.evaluation.report_html import page  # noqa: PLC0415

        html = page(f"Backtest on {self.trace}", self.sla, self.table(), self.plot(), list(self.runs.values()))
        Path(path).write_text(html, encoding="utf-8")

    def _cells(self, score: Score) -> list[str]:
        possible = "" if score.attainment_possible is None else f"{score.attainment_possible:.4f}"
        cells = [
            f"{score.attainment:.4f}",
            possible,
            f"{score.gpu_hours:.2f}",
            "" if score.goodput_per_gpu_hour is None else f"{score.goodput_per_gpu_hour:.0f}",
            "/".join(f"{value:.0f}" for value in score.ttft_ms.values()),
            "/".join(f"{value:.1f}" for value in score.itl_ms.values()),
            str(score.starts),
            f"{score.violation_share:.1%}",
            f"{score.worst_5_min:.3f}",
            f"{score.recovery_s:.0f}",
        ]
        for key in ("bound", "feasible") if self.oracle else ():
            least = self.oracle[key] if self.oracle else None
            cells.append(f"{score.gpu_hours / least:.3f}" if least else "none")
        return cells


def _marked(name: str, run: Run) -> str:
    """The name, with the pools that the policy held throughout, since it says little of such a policy."""
    held = run.held_throughout
    return f"{name} (held {', '.join(held)} throughout)" if held else name
