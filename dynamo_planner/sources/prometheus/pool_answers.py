"""What Prometheus knows of a pool at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dynamo_planner.engines.vocabulary import Quantity
from dynamo_planner.sources.aggregation.sample import SHARE_TOLERANCE, SHARES
from dynamo_planner.sources.aggregation.selection import is_plausible
from dynamo_planner.sources.aggregation.window import WorkerHistory


@dataclass(frozen=True)
class PoolAnswers:
    """A pool at one moment.

    Args:
        workers: the histories of its workers, with those that could not be scraped, and of all of them together.
        causes: for each worker without a recent sample, why.
        why_no_coverage: why it is unknown how many workers there should be; empty where it is known.
        remarks: what else is to be said, by the path within the pool.
    """

    workers: list[WorkerHistory]
    causes: dict[str, str]
    why_no_coverage: str
    remarks: Mapping[tuple[str, ...], str]

    @property
    def observed(self) -> list[WorkerHistory]:
        """The workers that Prometheus has recent samples of."""
        return [history for history in self.workers if history.observed]

    @property
    def observed_at_s(self) -> float | None:
        """When the least recent of the workers' last samples was taken, of those within the window (Unix seconds)."""
        return min((history.last.at_s for history in self.observed if history.last), default=None)


class UnreadableError(Exception):
    """The workers of a pool cannot be distinguished, or the query for them failed; the message says why."""


def value_or_why(quantity: Quantity, value: float) -> float | str:
    """The value, or why it is implausible."""
    share = quantity in SHARES
    if share and 1 < value <= 1 + SHARE_TOLERANCE:
        return 1.0
    if is_plausible(value) and not (share and value > 1):
        return value
    return f"{quantity} is {value:g}, which it cannot be"
