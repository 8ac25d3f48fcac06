"""``dynamo-planner demo``: simulated workers, a replayed trace, and a planner that scales, on one machine."""

from dynamo_planner.cli.demo.command import demo

__all__ = ["demo"]
