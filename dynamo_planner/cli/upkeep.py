"""Looking after the local backend: showing it, ending it, and mending what a crash left (extra ``circus``)."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console

from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus import CircusExecutor
from dynamo_planner.executors.circus.inspection import NamespaceStatus, inspect, namespaces
from dynamo_planner.executors.circus.processes import alive, send


def show_all(namespace: str | None, state_dir: Path | None, *, as_json: bool) -> bool:
    """Show these namespaces; returns whether all is as it should be."""
    found = [inspect(name, state_dir) for name in ([namespace] if namespace else namespaces(state_dir))]
    if not found and not as_json:
        typer.echo("no planner has left anything here")
    for seen in found:
        if as_json:
            typer.echo(seen.model_dump_json())
        else:
            _show(seen)
    return not any(seen.disagreements or seen.damaged for seen in found)


def _show(seen: NamespaceStatus) -> None:
    console = Console()
    planner = f"planner {seen.planner}" if seen.planner else "no planner"
    arbiter = "no arbiter" if seen.watchers is None else f"{len(seen.watchers)} watchers at {seen.arbiter}"
    console.print(f"[bold]{seen.namespace}[/bold]: {planner}, {arbiter}, {seen.state_file}", soft_wrap=True)
    for worker in seen.workers:
        since = datetime.fromtimestamp(worker.since_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        gpus = f", GPUs {','.join(map(str, worker.gpus))}" if worker.gpus else ""
        where = f"pid {worker.pid}, port {worker.port}{gpus}, log {worker.log}"
        console.print(f"  {worker.name}: {worker.state} since {since}, {where}", soft_wrap=True, highlight=False)
    for problem in (*seen.disagreements, *([seen.damaged] if seen.damaged else [])):
        console.print(f"[red]disagrees:[/red] {problem}", soft_wrap=True, highlight=False)


def stop_namespace(namespace: str, state_dir: Path | None, within_s: float) -> None:
    """Drain all workers, end planner and arbiter, and remove the state file."""
    seen = inspect(namespace, state_dir)
    if seen.damaged is not None:
        raise ExecutorError(seen.damaged)
    if seen.planner is not None:
        typer.echo(f"asking planner {seen.planner} to drain its workers and end")
        _end_planner(namespace, seen.planner, state_dir, within_s)
    if inspect(namespace, state_dir).workers:
        typer.echo("draining workers that no planner runs")
        _drain(namespace, state_dir)
    typer.echo(f"{namespace}: nothing runs")


def _end_planner(namespace: str, pid: int, state_dir: Path | None, within_s: float) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + within_s
    while inspect(namespace, state_dir).planner == pid:
        if time.monotonic() > deadline:
            raise ExecutorError(f"planner {pid} did not end within {within_s:g} s: its workers may still drain")
        time.sleep(0.2)


def _drain(namespace: str, state_dir: Path | None) -> None:
    """Take the namespace over with no pools: whatever it has is not wanted, and is drained."""
    with CircusExecutor(namespace, {}, state_dir=state_dir, gpus=()):
        pass


def mend_all(namespace: str | None, state_dir: Path | None, *, yes: bool) -> None:
    """Mend what is found, asking before each step unless ``yes``."""
    for name in [namespace] if namespace else namespaces(state_dir):
        seen = inspect(name, state_dir)
        _show(seen)
        if seen.planner is not None:
            typer.echo(f"{name}: planner {seen.planner} runs it and mends what it finds; nothing to do here")
        elif seen.damaged is not None:
            _mend_damaged(seen, yes)
        elif not (seen.disagreements or seen.workers):
            typer.echo(f"{name}: nothing to mend")
        else:
            _mend(seen, state_dir, yes)


def _mend_damaged(seen: NamespaceStatus, yes: bool) -> None:
    if not seen.state_file.exists():
        return
    aside = seen.state_file.with_name(f"{seen.state_file.name}.damaged-{int(time.time())}")
    if yes or typer.confirm(f"end the {len(seen.orphans)} processes of it, and set the state file aside as {aside}?"):
        _end_orphans(seen)
        seen.state_file.rename(aside)
        typer.echo(f"{seen.namespace}: mended")


def _mend(seen: NamespaceStatus, state_dir: Path | None, yes: bool) -> None:
    if seen.orphans and (yes or typer.confirm(f"end {len(seen.orphans)} processes that no record knows?")):
        _end_orphans(seen)
    ask = f"drain the {len(seen.workers)} workers that are written down? No: the next planner takes them over"
    if not seen.workers or yes or typer.confirm(ask):
        _drain(seen.namespace, state_dir)
    typer.echo(f"{seen.namespace}: done")


def _end_orphans(seen: NamespaceStatus) -> None:
    for signum, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience_s
        for process in seen.orphans:
            send(process, signum)
        while any(alive(process) for process in seen.orphans) and time.monotonic() < deadline:
            time.sleep(0.05)
