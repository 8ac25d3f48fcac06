"""Launcher that Circus starts: it notes its process for the planner and becomes the worker by ``exec``.

Run as a script with nothing but the standard library, by an interpreter without site packages. In this order:

1. the log file becomes standard output and error;
2. pid, start and boot are noted in ``TOKEN.pid``, so that a planner that was killed meanwhile still finds the process;
3. the state file says whether this start is still wanted: a planner withdraws a start by changing the state
   first and looking for the note second, so one of the two always sees the other;
4. the command of the state file is executed in place of this one, with the environment that Circus was given for it.

Circus expands ``$(circus.*)`` in arguments and loads what ``PYTHONPATH`` names into its own process; it sees neither
the worker's arguments nor its environment this way.
"""

# Importing pathlib would double the time that this takes.
# ruff: noqa: PTH105, PTH123

from __future__ import annotations

import json
import os
import signal
import sys

ENVIRONMENT = "DYN_PLANNER_LAUNCH_ENV"


def main(state_file: str, directory: str, name: str, token: str) -> None:
    """Become the worker ``name``, if the start ``token`` is still wanted."""
    log = os.open(f"{directory}/{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    _note_process(f"{directory}/{token}.pid")
    with open(state_file) as file:
        workers = json.load(file)["workers"]
    wanted = ("starting", "ready")  # ready already, where nothing but time says so
    mine = [worker for worker in workers if worker["token"] == token and worker["phase"] in wanted]
    if not mine:
        sys.exit(f"{name}: this start is no longer wanted")
    command = mine[0]["command"]
    environment = json.loads(os.environ[ENVIRONMENT])
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.chdir(mine[0]["working_dir"])
        os.execvpe(command[0], command, environment)  # noqa: S606 - the very purpose; no shell
    except OSError as error:
        sys.exit(f"{name}: cannot run {command[0]!r} in {mine[0]['working_dir']!r}: {error.strerror}")


def _note_process(path: str) -> None:
    with open("/proc/self/stat", errors="replace") as file:
        started_ticks = int(file.read().rpartition(")")[2].split()[19])
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot_id = file.read().strip()
    except OSError:
        boot_id = ""
    note = {"pid": os.getpid(), "started_ticks": started_ticks, "boot_id": boot_id}
    with open(f"{path}.new", "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(note, file)
    os.replace(f"{path}.new", path)


if __name__ == "__main__":
    main(*sys.argv[1:])
