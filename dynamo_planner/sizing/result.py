"""What sizing says of one role: how many replicas, and how that came to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from dynamo_planner.core.snapshot import Role

DISAGGREGATED: tuple[Role, ...] = ("prefill", "decode")


class Fact(NamedTuple):
    """One step of how a number came to be: the code, message and values of a
    :class:`~dynamo_planner.core.decision.Reason`."""

    code: str
    message: str
    values: dict[str, float]


@dataclass(frozen=True)
class Need:
    """The replicas that a role needs.

    ``load`` is the fractional need, for sharing a budget: replicas that would be busy if all were as full as the
    targets allow. ``attained`` is the share of the requests with a chance that ``replicas`` serve in time, as
    predicted, and ``hopeless`` the share that never has one. ``limit`` is what binds: ``waiting``, ``itl``, ``kv``, or
    ``stability`` where the queue would only just not grow. ``extrapolated`` says that nothing was measured there.
    """

    role: Role
    load: float
    replicas: int
    attained: float
    hopeless: float
    limit: str
    extrapolated: bool
    facts: tuple[Fact, ...] = ()
