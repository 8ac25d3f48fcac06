"""The ``shadow`` command: what a policy would have recommended, beside what was there."""

from __future__ import annotations

from dynamo_planner.cli.shadow.command import shadow

__all__ = ["shadow"]
