"""The ``check`` command."""

from __future__ import annotations

from dynamo_planner.cli.check.command import check

__all__ = ["check"]
