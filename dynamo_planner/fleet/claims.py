"""Budgets, the claims of models on them, and the grants: the input and output of sharing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from dynamo_planner.core.values import Count, Frozen

NONE: Mapping[str, float] = MappingProxyType({})

UNBOUNDED_REPLICAS = 1_000_000
"""The replicas that a pool without ``max_replicas`` may be raised to."""


class Budget(Frozen):
    """A budget that several models share: GPUs of one kind, cost, watts.

    Args:
        total: The most that all models hold together. Left out: what the nodes have.
        least: What the models keep together, where their ``max_replicas`` allow it, so that it is only redistributed.
            Default 0.
        nodes: The size of each node, in GPUs. Default ``None``, unknown: replicas are taken to fit wherever there are
            enough GPUs. With node sizes, eight free GPUs on two nodes hold no replica of eight.
    """

    total: Annotated[float, Field(ge=0)] | None = None
    least: Annotated[float, Field(ge=0)] = 0.0
    nodes: tuple[Annotated[Count, Field(ge=1)], ...] | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.total is None and self.nodes is None:
            raise ValueError("a budget needs a total, or the sizes of its nodes")
        if self.least > self.amount:
            raise ValueError(f"least ({self.least:g}) is above the total ({self.amount:g}): lower it")
        return self

    @property
    def amount(self) -> float:
        """The total."""
        return float(sum(self.nodes or ())) if self.total is None else self.total


class PoolClaim(NamedTuple):
    """One pool of a claim.

    Args:
        name: The name of the pool.
        uses: What one replica holds of each budget.
        present: Its target.
        there: Replicas that were launched and hold their part, without those that drain. Default ``None``, ``present``.
        draining: Replicas that hold theirs until they are gone. Default 0.
        most: Replicas that it may be raised to for the sake of ``Budget.least``. Default 0.
        load: Its load in fractional replicas, by which it is. Default 0.
        stage: Pools with the same stage, as the prefill pools of a model, do not go to zero while they are to serve.
            Default empty.
    """

    name: str
    uses: Mapping[str, float]
    present: int
    there: int | None = None
    draining: int = 0
    most: int = 0
    load: float = 0.0
    stage: str = ""

    def held(self, replicas: int) -> int:
        """The replicas that hold something at the peak of a move: nothing of what is there counts as gone yet."""
        return max(self.present, self.launched, replicas) + self.draining

    @property
    def launched(self) -> int:
        """Replicas that were launched and do not drain."""
        return self.present if self.there is None else self.there


class Option(NamedTuple):
    """What a model may be given: replicas of each of its pools, and what they are worth."""

    counts: tuple[int, ...]
    worth: float


class Claim(NamedTuple):
    """The claim of one model.

    Args:
        model: The name of the model.
        pools: Its pools, which move together: an option says how many replicas each has.
        options: What it may be given, the least first and what it wants last.
        weight: What its worth counts. Default 1.
        priority: Models of a higher one are served first, whatever others lose. Default 0.
        floor: What it may always have of each budget, where it wants it. Default none.
        fixed: Whether it keeps what it has, because its metrics or replicas are unknown. Default false.
    """

    model: str
    pools: tuple[PoolClaim, ...]
    options: tuple[Option, ...]
    weight: float = 1.0
    priority: int = 0
    floor: Mapping[str, float] = NONE
    fixed: bool = False

    def used(self, counts: tuple[int, ...], budget: str) -> float:
        """What these replicas hold of a budget."""
        return sum(count * pool.uses.get(budget, 0.0) for pool, count in zip(self.pools, counts, strict=True))

    @property
    def wanted(self) -> tuple[int, ...]:
        """The replicas of each pool that the model wants."""
        return self.options[-1].counts

    @property
    def kept(self) -> tuple[int, ...]:
        """Of what it wants, the replicas of each pool that it has."""
        return tuple(min(pool.present, count) for pool, count in zip(self.pools, self.wanted, strict=True))


class Grant(NamedTuple):
    """What a model is given.

    Args:
        goal: The replicas of each pool to settle on.
        now: The replicas of each pool that can be set at once: every fall, and each rise for which there is room before
            the falls are done.
    """

    goal: tuple[int, ...]
    now: tuple[int, ...]
