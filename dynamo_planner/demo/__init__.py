"""``dynamo-planner demo``: workers, simulated or llama.cpp, a replayed trace, and a planner that scales them."""

from dynamo_planner.demo.command import demo

__all__ = ["demo"]
