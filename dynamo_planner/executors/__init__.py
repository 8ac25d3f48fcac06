"""Where actions go. An executor knows nothing of policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dynamo_planner.core.decision import Action, Decision, Outcome, Reason
from dynamo_planner.core.lazy import lazy_exports
from dynamo_planner.core.snapshot import PoolSpec, Replicas
from dynamo_planner.core.values import KnobValue

if TYPE_CHECKING:
    from dynamo_planner.executors.config import ExecutorConfig

__all__ = [
    "ConsidersLoad",
    "ElectsLeader",
    "Executor",
    "ExecutorConfig",
    "ExecutorError",
    "FollowsLeader",
    "PublishesMetrics",
    "RecordsDecisions",
    "ReportsEndpoints",
    "ReportsKnobs",
    "ReportsTroubles",
    "ReportsUnknown",
    "StartsMinimums",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {"ExecutorConfig": "config"},
    renamed={"SaysWhy": "ReportsUnknown", "SaysKnobs": "ReportsKnobs", "TellsWhy": "RecordsDecisions"},
    removed_in="0.3.0",
)


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
class ReportsUnknown(Protocol):
    """An executor that reports why it could not read a pool; optional."""

    @property
    def unknown(self) -> Mapping[str, str]:
        """The reason, by pool, for each ``None`` of the last :meth:`Executor.observe`."""


@runtime_checkable
class ReportsTroubles(Protocol):
    """An executor that reports what keeps replicas from starting, serving or ending; optional."""

    @property
    def troubles(self) -> Sequence[Reason]:
        """What lasted in the last :meth:`Executor.observe`: one reason for each pool and code.

        Its values have ``began_at_s``, since when (Unix seconds), which the metrics page shows as long as it lasts.
        """


@runtime_checkable
class ReportsKnobs(Protocol):
    """An executor that reports the values of engine knobs; optional."""

    @property
    def knobs(self) -> Mapping[str | None, Mapping[str, KnobValue]]:
        """Values by knob, by pool; under ``None``, those of the service as a whole."""


@runtime_checkable
class ConsidersLoad(Protocol):
    """An executor that ends the least busy workers first; optional."""

    def consider(self, requests: Mapping[str, Mapping[str, float]]) -> None:
        """Take the requests waiting and running at each worker, by pool and name; called before :meth:`apply`."""


@runtime_checkable
class RecordsDecisions(Protocol):
    """An executor that records decisions where it acts, as Kubernetes Events for example; optional."""

    def tell(self, decision: Decision, outcomes: tuple[Outcome, ...]) -> None:
        """Record a decision and the outcomes of its actions; called after each step."""


@runtime_checkable
class ElectsLeader(Protocol):
    """An executor of which several instances may run and one leads; optional."""

    @property
    def leading(self) -> bool | None:
        """Whether this instance leads; ``None`` without an election. Called from other threads."""


@runtime_checkable
class FollowsLeader(Protocol):
    """An executor that can act only while another one of the same planner leads; optional."""

    def follow(self, other: object) -> bool:
        """Follow another executor; returns whether it does. Called before the start."""


@runtime_checkable
class ReportsEndpoints(Protocol):
    """An executor that knows where its workers serve their metrics; optional."""

    def endpoints(self) -> Mapping[str, Mapping[str, str]]:
        """The base URLs of the workers that are ready, by pool and name. Called from other threads."""


@runtime_checkable
class StartsMinimums(Protocol):
    """An executor that starts the minimum of each pool by itself; optional."""

    def leave_minimums(self) -> None:
        """Start only what is decided: where models share a budget, a minimum waits until there is room for it. Called
        before the start."""


@runtime_checkable
class PublishesMetrics(Protocol):
    """An executor with metrics of its own for the planner's page; optional."""

    def collect(self) -> Iterable[Any]:
        """The metric families as they are now, as a collector of prometheus_client has them."""


class ExecutorError(Exception):
    """What an executor acts on could not be reached or read; the message says what, why, and what to do."""
