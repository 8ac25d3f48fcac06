"""Several models on shared GPUs: what each may have, by floors, priorities and what a replica is worth."""

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports

if TYPE_CHECKING:
    from dynamo_planner.fleet.claims import Budget, Claim, Grant, Option, PoolClaim
    from dynamo_planner.fleet.deferrable import DeferrablePolicy
    from dynamo_planner.fleet.fleet import Fleet, FleetDecision
    from dynamo_planner.fleet.mix import Hardware, Mix, cheapest_mix, rates_in_time
    from dynamo_planner.fleet.mix_policy import MixPolicy, PoolHardware
    from dynamo_planner.fleet.requests import Member
    from dynamo_planner.fleet.sharing import share

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Budget": "claims",
        "Claim": "claims",
        "DeferrablePolicy": "deferrable",
        "Fleet": "fleet",
        "FleetDecision": "fleet",
        "Grant": "claims",
        "Hardware": "mix",
        "Member": "requests",
        "Mix": "mix",
        "MixPolicy": "mix_policy",
        "Option": "claims",
        "PoolClaim": "claims",
        "PoolHardware": "mix_policy",
        "cheapest_mix": "mix",
        "rates_in_time": "mix",
        "share": "sharing",
    },
)

__all__ = [
    "Budget",
    "Claim",
    "DeferrablePolicy",
    "Fleet",
    "FleetDecision",
    "Grant",
    "Hardware",
    "Member",
    "Mix",
    "MixPolicy",
    "Option",
    "PoolClaim",
    "PoolHardware",
    "cheapest_mix",
    "rates_in_time",
    "share",
]
