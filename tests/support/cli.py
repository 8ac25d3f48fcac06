"""The command ``dynamo-planner`` as a process, and waiting for what it does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil


def planner(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [str(Path(sys.executable).with_name("dynamo-planner")), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=100, check=False)


@contextmanager
def running(path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A ``dynamo-planner run`` that goes on until the end of the block."""
    command = [str(Path(sys.executable).with_name("dynamo-planner")), "run", str(path), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        yield process
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.communicate()
        for child in family:
            if child.is_running():
                child.kill()


def until(condition: Callable[[], Any], what: str, within_s: float = 30.0) -> Any:
    """Ask again and again until the answer is true, and return it."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.1)
    raise AssertionError(f"not within {within_s:g} s: {what}")
