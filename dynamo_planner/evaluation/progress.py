"""Progress of backtests: a bar for each policy on a terminal (extra ``cli``) or in a notebook, else nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from importlib.util import find_spec
from typing import Any

Progress = Callable[[str, float], None]
"""Called with the name of a policy, and the share of the trace that it has been through."""

REDRAW_S = 0.2
"""A notebook draws its bars again after this many seconds."""


@contextmanager
def shown(progress: Progress | bool) -> Iterator[Progress]:
    """What to call with the progress: the caller's own function, bars, or nothing.

    Bars are drawn for ``True``, in a notebook, or on standard error where that is a terminal and rich is installed.
    """
    if callable(progress):
        yield progress
    elif progress and (display := _notebook_display()):
        yield _in_notebook(display)
    elif progress and sys.stderr.isatty() and find_spec("rich"):
        with _on_terminal() as update:
            yield update
    else:
        yield lambda name, share: None


@contextmanager
def _on_terminal() -> Iterator[Progress]:
    from rich.console import Console  # noqa: PLC0415  # an extra
    from rich.progress import Progress as Bars  # noqa: PLC0415

    tasks: dict[str, Any] = {}
    with Bars(console=Console(stderr=True), transient=True) as bars:

        def update(name: str, share: float) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=1.0)
            bars.update(tasks[name], completed=share)

        yield update


def _notebook_display() -> Any:
    """What shows HTML in the cell that runs; ``None`` outside a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return ipython.display if ipython and getattr(shell, "kernel", None) is not None else None


def _in_notebook(display: Any) -> Progress:
    shares: dict[str, float] = {}
    handle = display.display(display.HTML(""), display_id=True)
    drawn_s = 0.0

    def update(name: str, share: float) -> None:
        nonlocal drawn_s
        shares[name] = share
        over = all(each >= 1.0 for each in shares.values())
        if over or time.monotonic() - drawn_s >= REDRAW_S:
            drawn_s = time.monotonic()
            bars = (f"{escape(each)} <progress value='{value:.3f}'></progress><br>" for each, value in shares.items())
            handle.update(display.HTML("" if over else "".join(bars)))

    return update
