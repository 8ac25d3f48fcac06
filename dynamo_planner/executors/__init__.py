"""Where actions go. An executor knows nothing of policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from dynamo_planner.core.decision import Action, Decision, Outcome
from dynamo_planner.core.snapshot import PoolSpec, Replicas
from dynamo_planner.core.values import KnobValue


class Executor(Protocol):
    """Acts on pools. Synchronous, and safe to call from a thread."""

    @property
    def pools(self) -> Mapping[str, PoolSpec]:
        """The pools that it manages, and what a replica of each is."""

    def observe(self) -> Mapping[str, Replicas | None]:
        """The replicas of each pool; ``None`` where they could not be read.

        Raises :class:`ExecutorError` where nothing at all could be read.
        """

    def apply(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        """Act, and report an outcome for each action, in their order.

        Reads before it writes, and refuses an action whose ``expected`` is not what is there. It never raises for an
        action that went wrong: that is an outcome.
        """


@runtime_checkable
class SaysWhy(Protocol):
    """An executor that can say why it could not read a pool; optional."""

    @property
    def unknown(self) -> Mapping[str, str]:
        """Why, by pool, the last :meth:`Executor.observe` has ``None``."""


@runtime_checkable
class SaysKnobs(Protocol):
    """An executor that knows how knobs are set; optional."""

    @property
    def knobs(self) -> Mapping[str | None, Mapping[str, KnobValue]]:
        """By pool, and for the service as a whole under ``None``."""


@runtime_checkable
class TellsWhy(Protocol):
    """An executor that can tell why it acted, in the place where it acts; optional."""

    def tell(self, decision: Decision, outcomes: tuple[Outcome, ...]) -> None:
        """Called after each step, with what was decided and what became of it."""


class ExecutorError(Exception):
    """What an executor acts on could not be reached or read; the message says what, why, and what to do."""
