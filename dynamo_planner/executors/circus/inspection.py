"""Inspection of a namespace from outside, without locking it: its records, its processes, and where they disagree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dynamo_planner.core.values import Frozen
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus.client import ArbiterClient, ArbiterError
from dynamo_planner.executors.circus.clock import SteadyClock
from dynamo_planner.executors.circus.pool import MARK
from dynamo_planner.executors.circus.processes import alive, marked, output_directories, with_arguments
from dynamo_planner.executors.circus.records import Process, Records, WorkerInfo, WorkerRecord
from dynamo_planner.executors.circus.state_dir import default_state_dir, temporary_state_dirs
from dynamo_planner.executors.circus.store import Store


class NamespaceStatus(Frozen):
    """One namespace as it is now.

    Args:
        namespace: Its name.
        state_file: Path of its state file.
        planner: Pid of the planner that runs it, or ``None``.
        arbiter: Endpoint of its arbiter, or ``None``.
        watchers: Watchers of the arbiter; ``None`` where it does not answer.
        workers: Its workers, by the records.
        orphans: Processes of its workers (and, if the state file is damaged, of its arbiter) without a record, as far
            as they still write into its logs.
        disagreements: What does not fit together, in words.
        damaged: Why the state file cannot be trusted, or ``None``.
    """

    namespace: str
    state_file: Path
    planner: int | None = None
    arbiter: str | None = None
    watchers: tuple[str, ...] | None = None
    workers: tuple[WorkerInfo, ...] = ()
    orphans: tuple[Process, ...] = ()
    disagreements: tuple[str, ...] = ()
    damaged: str | None = None


def namespaces(state_dir: Path | str | None = None, only: str | None = None) -> list[tuple[str, Path]]:
    """The namespaces that have a state file or processes, and their state directories.

    Without a state directory, these are the default one, those of demos, and all that processes of this user write
    into. With ``only``, it is the namespace of that name; in the default directory where there is none.
    """
    directory = Path(state_dir or default_state_dir()).expanduser().absolute()
    files = [*directory.glob("*.json"), *(() if state_dir else temporary_state_dirs("*.json"))]
    found = {(path.stem, path.parent) for path in files}
    found |= {(each.name, each.parent) for each in _directories_in_use() if not state_dir or each.parent == directory}
    named = sorted(each for each in found if only in {None, each[0]})
    return named or ([] if only is None else [(only, directory)])


def _directories_in_use() -> Iterator[Path]:
    """The directories of namespaces that workers and arbiters of this user write their logs into."""
    for process, mark in marked(f"{MARK}="):
        namespace = mark.partition("=")[2].partition("/")[0]
        yield from (each for each in output_directories(process) if each.name == namespace)
    for _, arguments in with_arguments("circus.circusd"):
        with suppress(OSError):
            config = next(Path(argument) for argument in arguments if argument.endswith("circus.ini"))
            logs = [line.partition("=")[2].strip() for line in config.read_text().splitlines() if "logoutput" in line]
            yield from (Path(log).parent for log in logs if Path(log).name == "circusd.log")


def inspect(namespace: str, state_dir: Path | str | None = None) -> NamespaceStatus:
    """Inspect a namespace. Changes nothing, and can be called while a planner runs it."""
    store = Store(state_dir or default_state_dir(), namespace)
    running = [
        (process, mark)
        for process, mark in marked(f"{MARK}={namespace}/")
        if store.directory in output_directories(process)  # the same namespace may be in use in another state directory
    ]
    try:
        records = store.load()
    except ExecutorError as error:
        orphans = (*(process for process, _ in running), *_arbiters(store))
        return NamespaceStatus(namespace=namespace, state_file=store.file, orphans=orphans, damaged=str(error))
    clock = SteadyClock()
    clock.adopt(records)
    known = {records.mark(worker) for worker in records.workers}
    orphans = tuple(process for process, mark in running if mark not in known)
    orphans += tuple(_arbiters(store)) if records.arbiter is None else ()
    watchers = _watchers(records)
    return NamespaceStatus(
        namespace=namespace,
        state_file=store.file,
        planner=records.planner.pid if records.planner and alive(records.planner) else None,
        arbiter=records.arbiter.endpoint if records.arbiter else None,
        watchers=watchers,
        workers=tuple(WorkerInfo.of(worker, store.log(worker.name), clock.to_unix) for worker in records.workers),
        orphans=orphans,
        disagreements=tuple(_disagreements(records, watchers, orphans)),
    )


def _arbiters(store: Store) -> list[Process]:
    """The arbiters that were started for a namespace, by the log that their configuration names."""
    found = []
    for process, arguments in with_arguments("circus.circusd"):
        config = next((Path(argument) for argument in arguments if argument.endswith("circus.ini")), None)
        with suppress(OSError):
            if config is not None and str(store.log("circusd")) in config.read_text():
                found.append(process)
    return found


def _watchers(records: Records) -> tuple[str, ...] | None:
    if records.arbiter is None:
        return None
    client = ArbiterClient(records.arbiter.endpoint, timeout_s=1.0, conflict_s=1.0)
    try:
        found = client.call("list").get("watchers", ())
    except ArbiterError:
        return None
    finally:
        client.close()
    return tuple(sorted(name for name in found if name.startswith(f"{records.namespace}_".lower())))


def _disagreements(records: Records, watchers: tuple[str, ...] | None, orphans: tuple[Process, ...]) -> list[str]:
    found = []
    if records.workers and not alive(records.planner):
        found.append("no planner runs it, so its workers are not supervised")
    found += records.unwritten
    if records.arbiter is not None and watchers is None:
        found.append(f"its arbiter at {records.arbiter.endpoint} does not answer")
    for worker in records.workers:
        if worker.phase in {"starting", "ready"} and not alive(worker.process):
            found.append(f"{worker.name} is recorded as {worker.phase}, and its process has ended")
        elif watchers is not None and alive(worker.process) and worker.name.lower() not in watchers:
            found.append(f"{worker.name} runs without a watcher of the arbiter, as after the arbiter was killed")
    names = {worker.name.lower() for worker in records.workers}
    found += [f"the arbiter has a watcher {name}, which has no record" for name in watchers or () if name not in names]
    found += [f"GPU {gpu} is given to {' and '.join(users)}" for gpu, users in _shared_gpus(records.workers).items()]
    found += [f"process {process.pid} is a worker or an arbiter without a record" for process in orphans]
    return found


def _shared_gpus(workers: tuple[WorkerRecord, ...]) -> dict[int, list[str]]:
    users: dict[int, list[str]] = {}
    for worker in workers:
        for gpu in worker.gpus:
            users.setdefault(gpu, []).append(worker.name)
    return {gpu: names for gpu, names in users.items() if len(names) > 1}
