"""The replicas that a role requires, and how the number came to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
class Requirement:
    """The replicas that a role requires for a load and an SLA.

    Args:
        role: the role.
        load: the fractional requirement, by which a budget is shared: replicas that would be busy if all were always
            as full as the targets allow.
        replicas: the smallest replica count that meets the attainment.
        attained: predicted share (0 to 1) of the attainable requests that ``replicas`` serve in time. Default 1.
        unattainable: share (0 to 1) of requests that miss a target with no other request beside them. Default 0.
        limit: what binds: ``waiting``, ``itl``, ``kv``, or ``stability`` where one replica fewer would not keep up.
            Default ``stability``.
        extrapolated: whether nothing was measured where the replicas are to work. Default false.
        facts: how the number came to be. Default none.
        residence_s: mean seconds that a request stays on a replica as full as the targets allow. Default 0, unknown.
            The number in flight is the arrivals of the last ``residence_s`` seconds, so where this is long, the rate
            to size for is the mean over the time from ``residence_s`` before the horizon to the horizon, of what came
            and what is forecast, rather than the rate at the horizon.
    """

    role: Role
    load: float
    replicas: int
    attained: float = 1.0
    unattainable: float = 0.0
    limit: str = "stability"
    extrapolated: bool = False
    facts: tuple[Fact, ...] = ()
    residence_s: float = 0.0

    def within(self, replicas: int) -> Requirement:
        """The same with at most this many replicas."""
        if self.replicas <= replicas:
            return self
        fact = Fact("LittleKnown", f"at most {replicas} while little is known of the engines", {"replicas": replicas})
        return replace(self, replicas=replicas, load=min(self.load, float(replicas)), facts=(*self.facts, fact))
