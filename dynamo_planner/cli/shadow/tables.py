"""What came of a replay, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from dynamo_planner.cli.shadow.record import PoolReplay, ReplayRecord

ROWS = 24
"""How many rows the course of a replay has at most."""


def show(console: Console, recording: ReplayRecord, summaries: Mapping[str, PoolReplay]) -> None:
    """The course of it, then the sums of each pool."""
    console.print(_course(recording))
    console.print(_sums(summaries))
    for name, summary in summaries.items():
        for reason in summary.held_most_for:
            console.print(f"{name} was held: {reason}", markup=False)


def _course(recording: ReplayRecord) -> Table:
    table = Table(box=None, padding=(0, 2))
    table.add_column("from (UTC)", no_wrap=True)
    table.add_column("requests/s", justify="right")
    for name in recording.pools:
        table.add_column(f"{name}: there", justify="right")
        table.add_column("recommended", justify="right")
    rows = min(ROWS, len(recording.load))
    for row in range(rows):
        part = slice(row * len(recording.load) // rows, (row + 1) * len(recording.load) // rows)
        load = recording.load[part]
        cells = [_mean([rate for _, rate in load])]
        for moments in recording.pools.values():
            cells += [
                _range([each.there for each in moments[part]]),
                _range([each.recommended for each in moments[part]]),
            ]
        when = datetime.fromtimestamp(load[0][0], UTC).isoformat(" ", "minutes")
        table.add_row(when.removesuffix("+00:00"), *cells)
    return table


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3g}" if known else "?"


def _range(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "?"
    return f"{min(known)}" if min(known) == max(known) else f"{min(known)}-{max(known)}"


def _sums(summaries: Mapping[str, PoolReplay]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("pool", "replica-hours there", "recommended", "most", "changes", "more", "fewer", "held"):
        table.add_column(column, justify="left" if column == "pool" else "right")
    for name, each in summaries.items():
        table.add_row(
            name,
            f"{each.replica_hours_there:,.1f}",
            f"{each.replica_hours_recommended:,.1f}",
            f"{each.most_there} / {each.most_recommended}",
            f"{each.changes_there} / {each.changes_recommended}",
            f"{each.share_more:.0%}",
            f"{each.share_fewer:.0%}",
            f"{each.share_held:.0%}",
        )
    return table
