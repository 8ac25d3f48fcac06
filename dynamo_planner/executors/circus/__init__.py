"""Workers as local processes under a Circus arbiter (extra ``circus``).

Describing pools needs no extra; starting the executor does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynamo_planner.executors.circus.pool import CircusPool
from dynamo_planner.executors.circus.records import WorkerInfo

if TYPE_CHECKING:
    from dynamo_planner.executors.circus.executor import CircusExecutor

__all__ = ["CircusExecutor", "CircusPool", "WorkerInfo"]


def __getattr__(name: str) -> Any:
    """Import the executor, and circus with it, only when it is used: configurations need only the pools."""
    if name != "CircusExecutor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dynamo_planner.executors.circus.executor import CircusExecutor  # noqa: PLC0415

    return CircusExecutor
