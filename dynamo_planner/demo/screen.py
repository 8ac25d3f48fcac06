"""Showing a run while it goes on: a table that updates on a terminal, and a plain line every few seconds elsewhere."""

from __future__ import annotations

from typing import Protocol, Self

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.snapshot import Replicas, Sla
from dynamo_planner.demo.run_status import RECENT_S, RunStatus
from dynamo_planner.demo.summary import Latency

with needs_extra("cli"):
    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

PLAIN_EVERY_S = 3.0
CHANGES_SHOWN = 4


class Screen(Protocol):
    """Shows one view after the other, as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, view: RunStatus) -> None:
        """Demo how the run stands now."""


def screen_for(console: Console, title: str, sla: Sla, ends_s: float) -> Screen:
    """A live table where the console is a terminal, plain lines where it is not."""
    return LiveTable(console, title, sla, ends_s) if console.is_terminal else PlainLines(console)


class LiveTable:
    """Redraws one panel in place."""

    def __init__(self, console: Console, title: str, sla: Sla, ends_s: float) -> None:
        self._title, self._sla, self._ends_s = title, sla, ends_s
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, view: RunStatus) -> None:
        self._live.update(self._panel(view), refresh=True)

    def _panel(self, view: RunStatus) -> RenderableType:
        parts = Group(
            _progress(view, self._ends_s), "", _pools(view), "", _latencies(view, self._sla), "", _decisions(view)
        )
        return Panel(parts, title=Text(self._title, "bold"), title_align="left", padding=(1, 2), expand=True)


def _progress(view: RunStatus, ends_s: float) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    lost = Text(str(view.lost), style="bold red" if view.lost else "green")
    facts: list[tuple[str, str | Text]] = [
        ("time", f"{view.at_s:.0f} s (trace: {ends_s:.0f} s)"),
        ("load", f"{view.requests_per_s:.1f} req/s"),
        ("in flight", str(view.in_flight)),
        ("waiting for a worker", str(view.held)),
        ("answered", f"{view.answered} of {view.sent}"),
        ("lost", lost),
    ]
    table.add_row(*(Text.assemble((f"{name} ", "dim"), value) for name, value in facts))
    return table


def _pools(view: RunStatus) -> RenderableType:
    table = Table(box=None, padding=(0, 2), header_style="dim", pad_edge=False)
    table.add_column("pool")
    for column in ("ready", "starting", "draining", "target", "running", "queued", "KV usage"):
        table.add_column(column, justify="right")
    table.add_column("")
    for name, replicas in view.replicas.items():
        status = view.status.get(name)
        kv_usage = status.kv_usage if status else None
        table.add_row(
            f"[bold]{name}",
            f"[bold green]{replicas.ready}",
            f"[yellow]{replicas.starting or '·'}",
            f"[magenta]{replicas.draining or '·'}",
            str(replicas.target),
            _number(status.running if status else None),
            _number(status.queued if status else None),
            "?" if kv_usage is None else f"{kv_usage:.0%}",
            Text.assemble(*(("■" * count, colour) for count, colour in _squares(replicas))),
        )
    return table


def _squares(replicas: Replicas) -> list[tuple[int, str]]:
    return [(replicas.ready, "green"), (replicas.starting, "yellow"), (replicas.draining, "magenta")]


def _latencies(view: RunStatus, sla: Sla) -> RenderableType:
    table = Table(box=None, padding=(0, 2), header_style="dim", pad_edge=False)
    table.add_column(f"last {RECENT_S:.0f} s")
    for column in ("p50", "p95", "SLA"):
        table.add_column(column, justify="right")
    for name, latency, limit_ms in (("TTFT", view.ttft_ms, sla.ttft_ms), ("ITL", view.itl_ms, sla.itl_ms)):
        cells = [Text(_ms(value), style=_style(value, limit_ms)) for value in (latency.p50, latency.p95)]
        table.add_row(f"[bold]{name}", *cells, f"{limit_ms:.0f} ms")
    return table


def _decisions(view: RunStatus) -> RenderableType:
    """The last decision of each pool, and the last changes; as many lines every time, so that nothing jumps."""
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for name in view.replicas:
        table.add_row(f"{name} now", Text(view.reasons.get(name, "-")))
    changes = [*view.changes[-CHANGES_SHOWN:], *[""] * CHANGES_SHOWN]
    for title, change in zip(("changed", *[""] * CHANGES_SHOWN), changes[:CHANGES_SHOWN], strict=False):
        table.add_row(title, Text(change))
    return table


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _style(value: float | None, limit_ms: float) -> str:
    return "dim" if value is None else "red" if value > limit_ms else "green"


class PlainLines:
    """Prints a line every :data:`PLAIN_EVERY_S` seconds, and each change of a target as it comes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = float("-inf")
        self._printed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, view: RunStatus) -> None:
        for change in view.changes[self._printed :]:
            self._print(f"  > {change}")
        self._printed = len(view.changes)
        if view.at_s >= self._next_s:
            self._next_s = view.at_s + PLAIN_EVERY_S
            self._print(plain_line(view))

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def plain_line(view: RunStatus) -> str:
    """The view in one line."""
    pools = "; ".join(f"{name} {_replicas(view, name)}" for name in view.replicas)
    return (
        f"{view.at_s:3.0f} s  {view.requests_per_s:5.1f} req/s  {view.in_flight:3d} in flight"
        f"  {view.answered}/{view.sent} answered  {view.lost} lost  [{pools}]"
        f"  TTFT {_pair(view.ttft_ms)}  ITL {_pair(view.itl_ms)}"
    )


def _replicas(view: RunStatus, name: str) -> str:
    replicas, status = view.replicas[name], view.status.get(name)
    moving = f" +{replicas.starting}" * bool(replicas.starting) + f" -{replicas.draining}" * bool(replicas.draining)
    kv_usage = f" KV {status.kv_usage:.0%}" if status and status.kv_usage is not None else ""
    queued = f" queue {status.queued:.0f}" if status and status.queued is not None else ""
    return f"{replicas.ready}{moving} of {replicas.target}{kv_usage}{queued}"


def _pair(latency: Latency) -> str:
    return f"{_ms(latency.p50)}/{_ms(latency.p95)}"
