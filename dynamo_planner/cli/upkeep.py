"""Show, end and mend the local backend (extra ``circus``)."""

from __future__ import annotations

import os
import shutil
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
from dynamo_planner.executors.circus.state_dir import abandoned_directories, is_temporary


def show_all(namespace: str | None, state_dir: Path | None, *, as_json: bool) -> bool:
    """Show these namespaces; returns whether all is as it should be."""
    found = [inspect(name, directory) for name, directory in namespaces(state_dir, namespace)]
    if not found and not as_json:
        typer.echo("no planner has left anything here")
    for status in found:
        if as_json:
            typer.echo(status.model_dump_json())
        else:
            _show(status)
    return not any(status.disagreements or status.damaged for status in found)


def _show(status: NamespaceStatus) -> None:
    console = Console()
    planner = f"planner {status.planner}" if status.planner else "no planner"
    arbiter = "no arbiter" if status.watchers is None else f"{len(status.watchers)} watchers at {status.arbiter}"
    console.print(f"[bold]{status.namespace}[/bold]: {planner}, {arbiter}, {status.state_file}", soft_wrap=True)
    for worker in status.workers:
        since = datetime.fromtimestamp(worker.since_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        gpus = f", GPUs {','.join(map(str, worker.gpus))}" if worker.gpus else ""
        where = f"pid {worker.pid}, port {worker.port}{gpus}, log {worker.log}"
        why = f": {worker.message.splitlines()[0]}" if worker.message else ""
        console.print(f"  {worker.name}: {worker.state} since {since}, {where}{why}", soft_wrap=True, highlight=False)
    for problem in (*status.disagreements, *([status.damaged] if status.damaged else [])):
        console.print(f"[red]disagrees:[/red] {problem}", soft_wrap=True, highlight=False)


def stop_namespace(namespace: str, state_dir: Path | None, within_s: float) -> None:
    """Drain all workers, end planner and arbiter, and remove the state file."""
    places = [directory for _, directory in namespaces(state_dir, namespace)]
    if len(places) > 1:
        raise ExecutorError(f"{namespace} is in {' and in '.join(map(str, places))}: name one by --state-dir")
    state_dir = places[0]
    status = inspect(namespace, state_dir)
    if status.damaged is not None:
        raise ExecutorError(status.damaged)
    if status.planner is not None:
        typer.echo(f"asking planner {status.planner} to drain its workers and end")
        _end_planner(namespace, status.planner, state_dir, within_s)
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
    if state_dir is not None and is_temporary(state_dir):
        shutil.rmtree(state_dir, ignore_errors=True)


def mend_all(namespace: str | None, state_dir: Path | None, *, yes: bool) -> None:
    """Mend what is found, asking before each step unless ``yes``."""
    for name, directory in namespaces(state_dir, namespace):
        status = inspect(name, directory)
        _show(status)
        if status.planner is not None:
            typer.echo(f"{name}: planner {status.planner} runs it and mends what it finds; nothing to do here")
        elif status.damaged is not None:
            _mend_damaged(status, yes)
        elif not (status.disagreements or status.workers):
            typer.echo(f"{name}: nothing to mend")
        else:
            _mend(status, directory, yes)
    for directory in abandoned_directories() if not (namespace or state_dir) else ():
        if yes or typer.confirm(f"remove {directory}, which a demo left?"):
            shutil.rmtree(directory, ignore_errors=True)
            typer.echo(f"{directory}: removed")


def _mend_damaged(status: NamespaceStatus, yes: bool) -> None:
    if not status.state_file.exists():
        return
    aside = status.state_file.with_name(f"{status.state_file.name}.damaged-{int(time.time())}")
    if yes or typer.confirm(f"end the {len(status.orphans)} processes of it, and set the state file aside as {aside}?"):
        _end_orphans(status)
        status.state_file.rename(aside)
        typer.echo(f"{status.namespace}: mended")


def _mend(status: NamespaceStatus, state_dir: Path | None, yes: bool) -> None:
    if status.orphans and (yes or typer.confirm(f"end {len(status.orphans)} processes that no record knows?")):
        _end_orphans(status)
    ask = f"drain the {len(status.workers)} workers that are written down? No: the next planner takes them over"
    if not status.workers or yes or typer.confirm(ask):
        _drain(status.namespace, state_dir)
    typer.echo(f"{status.namespace}: done")


def _end_orphans(status: NamespaceStatus) -> None:
    for signum, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience_s
        for process in status.orphans:
            send(process, signum)
        while any(alive(process) for process in status.orphans) and time.monotonic() < deadline:
            time.sleep(0.05)
