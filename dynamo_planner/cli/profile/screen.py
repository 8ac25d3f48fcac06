"""What a measuring session shows: how far it is, how sure the curves are, and what spoils the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from dynamo_planner.profiling.measured import Measured
    from dynamo_planner.profiling.session import Progress


@contextmanager
def bar(minutes: float) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on standard error where that is a terminal, and a line for each experiment elsewhere."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("", total=60 * minutes)

        def show(progress: Any) -> None:
            doing = progress.next.purpose if progress.next else progress.why
            line = f"{doing}; {errors_of(progress.measured)}"
            shown.update(task, completed=progress.measured.spent_s, description=line)
            if not console.is_terminal:
                typer.echo(f"{progress.measured.spent_s:6.1f} s  {line}", err=True)

        yield show


def errors_of(measured: Measured) -> str:
    """How sure the curves are, in words."""
    parts = [
        f"{curve} {100 * error.median:.1f} % ({100 * error.p95:.0f} % at p95)" if error.p95 < 1 else f"{curve} unknown"
        for curve, error in measured.errors.items()
    ]
    return f"errors: {', '.join(parts)}" if parts else "nothing measured yet"


def warn(engine: Any) -> None:
    """Say what may have spoiled the figures."""
    if engine is None:
        return
    if not engine.counts_tokens:
        typer.echo(
            "warning: the endpoint has no usage in its streams: prompts are taken to be as long as was meant, a token "
            "a word where they are text",
            err=True,
        )
    if engine.cached_share > 0.1:
        typer.echo(
            f"warning: {100 * engine.cached_share:.0f} % of a prompt came from the prefix cache: TTFT is too low; "
            "switch it off",
            err=True,
        )
    if engine.failed:
        typer.echo(
            f"warning: failed requests, which are in no figure: {len(engine.failed)}; the first: {engine.failed[0]}",
            err=True,
        )
    if engine.late_s > 0.05:
        typer.echo(
            f"warning: this client was held up by {1000 * engine.late_s:.0f} ms: its own time is in the figures; run "
            "it on an idle machine, or with a lower --max-concurrency",
            err=True,
        )
