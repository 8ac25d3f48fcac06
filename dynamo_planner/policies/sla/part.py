"""Parts: what :class:`~dynamo_planner.policies.sla.SlaPolicy` is wired of, each with a state of its own."""

from __future__ import annotations

from typing import Any

from dynamo_planner.core.decision import Reason, State
from dynamo_planner.core.node import Node


class Part(Node):
    """A part of a policy: parameters that are data, and pure functions of a state and what is new.

    A part keeps what it remembers in a state of its own, of ``state_type``. A state of another kind or version, or one
    that does not read, is reset alone.
    """


class Recalled:
    """The values of the parts out of their states; what had to be reset is collected in ``reasons``."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []

    def __call__(self, part: Node, state: State | None, pool: str | None = None) -> Any:
        value, reset = part.recall(state)
        if reset:
            self.reasons += [reason.replace(pool=pool) for reason in reset]
        return value
